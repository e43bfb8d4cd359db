"""Real places left and met again: RGB-D sequences remembered on the way out, read at the return, held to the truth.

Depth is that of the sensor, so what is measured is the memory alone: no depth estimator, no denoiser.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.files import load_trajectory
from mirage.evaluation.metrics import psnr, seen_from
from mirage.evaluation.worlds import HELD_OUT, make_walk
from mirage.geometry.lift import lift
from mirage.inputs import fit_depth, read_depth
from mirage.memory import ColourMemory, LatentMemory, Memory, recall
from mirage.memory.holes import fill_holes
from mirage.pipeline import MiragePipeline
from mirage.video.codec import LatentCodec
from mirage.video.io import fit_image, images_to_tensor, read_image, tensor_to_images, write_image
from mirage.video.picture import contact_sheet, shade_unseen
from mirage.video.taef2 import TinyFlux2, TinyFlux2Codec

SEQUENCES = ("hololens_office_loop", "tum_fr3_cabinet58", "icl_livingroom1")
WEIGHTS = "weights_taef2_flux2"
KINDS = ("gather", "nearest", "nearest-corner", "colour")
AGREE = 0.05  # relative difference of depth that is still the same surface, sensor and poses being what they are
BATCH = 4  # views of one update
IMAGES = (".png", ".jpg", ".jpeg", ".npy")
LEAST = 20  # cells that a comparison needs


@dataclass(frozen=True, kw_only=True)
class RealLoop:
    """What one kind of memory gives back of one place at the return to it."""

    sequence: str
    autoencoder: str
    memory: str
    """One of `KINDS`, or "first frame": what was seen at the start, shown again as it is."""
    start: int
    end: int
    """Frames of the loop."""
    views: int
    """Remembered on the way out: the start and others, up to where least of the return is in view."""
    elements: int
    nbytes: int
    seen: float
    """Share of the cells that the memory fills."""
    psnr: float
    """dB of the decoded read against the true frame, on the cells that it fills; from the memory alone."""
    common: float
    """The same on cells that all kinds fill and whose true depth is that of the memory, true latents elsewhere."""
    matched: float
    """The same as `common`, with gain and offset of each colour fitted: cameras change their exposure on the way."""
    ceiling: float
    """The autoencoder alone on the same cells: the true frame encoded and decoded."""
    depth_error: float
    """Median of |depth - truth| / truth over the filled cells of known depth."""
    depth_agrees: float
    """Share of those within 5 %."""


@dataclass(frozen=True, kw_only=True)
class MotionLoss:
    """What is lost by reading one view from another, by how far they are apart; means over pairs."""

    sequence: str
    autoencoder: str
    memory: str
    gap: int
    """Frames between the views."""
    motion: float
    """Median way of what both views see, in pixels."""
    pairs: int
    psnr: float
    """dB of the decoded read, on cells that the first view sees whole and that all kinds fill."""
    ceiling: float
    """The autoencoder alone on the same cells."""


class Views(NamedTuple):
    """Views with all that is true of them."""

    colour: Float32[Tensor, "v 3 h w"]
    depth: Float32[Tensor, "v h w"]
    cameras: Cameras


@dataclass(frozen=True, kw_only=True)
class Rgbd:
    """An RGB-D sequence at a size that suits an autoencoder."""

    name: str
    cameras: Cameras
    pictures: list[Path]
    maps: list[Path]
    depth_scale: float
    loops: list[tuple[int, int]]

    @classmethod
    def open(cls, folder: Path, *, width: int, step: int) -> "Rgbd":
        """A folder with `rgb/`, `depth/`, `cameras.npz` and perhaps `loops.json`, its frames `width` wide.

        Args:
            folder: The sequence.
            width: Columns, a multiple of `step`.
            step: What both sides must be multiples of.

        Returns:
            The sequence; frames are cut to its height and resized, the cameras with them.

        Raises:
            ValueError: If something is missing, or pictures, depth maps and poses are not as many.
        """
        for name in ("rgb", "depth", "cameras.npz"):
            if not (folder / name).exists():
                raise ValueError(f"an RGB-D folder holds rgb/, depth/ and cameras.npz, {folder} has no {name}")
        cameras = load_trajectory(folder).cameras
        height = max(1, cameras.height * width // (cameras.width * step)) * step
        with np.load(folder / "cameras.npz") as archive:
            depth_scale = float(archive["depth_scale"]) if "depth_scale" in archive else 1000.0
        pictures, maps = (sorted(f for f in (folder / n).iterdir() if f.suffix in IMAGES) for n in ("rgb", "depth"))
        if not len(pictures) == len(maps) == len(cameras):
            raise ValueError(
                f"pictures, depth maps and poses must be as many, {folder} has {len(pictures)}, {len(maps)} and "
                f"{len(cameras)}"
            )
        return cls(
            name=folder.name,
            cameras=cameras.fit(height, width)[0],
            pictures=pictures,
            maps=maps,
            depth_scale=depth_scale,
            loops=_loops(folder / "loops.json", len(pictures)),
        )

    def frame(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """A frame, 0 to 255."""
        return fit_image(read_image(self.pictures[index]), self.cameras.height, self.cameras.width)

    def depth(self, frames: Sequence[int]) -> Float32[Tensor, "v h w"]:
        """z-depth of some frames, in metres, 0 = unknown."""
        maps = [torch.from_numpy(read_depth(self.maps[i], self.depth_scale)) for i in frames]
        return torch.stack([fit_depth(depth, self.cameras.height, self.cameras.width) for depth in maps])

    def views(self, frames: Sequence[int]) -> Views:
        """Some frames with depth and cameras."""
        colour = images_to_tensor(np.stack([self.frame(i) for i in frames]))
        return Views(colour, self.depth(frames), self.cameras[frames])

    def way_out(self, start: int, end: int, views: int) -> list[int]:
        """Frames from the start to the one that shows least of the view at the end, evenly chosen."""
        between = range(start, end)
        depth, goal = self.depth(between)[:, ::8, ::8], self.depth([end])[:, ::8, ::8]
        points = self.cameras[end].unproject(goal)[goal > 0]
        frames, share = recall(points, self.cameras[between], depth, k=len(between), threshold=-1.0, tolerance=AGREE)
        away = between[int(frames[share.argmin()])]
        return sorted({round(i) for i in np.linspace(start, away, views)})


def present(shared: Path) -> tuple[list[Path], list[str]]:
    """Sequences that are there, and for each thing that is not, a line that says so.

    Args:
        shared: Folder with `data/`.

    Returns:
        Folders, and what is skipped and why.
    """
    folders = [shared / "data" / name for name in SEQUENCES]
    reasons = [f"{f.name} skipped: no {f / 'cameras.npz'}" for f in folders if not (f / "cameras.npz").is_file()]
    weights = shared / "data" / WEIGHTS
    if not weights.is_dir():
        reasons.append(f"FLUX.2 autoencoder skipped: no {weights}")
    return [f for f in folders if (f / "cameras.npz").is_file()], reasons


def codecs(shared: Path) -> dict[str, LatentCodec]:
    """The autoencoders to measure with: that of nano, and the tiny one of FLUX.2 if its weights are there.

    Args:
        shared: Folder with `data/`.

    Returns:
        Codecs by name.
    """
    found: dict[str, LatentCodec] = {"nano": MiragePipeline.from_pretrained("nano").codec}
    weights = shared / "data" / WEIGHTS
    return ({"FLUX.2 tiny": TinyFlux2Codec(TinyFlux2.from_folder(weights))} if weights.is_dir() else {}) | found


@torch.no_grad()
def real_loops(
    shared: Path,
    *,
    views: int = 16,
    width: int = 320,
    out: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[RealLoop]:
    """Remember the way out of each loop, read at its end, compare with the true frame.

    Sequences that are not there are left out; `present` says which and why.

    Args:
        shared: Folder with `data/`.
        views: Views remembered of each loop.
        width: Columns of the frames.
        out: Folder for a picture of each loop; none if None.
        tell: Called with what is under way.

    Returns:
        A row for each loop, autoencoder and kind of memory.
    """
    rows = []
    for name, codec in codecs(shared).items():
        for folder in present(shared)[0]:
            rgbd = Rgbd.open(folder, width=width, step=codec.stride)
            for start, end in rgbd.loops:
                tell(f"{rgbd.name}, {start} to {end}, {name}")
                found, picture = _loop(rgbd, start, end, views, name, codec)
                rows += found
                if out is not None:
                    file = f"{rgbd.name}-{start}-{end}-{name.replace(' ', '-').lower()}.png"
                    write_image(out / file, picture)
    return rows


@torch.no_grad()
def by_motion(
    shared: Path,
    *,
    gaps: tuple[int, ...] = (1, 4, 16),
    pairs: int = 3,
    width: int = 320,
    tell: Callable[[str], None] = lambda text: None,
) -> list[MotionLoss]:
    """Read later frames out of one earlier frame each, at growing distance: of the sequences, and of exact worlds.

    Pairs whose views have next to nothing in common do not count.

    Args:
        shared: Folder with `data/`.
        gaps: Frames between the two.
        pairs: Of each gap and sequence, evenly spread; of the exact worlds, one in each of so many held-out ones.
        width: Columns of the frames.
        tell: Called with what is under way.

    Returns:
        A row for each sequence, autoencoder, gap and kind of memory.
    """
    known = codecs(shared)
    step = math.lcm(*(codec.stride for codec in known.values()))
    sources: dict[str, tuple[int, Callable[[int, int], Views]]] = {}  # the largest gap, and the views of a pair
    for folder in present(shared)[0]:
        rgbd = Rgbd.open(folder, width=width, step=step)
        last = len(rgbd.pictures) - 1
        start = lambda pair, gap, last=last: round(pair * (last - gap) / max(1, pairs - 1))
        sources[rgbd.name] = last, lambda p, gap, r=rgbd, s=start: r.views([s(p, gap), s(p, gap) + gap])
    side, last = width // 2 // step * step, max(64, 4 * max(gaps))
    walks = [make_walk(HELD_OUT + i, last + 1, side, side) for i in range(pairs)]
    both = lambda walk, gap: Views(walk.colour[[0, gap]], walk.depth[[0, gap]], walk.cameras[[0, gap]])
    sources["exact worlds"] = last, lambda p, gap: both(walks[p], gap)
    rows = []
    for name, codec in known.items():
        for source, (last, views) in sources.items():
            for gap in [gap for gap in gaps if gap <= last]:
                tell(f"{source}, gap of {gap}, {name}")
                found = [figures for pair in range(pairs) for figures in _pair(views(pair, gap), codec)]
                for kind in KINDS:
                    some = np.array([figures for this, *figures in found if this == kind])
                    if len(some):
                        motion, got, ceiling = some.mean(0).tolist()
                        about = {"sequence": source, "autoencoder": name, "memory": kind, "gap": gap}
                        rows.append(MotionLoss(**about, motion=motion, pairs=len(some), psnr=got, ceiling=ceiling))
    return rows


def _loops(file: Path, frames: int) -> list[tuple[int, int]]:
    """Pairs of frames that show the same place, the second after the camera was elsewhere; none without a file."""
    if not file.exists():
        return []
    try:
        loops = [(int(start), int(end)) for start, end in json.loads(file.read_text(encoding="utf-8"))["loops"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file} must hold {{"loops": [[start, end], ...]}}: {error!r}') from None
    if wrong := [loop for loop in loops if not 0 <= loop[0] < loop[1] < frames]:
        raise ValueError(f"{file} names frames {wrong[0]}, the sequence has 0 to {frames - 1}")
    return loops


def _memories(
    latents: Float[Tensor, "1 c h w"],
    depth: Float32[Tensor, "1 H W"],
    camera: Cameras,
    frame: Float32[Tensor, "1 3 H W"],
    codec: LatentCodec,
) -> dict[str, Memory]:
    memories: dict[str, Memory] = {
        kind: LatentMemory.from_view(latents, depth, camera, read=kind, dtype=torch.float16) for kind in KINDS[:3]
    }
    return memories | {"colour": ColourMemory.from_view(latents, depth, camera, frames=frame, codec=codec)}


def _loop(
    rgbd: Rgbd, start: int, end: int, views: int, name: str, codec: LatentCodec
) -> tuple[list[RealLoop], UInt8[np.ndarray, "H W 3"]]:
    """Rows of one loop and one autoencoder, and their picture."""
    way = rgbd.way_out(start, end, views)
    given, camera = rgbd.views(way), rgbd.cameras[end]
    latents = torch.cat([codec.encode(frame[None, None])[0] for frame in given.colour])
    memories = _memories(latents[:1], given.depth[:1], given.cameras[0], given.colour[:1], codec)
    for first in range(1, len(way), BATCH):
        some = slice(first, first + BATCH)
        for memory in memories.values():
            memory.update(latents[some], given.depth[some], given.cameras[some], frames=given.colour[some])

    reads = {kind: memory.read(camera) for kind, memory in memories.items()}
    truth = rgbd.frame(end)
    real = codec.encode(images_to_tensor(truth)[None, None])[0]
    cells = lift(rgbd.depth([end]), *real.shape[2:])
    known = reads["gather"].depth
    common = cells.valid & ((known - cells.depth).abs() <= AGREE * cells.depth)
    for read in reads.values():
        common = common & read.visible
    ceiling = _decoded(codec, real)
    count = _pixels(common, codec.stride)
    same = {
        "sequence": rgbd.name,
        "autoencoder": name,
        "start": start,
        "end": end,
        "views": len(way),
        "ceiling": psnr(ceiling, truth, count),
    }
    shown = {"at the start": rgbd.frame(start), "at the return": truth, "autoencoder alone": ceiling}
    rows = []
    for kind, read in reads.items():
        alone = _decoded(codec, fill_holes(read.features.float(), read.visible))
        mended = _decoded(codec, torch.where(common[:, None], read.features.float(), real))
        both = cells.valid & read.visible
        off = ((read.depth - cells.depth).abs() / cells.depth)[both].numpy()
        row = RealLoop(
            **same,
            memory=kind,
            elements=len(memories[kind]),
            nbytes=memories[kind].nbytes,
            seen=float(read.visible.float().mean()),
            psnr=psnr(alone, truth, _pixels(read.visible, codec.stride)),
            common=psnr(mended, truth, count),
            matched=_matched(mended, truth, count),
            depth_error=float(np.median(off)) if len(off) else math.nan,
            depth_agrees=float((off <= AGREE).mean()) if len(off) else math.nan,
        )
        rows.append(row)
        shown[f"{kind}: {row.seen:.0%} seen, {row.psnr:.1f} dB"] = shade_unseen(alone, read.visible[0].numpy())
    copied = rgbd.frame(start)
    dark = {"elements": 0, "nbytes": 0, "depth_error": math.nan, "depth_agrees": math.nan}
    copy = {"common": psnr(copied, truth, count), "matched": _matched(copied, truth, count)}
    rows.append(RealLoop(**same, memory="first frame", seen=1.0, psnr=psnr(copied, truth), **copy, **dark))
    shown["compared: all fill it, depth agrees"] = shade_unseen(truth, common[0].numpy())
    title = f"{rgbd.name}, frame {start} met again at {end}; {len(way)} views remembered; {name}"
    return rows, contact_sheet(list(shown.values()), list(shown), columns=4, title=title)


def _pair(views: Views, codec: LatentCodec) -> list[tuple[str, float, float, float]]:
    """Kind of memory, motion, PSNR and ceiling of the second view read out of the first; nothing if they share none."""
    latents = codec.encode(views.colour[:, None])[:, 0]
    first, camera, real, truth = views.cameras[0], views.cameras[1], latents[1:], tensor_to_images(views.colour[1])
    sure = views.depth[0].masked_fill(views.depth[0] == 0, math.nan)  # NaN agrees with nothing
    there = views.depth[1:]
    seen = seen_from(there, camera, sure, first, tolerance=AGREE) & (there > 0)
    memories = _memories(latents[:1], views.depth[:1], first, views.colour[:1], codec)
    reads = {kind: memory.read(camera) for kind, memory in memories.items()}
    common = torch.nn.functional.avg_pool2d(seen[:, None].float(), codec.stride)[:, 0] > 0.9
    for read in reads.values():
        common = common & read.visible
    if int(common.sum()) < LEAST:
        return []
    before, after = views.cameras.project(camera.unproject(there)[seen])[0]
    motion = float((after - before).norm(dim=-1).median())
    count = _pixels(common, codec.stride)
    ceiling = psnr(_decoded(codec, real), truth, count)
    shown = {
        kind: _decoded(codec, torch.where(common[:, None], read.features.float(), real)) for kind, read in reads.items()
    }
    return [(kind, motion, psnr(picture, truth, count), ceiling) for kind, picture in shown.items()]


def _decoded(codec: LatentCodec, latents: Float[Tensor, "1 c h w"]) -> UInt8[np.ndarray, "H W 3"]:
    return tensor_to_images(codec.decode(latents[None])[0, 0])


def _pixels(cells: Bool[Tensor, "1 h w"], stride: int) -> Bool[np.ndarray, "H W"]:
    return np.kron(cells[0].numpy(), np.ones((stride, stride), bool))


def _matched(
    picture: UInt8[np.ndarray, "h w 3"], truth: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> float:
    """dB after gain and offset of each colour were fitted to the truth, on the masked pixels."""
    if not mask.any():
        return math.nan
    out = picture.copy()
    for colour in range(3):
        x, y = picture[mask, colour].astype(np.float64), truth[mask, colour].astype(np.float64)
        gain = np.cov(x, y)[0, 1] / max(x.var(ddof=1), 1e-9)
        out[mask, colour] = (gain * (x - x.mean()) + y.mean()).round().clip(0, 255)
    return psnr(out, truth, mask)
