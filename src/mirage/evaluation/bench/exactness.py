"""Exactness: holes that need not be, and how far what is read lies from where it belongs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.evaluation.bench.tables import Aim, Curves, Part, Table
from mirage.memory import LatentMemory, MemoryRead
from mirage.scenes.halls import FAR, ROOM, TILTED, WALL, World, hall, placed

READS = ("gather", "nearest", "nearest-corner")
CENTRE = 3.0  # metres to what an orbit goes round
WORLDS: dict[str, Callable[[], World]] = {
    "wall": lambda: WALL,
    "tilted wall": lambda: TILTED,
    "room": lambda: ROOM,
    "hall with pillars": lambda: hall(6.0),
}
PLACES = {
    "whole": "inside one surface, with cells of it all around",
    "beside": "inside one surface, but beside a depth edge: some of the four cells around are of another surface, and "
    "there is nothing to interpolate with",
    "border": "within half a cell of the border of the first view, where there is nothing left to interpolate with",
    "edge": "drawn from a cell that straddles a depth edge, whose latent is of two surfaces and has no one place",
}
ENOUGH = 0.5  # pixels RMS
EDGE = 0.05  # relative step of depth from pixel to pixel that is an edge


def measure(*, height: int, width: int, stride: int, tell: Callable[[str], None]) -> Part:
    """Read one view of exact worlds from other places.

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        stride: Pixels per cell.
        tell: Called with what is under way.

    Returns:
        Tables, aims and curves.
    """
    found = []
    for name, world in WORLDS.items():
        tell(f"displacement: {name}")
        found += displacements(name, world(), height, width, stride)
    moves = list(dict.fromkeys(one.motion for one in found))
    of = lambda read, **where: [
        one for one in found if one.read == read and all(getattr(one, key) == value for key, value in where.items())
    ]
    by_motion = {(read, move): of(read, motion=move) for read in READS for move in moves}
    part = Part()
    part.tables.append(
        Table(
            title="Holes and displacement by motion, all worlds",
            columns=[
                "motion",
                *(f"{what}, {read}" for read in READS for what in ("empty %", "px RMS")),
                "too many %, gather",
            ],
            rows=[
                [m, *(f(by_motion[read, m]) for read in READS for f in (empty, rms)), too_many(by_motion["gather", m])]
                for m in moves
            ],
            note=(
                "One view is remembered with the coordinates of its own cell centres as latents, and read from "
                "elsewhere. *Empty*: cells left empty though the first view sees the surface at their centre. *px*: "
                "how far, in pixels, the centre of a filled cell lies from the image of what is read there. "
                "*Too many*: share of the cells that could be filled without whose worst the rest would be below "
                f"{ENOUGH:g} px RMS. No rule that prefers holes leaves out less, so that above 1 % the aims of holes "
                "and of displacement over all cells exclude each other. "
                f"{height} x {width}, stride {stride}."
            ),
        )
    )
    part.tables.append(
        Table(
            title="Holes and displacement by world, all motions",
            columns=["world", "read", "empty %", "px RMS", *PLACES],
            rows=[
                [name, read, empty(these), rms(these), *(rms(these, [place]) for place in PLACES)]
                for name in WORLDS
                for read in READS
                for these in [of(read, world=name)]
            ],
            note="px RMS of all filled cells, then of those "
            + "; ".join(f"*{place}*: {meaning}" for place, meaning in PLACES.items())
            + ".",
        )
    )
    ours = {move: by_motion["gather", move] for move in moves}
    holes, off = ({m: figure(v) for m, v in ours.items()} for figure in (empty, rms))
    part.aims += [
        _worst("cells empty that need not be < 1 % at every motion", holes, 1.0, "%"),
        _worst("displacement < 0.5 px RMS at every motion, all cells", off, ENOUGH, "px"),
    ]
    for where, places in (
        ("inside a surface", ["whole", "beside"]),
        ("inside a surface, cells of it all around", ["whole"]),
    ):
        wish = f"displacement < 0.5 px RMS at every motion, {where}"
        part.aims.append(_worst(wish, {m: rms(v, places) for m, v in ours.items()}, ENOUGH, "px"))
    part.curves.append(
        Curves(
            title="Displacement by motion",
            x=", ".join(f"{i}: {move}" for i, move in enumerate(moves) if i % 3 == 0),
            y="px RMS",
            series={read: [(i, rms(by_motion[read, move])) for i, move in enumerate(moves)] for read in READS},
        )
    )
    return part


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """What one read of one motion in one world came to."""

    world: str
    motion: str
    read: str
    fillable: int
    """Cells that the first view sees the centre of."""
    empty: int
    """Those of them that were left empty."""
    filled: dict[str, int]
    """Filled cells by where they lie; see `PLACES`."""
    square: dict[str, float]
    """Sums over them of squared pixels."""
    squares: Float64[Tensor, " n"]
    """The squared pixels of each filled cell, less those of bad cells that need not be filled."""


def motions(height: int, width: int) -> dict[str, Cameras]:
    """Cameras by motion, in metres and degrees."""
    moves = {}
    here = lambda x=0.0, z=0.0, yaw=0.0: placed(height, width, torch.tensor([[x, 0.0, z]]), torch.tensor([yaw]))
    for metres in (0.25, 0.5, 1.0):
        moves[f"push-in {metres:g} m"] = here(z=metres)
    for degrees in (5.0, 15.0, 30.0):
        moves[f"yaw {degrees:g}°"] = here(yaw=degrees)
    for metres in (0.1, 0.3, 0.6):
        moves[f"truck {metres:g} m"] = here(x=metres)
    for degrees in (5.0, 10.0, 20.0):
        angle = math.radians(degrees)
        moves[f"orbit {degrees:g}°"] = here(x=CENTRE * math.sin(angle), z=CENTRE * (1 - math.cos(angle)), yaw=-degrees)
    return moves


def displacements(name: str, world: World, height: int, width: int, stride: int) -> list[Displacement]:
    """All motions and kinds of read in one world.

    Args:
        name: Of the world.
        world: The world.
        height: Rows of the picture.
        width: Columns of the picture.
        stride: Pixels per cell.

    Returns:
        One record per motion and read.
    """
    source = placed(height, width, torch.zeros(1, 3), torch.zeros(1))
    grid = (height // stride, width // stride)
    depth = world.depth(source, height, width)
    coordinates = source.unproject(world.depth(source, *grid)).permute(0, 3, 1, 2)
    cut = between_centres(depth, stride)[0]
    field = torch.cat([coordinates, straddles(depth, stride)[:, None].float()], 1)
    memories = {read: LatentMemory.from_view(field, depth, source, read=read, dtype=torch.float32) for read in READS}
    found = []
    for motion, target in motions(height, width).items():
        true = world.depth(target, *grid)
        points = target.unproject(true)
        place, z = source.project(points.reshape(-1, 3))
        size = torch.tensor([width, height])
        deep = ((place > stride / 2) & (place < size - stride / 2)).all(-1).view(true.shape)
        known = (z.view(true.shape) < FAR - 0.5) & (true > 0)
        fillable = known & world.sees(source, points)
        corner = (place / stride + 0.5).floor().long().view(*true.shape, 2)
        x, y = corner[..., 0].clamp(0, grid[1]), corner[..., 1].clamp(0, grid[0])
        beside = cut[y, x]
        for read, memory in memories.items():
            got = memory.read(target)
            square = displaced(got, target).double().square()
            edge = got.features[:, 3] > 0.01
            inside = ~edge & deep
            places = {"whole": inside & ~beside, "beside": inside & beside, "border": ~edge & ~deep, "edge": edge}
            places = {place: mask & got.visible for place, mask in places.items()}
            found.append(
                Displacement(
                    world=name,
                    motion=motion,
                    read=read,
                    fillable=int(fillable.sum()),
                    empty=int((fillable & ~got.visible).sum()),
                    filled={place: int(mask.sum()) for place, mask in places.items()},
                    square={place: float(square[mask].sum()) for place, mask in places.items()},
                    squares=square[got.visible & (fillable | (square < ENOUGH**2))],
                )
            )
    return found


def displaced(read: MemoryRead, cameras: Cameras) -> Float32[Tensor, "v h w"]:
    """Pixels between the centre of each cell and the image of the world coordinates that were read there."""
    h, w = read.visible.shape[1:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    centre = torch.stack([x * cameras.width / w, y * cameras.height / h], -1)
    views = []
    for view in range(len(cameras)):
        points = read.features[view, :3].permute(1, 2, 0).reshape(-1, 3).float()
        place, z = cameras[view].project(points)
        off = (place[0].view(h, w, 2) - centre).norm(dim=-1)
        behind = z[0].view(h, w) <= 0
        views.append(torch.where(behind, torch.full_like(off, float(cameras.width)), off))
    return torch.stack(views)


def straddles(depth: Float32[Tensor, "v H W"], stride: int) -> Bool[Tensor, "v h w"]:
    """Cells inside which depth jumps, or becomes unknown, from one pixel to the next."""
    jump = _jumps(depth)
    jump[:, stride - 1 :: stride] = 0  # between two cells: nobody's
    jump[:, :, stride - 1 :: stride] = 0
    return torch.nn.functional.max_pool2d(jump, stride) > EDGE


def between_centres(depth: Float32[Tensor, "v H W"], stride: int) -> Bool[Tensor, "v h1 w1"]:
    """The same for the squares between the centres of four cells, those that reach over the border included."""
    before, after = stride // 2, stride - stride // 2
    return (
        torch.nn.functional.max_pool2d(torch.nn.functional.pad(_jumps(depth), (before, after, before, after)), stride)
        > EDGE
    )


def _jumps(depth: Float32[Tensor, "v H W"]) -> Float32[Tensor, "v H W"]:
    """Relative step of depth from each pixel to the next one to the right or below."""
    safe = depth.clamp(min=1e-3)
    jump = torch.zeros_like(depth)
    for axis in (1, 2):
        before, after = safe.narrow(axis, 0, depth.shape[axis] - 1), safe.narrow(axis, 1, depth.shape[axis] - 1)
        step = (before / after - 1).abs().maximum((after / before - 1).abs())
        jump.narrow(axis, 0, depth.shape[axis] - 1).copy_(
            torch.maximum(jump.narrow(axis, 0, depth.shape[axis] - 1), step)
        )
    return jump


def empty(found: list[Displacement]) -> float:
    """Per cent of the cells that could be filled that are empty."""
    return 100 * sum(one.empty for one in found) / max(1, sum(one.fillable for one in found))


def rms(found: list[Displacement], places: Sequence[str] = tuple(PLACES)) -> float | None:
    """Root mean square of the displacement of filled cells, in pixels; None if there are none."""
    filled = sum(one.filled[place] for one in found for place in places)
    return math.sqrt(sum(one.square[place] for one in found for place in places) / filled) if filled else None


def too_many(found: list[Displacement]) -> float:
    """Per cent of the cells that could be filled without whose worst the displacement is below `ENOUGH`."""
    squares = torch.cat([one.squares for one in found]).sort()[0]
    means = squares.cumsum(0) / torch.arange(1, len(squares) + 1)
    return 100 * int((means >= ENOUGH**2).sum()) / max(1, sum(one.fillable for one in found))


def _worst(wish: str, values: dict[str, float], limit: float, unit: str) -> Aim:
    motion, most = max(values.items(), key=lambda item: item[1])
    met = sum(value < limit for value in values.values())
    return Aim(
        wish=wish,
        found=f"{met} of {len(values)} motions; worst {motion}: {most:.2f} {unit}",
        met=met == len(values),
    )
