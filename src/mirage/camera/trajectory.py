"""A camera path and what is known about it: where it came from, how far it goes, how much it turns."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.rigid import compose, interpolate, invert, rebase, rotation_angle


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How cameras move.

    Attributes:
        frames: Number of cameras.
        length: Length of the way of the camera centre, in world units.
        rotation: Sum of the turns between neighbours, in radians.
        reach: Largest distance from the first camera, in world units.
        end_distance: Distance of the last camera from the first, in world units.
        end_rotation: Angle between the last camera and the first, in radians.
    """

    frames: int
    length: float
    rotation: float
    reach: float
    end_distance: float
    end_rotation: float

    def __str__(self) -> str:
        return (
            f"{self.frames} poses, path {self.length:.3g} units and {math.degrees(self.rotation):.3g} degrees, "
            f"ends {self.end_distance:.3g} units and {math.degrees(self.end_rotation):.3g} degrees from its start"
        )


def measure_motion(cameras: Cameras) -> Motion:
    """Measure how far cameras go and how much they turn.

    Args:
        cameras: The path, in order; at least one camera.

    Returns:
        The measures, in world units and radians, computed in float64.

    Raises:
        ValueError: If there is no camera.

    Cost:
        One host sync.
    """
    if len(cameras) == 0:
        raise ValueError("a path needs at least one camera, got none")
    world_from_cam = invert(cameras.cam_from_world.detach().cpu().double())
    center, rotation = world_from_cam[:, :3, 3], world_from_cam[:, :3, :3]
    from_start = (center - center[0]).norm(dim=-1)
    return Motion(
        frames=len(cameras),
        length=center.diff(dim=0).norm(dim=-1).sum().item(),
        rotation=rotation_angle(rotation[:-1].mT @ rotation[1:]).sum().item(),
        reach=from_start.max().item(),
        end_distance=from_start[-1].item(),
        end_rotation=rotation_angle(rotation[0].mT @ rotation[-1]).item(),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Cameras with their origin; printing it says what was understood.

    Attributes:
        cameras: The path; for files and paths from the world's origin the first pose is exactly the identity.
        source: The file or the words it was made from.
        format: Name of the file format, or "preset" or "command".
        convention: How the source writes poses and intrinsics.
        notes: What was changed or ignored, one sentence each.
        file_from_world: Transform from our world (the first camera) to the world of the file, in units of the file.
        prompts: First frame and text of each prompt that the file has.
    """

    cameras: Cameras
    source: str
    format: str
    convention: str
    notes: tuple[str, ...] = ()
    file_from_world: Float32[Tensor, "4 4"]
    prompts: tuple[tuple[int, str], ...] = ()

    @property
    def motion(self) -> Motion:
        """How the cameras move."""
        return measure_motion(self.cameras)

    @property
    def file_cameras(self) -> Cameras:
        """The cameras in the world of the file, as they were before the first became the world."""
        pose = compose(self.cameras.cam_from_world.double(), invert(self.file_from_world.double()))
        return replace(self.cameras, cam_from_world=pose.float())

    def __str__(self) -> str:
        height, width = self.cameras.height, self.cameras.width
        k = self.cameras.intrinsics[0]
        across, down = (math.degrees(2 * math.atan(n / 2 / f)) for n, f in [(width, k[0, 0]), (height, k[1, 1])])
        return "\n".join(
            [
                f"{self.source}: {self.format} ({self.convention})",
                f"  {self.motion}",
                f"  field of view {across:.1f} x {down:.1f} degrees at {width} x {height} pixels",
                *(f"  {note}" for note in self.notes),
            ]
        )


def cut(cameras: Cameras, start: int, stop: int) -> Cameras:
    """Take a part of a path and begin it at the identity.

    Args:
        cameras: The path.
        start: First camera to keep.
        stop: One past the last camera to keep.

    Returns:
        The part, re-based: its first camera is the world.

    Raises:
        ValueError: If the part is empty or not inside the path.
    """
    if not 0 <= start < stop <= len(cameras):
        raise ValueError(f"a path of {len(cameras)} poses has no part {start} to {stop}")
    part = cameras[start:stop]
    return Cameras(part.intrinsics, rebase(part.cam_from_world), cameras.height, cameras.width)


def resample(cameras: Cameras, frames: int) -> Cameras:
    """Go along the same path in another number of frames.

    Poses are taken to be equally spaced in time. Between two of them the centre goes straight, the rotation by the
    shorter way round at constant speed, the intrinsics linearly; at a given pose the result is that pose, bit for bit.

    Args:
        cameras: The path; at least one camera.
        frames: Number of cameras wanted; at least 2, unless the path is a single camera.

    Returns:
        The path from its first to its last camera.

    Raises:
        ValueError: If the path is empty, or `frames` is too small.
    """
    if len(cameras) == 0 or frames < min(2, len(cameras)):
        raise ValueError(f"cannot resample a path of {len(cameras)} poses to {frames}; give at least 2 frames")
    # Integers first: time is exactly on a pose where it should be.
    steps = torch.arange(frames, device=cameras.cam_from_world.device) * (len(cameras) - 1)
    before = steps // max(1, frames - 1)
    after = (before + 1).clamp(max=len(cameras) - 1)
    amount = (steps % max(1, frames - 1)).float() / max(1, frames - 1)
    world_from_cam = cameras.world_from_cam
    between = invert(interpolate(world_from_cam[before], world_from_cam[after], amount))
    pose = torch.where((amount == 0)[:, None, None], cameras.cam_from_world[before], between)
    intrinsics = torch.lerp(cameras.intrinsics[before], cameras.intrinsics[after], amount[:, None, None])
    return Cameras(intrinsics, pose, cameras.height, cameras.width)
