"""Recall: which past frames saw what the target views see."""

import math
from numbers import Real
from typing import no_type_check

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory.memory import check_cameras, check_tensor

POINTS = 1024  # points that are looked at: evenly spread ones, if there are more
PAIRS_AT_ONCE = 1 << 16  # frames x points compared in one go


@no_type_check  # malformed arguments get a ValueError with a way out
def recall(
    points: Float32[Tensor, "n 3"],
    cameras: Cameras,
    depth: Float32[Tensor, "f h w"],
    *,
    k: int = 4,
    threshold: float = 0.04,
    tolerance: float = 0.1,
) -> tuple[Int64[Tensor, " m"], Float32[Tensor, " m"]]:
    r"""Choose the past frames that saw the largest share of some points, best first.

    The points are what the memory shows in the target views; the frames become the reference frames of the
    denoiser. Occlusion counts: a frame has seen a point only if its own depth there agrees. No points, no frames.

    Equation:
        .. math:: score_f = \frac1n \sum_n [\,|z_{fn} / D_f(\pi_f(p_n)) - 1| \le tolerance\,]

        over 1024 of the points at most, spread evenly over their order: then a score is off by 0.02 or so. The
        paper's reference choice is the overlap of occupied 0.1 m voxels (IoU >= 0.04); a share of the
        target's points needs no voxel size and no scale of the world, and sees through no walls.

    Convention:
        Depth is z, 0 = unknown; the depth maps may be of any resolution.

    Args:
        points: World points that the target views see, in world units.
        cameras: Cameras of the past frames.
        depth: Depth of the past frames, in world units.
        k: Most frames to choose.
        threshold: Least score of a chosen frame.
        tolerance: Relative difference of depth within which a frame has seen a point.

    Returns:
        Indices of at most `k` frames by falling score, of equal scores the earlier first; and their scores.

    Raises:
        ValueError: If shapes, counts, devices or values do not fit; the message names the argument.

    Gradient:
        None.

    Cost:
        O(f * min(n, 1024)) time, bounded memory; besides, one look at all points and depths and a few host syncs for
        the checks. `mirage bench memory --parts speed` times it.

    Example:
        The first of two frames looks at the point, the second looks away.

        >>> pose = torch.eye(4).repeat(2, 1, 1)
        >>> pose[1, 0, 0] = pose[1, 2, 2] = -1.0
        >>> K = torch.tensor([[[4.0, 0.0, 2.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]]]).repeat(2, 1, 1)
        >>> recall(torch.tensor([[0.0, 0.0, 2.0]]), Cameras(K, pose, 2, 4), torch.full((2, 1, 2), 2.0))
        (tensor([0]), tensor([1.]))
    """
    _check(points, cameras, depth, k, threshold, tolerance)
    nothing = torch.zeros(0, dtype=torch.int64, device=depth.device), torch.zeros(0, device=depth.device)
    if not len(points) or not len(depth):
        return nothing
    if len(points) > POINTS:  # the jitter keeps off the rhythm of rows and columns
        nth = torch.arange(POINTS, dtype=torch.float64, device=points.device)
        points = points[((nth + (nth * 0.6180339887498949) % 1) * (len(points) / POINTS)).long()]
    height, width = depth.shape[1:]
    grid = cameras.resize(height, width)
    # In float64, relative to one of the points: far from the origin nothing is lost.
    pose, origin = grid.cam_from_world.double(), points[0].double()
    shift = pose[:, :3, :3] @ origin + pose[:, :3, 3]
    project = (grid.intrinsics.double() @ torch.cat([pose[:, :3, :3], shift[..., None]], -1)).float()
    local = torch.cat([(points.double() - origin).float(), torch.ones_like(points[:, :1], dtype=torch.float32)], -1)
    seen = lambda part: _seen(project[part], local, depth[part].float(), tolerance)
    frames = torch.arange(len(depth), device=depth.device).split(max(1, PAIRS_AT_ONCE // len(points)))
    score = torch.cat([seen(part) for part in frames])
    order = torch.sort(score, descending=True, stable=True)[1][:k]
    order = order[score[order] >= threshold]
    return order, score[order]


def _seen(
    project: Float32[Tensor, "f 3 4"], points: Float32[Tensor, "n 4"], depth: Float32[Tensor, "f h w"], tolerance: float
) -> Float32[Tensor, " f"]:
    """Share of the points that each frame has seen."""
    height, width = depth.shape[1:]
    x, y, z = (project @ points.T).unbind(1)
    front = z > 0
    inverse = 1 / torch.where(front, z, 1.0)
    x, y = x * inverse, y * inverse
    inside = front & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    cell = torch.where(inside, y.floor() * width + x.floor(), 0.0).long()
    known = depth.flatten(1).gather(1, cell)
    return (inside & (known > 0) & ((z - known).abs() <= tolerance * known)).float().mean(1)


@no_type_check  # malformed arguments get a ValueError with a way out
def _check(points: Tensor, cameras: Cameras, depth: Tensor, k: int, threshold: float, tolerance: float) -> None:
    check_cameras(cameras)
    for name, value in (("points", points), ("depth", depth)):
        check_tensor(name, value)
    if points.ndim != 2 or points.shape[1] != 3 or depth.ndim != 3 or not depth.shape[1] * depth.shape[2]:
        raise ValueError(
            f"points must be (n, 3) and depth (f, h, w), got {tuple(points.shape)} and {tuple(depth.shape)}"
        )
    if len(cameras) != len(depth):
        raise ValueError(f"cameras and depth must be of as many frames, got {len(cameras)} and {len(depth)}")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a positive whole number, got {k=}")
    numbers = isinstance(tolerance, Real) and isinstance(threshold, Real)
    if not numbers or not tolerance >= 0 or threshold != threshold:
        raise ValueError(f"tolerance must not be negative and threshold a number, got {tolerance} and {threshold}")
    for name, value in (("points", points), ("depth", depth)):
        if value.device != cameras.intrinsics.device:
            raise ValueError(f"{name} must be on {cameras.intrinsics.device} like the cameras, got {value.device}")
        low, high = (float(x) for x in value.detach().aminmax()) if value.numel() else (0.0, 0.0)  # NaN shows in both
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if low < 0:  # of depth, the last
        raise ValueError(f"depth must not be negative, got {low:.3g}: use 0 where it is unknown")
