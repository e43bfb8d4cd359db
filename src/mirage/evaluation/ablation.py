"""The ablations of the paper (Tables 3 to 5) and our own, on held-out exact worlds, paired with the method by scene.

Still worlds are walked A-B-A-B-A as in the closed loop; rows about movers in worlds with moving things. Rows whose
model is trained are given as folders of models, one per seed of the training.
"""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn import functional as F

from mirage.evaluation import metrics
from mirage.evaluation.ablation_rows import (
    HOLES,
    MOVING,
    STILL,
    TRAINED,
    NoisyDepth,
    Row,
    TrueDepth,
    TrueMovers,
    punch,
)
from mirage.evaluation.bench.tables import Table
from mirage.evaluation.page import Picture, markdown, write_page
from mirage.evaluation.report import INTERVALS, cell, hardware
from mirage.evaluation.rows import CONTROLS, roll_out
from mirage.evaluation.study import Study, fingerprint, load_model, run
from mirage.evaluation.worlds import HELD_OUT, Walk, make_walk
from mirage.geometry.nano import FAR, LatentDepth
from mirage.memory import ColourMemory, LatentMemory, MemoryRead
from mirage.pipeline import MiragePipeline
from mirage.scenes import Worlds, render, sample_path
from mirage.video.io import read_image, tensor_to_images, write_image, write_json
from mirage.video.picture import contact_sheet

ROWS = STILL | MOVING | TRAINED
GROUPS = {
    "memory": "What is remembered (the paper's Table 3)",
    "read": "How it is read",
    "depth": "Where depth comes from (Table 4)",
    "pool": "How depth becomes one value per cell (Table 5)",
    "budget": "How much is kept",
    "movers": "Movers, in worlds where things move (Table 3)",
    "training": "How it is trained (Table 3)",
}
COLUMNS = (
    ("return to observed, dB", "observed_psnr"),
    ("flow, px", "observed_flow"),
    ("return to imagined, dB", "imagined_psnr"),
    ("flow, px", "imagined_flow"),
    ("seen, dB", "seen_psnr"),
    ("unseen, dB", "unseen_psnr"),
    ("unseen detail", "unseen_detail"),
    ("camera, px", "camera_px"),
    ("camera, deg", "camera_degrees"),
    ("left behind, dB", "ghost_psnr"),
    ("empty, %", "empty"),
    ("misplaced, %", "misplaced"),
    ("covered, %", "covered"),
    ("memory, KiB", "memory_kib"),
)
DIFFERENCES = (
    ("return to observed, dB", "observed_psnr"),
    ("return to imagined, dB", "imagined_psnr"),
    ("seen, dB", "seen_psnr"),
    ("unseen, dB", "unseen_psnr"),
    ("camera, px", "camera_px"),
    ("left behind, dB", "ghost_psnr"),
    ("empty, %", "empty"),
    ("misplaced, %", "misplaced"),
)
USED = ("psnr", "flow", "detail")
MEANING = f"""{INTERVALS} *camera*: median optical flow between a frame and the exact rendering at its commanded pose, \
on pixels that the input shows, averaged over every eighth frame; in degrees at the middle of the picture. *empty*: \
latent cells all of whose pixels the input shows, and that a memory of the input alone leaves empty along the path: \
avoidable holes. *misplaced*: of those that it does not, cells a tenth nearer than all their true depths, or farther. \
*covered*: cells that the memory knew of the views it was asked for, imagined ones included. All \
other columns as in the closed loop. *paper*: what it reports of such a row on real data, WorldScore averages unless \
it says empty cells. Differences are row minus reference, paired by scene."""
OF_MOVERS = """ Here the return is held to the true frame at that moment, on pixels where nothing moves. *left \
behind*: pixels where something was at the start and is no more at a return to A, against the truth: what is \
remembered of it is a ghost there."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What is measured. Results of other scenes or rows of the same settings can share a folder."""

    model: str = "nano"
    """The method's model."""
    rows: tuple[str, ...] = (*STILL, *MOVING)
    """Rows that need no training, or `TRAINED`, whose models are in `trained`."""
    scenes: int = 50
    """Number of worlds of each kind, with consecutive seeds."""
    first_seed: int = HELD_OUT
    """Seed of the first."""
    frames: int = 49
    """Of a walk with four legs: as many as the clips have that the embedded model was trained on."""
    size: tuple[int, int] = (128, 128)
    """Height and width: what the embedded model was trained at."""
    trained: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Row to folders of its models, one per seed."""
    device: str = "cpu"
    """Where the models run."""
    sheets: int = 2
    """Number of worlds of each kind that are shown as pictures."""

    def __post_init__(self):
        unknown = [row for row in self.rows if row not in ROWS]
        if unknown or not self.rows:
            raise ValueError(f"rows must be among {', '.join(ROWS)}, got {', '.join(unknown) or 'none'}")
        untrained = [row for row in self.rows if row in TRAINED and not self.trained.get(row)]
        if untrained:
            raise ValueError(f"trained must name a model of {', '.join(untrained)}, got {dict(self.trained)}")
        for name, least in {"scenes": 1, "first_seed": 0, "sheets": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.frames < 17 or self.frames % 16 != 1:
            raise ValueError(f"frames must be 1 + n * 16, so that visits are latent frames, got {self.frames}")

    @property
    def visits(self) -> tuple[int, ...]:
        """Frames at A, B, A, B and A."""
        return tuple(range(0, self.frames, (self.frames - 1) // 4))

    def models(self, row: str) -> dict[str, str]:
        """What a row is called where it is measured, and its model: one of each trained model.

        Args:
            row: One of the rows.

        Returns:
            Names to models.
        """
        if row not in TRAINED:
            return {row: self.model}
        return {f"{row}@{n}-{fingerprint(m)[:6]}": m for n, m in enumerate(self.trained[row])}


@dataclass(frozen=True)
class Moving:
    """A walk through a world in which things move."""

    walk: Walk
    movers: Bool[np.ndarray, "f h w"]


def make_moving(seed: int, frames: int, height: int, width: int, device: str = "cpu") -> Moving:
    """A world with two moving things and a walk A-B-A-B-A in it.

    Args:
        seed: Fixes both.
        frames: Frames of the walk.
        height: Pixels.
        width: Pixels.
        device: Where to render.

    Returns:
        The walk. What is sure to be seen or not seen is where nothing moves.
    """
    world = Worlds.sample([seed], movers=2)
    cameras = sample_path(world, seed, frames, kind="abab", height=height, width=width).to(device)
    view = render(world.to(device), cameras)
    depth = torch.where(view.sky, FAR, view.depth.clamp(max=FAR))[0]
    still = ~view.movers[0]
    # A place behind a mover of the first view was not seen: its depth there is the mover's.
    seen = metrics.seen_from(depth, cameras, depth[0], cameras[0]) & still
    colour = torch.from_numpy(tensor_to_images(view.colour[0])).to(device).movedim(-1, 1).float() / 127.5 - 1
    walk = Walk(seed, cameras, colour, depth, seen.cpu().numpy(), still.cpu().numpy())
    return Moving(walk, view.movers[0].cpu().numpy())


def make_video(
    pipeline: MiragePipeline, walk: Walk, row: Row, movers: Bool[Tensor, "f h w"] | None = None
) -> tuple[UInt8[np.ndarray, "f h w 3"], dict]:
    """What a row makes of a walk.

    Args:
        pipeline: Its model.
        walk: Where to go.
        row: The row.
        movers: True masks, for a row that is given them.

    Returns:
        The frames; and what is covered, in percent, and kept, in KiB.
    """
    if row.memory in CONTROLS:
        video, size = roll_out(pipeline, walk, row.memory, SimpleNamespace(depth="known", steps=None))
        return video, {"memory_kib": size[-1] / 1024 or math.nan}
    estimator = LatentDepth(pipeline.depth_head) if row.later == "head" else TrueDepth(walk.cameras, walk.depth)
    if row.noise:
        estimator = NoisyDepth(estimator, row.noise, walk.seed)
    stride = pipeline.codec.temporal_stride
    output = pipeline(
        walk.colour[0],
        walk.cameras,
        memory=row.memory,
        depth=walk.depth[0] if row.first == "known" else None,
        estimator=estimator,
        movers=TrueMovers(movers[::stride]) if row.masked else None,
        generator=torch.Generator().manual_seed(walk.seed),  # the same noise for every row
    )
    kept = output.memory_bytes[-1] / 1024
    return output.frames, {"covered": 100 * float(np.mean(output.coverage[1:])), "memory_kib": kept or math.nan}


@torch.no_grad()
def read_first(
    pipeline: MiragePipeline, walk: Walk, row: Row, movers: Bool[Tensor, "f h w"] | None = None
) -> tuple[MemoryRead | None, dict[str, float]]:
    """What a memory of the input alone says of the views along the path.

    Args:
        pipeline: The row's model.
        walk: The path and the truth along it.
        row: The row.
        movers: True masks, for a row that is given them.

    Returns:
        The reads at the latent frames; and, in percent, how many of the cells that the input shows wholly are empty,
        and with holes how many of the others are misplaced. Nothing for a row without a memory.
    """
    if row.memory in ("none", *CONTROLS):
        return None, {}
    picture, depth, keep = walk.colour[:1], walk.depth[:1], {}
    if row.masked:
        keep = {"keep": ~movers[:1]}
    if row.holes:
        depth = punch(depth[0], row.holes, walk.seed)[None]
    first = pipeline.codec.encode(picture[None])[0]
    make = {
        "latent": functools.partial(LatentMemory.from_view, mover=pipeline.mover),
        "colour": functools.partial(ColourMemory.from_view, codec=pipeline.codec),
    }
    make = row.memory if callable(row.memory) else make[row.memory]
    if row.first == "head":
        depth = LatentDepth(pipeline.depth_head).estimate(picture, first, walk.cameras[:1])
    known = make(first, depth, walk.cameras[0], frames=picture, **keep).read(
        walk.cameras[:: pipeline.codec.temporal_stride]
    )
    stride, size = pipeline.codec.temporal_stride, known.visible.shape[1:]
    seen = torch.from_numpy(walk.seen)[::stride].to(known.visible.device).float()
    whole = F.adaptive_avg_pool2d(seen, size) == 1
    whole[0] = False  # the view itself
    there = whole & known.visible
    near, far = (F.adaptive_max_pool2d(sign * walk.depth[::stride], size) * sign for sign in (-1, 1))
    off = (known.depth < 0.9 * near) | (known.depth > 1.1 * far)
    percent = lambda part, of: 100 * float(part.sum() / of.sum().clamp(min=1))
    figures = {"empty": percent(whole & ~known.visible, whole)}
    return known, figures | ({"misplaced": percent(off & there, there)} if row.holes else {})


def returns(walk: Walk, video: UInt8[np.ndarray, "f h w 3"], visits: tuple[int, ...]) -> dict[str, float]:
    """The figures of the closed loop.

    Args:
        walk: The truth.
        video: The frames.
        visits: Frames at A, B, A, B and A.

    Returns:
        Return to observed and to imagined, and all later frames against the truth, seen and unseen pixels apart.
    """
    _, b1, _, b2, a3 = visits
    truth, unseen, later = walk.frames, walk.unseen, slice(1, None)
    new = unseen[b1]
    median = lambda flow, mask: float(np.median(np.linalg.norm(flow, axis=-1)[mask])) if mask.any() else math.nan
    return {
        "observed_psnr": metrics.psnr(video[a3], truth[0]),
        "observed_flow": median(metrics.flow(truth[0], video[a3]), new | True),
        "imagined_psnr": metrics.psnr(video[b2], video[b1], new),
        "imagined_flow": median(metrics.flow(video[b1], video[b2]), new),
        "seen_psnr": metrics.psnr(video[later], truth[later], walk.seen[later]),
        "unseen_psnr": metrics.psnr(video[later], truth[later], unseen[later]),
        "unseen_detail": metrics.detail(video[later], truth[later], unseen[later]),
    }


def camera_error(walk: Walk, video: UInt8[np.ndarray, "f h w 3"]) -> dict[str, float]:
    """How far the frames are from where the path should have led, by optical flow to the exact rendering.

    Args:
        walk: The truth.
        video: The frames.

    Returns:
        Pixels and degrees; NaN if the path leaves what the input shows at once.
    """
    found = []
    for f in range(8, len(video), 8):
        if walk.seen[f].mean() >= 0.05:
            moved = np.linalg.norm(metrics.flow(walk.frames[f], video[f]), axis=-1)
            found.append(float(np.median(moved[walk.seen[f]])))
    pixels = float(np.mean(found)) if found else math.nan
    return {
        "camera_px": pixels,
        "camera_degrees": math.degrees(math.atan(pixels / float(walk.cameras.intrinsics[0, 0, 0]))),
    }


@functools.lru_cache
def moving_seeds(first: int, count: int, frames: int, height: int, width: int) -> tuple[int, ...]:
    """The first worlds in which something of the input picture moves away: half a percent of it before a return to A.

    Args:
        first: Seed of the first world that is looked at.
        count: How many there shall be.
        frames: Frames of the walk.
        height: Pixels.
        width: Pixels.

    Returns:
        Their seeds.
    """
    at = [0, (frames - 1) // 2, frames - 1]
    found, seed = [], first
    while len(found) < count:
        world = Worlds.sample([seed], movers=2)
        cameras = sample_path(world, seed, frames, kind="abab", height=height, width=width)[at]
        small = cameras.resize(height // 4, width // 4)
        movers = render(world, small, times=torch.tensor(at).float(), supersample=1).movers[0]
        if float((movers[0] & ~movers[1:]).float().mean()) > 0.005:
            found.append(seed)
        seed += 1
    return tuple(found)


def measure_scene(config: Ablation, shown: tuple[str, ...], scene: str, rows: tuple[str, ...], out: Path) -> list[dict]:
    """Measure some rows of one scene.

    Args:
        config: The settings.
        shown: Scenes of which pictures are kept.
        scene: "still" or "moving", and the seed.
        rows: Rows that are not measured yet, as `Ablation.models` calls them.
        out: Folder of the results.

    Returns:
        One record per row.
    """
    kind, _, seed = scene.partition("-")
    if kind == "moving":
        moving = make_moving(int(seed), config.frames, *config.size, device=config.device)
        walk, movers = moving.walk, torch.from_numpy(moving.movers).to(config.device)
    else:
        walk, movers = make_walk(int(seed), config.frames, *config.size, device=config.device), None
    strip = lambda video: np.concatenate([video[i] for i in config.visits], 1)
    if scene in shown:
        write_image(out / "visits" / f"{scene}-truth.png", strip(walk.frames))
    models = {key: model for row in config.rows for key, model in config.models(row).items()}
    records = []
    for key in rows:
        row, pipeline = ROWS[key.partition("@")[0]], load_model(models[key], config.device)
        known, holes = read_first(pipeline, walk, row, movers)
        if row.holes:
            with torch.no_grad():
                video, figures = tensor_to_images(pipeline.codec.decode(known.features[None])[0]), {}
        else:
            video, figures = make_video(pipeline, walk, row, movers)
        if scene in shown:
            write_image(out / "visits" / f"{scene}-{key}.png", strip(video))
        figures |= returns(walk, video, config.visits) | camera_error(walk, video) | holes
        if row.holes:
            figures = {k: v for k, v in figures.items() if not k.startswith(("imagined", "unseen"))}
        if kind == "moving":
            figures |= among_movers(moving, video, config.visits)
        records.append({"scene": scene, "row": key, **figures})
    return records


def among_movers(moving: Moving, video: UInt8[np.ndarray, "f h w 3"], visits: tuple[int, ...]) -> dict[str, float]:
    """What a return to A is worth where things move.

    Args:
        moving: The truth.
        video: The frames.
        visits: Frames at A, B, A, B and A.

    Returns:
        The return to A where nothing moves at that moment; and where something moved at the start and is gone.
    """
    a1, _, a2, _, a3 = visits
    truth, movers, back = moving.walk.frames, moving.movers, [a2, a3]
    gone = movers[a1] & ~movers[back]
    return {
        "observed_psnr": metrics.psnr(video[a3], truth[a3], ~movers[a3]),
        "ghost_psnr": metrics.psnr(video[back], truth[back], gone),
        "ghost_share": float(gone.mean()),
    }


def evaluate(
    config: Ablation,
    out: str | os.PathLike,
    *,
    processes: int = 1,
    on_scene: Callable[[int, int], None] | None = None,
    command: str = "",
) -> dict:
    """Measure all rows, and write `results.json`, `table.md`, contact sheets and the page, `report.html`.

    Args:
        config: What to measure.
        out: Folder of the results; made if missing, gone on with if it holds some.
        processes: Scenes that are measured at a time.
        on_scene: Called with the numbers of scenes that are done and wanted, at the start and after each.
        command: What the page shall say that it was made by.

    Returns:
        What `results.json` holds.

    Raises:
        ValueError: If there is no such model, or the folder holds other results.
    """
    out = Path(out)
    load_model(config.model, config.device)
    kinds = {
        "still": [r for r in config.rows if r not in MOVING],
        "moving": [r for r in config.rows if r in MOVING],
    }
    settings = {"frames": config.frames, "size": list(config.size), "weights": fingerprint(config.model)}
    records, scenes = [], {}
    for kind, rows in kinds.items():
        if not rows:
            continue
        seeds = range(config.first_seed, config.first_seed + config.scenes)
        if kind == "moving":
            seeds = moving_seeds(config.first_seed, config.scenes, config.frames, *config.size)
        scenes[kind] = tuple(f"{kind}-{seed}" for seed in seeds)
        study = Study(
            task=f"ablation, {kind} worlds",
            settings=settings,
            scenes=scenes[kind],
            rows=tuple(key for row in rows for key in config.models(row)),
            measure=functools.partial(measure_scene, config, scenes[kind][: config.sheets]),
        )
        records += run(study, out / kind, processes=processes, on_scene=on_scene)
    records = over_seeds(records)
    results = {
        "task": "ablation",
        **{k: v for k, v in asdict(config).items() if k != "trained"},
        "seeds": {row: len(folders) for row, folders in config.trained.items()},
        "hardware": hardware(),
        "command": command,
        "groups": {name: summary for name in GROUPS if (summary := _summary(records, name))},
    }
    write_json(out / "results.json", results)
    pictures = _sheets(config, out, kinds, scenes)
    write_page(
        out,
        title="Ablation: what is each part worth?",
        lead="The method with one thing taken away or put in, row by row, on held-out exact worlds.",
        tables=tables(results),
        command=command,
        hardware=results["hardware"],
        pictures=pictures,
        settings=metrics.used(*USED),
    )
    return results


def over_seeds(records: Sequence[dict]) -> list[dict]:
    """One record per scene and row, averaged over the trainings of the row.

    Args:
        records: One per scene, row and training.

    Returns:
        The means; a figure that one of them lacks is left out of its mean.
    """
    together: dict[tuple[str, str], list[dict]] = {}
    for record in records:
        together.setdefault((record["scene"], record["row"].partition("@")[0]), []).append(record)
    joined = []
    for (scene, row), same in together.items():
        figures = {}
        for key in same[0].keys() - {"scene", "row"}:
            there = [r[key] for r in same if r.get(key) is not None]
            figures[key] = float(np.mean(there)) if there else None
        joined.append({"scene": scene, "row": row, **figures})
    return joined


def _summary(records: Sequence[dict], group: str) -> dict | None:
    """Means and paired differences of the rows of one group; the method stands first in those of still worlds."""
    there = dict.fromkeys(record["row"] for record in records)
    rows = [row for row in ROWS if row in there and ROWS[row].group == group]
    if not rows:
        return None
    if group not in ("movers", "training", "pool") and "full" in there and "full" not in rows:
        rows.insert(0, "full")
    of = {row: {r["scene"]: r for r in records if r["row"] == row} for row in rows}
    figures = list(dict.fromkeys(figure for _, figure in COLUMNS))
    value = lambda row, scene, figure: of[row][scene].get(figure)
    column = lambda row, figure: np.array([value(row, scene, figure) for scene in of[row]], float)
    reference, *others = rows
    scenes = list(of[reference])
    assert all(list(of[row]) == scenes for row in others), "all rows of a group are measured in the same scenes"
    return {
        "scenes": len(scenes),
        "rows": {row: {f: metrics.bootstrap(column(row, f)) for f in figures} for row in rows},
        "reference": reference,
        "differences": {
            row: {f: metrics.bootstrap(column(row, f) - column(reference, f)) for _, f in DIFFERENCES} for row in others
        },
    }


def tables(results: dict) -> list[Table]:
    """The tables of some results.

    Args:
        results: What `evaluate` returned, or `results.json` holds.

    Returns:
        Two per group: means, and differences to the reference.
    """
    found = []
    for name, group in results["groups"].items():
        rows = group["rows"]
        there = lambda columns, of: [
            (head, f) for head, f in columns if any(one[f]["mean"] is not None for one in of.values())
        ]
        columns = there(COLUMNS, rows)
        paper = any(ROWS[row].paper for row in rows)
        about = (
            f" {HOLES:.0%} of the input's depth is unknown, in blobs; videos are decoded reads, nothing is imagined."
        )
        note = f"{group['scenes']} held-out {'worlds with movers' if name == 'movers' else 'still worlds'}."
        note += about if name == "pool" else ""
        if name == "training":
            note += f" Trainings per row: {', '.join(f'{row} {n}' for row, n in results['seeds'].items())}."
        found.append(
            Table(
                title=GROUPS[name],
                columns=["row", *(["paper"] if paper else []), *(head for head, _ in columns)],
                rows=[
                    [ROWS[row].title, *([ROWS[row].paper or "-"] if paper else []), *(cell(of[f]) for _, f in columns)]
                    for row, of in rows.items()
                ],
                note=note,
            )
        )
        if group["differences"]:
            columns = there(DIFFERENCES, group["differences"])
            found.append(
                Table(
                    title=f"{GROUPS[name]}: minus {ROWS[group['reference']].title}",
                    columns=["row", *(head for head, _ in columns)],
                    rows=[
                        [ROWS[row].title, *(cell(of[f], "+") for _, f in columns)]
                        for row, of in group["differences"].items()
                    ],
                    note=OF_MOVERS.strip() if name == "movers" else "",
                )
            )
    if found:
        found[-1] = Table(**vars(found[-1]) | {"note": f"{found[-1].note}\n\n{MEANING}".strip()})
    return found


def format_table(results: dict) -> str:
    """The tables in Markdown.

    Args:
        results: What `evaluate` returned, or `results.json` holds.

    Returns:
        Markdown.
    """
    return markdown(tables(results), metrics.used(*USED))


def _sheets(
    config: Ablation, out: Path, kinds: Mapping[str, Sequence[str]], scenes: Mapping[str, Sequence[str]]
) -> list[Picture]:
    """One contact sheet per scene that is shown: the visits, row by row, the truth on top."""
    pictures = []
    for kind, rows in kinds.items():
        for scene in scenes.get(kind, ())[: config.sheets]:
            keys = ["truth", *(next(iter(config.models(row))) for row in rows)]
            files = {key: out / kind / "visits" / f"{scene}-{key}.png" for key in keys}
            if not all(file.exists() for file in files.values()):
                continue
            frames, labels = [], []
            for key, file in files.items():
                frames += np.split(read_image(file), len(config.visits), 1)
                labels += [f"{key.partition('@')[0]} · {p} {i}" for p, i in zip("ABABA", config.visits, strict=True)]
            name = f"sheet-{scene}.png"
            write_image(out / name, contact_sheet(frames, labels, columns=len(config.visits), title=scene))
            pictures.append(Picture(path=name, caption=f"{scene}: the visits, row by row"))
    return pictures
