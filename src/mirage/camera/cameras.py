"""Batched pinhole cameras in one convention: OpenCV axes, corner pixels, `cam_from_world`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras of one image size.

    Convention:
        Axes are OpenCV (+x right, +y down, +z forward). Pixel (r, c) covers [c, c+1) x [r, r+1),
        its centre is at +0.5. `intrinsics` are in pixels of `height` x `width`.
    """

    intrinsics: Float32[Tensor, "v 3 3"]
    cam_from_world: Float32[Tensor, "v 4 4"]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.cam_from_world)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Cameras":
        if isinstance(index, int):
            index = slice(index, None if index == -1 else index + 1)
        elif not isinstance(index, (slice, Tensor)):
            index = list(index)
        return replace(self, intrinsics=self.intrinsics[index], cam_from_world=self.cam_from_world[index])

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on `device`."""
        return replace(self, intrinsics=self.intrinsics.to(device), cam_from_world=self.cam_from_world.to(device))

    def resize(self, height: int, width: int) -> "Cameras":
        """The same views on another grid: the first two rows of the intrinsics scale, exactly."""
        scale = self.intrinsics.new_tensor([width / self.width, height / self.height, 1.0])
        return Cameras(self.intrinsics * scale[:, None], self.cam_from_world, height, width)

    def crop(self, top: int, left: int, height: int, width: int) -> "Cameras":
        """The views of a window of the image: the principal point moves, nothing else."""
        shift = torch.zeros_like(self.intrinsics)
        shift[:, 0, 2], shift[:, 1, 2] = left, top
        return Cameras(self.intrinsics - shift, self.cam_from_world, height, width)

    @property
    def world_from_cam(self) -> Float32[Tensor, "v 4 4"]:
        """Inverse rigid transforms."""
        rotation = self.cam_from_world[:, :3, :3].mT
        inverse = self.cam_from_world.clone()
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.cam_from_world[:, :3, 3:])[..., 0]
        return inverse

    @property
    def centers(self) -> Float32[Tensor, "v 3"]:
        """Camera centres in the world, in world units."""
        return self.world_from_cam[:, :3, 3]

    def unproject(self, depth: Float[Tensor, "v h w"]) -> Float32[Tensor, "v h w 3"]:
        """World points of a depth map's cell centres; the grid may be coarser or finer than the image."""
        h, w = depth.shape[1:]
        k = self.resize(h, w).intrinsics
        y = torch.arange(h, device=depth.device) + 0.5
        x = torch.arange(w, device=depth.device) + 0.5
        ray_x = (x[None, None] - k[:, 0, 2, None, None]) / k[:, 0, 0, None, None]
        ray_y = (y[None, :, None] - k[:, 1, 2, None, None]) / k[:, 1, 1, None, None]
        ray_x, ray_y = torch.broadcast_tensors(ray_x, ray_y)
        cam = torch.stack([ray_x, ray_y, torch.ones_like(ray_x)], -1) * depth.float()[..., None]
        pose = self.world_from_cam
        return torch.einsum("vij,vhwj->vhwi", pose[:, :3, :3], cam) + pose[:, None, None, :3, 3]

    def project(self, points: Float32[Tensor, "n 3"]) -> tuple[Float32[Tensor, "v n 2"], Float32[Tensor, "v n"]]:
        """Pixel coordinates and z-depth of world points in every view; points with z <= 0 have no image."""
        cam = torch.einsum("vij,nj->vni", self.cam_from_world[:, :3, :3], points) + self.cam_from_world[:, None, :3, 3]
        image = torch.einsum("vij,vnj->vni", self.intrinsics, cam)
        return image[..., :2] / image[..., 2:], cam[..., 2]

    @classmethod
    def cat(cls, batches: Sequence["Cameras"]) -> "Cameras":
        """One batch after another; all of one image size."""
        return Cameras(
            torch.cat([b.intrinsics for b in batches]),
            torch.cat([b.cam_from_world for b in batches]),
            batches[0].height,
            batches[0].width,
        )
