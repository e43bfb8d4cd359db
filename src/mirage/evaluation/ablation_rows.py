"""What is taken away, or put in, row by row: memories, estimators and masks built around the library from outside."""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional as F

from mirage.camera.cameras import Cameras
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.movers import Segmenter, keep_cells
from mirage.memory import LatentMemory, Memory, MemoryRead, UpdateReport

Pool = Literal["bilinear", "nearest", "area", "median"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant of the method; what is not said is as in the method."""

    title: str
    """As the table calls it."""
    group: str
    """Which table it is in."""
    memory: str | Callable[..., Memory] = LatentMemory.from_view
    """As `MiragePipeline` takes it, or a control; unless it is "latent" without the model's mover, as in the paper."""
    first: Literal["known", "head"] = "known"
    """Depth of the input picture."""
    later: Literal["head", "true"] = "head"
    """Depth of all other views."""
    noise: float = 0.0
    """Size of a smooth factor on all depth but the first view's."""
    masked: bool = False
    """Whether the true movers are kept out of the memory."""
    holes: float = 0.0
    """Share of the first view's depth that is unknown, in blobs. Then the memory is judged by its reads alone."""
    paper: str = ""
    """What the paper reports of this row: its WorldScore average, or its share of empty cells."""


class Around(Memory):
    """A memory that does one thing otherwise than the one inside."""

    def __init__(self, inner: Memory):
        self.inner = inner

    def read(self, cameras: Cameras) -> MemoryRead:
        return self.inner.read(cameras)

    def read_video(self, cameras: Cameras, temporal_stride: int) -> MemoryRead:
        return self.inner.read_video(cameras, temporal_stride)

    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float[Tensor, "v H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "v 3 Y X"] | None = None,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> UpdateReport:
        self.inner = copy.copy(self.inner)  # a state of the loop that is kept does not change
        return self.inner.update(latents, depth, cameras, frames=frames, keep=keep)

    @property
    def nbytes(self) -> int:
        """Bytes of what is inside."""
        return self.inner.nbytes

    def __len__(self) -> int:
        return len(self.inner)


class Pooled(Around):
    """Depth brought to one sample per cell before it is lifted, unknown depth (0) like any other number."""

    def __init__(self, inner: Memory, pool: Pool):
        super().__init__(inner)
        self.pool = pool

    @classmethod
    def from_view(
        cls,
        latents: Float[Tensor, "1 c h w"],
        depth: Float[Tensor, "1 H W"],
        cameras: Cameras,
        *,
        pool: Pool,
        read: str,
        frames: Float[Tensor, "1 3 Y X"] | None = None,
        keep: Bool[Tensor, "1 H W"] | None = None,
    ) -> "Pooled":
        """See `LatentMemory.from_view`."""
        size = tuple(latents.shape[2:])
        kept = {} if keep is None else {"keep": keep_cells(keep, *size)}
        return cls(LatentMemory.from_view(latents, pool_depth(depth, *size, pool), cameras, read=read, **kept), pool)

    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float[Tensor, "v H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "v 3 Y X"] | None = None,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> UpdateReport:
        size = tuple(latents.shape[2:])
        keep = None if keep is None else keep_cells(keep, *size)
        return super().update(latents, pool_depth(depth, *size, self.pool), cameras, frames=frames, keep=keep)


def pool_depth(
    depth: Float[Tensor, "v H W"], height: int, width: int, pool: Pool
) -> Float[Tensor, "v {height} {width}"]:
    """Depth on a coarser grid, as pictures are made smaller.

    Args:
        depth: z-depth, 0 = unknown; it is blended like the rest.
        height: Rows wanted, a divisor.
        width: Columns wanted, a divisor.
        pool: How.

    Returns:
        One depth per cell.
    """
    if pool == "median":
        rows, columns = depth.shape[1] // height, depth.shape[2] // width
        return depth.unfold(1, rows, rows).unfold(2, columns, columns).flatten(3).median(-1).values
    if pool == "area":
        return F.adaptive_avg_pool2d(depth, (height, width))
    mode = {"bilinear": "bilinear", "nearest": "nearest-exact"}[pool]
    corners = {"align_corners": False} if pool == "bilinear" else {}
    return F.interpolate(depth[None], (height, width), mode=mode, **corners)[0]


class OtherMask(Around):
    """Reads whose mask says nothing: all cells are known, as the released code has it, or none is."""

    def __init__(self, inner: Memory, known: bool):
        super().__init__(inner)
        self.known = known

    @classmethod
    def from_view(cls, *view: object, known: bool, **options: object) -> "OtherMask":
        """See `LatentMemory.from_view`."""
        return cls(LatentMemory.from_view(*view, **options), known)

    def read(self, cameras: Cameras) -> MemoryRead:
        return self._told(super().read(cameras))

    def read_video(self, cameras: Cameras, temporal_stride: int) -> MemoryRead:
        return self._told(super().read_video(cameras, temporal_stride))

    def _told(self, read: MemoryRead) -> MemoryRead:
        return replace(read, visible=torch.full_like(read.visible, self.known))


class PixelLatents(Around):
    """Latents spread over the pixels of their cells, remembered pixel by pixel, and averaged over cells when read."""

    def __init__(self, inner: LatentMemory, stride: int):
        super().__init__(inner)
        self.stride = stride

    read_video = Memory.read_video  # as `read` has it, not as what is inside

    @classmethod
    def from_view(
        cls,
        latents: Float[Tensor, "1 c h w"],
        depth: Float[Tensor, "1 H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "1 3 Y X"] | None = None,
        keep: Bool[Tensor, "1 H W"] | None = None,
    ) -> "PixelLatents":
        """See `LatentMemory.from_view`."""
        wide = at_pixels(latents, depth, cameras, keep)
        return cls(LatentMemory.from_view(*wide[:2], cameras, keep=wide[2]), cameras.height // latents.shape[2])

    def read(self, cameras: Cameras) -> MemoryRead:
        """Cells are known if more than half of their pixels are."""
        pixels = super().read(cameras)
        pool = lambda x: F.avg_pool2d(x[None].float(), self.stride)[0]
        share = pool(pixels.visible)
        visible = share > 0.5
        mean = lambda x: x / share.clamp(min=1e-6)
        features = F.avg_pool2d(pixels.features.float(), self.stride) / share[:, None].clamp(min=1e-6)
        return MemoryRead(
            features=features.to(pixels.features.dtype).masked_fill(~visible[:, None], 0),
            visible=visible,
            depth=mean(pool(pixels.depth)).masked_fill(~visible, 0),
            observed=visible & (pool(pixels.observed) > 0.5 * share),
            unmoved=visible & (pool(pixels.unmoved) > 0.999),
        )

    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float[Tensor, "v H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "v 3 Y X"] | None = None,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> UpdateReport:
        wide, depth, keep = at_pixels(latents, depth, cameras, keep)
        return super().update(wide, depth, cameras, keep=keep)


def at_pixels(
    latents: Float[Tensor, "v c h w"],
    depth: Float[Tensor, "v y x"],
    cameras: Cameras,
    keep: Bool[Tensor, "v y x"] | None,
) -> tuple[Float[Tensor, "v c Y X"], Float[Tensor, "v Y X"], Bool[Tensor, "v Y X"] | None]:
    """Everything on the grid of pixels, by repetition.

    Args:
        latents: Latents of the views.
        depth: Their depth.
        cameras: Of the size of the pictures.
        keep: What may be remembered.

    Returns:
        The same three.
    """
    size = (cameras.height, cameras.width)
    grow = lambda x: F.interpolate(x.float(), size, mode="nearest-exact")
    wide = grow(latents).to(latents.dtype)
    return wide, grow(depth[None])[0], None if keep is None else grow(keep[None])[0] > 0.5


def punch(depth: Float32[Tensor, "H W"], share: float, seed: int) -> Float32[Tensor, "H W"]:
    """Depth that is unknown in blobs, as that of a sensor.

    Args:
        depth: z-depth.
        share: Of pixels that become 0.
        seed: Of the blobs, a tenth of the picture in size.

    Returns:
        The depth, 0 in the blobs.
    """
    noise = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(seed)).to(depth.device)
    smooth = F.interpolate(noise, depth.shape, mode="bicubic", align_corners=False)[0, 0]
    return depth.masked_fill(smooth > smooth.flatten().quantile(1 - share), 0)


class TrueDepth(DepthEstimator):
    """The true depth of the views of a walk, known again by their poses."""

    def __init__(self, cameras: Cameras, depth: Float32[Tensor, "f H W"]):
        self.cameras, self.depth = cameras, depth

    def estimate(
        self,
        frames: Float[Tensor, "v 3 H W"],
        latents: Float[Tensor, "v c h w"],
        cameras: Cameras,
        prior: Float32[Tensor, "v h w"] | None = None,
    ) -> Float32[Tensor, "v y x"]:
        same = (cameras.cam_from_world[:, None] == self.cameras.cam_from_world[None]).all(-1).all(-1)
        return self.depth[same.float().argmax(1)]


class NoisyDepth(DepthEstimator):
    """An estimator with smooth errors: factors exp(size * n), n normal on a grid of 5 x 5 over the picture."""

    def __init__(self, inner: DepthEstimator, size: float, seed: int):
        self.inner, self.size = inner, size
        self.source = torch.Generator().manual_seed(seed)

    def estimate(
        self,
        frames: Float[Tensor, "v 3 H W"],
        latents: Float[Tensor, "v c h w"],
        cameras: Cameras,
        prior: Float32[Tensor, "v h w"] | None = None,
    ) -> Float32[Tensor, "v y x"]:
        depth = self.inner.estimate(frames, latents, cameras, prior)
        noise = (torch.randn(len(depth), 1, 5, 5, generator=self.source) * self.size).to(depth.device)
        return depth * F.interpolate(noise, depth.shape[1:], mode="bicubic", align_corners=False)[:, 0].exp()


class TrueMovers(Segmenter):
    """The true masks of movers, in the order in which a roll-out asks: the first view, then each latent frame."""

    def __init__(self, movers: Bool[Tensor, "t h w"]):
        self.movers, self.told = movers, 0

    def keep(self, frames: Float[Tensor, "v 3 h w"]) -> Bool[Tensor, "v h w"]:
        start, self.told = self.told, self.told + len(frames)
        return ~self.movers[start : self.told]


POOLS: Sequence[Pool] = ("bilinear", "nearest", "area", "median")
BUDGETS = (28, 40)  # KiB; the first view of 128 x 128 takes 24
NOISES = (0.05, 0.2)
HOLES = 0.15
REPORTED = {"bilinear": "42.53 % empty", "nearest": "47.78 % empty", "area": "53.72 % empty", "median": "52.22 % empty"}
_nearest = functools.partial(LatentMemory.from_view, read="nearest")
_pooled = lambda pool, read: functools.partial(Pooled.from_view, pool=pool, read=read)
_masked = lambda known: functools.partial(OtherMask.from_view, known=known)
_bounded = lambda kib: functools.partial(LatentMemory.from_view, budget_bytes=kib * 1024)
STILL = {  # rows that are measured in still worlds; the first is the method
    "full": Row(title="the method: latents, gathered", group="memory", paper="70.36"),
    "colour": Row(title="a cloud of colours", group="memory", memory="colour", paper="67.71"),
    "pixels": Row(title="latents spread over pixels", group="memory", memory=PixelLatents.from_view, paper="60.85"),
    "none": Row(title="no memory", group="memory", memory="none"),
    "mover": Row(title="latents, gathered, mended by the model's mover", group="memory", memory="latent"),
    "memory-only": Row(title="*control:* memory only", group="memory", memory="memory-only"),
    "autoencoder": Row(title="*control:* autoencoder", group="memory", memory="autoencoder"),
    "nearest-token": Row(title="nearest token", group="read", memory=_nearest),
    "nearest-corner": Row(
        title="nearest token, corner convention (released code)",
        group="read",
        memory=functools.partial(LatentMemory.from_view, read="nearest-corner"),
        paper="70.36",
    ),
    "mask-ones": Row(title="mask: all cells known (released code)", group="read", memory=_masked(True)),
    "mask-zeros": Row(title="mask: no cell known", group="read", memory=_masked(False)),
    "exact": Row(title="true depth of all views", group="depth", later="true"),
    "head": Row(title="estimated depth of all views", group="depth", first="head"),
    **{f"noisy-{size:g}": Row(title=f"later depth wrong by {size:.0%}", group="depth", noise=size) for size in NOISES},
    "holes-ours": Row(title="the largest known surface of the cell (ours)", group="pool", holes=HOLES),
    **{f"holes-{pool}": Row(title=pool, group="pool", memory=_pooled(pool, "gather"), holes=HOLES) for pool in POOLS},
    "holes-token-ours": Row(title="ours, nearest token", group="pool", memory=_nearest, holes=HOLES),
    **{
        f"holes-token-{pool}": Row(
            title=f"{pool}, nearest token",
            group="pool",
            memory=_pooled(pool, "nearest"),
            holes=HOLES,
            paper=REPORTED[pool],
        )
        for pool in POOLS
    },
    **{f"budget-{kib}": Row(title=f"{kib} KiB", group="budget", memory=_bounded(kib)) for kib in BUDGETS},
}
MOVING = {  # rows that are measured in worlds with movers
    "filtered": Row(title="the method, true movers masked", group="movers", masked=True, paper="70.36"),
    "unfiltered": Row(title="no mask: only contradictions are rejected", group="movers", paper="61.20"),
    "filtered-nearest": Row(title="nearest token, masked", group="movers", memory=_nearest, masked=True),
    "unfiltered-nearest": Row(title="nearest token, all written (Eq. 6)", group="movers", memory=_nearest),
}
TRAINED = {  # rows whose model is trained; the first is what the others are compared with
    "two-stage": Row(title="two stages: branch, then adapter", group="training", memory="latent", paper="70.36"),
    "joint": Row(title="one stage: both at once", group="training", memory="latent", paper="63.18"),
    "quiet": Row(title="two stages, no noise on preceding frames", group="training", memory="latent"),
}
