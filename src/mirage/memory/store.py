"""The elements of a memory: cells of source views as patches of planes; join, take, find, sample."""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int8, Int64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.lift import LiftedViews
from mirage.kernels import ops
from mirage.kernels.reference import REACH_STEP

PER_VIEW = ("intrinsics", "cam_from_world", "name")
NEAR = 1e-3  # least depth that is drawn, in depths of the nearest element in its own view
SAME = 1e-3  # relative difference up to which two cameras are one
PAIRS_AT_ONCE = 1 << 18  # points x views compared in one go


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What the cells of some views show: one element each, and where in its source view."""

    index: Int64[Tensor, "v h w"]
    """Element, -1 where there is none."""
    depth: Float32[Tensor, "v h w"]
    """Depth in the target view, in world units, 0 where there is none."""
    place: Float32[Tensor, "v h w 2"]
    """Place (x, y) in the source grid, in cells."""
    size: Float32[Tensor, "v h w"]
    """Size of the source cell in the target view, in target cells."""

    def __getitem__(self, view: int) -> "Hits":
        """Those of one view, as a batch of one."""
        return Hits(**{key: value[view : view + 1] for key, value in vars(self).items()})

    @property
    def unmoved(self) -> Bool[Tensor, "v h w"]:
        """Cells that show their element where it was stored, to a twentieth of a cell in place and size."""
        y = torch.arange(self.index.shape[1], device=self.index.device)[:, None] + 0.5
        x = torch.arange(self.index.shape[2], device=self.index.device) + 0.5
        aside = torch.maximum((self.place[..., 0] - x).abs(), (self.place[..., 1] - y).abs())
        return (self.index >= 0) & (aside < 0.05) & ((self.size - 1).abs() < 0.05)


@dataclass(frozen=True, kw_only=True)
class Surfels:
    """Elements of source views of one grid size. A value: every operation gives a new one.

    Each element is one cell of one source view: its latent, the plane of what it shows in the inverse depth of that
    view, and its place in the grid, so that the view can be sampled between cells.
    """

    features: Float[Tensor, "n c"]
    plane: Float32[Tensor, "n 3"]
    source: Int[Tensor, " n"]
    cell: Int[Tensor, " n"]
    edge: Bool[Tensor, " n"]
    reach: Int8[Tensor, "n 4"]
    """To the left, right, top and bottom of the centre, in 1/128 of a cell."""
    doubt: Int8[Tensor, " n"]
    """Updates in a row that have seen through the element."""
    intrinsics: Float32[Tensor, "s 3 3"]
    """Of the source views, in cells."""
    cam_from_world: Float32[Tensor, "s 4 4"]
    name: Int64[Tensor, " s"]
    """Serial number of each source view; 0 is the first view, the only observed one."""
    grid: tuple[int, int]
    """Rows and columns of the source views, in cells."""

    @classmethod
    def empty(cls, features: Float[Tensor, "v c h w"]) -> "Surfels":
        """No elements, for views of the shape, dtype and device of `features`."""
        new = lambda *shape, dtype: torch.zeros(shape, dtype=dtype, device=features.device)
        return cls(
            features=features.new_zeros(0, features.shape[1]),
            plane=new(0, 3, dtype=torch.float32),
            source=new(0, dtype=torch.int32),
            cell=new(0, dtype=torch.int32),
            edge=new(0, dtype=torch.bool),
            reach=new(0, 4, dtype=torch.int8),
            doubt=new(0, dtype=torch.int8),
            intrinsics=new(0, 3, 3, dtype=torch.float32),
            cam_from_world=new(0, 4, 4, dtype=torch.float32),
            name=new(0, dtype=torch.int64),
            grid=tuple(features.shape[2:]),
        )

    def __len__(self) -> int:
        return len(self.plane)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "grid"}

    @cached_property
    def lookup(self) -> Int[Tensor, "s h w"]:
        """Element of each cell of each source view, -1 where there is none.

        Four bytes for every cell of every source view: who keeps the elements asks a passing copy of them for it.
        """
        size = len(self.name), self.grid[0] * self.grid[1]
        if self.cell.is_cpu:  # not by torch, whose threads would go on waiting and take time from the kernels'
            table = np.full(size, -1, np.int32)
            table[self.source.numpy(), self.cell.numpy()] = np.arange(len(self), dtype=np.int32)
            return torch.from_numpy(table).view(-1, *self.grid)
        table = torch.full(size, -1, dtype=torch.int32, device=self.cell.device)
        element = torch.arange(len(self), dtype=torch.int32, device=self.cell.device)
        place = self.source.long() * table.shape[1] + self.cell
        return table.view(-1).scatter_(0, place, element).view(-1, *self.grid)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return sum(t[:0].new_empty(t.shape[1:]).nbytes for key, t in self.tensors.items() if key not in PER_VIEW)

    @property
    def view_bytes(self) -> int:
        """Bytes of one source view, besides its elements."""
        return sum(t[:0].new_empty(t.shape[1:]).nbytes for key, t in self.tensors.items() if key in PER_VIEW)

    @property
    def first_bytes(self) -> int:
        """Bytes of the first view."""
        first = int(self.observed.sum())
        return first * self.element_bytes + (self.view_bytes if first else 0)

    @property
    def center(self) -> Float32[Tensor, "n 2"]:
        """Centre (x, y) of each element in its source grid, in cells."""
        width = self.grid[1]
        return torch.stack([self.cell % width, self.cell // width], -1) + 0.5

    @property
    def observed(self) -> Bool[Tensor, " n"]:
        """Elements of the first view."""
        return (self.name == 0)[self.source]

    def shows_first(self, index: Int64[Tensor, "*b"]) -> Bool[Tensor, "*b"]:
        """Where an element is one of the first view; False where there is none (-1)."""
        if not len(self):
            return index >= 0
        source = self.source.index_select(0, index.clamp(min=0).flatten())
        return (self.name == 0).index_select(0, source).view(index.shape) & (index >= 0)

    @property
    def points(self) -> Float32[Tensor, "n 3"]:
        """World positions of the cell centres (Eq. 8), in world units."""
        views = (self.intrinsics, self.cam_from_world)
        return ops.surfel_points(self.plane, self.cell, self.source, self.grid[1], *views)

    @classmethod
    def of_views(
        cls,
        features: Float[Tensor, "v c h w"],
        lifted: LiftedViews,
        cameras: Cameras,
        chosen: Bool[Tensor, "v h w"],
        name: int,
    ) -> "Surfels":
        """The chosen cells of some views (`cameras` on the cell grid), named one after the other from `name` on."""
        view, row, column = chosen.nonzero().unbind(1)
        per_element = {
            "features": features.movedim(1, 3)[view, row, column],
            "plane": lifted.plane[view, row, column],
            "source": view.int(),
            "cell": (row * chosen.shape[2] + column).int(),
            "edge": lifted.edge[view, row, column],
            "reach": (lifted.reach[view, row, column] / REACH_STEP).round().clamp(-128, 127).to(torch.int8),
            "doubt": torch.zeros_like(view, dtype=torch.int8),
        }
        per_view = {
            "intrinsics": cameras.intrinsics.float(),
            "cam_from_world": cameras.cam_from_world.float(),
            "name": torch.arange(name, name + len(chosen), device=chosen.device),
        }
        return cls.empty(features)._with(per_element, per_view)

    def joined(self, others: "Surfels", keep: Bool[Tensor, " m"] | None = None) -> "Surfels":
        """These elements, then the others (in the dtype of these); of all of them only those to keep."""
        mine, theirs = (None, None) if keep is None else (keep[: len(self)], keep[len(self) :])
        some = lambda x, chosen: x if chosen is None or bool(chosen.all()) else x[chosen]
        shifted = others.tensors | {"source": others.source + len(self.name)}
        both = {key: (value, shifted[key].to(value.dtype)) for key, value in self.tensors.items()}
        per_view = {key: torch.cat(both.pop(key)) for key in PER_VIEW}
        per_element = {key: torch.cat([some(a, mine), some(b, theirs)]) for key, (a, b) in both.items()}
        return self._with(per_element, per_view)

    def take(self, index: Int64[Tensor, " m"]) -> "Surfels":
        """Only these elements, in this order; views without elements go too."""
        per_element = {key: value[index] for key, value in self.tensors.items() if key not in PER_VIEW}
        return self._with(per_element, {key: self.tensors[key] for key in PER_VIEW})

    def _with(self, per_element: dict[str, Tensor], per_view: dict[str, Tensor]) -> "Surfels":
        """Elements of the same grid; views without elements are dropped."""
        source = per_element["source"].long()
        used = torch.zeros(len(per_view["name"]), dtype=torch.bool, device=source.device).index_fill(0, source, True)
        if not bool(used.all()):
            source = (used.cumsum(0) - 1)[source]
            per_view = {key: value[used] for key, value in per_view.items()}
        return Surfels(**per_element | {"source": source.int()}, **per_view, grid=self.grid)

    @property
    def bare(self) -> "Surfels":
        """The geometry alone, which is all that is needed to find what is seen where."""
        return replace(self, features=self.features[:, :0])

    def about(self, origin: Float64[Tensor, "3"]) -> "Surfels":
        """The same with the world's origin elsewhere: near the origin, positions in float32 are exact enough."""
        return replace(self, cam_from_world=moved(self.cam_from_world, origin))

    @property
    def rank(self) -> Int8[Tensor, " n"]:
        """Of several elements of one surface the least is shown: 0 in the first view, 2 later; 1 more at edges."""
        later = 2 * (self.name != 0).to(torch.int8)
        if self.cell.is_cpu:  # see `lookup`
            return torch.from_numpy(later.numpy()[self.source.numpy()] + self.edge.numpy())
        return later[self.source] + self.edge

    def render(self, cameras: Cameras) -> Hits:
        """The best element for each cell of each view; `cameras` are on the cell grid of the target."""
        index, depth, place, size = ops.splat_surfels(
            self.plane,
            self.cell,
            self.reach,
            self.rank,
            self.source,
            self.name,
            self.grid,
            self.intrinsics,
            self.cam_from_world,
            cameras.intrinsics.float(),
            cameras.cam_from_world.float(),
            cameras.height,
            cameras.width,
            near=self.near,
        )
        return Hits(index=index, depth=depth, place=place, size=size)

    def nearest(
        self, cameras: Cameras
    ) -> tuple[Float[Tensor, "v c h w"], Int64[Tensor, "v h w"], Float32[Tensor, "v h w"]]:
        """The paper's read: latent, element and depth of the nearest centre in each cell; see `ops.splat_cells`."""
        elements = (self.features, self.plane, self.cell, self.source, self.grid[1])
        views = (self.intrinsics, self.cam_from_world, cameras.intrinsics.float(), cameras.cam_from_world.float())
        return ops.splat_cells(*elements, *views, cameras.height, cameras.width, near=self.near)

    def sample(self, hits: Hits) -> Float[Tensor, "v c h w"]:
        """The latents at the hits, zero where there are none."""
        values = ops.gather(
            self.features,
            self.plane,
            self.cell,
            self.source,
            replace(self).lookup,  # these elements may be kept, the table is not
            hits.index.flatten(),
            hits.place.flatten(0, 2),
        )
        return values.unflatten(0, hits.index.shape).permute(0, 3, 1, 2)

    @cached_property
    def near(self) -> float:
        """Least depth that is drawn, in world units: it goes with the scale of the world."""
        return NEAR / max(float(self.plane[:, 0].max()), 1e-30) if len(self) else NEAR

    def in_free_space(self, points: Float32[Tensor, "m 3"], tolerance: float) -> Bool[Tensor, " m"]:
        """Points that some source view saw through: all four cells around their image lie clearly behind them.

        Of the first view, which is given and not imagined, the one cell that holds the image suffices.
        """
        views = (self.lookup, self.intrinsics, self.cam_from_world)
        given = (value[self.name == 0] for value in views)
        through = ops.seen_through(points, self.plane, *views, tolerance=tolerance)
        return through + ops.seen_through(points, self.plane, *given, tolerance=tolerance, strict=False) > 0

    def holds(
        self, points: Float32[Tensor, "m 3"], spacing: Float32[Tensor, " m"], camera: Cameras, tolerance: float
    ) -> Bool[Tensor, " m"]:
        """Points of a view that some source view has on record: its own element there is at their depth.

        It has to be finer than `spacing` (world units per cell; the first view's is, unless that is 0), or else the
        view has to be from that source's place: what was written once is then on record, whatever hides it.
        """
        found = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        lookup, (height, width) = self.lookup, self.grid
        views = torch.arange(len(self.name), device=points.device)
        if not bool((spacing > 0).any()):  # only views from that place count
            views = views[_same(self.intrinsics, self.cam_from_world, camera, self.intrinsics[:, :1, 0] * 0)[:, 0]]
        for view in views.split(max(1, PAIRS_AT_ONCE // max(1, len(points)))) if len(views) else ():
            k, pose = self.intrinsics[view], self.cam_from_world[view]
            cam = points @ pose[:, :3, :3].mT + pose[:, None, :3, 3]
            z = cam[..., 2].clamp(min=1e-30)
            x, y = (cam @ k.mT)[..., :2].div(z[..., None]).unbind(-1)
            inside = (cam[..., 2] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            x, y = torch.where(inside, x, 0.0), torch.where(inside, y, 0.0)
            element = lookup[view[:, None], y.long(), x.long()].long()
            plane = self.plane[element.clamp(min=0)]
            offset = torch.stack([x - x.floor() - 0.5, y - y.floor() - 0.5], -1)
            ratio = (plane[..., 0] + (plane[..., 1:] * offset).sum(-1)) * z
            agrees = inside & (element >= 0) & (ratio <= 1 + tolerance) & (ratio * (1 + tolerance) >= 1)
            same = _same(k, pose, camera, plane[..., 0])
            enough = torch.where((self.name[view] == 0)[:, None], 0.0, stretch(plane, k[:, None])) < spacing
            found |= (agrees & (same | enough)).any(0)
        return found

    def at(self, camera: Cameras, depth: Float32[Tensor, "1 h w"]) -> Bool[Tensor, ""]:
        """Whether some source view is from the place of this one, which sees such depths."""
        inverse = 1 / depth[depth > 0].median()
        return _same(self.intrinsics, self.cam_from_world, camera, inverse.expand(len(self.name), 1)).any()


def _same(
    intrinsics: Float32[Tensor, "s 3 3"],
    cam_from_world: Float32[Tensor, "s 4 4"],
    camera: Cameras,
    inverse: Float32[Tensor, "s m"],
) -> Bool[Tensor, "s m"]:
    """Views of one place with a camera, as far as points of this inverse depth can tell."""
    off = (cam_from_world - camera.cam_from_world).abs()
    other_lens = (intrinsics - camera.intrinsics).abs().amax((1, 2)) > SAME * intrinsics.amax((1, 2))
    turned = off[:, :3, :3].amax((1, 2)) > SAME
    return ~(other_lens | turned)[:, None] & (off[:, :3, 3].amax(1)[:, None] * inverse <= SAME)


def stretch(plane: Float32[Tensor, "*b 3"], intrinsics: Float32[Tensor, "*k 3 3"]) -> Float32[Tensor, "*b"]:
    """Size of a cell on its surface: it grows with depth and the more, the more oblique the surface is.

    Args:
        plane: Inverse depth at the cell's centre and its slopes per cell along x and y.
        intrinsics: Pinhole matrix of its view, in cells.

    Returns:
        The longer side, in world units.

    Example:
        >>> plane = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.0, 0.5]])
        >>> [round(size, 3) for size in stretch(plane, torch.eye(3)).tolist()]
        [2.0, 2.828]
    """
    inverse = plane[..., 0].clamp(min=1e-30)
    lateral = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], -1)
    return torch.hypot(1 / lateral, plane[..., 1:] / inverse[..., None]).amax(-1) / inverse


def moved(cam_from_world: Float32[Tensor, "v 4 4"], origin: Float64[Tensor, "3"]) -> Float32[Tensor, "v 4 4"]:
    """The transforms for a world whose origin is at `origin` of this one.

    Args:
        cam_from_world: Rigid transforms, in world units.
        origin: The new origin, in world units.

    Returns:
        Transforms from the new world, rounded once.

    Example:
        >>> moved(torch.eye(4)[None], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))[0, :3, 3].tolist()
        [1.0, 2.0, 3.0]
    """
    out = cam_from_world.clone()
    out[:, :3, 3] = (cam_from_world[:, :3, :3].double() @ origin + cam_from_world[:, :3, 3].double()).float()
    return out
