"""The elements of a memory: cells of source views as patches of planes; append, find, sample, forget."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int, Int8, Int64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.lift import LiftedViews
from mirage.kernels import ops
from mirage.kernels.reference import REACH_STEP


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
    view, and its place in the grid, so that the view can be sampled between cells. `lookup` finds it again.
    """

    features: Float[Tensor, "n c"]
    plane: Float32[Tensor, "n 3"]
    source: Int[Tensor, " n"]
    cell: Int[Tensor, " n"]
    edge: Bool[Tensor, " n"]
    reach: Int8[Tensor, "n 4"]
    """To the left, right, top and bottom of the centre, in 1/128 of a cell."""
    intrinsics: Float32[Tensor, "s 3 3"]
    """Of the source views, in cells."""
    cam_from_world: Float32[Tensor, "s 4 4"]
    name: Int64[Tensor, " s"]
    """Serial number of each source view; 0 is the first view, the only observed one."""
    lookup: Int[Tensor, "s h w"]
    """Element of each cell, -1 where there is none."""

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
            intrinsics=new(0, 3, 3, dtype=torch.float32),
            cam_from_world=new(0, 4, 4, dtype=torch.float32),
            name=new(0, dtype=torch.int64),
            lookup=new(0, *features.shape[2:], dtype=torch.int32),
        )

    def __len__(self) -> int:
        return len(self.plane)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name."""
        return dict(vars(self))

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def center(self) -> Float32[Tensor, "n 2"]:
        """Centre (x, y) of each element in its source grid, in cells."""
        width = self.lookup.shape[2]
        return torch.stack([self.cell % width, self.cell // width], -1) + 0.5

    @property
    def observed(self) -> Bool[Tensor, " n"]:
        """Elements of the first view."""
        return (self.name == 0)[self.source]

    @property
    def points(self) -> Float32[Tensor, "n 3"]:
        """World positions of the cell centres (Eq. 8), in world units."""
        homogeneous = torch.cat([self.center, torch.ones_like(self.plane[:, :1])], -1) / self.plane[:, :1]
        inverse = torch.linalg.inv(self.intrinsics.double())
        rotation, shift = self.cam_from_world[:, :3, :3].double(), self.cam_from_world[:, :3, 3].double()
        cam = (inverse[self.source] @ homogeneous.double()[..., None])[..., 0] - shift[self.source]
        return (rotation.mT[self.source] @ cam[..., None])[..., 0].float()

    def append(
        self,
        features: Float[Tensor, "c h w"],
        lifted: LiftedViews,
        view: int,
        camera: Cameras,
        chosen: Bool[Tensor, "h w"],
        name: int,
    ) -> "Surfels":
        """With the chosen cells of one view (`view` of `lifted`, `camera` on the cell grid)."""
        cell = chosen.flatten().nonzero()[:, 0]
        lookup = torch.full((1, chosen.numel()), -1, dtype=torch.int32, device=cell.device)
        lookup[0, cell] = torch.arange(len(self), len(self) + len(cell), dtype=torch.int32, device=cell.device)
        added = {
            "features": features.flatten(1).T[cell].to(self.features.dtype),
            "plane": lifted.plane[view].flatten(0, 1)[cell],
            "source": torch.full_like(cell, len(self.name), dtype=torch.int32),
            "cell": cell.int(),
            "edge": lifted.edge[view].flatten()[cell],
            "reach": (lifted.reach[view].flatten(0, 1)[cell] / REACH_STEP).round().clamp(-128, 127).to(torch.int8),
            "intrinsics": camera.intrinsics.float(),
            "cam_from_world": camera.cam_from_world.float(),
            "name": torch.tensor([name], device=cell.device),
            "lookup": lookup.view(1, *chosen.shape),
        }
        return Surfels(**{key: torch.cat([mine, added[key]]) for key, mine in self.tensors.items()})

    def take(self, index: Int64[Tensor, " m"]) -> "Surfels":
        """Only these elements, in this order; views without elements go too."""
        used = torch.zeros_like(self.name, dtype=torch.bool).index_fill(0, self.source[index].long(), True)
        renumber = used.cumsum(0).int() - 1
        per_element = {key: self.tensors[key][index] for key in ("features", "plane", "cell", "edge", "reach")}
        per_view = {key: self.tensors[key][used] for key in ("intrinsics", "cam_from_world", "name")}
        source = renumber[self.source[index]]
        lookup = torch.full_like(self.lookup[used], -1)
        lookup.flatten(1)[source.long(), per_element["cell"].long()] = torch.arange(
            len(index), dtype=torch.int32, device=index.device
        )
        return Surfels(**per_element, **per_view, source=source, lookup=lookup)

    def render(self, cameras: Cameras) -> Hits:
        """The best element for each cell of each view; `cameras` are on the cell grid of the target."""
        rank = 2 * (~self.observed).long() + self.edge
        index, depth, place, size = ops.splat_surfels(
            self.plane,
            self.cell,
            self.reach,
            rank,
            self.source,
            self.name,
            tuple(self.lookup.shape[1:]),
            self.intrinsics,
            self.cam_from_world,
            cameras.intrinsics.float(),
            cameras.cam_from_world.float(),
            cameras.height,
            cameras.width,
        )
        return Hits(index=index, depth=depth, place=place, size=size)

    def sample(self, hits: Hits) -> Float[Tensor, "v c h w"]:
        """The latents at the hits, zero where there are none."""
        values = ops.gather(
            self.features,
            self.plane,
            self.cell,
            self.source,
            self.lookup,
            hits.index.flatten(),
            hits.place.flatten(0, 2),
        )
        return values.unflatten(0, hits.index.shape).permute(0, 3, 1, 2)

    def in_free_space(self, points: Float32[Tensor, "m 3"], tolerance: float) -> Bool[Tensor, " m"]:
        """Points that some source view saw through: all four cells around their image lie clearly behind them."""
        cameras = (self.intrinsics, self.cam_from_world)
        return ops.seen_through(points, self.plane, self.lookup, *cameras, tolerance=tolerance) > 0
