"""WorldScore's camera paths: its eight movements, its way between them, its files.

Its world has PyTorch3D's axes (x left, y up, z forward) and its matrices map world to camera; each movement is made in
the axes of the camera before it. The first camera is at the origin.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.rigid import interpolate, invert

FOCAL = 500.0  # pixels, whatever the size of the image
TURN = 30.0  # degrees of a pan or an orbit
MOVES = {  # movement -> (shift of the world along x left and z forward, turn in units of TURN, about a point ahead?)
    "push_in": (0.0, -1.0, 0, False),
    "pull_out": (0.0, 1.0, 0, False),
    "move_left": (-0.5, 0.0, 0, False),
    "move_right": (0.5, 0.0, 0, False),
    "pan_left": (0.0, 0.0, 1, False),
    "pan_right": (0.0, 0.0, -1, False),
    "orbit_left": (0.0, 0.0, -1, True),
    "orbit_right": (0.0, 0.0, 1, True),
}
OFF = ("pull_left", "pull_right")  # are in the harness, and switched off there
BLENDER_FROM_P3D = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


def movement(name: str, speed: float = 1.0) -> Float64[Tensor, "4 4"]:
    """Where one movement takes the camera: `new_from_old`, in PyTorch3D's axes.

    Args:
        name: One of the eight.
        speed: The harness's `camera_speed`: the length of a push, twice that of a move, the radius of an orbit.

    Returns:
        The rigid transform.

    Raises:
        ValueError: If there is no such movement, or the harness has switched it off.
    """
    if name not in MOVES:
        reason = "is switched off in the harness" if name in OFF else "is no movement of the harness"
        raise ValueError(f"camera_path: {name!r} {reason}; it has {', '.join(MOVES)}, and fixed for dynamic items")
    left, ahead, turns, about = MOVES[name]
    angle = math.radians(TURN * turns)
    c, s = math.cos(angle), math.sin(angle)
    result = torch.eye(4, dtype=torch.float64)
    result[:3, :3] = torch.tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]], dtype=torch.float64)
    center = torch.tensor([0.0, 0.0, speed if about else 0.0], dtype=torch.float64)
    shift = torch.tensor([left * speed, 0.0, ahead * speed], dtype=torch.float64)
    result[:3, 3] = shift + center - result[:3, :3] @ center
    return result


def key_cameras(moves: Sequence[str], speed: float = 1.0) -> Float64[Tensor, "n 4 4"]:
    """World to camera, in PyTorch3D's axes, before the first movement and after each.

    Args:
        moves: The movements.
        speed: The harness's `camera_speed`.

    Returns:
        One more matrix than movements; the first is the identity.

    Raises:
        ValueError: See `movement`.
    """
    cameras = [torch.eye(4, dtype=torch.float64)]
    for name in moves:
        cameras.append(movement(name, speed) @ cameras[-1])
    return torch.stack(cameras)


def all_cameras(keys: Float64[Tensor, "n 4 4"], frames: int) -> Float64[Tensor, "f 4 4"]:
    """The cameras of all frames: rotation by slerp, translation of *world to camera* along a line.

    So the centre of a camera that orbits goes not along a circle.

    Args:
        keys: Cameras at the anchors, world to camera.
        frames: Frames per scene, both anchors included.

    Returns:
        `(n - 1) * (frames - 1) + 1` matrices.
    """
    amount = torch.arange(1, frames - 1, dtype=torch.float64) / (frames - 1)
    parts = [keys[:1]]
    for first, second in itertools.pairwise(keys):
        spread = lambda one: one.expand(len(amount), 4, 4)
        parts += [interpolate(spread(first), spread(second), amount), second[None]]
    return torch.cat(parts)


def camera_data(moves: Sequence[str], frames: int, speed: float = 1.0) -> dict:
    """What the harness writes into `camera_data.json`: camera to world, OpenGL cameras in a PyTorch3D world.

    Args:
        moves: The movements of a static item.
        frames: Frames per scene.
        speed: The harness's `camera_speed`.

    Returns:
        `focal_length`, `scale`, `cameras` (at the anchors) and `cameras_interp` (of every frame).

    Raises:
        ValueError: See `movement`.
    """
    keys = key_cameras(moves, speed)
    listed = lambda w2c: invert(BLENDER_FROM_P3D @ w2c).tolist()
    return {
        "focal_length": int(FOCAL),
        "scale": speed,
        "cameras": listed(keys),
        "cameras_interp": listed(all_cameras(keys, frames)),
    }


def to_cameras(
    matrices: Float64[Tensor, "f 4 4"],
    lens: tuple[float, float, float, float],
    height: int,
    width: int,
    scale: float = 1.0,
) -> Cameras:
    """The cameras of a `camera_data.json` in OpenCV's axes, the first at the origin.

    Args:
        matrices: Its `cameras_interp`.
        lens: fx, fy, cx, cy in pixels.
        height: Rows of the image.
        width: Columns of the image.
        scale: World units of the model per unit of the file.

    Returns:
        One camera per frame; the first pose is the identity, exactly.

    Raises:
        ValueError: If a matrix is not a pose.
    """
    world_from_cam = matrices @ OPENGL_FROM_OPENCV
    first_from_cam = invert(world_from_cam[:1]) @ world_from_cam
    first_from_cam[:, :3, 3] *= scale
    poses = invert(first_from_cam).float()
    poses[0] = torch.eye(4)
    intrinsics = pinhole(lens).expand(len(poses), 3, 3).clone()
    cameras = Cameras(intrinsics, poses, height, width)
    cameras.validate()
    return cameras


def pinhole(lens: tuple[float, float, float, float]) -> Float32[Tensor, "3 3"]:
    """The matrix of fx, fy, cx, cy.

    Args:
        lens: In pixels.

    Returns:
        The intrinsics.
    """
    fx, fy, cx, cy = lens
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def held(frames: int) -> Float64[Tensor, "f 4 4"]:
    """The cameras of a dynamic item in the convention of `cameras_interp`: the first, held.

    Args:
        frames: Frames of the item.

    Returns:
        The same matrix for each.
    """
    return invert(BLENDER_FROM_P3D).expand(frames, 4, 4).clone()
