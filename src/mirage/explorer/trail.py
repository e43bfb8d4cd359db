"""The way that somebody walked: poses as they come, thinned, and cut into chunks of even steps."""

import math

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.rigid import interpolate, invert, rotation_angle

MOST = 2048  # poses that are kept; then every other one goes
TURN = math.radians(30)  # a turn of this much is as far as going one unit
STEP = 0.01  # of a unit: less is standing still


class Trail:
    """Where somebody went since the last frame that was made.

    Args:
        start: Pose of that frame.
        unit: A distance that is as far as a turn of 30 degrees, in world units.
    """

    def __init__(self, start: Float32[Tensor, "4 4"], unit: float):
        self.unit = unit
        self.poses = [start]
        self.steps = [0.0]
        self.here = start

    def add(self, pose: Float32[Tensor, "4 4"]) -> None:
        """Be somewhere else; small steps are noted together.

        Args:
            pose: Where one is now.
        """
        self.here = pose
        step = float(effort(torch.stack([self.poses[-1], pose]), self.unit))
        if step < STEP:
            return
        if len(self.poses) >= MOST:
            self.poses = self.poses[::2] if len(self.poses) % 2 else [*self.poses[::2], self.poses[-1]]
            self.steps = [0.0, *effort(torch.stack(self.poses), self.unit).tolist()]
            step = float(effort(torch.stack([self.poses[-1], pose]), self.unit))
        self.poses.append(pose)
        self.steps.append(step)

    @property
    def way(self) -> Float32[Tensor, "f 4 4"]:
        """The way from its start to where one is, bit for bit."""
        return torch.stack([*self.poses, *([] if torch.equal(self.poses[-1], self.here) else [self.here])])

    @property
    def length(self) -> float:
        """How far it is, in units of `unit` or turns of 30 degrees."""
        return sum(self.steps)


def effort(cam_from_world: Float32[Tensor, "f 4 4"], unit: float) -> Float[Tensor, " f-1"]:
    """How far it is from each pose to the next: distance or turn, whichever is more.

    Args:
        cam_from_world: Poses.
        unit: What counts as 1, in world units; so does a turn of 30 degrees.

    Returns:
        One number per step.

    Example:
        >>> there = torch.eye(4)
        >>> there[2, 3] = 3.0
        >>> effort(torch.stack([torch.eye(4), there]), 2.0).tolist()
        [1.5]
    """
    world_from_cam = invert(cam_from_world.double())
    distance = world_from_cam[:, :3, 3].diff(dim=0).norm(dim=-1) / unit
    rotation = world_from_cam[:, :3, :3]
    return torch.maximum(distance, rotation_angle(rotation[:-1].mT @ rotation[1:]) / TURN)


def even(cameras: Cameras, unit: float, frames: int) -> Cameras:
    """Go the same way in steps of one size.

    Args:
        cameras: The way; at least two poses.
        unit: As in `effort`.
        frames: Number of steps.

    Returns:
        Cameras after each step; the last is the last of the way, bit for bit.
    """
    along = torch.cat([torch.zeros(1, dtype=torch.float64), effort(cameras.cam_from_world.cpu(), unit).cumsum(0)])
    wanted = torch.linspace(0, 1, frames + 1, dtype=torch.float64)[1:] * along[-1]
    after = torch.searchsorted(along, wanted).clamp(1, len(cameras) - 1)
    part = ((wanted - along[after - 1]) / (along[after] - along[after - 1]).clamp(min=1e-12)).clamp(0, 1)
    pose = cameras.world_from_cam
    between = invert(interpolate(pose[after - 1], pose[after], part.to(pose)))
    between[-1] = cameras.cam_from_world[-1]
    return Cameras(cameras.intrinsics[:1].expand(frames, 3, 3).clone(), between, cameras.height, cameras.width)


def smooth(keyframes: Cameras, unit: float, frames: int) -> Cameras:
    """Go through keyframes on a curve without corners, at even speed.

    Equation:
        Centres follow a centripetal Catmull-Rom spline, which makes no loops; rotations go by slerp from key to key.

    Args:
        keyframes: At least one.
        unit: As in `effort`.
        frames: Number of cameras.

    Returns:
        The path from the first to the last keyframe, both bit for bit.
    """
    if len(keyframes) == 1:
        return keyframes[[0] * frames]
    pose = keyframes.world_from_cam.double()
    center, fine = pose[:, :3, 3], 32
    before = torch.cat([2 * center[:1] - center[1:2], center[:-1]])
    after = torch.cat([center[1:], 2 * center[-1:] - center[-2:-1]])
    dense = [keyframes.cam_from_world[:1]]
    for i in range(len(keyframes) - 1):
        part = (torch.arange(fine, dtype=torch.float64) + 1) / fine
        between = interpolate(pose[i].expand(fine, 4, 4), pose[i + 1].expand(fine, 4, 4), part)
        between = between.clone()
        between[:, :3, 3] = _catmull_rom(before[i], center[i], center[i + 1], after[i + 1], part)
        dense.append(invert(between).float())
        dense[-1][-1] = keyframes.cam_from_world[i + 1]
    way = torch.cat(dense)
    lens = keyframes.intrinsics[:1].expand(len(way), 3, 3).clone()
    cameras = Cameras(lens, way, keyframes.height, keyframes.width)
    return Cameras.cat([keyframes[0], even(cameras, unit, frames - 1)])


def _catmull_rom(
    p0: Float[Tensor, "3"], p1: Float[Tensor, "3"], p2: Float[Tensor, "3"], p3: Float[Tensor, "3"], part: Tensor
) -> Float[Tensor, "f 3"]:
    """The curve from p1 to p2, centripetal; Barry and Goldman's pyramid."""
    t0 = torch.zeros((), dtype=p0.dtype)
    knot = lambda t, a, b: t + (b - a).norm().sqrt().clamp(min=1e-4)
    t1 = knot(t0, p0, p1)
    t2 = knot(t1, p1, p2)
    t3 = knot(t2, p2, p3)
    t = (t1 + part * (t2 - t1))[:, None]
    mix = lambda a, b, ta, tb: (tb - t) / (tb - ta) * a + (t - ta) / (tb - ta) * b
    a1, a2, a3 = mix(p0, p1, t0, t1), mix(p1, p2, t1, t2), mix(p2, p3, t2, t3)
    b1, b2 = mix(a1, a2, t0, t2), mix(a2, a3, t1, t3)
    return mix(b1, b2, t1, t2)
