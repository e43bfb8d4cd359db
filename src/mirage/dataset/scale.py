"""The unit of a path whose scale nobody knows, found by the depth of what it passes."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras

STEPS = 3  # factors tried per doubling, at first
RANGE = 5  # doublings to either side of the first guess
FINE = 4  # times as many round the best
LEAST = 0.25  # share of a view that must be in sight of another to compare them
GAIN = 0.98  # how much better than standing still the best factor must be


def fit_scale(pictures: UInt8[Tensor, "t 3 y x"], depth: Float32[Tensor, "t y x"], cameras: Cameras) -> float:
    """The factor on the translations of cameras with which pictures warped by their depth agree best.

    Structure from motion gives paths in an arbitrary unit, an estimator gives depth in its own: a memory needs both in
    one. Each factor is tried on pairs of frames some time apart; the one with the least difference of colours counts.

    Args:
        pictures: Frames, 0 to 255.
        depth: Their z-depth, in the unit that is wanted; 0 = unknown.
        cameras: Their cameras, translations in any unit.

    Returns:
        The factor; 1 if the path does not move enough to tell.

    Example:
        >>> still = Cameras.from_fov(1.0, 8, 8, frames=2)
        >>> fit_scale(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, 8, 8), still)
        1.0
    """
    colour = pictures.float()
    last = len(pictures) - 1
    pairs = [(i, min(last, i + gap)) for gap in {max(1, last // 4), max(1, last // 2)} for i in range(0, last, gap)]
    moves = torch.tensor([float((cameras.centers[a] - cameras.centers[b]).norm()) for a, b in pairs])
    typical = float(depth[depth > 0].median()) if bool((depth > 0).any()) else 0.0
    if not pairs or float(moves.max()) == 0 or typical == 0:
        return 1.0
    middle = 0.1 * typical / float(moves.median().clamp(min=float(moves.max()) / 10))
    error = lambda factor: _error(colour, depth, cameras, pairs, factor)
    factors = [middle * 2 ** (k / STEPS) for k in range(-RANGE * STEPS, RANGE * STEPS + 1)]
    best = min(factors, key=error)
    around = [best * 2 ** (k / STEPS / FINE) for k in range(-FINE, FINE + 1)]
    errors = [error(factor) for factor in around]
    at = min(range(len(around)), key=lambda i: errors[i])
    if not errors[at] < GAIN * error(0.0):
        return 1.0
    if 0 < at < len(around) - 1:  # the lowest point of a parabola through it and its neighbours
        left, here, right = errors[at - 1 : at + 2]
        curve = left - 2 * here + right
        return around[at] * 2 ** ((0.5 * (left - right) / curve if curve > 0 else 0.0) / STEPS / FINE)
    return around[at]


def _error(
    colour: Float32[Tensor, "t 3 y x"],
    depth: Float32[Tensor, "t y x"],
    cameras: Cameras,
    pairs: list[tuple[int, int]],
    factor: float,
) -> float:
    """Mean over pairs of the difference between a frame and another one warped into it."""
    found = []
    for a, b in pairs:
        pose = cameras.cam_from_world.clone()
        pose[:, :3, 3] *= factor
        moved = Cameras(cameras.intrinsics, pose, cameras.height, cameras.width)
        warped, seen = warp(colour[a], depth[b], moved[b], moved[a])
        share = float(seen.float().mean())
        off = (warped - colour[b]).abs().mean(0)
        found.append(float(off[seen].clamp(max=64).mean()) if share > LEAST else 64.0)
    return sum(found) / len(found)


def warp(
    picture: Float32[Tensor, "c i j"], depth: Float32[Tensor, "y x"], camera: Cameras, other: Cameras
) -> tuple[Float32[Tensor, "c y x"], Bool[Tensor, "y x"]]:
    """What a camera would see, taken from the picture of another.

    Args:
        picture: What the other camera sees.
        depth: z-depth of what this camera sees, 0 = unknown.
        camera: This camera.
        other: The other one.

    Returns:
        The picture of this camera, and where its points lie inside the other picture.

    Example:
        >>> camera = Cameras.from_fov(1.0, 2, 3)
        >>> picture = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]])
        >>> warp(picture, torch.ones(2, 3), camera, camera)[0].round().tolist()
        [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]
    """
    xy, z = other.project(camera.unproject(depth[None]).reshape(-1, 3))
    xy, z = xy[0].view(*depth.shape, 2), z[0].view(depth.shape)
    size = torch.tensor([other.width, other.height])
    inside = (depth > 0) & (z > 0) & (xy >= 0).all(-1) & (xy <= size).all(-1)
    where = torch.where(inside[..., None], 2 * xy / size - 1, 2.0)
    got = F.grid_sample(picture[None], where[None], mode="bilinear", padding_mode="border", align_corners=False)
    return got[0], inside
