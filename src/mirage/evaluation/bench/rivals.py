"""What the memory is measured against: the released code's algorithm, and a cloud of colours that is encoded anew."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.kernels import ops
from mirage.video.codec import LatentCodec


class ReleasedMemory:
    """The memory as the authors released it, written from its description; its defects are kept, that is the point.

    Every cell with depth is written, all in float32, depth pooled bilinearly with what is unknown, cells at integer
    coordinates. A read projects all points into each view, sorts them by depth, far to near, and writes them to their
    rounded cells one over the other. Of duplicate indices PyTorch does not promise the last: with several threads a
    farther point may stay.
    """

    def __init__(self, channels: int, stride: int):
        self.points = torch.zeros(0, 3)
        self.features = torch.zeros(0, channels)
        self.stride = stride

    @property
    def nbytes(self) -> int:
        """Bytes of points and features."""
        return 4 * (self.points.numel() + self.features.numel())

    def __len__(self) -> int:
        return len(self.points)

    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float32[Tensor, "v H W"],
        cameras: Cameras,
        *,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> None:
        """Append all cells of these views that have depth and may be kept."""
        height, width = latents.shape[2:]
        pooled = F.interpolate(depth[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
        valid = pooled > 0
        if keep is not None:
            valid &= F.interpolate((~keep)[:, None].float(), (height, width), mode="nearest")[:, 0] == 0
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixel = torch.stack([x, y, torch.ones_like(x)], -1).float()
        ray = torch.einsum("vij,hwj->vhwi", torch.linalg.inv(cameras.resize(height, width).intrinsics), pixel)
        local, pose = ray * pooled[..., None], cameras.world_from_cam
        points = torch.einsum("vij,vhwj->vhwi", pose[:, :3, :3], local) + pose[:, None, None, :3, 3]
        self.points = torch.cat([self.points, points[valid]])
        self.features = torch.cat([self.features, latents.permute(0, 2, 3, 1)[valid].float()])

    def read(self, cameras: Cameras) -> tuple[Float32[Tensor, "v c h w"], Bool[Tensor, "v h w"]]:
        """Features and which cells have any."""
        height, width = cameras.height // self.stride, cameras.width // self.stride
        grid = cameras.resize(height, width)
        images, masks = [], []
        for k, pose in zip(grid.intrinsics, grid.cam_from_world, strict=True):
            local = self.points @ pose[:3, :3].T + pose[:3, 3]
            z = local[:, 2]
            image = local @ k.T
            u = (image[:, 0] / z).round().long()
            v = (image[:, 1] / z).round().long()
            (valid,) = ((z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)).nonzero(as_tuple=True)
            order = valid[torch.argsort(z[valid], descending=True, stable=True)]
            canvas = torch.zeros(height * width, self.features.shape[1])
            mask = torch.zeros(height * width, dtype=torch.bool)
            cell = v[order] * width + u[order]
            canvas[cell] = self.features[order]
            mask[cell] = True
            images.append(canvas.T.unflatten(1, (height, width)))
            masks.append(mask.view(height, width))
        return torch.stack(images), torch.stack(masks)


class ColourCloud:
    """Eq. 1 and 2 as the paper's rivals have them: coloured points of every pixel, a z-buffer, an encoder."""

    def __init__(self, codec: LatentCodec):
        self.points = torch.zeros(0, 3)
        self.colours = torch.zeros(0, 3)
        self.codec = codec

    @property
    def nbytes(self) -> int:
        """Bytes of points and colours."""
        return 4 * (self.points.numel() + self.colours.numel())

    def __len__(self) -> int:
        return len(self.points)

    def update(self, frame: Float32[Tensor, "3 H W"], depth: Float32[Tensor, "H W"], camera: Cameras) -> None:
        """Append all pixels of one keyframe that have depth."""
        points = camera.unproject(depth[None])[0][depth > 0]
        self.points = torch.cat([self.points, points])
        self.colours = torch.cat([self.colours, frame[:, depth > 0].T])

    def render(self, camera: Cameras) -> Float32[Tensor, "1 3 H W"]:
        """One view in colour, black where there is nothing."""
        return ops.splat_nearest(
            self.points, self.colours, camera.intrinsics, camera.cam_from_world, camera.height, camera.width
        )[0]

    def encode(self, frame: Float32[Tensor, "1 3 H W"]) -> Float[Tensor, "1 c h w"]:
        """Latents of one view, as a single image."""
        with torch.no_grad():
            return self.codec.encode(frame[None])[:, 0]
