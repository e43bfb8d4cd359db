"""No memory: the control that remembers nothing, behind the same three methods."""

from typing import no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory.memory import Memory, MemoryRead, UpdateReport, check_cameras, check_views


class NoMemory(Memory):
    """Knows nothing of any view."""

    def __init__(self, channels: int, stride: int, dtype: torch.dtype):
        self.channels = channels
        self.stride = stride
        self.dtype = dtype

    @classmethod
    @no_type_check  # malformed arguments get a ValueError with a way out
    def from_view(
        cls,
        latents: Float[Tensor, "1 c h w"],
        depth: Float[Tensor, "1 H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "1 3 Y X"] | None = None,
        keep: Bool[Tensor, "1 H W"] | None = None,
    ) -> "NoMemory":
        """Look at the shapes, keep nothing. See `LatentMemory.from_view`."""
        stride = check_views(latents, depth, cameras, keep)
        if len(latents) != 1:
            raise ValueError(f"latents must be of one view, got {len(latents)}: give the others to update")
        return cls(latents.shape[1], stride, latents.dtype)

    def __len__(self) -> int:
        return 0

    @property
    def nbytes(self) -> int:
        """Nothing is kept."""
        return 0

    def read(self, cameras: Cameras) -> MemoryRead:
        """Zeros, and False everywhere. See `LatentMemory.read`."""
        check_cameras(cameras)
        if cameras.height % self.stride or cameras.width % self.stride:
            raise ValueError(
                f"cameras must be of a size that the stride {self.stride} divides, got {cameras.height} x "
                f"{cameras.width}: use cameras.resize or crop"
            )
        shape = (len(cameras), cameras.height // self.stride, cameras.width // self.stride)
        device = cameras.cam_from_world.device
        nothing = torch.zeros(shape, dtype=torch.bool, device=device)
        features = torch.zeros(shape[0], self.channels, *shape[1:], dtype=self.dtype, device=device)
        return MemoryRead(features=features, visible=nothing, depth=nothing.float(), observed=nothing, unmoved=nothing)

    @no_type_check
    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float[Tensor, "v H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "v 3 Y X"] | None = None,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> UpdateReport:
        """Forget it at once."""
        check_views(latents, depth, cameras, keep)
        return UpdateReport(invalid=len(latents) * latents.shape[2] * latents.shape[3])
