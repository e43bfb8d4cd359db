"""Recall: which past frames saw what the target views see."""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from mirage.camera.cameras import Cameras


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

        The paper's reference choice is the overlap of occupied 0.1 m voxels (IoU >= 0.04); a share of the
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
        ValueError: If cameras and depth are not of as many frames, or `k` is not positive.

    Gradient:
        None.

    Cost:
        O(f * n) time and memory; one host sync.

    Example:
        The first of two frames looks at the point, the second looks away.

        >>> pose = torch.eye(4).repeat(2, 1, 1)
        >>> pose[1, 0, 0] = pose[1, 2, 2] = -1.0
        >>> K = torch.tensor([[[4.0, 0.0, 2.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]]]).repeat(2, 1, 1)
        >>> recall(torch.tensor([[0.0, 0.0, 2.0]]), Cameras(K, pose, 2, 4), torch.full((2, 1, 2), 2.0))
        (tensor([0]), tensor([1.]))
    """
    if len(cameras) != len(depth) or k < 1:
        raise ValueError(
            f"cameras and depth must be of as many frames and k positive, got {len(cameras)}, {len(depth)} and {k=}"
        )
    if not len(points) or not len(depth):
        return torch.zeros(0, dtype=torch.int64, device=depth.device), torch.zeros(0, device=depth.device)
    height, width = depth.shape[1:]
    place, z = cameras.resize(height, width).project(points)
    x, y = place.nan_to_num(-1.0, -1.0, -1.0).clamp(-1, max(height, width)).floor().long().unbind(-1)
    inside = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    frame = torch.arange(len(depth), device=depth.device)[:, None]
    known = depth[frame, y.clamp(0, height - 1), x.clamp(0, width - 1)]
    seen = inside & (known > 0) & ((z - known).abs() <= tolerance * known)
    score = seen.float().mean(1)
    order = torch.sort(score, descending=True, stable=True)[1][:k]
    order = order[score[order] >= threshold]
    return order, score[order]
