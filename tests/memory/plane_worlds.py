"""Exact worlds for the memory's tests: planes whose features are smooth functions of world position."""

import math

import torch
from torch import Tensor

from mirage.camera.cameras import Cameras

ROOM = torch.tensor(  # planes n . x = d, seen from the side of smaller n . x
    [
        [0.0, 0.0, 1.0, 4.0],  # far wall
        [0.0, 1.0, 0.0, 1.2],  # floor
        [0.0, -1.0, 0.0, 1.5],  # ceiling
        [1.0, 0.0, 0.2, 2.5],  # right wall, oblique
        [-1.0, 0.0, 0.0, 2.2],  # left wall
    ]
)
WALL = torch.tensor([[0.0, 0.0, 1.0, 3.0]])
TILTED = torch.tensor([[0.3, -0.5, 1.0, 3.0]])


def cameras(poses: Tensor, height: int, width: int, focal: float = 0.8) -> Cameras:
    """Cameras of given `cam_from_world`, focal length in image widths."""
    f = focal * width
    k = torch.tensor([[f, 0.0, width / 2 + 0.3], [0.0, f, height / 2 - 0.2], [0.0, 0.0, 1.0]])
    return Cameras(k.repeat(len(poses), 1, 1), poses, height, width)


def pose(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0, pitch: float = 0) -> Tensor:
    """`cam_from_world` of a camera at a place, turned right by yaw and up by pitch, in degrees."""
    a, b = math.radians(yaw), math.radians(pitch)
    turn = torch.tensor([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
    lift = torch.tensor([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
    out = torch.eye(4)
    out[:3, :3] = lift @ turn
    out[:3, 3] = -out[:3, :3] @ torch.tensor([x, y, z], dtype=torch.float32)
    return out


def depth(cams: Cameras, planes: Tensor, height: int, width: int) -> Tensor:
    """Exact z-depth (v, height, width) of the inside of a convex set of planes."""
    one = cams.unproject(torch.ones(len(cams), height, width))
    center = cams.centers[:, None, None]
    ray = one - center
    distance = (planes[:, 3] - center @ planes[:, :3].T) / (ray @ planes[:, :3].T)
    return torch.where(distance > 0, distance, torch.inf).amin(-1)


def field(points: Tensor) -> Tensor:
    """Features (v, 3, h, w) of world points (v, h, w, 3): the position itself, so an error is a displacement."""
    return points.permute(0, 3, 1, 2)


def view(cams: Cameras, planes: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Features of the cell centres and depth of the pixels, both 0 where there is nothing."""
    known = lambda *size: (d := depth(cams, planes, *size)).masked_fill(d.isinf(), 0.0)
    cells = known(cams.height // stride, cams.width // stride)
    return field(cams.unproject(cells)) * (cells > 0)[:, None], known(cams.height, cams.width)


def misplacement(read, cams: Cameras) -> Tensor:
    """Pixels (v, h, w) between each visible cell's centre and the image of what it shows; NaN where not visible."""
    h, w = read.visible.shape[1:]
    points = read.features.permute(0, 2, 3, 1)[..., None]
    cam = cams.cam_from_world[:, None, None, :3, :3] @ points + cams.cam_from_world[:, None, None, :3, 3:]
    image = (cams.intrinsics[:, None, None] @ cam)[..., 0]
    place = image[..., :2] / image[..., 2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    center = torch.stack([x * cams.width / w, y * cams.height / h], -1)
    return torch.where(read.visible, (place - center).norm(dim=-1), torch.nan)


def rms(pixels: Tensor) -> float:
    """Root mean square of what is not NaN."""
    return pixels[~pixels.isnan()].square().mean().sqrt().item()


def cosighted(source: Cameras, target: Cameras, planes: Tensor, height: int, width: int, margin: float = 0.0) -> Tensor:
    """Target cells whose centre lies in the picture of the (single) source view, by `margin` pixels."""
    points = target.unproject(depth(target, planes, height, width))
    place, z = source.project(points.reshape(-1, 3))
    size = torch.tensor([source.width, source.height])
    inside = ((place > margin) & (place < size - margin)).all(-1) & (z > 0)
    return inside.view(len(target), height, width)


MOVES = {
    "push-in": pose(z=1.0),
    "push-in 4x": pose(z=2.25),
    "pull-out": pose(z=-1.0),
    "yaw": pose(yaw=15),
    "truck": pose(x=0.6, y=0.1),
    "orbit": pose(x=1.0, z=0.3, yaw=-18),
    "all at once": pose(x=0.3, y=-0.2, z=0.5, yaw=5, pitch=4),
}
WORLDS = {"wall": WALL, "tilted": TILTED, "room": ROOM}
