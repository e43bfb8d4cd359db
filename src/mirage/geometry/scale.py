"""Depth of a new chunk brought to the scale of the memory, so that the world does not drift from chunk to chunk."""

from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

CELLS = 4096  # cells that a fit looks at: evenly spread ones, if there are more


@dataclass(frozen=True, kw_only=True)
class DepthAlignment:
    """One affine map of inverse depth: aligned 1/z = 1/(scale * z) + shift."""

    scale: float = 1.0
    """Factor on depth; 1 if nothing had to be done or too little was co-visible to tell."""
    shift: float = 0.0
    """Added to inverse depth after scaling, per world unit."""
    residual: float = 0.0
    """Median relative disagreement of inverse depth that remains."""
    cells: int = 0
    """Co-visible cells that were compared."""


def align_depth(
    depth: Float32[Tensor, "v h w"], known: Float32[Tensor, "v h w"], *, min_cells: int = 16, believable: float = 0.1
) -> DepthAlignment:
    r"""Find the scale, and if the data ask for it the shift, that brings new depth onto known depth.

    Robust: the median of the ratios is refined by reweighted least squares, so movers and wrong cells do not pull. The
    identity is returned if it is as good (no drift by fitting noise), if fewer than `min_cells` cells are co-visible,
    or if half of them disagree by more than `believable` after the fit (they show different things). Without relief,
    as before a single wall, scale and shift cannot be told apart: then the scale alone is looked for.

    Equation:
        .. math:: 1 / z_{known} \approx 1 / (scale \cdot z) + shift

        minimised in relative inverse depth with Tukey's weights. The paper leaves the scale of each chunk floating.

    Convention:
        Depth is z, 0 = unknown.

    Args:
        depth: New depth at the cell centres, in the estimator's units.
        known: Depth of the memory in the same cells, in world units.
        min_cells: Least number of co-visible cells.
        believable: Largest median relative disagreement of a fit that is used.

    Returns:
        The alignment, with its residual and the number of cells.

    Raises:
        ValueError: If `min_cells` is less than 2.

    Gradient:
        None.

    Cost:
        O(v * h * w) time to find the co-visible cells; the fit looks at 4096 of them at most, on the CPU, after two
        host syncs.

    Example:
        >>> known = torch.linspace(1.0, 4.0, 24).reshape(1, 4, 6)
        >>> fit = align_depth(known / 1.25, known)
        >>> round(fit.scale, 4), round(fit.shift, 4), fit.cells
        (1.25, 0.0, 24)
    """
    if min_cells < 2:
        raise ValueError(f"min_cells must be at least 2, got {min_cells}")
    both = ((depth > 0) & (known > 0)).flatten().nonzero()[:, 0]
    cells = len(both)
    if cells < min_cells:
        return DepthAlignment(cells=cells)
    if cells > CELLS:  # the jitter keeps off the rhythm of rows and columns
        nth = torch.arange(CELLS, dtype=torch.float64, device=both.device)
        both = both[((nth + (nth * 0.6180339887498949) % 1) * (cells / CELLS)).long()]
    new, old = 1 / torch.stack([depth.flatten()[both], known.flatten()[both]]).double().cpu()
    error = lambda factor, shift: ((factor * new + shift - old) / old).abs()
    identity = error(1.0, 0.0).median().item()

    factor, shift = (old / new).median().item(), 0.0
    best = (error(factor, shift).median().item(), factor, shift)
    relief = lambda inverse: ((inverse - inverse.median()).abs().median() / inverse.median()).item()
    for fits_shift in (False, True) if min(relief(new), relief(old)) > 0.05 else (False,):
        factor, shift = best[1], 0.0
        for _ in range(10):
            residual = error(factor, shift)
            reach = 4.685 * 1.4826 * residual.median().clamp(min=1e-4)
            weight = (1 - (residual / reach) ** 2).clamp(min=0) ** 2 / old**2
            if fits_shift:
                total, sx, sy = weight.sum(), (weight * new).sum(), (weight * old).sum()
                sxx, sxy = (weight * new**2).sum(), (weight * new * old).sum()
                factor = ((total * sxy - sx * sy) / (total * sxx - sx**2)).item()
                shift = ((sy - factor * sx) / total).item()
            else:
                factor = ((weight * new * old).sum() / (weight * new**2).sum()).item()
        median = error(factor, shift).median().item()
        # A shift is believed only if it explains clearly more than a scale does, and does not explain all.
        small = abs(shift) < 0.5 * old.median().item()
        if factor > 0 and small and median < best[0] * (0.5 if fits_shift else 1.0):
            best = (median, factor, shift)
    if best[0] > believable or identity <= best[0] * 1.25 + 1e-3:
        return DepthAlignment(residual=identity, cells=cells)
    return DepthAlignment(scale=1 / best[1], shift=best[2], residual=best[0], cells=cells)
