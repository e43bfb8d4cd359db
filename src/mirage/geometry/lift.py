"""Lift (Eq. 4): one plane per latent cell from a depth map, and the points of the cell centres."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mirage.kernels import ops


@dataclass(frozen=True, kw_only=True)
class LiftedViews:
    """The geometry of the latent cells of a few views, each in its own image: no pose is needed to make it."""

    plane: Float32[Tensor, "v h w 3"]
    """Inverse depth at the cell's centre and its slopes per cell along x and y; zero where not `valid`."""
    valid: Bool[Tensor, "v h w"]
    """Cells that may be remembered: enough usable pixels."""
    edge: Bool[Tensor, "v h w"]
    """Cells that straddle a depth edge: their plane is that of the largest surface, their token is of both."""
    reach: Float32[Tensor, "v h w 4"]
    """How far the surface goes to the left, right, top and bottom of the cell's centre, in cells."""

    @property
    def depth(self) -> Float32[Tensor, "v h w"]:
        """Depth at the cell centres, 0 where not valid."""
        return torch.where(self.valid, 1 / self.plane[..., 0].clamp(min=1e-30), 0.0)


def lift(
    depth: Float32[Tensor, "v H W"],
    height: int,
    width: int,
    *,
    keep: Bool[Tensor, "v H W"] | None = None,
    min_usable: float = 0.5,
) -> LiftedViews:
    """Give each latent cell of each view the plane of what it shows.

    A cell is valid if enough of its pixels have a known depth and may be kept; cells of movers, sky and unknown depth
    are not lifted, and none of their pixels touches the others. A depth map that is as coarse as the cells will do.

    Equation:
        Eq. 4 of arXiv:2606.09828 with cell centres at +0.5 (Eq. 8). Departs from it in lifting planes instead of
        points, and in pooling the depth of usable pixels of one surface only; see `lift_planes`.

    Convention:
        Depth is z, 0 = unknown; `keep` is False on what must not be remembered.

    Args:
        depth: Depth maps, in world units.
        height: Rows of the cell grid.
        width: Columns of the cell grid.
        keep: Pixels that may be remembered; all if None.
        min_usable: Least share of usable pixels in a cell.

    Returns:
        The planes, their validity, edges and neighbourhood.

    Raises:
        ValueError: If `min_usable` is outside (0, 1].

    Gradient:
        None.

    Cost:
        O(v * H * W) time.

    Example:
        >>> depth = torch.full((1, 4, 8), 2.0)
        >>> depth[:, :, 4:7] = 0.0
        >>> lift(depth, 1, 2).depth.tolist()
        [[[2.0, 0.0]]]
    """
    if not 0 < min_usable <= 1:
        raise ValueError(f"min_usable must be in (0, 1], got {min_usable}")
    usable = depth > 0 if keep is None else (depth > 0) & keep
    plane, count, edge, reach = ops.lift_planes(depth.detach(), usable, height, width)
    pixels = depth.shape[1] * depth.shape[2] / (height * width)
    valid = (count >= min_usable * pixels) & (plane[..., 0] > 0)
    return LiftedViews(plane=torch.where(valid[..., None], plane, 0.0), valid=valid, edge=edge & valid, reach=reach)
