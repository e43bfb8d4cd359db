"""How new views enter a memory: aligned in depth, and only what is new (Eq. 6, filtered)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.lift import LiftedViews
from mirage.geometry.scale import DepthAlignment, align_depth
from mirage.memory.memory import UpdateReport
from mirage.memory.store import Surfels

AGREE = 0.1  # relative depth difference up to which two surfaces are one
COARSE = 1.5  # an element whose image is larger than this many cells is worth refining


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What came of a merge."""

    surfels: Surfels
    """The elements, old and new."""
    report: UpdateReport
    """What became of the cells."""


def merge(
    surfels: Surfels, features: Float[Tensor, "v c h w"], lifted: LiftedViews, cameras: Cameras, name: int
) -> Merged:
    """Add to the elements what is new in these views.

    Depth is first aligned to the elements over all views at once. Then view by view, so that they do not repeat each
    other, a cell is *explained* if the elements show a surface there within 10 % of its depth (and, unless that
    is the first view's, not magnified more than 1.5 times: then it is *refined*); *rejected* if it lies behind the
    surface that they show there, or in space that a remembered view has seen through (movers, wrong depth); else
    *new*. New cells are written, with the ring of explained cells around them, which closes the seam.

    Equation:
        Eq. 6 of arXiv:2606.09828, which writes every valid cell; departs from it in writing only what is not known.

    Convention:
        See docs/conventions.md.

    Args:
        surfels: What is known.
        features: Latents of the new views.
        lifted: Geometry of the new views.
        cameras: Cameras of the new views, on the grid of cells.
        name: Serial number of the first of them.

    Returns:
        The elements and the report.

    Gradient:
        Flows to the features that are written.

    Cost:
        One read of geometry per view and one for all; O(s * m) for the m unexplained cells and s source views.

    Example:
        What is known already is not written again.

        >>> from mirage.geometry.lift import lift
        >>> lifted = lift(torch.full((1, 2, 3), 2.0), 2, 3)
        >>> camera = Cameras(torch.tensor([[[2.0, 0, 1.5], [0, 2, 1], [0, 0, 1]]]), torch.eye(4)[None], 2, 3)
        >>> latents = torch.zeros(1, 4, 2, 3)
        >>> once = merge(Surfels.empty(latents), latents, lifted, camera, 0)
        >>> twice = merge(once.surfels, latents, lifted, camera, 1)
        >>> len(once.surfels), len(twice.surfels), twice.report.explained
        (6, 6, 6)
    """
    fit = align_depth(lifted.depth, surfels.render(cameras).depth)
    lifted = _aligned(lifted, fit)
    before, total = len(surfels), torch.zeros(5, dtype=torch.int64)
    for view in range(len(features)):
        new, refined, explained, rejected = _classify(surfels, lifted, view, cameras[view])
        counts = [new, refined, explained, rejected, ~lifted.valid[view]]
        total += torch.stack([mask.sum() for mask in counts]).cpu()
        write = new | refined
        if write.any():
            seam = torch.nn.functional.max_pool2d(write[None].float(), 3, 1, 1)[0] > 0
            chosen = write | (seam & explained)
            surfels = surfels.append(features[view], lifted, view, cameras[view], chosen, name + view)
    report = UpdateReport(
        **dict(zip(("new", "refined", "explained", "rejected", "invalid"), total.tolist(), strict=True)),
        written=len(surfels) - before,
        scale=fit.scale,
        shift=fit.shift,
        residual=fit.residual,
        covisible=fit.cells,
    )
    return Merged(surfels=surfels, report=report)


def _aligned(lifted: LiftedViews, fit: DepthAlignment) -> LiftedViews:
    """The same cells with aligned depth: planes stay planes under an affine map of inverse depth."""
    plane = lifted.plane / fit.scale
    plane[..., 0] += fit.shift
    slope = plane[..., 1:].abs().sum(-1)
    valid = lifted.valid & (plane[..., 0] > slope) & (plane[..., 0] > 0)
    return replace(lifted, plane=torch.where(valid[..., None], plane, 0.0), valid=valid, edge=lifted.edge & valid)


def _classify(surfels: Surfels, lifted: LiftedViews, view: int, camera: Cameras) -> tuple[Tensor, ...]:
    """Masks of the valid cells of one view: new, refined, explained, rejected."""
    hits = surfels.render(camera)
    depth, valid, seen = lifted.depth[view], lifted.valid[view], hits.index[0] >= 0
    known = torch.where(seen, hits.depth[0], torch.inf)
    explained = valid & (depth <= known * (1 + AGREE)) & (known <= depth * (1 + AGREE))
    if len(surfels):
        given = surfels.observed[hits.index[0].clamp(min=0)]
        refined = explained & ~given & (hits.size[0] > COARSE)
    else:
        refined = torch.zeros_like(explained)
    rejected = valid & (depth > known * (1 + AGREE))
    new = valid & ~explained & ~rejected
    if len(surfels) and new.any():
        points = camera.unproject(depth[None])[0][new]
        through = torch.zeros_like(new)
        through[new] = surfels.in_free_space(points, AGREE)
        new, rejected = new & ~through, rejected | through
    return new, refined, explained & ~refined, rejected
