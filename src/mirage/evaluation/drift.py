"""Drift: what becomes of the picture and of the geometry, chunk after chunk.

The walk A-B-A is gone again and again, one chunk per leg, so that each chunk ends where another has ended before: what
differs then is what has drifted. Or the walk goes on to new places (`path="walk"`), where no return helps.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from mirage.evaluation import metrics
from mirage.evaluation.bench.tables import Table
from mirage.evaluation.report import INTERVALS, Panel, cell
from mirage.evaluation.rows import TITLES, roll_out
from mirage.evaluation.study import load_model
from mirage.evaluation.task import Place, Settings, Task, show
from mirage.evaluation.worlds import Walk, make_walk
from mirage.rollout import ChunkResult

FIGURES = {
    "observed_psnr": "return to observed, dB",
    "observed_flow": "return to observed, flow in px",
    "imagined_psnr": "return to imagined, dB",
    "imagined_flow": "return to imagined, flow in px",
    "all_psnr": "all pixels against the truth, dB",
    "seen_psnr": "pixels of the input against the truth, dB",
    "unseen_detail": "detail of the unseen pixels over that of the truth",
    "colour": "distance of the mean colour from the truth, of 255",
    "depth": "depth that is remembered, relative error in %",
    "memory_kib": "memory, KiB",
}
MEANING = f"""{INTERVALS} One column per number of chunks that were made, the figures of the last of them. *Return to \
observed*: back at A, against the input picture (even chunks). *Return to imagined*: back at B, against the first \
visit of B as it was generated, on the pixels that the input does not show (odd chunks; the first visit is chunk 1). \
*Flow*: its median length on the same pixels. All else is over all frames of the chunk: *all*, *pixels of the input* \
against the truth; *detail*; *colour*: the distance between the mean colours of frame and true frame (length of the \
difference); *depth*: median relative error of the depth that the model estimated of its frames and remembered, on \
the pixels that the input shows, against the world's. What was imagined has no true depth."""


@dataclass(frozen=True, kw_only=True)
class Drift(Settings):
    """What is measured."""

    worlds: int = 8
    """Number of worlds, with consecutive seeds."""
    rows: tuple[str, ...] = ("latent", "none")
    """Kinds of memory; the controls are measured in any case."""
    sheets: int = 2
    """Number of scenes that are shown as pictures and videos."""
    chunks: int = 32
    """Chunks of the longest walk."""
    path: Literal["loop", "walk"] = "loop"
    """Between two places again and again, or on and on."""

    def __post_init__(self):
        super().__post_init__()
        if self.sources:
            raise ValueError(f"drift is measured on exact worlds, sources must be empty, got {self.sources[0]}")
        if self.path not in ("loop", "walk"):
            raise ValueError(f"path must be loop or walk, got {self.path!r}")
        if not 1 <= self.chunks <= 1024 or (self.path == "loop" and self.chunks % 4):
            raise ValueError(f"chunks must be from 1 to 1024, for a loop a multiple of 4, got {self.chunks}")


def long_walk(config: Drift, seed: int, leg: int, height: int, width: int) -> Walk:
    """The truth of one world.

    Args:
        config: The settings.
        seed: Of the world.
        leg: New frames of a chunk.
        height: Pixels.
        width: Pixels.

    Returns:
        The walk.
    """
    if config.path == "loop":
        return make_walk(seed, 4 * leg + 1, height, width, config.device, repeat=config.chunks // 4)
    return make_walk(seed, config.chunks * leg + 1, height, width, config.device, kind="walk")


def measure(
    walk: Walk, video: UInt8[np.ndarray, "f h w 3"], leg: int, *, loop: bool, depths: Sequence[float] | None = None
) -> dict[str, list[float]]:
    """All figures of one video, chunk by chunk.

    Args:
        walk: The truth.
        video: What was made of it.
        leg: New frames of a chunk.
        loop: Whether chunks end at B and A in turn.
        depths: Error of the remembered depth of each chunk, if there is any.

    Returns:
        Figure to values, one per chunk; NaN where a chunk has none.
    """
    truth, unseen, nothing = walk.frames, walk.unseen, float("nan")
    everywhere = np.ones(truth.shape[1:3], bool)
    found: dict[str, list[float]] = {name: [] for name in FIGURES if name != "memory_kib"}
    for chunk in range((len(video) - 1) // leg):
        part, end = slice(chunk * leg + 1, (chunk + 1) * leg + 1), (chunk + 1) * leg
        home = loop and chunk % 2 == 1
        again = loop and chunk % 2 == 0 and chunk > 0
        mean = lambda frames: frames.reshape(len(frames), -1, 3).mean(1)
        found["observed_psnr"].append(metrics.psnr(video[end], truth[0]) if home else nothing)
        found["observed_flow"].append(_moved(truth[0], video[end], everywhere) if home else nothing)
        found["imagined_psnr"].append(metrics.psnr(video[end], video[leg], unseen[end]) if again else nothing)
        found["imagined_flow"].append(_moved(video[leg], video[end], unseen[end]) if again else nothing)
        found["all_psnr"].append(metrics.psnr(video[part], truth[part]))
        found["seen_psnr"].append(metrics.psnr(video[part], truth[part], walk.seen[part]))
        found["unseen_detail"].append(metrics.detail(video[part], truth[part], unseen[part]))
        found["colour"].append(float(np.linalg.norm(mean(video[part]) - mean(truth[part]), axis=-1).mean()))
        found["depth"].append(nothing if depths is None else 100 * float(depths[chunk]))
    return found


def _moved(first: np.ndarray, second: np.ndarray, mask: Bool[np.ndarray, "h w"]) -> float:
    size = np.linalg.norm(metrics.flow(first, second), axis=-1)[mask]
    return float(np.median(size)) if size.size else float("nan")


def depth_error(walk: Walk, result: ChunkResult) -> float:
    """Median relative error of the depth that a chunk remembered, on what the first view shows.

    Args:
        walk: The truth.
        result: The chunk.

    Returns:
        The error; NaN if nothing of it is in the first view.
    """
    frames = list(result.chunk.latent_frames)[1:]
    size = result.depth.shape[1:]
    shrunk = lambda maps: torch.nn.functional.interpolate(maps[:, None].float(), size, mode="nearest-exact")[:, 0]
    true = shrunk(walk.depth[frames])
    shown = shrunk(torch.from_numpy(walk.seen[frames]).to(true)) > 0
    off = ((result.depth - true).abs() / true)[shown & (result.depth > 0)]
    return float(off.median()) if len(off) else float("nan")


def measure_scene(config: Drift, places: dict[str, Place], scene: str, rows: tuple[str, ...], out: Path) -> list[dict]:
    """Measure some rows of one world; also writes its videos if it is one of those that are shown.

    Args:
        config: The settings.
        places: Seeds by name.
        scene: Which.
        rows: Rows that are not measured yet.
        out: Folder of the results.

    Returns:
        One record per row.
    """
    pipeline = load_model(config.model, config.device)
    leg = pipeline.config.chunk_frames - 1
    walk = long_walk(config, places[scene], leg, *pipeline.config.size)
    shown = list(places).index(scene) < config.sheets
    if shown:
        show(out, scene, "truth", walk.frames)
    records = []
    for row in rows:
        errors: list[float] = []
        keep = lambda result, errors=errors: errors.append(depth_error(walk, result))
        video, sizes = roll_out(pipeline, walk, row, config, on_chunk=keep)
        if shown:
            show(out, scene, row, video)
        found = measure(walk, video, leg, loop=config.path == "loop", depths=errors or None)
        found["memory_kib"] = [size / 1024 if size else float("nan") for size in sizes[1:]]
        records.append({"scene": scene, "row": row, "curves": {k: v for k, v in found.items() if v}})
    return records


def tables(results: dict) -> list[Table]:
    """One table per figure: rows, and numbers of chunks.

    Args:
        results: What `evaluate` returned, or `results.json` holds.

    Returns:
        The tables; what each figure means stands below the last.
    """
    counts = [n for n in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 128) if n < results["chunks"] - 1]
    counts += [n for n in (results["chunks"] - 1, results["chunks"]) if n]
    found = []
    for figure, title in FIGURES.items():
        has = {row: of[figure] for row, of in results["curves"].items() if figure in of}
        there = [n for n in dict.fromkeys(counts) if any(_point(of, n)["mean"] is not None for of in has.values())]
        there = [n for n in there if figure[:8] in ("observed", "imagined") or n & (n - 1) == 0 or n == counts[-1]]
        has = {row: of for row, of in has.items() if any(value is not None for value in of["mean"])}
        if not there or not has:
            continue
        rows = [[TITLES[row], *(cell(_point(of, n)) for n in there)] for row, of in has.items()]
        found.append(Table(title=title[0].upper() + title[1:], columns=["chunks", *map(str, there)], rows=rows))
    first = found[-1]
    note = f"{results['scenes']} held-out worlds (seeds from {results['first_seed']}), {results['chunks']} chunks of "
    note += f"{results['chunk_frames']} frames, {results['path']}; depth of the input {results['depth']}, "
    note += f"{results['steps']} steps of the denoiser. {results['hardware']}.\n\n{MEANING}"
    found[-1] = Table(title=first.title, columns=first.columns, rows=first.rows, note=note)
    return found


def _point(curve: dict, chunks: int) -> dict:
    if chunks > len(curve["mean"]):
        return {"mean": None}
    return {key: curve[key][chunks - 1] for key in ("mean", "low", "high")}


def _panels(results: dict) -> list[Panel]:
    panels = []
    for figure, title in FIGURES.items():
        series = {}
        for row, of in results["curves"].items():
            points = of.get(figure, {"mean": []})
            kept = [i for i, value in enumerate(points["mean"]) if value is not None]
            if kept:
                series[row] = ([i + 1 for i in kept], {k: [points[k][i] for i in kept] for k in points})
        if series:
            panels.append(Panel(title=title, x="chunks", y="", series=series))
    return panels


evaluate = Task(
    name="drift",
    title="Drift: what is left after many chunks?",
    lead=lambda config: (
        "Each chunk is imagined from what the chunks before have left. The walk goes "
        + (
            "between two places again and again, so that what differs from the visit before is what has drifted."
            if config.path == "loop"
            else "on and on."
        )
    ),
    caption="Figures chunk by chunk",
    measure=measure_scene,
    tables=tables,
    panels=_panels,
    used=functools.partial(metrics.used, "psnr", "flow", "detail"),
)
format_table = evaluate.format_table
