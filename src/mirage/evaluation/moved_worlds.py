"""What a read at another pose is worth: held-out exact worlds, one view remembered, its neighbours on the path read.

Depth and poses are exact, so what is measured is how latents bear being moved, and nothing else.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.evaluation.metrics import bootstrap, seen_from
from mirage.geometry.nano import FAR
from mirage.memory import ColourMemory, Memory
from mirage.scenes import Worlds, render, sample_path
from mirage.video.codec import LatentCodec
from mirage.video.io import atomic, tensor_to_images, write_image, write_json

KINDS = ("walk", "orbit", "truck", "walk", "pan")  # worlds take turns
GAPS = (2, 4, 8, 16, 32)  # frames between the view that is remembered and the one that is read
VIDEO = 17  # frames of the video that the autoencoder is tried on
MOTIONS = (0.03, 0.1, 0.3)  # bounds between classes of motion, in picture widths
CLASSES = tuple(str(i) for i in range(len(MOTIONS) + 1))
WAYS = {"way": "rgb", "coded": "rgb re-encoded"}  # which part of the way from the gather there is gone
WARPS = ("rgb", "rgb re-encoded", "decoded, warped, encoded", "ceiling")
Reads = Mapping[str, Callable[..., Memory]]


@dataclass(frozen=True, kw_only=True)
class MovedWorlds:
    """What is measured."""

    worlds: int = 100
    """Number of worlds, with consecutive seeds."""
    first_seed: int = 1_000_000
    """Seed of the first, far from those of training."""
    size: tuple[int, int] = (128, 128)
    """Height and width in pixels."""
    model: str = "nano"
    """Whose autoencoder it is: a name that is kept with the results."""

    def __post_init__(self):
        if self.worlds < 1 or self.first_seed < 0 or min(self.size) < 1:
            raise ValueError(f"worlds and size must be positive and first_seed not negative, got {self}")


@dataclass(frozen=True, kw_only=True)
class PairReads:
    """One view read from another in several ways, decoded."""

    motion: float
    """Median displacement of what both views show, in picture widths."""
    cells: Bool[Tensor, "h w"]
    """Cells that are compared: wholly seen in both views, and filled by the gather and by the warp in colour."""
    covisible: Bool[Tensor, "h w"]
    """Cells wholly seen in both views."""
    decoded: dict[str, Float[Tensor, "3 H W"]]
    """The view by each read, with the truth's own latents (or pixels) outside the cells, so that no hole is seen; what
    a read leaves empty within them is the gather's."""
    latents: dict[str, Float[Tensor, "c h w"]]
    """What was decoded; none for the warp in colour."""
    filled: dict[str, float]
    """Share of the covisible cells that each read fills."""


@torch.no_grad()
def read_pair(
    codec: LatentCodec,
    colour: Float[Tensor, "2 3 H W"],
    depth: Float32[Tensor, "2 H W"],
    cameras: Cameras,
    reads: Reads,
) -> PairReads:
    """Remember the first view, read the second.

    Args:
        codec: The autoencoder.
        colour: Both views, in [-1, 1].
        depth: Their z-depth in world units, all of it known.
        cameras: Their cameras.
        reads: Ways to remember a latent view, called as `LatentMemory.from_view` is; one is "gather".

    Returns:
        The reads; the colours warped, and encoded after that; what the first view's latents decode to, warped and
        encoded, which is what is in the latents; and the ceiling: the second view itself.
    """
    stride, (height, width) = codec.stride, colour.shape[2:]
    own = codec.encode(colour[:, None])[:, 0]
    seen = seen_from(depth[1:], cameras[1], depth[0], cameras[0])[0]
    whole = lambda mask: (
        mask.unflatten(1, (width // stride, stride)).unflatten(0, (height // stride, stride)).all(3).all(1)
    )
    got = {name: from_view(own[:1], depth[:1], cameras[0]).read(cameras[1]) for name, from_view in reads.items()}
    colours = lambda frames: ColourMemory.from_view(own[:1], depth[:1], cameras[0], frames=frames, codec=codec)
    rendered, pixels = colours(colour[:1]).render(cameras[1])
    again, _ = colours(codec.decode(own[:1, None])[:, 0].clamp(-1, 1)).render(cameras[1])
    hits = {name: known.visible[0] for name, known in got.items()} | {"rgb": whole(pixels.visible[0])}
    covisible = whole(seen)
    cells = covisible & hits["gather"] & hits["rgb"]
    inside = cells.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    warped, rewarped = (torch.where(inside, frames[0], colour[1]) for frames in (rendered, again))
    best = lambda known: torch.where(known.visible[0], known.features[0], got["gather"].features[0])
    latents = {name: torch.where(cells, best(known), own[1]) for name, known in got.items()}
    encoded = codec.encode(torch.stack([warped, rewarped])[:, None])[:, 0]
    latents |= dict(zip(WARPS[1:], [*encoded, own[1]], strict=True))
    decoded = codec.decode(torch.stack(list(latents.values()))[:, None])[:, 0].clamp(-1, 1)
    pictures = dict(zip(latents, decoded, strict=True))
    xy, _ = cameras[0].project(cameras[1].unproject(depth[1:]).reshape(-1, 3))
    home = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1).view(-1, 2) + 0.5
    away = (xy[0] - home.to(xy)).norm(dim=-1)[seen.flatten()]
    return PairReads(
        motion=float(away.median()) / width if len(away) else float("nan"),
        cells=cells,
        covisible=covisible,
        decoded={**{name: pictures[name] for name in reads}, "rgb": warped, **{n: pictures[n] for n in WARPS[1:]}},
        latents=latents,
        filled={name: float((hit & covisible).sum() / covisible.sum().clamp(min=1)) for name, hit in hits.items()},
    )


@torch.no_grad()
def measure_world(
    codec: LatentCodec, seed: int, size: tuple[int, int], reads: Reads, sheet: Path | None = None
) -> dict:
    """All figures of one world, squared errors pooled over the pairs of each class of motion.

    Args:
        codec: The autoencoder.
        seed: The world; its path depends on it alone.
        size: Height and width in pixels.
        reads: As for `read_pair`.
        sheet: A picture of the decoded reads goes there, one row per pair; none if None.

    Returns:
        `image` and `video`, the PSNR of the autoencoder in dB, and per class of motion the number of cells and sums
        over them for each read: squared error of the picture (of [0, 1]) and of the latents, cosines, share filled.
    """
    world = Worlds.sample([seed], movers=0)
    path = sample_path(world, seed, GAPS[-1] + 1, kind=KINDS[seed % len(KINDS)], height=size[0], width=size[1])
    cameras = path[[*range(VIDEO), *(gap for gap in GAPS if gap >= VIDEO)]]
    view = render(world, cameras)
    depth = torch.where(view.sky, FAR, view.depth.clamp(max=FAR))[0]
    colour = (view.colour[0].clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
    clip = colour[:VIDEO]
    decibels = lambda made: float(-10 * ((made.clamp(-1, 1) - clip) / 2).square().mean().log10())
    record: dict = {
        "seed": seed,
        "image": decibels(codec.decode(codec.encode(clip[:, None]))[:, 0]),
        "video": decibels(codec.decode(codec.encode(clip[None]))[0]),
    }
    rows = []
    for gap in GAPS:
        both = [0, gap if gap < VIDEO else VIDEO + [g for g in GAPS if g >= VIDEO].index(gap)]
        pair = read_pair(codec, colour[both], depth[both], cameras[both], reads)
        if not pair.cells.any():
            continue
        name = str(int(np.searchsorted(MOTIONS, pair.motion)))
        sums = record.setdefault(name, {"cells": 0, "reads": {}})
        count = int(pair.cells.sum())
        sums["cells"] += count
        inside = pair.cells.repeat_interleave(codec.stride, 0).repeat_interleave(codec.stride, 1)
        for read, picture in pair.decoded.items():
            one = {"square": float(((picture - colour[both[1]]) / 2).square().mean(0)[inside].mean()) * count}
            if read in pair.latents:
                is_, should = pair.latents[read][:, pair.cells], pair.latents["ceiling"][:, pair.cells]
                one["latent"] = float((is_ - should).square().sum())
                one["power"] = float((should - should.mean(1, keepdim=True)).square().sum())
                one["cosine"] = float(F.cosine_similarity(is_, should, dim=0).sum())
            one["filled"] = pair.filled.get(read, 1.0) * count
            old = sums["reads"].setdefault(read, {})
            sums["reads"][read] = {key: old.get(key, 0.0) + value for key, value in one.items()}
        rows.append(_strip(colour[both], pair, inside))
    if sheet is not None and rows:
        write_image(sheet, np.concatenate(rows))
    return record


def _strip(
    colour: Float[Tensor, "2 3 H W"], pair: PairReads, inside: Bool[Tensor, "H W"]
) -> UInt8[np.ndarray, "H x 3"]:
    """Both views and the second by each read, what is not compared greyed."""
    shade = lambda picture: torch.where(inside, picture, 0.2 * picture)
    return np.concatenate(list(tensor_to_images(torch.stack([*colour, *map(shade, pair.decoded.values())]))), 1)


def evaluate(
    codec: LatentCodec,
    reads: Reads,
    config: MovedWorlds,
    out: str | os.PathLike,
    *,
    sheets: int = 4,
    on_world: Callable[[int, int], None] | None = None,
) -> dict:
    """Measure all worlds; each is appended to `worlds.jsonl` at once, and a run that was cut goes on behind the last.

    Args:
        codec: The autoencoder.
        reads: As for `read_pair`.
        config: What to measure.
        out: Folder of the results; made if missing. One folder for one codec, its reads and one size.
        sheets: Worlds of which a picture is made.
        on_world: Called with the numbers of worlds that are done and wanted.

    Returns:
        What `results.json` holds, see `summarise`; `format_tables` makes tables of it.

    Raises:
        ValueError: If the folder holds results of other reads or another size.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    journal = out / "worlds.jsonl"
    settings = {"model": config.model, "reads": list(reads), "size": list(config.size)}
    whole = journal.read_text().split("\n")[:-1] if journal.exists() else []  # without a line that was cut off
    first, *lines = map(json.loads, whole or [json.dumps(settings)])
    if first != settings:
        raise ValueError(f"out must be a new folder or hold results of {settings}, got {first} in {journal}")
    with atomic(journal) as aside:
        aside.write_text("".join(json.dumps(line) + "\n" for line in (settings, *lines)))
    records = {record["seed"]: record for record in lines}
    seeds = range(config.first_seed, config.first_seed + config.worlds)
    for done, seed in enumerate(seeds):
        if seed not in records:
            sheet = out / f"sheet-{seed}.png" if done < sheets else None
            records[seed] = measure_world(codec, seed, config.size, reads, sheet)
            with journal.open("a") as file:
                file.write(json.dumps(records[seed]) + "\n")
        if on_world is not None:
            on_world(done + 1, config.worlds)
    results = {"settings": asdict(config)} | summarise([records[seed] for seed in seeds])
    write_json(out / "results.json", results)
    return results


def summarise(records: list[dict]) -> dict:
    """Means over worlds with 95 % bootstrap intervals, and differences to "gather" paired by world.

    Args:
        records: What `measure_world` returned.

    Returns:
        `image` and `video`, and per class of motion ("all" and the numbers of the classes) per read: `psnr`, `gain`
        (over the gather), `nmse`, `cosine`, `filled`, and the shares of `WAYS`, of mean gains.
    """
    column = lambda key: np.array([r[key] for r in records], float)
    result: dict = {"image": bootstrap(column("image")), "video": bootstrap(column("video")), "motion": {}}
    names = next(iter(record[c]["reads"] for record in records for c in CLASSES if c in record))
    for name in ("all", *CLASSES):
        worlds = [w for r in records if (w := _of_class(r, name))]
        if not worlds:
            continue
        mean = partial(_means, worlds)
        psnr = {read: -10 * np.log10(mean(read, "square")) for read in names}
        rows = {}
        for read in names:
            rows[read] = {"psnr": bootstrap(psnr[read]), "gain": bootstrap(psnr[read] - psnr["gather"])}
            rows[read]["filled"] = bootstrap(mean(read, "filled"))
            if "latent" in next(iter(worlds))[0]["reads"][read]:
                rows[read]["nmse"] = bootstrap(mean(read, "latent") / mean(read, "power"))
                rows[read]["cosine"] = bootstrap(mean(read, "cosine"))
        for key, goal in WAYS.items():
            whole = rows[goal]["gain"]["mean"]
            for row in rows.values():
                row[key] = row["gain"]["mean"] / whole if whole > 0 else None
        result["motion"][name] = {"worlds": len(worlds), "reads": rows}
    return result


def compare(first: str | os.PathLike, second: str | os.PathLike) -> str:
    """What one run has over another in dB, paired by the worlds that both have measured.

    Args:
        first: Folder of its results.
        second: Folder of the other's.

    Returns:
        A table in Markdown: a row per class of motion, a column per read of both.

    Raises:
        ValueError: If there is no such run, or they have no world in common.
    """
    (reads, mine), (others, theirs) = _journal(first), _journal(second)
    reads = [read for read in reads if read in others] + list(WARPS[1:])
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        raise ValueError(f"both runs must have measured some worlds alike, got none in {first} and {second}")
    rows = [f"| motion | pictures | video | {' | '.join(reads)} |", "|---" + "|--:" * (len(reads) + 2) + "|"]
    for name in ("all", *CLASSES):
        pairs = [(mine[s], theirs[s]) for s in seeds if _of_class(mine[s], name)]
        if not pairs:
            continue
        alone = [np.array([a[key] - b[key] for a, b in pairs]) for key in ("image", "video")]
        sums = [[_of_class(run, name) for run in one] for one in zip(*pairs, strict=True)]
        moved = [10 * np.log10(_means(sums[1], read, "square") / _means(sums[0], read, "square")) for read in reads]
        rows.append(
            f"| {_title(name)} | " + " | ".join(_shown(bootstrap(each), sign="+") for each in alone + moved) + " |"
        )
    return "\n".join(rows) + "\n"


def _journal(folder: str | os.PathLike) -> tuple[list[str], dict[int, dict]]:
    path = Path(folder) / "worlds.jsonl"
    if not path.exists():
        raise ValueError(f"there must be results in {folder}, but {path.name} is missing")
    head, *lines = map(json.loads, path.read_text().split("\n")[:-1])
    return head["reads"], {line["seed"]: line for line in lines}


def _of_class(record: dict, name: str) -> list[dict]:
    """The sums of a world in one class of motion, or in all."""
    return [record[c] for c in (CLASSES if name == "all" else [name]) if c in record]


def _means(worlds: list[list[dict]], read: str, key: str) -> Float[np.ndarray, "n"]:
    return np.array([sum(c["reads"][read][key] for c in w) / sum(c["cells"] for c in w) for w in worlds])


def format_tables(results: dict) -> str:
    """The results as Markdown: a table per class of motion."""
    text = [f"Autoencoder alone: pictures {_shown(results['image'])} dB, video {_shown(results['video'])} dB."]
    for name, part in results["motion"].items():
        text += ["", f"Motion: {_title(name)}, {part['worlds']} worlds.", ""]
        text += [
            "| read | PSNR, dB | over the gather, dB | way to the RGB warp | and re-encoded | NMSE | cosine | filled |"
        ]
        text += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
        for read, row in part["reads"].items():
            ways = ["-" if row[key] is None else f"{100 * row[key]:.0f} %" for key in WAYS]
            cells = [
                _shown(row["psnr"]),
                _shown(row["gain"]),
                *ways,
                _shown(row.get("nmse")),
                _shown(row.get("cosine")),
            ]
            text.append(f"| {read} | " + " | ".join(cells) + f" | {100 * row['filled']['mean']:.1f} % |")
    return "\n".join(text) + "\n"


def _title(name: str) -> str:
    """A class of motion in words, in parts of the picture's width."""
    bounds = [f"{100 * m:.0f} %" for m in MOTIONS]
    titles = [f"up to {bounds[0]}", *(f"{a} to {b}" for a, b in pairwise(bounds)), f"above {bounds[-1]}"]
    return "all" if name == "all" else titles[int(name)]


def _shown(value: dict | None, sign: str = "") -> str:
    return (
        "-"
        if value is None
        else " ".join((f"{value['mean']:{sign}.2f}", f"({value['low']:{sign}.2f},", f"{value['high']:{sign}.2f})"))
    )
