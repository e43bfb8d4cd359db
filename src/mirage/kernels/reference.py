"""The memory's arithmetic in plain PyTorch: the specification, which runs everywhere. Contracts are in `ops`."""

import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

EMPTY = torch.iinfo(torch.int64).max
SLACK = 0.35  # overlap with the next cell of the same surface, in cells: closes the seam between two planes
FRINGE = 0.1  # cells beyond the last centre of a surface from which a sample counts as extrapolated
MINIMUM_FIT = 9  # pixels per cell from which a plane is fitted inside the cell
PAIRS_AT_ONCE = 1 << 21  # elements x views handled in one go


def nearest_index(
    points: Float32[Tensor, "n 3"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    near: float,
) -> Int64[Tensor, "v {height*width}"]:
    """See `splat_nearest`."""
    cam = torch.einsum("vij,nj->vni", cam_from_world[:, :3, :3], points) + cam_from_world[:, None, :3, 3]
    z = cam[..., 2].contiguous()
    front = z > near
    ray = cam / torch.where(front, z, 1.0)[..., None]
    u, v = torch.einsum("vij,vnj->ivn", intrinsics[:, :2], ray)
    inside = front & (u >= 0) & (u < width) & (v >= 0) & (v < height)  # before the cast: inf has no int

    # One 64-bit key orders by depth, then by index; positive floats order as their own bits.
    index = torch.arange(len(points), device=points.device)
    key = (z.view(torch.int32).long() << 32) | index
    cell = torch.where(inside, v.floor() * width + u.floor(), height * width).long()  # last bin: outside
    best = torch.full((len(intrinsics), height * width + 1), EMPTY, device=points.device)
    best = best.scatter_reduce(1, cell, key, "amin")[:, :-1]
    return torch.where(best == EMPTY, -1, best & 0xFFFF_FFFF)


def cell_planes(
    depth: Float32[Tensor, "v H W"], usable: Bool[Tensor, "v H W"], height: int, width: int, tolerance: float
) -> tuple[
    Float32[Tensor, "v {height} {width} 3"],
    Int64[Tensor, "v {height} {width}"],
    Bool[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width} 4"],
]:
    """See `lift_planes`."""
    rows, cols = depth.shape[1] // height, depth.shape[2] // width
    blocks = lambda x: x.unflatten(2, (width, cols)).unflatten(1, (height, rows)).transpose(2, 3).flatten(3)
    mask = blocks(usable)
    disparity = torch.where(mask, 1 / torch.where(mask, blocks(depth), 1.0), 0.0)
    count = mask.sum(-1)
    box = torch.full((*count.shape, 4), 0.5, device=depth.device)
    other, other_box = torch.zeros_like(box[..., :3]), torch.zeros_like(box)

    if rows * cols >= MINIMUM_FIT:
        y = ((torch.arange(rows, device=depth.device) + 0.5) / rows - 0.5).repeat_interleave(cols)
        x = ((torch.arange(cols, device=depth.device) + 0.5) / cols - 0.5).repeat(rows)
        basis = torch.stack([torch.ones_like(x), x, y], -1)
        plane, residual = _fit(basis, disparity, mask)
        edge = residual > tolerance * plane[..., 0].clamp(min=0)
        if edge.any():
            part = _largest_surface(disparity[edge], mask[edge], tolerance)
            plane[edge] = _fit(basis, disparity[edge], part)[0]
            rest = _largest_surface(disparity[edge], mask[edge] & ~part, tolerance)
            side = torch.stack([-x, x, -y, y], -1) + 0.5 / x.new_tensor([cols, cols, rows, rows])
            box[edge] = torch.where(part[..., None], side, -torch.inf).amax(-2).clamp(min=0.05)
            other_box[edge] = torch.where(rest[..., None], side, -torch.inf).amax(-2)
            weight = rest / rest.sum(-1, keepdim=True).clamp(min=1)
            other[edge] = torch.stack([(weight * value).sum(-1) for value in (disparity[edge], x, y)], -1)
    else:
        centre = disparity.masked_fill(~mask, torch.inf).sort(-1)[0]
        centre = centre.gather(-1, ((count - 1).clamp(min=0) // 2)[..., None])
        centre = torch.where(count[..., None] > 0, centre, 0.0)
        plane = torch.cat([centre, _slopes(centre[..., 0])], -1)
        spread = torch.where(mask, (disparity - centre).abs(), 0.0).amax(-1)
        edge = spread > tolerance * centre[..., 0] + plane[..., 1:].abs().sum(-1)

    # The plane stays in front of the camera over the whole reach of the cell.
    steep = plane[..., 1:].abs().sum(-1) / (0.8 * plane[..., 0]).clamp(min=1e-12)
    plane[..., 1:] /= steep.clamp(min=1)[..., None]
    valid = (plane[..., 0] > 0) & (count > 0)
    plane[~valid] = 0
    return plane, count, edge & valid, _reach(plane, valid, box, other, other_box, tolerance)


def _fit(
    basis: Float32[Tensor, "p 3"], disparity: Float32[Tensor, "*b p"], mask: Bool[Tensor, "*b p"]
) -> tuple[Float32[Tensor, "*b 3"], Float32[Tensor, "*b"]]:
    """Least squares disparity plane of the masked pixels of each cell, and its largest residual."""
    weight = mask.float()
    normal = (weight @ (basis[:, :, None] * basis[:, None]).flatten(1)).unflatten(-1, (3, 3))
    count = normal[..., 0, 0].clamp(min=1)
    ridge = basis.new_tensor([1e-12, 1e-4, 1e-4]).diag()
    normal = normal / count[..., None, None] + ridge
    mean = (weight * disparity).sum(-1) / count
    right = ((weight * (disparity - mean[..., None])) @ basis) / count[..., None]
    plane = torch.linalg.solve_ex(normal, right)[0] * (weight.sum(-1) > 0)[..., None]
    plane[..., 0] += mean
    residual = torch.where(mask, (disparity - plane @ basis.T).abs(), 0.0).amax(-1)
    low = disparity.masked_fill(~mask, torch.inf).amin(-1)
    high = disparity.masked_fill(~mask, -torch.inf).amax(-1)
    some = mask.any(-1)  # a surface seen beside the centre is not extrapolated beyond its own range
    plane[..., 0] = torch.where(some, plane[..., 0].clamp(torch.where(some, low, 0), torch.where(some, high, 0)), 0)
    return plane, residual


def _largest_surface(
    disparity: Float32[Tensor, "b p"], mask: Bool[Tensor, "b p"], tolerance: float
) -> Bool[Tensor, "b p"]:
    """The pixels of each cell on its largest surface: cut twice at the widest gap in depth; of equals the nearer."""
    for _ in range(2):
        order = torch.where(mask, disparity, torch.inf).sort(-1)[0]
        pair = mask.sum(-1, keepdim=True) > torch.arange(1, mask.shape[1], device=mask.device)
        gap = torch.where(pair, order[:, 1:] / order[:, :-1] - 1, 0.0)
        widest, place = gap.max(-1)
        nearer = disparity > order.gather(1, place[:, None])
        majority = torch.where(
            ((nearer & mask).sum(-1) * 2 >= mask.sum(-1))[:, None],
            nearer,
            ~nearer,
        )
        mask = mask & (majority | (widest <= tolerance)[:, None])
    return mask


def _slopes(disparity: Float32[Tensor, "v h w"]) -> Float32[Tensor, "v h w 2"]:
    """Slope per cell along x and y from the neighbour that differs least, zero where none is near in depth."""
    slopes = []
    for axis in (2, 1):
        step = disparity.diff(dim=axis)
        first, second = disparity.narrow(axis, 0, step.shape[axis]), disparity.narrow(axis, 1, step.shape[axis])
        near = (first > 0) & (second > 0) & (step.abs() < 0.5 * torch.minimum(first, second))
        step = torch.where(near, step, torch.inf)
        edge = torch.full_like(disparity.narrow(axis, 0, 1), torch.inf)
        before, after = torch.cat([edge, step], axis), torch.cat([step, edge], axis)
        least = torch.where(before.abs() < after.abs(), before, after)
        slopes.append(torch.where(least.isinf(), 0.0, least))
    return torch.stack(slopes, -1)


def _reach(
    plane: Float32[Tensor, "v h w 3"],
    valid: Bool[Tensor, "v h w"],
    box: Float32[Tensor, "v h w 4"],
    other: Float32[Tensor, "v h w 3"],
    other_box: Float32[Tensor, "v h w 4"],
    tolerance: float,
) -> Float32[Tensor, "v h w 4"]:
    """The box of each cell's surface (left, right, top, bottom), and more where it goes on into the next cell.

    Into a cell of the same surface it goes by `SLACK`; into a cell that straddles an edge and has the surface as its
    smaller part (`other`: inverse depth, x, y), as far as that part, but never over the centre.
    """
    reach = box.clone()
    for axis, along in ((2, 0), (1, 1)):
        size = valid.shape[axis] - 1
        for sign in (-1, 1):
            mine, next_ = (1, 0) if sign < 0 else (0, 1)
            near_side = 2 * along + mine  # of the next cell, towards this one
            here, there = plane.narrow(axis, mine, size), plane.narrow(axis, next_, size)
            part, part_box = other.narrow(axis, next_, size), other_box.narrow(axis, next_, size)
            side = 2 * along + next_
            whole = valid.narrow(axis, mine, size) & (box.narrow(axis, mine, size)[..., side] > 0.4)
            border = here[..., 0] + 0.5 * sign * here[..., 1 + along]
            gap = (border - there[..., 0] + 0.5 * sign * there[..., 1 + along]).abs()
            joined = valid.narrow(axis, next_, size) & (box.narrow(axis, next_, size)[..., near_side] > 0.4)
            joined &= gap <= 2 * tolerance * torch.minimum(border, there[..., 0] - 0.5 * sign * there[..., 1 + along])
            foretold = here[..., 0] + (here[..., 1:] * part[..., 1:]).sum(-1) + sign * here[..., 1 + along]
            goes_on = (part[..., 0] > 0) & (part_box[..., near_side] > 0.4)
            goes_on &= (foretold - part[..., 0]).abs() <= 2 * tolerance * part[..., 0]
            further = torch.where(goes_on, (0.5 + part_box[..., side]).clamp(0, 0.45), 0.0)
            further = torch.where(joined, SLACK, further)
            reach.narrow(axis, mine, size)[..., side] += further * whole
    return reach


def surfel_hits(
    plane: Float32[Tensor, "n 3"],
    center: Float32[Tensor, "n 2"],
    reach: Float32[Tensor, "n 4"],
    rank: Int64[Tensor, " n"],
    ident: Int64[Tensor, " n"],
    source: Int64[Tensor, " n"],
    source_intrinsics: Float32[Tensor, "s 3 3"],
    source_cam_from_world: Float32[Tensor, "s 4 4"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    near: float,
    tolerance: float,
) -> tuple[
    Int64[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width} 2"],
    Float32[Tensor, "v {height} {width}"],
]:
    """See `splat_surfels`."""
    # World from source cells and target cells from world, for [u, v, 1, inverse depth]; in float64: far from the
    # origin nothing is lost.
    turn, move = source_cam_from_world[:, :3, :3].double(), source_cam_from_world[:, :3, 3:].double()
    unproject = torch.linalg.inv(turn) @ torch.cat([torch.linalg.inv(source_intrinsics.double()), -move], -1)
    project = intrinsics.double() @ cam_from_world[:, :3].double()
    elements = (plane, center, reach, rank, ident, source)
    views, step = len(intrinsics), max(1, PAIRS_AT_ONCE // max(1, len(plane)))
    parts = [
        _hits_of_views(*elements, unproject, project[v : v + step], height, width, near, tolerance)
        for v in range(0, max(1, views), step)
    ]
    index, depth, hit, size = (torch.cat(part) for part in zip(*parts, strict=True))
    shape = (views, height, width)
    return index.view(shape), depth.view(shape), hit.view(*shape, 2), size.view(shape)


def _hits_of_views(plane, center, reach, rank, ident, source, unproject, project, height, width, near, tolerance):
    """`surfel_hits` for a few views, flat: winner, depth, source coordinates and size in target cells per cell."""
    device, views, cells = plane.device, len(project), height * width
    # 1. Only elements near the picture go on.
    view, element = _near_picture(plane, center, source, unproject, project, height, width, near)
    table = project[:, None, :, :3] @ unproject
    table[..., 3] += project[:, None, :, 3]
    per_pair = table.float().flatten(2)[view, source[element]].unflatten(-1, (3, 4))
    here, middle = plane[element], center[element]
    image = per_pair[..., 2] + middle[:, :1] * per_pair[..., 0] + middle[:, 1:] * per_pair[..., 1]
    image = image + here[:, :1] * per_pair[..., 3]

    # 2. The element's homography [du, dv, 1] -> target, relative to the image of its centre.
    along_u = per_pair[..., 0] + here[:, 1:2] * per_pair[..., 3]
    along_v = per_pair[..., 1] + here[:, 2:3] * per_pair[..., 3]
    middle = image[:, :2] / image[:, 2:]
    ux, uy = (along_u[:, :2] - middle * along_u[:, 2:]).unbind(-1)
    vx, vy = (along_v[:, :2] - middle * along_v[:, 2:]).unbind(-1)
    uz, vz, oz = along_u[:, 2], along_v[:, 2], image[:, 2]

    # 3. Target cells whose centres lie in the box around its four corners.
    left, right, top, bottom = reach[element].unbind(-1)
    corner_x, corner_y = [], []
    for du, dv in ((-left, -top), (right, -top), (-left, bottom), (right, bottom)):
        w = (oz + uz * du + vz * dv).clamp(min=1e-3 * oz)
        corner_x.append((ux * du + vx * dv) / w)
        corner_y.append((uy * du + vy * dv) / w)
    corner_x, corner_y = torch.stack(corner_x), torch.stack(corner_y)
    x0, x1 = corner_x.amin(0), corner_x.amax(0)
    y0, y1 = corner_y.amin(0), corner_y.amax(0)
    size = torch.maximum((x1 - x0) / (left + right), (y1 - y0) / (top + bottom))
    margin = 1e-3
    first_x = (x0 + middle[:, 0] - 0.5 - margin).clamp(-1, width).ceil().clamp(min=0).long()
    last_x = (x1 + middle[:, 0] - 0.5 + margin).clamp(-1, width).floor().clamp(max=width - 1).long()
    first_y = (y0 + middle[:, 1] - 0.5 - margin).clamp(-1, height).ceil().clamp(min=0).long()
    last_y = (y1 + middle[:, 1] - 0.5 + margin).clamp(-1, height).floor().clamp(max=height - 1).long()
    across, down = (last_x - first_x + 1).clamp(min=0), (last_y - first_y + 1).clamp(min=0)
    facing = ux * vy - uy * vx > 0  # seen from the side it was seen from
    count = across * down * facing

    # 4. One row per (element, view, cell): where does the cell's central ray meet the plane?
    row = torch.arange(len(count), device=device).repeat_interleave(count)
    nth = torch.arange(len(row), device=device) - (count.cumsum(0) - count)[row]
    wide = across[row]
    cell_y = first_y[row] + torch.div(nth, wide, rounding_mode="floor")
    cell_x = first_x[row] + nth % wide
    packed = torch.stack([middle[:, 0], middle[:, 1], ux, uy, vx, vy, uz, vz, oz, left, right, top, bottom], -1)[row]
    mx, my, ux, uy, vx, vy, uz, vz, oz, left, right, top, bottom = packed.unbind(-1)
    dx, dy = cell_x + 0.5 - mx, cell_y + 0.5 - my
    a, b, c, d = ux - dx * uz, vx - dx * vz, uy - dy * uz, vy - dy * vz
    det = a * d - b * c
    scale = oz / torch.where(det == 0, torch.inf, det)
    du, dv = (d * dx - b * dy) * scale, (a * dy - c * dx) * scale
    ratio = oz + uz * du + vz * dv  # target depth over source depth
    here = plane[element[row]]
    disparity = here[:, 0] + here[:, 1] * du + here[:, 2] * dv
    depth = ratio / disparity
    slop = 1e-3
    inside = (du >= -left - slop) & (du <= right + slop) & (dv >= -top - slop) & (dv <= bottom + slop)
    inside &= (ratio > 0) & (disparity > 0) & (depth > near) & depth.isfinite()
    row, du, dv, depth = row[inside], du[inside], dv[inside], depth[inside]
    cell = view[row] * cells + (cell_y * width + cell_x)[inside]

    # 5. The front surface, then the best source of it: two minima, so order and threads do not matter.
    front = torch.full((views * cells,), torch.inf, device=device).scatter_reduce(0, cell, depth, "amin")
    agrees = depth <= front[cell] * (1 + tolerance)
    row, du, dv, depth, cell = row[agrees], du[agrees], dv[agrees], depth[agrees], cell[agrees]
    chosen, size = element[row], size[row]
    octaves = size.clamp(min=1e-6).log2()
    blur = (2 * (octaves - 0.5)).ceil().clamp(0, 15) + (-octaves - 1).floor().clamp(0, 15)
    outside = torch.maximum(du.abs(), dv.abs()) > 0.5 + slop
    left, right, top, bottom = (reach[chosen] <= 0.5).unbind(-1)
    fringe = (left & (du < -FRINGE)) | (right & (du > FRINGE)) | (top & (dv < -FRINGE)) | (bottom & (dv > FRINGE))
    key = (rank[chosen] << 6) + (fringe.long() << 5) + blur.clamp(max=30).long()
    key = (((key << 1) | outside) << 44) | ident[chosen]
    best = torch.full((views * cells,), EMPTY, device=device).scatter_reduce(0, cell, key, "amin")
    won = key == best[cell]
    cell, chosen = cell[won], chosen[won]
    index = torch.full((views * cells,), -1, device=device).index_put((cell,), chosen)
    out = torch.zeros(views * cells, 4, device=device)
    fine = torch.stack([du[won], dv[won]], -1).mul(1024).round().div(1024) + center[chosen]
    out[cell] = torch.cat([depth[won, None], fine, size[won, None]], -1)
    return index, out[:, 0], out[:, 1:3], out[:, 3]


def _near_picture(plane, center, source, unproject, project, height, width, near):
    """(view, element) pairs whose centre is in front of the camera and less than half a picture outside of it."""
    rows = unproject.float()[source]
    ray = rows[:, :, 0] * center[:, :1] + rows[:, :, 1] * center[:, 1:] + rows[:, :, 2]
    world = torch.cat([ray + rows[:, :, 3] * plane[:, :1], plane[:, :1]], -1)  # homogeneous
    x, y, z = (world @ project.float().flatten(0, 1).T).T.unflatten(0, (-1, 3)).unbind(1)
    margin_x, margin_y = max(width / 2, 4), max(height / 2, 4)
    inside = (z > near * plane[:, 0]) & (x > -margin_x * z) & (x < (width + margin_x) * z)
    inside &= (y > -margin_y * z) & (y < (height + margin_y) * z)
    return inside.nonzero(as_tuple=True)


def gather_taps(
    plane: Float32[Tensor, "n 3"],
    center: Float32[Tensor, "n 2"],
    lookup: Int[Tensor, "s h w"],
    source: Int64[Tensor, " m"],
    chosen: Int64[Tensor, " m"],
    hit: Float32[Tensor, "m 2"],
    tolerance: float,
) -> tuple[Int64[Tensor, "m 4"], Float32[Tensor, "m 4"]]:
    """The four source elements around each hit and their weights, which sum to one. See `gather`."""
    height, width = lookup.shape[1:]
    corner = (hit - 0.5).floor()
    fraction = hit - 0.5 - corner
    step = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=hit.device)
    x, y = (corner[:, None].long() + step).unbind(-1)
    weight = torch.where(step == 1, fraction[:, None], 1 - fraction[:, None]).prod(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    neighbour = lookup[source[:, None], y.clamp(0, height - 1), x.clamp(0, width - 1)].long()
    exists = inside & (neighbour >= 0)
    neighbour = torch.where(exists, neighbour, chosen[:, None])

    # A neighbour belongs to the same surface if either plane foretells the other.
    at = lambda p, c, where: p[..., 0] + ((where - c) * p[..., 1:]).sum(-1)
    mine, theirs = plane[chosen][:, None], plane[neighbour]
    my_center, their_center = center[chosen][:, None], center[neighbour]
    truth = at(mine, my_center, hit[:, None])
    error = torch.minimum(
        (at(theirs, their_center, hit[:, None]) - truth).abs() / truth,
        (at(mine, my_center, their_center) - theirs[..., 0]).abs() / theirs[..., 0],
    )
    weight = weight * (exists & (error <= tolerance))
    return neighbour, weight / weight.sum(-1, keepdim=True)


def weighted_rows(
    features: Float[Tensor, "n c"], neighbour: Int64[Tensor, "m 4"], weight: Float32[Tensor, "m 4"]
) -> Float[Tensor, "m c"]:
    """Weighted sum of four rows per output, in float32, in the dtype of the features. See `gather`."""
    rows = features[neighbour.flatten()].unflatten(0, neighbour.shape).float()
    return (rows * weight[..., None]).sum(1).to(features.dtype)
