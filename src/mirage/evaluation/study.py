"""Any measurement as scenes times rows: in several processes, kept scene by scene, resumed where it was."""

import contextlib
import functools
import hashlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from mirage.pipeline import EMBEDDED, MiragePipeline

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is measured, of which scenes, in which rows. Other scenes and rows of the same settings share a folder."""

    task: str
    """Its name."""
    settings: dict
    """What must be equal for results to share a folder, as JSON has it."""
    scenes: tuple[str, ...]
    """Names of the scenes."""
    rows: tuple[str, ...]
    """Names of the rows."""
    measure: Callable[[str, tuple[str, ...], Path], list[dict]]
    """From a scene, the rows that it lacks and the folder, one record per row with `scene`, `row` and figures; it is
    sent to other processes."""


def run(
    study: Study,
    out: str | os.PathLike,
    *,
    processes: int = 1,
    on_scene: Callable[[int, int], None] | None = None,
    left_out: dict[str, str] | None = None,
) -> list[dict]:
    """Measure all rows of all scenes.

    Each scene is appended to `results.jsonl` as soon as it is measured; what is there already is not measured again,
    so a run that was interrupted, or that shall have more scenes or rows, goes on where it was.

    Args:
        study: What to measure.
        out: Folder of the results; made if missing.
        processes: Scenes that are measured at a time, with one thread each; 1 stays in this process.
        on_scene: Called with the numbers of scenes that are done and wanted, at the start and after each.
        left_out: Takes the scenes that cannot be measured, each with the reason, while the rest goes on; without it
            the first of them ends the run.

    Returns:
        One record per scene and row, in their order.

    Raises:
        ValueError: If the folder holds results of other settings, or a scene (all of them) cannot be measured.
    """
    out = Path(out)
    journal = _Journal(out / "results.jsonl", {"task": study.task} | study.settings)
    todo = {s: tuple(r for r in study.rows if (s, r) not in journal.records) for s in study.scenes}
    todo = {scene: rows for scene, rows in todo.items() if rows}
    done = len(study.scenes) - len(todo)
    report = on_scene or (lambda done, total: logger.info("measured %d of %d scenes", done, total))
    report(done, len(study.scenes))
    for scene, found in _measured(study, todo, out, processes):
        if isinstance(found, ValueError):
            if left_out is None:
                raise found
            left_out[scene] = str(found)
            logger.warning("%s is left out: %s", scene, found)
            continue
        journal.append([_rounded(record) for record in found])
        done += 1
        report(done, len(study.scenes))
    whole = [scene for scene in study.scenes if all((scene, row) in journal.records for row in study.rows)]
    if not whole:
        raise ValueError(f"no scene could be measured: {'; '.join((left_out or {}).values())}")
    return [journal.records[scene, row] for scene in whole for row in study.rows]


@functools.lru_cache(maxsize=2)
def load_model(model: str, device: str) -> MiragePipeline:
    """A pipeline without progress bars; asked for again, the same.

    Args:
        model: As `MiragePipeline.from_pretrained` takes it.
        device: Where it runs.

    Returns:
        The pipeline.
    """
    pipeline = MiragePipeline.from_pretrained(model).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def fingerprint(model: str) -> str:
    """Tells other weights of the same name; a model on the hub is known by its name.

    Args:
        model: A name or a folder.

    Returns:
        Sixteen digits, or the name.
    """
    folder = EMBEDDED.get(model, Path(model))
    digest = hashlib.sha256()
    files = sorted(f for f in folder.rglob("*") if f.suffix in (".safetensors", ".json")) if folder.is_dir() else []
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16] if files else model


def _measured(
    study: Study, todo: dict[str, tuple[str, ...]], out: Path, processes: int
) -> Iterator[tuple[str, list[dict] | ValueError]]:
    """The records of each scene or why there are none, in the order in which they are ready."""

    def of(scene: str, records: Callable[[], list[dict]]) -> tuple[str, list[dict] | ValueError]:
        try:
            return scene, records()
        except ValueError as error:
            return scene, error

    if processes == 1 or len(todo) < 2:
        for scene, rows in todo.items():
            yield of(scene, functools.partial(study.measure, scene, rows, out))
        return
    workers = ProcessPoolExecutor(min(processes, len(todo)), mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        jobs = {workers.submit(study.measure, scene, rows, out): scene for scene, rows in todo.items()}
        for job in as_completed(jobs):
            yield of(jobs[job], job.result)
    finally:
        workers.shutdown(cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # the parent says what there is to say


def _rounded(value: object) -> object:
    """Floats as the file holds them: seven digits, None for NaN."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    return value


class _Journal:
    """Records in a file with one line per scene: appended whole, and read back up to the last whole line."""

    def __init__(self, path: Path, settings: dict):
        self.path = path
        settings = json.loads(json.dumps(settings))
        self.records: dict[tuple[str, str], dict] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        found = self._parsed(whole)
        if found and found[0] != settings:
            other = found[0] if isinstance(found[0], dict) else {}
            keys = sorted(k for k in {*settings, *other} if settings.get(k) != other.get(k))
            told = ", ".join(f"{k} {other.get(k)} there, {settings.get(k)} here" for k in keys)
            raise ValueError(
                f"out must be a new folder or hold results of the same settings, but {path} differs ({told}): choose "
                "another folder or remove that file"
            )
        for records in found[1:]:
            self.records |= {(r["scene"], r["row"]): r for r in records}
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(whole) < len(lines):  # a write was cut off
            os.truncate(path, sum(map(len, whole)))
        if not whole:
            self._write(settings)

    def _parsed(self, lines: list[bytes]) -> list:
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(json.loads(line))
            except ValueError:
                raise ValueError(
                    f"results cannot be read: line {number} of {self.path} is damaged; remove it, and only that scene "
                    "is measured again"
                ) from None
        return found

    def append(self, records: list[dict]) -> None:
        self.records |= {(r["scene"], r["row"]): r for r in records}
        self._write(records)

    def _write(self, value: object) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with open(self.path, "ab") as file:
                file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):  # no half line stays, and no file of nothing
                os.truncate(self.path, size) if size else self.path.unlink()
            raise OSError(
                f"cannot write {self.path}: {str(error.strerror).lower()}; what was measured before is kept, the same "
                "command goes on"
            ) from error
