"""What every memory does: `from_view`, `read`, `update`; what it returns, and what it refuses."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # what latents and depths may be
FARTHEST = 1e30  # depth beyond which float32 has no inverse with room to spare
LEAST_FOCAL = 1e-6  # least focal length, in sizes of the image: less is singular in float32


@dataclass(frozen=True, kw_only=True)
class MemoryRead:
    """What a memory knows of some views, on the grid of latent cells."""

    features: Float[Tensor, "v c h w"]
    """Latents, zero where not visible."""
    visible: Bool[Tensor, "v h w"]
    """Cells that the memory explains."""
    depth: Float32[Tensor, "v h w"]
    """Projected depth of what is seen, in world units, 0 where not visible."""
    observed: Bool[Tensor, "v h w"]
    """Visible cells that the first view explains: given, not imagined."""
    unmoved: Bool[Tensor, "v h w"]
    """Visible cells that are read from where they were stored, as at a return to the same pose: nothing to mend."""


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """What became of the cells of an update; the counts from `new` to `invalid` add up to all of them."""

    new: int = 0
    """Cells that nothing in the memory explained, and that were written."""
    refined: int = 0
    """Cells that were written because the memory knew them only at coarser resolution."""
    explained: int = 0
    """Cells that the memory knew already; those that border on new ones are written as their seam."""
    rejected: int = 0
    """Cells whose depth contradicts the memory."""
    invalid: int = 0
    """Cells of unknown depth or masked by `keep`."""
    written: int = 0
    """Elements added in all."""
    retired: int = 0
    """Elements dropped because finer ones show all that they showed, or because updates saw through them."""
    evicted: int = 0
    """Elements dropped to keep the budget."""
    scale: float = 1.0
    """Factor that was put on the new depth; see `DepthAlignment`."""
    shift: float = 0.0
    """Shift that was added to the new inverse depth; see `DepthAlignment`."""
    residual: float = 0.0
    """Median relative disagreement with the memory after alignment."""
    covisible: int = 0
    """Cells from which scale and shift were estimated."""


class Memory(ABC):
    """What is known of the world: views go in with depth and camera, other views come out."""

    @abstractmethod
    def read(self, cameras: Cameras) -> MemoryRead:
        """What is known of these views, on their grid of latent cells; zeros and False where nothing is.

        Args:
            cameras: Target views, of image size.

        Returns:
            Features, visibility, projected depth and what of it the first view explains.
        """

    def read_video(self, cameras: Cameras, temporal_stride: int) -> MemoryRead:
        """What is known of the latent frames of a video: of its first frame, and of each group of frames after it.

        Args:
            cameras: All frames, of image size: one and whole groups.
            temporal_stride: Frames of a group.

        Returns:
            The read at the first frame and at the last one of each group.

        Raises:
            ValueError: If the cameras are malformed, see `read`, or are not one and whole groups.
        """
        check_groups(cameras, temporal_stride)
        return self.read(cameras[::temporal_stride])

    @abstractmethod
    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float[Tensor, "v H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "v 3 Y X"] | None = None,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> UpdateReport:
        """Remember what is new in these views; on an error nothing has changed.

        Args:
            latents: Latents of the views.
            depth: Their z-depth, in world units, 0 = unknown.
            cameras: Their cameras, of image size.
            frames: Their colours in [-1, 1], for memories that keep colours.
            keep: False on movers and sky; all True if None.

        Returns:
            What became of the cells.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of all that is kept."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of elements."""


def exact(method: Callable) -> Callable:
    """The method as it is outside `torch.autocast`: in half precision points would land in other cells.

    Args:
        method: What works on geometry.

    Returns:
        The same, whatever region it is called in.

    Raises:
        ValueError: When it is called, if torch's default dtype is another than float32.

    Example:
        >>> double = exact(lambda x: x @ (2 * torch.eye(2)))
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     double(torch.ones(1, 2)).dtype
        torch.float32
    """

    @functools.wraps(method)
    def outside(*args: object, **options: object) -> object:
        if torch.get_default_dtype() != torch.float32:
            raise ValueError(
                f"torch's default dtype must be float32, in which geometry is kept, got {torch.get_default_dtype()}: "
                "give the dtype where tensors are made instead of torch.set_default_dtype"
            )
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return method(*args, **options)

    return outside


@no_type_check  # a malformed argument gets a ValueError with a way out
def check_budget(budget_bytes: int | None, first: int) -> None:
    """Refuse a budget that a first view does not fit into.

    Args:
        budget_bytes: The budget, or None for none.
        first: Bytes of the first view.

    Raises:
        ValueError: If the budget is no whole number or less than `first`.

    Example:
        >>> check_budget(100, 4000)
        Traceback (most recent call last):
        ValueError: budget_bytes must be at least 4000, what the first view takes, got 100: ...
    """
    if budget_bytes is None:
        return
    if isinstance(budget_bytes, bool) or not isinstance(budget_bytes, int):
        raise ValueError(f"budget_bytes must be a whole number or None, got {budget_bytes!r}")
    if budget_bytes < first:
        raise ValueError(
            f"budget_bytes must be at least {first}, what the first view takes, got {budget_bytes}: give more, "
            "keep the latents in half precision, or mask a part of the view by keep"
        )


@no_type_check
def check_cameras(cameras: Cameras) -> None:
    """Refuse cameras that no view can have.

    Args:
        cameras: The cameras of an argument called `cameras`.

    Raises:
        ValueError: If they are no `Cameras`, a pose or an intrinsic is not finite, a pose is not rigid, or intrinsics
            are singular or skewed.

    Example:
        >>> check_cameras(Cameras(torch.eye(3)[None], torch.eye(4)[None], 2, 3))
        >>> check_cameras(Cameras(torch.eye(3)[None], 2 * torch.eye(4)[None], 2, 3))
        Traceback (most recent call last):
        ValueError: cameras: cam_from_world must hold rotations (orthonormal, determinant 1), off by 3: ...
    """
    if not isinstance(cameras, Cameras):
        raise ValueError(f"cameras must be mirage's Cameras, got {type(cameras).__name__}")
    if cameras.intrinsics.is_meta or cameras.cam_from_world.is_meta:
        raise ValueError("cameras must have values, got some on the device meta")
    pose, k = cameras.cam_from_world.detach().cpu(), cameras.intrinsics.detach().cpu()
    if not bool(pose.isfinite().all() & k.isfinite().all()):
        raise ValueError("cameras: poses and intrinsics must be finite, got NaN or infinity")
    focal = k[:, [0, 1], [0, 1]]
    if not bool((focal > LEAST_FOCAL * torch.tensor([cameras.width, cameras.height])).all()):
        raise ValueError(f"cameras: intrinsics must have positive focal lengths, got {focal.tolist()} (singular)")
    if not bool((k[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] == torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])).all()):
        raise ValueError("cameras: intrinsics must have no skew and a last row of 0 0 1: undistort the images first")
    rotation = pose[:, :3, :3]
    error = float((rotation @ rotation.mT - torch.eye(3)).abs().amax()) if len(pose) else 0.0
    # Not linalg.det: LAPACK's threads go on waiting for 10 ms, and take time from the kernels'.
    upright = (torch.linalg.cross(rotation[:, 0], rotation[:, 1]) * rotation[:, 2]).sum(-1) > 0
    if not (error < 1e-3 and bool(upright.all())):
        raise ValueError(
            "cameras: cam_from_world must hold rotations (orthonormal, determinant 1), "
            f"off by {error:.3g}: renormalise them first"
        )
    if not bool((pose[:, 3] == torch.eye(4)[3]).all()):
        raise ValueError(f"cameras: cam_from_world must have a last row of 0 0 0 1, got {pose[:, 3].tolist()}")


@no_type_check
def check_groups(cameras: Cameras, temporal_stride: int) -> None:
    """Refuse cameras that are not those of all frames of a video.

    Args:
        cameras: The cameras of an argument called `cameras`.
        temporal_stride: Frames of a group.

    Raises:
        ValueError: If the cameras are malformed, see `check_cameras`, the stride is no positive whole number, or the
            cameras are not one and whole groups.

    Example:
        >>> camera = Cameras(torch.eye(3)[None], torch.eye(4)[None], 2, 3)
        >>> check_groups(camera[[0, 0, 0]], 4)
        Traceback (most recent call last):
        ValueError: cameras must be of 1 + k * 4 frames, one and whole groups, got 3: give those of all frames
    """
    check_cameras(cameras)
    whole = isinstance(temporal_stride, int) and not isinstance(temporal_stride, bool)
    if not whole or temporal_stride < 1:
        raise ValueError(f"temporal_stride must be a positive whole number, got {temporal_stride!r}")
    if len(cameras) % temporal_stride != 1 % temporal_stride:
        raise ValueError(
            f"cameras must be of 1 + k * {temporal_stride} frames, one and whole groups, got {len(cameras)}: "
            "give those of all frames"
        )


def check_tensor(name: str, value: object) -> None:
    """Refuse what is no dense tensor of floating point of 16, 32 or 64 bits.

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> check_tensor("depth", torch.zeros(2, dtype=torch.int64))
        Traceback (most recent call last):
        ValueError: depth must be floating point of 16, 32 or 64 bits, got torch.int64: use .float()
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(value).__name__}: use torch.as_tensor")
    if value.layout != torch.strided or value.is_nested:
        kind = "nested tensors" if value.is_nested else value.layout
        raise ValueError(f"{name} must be a dense tensor, got {kind}: use .to_dense()")
    if value.dtype not in FLOATS:
        raise ValueError(f"{name} must be floating point of 16, 32 or 64 bits, got {value.dtype}: use .float()")


@no_type_check
def check_views(
    latents: Float[Tensor, "v c h w"],
    depth: Float[Tensor, "v H W"],
    cameras: Cameras,
    keep: Bool[Tensor, "v H W"] | None,
) -> int:
    """Refuse views that cannot be remembered, before anything is touched.

    Args:
        latents: Latents of the views.
        depth: Depth of the views, in world units, 0 = unknown.
        cameras: Cameras of the views, of image size.
        keep: Pixels that may be remembered, or None.

    Returns:
        The stride: image pixels per latent cell.

    Raises:
        ValueError: If counts, shapes, devices or values do not fit; the message names the argument.

    Example:
        >>> camera = Cameras(torch.eye(3)[None], torch.eye(4)[None], 16, 24)
        >>> check_views(torch.zeros(1, 4, 2, 3), torch.ones(1, 16, 24), camera, None)
        8
        >>> check_views(torch.zeros(1, 4, 2, 3), -torch.ones(1, 16, 24), camera, None)
        Traceback (most recent call last):
        ValueError: depth must not be negative nor above 1e+30, got -1 to -1: use 0 where it is unknown
    """
    for name, value in (("latents", latents), ("depth", depth)):
        check_tensor(name, value)
    check_cameras(cameras)
    if latents.ndim != 4 or depth.ndim != 3:
        raise ValueError(
            f"latents must be (v, c, h, w) and depth (v, H, W), got {tuple(latents.shape)} and {tuple(depth.shape)}"
        )
    if not len(latents) == len(depth) == len(cameras):
        raise ValueError(
            f"latents, depth and cameras must be of as many views, got {len(latents)}, {len(depth)} and {len(cameras)}"
        )
    c, h, w = latents.shape[1:]
    if c < 1:
        raise ValueError(f"latents must have channels, got {tuple(latents.shape)}")
    stride = cameras.height // max(h, 1)
    if min(h, w) < 1 or stride < 1 or (h * stride, w * stride) != (cameras.height, cameras.width):
        raise ValueError(
            f"cameras must be of the image's size, a whole multiple of the {h} x {w} latents, got "
            f"{cameras.height} x {cameras.width}: use cameras.resize"
        )
    if depth.shape[1] % h or depth.shape[2] % w or not min(depth.shape[1:]):
        raise ValueError(f"depth must be a whole multiple of the {h} x {w} latents, got {tuple(depth.shape[1:])}")
    if keep is not None and (not isinstance(keep, Tensor) or keep.dtype != torch.bool):
        kind = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
        raise ValueError(f"keep must be a tensor of bool, True on what may be remembered, got {kind}: use keep > 0")
    if keep is not None and (keep.layout != torch.strided or keep.is_nested):
        raise ValueError(f"keep must be a dense tensor, got {keep.layout}: use .to_dense()")
    if keep is not None and keep.shape != depth.shape:
        raise ValueError(f"keep must have the shape of depth {tuple(depth.shape)}, got {tuple(keep.shape)}")
    tensors = (latents, depth, cameras.intrinsics) if keep is None else (latents, depth, cameras.intrinsics, keep)
    devices = {str(x.device) for x in tensors}
    if len(devices) > 1:
        raise ValueError(f"latents, depth, cameras and keep must be on one device, got {sorted(devices)}: use .to")
    for name, value in (("latents", latents), ("depth", depth)):
        low, high = (float(x) for x in value.detach().aminmax()) if value.numel() else (0.0, 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            advice = ": use 0 where it is unknown" if name == "depth" else ""
            raise ValueError(f"{name} must be finite, got NaN or infinity{advice}")
    if not 0 <= low <= high <= FARTHEST:
        raise ValueError(
            f"depth must not be negative nor above {FARTHEST:g}, got {low:.3g} to {high:.3g}: use 0 where it is unknown"
        )
    return stride
