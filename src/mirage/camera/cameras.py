"""Batched pinhole cameras in one convention: OpenCV axes, corner pixels, `cam_from_world`.

Everything that asks where a pixel is, or what a view sees, goes through `Cameras`. All operations but `validate`
stay on the device of the tensors and never wait for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor


class Box(NamedTuple):
    """A window of an image in whole pixels: rows `top` to `top + height`, columns `left` to `left + width`."""

    top: int
    left: int
    height: int
    width: int


def cover(height: int, width: int, target_height: int, target_width: int) -> Box:
    """The largest centred window of an image that has the shape of a target.

    It is the crop that goes before a resize to the target, for the photograph and its camera alike (`Cameras.fit`).

    Equation:
        The side that is in excess is cut to `round(side * target / other target)`; the other side is kept. Because the
        window has whole pixels, the resize may stretch by up to half a pixel over the whole side; the intrinsics
        follow it exactly.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        target_height: Rows of the target.
        target_width: Columns of the target.

    Returns:
        The window, inside the image and never empty.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> cover(675, 1000, 128, 128)
        Box(top=0, left=162, height=675, width=675)
    """
    if min(height, width, target_height, target_width) <= 0:
        raise ValueError(f"sizes must be positive, got {height} x {width} and {target_height} x {target_width}")
    if height * target_width <= width * target_height:
        rows, columns = height, round(height * target_width / target_height)
    else:
        rows, columns = round(width * target_height / target_width), width
    rows, columns = max(1, rows), max(1, columns)
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


@dataclass(frozen=True, eq=False)
class Cameras:
    """A batch of pinhole cameras of one image size.

    Convention:
        Axes are OpenCV (+x right, +y down, +z forward). Pixel (r, c) covers [c, c+1) x [r, r+1), its centre is at +0.5.
        See docs/conventions.md.

    Attributes:
        intrinsics: Pinhole matrices, in pixels of `height` x `width`; no skew.
        cam_from_world: Rigid transforms from world to camera, in world units.
        height: Rows of the image.
        width: Columns of the image.

    Raises:
        ValueError: If the tensors are not of these shapes, of one length, one device and float32, or the size is not
            positive. The values are checked by `validate`, which has to wait for the device.
    """

    intrinsics: Float32[Tensor, "v 3 3"]
    cam_from_world: Float32[Tensor, "v 4 4"]
    height: int
    width: int

    def __post_init__(self):
        k, pose = self.intrinsics, self.cam_from_world
        if k.ndim != 3 or k.shape[1:] != (3, 3) or pose.shape != (len(k), 4, 4):
            raise ValueError(
                "Cameras needs intrinsics (v, 3, 3) and cam_from_world (v, 4, 4) of one length v, "
                f"got {tuple(k.shape)} and {tuple(pose.shape)}; use [None] on a single camera"
            )
        if k.dtype != torch.float32 or pose.dtype != torch.float32:
            raise ValueError(
                f"Cameras are float32, got intrinsics {k.dtype} and cam_from_world {pose.dtype}; use .float()"
            )
        if k.device != pose.device:
            raise ValueError(
                f"intrinsics are on {k.device} but cam_from_world is on {pose.device}; move one with .to()"
            )
        if min(self.height, self.width) <= 0:
            raise ValueError(f"the image size must be positive, got {self.height} x {self.width}")

    @classmethod
    def from_opencv(
        cls,
        intrinsics: Float[Tensor, "v 3 3"],
        cam_from_world: Float[Tensor, "v 4 4"],
        height: int,
        width: int,
    ) -> "Cameras":
        """Cameras whose intrinsics put the centre of the first pixel at (0, 0), as OpenCV does.

        Args:
            intrinsics: Pinhole matrices in pixels, pixel centres at integers.
            cam_from_world: Rigid transforms from world to camera, in world units.
            height: Rows of the image.
            width: Columns of the image.

        Returns:
            The same cameras in the corner convention: 0.5 is added to the principal point, once.

        Example:
            >>> K = torch.tensor([[[9.0, 0.0, 2.0], [0.0, 9.0, 1.0], [0.0, 0.0, 1.0]]])
            >>> Cameras.from_opencv(K, torch.eye(4)[None], 3, 5).intrinsics[0, :2, 2].tolist()
            [2.5, 1.5]
        """
        corner = intrinsics.float().clone()
        corner[:, :2, 2] += 0.5
        return cls(corner, cam_from_world.float(), height, width)

    @classmethod
    def from_fov(cls, fov: float, height: int, width: int, *, frames: int = 1) -> "Cameras":
        """Cameras at the world's origin with square pixels, the principal point in the middle of the image.

        This is the camera of a photograph of which nothing is known but a guessed field of view.

        Args:
            fov: Field of view across the longer side of the image, in radians.
            height: Rows of the image.
            width: Columns of the image.
            frames: Number of (equal) cameras.

        Returns:
            The cameras, on the CPU.

        Raises:
            ValueError: If `fov` is not between 0 and pi.

        Example:
            >>> Cameras.from_fov(math.pi / 2, 4, 6).intrinsics[0].tolist()
            [[3.0, 0.0, 3.0], [0.0, 3.0, 2.0], [0.0, 0.0, 1.0]]
        """
        if not 0 < fov < math.pi:
            raise ValueError(f"fov must be in radians between 0 and pi, got {fov}; use math.radians for degrees")
        focal = max(height, width) / 2 / math.tan(fov / 2)
        k = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        return cls(k.expand(frames, 3, 3).clone(), torch.eye(4).expand(frames, 4, 4).clone(), height, width)

    def validate(self) -> "Cameras":
        """Check the values too: call it where cameras come in from outside.

        Returns:
            The cameras themselves.

        Raises:
            ValueError: If a number is not finite, a focal length is not positive, a pinhole matrix has skew or a last
                row other than 0 0 1, or a transform is not rigid (orthonormal within 1e-3, right-handed).

        Cost:
            One host sync.
        """
        k, pose = self.intrinsics.detach().cpu(), self.cam_from_world.detach().cpu()
        rotation = pose[:, :3, :3]
        fixed = k[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] == torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
        checks = {
            "holds a number that is not finite": k.isfinite().all(2).all(1) & pose.isfinite().all(2).all(1),
            "has a focal length that is not positive": (k[:, 0, 0] > 0) & (k[:, 1, 1] > 0),
            "has skew, or a last row of intrinsics other than 0 0 1": fixed.all(1),
            "has a last row of cam_from_world other than 0 0 0 1": (pose[:, 3] == torch.eye(4)[3]).all(1),
            "has a rotation that is not orthonormal": (rotation @ rotation.mT - torch.eye(3)).abs().amax((1, 2)) < 1e-3,
            "is a mirror image (determinant below 0)": torch.linalg.det(rotation.nan_to_num()) > 0,
        }
        for fault, good in checks.items():
            if not good.all():
                raise ValueError(f"camera {(~good).nonzero()[0].item()} of {len(self)} {fault}")
        return self

    def __len__(self) -> int:
        return len(self.cam_from_world)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Cameras":
        """The chosen cameras; a single index keeps the batch axis (one camera is a batch of one)."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of a batch of {len(self)}")
            index = slice(index, None if index == -1 else index + 1)
        elif not isinstance(index, (slice, Tensor)):
            index = list(index)
        return replace(self, intrinsics=self.intrinsics[index], cam_from_world=self.cam_from_world[index])

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on another device.

        Args:
            device: Where the tensors go.

        Returns:
            The cameras; the tensors are shared if they are there already.
        """
        return replace(self, intrinsics=self.intrinsics.to(device), cam_from_world=self.cam_from_world.to(device))

    def resize(self, height: int, width: int) -> "Cameras":
        """The same views on another grid: the first two rows of the intrinsics scale, exactly.

        Equation:
            `K' = diag(width' / width, height' / height, 1) K` (paper Eq. 7); a latent grid is such a grid.

        Args:
            height: Rows of the new grid.
            width: Columns of the new grid.

        Returns:
            The cameras; the transforms are shared.

        Gradient:
            Flows to the intrinsics.

        Example:
            >>> Cameras.from_fov(math.pi / 2, 4, 6).resize(2, 12).intrinsics[0, :2].tolist()
            [[6.0, 0.0, 6.0], [0.0, 1.5, 1.0]]
        """
        k = self.intrinsics.clone()
        k[:, 0] *= width / self.width
        k[:, 1] *= height / self.height
        return Cameras(k, self.cam_from_world, height, width)

    def crop(self, top: int, left: int, height: int, width: int) -> "Cameras":
        """The views of a window of the image: the principal point moves, nothing else.

        Args:
            top: First row of the window, in pixels; may lie outside the image.
            left: First column of the window, in pixels.
            height: Rows of the window.
            width: Columns of the window.

        Returns:
            The cameras; the transforms are shared.

        Gradient:
            Flows to the intrinsics.

        Example:
            >>> Cameras.from_fov(math.pi / 2, 4, 6).crop(1, 2, 3, 4).intrinsics[0, :2].tolist()
            [[3.0, 0.0, 1.0], [0.0, 3.0, 1.0]]
        """
        k = self.intrinsics.clone()
        k[:, 0, 2] -= left
        k[:, 1, 2] -= top
        return Cameras(k, self.cam_from_world, height, width)

    def fit(self, height: int, width: int) -> tuple["Cameras", Box]:
        """Bring the views to a model's size by a centred crop and a resize that cover it exactly.

        Args:
            height: Rows of the model's images.
            width: Columns of the model's images.

        Returns:
            The cameras, and the window of the image to cut before it is resized to `height` x `width`, so that the
            photograph is treated as its camera: `image.resize((width, height), box=(left, top, left + w, top + h))`.

        Example:
            >>> cameras, box = Cameras.from_fov(math.pi / 2, 6, 8).fit(3, 3)
            >>> box, cameras.intrinsics[0, :2].tolist()
            (Box(top=0, left=1, height=6, width=6), [[2.0, 0.0, 1.5], [0.0, 2.0, 1.5]])
        """
        box = cover(self.height, self.width, height, width)
        return self.crop(*box).resize(height, width), box

    @property
    def world_from_cam(self) -> Float32[Tensor, "v 4 4"]:
        """Transforms from each camera to the world, in world units."""
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
        """World points of a depth map's cell centres; the grid may be coarser or finer than the image.

        Equation:
            `world_from_cam [depth * K^-1 [c + 1/2, r + 1/2, 1]; 1]` with K scaled to the grid (paper Eq. 7 and 8).

        Args:
            depth: z-depth of each cell, in world units; cells of unknown depth (0) give the camera's centre.

        Returns:
            World positions, in world units, float32.

        Gradient:
            Flows to the depth and to the cameras.

        Cost:
            O(v * h * w); no host sync.

        Example:
            >>> Cameras.from_fov(math.pi / 2, 2, 4).unproject(torch.full((1, 1, 2), 4.0))[0, 0].tolist()
            [[-2.0, 0.0, 4.0], [2.0, 0.0, 4.0]]
        """
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
        """Where world points are seen in every view, and how far.

        Equation:
            `z [x, y, 1] = K (R point + t)`; the pixel of a point is `floor` of its position (paper Eq. 9).

        Args:
            points: World positions, in world units.

        Returns:
            Positions (x, y) in pixels, and z-depth in world units. Points with z <= 0 have no image: their positions
            mean nothing and may be infinite or NaN.

        Gradient:
            Flows to the points and to the cameras.

        Cost:
            O(v * n); no host sync.

        Example:
            >>> xy, z = Cameras.from_fov(math.pi / 2, 2, 4).project(torch.tensor([[1.0, 0.0, 4.0]]))
            >>> xy.tolist(), z.tolist()
            ([[[2.5, 1.0]]], [[4.0]])
        """
        cam = torch.einsum("vij,nj->vni", self.cam_from_world[:, :3, :3], points) + self.cam_from_world[:, None, :3, 3]
        image = torch.einsum("vij,vnj->vni", self.intrinsics, cam)
        return image[..., :2] / image[..., 2:], cam[..., 2]

    @classmethod
    def cat(cls, batches: Sequence["Cameras"]) -> "Cameras":
        """One batch after another.

        Args:
            batches: At least one batch, all of one image size.

        Returns:
            All cameras, in order.

        Raises:
            ValueError: If there is no batch, or the image sizes differ.
        """
        sizes = {(b.height, b.width) for b in batches}
        if len(sizes) != 1:
            raise ValueError(
                f"Cameras.cat needs batches of one image size, got {sorted(sizes)}; use resize or fit first"
            )
        return cls(
            torch.cat([b.intrinsics for b in batches]), torch.cat([b.cam_from_world for b in batches]), *sizes.pop()
        )
