"""One run of the measurement of the memory: part by part, each kept as soon as it is done."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from mirage.evaluation.bench import exactness, growth, sizes, speed
from mirage.evaluation.bench.clock import hardware
from mirage.evaluation.bench.tables import Part, Table, aims_table, draw
from mirage.evaluation.bench.video import Scale, Video
from mirage.evaluation.real_loops import by_motion, present, real_loops
from mirage.video.io import atomic, write_json
from mirage.video.wan import TINY16, WAN22, WanCodec

PARTS = ("speed", "bytes", "exactness", "loops", "growth")
MOST_THREADS = 1024
QUICK = Scale(height=96, width=160, chunk_frames=9, chunks=3)


@dataclass(frozen=True, kw_only=True)
class MemoryBench:
    """What to measure.

    Attributes:
        parts: Some of `PARTS`.
        quick: Toy sizes, to see in seconds that all of it runs; its figures say nothing.
        budget_minutes: Time for rendering and encoding colours, by far the slowest thing that is measured.
        threads: Threads of all contenders; those that are set if None.
        shared: Folder whose `data/` holds the real sequences and the autoencoder that reads them; None to go without.
    """

    parts: tuple[str, ...] = PARTS
    quick: bool = False
    budget_minutes: float = 3.0
    threads: int | None = None
    shared: Path | None = None

    def __post_init__(self):
        wrong = [part for part in self.parts if part not in PARTS]
        if wrong or not self.parts:
            raise ValueError(f"parts must be of {', '.join(PARTS)}, got {', '.join(wrong) or 'none'}")
        if not 0 <= self.budget_minutes < 1e4:
            raise ValueError(f"budget_minutes must be from 0 on, got {self.budget_minutes}")
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads must be from 1 to {MOST_THREADS}, got {self.threads}")


def run(config: MemoryBench, out: str | os.PathLike, *, command: str, tell: Callable[[str], None] = print) -> str:
    """Measure, and write `memory.json`, `memory.md` and `memory.png`.

    Every part is written as soon as it is done, together with the parts of earlier runs that the folder holds, so that
    a run that was interrupted, or of some parts, can be completed by another.

    Args:
        config: What to measure.
        out: Folder of the results; made if missing.
        command: The command that the table shall name.
        tell: Called with what is under way.

    Returns:
        The table, in Markdown.

    Raises:
        ValueError: If `out` is or lies in a file, cannot be written, or holds results that are not of this measurement.
    """
    out = Path(out)
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):  # before anything is measured
        trouble = "cannot be written to" if there.is_dir() else "is a file"
        raise ValueError(f"out must be a folder, or the name of a new one, got {out}: {there} {trouble}")
    file = out / "memory.json"
    _earlier(file)  # refused at once if it is something else
    if config.threads:
        torch.set_num_threads(config.threads)
    machine = hardware()
    tell(machine)
    for name in PARTS:
        if name not in config.parts:
            continue
        start = time.perf_counter()
        say = lambda text, name=name, start=start: tell(f"[{time.perf_counter() - start:5.0f} s] {name}: {text}")
        part = _MEASURES[name](config, say)
        about = {"hardware": machine, "command": command, "quick": config.quick, "date": date.today().isoformat()}
        seconds = round(time.perf_counter() - start, 1)
        done = _earlier(file) | {name: about | {"seconds": seconds} | part.to_json()}  # others may measure parts too
        done = {name: done[name] for name in PARTS if name in done}
        write_json(file, done)
        say("done")
    text = report(done)
    with atomic(out / "memory.md") as aside:
        aside.write_text(text, encoding="utf-8")
    curves = [curves for value in done.values() for curves in Part.from_json(value).curves]
    if curves:
        draw(out / "memory.png", curves)
    return text


def report(done: dict[str, dict]) -> str:
    """All parts as one page of Markdown, the aims first.

    Args:
        done: What `memory.json` holds.

    Returns:
        Markdown.
    """
    parts = {name: Part.from_json(value) for name, value in done.items()}
    aims = [aim for part in parts.values() for aim in part.aims]
    page = ["# The memory, measured", ""]
    if any(value["quick"] for value in done.values()):
        page += ["**Toy sizes (--quick): these figures say nothing but that the measurement runs.**", ""]
    if aims:
        page += [aims_table(aims).markdown()]
    for name, part in parts.items():
        value = done[name]
        page += [f"## {name.capitalize()}", ""]
        page += [
            f"`{value['command']}`, {value['seconds']:.0f} s for this part, {value['date']}. {value['hardware']}.",
            "",
        ]
        page += [table.markdown() for table in part.tables]
    missing = [name for name in PARTS if name not in done]
    if missing:
        page += [f"Not measured here: {', '.join(missing)}.", ""]
    return "\n".join(page).rstrip() + "\n"


def _earlier(file: Path) -> dict[str, dict]:
    """The parts that a folder holds already."""
    if not file.exists():
        return {}
    try:
        done = json.loads(file.read_text(encoding="utf-8"))
        report(done)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"out must be a new folder or hold results of this command, {file} is something else: {error!r}"
        ) from None
    return done


def _speed(config: MemoryBench, tell: Callable[[str], None]) -> Part:
    scale = QUICK if config.quick else Scale()
    tell(str(scale))
    more = Scale(**{**vars(scale), "chunks": scale.chunks + 1})
    videos = {path: lambda path=path: Video.make(more, path=path) for path in ("explores", "stays")}
    codec = WanCodec.untrained(TINY16 if config.quick else WAN22 | {"decoder_base_dim": 8})  # only the encoder runs
    rounds, seconds, minutes = (3, 1.0, 0.02) if config.quick else (25, 45.0, config.budget_minutes)
    return speed.measure(videos, codec, minutes=minutes, rounds=rounds, seconds=seconds, tell=tell)


def _bytes(config: MemoryBench, tell: Callable[[str], None]) -> Part:
    if config.quick:
        return sizes.measure(QUICK, frames=161, budget=1 << 16, kinds=["gather"], tell=tell)
    return sizes.measure(Scale(), frames=10_000, budget=2 << 20, kinds=["gather", "released rule"], tell=tell)


def _exactness(config: MemoryBench, tell: Callable[[str], None]) -> Part:
    height, width = (96, 160) if config.quick else (704, 1280)
    part = exactness.measure(height=height, width=width, stride=16, tell=tell)
    size = {"gaps": (4,), "pairs": 1, "width": 96} if config.quick else {"gaps": (4, 16), "pairs": 6}
    # Without data, or in a hurry: the exact worlds alone.
    found = by_motion(Path("-") if config.quick else config.shared or Path("-"), tell=tell, **size)
    part.tables.append(
        Table(
            title="Decoded reads of one view from another, dB against the true view",
            columns=[
                "sequence",
                "autoencoder",
                "read",
                "frames apart",
                "median motion, px",
                "pairs",
                "dB",
                "ceiling, dB",
            ],
            rows=[
                [one.sequence, one.autoencoder, one.memory, one.gap, one.motion, one.pairs, one.psnr, one.ceiling]
                for one in found
            ],
            note="On cells that the first view sees whole and that every kind of memory fills. The ceiling is the "
            "autoencoder alone." + _skipped(config),
        )
    )
    return part


def _growth(config: MemoryBench, tell: Callable[[str], None]) -> Part:
    if config.quick:
        return growth.measure(QUICK, elements=(200, 400, 800, 1600), views=(1, 2, 4, 8), rounds=1, tell=tell)
    elements = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    return growth.measure(Scale(), elements=elements, views=(1, 4, 16, 64, 256), rounds=3, tell=tell)


def _loops(config: MemoryBench, tell: Callable[[str], None]) -> Part:
    columns = {
        "sequence": "sequence", "autoencoder": "autoencoder", "memory": "memory", "start": "from", "end": "to",
        "views": "views", "elements": "elements", "nbytes": "bytes", "seen": "seen", "psnr": "dB, its own cells",
        "common": "dB, common cells", "matched": "dB, exposure matched", "ceiling": "ceiling, dB",
        "depth_error": "depth error", "depth_agrees": "depth agrees",
    }  # fmt: skip
    size = {"views": 2, "width": 96} if config.quick else {}
    found = real_loops(config.shared, tell=tell, **size) if config.shared else []
    return Part(
        tables=[
            Table(
                title="Real loops: filled on the way out, read at the return",
                columns=list(columns.values()),
                rows=[[getattr(one, name) for name in columns] for one in found],
                note="Depth and poses are the sensor's. *Seen*: share of the cells that the memory fills; depth agrees "
                "within 5 %." + _skipped(config),
            )
        ]
    )


def _skipped(config: MemoryBench) -> str:
    if config.shared is None:
        return " Real sequences were skipped: no folder of them was named, by --data or MIRAGE_SHARED."
    return "".join(f" {reason}." for reason in present(config.shared)[1])


_MEASURES = {"speed": _speed, "bytes": _bytes, "exactness": _exactness, "loops": _loops, "growth": _growth}
