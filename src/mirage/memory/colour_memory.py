"""The baseline that the latent memory replaces: a cloud of colours, rendered and encoded at every read (Eq. 1, 2)."""

from typing import Protocol, no_type_check, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.lift import lift
from mirage.memory.holes import fill_holes
from mirage.memory.memory import (
    Memory,
    MemoryRead,
    UpdateReport,
    check_budget,
    check_cameras,
    check_tensor,
    check_views,
    exact,
)
from mirage.memory.merge import merge
from mirage.memory.store import Surfels


@runtime_checkable
class Encoder(Protocol):
    """What the colour memory needs of a codec."""

    stride: int

    def encode(self, frames: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b t c h w"]:
        """Latents of clips of frames in [-1, 1]."""


class ColourMemory(Memory):
    """Colours remembered at pixel resolution, by the same arithmetic as the latents of `LatentMemory`.

    A read renders pixels (front surface, then bilinear colours), fills holes smoothly so that the encoder sees no
    black edges, and encodes each frame as a single image. A cell is visible if more than half of its pixels are.
    """

    def __init__(self, surfels: Surfels, codec: Encoder, *, budget_bytes: int | None = None):
        self.surfels = surfels
        self.codec = codec
        self.budget_bytes = budget_bytes
        self._next_name = 1

    @classmethod
    @exact
    @no_type_check  # malformed arguments get a ValueError with a way out
    def from_view(
        cls,
        latents: Float[Tensor, "1 c h w"],
        depth: Float[Tensor, "1 H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "1 3 H W"] | None = None,
        keep: Bool[Tensor, "1 H W"] | None = None,
        codec: Encoder,
        budget_bytes: int | None = None,
    ) -> "ColourMemory":
        """A memory of one view.

        Args:
            latents: Latents of the view; only their shape is looked at.
            depth: Its z-depth, in world units, 0 = unknown; any whole multiple of the latents.
            cameras: Its camera, of image size.
            frames: Its colours, in [-1, 1]; required.
            keep: False on movers and sky; all True if None.
            codec: The encoder of the reads.
            budget_bytes: Bound on `nbytes`; None for no bound.

        Returns:
            The memory.

        Raises:
            ValueError: If an argument is malformed, there are no frames, or the first view is over the budget.
        """
        check_views(latents, depth, cameras, keep)
        _check_frames(frames, cameras)
        if not isinstance(codec, Encoder):
            raise ValueError(f"codec must have a stride and an encode, got {type(codec).__name__}")
        depth, keep = _at_pixels(depth, keep, cameras)
        if len(latents) != 1:
            raise ValueError(f"latents must be of one view, got {len(latents)}: give the others to update")
        lifted = lift(depth.float(), cameras.height, cameras.width, keep=keep)
        surfels = Surfels.of_views(frames, lifted, cameras, lifted.valid, 0)
        check_budget(budget_bytes, surfels.nbytes)
        return cls(surfels, codec, budget_bytes=budget_bytes)

    def __len__(self) -> int:
        return len(self.surfels)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept, colours and geometry."""
        return self.surfels.nbytes

    @exact
    def render(self, cameras: Cameras) -> tuple[Float[Tensor, "v 3 H W"], MemoryRead]:
        """The views in colour, holes filled, and what is known of them pixel by pixel.

        Args:
            cameras: Target views, of image size.

        Returns:
            Frames in [-1, 1], and the read at pixel resolution with zeros in the holes.

        Raises:
            ValueError: If the cameras are malformed.
        """
        check_cameras(cameras)
        hits = self.surfels.render(cameras)
        visible, colours = hits.index >= 0, self.surfels.sample(hits)
        observed = self.surfels.shows_first(hits.index)
        pixels = MemoryRead(
            features=colours, visible=visible, depth=hits.depth, observed=observed, unmoved=hits.unmoved
        )
        return fill_holes(colours, visible), pixels

    def read(self, cameras: Cameras) -> MemoryRead:
        """What is known of these views: rendered and encoded (Eq. 2).

        Args:
            cameras: Target views, of image size.

        Returns:
            Latents, visibility, depth and what of it the first view explains, on the grid of latent cells.

        Raises:
            ValueError: If the cameras are malformed or their size is not a whole multiple of the stride.
        """
        check_cameras(cameras)
        stride = self.codec.stride
        if cameras.height % stride or cameras.width % stride:
            raise ValueError(
                f"cameras must be of a size that the stride {stride} divides, got {cameras.height} x {cameras.width}"
            )
        frames, pixels = self.render(cameras)
        pool = lambda x: torch.nn.functional.avg_pool2d(x[:, None].float(), stride)[:, 0]
        share = pool(pixels.visible)
        visible = share > 0.5
        depth = torch.where(visible, pool(pixels.depth) / share.clamp(min=1e-6), 0.0)
        observed = visible & (pool(pixels.observed) > 0.5 * share)
        latents = self.codec.encode(frames[:, None])[:, 0] * visible[:, None]
        unmoved = pool(pixels.unmoved) > 0.999
        return MemoryRead(features=latents, visible=visible, depth=depth, observed=observed, unmoved=unmoved)

    @exact
    @no_type_check
    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float[Tensor, "v H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "v 3 H W"] | None = None,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> UpdateReport:
        """Remember the colours that are new in these views, by the rule of `merge`.

        Args:
            latents: Latents of the views; only their shape is looked at.
            depth: Their z-depth, 0 = unknown; any whole multiple of the latents.
            cameras: Their cameras, of image size.
            frames: Their colours, in [-1, 1]; required.
            keep: False on movers and sky; all True if None.

        Returns:
            What became of the pixels.

        Raises:
            ValueError: If an argument is malformed; the memory is then unchanged.
        """
        check_views(latents, depth, cameras, keep)
        _check_frames(frames, cameras)
        depth, keep = _at_pixels(depth, keep, cameras)
        if (cameras.height, cameras.width) != self.surfels.grid:
            raise ValueError(
                f"cameras must be {self.surfels.grid} like the first view, got {cameras.height} x {cameras.width}"
            )
        lifted = lift(depth.float(), cameras.height, cameras.width, keep=keep)
        merged = merge(self.surfels, frames, lifted, cameras, self._next_name, budget_bytes=self.budget_bytes)
        self.surfels = merged.surfels
        self._next_name += len(latents)
        return merged.report


@no_type_check  # malformed arguments get a ValueError with a way out
def _check_frames(frames: Tensor | None, cameras: Cameras) -> None:
    size = (len(cameras), 3, cameras.height, cameras.width)
    if frames is None:
        raise ValueError("frames must be given to a colour memory, got None")
    check_tensor("frames", frames)
    if frames.shape != size:
        raise ValueError(f"frames must be {size} like the cameras, got {tuple(frames.shape)}")
    if frames.device != cameras.intrinsics.device:
        raise ValueError(
            f"frames must be on {cameras.intrinsics.device} like the cameras, got {frames.device}: use .to"
        )
    if not bool(frames.float().isfinite().all()):
        raise ValueError("frames must be finite in float32, got NaN or infinity")


def _at_pixels(
    depth: Float[Tensor, "v h w"], keep: Bool[Tensor, "v h w"] | None, cameras: Cameras
) -> tuple[Float[Tensor, "v H W"], Bool[Tensor, "v H W"] | None]:
    """Depth of a coarser grid at every pixel: interpolated on a surface, the nearest sample across an edge."""
    size = (cameras.height, cameras.width)
    if tuple(depth.shape[1:]) == size:
        return depth, keep
    grow = lambda x, mode: torch.nn.functional.interpolate(
        x[None].float(), size, mode=mode, align_corners=False if mode == "bilinear" else None
    )[0]
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-6), 0.0)
    near, smooth = grow(inverse, "nearest-exact"), grow(inverse, "bilinear")
    inverse = torch.where((smooth / near.clamp(min=1e-6) - 1).abs() < 0.1, smooth, near)
    known = grow(depth > 0, "nearest-exact") > 0
    keep = None if keep is None else grow(keep, "nearest-exact") > 0
    return torch.where(known, 1 / inverse.clamp(min=1e-6), 0.0), keep
