"""How new views enter a memory: aligned in depth, what is new or seen better, within a budget (Eq. 6, filtered)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float64, Int8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.lift import LiftedViews
from mirage.geometry.scale import DepthAlignment, align_depth
from mirage.memory.forget import superseded, to_fit
from mirage.memory.memory import UpdateReport
from mirage.memory.store import Hits, Surfels, moved, stretch

AGREE = 0.1  # relative depth difference up to which two surfaces are one
FRONT = 0.05  # relative depth difference beyond which the nearer of two surfaces hides the other in a read
COARSE = 1.5  # an element whose image is larger than this many cells is worth refining
PATIENCE = 3  # updates in a row that must see through an element before it is retired
VIEWS_AT_ONCE = 8  # views between two looks at the budget
COUNTS = ("new", "refined", "explained", "rejected", "invalid", "written", "retired", "evicted")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What came of a merge."""

    surfels: Surfels
    """The elements, old and new."""
    report: UpdateReport
    """What became of the cells."""


def merge(
    surfels: Surfels,
    features: Float[Tensor, "v c h w"],
    lifted: LiftedViews,
    cameras: Cameras,
    name: int,
    *,
    budget_bytes: int | None = None,
) -> Merged:
    """Add to the elements what is new in these views, and take away what they contradict or make superfluous.

    Depth is first aligned to the elements over all views at once. Then view by view, so that they do not repeat each
    other, and those first that show most of what is not known (one wide strip has less of a seam than eight narrow
    ones), a cell is

    - *rejected* if it lies behind the surface that the elements show there, in space that a remembered view has
      seen through (movers, wrong depth), or where it would hide what the first view shows of its own picture;
    - *explained* if they show a surface there within 10 % of its depth, or have one on record in a source view, at
      equal or finer resolution (up to a factor of 1.5; the first view's counts at any);
    - *refined* if they show it only coarser: the cell is closer, sharper or more frontal (a view from the place of a
      source view refines nothing any more);
    - else *new*.

    New and refined cells are written, with the explained cells beside them that are of the same surface: they close the
    seam, on which a read finds cells of one view to either side. So the same views, again and again, add nothing.
    Elements other than the first view's are retired

    - when an update makes them superfluous: all that is read from them shows finer elements now (`superseded`);
    - when three updates in a row see through them and none confirms them: one wrong depth map takes nothing away. A
      view that contradicts more than half of what it sees of the memory has no say.

    Over the budget elements go by the rule of `to_fit`.

    Equation:
        Eq. 6 of arXiv:2606.09828, which writes every valid cell; departs from it in writing only what is not known.

    Convention:
        See docs/conventions.md.

    Args:
        surfels: What is known; left as it is.
        features: Latents of the new views.
        lifted: Geometry of the new views.
        cameras: Cameras of the new views, on the grid of cells.
        name: Serial number of the first of them.
        budget_bytes: Bound on the bytes of the result; no bound if None. It must hold the first view.

    Returns:
        The elements and the report.

    Gradient:
        Flows to the features that are written.

    Cost:
        One read of geometry for all views, one of what is written so far per view, one of up to 16 source views if
        something was refined; O(s * m) for the m unexplained cells and s source views. Eight views at a time are
        worked on: beside the elements before and after (each within the budget) there are, for a while, the cells of
        eight views and one copy of the geometry without features; after a retirement by sight one more copy of all.

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
    if not len(features):
        return Merged(surfels=surfels, report=UpdateReport())
    groups = [slice(v, v + VIEWS_AT_ONCE) for v in range(0, len(features), VIEWS_AT_ONCE)]
    origin = cameras.cam_from_world[0].double()  # positions are told from here: far from the world's they stay exact
    origin = -origin[:3, :3].mT @ origin[:3, 3]
    hits = [surfels.about(origin).render(_about(cameras[group], origin)) for group in groups]
    fit = align_depth(lifted.depth, torch.cat([h.depth for h in hits]))
    lifted, known, reports = _aligned(lifted, fit), surfels, []
    for group, seen in zip(groups, hits, strict=True):
        views = (features[group], _of(lifted, group), cameras[group], name + group.start, origin)
        known, report = _merge_some(known, *views, seen if known is surfels else None, budget_bytes)
        reports.append(report)
    counts = {key: sum(getattr(report, key) for report in reports) for key in COUNTS}
    fitted = {"scale": fit.scale, "shift": fit.shift, "residual": fit.residual, "covisible": fit.cells}
    return Merged(surfels=known, report=UpdateReport(**counts, **fitted))


def append(
    surfels: Surfels,
    features: Float[Tensor, "v c h w"],
    lifted: LiftedViews,
    cameras: Cameras,
    name: int,
    *,
    budget_bytes: int | None = None,
) -> Merged:
    """Add to the elements all valid cells of these views, known or not: the paper's update.

    Equation:
        Eq. 6 of arXiv:2606.09828.

    Convention:
        See docs/conventions.md.

    Args:
        surfels: What is known; left as it is.
        features: Latents of the new views.
        lifted: Geometry of the new views.
        cameras: Cameras of the new views, on the grid of cells.
        name: Serial number of the first of them.
        budget_bytes: Bound on the bytes of the result; no bound if None. It must hold the first view.

    Returns:
        The elements and the report.

    Gradient:
        Flows to the features.

    Cost:
        One copy of the elements.

    Example:
        The same view twice takes twice the room.

        >>> from mirage.geometry.lift import lift
        >>> lifted, latents = lift(torch.full((1, 2, 3), 2.0), 2, 3), torch.zeros(1, 4, 2, 3)
        >>> camera = Cameras(torch.tensor([[[2.0, 0, 1.5], [0, 2, 1], [0, 0, 1]]]), torch.eye(4)[None], 2, 3)
        >>> once = append(Surfels.empty(latents), latents, lifted, camera, 0)
        >>> len(append(once.surfels, latents, lifted, camera, 1).surfels)
        12
    """
    groups = [slice(v, v + VIEWS_AT_ONCE) for v in range(0, len(features), VIEWS_AT_ONCE)]
    written, evicted = 0, 0
    for group in groups:
        views = (features[group], _of(lifted, group), cameras[group], lifted.valid[group], name + group.start)
        pending = Surfels.of_views(*views)
        keep = torch.ones(len(surfels) + len(pending), dtype=torch.bool, device=pending.cell.device)
        keep = _within(surfels, pending, keep, None, cameras[group][-1], budget_bytes)
        surfels, written, evicted = surfels.joined(pending, keep), written + len(pending), evicted + int((~keep).sum())
    report = UpdateReport(new=written, written=written, invalid=int((~lifted.valid).sum()), evicted=evicted)
    return Merged(surfels=surfels, report=report)


def _within(
    surfels: Surfels,
    pending: Surfels,
    keep: Bool[Tensor, " m"],
    hits: Hits | None,
    camera: Cameras,
    budget_bytes: int | None,
) -> Bool[Tensor, " m"]:
    """Which of the elements, old and new, stay within the budget."""
    if budget_bytes is None:
        return keep
    in_sight = torch.arange(len(keep), device=keep.device) >= len(surfels)
    if hits is not None:
        in_sight.index_fill_(0, hits.index[hits.index >= 0], True)
    both = surfels.bare.joined(pending.bare)
    return to_fit(both, keep, in_sight, camera, budget_bytes, surfels.element_bytes, surfels.view_bytes)


def _merge_some(
    surfels: Surfels,
    features: Float[Tensor, "v c h w"],
    lifted: LiftedViews,
    cameras: Cameras,
    name: int,
    origin: Float64[Tensor, "3"],
    hits: Hits | None,
    budget_bytes: int | None,
) -> tuple[Surfels, UpdateReport]:
    """`merge` for a few views of aligned depth, whose `hits` may be known."""
    near, local = _about(cameras, origin), surfels.about(origin)
    hits = local.render(near) if hits is None else hits
    before, doubt = len(surfels), _doubt(local, hits, lifted, near)
    if not torch.equal(doubt, surfels.doubt):
        surfels = replace(surfels, doubt=doubt)
        if bool((doubt >= PATIENCE).any()):
            surfels = surfels.take((doubt < PATIENCE).nonzero()[:, 0])
            hits = surfels.about(origin).render(near)
        local = surfels.about(origin)
    retired = before - len(surfels)

    # What is written: only what this call has written so far is looked at anew for each view.
    pending, fates = Surfels.empty(surfels.features.new_zeros(0, *features.shape[1:])), {}
    for view in _by_news(local, hits, lifted):
        one = slice(view, view + 1)
        chosen, fate = _choose(local, hits[view], pending.about(origin), _of(lifted, one), near[view])
        if bool(chosen.any()):
            written = Surfels.of_views(features[one], _of(lifted, one), cameras[view], chosen, name + view)
            pending = pending.joined(written)
        fates[view] = fate
    fate = _Fate(**{key: torch.cat([getattr(fates[v], key) for v in sorted(fates)]) for key in vars(fate)})

    # What goes: the coarse behind the fine, then what is least useful.
    keep = torch.ones(len(surfels) + len(pending), dtype=torch.bool, device=surfels.cell.device)
    coarse = hits.index[fate.refined & (hits.index >= 0)]
    if len(coarse):
        both = local.bare.joined(pending.about(origin).bare)
        keep = ~superseded(both, both.source[coarse], tolerance=AGREE)
    stay = _within(surfels, pending, keep, hits, cameras[-1], budget_bytes)
    retired, evicted = retired + int((~keep).sum()), int((keep & ~stay).sum())
    if len(pending) or not bool(stay.all()):
        surfels = surfels.joined(pending, stay)
    counts = {key: int(getattr(fate, key).sum()) for key in vars(fate)} | {"invalid": int((~lifted.valid).sum())}
    return surfels, UpdateReport(**counts, written=len(pending), retired=retired, evicted=evicted)


def _by_news(surfels: Surfels, hits: Hits, lifted: LiftedViews) -> list[int]:
    """The views in the order in which they are written: first those that show most of what is not known."""
    known = _known(surfels, hits, lifted)[1].flatten(1).sum(1)
    return (lifted.valid.flatten(1).sum(1) - known).sort(descending=True, stable=True)[1].tolist()


def _known(
    surfels: Surfels, hits: Hits, lifted: LiftedViews
) -> tuple[Bool[Tensor, "v h w"], Bool[Tensor, "v h w"], Float[Tensor, "v h w"]]:
    """Cells at whose depth there are elements, those of them where they are fine enough; and the elements' depth."""
    surface = torch.where(hits.index >= 0, hits.depth, torch.inf)
    agrees = (lifted.depth <= surface * (1 + AGREE)) & (surface <= lifted.depth * (1 + AGREE))
    return agrees, agrees & (surfels.shows_first(hits.index) | (hits.size <= COARSE)), surface


@dataclass(frozen=True, kw_only=True)
class _Fate:
    """What becomes of the valid cells of some views."""

    new: Bool[Tensor, "v h w"]
    refined: Bool[Tensor, "v h w"]
    explained: Bool[Tensor, "v h w"]
    rejected: Bool[Tensor, "v h w"]


def _choose(
    surfels: Surfels, hits: Hits, pending: Surfels, lifted: LiftedViews, camera: Cameras
) -> tuple[Bool[Tensor, "1 h w"], _Fate]:
    """The cells of one view to be written, and the fate of all."""
    depth, valid = lifted.depth, lifted.valid
    front = torch.full_like(depth, torch.inf)
    explained, fine = torch.zeros_like(valid), torch.zeros_like(valid)
    for known, seen in ((surfels, hits), (pending, pending.render(camera) if len(pending) else None)):
        if seen is None or not len(known):
            continue
        agrees, enough, surface = _known(known, seen, lifted)
        explained, fine, front = explained | agrees, fine | enough, torch.minimum(front, surface)
    rejected = valid & (depth > front * (1 + AGREE))
    explained &= valid & ~rejected
    refined, new = explained & ~fine, valid & ~explained & ~rejected
    if bool(refined.any()) and bool(surfels.at(camera, depth) | pending.at(camera, depth)):
        refined = torch.zeros_like(refined)  # what this place can show has been written

    # What is on record although it is not shown, and what has been seen through.
    points = camera.unproject(depth)
    for mask, coarse in ((refined, COARSE), (new, 0.0)):
        if bool(mask.any()):
            spacing = coarse * stretch(lifted.plane[mask], camera.intrinsics[0])
            held = sum(known.holds(points[mask], spacing, camera, AGREE) for known in (surfels, pending)) > 0
            explained[mask], mask[mask.clone()] = explained[mask] | held, ~held
    if bool(new.any()):
        through = sum(known.in_free_space(points[new], AGREE) for known in (surfels, pending)) > 0
        rejected[new], new[new.clone()] = through, ~through

    write = new | refined
    ring = lambda mask: _beside(mask, lifted) & explained & ~refined
    seam = ring(write)
    if bool(seam.any()):  # unless it has been written from this place
        spacing = torch.zeros_like(points[seam][:, 0])
        seam[seam.clone()] = sum(known.holds(points[seam], spacing, camera, AGREE) for known in (surfels, pending)) == 0
    hides = _hiding(surfels, lifted, camera, write | seam)
    chosen, lost = write & ~hides, write & hides
    chosen |= ring(chosen) & seam & ~hides
    fate = _Fate(new=new & ~lost, refined=refined & ~lost, explained=explained & ~refined, rejected=rejected | lost)
    return chosen, fate


def _beside(mask: Bool[Tensor, "1 h w"], lifted: LiftedViews) -> Bool[Tensor, "1 h w"]:
    """Cells next to those of the mask, and on one surface with them: either plane foretells the other's depth."""
    height, width = mask.shape[1:]
    around = torch.nn.functional.pad(torch.cat([lifted.plane, mask[..., None]], -1), (0, 0, 1, 1, 1, 1))
    mine, out = lifted.plane, torch.zeros_like(mask)
    foretells = lambda a, b, x, y: (a[..., 0] + a[..., 1] * x + a[..., 2] * y - b[..., 0]).abs() <= AGREE * b[..., 0]
    for y, x in ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)):
        other = around[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
        out |= (other[..., 3] > 0) & (foretells(mine, other, x, y) | foretells(other, mine, -x, -y))
    return out


def _hiding(
    surfels: Surfels, lifted: LiftedViews, camera: Cameras, chosen: Bool[Tensor, "1 h w"]
) -> Bool[Tensor, "1 h w"]:
    """The chosen cells of one view that would hide what the first view shows of its own picture."""
    first, hides = (surfels.name == 0).nonzero()[:, 0], torch.zeros_like(chosen)
    if not len(first):
        return hides
    height, width = surfels.grid
    place = Cameras(surfels.intrinsics[first], surfels.cam_from_world[first], height, width)
    element = surfels.lookup[first].long()
    given = torch.where(element >= 0, 1 / surfels.plane[element.clamp(min=0), 0], 0.0)
    nothing = surfels.features.new_zeros(1, 0, height, width)
    while bool(chosen.any()):
        written = Surfels.of_views(nothing, lifted, camera, chosen & ~hides, 1)
        if not len(written):
            break
        hits = written.render(place)
        before = (hits.index >= 0) & (hits.depth * (1 + FRONT) < given)
        if not bool(before.any()):
            break
        hides.view(-1)[written.cell[hits.index[before]].long()] = True
    return hides


def _doubt(surfels: Surfels, hits: Hits, lifted: LiftedViews, cameras: Cameras) -> Int8[Tensor, " n"]:
    """How many updates in a row have seen through each element, after one more."""
    seen = lifted.valid & (hits.index >= 0)
    behind = seen & (lifted.depth > hits.depth * (1 + AGREE))
    if not bool(behind.any() | (surfels.doubt > 0).any()):
        return surfels.doubt
    believed = lifted.valid & (behind.sum((1, 2)) * 2 <= seen.sum((1, 2)))[:, None, None]
    nothing, points = surfels.features.new_zeros(len(cameras), 0, *believed.shape[1:]), surfels.points
    views = [Surfels.of_views(nothing, lifted, cameras, chosen, 1) for chosen in (believed, lifted.valid)]
    doubt = surfels.doubt + (views[0].in_free_space(points, AGREE) & ~surfels.observed)
    doubted = doubt.nonzero()[:, 0]
    anyhow = torch.full_like(points[doubted, 0], torch.inf)
    confirmed = views[1].holds(points[doubted], anyhow, cameras[0], AGREE)
    return doubt.to(torch.int8).index_fill(0, doubted[confirmed], 0)


def _about(cameras: Cameras, origin: Float64[Tensor, "3"]) -> Cameras:
    return replace(cameras, cam_from_world=moved(cameras.cam_from_world, origin))


def _of(lifted: LiftedViews, views: slice) -> LiftedViews:
    return LiftedViews(**{key: value[views] for key, value in vars(lifted).items()})


def _aligned(lifted: LiftedViews, fit: DepthAlignment) -> LiftedViews:
    """The same cells with aligned depth: planes stay planes under an affine map of inverse depth."""
    plane = lifted.plane / fit.scale
    plane[..., 0] += fit.shift
    slope = plane[..., 1:].abs().sum(-1)
    valid = lifted.valid & (plane[..., 0] > slope) & (plane[..., 0] > 0)
    return replace(lifted, plane=torch.where(valid[..., None], plane, 0.0), valid=valid, edge=lifted.edge & valid)
