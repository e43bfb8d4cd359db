"""What mended reads are worth on real places: one frame of an RGB-D sequence remembered, another one read from it.

All ways are held to the same cells, those that all of them fill and whose depth agrees, with the truth's own latents or
pixels elsewhere. Cameras change their exposure: the first frame's colours are fitted to the second's beforehand, for
all ways alike.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.evaluation.metrics import bootstrap, seen_from
from mirage.evaluation.real_loops import Rgbd, Views
from mirage.memory import ColourMemory, LatentMemory, LatentMover
from mirage.video.codec import LatentCodec
from mirage.video.io import tensor_to_images, write_image, write_json
from mirage.video.picture import contact_sheet

AGREE = 0.03  # relative difference of depth that is still the same surface
LEAST = 20  # cells that a comparison needs
MOTIONS = (0.03, 0.1)  # bounds between classes of motion, in picture widths
GAPS = (1, 2, 4, 8, 16)  # frames between the two
TRIPS = (1, 2, 4, 8, 16)
WARP, CODED, GATHER = "rgb warp", "rgb warp, re-encoded", "gather"
Movers = Mapping[str, LatentMover]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One frame read from another in several ways."""

    sequence: str
    frames: tuple[int, int]
    motion: float
    """Median way of what both show, in picture widths."""
    cells: int
    """Cells that are compared."""
    psnr: dict[str, float]
    nmse: dict[str, float]
    cosine: dict[str, float]


@torch.no_grad()
def read_pair(
    codec: LatentCodec, views: Views, movers: Movers
) -> tuple[float, Bool[Tensor, "h w"], dict[str, Tensor], dict[str, Tensor]] | None:
    """Remember the first view, read the second.

    Args:
        codec: The autoencoder.
        views: Both views.
        movers: What mends reads, by name.

    Returns:
        Motion, the cells that are compared, pictures and latents of the second view by each way, the last the truth's
        own; None if the views have next to nothing in common.
    """
    stride, (height, width) = codec.stride, views.colour.shape[2:]
    depth, first, second = views.depth, views.cameras[:1], views.cameras[1:]
    sure = depth[0].masked_fill(depth[0] == 0, math.nan)  # NaN agrees with nothing
    seen = (seen_from(depth[1:], second, sure, first, tolerance=AGREE) & (depth[1:] > 0))[0]
    share = lambda mask: F.avg_pool2d(mask[None, None].float(), stride)[0, 0]
    shape = torch.zeros(1, codec.channels, height // stride, width // stride)
    colours = lambda frames: ColourMemory.from_view(shape, depth[:1], first, frames=frames, codec=codec)
    warped, pixels = colours(views.colour[:1]).render(second)
    cells = (share(seen) > 0.9) & (share(pixels.visible[0]) > 0.999)
    plain = lambda latents, **how: LatentMemory.from_view(latents, depth[:1], first, **how).read(second)
    for read in ("gather", "nearest"):
        cells = cells & plain(shape, read=read).visible[0]
    if int(cells.sum()) < LEAST:
        return None
    inside = cells.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    xy = first.project(second.unproject(depth[1:])[0][inside & seen])[0][0]
    home = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1)[inside & seen]
    motion = float((xy - home - 0.5).norm(dim=-1).median()) / width

    given = _exposed(views.colour[:1], warped, views.colour[1:], inside & seen)
    own = codec.encode(torch.cat([given, views.colour[1:]])[:, None])[:, 0]
    warped = colours(given).render(second)[0]
    rewarped = colours(codec.decode(own[:1, None])[:, 0].clamp(-1, 1)).render(second)[0]
    filled = torch.where(inside, torch.cat([warped, rewarped]), views.colour[1])
    encoded = codec.encode(filled[:, None])[:, 0]
    latents = {"not moved": own[0], "nearest": plain(own[:1], read="nearest").features[0]}
    latents[GATHER] = plain(own[:1]).features[0]
    latents |= {name: plain(own[:1], mover=mover).features[0] for name, mover in movers.items()}
    latents |= {"decoded, warped, encoded": encoded[1], CODED: encoded[0], "ceiling": own[1]}
    latents = {name: torch.where(cells, each, own[1]) for name, each in latents.items()}
    decoded = codec.decode(torch.stack(list(latents.values()))[:, None])[:, 0].clamp(-1, 1)
    pictures = dict(zip(latents, decoded, strict=True)) | {WARP: filled[0]}
    return motion, cells, pictures, latents


def _exposed(
    frame: Float32[Tensor, "1 3 h w"],
    warped: Float32[Tensor, "1 3 h w"],
    truth: Float32[Tensor, "1 3 h w"],
    mask: Bool[Tensor, "h w"],
) -> Float32[Tensor, "1 3 h w"]:
    """The frame with gain and offset of each colour fitted so that its warp is nearest to the truth."""
    x, y = warped[0][:, mask], truth[0][:, mask]
    middle = x.mean(1, keepdim=True)
    gain = ((x - middle) * (y - y.mean(1, keepdim=True))).mean(1) / (x - middle).square().mean(1).clamp(min=1e-6)
    gain = gain.clamp(0.5, 2.0)[:, None]
    offset = y.mean(1, keepdim=True) - gain * middle
    return (frame * gain[..., None] + offset[..., None]).clamp(-1, 1)


@torch.no_grad()
def measure(
    codec: LatentCodec,
    sequences: Sequence[Rgbd],
    movers: Movers,
    *,
    pairs: int = 6,
    gaps: Sequence[int] = GAPS,
    out: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Pair]:
    """Read frames out of others, at growing distance and round the loops.

    Args:
        codec: The autoencoder.
        sequences: Where.
        movers: What mends reads, by name.
        pairs: Of each sequence and gap, evenly spread.
        gaps: Frames between the two.
        out: Folder for pictures, one per gap and loop; none if None.
        tell: Called with what is under way.

    Returns:
        A row for each pair that has enough in common.
    """
    rows = []
    for rgbd in sequences:
        last = len(rgbd.pictures) - 1
        some = [(round(i), round(i) + gap) for gap in gaps for i in np.linspace(0, last - gap, pairs) if gap < last]
        shown = {some[k * pairs + pairs // 2] for k in range(len(some) // pairs)} | set(rgbd.loops)
        for frames in [*dict.fromkeys(some), *rgbd.loops]:
            views = rgbd.views(list(frames))
            if (got := read_pair(codec, views, movers)) is None:
                continue
            _, cells, pictures, _ = got
            row = _pair(rgbd.name, frames, views.colour[1], codec.stride, got)
            rows.append(row)
            tell(f"{rgbd.name} {frames[0]} to {frames[1]}: " + ", ".join(f"{k} {v:.1f}" for k, v in row.psnr.items()))
            if out is not None and frames in shown:
                inside = cells.repeat_interleave(codec.stride, 0).repeat_interleave(codec.stride, 1)
                named = {"remembered": views.colour[0], "truth": views.colour[1]}
                for name, picture in pictures.items():
                    named[f"{name} {row.psnr[name]:.1f} dB"] = torch.where(inside, picture, 0.3 * picture - 0.7)
                sheet = contact_sheet(
                    list(tensor_to_images(torch.stack(list(named.values())))), list(named), columns=4, title=rgbd.name
                )
                write_image(out / f"{rgbd.name}-{frames[0]}-{frames[1]}.png", sheet)
    return rows


def _pair(
    sequence: str,
    frames: tuple[int, int],
    truth: Float32[Tensor, "3 H W"],
    stride: int,
    got: tuple[float, Bool[Tensor, "h w"], dict[str, Tensor], dict[str, Tensor]],
) -> Pair:
    motion, cells, pictures, latents = got
    inside = cells.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    should = latents["ceiling"][:, cells]
    power = (should - should.mean(1, keepdim=True)).square().sum()
    of = lambda figure: {k: float(figure(x[:, cells])) for k, x in latents.items() if k != "ceiling"}
    return Pair(
        sequence=sequence,
        frames=frames,
        motion=motion,
        cells=int(cells.sum()),
        psnr={k: _decibels(x, truth, inside) for k, x in pictures.items()},
        nmse=of(lambda x: (x - should).square().sum() / power),
        cosine=of(lambda x: F.cosine_similarity(x, should, dim=0).mean()),
    )


def _decibels(picture: Float[Tensor, "3 H W"], truth: Float[Tensor, "3 H W"], mask: Bool[Tensor, "H W"]) -> float:
    return float(-10 * ((picture - truth)[:, mask] / 2).square().mean().clamp(min=1e-6).log10())


def tables(rows: Sequence[Pair]) -> str:
    """Means over pairs with 95 % bootstrap intervals, by sequence and class of motion, as Markdown.

    Args:
        rows: What `measure` returned.

    Returns:
        For each way: PSNR, what it has over the gather (paired), the share of the way from there to the warp in colour,
        how many pairs are worse than the gather's, NMSE and cosine.
    """
    text = []
    names = list(rows[0].psnr) if rows else []
    for sequence in dict.fromkeys(row.sequence for row in rows):
        for low, high in [(0.0, math.inf), *pairwise((0.0, *MOTIONS, math.inf))]:
            some = [row for row in rows if row.sequence == sequence and low <= row.motion < high]
            if not some:
                continue
            moved = "all" if (low, high) == (0.0, math.inf) else f"{100 * low:.0f} to {100 * high:.0f} %"
            text += [f"\n{sequence}, motion {moved} of the width, {len(some)} pairs\n"]
            head = "read | PSNR, dB | over gather, dB | way to the RGB warp | and re-encoded | worse | NMSE | cosine"
            text += [f"| {head} |"]
            text += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
            column = lambda name, part="psnr", some=some: np.array(
                [getattr(row, part).get(name, np.nan) for row in some]
            )
            goal = {key: (column(key) - column(GATHER)).mean() for key in (WARP, CODED)}
            for name in names:
                gain = column(name) - column(GATHER)
                way = [f"{100 * gain.mean() / goal[key]:.0f} %" if goal[key] > 0.1 else "-" for key in (WARP, CODED)]
                cells = [_shown(column(name)), _shown(gain), *way, f"{int((gain < -0.05).sum())} of {len(some)}"]
                cells += [_shown(column(name, part)) for part in ("nmse", "cosine")]
                text.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(text).strip() + "\n"


def _shown(values: Float[np.ndarray, "n"]) -> str:
    figure = bootstrap(values.astype(float))
    return "-" if figure["mean"] is None else f"{figure['mean']:.2f} ({figure['low']:.2f}, {figure['high']:.2f})"


@torch.no_grad()
def there_and_back(
    codec: LatentCodec, views: Views, movers: Movers, trips: Sequence[int] = TRIPS
) -> dict[str, list[float]]:
    """Re-write what is read, again and again, from one view to the other and back, with nothing else in between.

    Args:
        codec: The autoencoder.
        views: Both views.
        movers: What mends reads, by name.
        trips: After how many trips there and back to look.

    Returns:
        By way of reading, dB of the first view after so many trips, on the cells that are left after the last trip in
        every way; under "no trip" that of the autoencoder alone.
    """
    own = codec.encode(views.colour[:1, None])[:, 0]
    s = codec.stride
    kept, common = {}, torch.ones(own.shape[2:], dtype=torch.bool)
    for name, how in {
        "nearest": {"read": "nearest"},
        GATHER: {},
        **{k: {"mover": m} for k, m in movers.items()},
    }.items():
        latents, known = own, torch.ones_like(common)
        for trip in range(1, max(trips) + 1):
            for here, there in ((0, 1), (1, 0)):
                keep = known.repeat_interleave(s, 0).repeat_interleave(s, 1)[None]
                depth = views.depth[here : here + 1]
                memory = LatentMemory.from_view(latents, depth, views.cameras[here : here + 1], keep=keep, **how)
                read = memory.read(views.cameras[there : there + 1])
                latents, known = read.features, read.visible[0]
            if trip in trips:
                kept[name, trip] = latents[0]
        common = common & known
    inside = common.repeat_interleave(s, 0).repeat_interleave(s, 1)
    look = lambda x: _decibels(
        codec.decode(torch.where(common, x, own[0])[None, None])[0, 0].clamp(-1, 1), views.colour[0], inside
    )
    names = dict.fromkeys(name for name, _ in kept)
    return {"no trip": [look(own[0])]} | {name: [look(kept[name, trip]) for trip in trips] for name in names}


@torch.no_grad()
def cost(channels: int = 48, *, height: int = 704, width: int = 1280, stride: int = 16, views: int = 9, split: int = 4,
         repeat: int = 3) -> dict[str, float]:  # fmt: skip
    """Milliseconds of a read at the paper's size, with and without a mover.

    Args:
        channels: Of a latent.
        height: Of the pictures, in pixels.
        width: Of the pictures, in pixels.
        stride: Pixels per cell.
        views: Read at once.
        split: Of the mover.
        repeat: How often; the least counts.

    Returns:
        By what was done: "read" and "moved read".
    """
    h, w = height // stride, width // stride
    k = torch.tensor([[[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1.0]]])
    poses = torch.eye(4).repeat(views, 1, 1)
    poses[:, 0, 3] = -0.05 * torch.arange(1, views + 1)
    cameras = Cameras(k.repeat(views, 1, 1), poses, height, width)
    depth = (
        3 + torch.linspace(0, 3, 4 * w).sin()[None, None] + torch.linspace(0, 1, 4 * h)[None, :, None]
    ).contiguous()
    latents = torch.randn(1, channels, h, w)
    times = {}
    for name, mover in (("read", None), ("moved read", LatentMover(channels=channels, split=split).eval())):
        memory = LatentMemory.from_view(latents, depth, Cameras(k, torch.eye(4)[None], height, width), mover=mover)
        memory.read(cameras)
        took = []
        for _ in range(repeat):
            start = time.perf_counter()
            memory.read(cameras)
            took.append(time.perf_counter() - start)
        times[name] = 1000 * min(took)
    return times


def write(out: Path, rows: Sequence[Pair]) -> None:
    """Keep the rows and their tables.

    Args:
        out: Folder of `pairs.json` and `tables.md`.
        rows: What `measure` returned.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "pairs.json", [asdict(row) for row in rows])
    (out / "tables.md").write_text(tables(rows), encoding="utf-8")
