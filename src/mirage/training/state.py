"""Checkpoints that a run goes on from bit for bit: written whole, checked when read, the last few kept."""

import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mirage.training.fit import save_atomic
from mirage.video.io import write_json
from mirage.world.disk import hash_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands."""

    step: int
    tensors: dict[str, Tensor]
    about: dict
    """What else is known, as JSON."""


class Checkpoints:
    """The checkpoints of a folder: `step-N.safetensors` and, once that is whole, `step-N.json` with its checksum.

    Args:
        folder: Where they are; made when the first is written.
        keep: How many are kept.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def save(self, step: int, tensors: dict[str, Tensor], about: dict) -> None:
        """Write a checkpoint, then drop the oldest. If the disk is full the older ones stay as they were.

        Args:
            step: Steps that are done.
            tensors: Weights and the optimiser's state.
            about: What else is to be known.

        Raises:
            OSError: In one sentence, if it cannot be written.
        """
        path = self.folder / f"step-{step:08}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_atomic(tensors, path)
            whole = {"step": step, "bytes": path.stat().st_size, "sha256": hash_file(path), "about": about}
            write_json(path.with_suffix(".json"), whole)
        except (OSError, SafetensorError) as error:
            for left in self.folder.glob(f"{path.stem}.*"):
                with contextlib.suppress(OSError):
                    left.unlink()
            older = self._steps()
            stays = f"the one of step {older[-1]} stays" if older else "there is none yet"
            raise OSError(f"cannot write the checkpoint {path}: {_reason(error)}; {stays}") from error
        for old in self._steps()[: -self.keep]:
            self._remove(old)
        known = {f"step-{n:08}" for n in self._steps()}
        for stray in self.folder.glob("step-*"):  # of a run that was killed while it wrote
            if stray.name.split(".")[0] not in known:
                stray.unlink()

    def latest(self) -> Checkpoint | None:
        """The last checkpoint that is whole; a damaged one is told of and passed over. None if there is none."""
        for step in reversed(self._steps()):
            path = self.folder / f"step-{step:08}.safetensors"
            try:
                told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                if path.stat().st_size != told["bytes"] or hash_file(path) != told["sha256"]:
                    raise ValueError("its checksum is not that of its content")
                return Checkpoint(told["step"], load_file(path), told["about"])
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                logger.warning("checkpoint %s is damaged (%s) and is passed over", path, _reason(error))
        return None

    def clear(self) -> None:
        """Remove all of them: the stage is done."""
        for path in self.folder.glob("step-*"):
            path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _steps(self) -> list[int]:
        return sorted(int(path.stem.split("-")[1]) for path in self.folder.glob("step-????????.json"))

    def _remove(self, step: int) -> None:
        for kind in (".json", ".safetensors"):  # in this order: what has no JSON is no checkpoint
            (self.folder / f"step-{step:08}{kind}").unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text[:1].lower() + text[1:]
