"""Worlds in closed form for measurements: planes and round pillars, whose depth is exact along any ray."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras

FAR = 24.0  # beyond it depth is unknown: nobody estimates the end of a hall
FIELD = math.radians(68)
GAP = 2.5  # from one pillar of a row to the next


@dataclass(frozen=True, kw_only=True)
class World:
    """Planes seen from the inside, and vertical pillars.

    Convention:
        World axes are OpenCV (+y down). A plane is n . x = d, seen from the side of smaller n . x.
    """

    planes: Float32[Tensor, "p 4"]
    """Normal and distance of each plane."""
    pillars: Float32[Tensor, "k 3"]
    """x, z and radius of each pillar, which goes from floor to ceiling."""

    def distance(self, start: Float32[Tensor, "3"], ray: Float32[Tensor, "*b 3"]) -> Float32[Tensor, "*b"]:
        """How often each ray fits between its start and the first surface; infinite if there is none."""
        nearest = torch.full(ray.shape[:-1], torch.inf)
        for plane in self.planes:
            reach = (plane[3] - plane[:3] @ start) / (ray @ plane[:3])
            nearest = torch.where((reach > 0) & (reach < nearest), reach, nearest)
        x, z = ray[..., 0].contiguous(), ray[..., 2].contiguous()
        square = x * x + z * z
        offset = self.pillars[:, :2] - start[[0, 2]]
        close = offset.norm(dim=1) < FAR + 2
        middle = ray.reshape(-1, 3).mean(0)[[0, 2]]
        aside = (offset @ middle) / (offset.norm(dim=1) * middle.norm()).clamp(min=1e-9)
        ahead = (aside > math.cos(1.4 * FIELD)) | (offset.norm(dim=1) < 2)  # more than what a camera can see
        for (px, pz), radius in zip(
            offset[close & ahead].tolist(), self.pillars[close & ahead, 2].tolist(), strict=True
        ):
            along = x * px + z * pz
            root = along * along - square * (px * px + pz * pz - radius * radius)
            reach = (along - root.clamp(min=0).sqrt()) / square
            nearest = torch.where((root > 0) & (reach > 0) & (reach < nearest), reach, nearest)
        return nearest

    def depth(self, cameras: Cameras, height: int, width: int) -> Float32[Tensor, "v {height} {width}"]:
        """Exact z-depth at the centres of a grid over each image, 0 beyond `FAR`."""
        maps = []
        for view in range(len(cameras)):
            camera = cameras[view]
            start = camera.centers[0]
            ray = camera.unproject(torch.ones(1, height, width))[0] - start
            reach = self.distance(start, ray)
            maps.append(torch.where(reach <= FAR, reach, 0.0))
        return torch.stack(maps)

    def sees(self, camera: Cameras, points: Float32[Tensor, "*b 3"], tolerance: float = 1e-3) -> Bool[Tensor, "*b"]:
        """Which points lie in the picture of one camera with nothing before them."""
        flat = points.reshape(-1, 3)
        place, z = camera.project(flat)
        inside = ((place[0] > 0) & (place[0] < torch.tensor([camera.width, camera.height]))).all(-1) & (z[0] > 0)
        ray = flat - camera.centers[0]
        return (inside & (self.distance(camera.centers[0], ray) > 1 - tolerance)).view(points.shape[:-1])


WALL = World(planes=torch.tensor([[0.0, 0.0, 1.0, 3.0]]), pillars=torch.zeros(0, 3))
TILTED = World(planes=torch.tensor([[0.3, -0.5, 1.0, 3.0]]), pillars=torch.zeros(0, 3))
ROOM = World(
    planes=torch.tensor(
        [
            [0.0, 0.0, 1.0, 4.0],
            [0.0, 1.0, 0.0, 1.2],
            [0.0, -1.0, 0.0, 1.5],
            [1.0, 0.0, 0.2, 2.5],
            [-1.0, 0.0, 0.0, 2.2],
        ]
    ),
    pillars=torch.zeros(0, 3),
)


def hall(length: float, seed: int = 0) -> World:
    """A hall with two rows of pillars along +z, no two places of it alike; the eye is at the origin.

    Args:
        length: How far a camera will go, in metres.
        seed: Of the places and sizes of the pillars.

    Returns:
        The world.

    Example:
        >>> hall(10.0).pillars.shape
        torch.Size([32, 3])
    """
    random = torch.Generator().manual_seed(seed)
    count = math.ceil((length + FAR) / GAP) + 2
    along = GAP * (torch.arange(count) - 1)
    rows = []
    for side in (-1, 1):
        jitter = torch.rand(count, 3, generator=random)
        rows.append(torch.stack([side * (2.0 + 0.8 * jitter[:, 0]), along + jitter[:, 1], 0.2 + 0.3 * jitter[:, 2]], 1))
    planes = torch.tensor([[0.0, 1.0, 0, 1.5], [0, -1.0, 0, 1.7], [1.0, 0, 0, 5.0], [-1.0, 0, 0, 5.0]])
    return World(planes=planes, pillars=torch.cat(rows))


def camera(height: int, width: int) -> Cameras:
    """One camera at the origin that looks along +z."""
    return Cameras.from_fov(FIELD, height, width)


def placed(
    height: int,
    width: int,
    place: Float[Tensor, "v 3"],
    yaw: Float[Tensor, "v"],
    pitch: Float[Tensor, "v"] | None = None,
) -> Cameras:
    """Cameras at places, turned right by `yaw` and up by `pitch`, in degrees."""
    a = yaw.double().deg2rad()
    b = torch.zeros_like(a) if pitch is None else pitch.double().deg2rad()
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    turn = torch.stack([a.cos(), zero, -a.sin(), zero, one, zero, a.sin(), zero, a.cos()], -1).unflatten(-1, (3, 3))
    nod = torch.stack([one, zero, zero, zero, b.cos(), b.sin(), zero, -b.sin(), b.cos()], -1).unflatten(-1, (3, 3))
    pose = torch.eye(4, dtype=torch.float64).repeat(len(a), 1, 1)
    pose[:, :3, :3] = nod @ turn
    pose[:, :3, 3] = -(pose[:, :3, :3] @ place.double()[..., None])[..., 0]
    one_camera = camera(height, width)
    return Cameras(one_camera.intrinsics.expand(len(a), 3, 3).clone(), pose.float(), height, width)


def walk(frames: int, height: int, width: int, *, returns: bool = False, pace: float = 0.05) -> Cameras:
    """A walk down the hall, looking left and right on the way.

    Args:
        frames: Number of cameras.
        height: Rows of the image.
        width: Columns of the image.
        returns: Turn back in the middle and retrace the steps, 3 cm to the side.
        pace: Metres per frame.

    Returns:
        The cameras.
    """
    step = torch.arange(frames, dtype=torch.float64)
    back = step > (frames - 1) / 2 if returns else torch.zeros(frames, dtype=torch.bool)
    step = torch.where(back, frames - 1 - step, step)
    sway = 0.4 * (step / 37).sin()
    place = torch.stack([sway + 0.03 * back, torch.zeros_like(step), pace * step], -1)
    return placed(height, width, place, 25 * (step / 23).sin())
