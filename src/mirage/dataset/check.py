"""A prepared set held to what it says of itself: every checksum, every number, and the geometry as pictures.

The first frame's picture is warped into a later frame by that frame's depth and both cameras: with a wrong convention,
scale or pose the two do not agree. Pictures lie in the shards for this, so that no autoencoder is needed and what is
seen is the geometry alone.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.dataset.scale import warp
from mirage.dataset.shards import LatentClip, ShardRecord, Shards, check_size, read_manifest
from mirage.video.picture import contact_sheet
from mirage.world.disk import hash_file

AGREE = 0.05  # relative difference of depth that is still the same surface
SHARE = 0.2  # of a view that must lie inside the first one to be compared with it
REACH, TILES = 4, 4  # a tile is looked for so many pixels to each side; tiles along a side of the picture
PLAIN = 4.0  # grey levels of deviation below which a tile has nothing to recognise
SUSPECT_PIXELS, SUSPECT_DEPTH = 2.0, 0.5


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """How well the geometry of one clip explains its pictures."""

    frame: int
    """Latent frame that the first one was warped into: the one farthest from it that shares enough with it."""
    inside: float
    """Share of that frame that lies inside the first view."""
    agrees: float
    """Share of those whose depth is that of the first view within 5 %: the others are hidden there, or wrong."""
    pixels: float
    """Median distance by which parts of the warped picture are off the true one, in pixels of the video; NaN if none
    can be recognised."""
    still: float
    """The same without any warp: how much there was to get wrong."""
    grey: float
    """Median difference of colour where depth agrees, its mean taken off, in levels of 255."""
    pictures: tuple[UInt8[np.ndarray, "y x 3"], ...]
    """First frame, the first warped, the later frame."""

    @property
    def suspect(self) -> bool:
        """Whether a wrong convention, scale or pose is likely."""
        return self.agrees < SUSPECT_DEPTH or self.pixels > max(SUSPECT_PIXELS, self.still)

    def __str__(self) -> str:
        seen = f"{self.inside:.0%} in view, depth agrees on {self.agrees:.0%}"
        return f"{seen}, off by {self.pixels:.1f} px ({self.still:.1f} unwarped), colour by {self.grey:.0f}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check found."""

    clips: int
    bytes: int
    problems: list[str]
    """One sentence each; none if all is as written."""
    suspects: list[str]
    """Clips whose geometry does not explain their pictures."""
    pixels: float
    """Median of `Overlay.pixels` over the clips."""
    sheet: UInt8[np.ndarray, "h w 3"] | None
    """Overlays of some clips, evenly chosen."""


def check(folder: str | Path, *, shown: int = 12, tell: Callable[[str], None] = lambda text: None) -> Report:
    """Read every byte of a set.

    Args:
        folder: Of the set.
        shown: Most clips on the contact sheet.
        tell: Called with a line for each clip.

    Returns:
        The report; damaged shards and clips are named in it, the rest is checked all the same.

    Raises:
        ValueError: If there is no finished set, or its index cannot be read.
    """
    folder, problems, suspects, off, shots = Path(folder), [], [], [], []
    manifest = read_manifest(folder)
    records = [ShardRecord.read(shard) for shard in manifest["shards"]]
    names = [clip.name for record in records for clip in record.clips]
    if len(names) != manifest["clips"] or len(set(names)) != len(names):
        problems.append(
            f"the index names {len(set(names))} different clips, but says that there are {manifest['clips']}"
        )
    count = min(shown, len(names))
    chosen = {round(i * (len(names) - 1) / max(1, count - 1)) for i in range(count)}
    number = 0
    for record in records:
        first, number = number, number + len(record.clips)
        try:
            check_size(folder, record)
            if hash_file(folder / record.file) != record.sha256:
                problems.append(f"{record.file}: the checksum of the file is not that of its content")
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        for index, clip in _clips(folder, record, problems):
            if wrong := _what_is_wrong(clip, manifest["codec"]):
                problems.append(f"clip {clip.name} in {record.file}: {wrong}")
                continue
            seen = overlay(clip)
            if seen is None:
                tell(f"{clip.name}: no two views have enough in common to compare")
                continue
            tell(f"{clip.name}: {seen}")
            off.append(seen.pixels)
            if seen.suspect:
                suspects.append(f"{clip.name}: {seen}")
            if first + index in chosen:
                shots.append((clip.name, seen))
    return Report(
        clips=len(names),
        bytes=sum(record.bytes for record in records),
        problems=problems,
        suspects=suspects,
        pixels=float(np.nanmedian(off)) if not all(map(math.isnan, off)) else math.nan,
        sheet=_sheet(shots, str(folder)) if shots else None,
    )


def _clips(folder: Path, record: ShardRecord, problems: list[str]) -> Iterator[tuple[int, LatentClip]]:
    """The clips of a shard that can be read."""
    alone = Shards.of(folder, record)
    for index in range(len(record.clips)):
        try:
            yield index, alone[index]
        except ValueError as error:
            problems.append(str(error))


def _what_is_wrong(clip: LatentClip, codec: dict) -> str:
    """The first thing about a clip that cannot be; empty if all is well."""
    t, c, h, w = clip.video.shape
    y, x = clip.depth.shape[1:]
    shapes = {
        "image": (clip.image.shape, (t, c, h, w)),
        "depth": (clip.depth.shape, (t, y, x)),
        "keep": (clip.keep.shape, (t, y, x)),
        "picture": (clip.picture.shape, (t, 3, y, x)),
        "cameras": ((len(clip.cameras),), (t,)),
        "channels": ((c,), (codec["channels"],)),
        "size": ((clip.cameras.height, clip.cameras.width), (h * codec["stride"], w * codec["stride"])),
    }
    for name, (got, wanted) in shapes.items():
        if tuple(got) != tuple(wanted):
            return f"{name} must be {tuple(wanted)}, got {tuple(got)}"
    if y % h or x % w or y // h != x // w or y // h < 2:
        return f"depth must have a whole number of values per cell, at least 2, got {y} x {x} for {h} x {w} cells"
    for name in ("video", "image", "depth"):
        if not getattr(clip, name).isfinite().all():
            return f"{name} holds a number that is not finite"
    if (clip.depth < 0).any() or not (clip.depth > 0).any():
        return "depth is negative somewhere, or known nowhere"
    try:
        clip.cameras.validate()
    except ValueError as error:
        return str(error)
    return ""


def overlay(clip: LatentClip) -> Overlay | None:
    """Warp the first picture of a clip into the farthest one that shares enough with it.

    Args:
        clip: A clip of two latent frames or more.

    Returns:
        How well they agree; None if no later frame sees enough of the first view.
    """
    fine = clip.cameras.resize(*clip.depth.shape[1:])
    first, typical = clip.picture[0].float(), clip.depth[clip.depth > 0].median()
    way = (fine.centers - fine.centers[0]).norm(dim=1) / typical
    views = {i: warp(first, clip.depth[i], fine[i], fine[0]) for i in range(1, len(clip.video))}
    share = {i: float(inside.float().mean()) for i, (_, inside) in views.items()}
    enough = [i for i in views if share[i] >= SHARE]
    if not enough:
        return None
    frame = max(enough, key=lambda i: (1 - share[i] + float(way[i]), i))
    warped, inside = views[frame]
    truth, zoom = clip.picture[frame].float(), clip.cameras.height / fine.height
    seen = inside & _in_front(clip.depth, fine, frame) & clip.keep[frame]
    still = torch.ones_like(inside)
    off = (warped - truth)[:, seen]
    return Overlay(
        frame=frame,
        inside=float(inside.float().mean()),
        agrees=float(seen.sum() / (inside & clip.keep[frame]).sum().clamp(min=1)),
        pixels=_displacement(warped, truth, seen) * zoom,
        still=_displacement(first, truth, still) * zoom,
        grey=float((off - off.mean(1, keepdim=True)).abs().mean(0).median()) if off.numel() else math.nan,
        pictures=tuple(
            shot.round().clamp(0, 255).byte().movedim(0, -1).numpy()
            for shot in (first, torch.where(seen, warped, warped * 0.25), truth)
        ),
    )


def _in_front(depth: Float32[Tensor, "t y x"], cameras: Cameras, frame: int) -> Bool[Tensor, "y x"]:
    """Which points of a frame have, in the first view, the depth that the first frame knows there."""
    points = cameras[frame].unproject(depth[frame : frame + 1]).reshape(-1, 3)
    xy, z = cameras[0].project(points)
    height, width = depth.shape[1:]
    column, row = xy[0].nan_to_num(-1e6, -1e6, -1e6).clamp(-1e6, 1e6).floor().long().unbind(-1)
    agrees = torch.zeros(len(points), dtype=torch.bool)
    for down in (-1, 0, 1):  # the nearest of nine: a border between near and far is not where depth is judged
        for right in (-1, 0, 1):
            there = depth[0, (row + down).clamp(0, height - 1), (column + right).clamp(0, width - 1)]
            agrees |= (there > 0) & ((z[0] - there).abs() <= AGREE * there)
    return agrees.view(height, width)


def _displacement(
    picture: Float32[Tensor, "3 y x"], truth: Float32[Tensor, "3 y x"], seen: Bool[Tensor, "y x"]
) -> float:
    """Median distance, in pixels, by which tiles of a picture lie off the same tiles of the truth.

    Each tile is looked for within `REACH` pixels by normalised correlation, which exposure does not change; a parabola
    finds the place between pixels. Tiles without contrast, or too little seen, say nothing.
    """
    grey, true = picture.mean(0), truth.mean(0)
    rows, columns = grey.shape[0] // TILES, grey.shape[1] // TILES
    found = []
    for i in range(TILES):
        for j in range(TILES):
            top, left = i * rows, j * columns
            window = (slice(top, top + rows), slice(left, left + columns))
            if float(seen[window].float().mean()) < 0.5 or float(grey[window][seen[window]].std()) < PLAIN:
                continue
            found.append(_shift(grey[window], seen[window].float(), true, top, left))
    return float(np.median(found)) if found else math.nan


def _shift(
    tile: Float32[Tensor, "h w"], seen: Float32[Tensor, "h w"], truth: Float32[Tensor, "y x"], top: int, left: int
) -> float:
    """How far a tile must be moved to fit the truth best."""
    height, width = tile.shape
    area = F.pad(truth[None, None], (REACH,) * 4, mode="replicate")[0, 0]
    area = area[top : top + height + 2 * REACH, left : left + width + 2 * REACH]
    count = seen.sum()
    tile = (tile - (tile * seen).sum() / count) * seen
    conv = lambda x, kernel: F.conv2d(x[None, None], kernel[None, None])[0, 0]
    mean = conv(area, seen) / count
    spread = (conv(area**2, seen) / count - mean**2).clamp(min=1e-3).sqrt()
    score = conv(area, tile) / spread
    best = int(score.argmax())
    y, x = divmod(best, score.shape[1])
    dy = _peak(score[:, x], y) - REACH
    dx = _peak(score[y], x) - REACH
    return math.hypot(dx, dy)


def _peak(line: Float32[Tensor, " n"], at: int) -> float:
    """The highest point of a parabola through a value and its neighbours."""
    if not 0 < at < len(line) - 1:
        return float(at)
    left, middle, right = (float(line[at + i]) for i in (-1, 0, 1))
    curve = left - 2 * middle + right
    return at + (0.5 * (left - right) / curve if curve < 0 else 0.0)


def _sheet(shots: list[tuple[str, Overlay]], title: str) -> UInt8[np.ndarray, "h w 3"]:
    """Three pictures for each clip: they may be of several sizes, all are put on the largest."""
    height = max(seen.pictures[0].shape[0] for _, seen in shots)
    width = max(seen.pictures[0].shape[1] for _, seen in shots)
    frames, labels = [], []
    for name, seen in shots:
        for picture in seen.pictures:
            rows, columns = picture.shape[:2]
            frames.append(np.pad(picture, ((0, height - rows), (0, width - columns), (0, 0))))
        labels += [name, f"warped to {seen.frame}: off {seen.pixels:.1f} px, depth {seen.agrees:.0%}"]
        labels.append(f"latent frame {seen.frame}" + (", SUSPECT" if seen.suspect else ""))
    return contact_sheet(frames, labels, columns=6, title=f"{title}: first frame, the same warped, the later frame")
