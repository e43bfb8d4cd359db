"""What a memory can do without: coarse elements behind finer ones, and over the budget the least useful."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory.store import Surfels

SUSPECTS = 16  # source views that are looked at after an update
ALIKE = 1.42  # an element is no finer than another if its image is larger than this many half cells of the other


def superseded(surfels: Surfels, sources: Int[Tensor, " m"], *, tolerance: float) -> Bool[Tensor, " n"]:
    """Find the elements of some source views that nothing is read from any more, since finer elements are in front.

    Each view is read at twice its resolution. An element goes if all four quarters of its cell show other views'
    elements, of the same surface and finer, and none of the quarters beside it shows an element of its own view: then
    it is neither shown nor needed between cells. Elements of the first view stay.

    Convention:
        See docs/conventions.md.

    Args:
        surfels: The elements; only their geometry is looked at.
        sources: Source view of each coarse element that was found; the 16 views with most of them are looked at.
        tolerance: Relative depth difference within which two surfaces are one.

    Returns:
        True where an element can go.

    Gradient:
        None.

    Cost:
        One read of up to 16 views at four times the cells.

    Example:
        A wall is seen from afar by four cells, then each quarter of these cells is seen from near.

        >>> from mirage.geometry.lift import lift
        >>> K, pose = torch.tensor([[[2.0, 0.0, 4.0], [0.0, 2.0, 2.0], [0.0, 0.0, 1.0]]]), torch.eye(4)[None]
        >>> far, near = Cameras(K, pose, 4, 8), Cameras(K, pose.clone(), 4, 8)
        >>> near.cam_from_world[:, 2, 3] = -3.0  # three quarters of the way to the wall
        >>> of = lambda camera, depth, chosen, name: Surfels.of_views(
        ...     torch.zeros(1, 1, 4, 8), lift(torch.full((1, 4, 8), depth), 4, 8), camera, chosen, name)
        >>> some = torch.zeros(1, 4, 8, dtype=torch.bool)
        >>> some[0, 1:3, 3:5] = True
        >>> both = of(far, 4.0, some, 1).joined(of(near, 1.0, torch.ones_like(some), 2))
        >>> superseded(both, both.source[:4], tolerance=0.1)[:4].tolist()
        [False, False, False, False]
    """
    out = torch.zeros(len(surfels), dtype=torch.bool, device=surfels.cell.device)
    votes = torch.bincount(sources.long(), minlength=len(surfels.name)) * (surfels.name != 0)
    views = votes.sort(descending=True, stable=True)[1][: min(SUSPECTS, int((votes > 0).sum()))]
    if not len(views):
        return out
    height, width = surfels.grid
    cameras = Cameras(surfels.intrinsics[views], surfels.cam_from_world[views], height, width)
    hits = surfels.render(cameras.resize(2 * height, 2 * width))
    found = hits.index.clamp(min=0)
    own = (hits.index >= 0) & (surfels.source[found] == views[:, None, None])

    # The plane of the cell in each of its quarters, against what is shown there.
    lookup = surfels.lookup[views]
    element = lookup.repeat_interleave(2, 1).repeat_interleave(2, 2).long()
    plane = surfels.plane[element.clamp(min=0)]
    quarter = torch.tensor([-0.25, 0.25], device=plane.device)
    x, y = quarter.repeat(width), quarter.repeat(height)[:, None]
    ratio = (plane[..., 0] + plane[..., 1] * x + plane[..., 2] * y) * hits.depth
    finer = (hits.index >= 0) & ~own & (ratio <= 1 + tolerance) & (ratio * (1 + tolerance) >= 1) & (hits.size <= ALIKE)
    beside = torch.nn.functional.max_pool2d(own.float(), 3, 1, 1) > 0
    done = -torch.nn.functional.max_pool2d(-(finer & ~beside).float(), 2)  # in all four quarters
    out[lookup[(done > 0) & (lookup >= 0)].long()] = True
    return out


def to_fit(
    surfels: Surfels,
    keep: Bool[Tensor, " n"],
    in_sight: Bool[Tensor, " n"],
    camera: Cameras,
    budget_bytes: int,
    element_bytes: int,
    view_bytes: int,
) -> Bool[Tensor, " n"]:
    """Choose the most useful elements that fit into a budget.

    The first view always stays. Of the others go, in this order and only as many as must: what was out of sight in
    this update before what was in sight; what was written far from where the camera is now before what was written
    near (in rings, each half as wide as the surfaces around are far); then the oldest views; then cells on depth edges;
    then cells from the bottom of their view upwards. A view whose last element goes is freed too.

    Convention:
        See docs/conventions.md.

    Args:
        surfels: The elements; only their geometry is looked at.
        keep: Elements that may stay.
        in_sight: Elements that the update has shown or written.
        camera: Where the camera is now.
        budget_bytes: Bound on the bytes of all that stays; holds the first view.
        element_bytes: Bytes of one element.
        view_bytes: Bytes of one source view.

    Returns:
        True where an element stays.

    Gradient:
        None.

    Cost:
        One sort of the elements if the budget is exceeded, no copy of them.

    Example:
        Room for three elements and one view: of two views the nearer one stays, as far as it fits.

        >>> from mirage.geometry.lift import lift
        >>> K, poses = torch.eye(3).repeat(2, 1, 1), torch.eye(4).repeat(2, 1, 1)
        >>> poses[1, 0, 3] = 5.0
        >>> cameras, lifted = Cameras(K, poses, 2, 2), lift(torch.ones(2, 2, 2), 2, 2)
        >>> two = Surfels.of_views(torch.zeros(2, 1, 2, 2), lifted, cameras, lifted.valid, 1)
        >>> to_fit(two, two.edge | True, two.edge & False, cameras[1], 3 * 25 + 140, 25, 140).tolist()
        [False, False, False, False, True, True, True, False]
    """
    used = torch.zeros_like(surfels.name, dtype=torch.bool).index_fill(0, surfels.source[keep].long(), True)
    if int(keep.sum()) * element_bytes + int(used.sum()) * view_bytes <= budget_bytes:
        return keep
    at = lambda pose: -(pose[:, :3, :3].mT @ pose[:, :3, 3:])[..., 0]
    away = (at(surfels.cam_from_world) - at(camera.cam_from_world)).norm(dim=-1)
    around = surfels.plane[in_sight if bool(in_sight.any()) else keep, 0].median()
    ring = (2 * away * around).clamp(max=1e6).floor()
    order = torch.sort(surfels.name, descending=True)[1]  # most useful views first: near, then new
    order = order[ring[order].sort(stable=True)[1]]
    place = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))

    area = surfels.grid[0] * surfels.grid[1]
    key = (place[surfels.source.long()] * 2 + surfels.edge) * area + surfels.cell
    last = 2 * len(order) * area
    key = torch.where(surfels.observed, -1, key + last * ~in_sight) + 2 * last * ~keep
    best = torch.sort(key, stable=True)[1]
    nth = torch.arange(1, len(best) + 1, device=best.device)
    source = surfels.source[best].long()
    first = torch.full_like(order, len(best)).scatter_reduce(0, source, nth - 1, "amin")
    views = torch.zeros_like(nth).index_add(0, first.clamp(max=len(best) - 1), torch.ones_like(first)).cumsum(0)
    fits = (nth * element_bytes + views * view_bytes <= budget_bytes) & keep[best]
    return torch.zeros_like(keep).index_fill(0, best[fits], True)
