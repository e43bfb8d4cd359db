"""The memory's arithmetic in plain PyTorch: the specification, which runs everywhere. Contracts are in `ops`.

All that decides a winner is written as elementwise sums, products and quotients in a stated order, rounded one by one
(no matrix products, no reductions of floats), so that a backend which does the same gives the same bits.
"""

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int8, Int64
from torch import Tensor

EMPTY = torch.iinfo(torch.int64).max
REACH_STEP = 1 / 128  # of a cell: reaches are stored in one byte each
SLACK = 0.35  # overlap with the next cell of the same surface, in cells: closes the seam between two planes
FRINGE = 0.1  # cells beyond the last centre of a surface from which a sample counts as extrapolated
SLOP = 1e-3  # cells by which a ray may miss a patch
MINIMUM_FIT = 9  # pixels per cell from which a plane is fitted inside the cell
PAIRS_AT_ONCE = 1 << 19  # elements x views handled in one go


def nearest_points(
    points: Float32[Tensor, "n 3"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    near: float,
) -> tuple[Int64[Tensor, "v {height*width}"], Float32[Tensor, "v {height*width}"]]:
    """The nearest point of each cell and its depth: -1 and 0 where there is none. See `splat_nearest`."""
    u, v, z = _image(points, intrinsics, cam_from_world)
    inside = (z > near) & (u >= 0) & (u < width) & (v >= 0) & (v < height)  # before the cast: inf has no int

    # One 64-bit key orders by depth, then by index; positive floats order as their own bits.
    index = torch.arange(len(points), device=points.device)
    key = (z.view(torch.int32).long() << 32) | index
    cell = torch.where(inside, v.floor() * width + u.floor(), height * width).long()  # last bin: outside
    best = torch.full((len(intrinsics), height * width + 1), EMPTY, device=points.device)
    return nearest_of_keys(best.scatter_reduce(1, cell, key, "amin")[:, :-1])


def nearest_of_keys(best: Int64[Tensor, "v m"]) -> tuple[Int64[Tensor, "v m"], Float32[Tensor, "v m"]]:
    """Index and depth of the least keys, -1 and 0 where there is none. See `splat_nearest`."""
    depth = (best >> 32).int().view(torch.float32)
    return torch.where(best == EMPTY, -1, best & 0xFFFF_FFFF), torch.where(best == EMPTY, 0.0, depth)


def nearest_cells(
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    columns: int,
    matrix: Float32[Tensor, "s 3 3"],
    center: Float32[Tensor, "s 3"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    near: float,
) -> tuple[Int64[Tensor, "v {height*width}"], Float32[Tensor, "v {height*width}"]]:
    """See `splat_cells`."""
    points = surfel_points(plane, cell, source, columns, matrix, center)
    return nearest_points(points, intrinsics, cam_from_world, height, width, near)


def rows(features: Float[Tensor, "n c"], index: Int64[Tensor, " m"]) -> Float[Tensor, "m c"]:
    """The features of some points, zero where there is none (-1). See `splat_nearest`."""
    return features.index_select(0, index.clamp(min=0)).masked_fill((index < 0)[:, None], 0)


def _image(
    points: Float32[Tensor, "n 3"], intrinsics: Float32[Tensor, "v 3 3"], cam_from_world: Float32[Tensor, "v 4 4"]
) -> tuple[Float32[Tensor, "v n"], Float32[Tensor, "v n"], Float32[Tensor, "v n"]]:
    """Where points appear in views: column and row in cells, and z; no numbers of meaning where z is not positive."""
    px, py, pz = points.unbind(-1)
    r = cam_from_world[..., None]
    x, y, z = (((r[:, i, 0] * px + r[:, i, 1] * py) + r[:, i, 2] * pz) + r[:, i, 3] for i in range(3))
    k, depth = intrinsics[..., None], torch.where(z > 0, z, 1.0)
    return k[:, 0, 0] * (x / depth) + k[:, 0, 2], k[:, 1, 1] * (y / depth) + k[:, 1, 2], z


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
        x, left, right = (side.repeat(rows) for side in pixel_places(cols, depth.device))
        y, top, bottom = (side.repeat_interleave(cols) for side in pixel_places(rows, depth.device))
        plane, residual = _fit(x, y, rows, disparity, mask)
        edge = residual > tolerance * plane[..., 0].clamp(min=0)
        if edge.any():
            part = _largest_surface(disparity[edge], mask[edge], tolerance)
            plane[edge] = _fit(x, y, rows, disparity[edge], part)[0]
            rest = _largest_surface(disparity[edge], mask[edge] & ~part, tolerance)
            side = torch.stack([left, right, top, bottom], -1)
            box[edge] = torch.where(part[..., None], side, -torch.inf).amax(-2).clamp(min=0)
            other_box[edge] = torch.where(rest[..., None], side, -torch.inf).amax(-2)
            size = rest.sum(-1).clamp(min=1)
            mean = lambda value: _total(torch.where(rest, value, 0.0), rows) / size
            other[edge] = torch.stack([mean(disparity[edge]), mean(x), mean(y)], -1)
    else:
        centre = disparity.masked_fill(~mask, torch.inf).sort(-1)[0]
        centre = centre.gather(-1, ((count - 1).clamp(min=0) // 2)[..., None])
        centre = torch.where(count[..., None] > 0, centre, 0.0)
        plane = torch.cat([centre, _slopes(centre[..., 0])], -1)
        spread = torch.where(mask, (disparity - centre).abs(), 0.0).amax(-1)
        edge = spread > tolerance * centre[..., 0] + (plane[..., 1].abs() + plane[..., 2].abs())

    # The plane stays in front of the camera over the whole reach of the cell.
    steep = (plane[..., 1].abs() + plane[..., 2].abs()) / (0.8 * plane[..., 0]).clamp(min=1e-12)
    plane[..., 1:] /= steep.clamp(min=1)[..., None]
    valid = (plane[..., 0] > 0) & (count > 0)
    plane[~valid] = 0
    return plane, count, edge & valid, joined_reach(plane, valid, box, other, other_box, tolerance)


def pixel_places(pixels: int, device: torch.device) -> Float32[Tensor, "3 p"]:
    """Each pixel's offset from its cell's centre, and how far it goes to either side of it. See `lift_planes`."""
    centre = [(i + 0.5) / pixels - 0.5 for i in range(pixels)]
    before, after = [0.5 - i / pixels for i in range(pixels)], [(i + 1) / pixels - 0.5 for i in range(pixels)]
    return torch.tensor([centre, before, after], device=device)


def _total(values: Float32[Tensor, "*b p"], rows: int) -> Float32[Tensor, "*b"]:
    """Sum over the pixels of a cell: down each column first, then over the columns from left to right."""
    values = values.unflatten(-1, (rows, -1))
    column = values[..., 0, :]
    for row in range(1, rows):
        column = column + values[..., row, :]
    total = column[..., 0]
    for col in range(1, column.shape[-1]):
        total = total + column[..., col]
    return total


def _fit(
    x: Float32[Tensor, " p"],
    y: Float32[Tensor, " p"],
    rows: int,
    disparity: Float32[Tensor, "*b p"],
    mask: Bool[Tensor, "*b p"],
) -> tuple[Float32[Tensor, "*b 3"], Float32[Tensor, "*b"]]:
    """Least squares disparity plane of the masked pixels of each cell, and its largest residual."""
    weight, count = mask.float(), mask.sum(-1).clamp(min=1).float()
    mean_of = lambda values: _total(values, rows) / count
    mean = mean_of(torch.where(mask, disparity, 0.0))
    rest = torch.where(mask, disparity - mean[..., None], 0.0)
    r, rx, ry = mean_of(rest), mean_of(rest * x), mean_of(rest * y)
    mx, my = mean_of(weight * x), mean_of(weight * y)
    # Slopes from the moments about the mean; the ridge keeps those flat that nothing fixes.
    xx = mean_of(weight * (x * x)) + 1e-4 - mx * mx
    xy = mean_of(weight * (x * y)) - mx * my
    yy = mean_of(weight * (y * y)) + 1e-4 - my * my
    bx, by, det = rx - mx * r, ry - my * r, xx * yy - xy * xy
    along_x, along_y = (bx * yy - by * xy) / det, (by * xx - bx * xy) / det
    centre = (mean + r) - (mx * along_x + my * along_y)
    fitted = (centre[..., None] + along_x[..., None] * x) + along_y[..., None] * y
    residual = torch.where(mask, (disparity - fitted).abs(), 0.0).amax(-1)
    # A surface seen beside the centre is not extrapolated beyond its own range.
    low = disparity.masked_fill(~mask, torch.inf).amin(-1)
    high = disparity.masked_fill(~mask, -torch.inf).amax(-1)
    centre = torch.where(mask.any(-1), torch.minimum(torch.maximum(centre, low), high), 0.0)
    return torch.stack([centre, along_x, along_y], -1), residual


def _largest_surface(
    disparity: Float32[Tensor, "b p"], mask: Bool[Tensor, "b p"], tolerance: float
) -> Bool[Tensor, "b p"]:
    """The pixels of each cell on its largest surface: cut twice at the widest gap in depth; of equals the nearer.

    Of equally wide gaps the farthest is cut.
    """
    for _ in range(2):
        order = torch.where(mask, disparity, torch.inf).sort(-1)[0]
        pair = mask.sum(-1, keepdim=True) > torch.arange(1, mask.shape[1], device=mask.device)
        gap = torch.where(pair, order[:, 1:] / order[:, :-1] - 1, 0.0)
        widest = gap.amax(-1, keepdim=True)
        nearer = disparity > torch.where(gap == widest, order[:, :-1], torch.inf).amin(-1, keepdim=True)
        majority = torch.where(
            ((nearer & mask).sum(-1) * 2 >= mask.sum(-1))[:, None],
            nearer,
            ~nearer,
        )
        mask = mask & (majority | (widest <= tolerance))
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


def joined_reach(
    plane: Float32[Tensor, "v h w 3"],
    valid: Bool[Tensor, "v h w"],
    box: Float32[Tensor, "v h w 4"],
    other: Float32[Tensor, "v h w 3"],
    other_box: Float32[Tensor, "v h w 4"],
    tolerance: float,
) -> Float32[Tensor, "v h w 4"]:
    """Give the box of each cell's surface (left, right, top, bottom), and more where it goes on into the next cell.

    Into a cell of the same surface it goes by `SLACK`; into a cell that straddles an edge and has the surface as its
    smaller part (`other`: inverse depth, x, y), as far as that part, but never over the centre. See `lift_planes`.
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
            foretold = here[..., 0] + (here[..., 1] * part[..., 1] + here[..., 2] * part[..., 2])
            foretold = foretold + sign * here[..., 1 + along]
            goes_on = (part[..., 0] > 0) & (part_box[..., near_side] > 0.4)
            goes_on &= (foretold - part[..., 0]).abs() <= 2 * tolerance * part[..., 0]
            further = torch.where(goes_on, (0.5 + part_box[..., side]).clamp(0, 0.45), 0.0)
            further = torch.where(joined, SLACK, further)
            reach.narrow(axis, mine, size)[..., side] += further * whole
    return reach


def surfel_hits(
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    reach: Int8[Tensor, "n 4"],
    rank: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    name: Int64[Tensor, " s"],
    source_size: tuple[int, int],
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
    table = target_from_source(source_intrinsics, source_cam_from_world, intrinsics, cam_from_world)
    source = source.long()
    ident = name[source] * (source_size[0] * source_size[1]) + cell
    center = torch.stack([cell % source_size[1] + 0.5, cell // source_size[1] + 0.5], -1)
    elements = (plane, center, reach * REACH_STEP, rank.long(), ident, source)
    views, step = len(intrinsics), max(1, PAIRS_AT_ONCE // max(1, len(plane)))
    parts = [
        _hits_of_views(*elements, table[v : v + step], height, width, near, tolerance)
        for v in range(0, max(1, views), step)
    ]
    index, depth, hit, size = (torch.cat(part) for part in zip(*parts, strict=True))
    shape = (views, height, width)
    return index.view(shape), depth.view(shape), hit.view(*shape, 2), size.view(shape)


def target_from_source(
    source_intrinsics: Float32[Tensor, "s 3 3"],
    source_cam_from_world: Float32[Tensor, "s 4 4"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
) -> Float32[Tensor, "v s 3 4"]:
    """Maps from [u, v, 1, inverse depth] of the source views to the target views, the heart of `splat_surfels`.

    Made in float64: far from the origin nothing is lost. See `splat_surfels`.
    """
    turn, move = source_cam_from_world[:, :3, :3].double(), source_cam_from_world[:, :3, 3:].double()
    ray = torch.cat([_inverse(source_intrinsics.double()), -move], -1)
    unproject = _product(_inverse(turn), ray)
    project = _product(intrinsics.double(), cam_from_world[:, :3].double())[:, None]
    table = _product(project[..., :3], unproject[None])
    table[..., 3] += project[..., 3]
    return table.float()


def _product(a: Float64[Tensor, "*b 3 3"], b: Float64[Tensor, "*c 3 k"]) -> Float64[Tensor, "*d 3 k"]:
    """Matrix product, summed from left to right."""
    first, second, third = (a[..., :, i : i + 1] * b[..., i : i + 1, :] for i in range(3))
    return (first + second) + third


def _inverse(m: Float64[Tensor, "s 3 3"]) -> Float64[Tensor, "s 3 3"]:
    """Inverse by cofactors: LAPACK would differ by device, and its threads go on waiting for 10 ms after a call."""
    cofactor = lambda i, j: (
        m[:, (i + 1) % 3, (j + 1) % 3] * m[:, (i + 2) % 3, (j + 2) % 3]
        - m[:, (i + 1) % 3, (j + 2) % 3] * m[:, (i + 2) % 3, (j + 1) % 3]
    )
    rows = torch.stack([torch.stack([cofactor(i, j) for i in range(3)], -1) for j in range(3)], -2)
    det = (m[:, 0, 0] * rows[:, 0, 0] + m[:, 0, 1] * rows[:, 1, 0]) + m[:, 0, 2] * rows[:, 2, 0]
    return rows / det[:, None, None]


def _hits_of_views(plane, center, reach, rank, ident, source, table, height, width, near, tolerance):
    """`surfel_hits` for a few views, flat: winner, depth, source coordinates and size in target cells per cell."""
    device, views, cells = plane.device, len(table), height * width
    # 1. Only elements go on whose centre is in front of the camera and less than half a picture outside of it.
    u, v = center.unbind(-1)
    m = table.flatten(2).permute(2, 0, 1)[..., source].unflatten(0, (3, 4))
    x, y, z = (((m[i, 2] + u * m[i, 0]) + v * m[i, 1]) + plane[:, 0] * m[i, 3] for i in range(3))
    margin_x, margin_y = max(width / 2, 4), max(height / 2, 4)
    inside = (z > near * plane[:, 0]) & (x > -margin_x * z) & (x < (width + margin_x) * z)
    inside &= (y > -margin_y * z) & (y < (height + margin_y) * z)
    view, element = inside.nonzero(as_tuple=True)
    here = plane[element]

    # 2. The element's homography [du, dv, 1] -> target, relative to the image of its centre.
    oz = z[view, element]
    mid_x, mid_y = x[view, element] / oz, y[view, element] / oz
    m = m[:, :, view, element]
    ux, uy, uz = m[:, 0] + here[:, 1] * m[:, 3]
    vx, vy, vz = m[:, 1] + here[:, 2] * m[:, 3]
    ux, uy = ux - mid_x * uz, uy - mid_y * uz
    vx, vy = vx - mid_x * vz, vy - mid_y * vz

    # 3. Target cells whose centres lie in the box around its four corners.
    left, right, top, bottom = reach[element].unbind(-1)
    corner_x, corner_y = [], []
    for du, dv in ((-left, -top), (right, -top), (-left, bottom), (right, bottom)):
        inverse = 1 / torch.maximum((oz + uz * du) + vz * dv, 1e-3 * oz)
        corner_x.append((ux * du + vx * dv) * inverse)
        corner_y.append((uy * du + vy * dv) * inverse)
    corner_x, corner_y = torch.stack(corner_x), torch.stack(corner_y)
    x0, x1 = corner_x.amin(0), corner_x.amax(0)
    y0, y1 = corner_y.amin(0), corner_y.amax(0)
    size = torch.maximum((x1 - x0) / (left + right), (y1 - y0) / (top + bottom))
    first_x = (((x0 + mid_x) - 0.5) - SLOP).clamp(-1, width).ceil().clamp(min=0).long()
    last_x = (((x1 + mid_x) - 0.5) + SLOP).clamp(-1, width).floor().clamp(max=width - 1).long()
    first_y = (((y0 + mid_y) - 0.5) - SLOP).clamp(-1, height).ceil().clamp(min=0).long()
    last_y = (((y1 + mid_y) - 0.5) + SLOP).clamp(-1, height).floor().clamp(max=height - 1).long()
    across, down = (last_x - first_x + 1).clamp(min=0), (last_y - first_y + 1).clamp(min=0)
    # The inverse of the homography has the determinant D + E dx + F dy: positive where it is in front and seen from
    # the side it was seen from.
    det, det_x, det_y = ux * vy - uy * vx, vz * uy - uz * vy, vx * uz - ux * vz
    count = across * down * ((det > 0) & (size < torch.inf))

    # 4. One row per (element, view, cell): where does the cell's central ray meet the plane?
    row = torch.arange(len(count), device=device).repeat_interleave(count)
    nth = torch.arange(len(row), device=device) - (count.cumsum(0) - count)[row]
    wide = across[row]
    cell_y = first_y[row] + torch.div(nth, wide, rounding_mode="floor")
    cell_x = first_x[row] + nth % wide
    per_pair = [mid_x, mid_y, det, det_x, det_y, vy * oz, vx * oz, ux * oz, uy * oz, oz * det, *here.unbind(-1)]
    sides = [left + SLOP, right + SLOP, top + SLOP, bottom + SLOP]
    mx, my, det, det_x, det_y, u_x, u_y, v_y, v_x, over, a0, a1, a2, left, right, top, bottom = (
        value[row] for value in [*per_pair, *sides]
    )
    dx, dy = (cell_x + 0.5) - mx, (cell_y + 0.5) - my
    det = (det + dy * det_y) + dx * det_x
    du, dv = u_x * dx - u_y * dy, v_y * dy - v_x * dx  # times det
    under = (a0 * det + a1 * du) + a2 * dv
    inside = (det > 0) & (du >= -left * det) & (du <= right * det) & (dv >= -top * det) & (dv <= bottom * det)
    depth, inverse = over / under, 1 / det
    du, dv = du * inverse, dv * inverse
    inside &= (under > 0) & (depth > near) & depth.isfinite()
    row, du, dv, depth = row[inside], du[inside], dv[inside], depth[inside]
    cell = view[row] * cells + (cell_y * width + cell_x)[inside]

    # 5. The front surface, then the best source of it: two minima, so order and threads do not matter.
    front = torch.full((views * cells,), torch.inf, device=device).scatter_reduce(0, cell, depth, "amin")
    agrees = _coarse(depth) <= _coarse(front)[cell] * (1 + tolerance)
    row, du, dv, depth, cell = row[agrees], du[agrees], dv[agrees], depth[agrees], cell[agrees]
    chosen, size = element[row], size[row]
    octaves = _log2_ceil(size * size * 0.5)  # 2 log2(size) - 1
    blur = octaves.clamp(0, 15) + (-_log2_ceil(size * 2)).clamp(0, 15)
    outside = torch.maximum(du.abs(), dv.abs()) > 0.5 + SLOP
    left, right, top, bottom = (reach[chosen] <= 0.5).unbind(-1)
    fringe = (left & (du < -FRINGE)) | (right & (du > FRINGE)) | (top & (dv < -FRINGE)) | (bottom & (dv > FRINGE))
    key = (rank[chosen] << 6) + (fringe.long() << 5) + blur
    key = (((key << 1) | outside) << 44) | ident[chosen]
    best = torch.full((views * cells,), EMPTY, device=device).scatter_reduce(0, cell, key, "amin")
    won = key == best[cell]
    cell, chosen = cell[won], chosen[won]
    index = torch.full((views * cells,), -1, device=device).index_put((cell,), chosen)
    out = torch.zeros(views * cells, 4, device=device)
    fine = (torch.stack([du[won], dv[won]], -1) * 1024 + 0.5).floor() / 1024 + center[chosen]
    out[cell] = torch.cat([depth[won, None], fine, size[won, None]], -1)
    return index, out[:, 0], out[:, 1:3], out[:, 3]


def _coarse(depth: Float32[Tensor, " m"]) -> Float32[Tensor, " m"]:
    """Depth to ten bits, rounded down: what is equal then is one surface, whatever the rounding."""
    return (depth.view(torch.int32) & -8192).view(torch.float32)


def _log2_ceil(x: Float32[Tensor, " m"]) -> Int64[Tensor, " m"]:
    """Base-2 logarithm of positive numbers, rounded up, from their bits."""
    bits = x.view(torch.int32).long()
    return (bits >> 23) - 127 + ((bits & 0x7F_FFFF) != 0)


def gather_rows(
    features: Float[Tensor, "n c"],
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    lookup: Int[Tensor, "s h w"],
    chosen: Int64[Tensor, " m"],
    hit: Float32[Tensor, "m 2"],
    tolerance: float,
) -> Float[Tensor, "m c"]:
    """See `gather`."""
    if not len(plane):
        return features.new_zeros(len(chosen), features.shape[1])
    neighbour, weight = _taps(plane, cell, source, lookup, chosen.clamp(min=0), hit, tolerance)
    weight = torch.where((chosen >= 0)[:, None], weight, 0.0)
    rows = [features[neighbour[:, k]].float() * weight[:, k, None] for k in range(4)]
    return (((rows[0] + rows[1]) + rows[2]) + rows[3]).to(features.dtype)


def _taps(
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    lookup: Int[Tensor, "s h w"],
    chosen: Int64[Tensor, " m"],
    hit: Float32[Tensor, "m 2"],
    tolerance: float,
) -> tuple[Int64[Tensor, "m 4"], Float32[Tensor, "m 4"]]:
    """The four source elements around each hit and their weights, which sum to one."""
    height, width = lookup.shape[1:]
    corner = (hit - 0.5).floor()
    fraction = (hit - 0.5) - corner
    step = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=hit.device)
    x, y = (corner[:, None].long() + step).unbind(-1)
    across, down = torch.where(step == 1, fraction[:, None], 1 - fraction[:, None]).unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    neighbour = lookup[source[chosen].long()[:, None], y.clamp(0, height - 1), x.clamp(0, width - 1)].long()
    exists = inside & (neighbour >= 0)
    neighbour = torch.where(exists, neighbour, chosen[:, None])

    # A neighbour belongs to the same surface if either plane foretells the other.
    at = lambda p, du, dv: (p[..., 0] + du * p[..., 1]) + dv * p[..., 2]
    mine, theirs, (hit_x, hit_y) = plane[chosen][:, None], plane[neighbour], hit[:, None].unbind(-1)
    mine_x, mine_y = (cell[chosen] % width)[:, None] + 0.5, (cell[chosen] // width)[:, None] + 0.5
    their_x, their_y = x + 0.5, y + 0.5
    truth = at(mine, hit_x - mine_x, hit_y - mine_y)
    agrees = (at(theirs, hit_x - their_x, hit_y - their_y) - truth).abs() <= tolerance * truth
    agrees |= (at(mine, their_x - mine_x, their_y - mine_y) - theirs[..., 0]).abs() <= tolerance * theirs[..., 0]
    weight = torch.where(exists & agrees, across * down, 0.0)
    total = ((weight[:, 0] + weight[:, 1]) + weight[:, 2]) + weight[:, 3]
    return neighbour, weight / total[:, None]


def seen_through(
    points: Float32[Tensor, "n 3"],
    plane: Float32[Tensor, "m 3"],
    lookup: Int[Tensor, "v h w"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    tolerance: float,
    strict: bool,
) -> Int64[Tensor, " n"]:
    """See `seen_through`."""
    height, width = lookup.shape[1:]
    total = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    if not len(plane):
        return total
    offsets = [(dx - 0.5, dy - 0.5) for dy in (0, 1) for dx in (0, 1)] if strict else [(0.0, 0.0)]
    for view in range(len(lookup)):
        u, v, z = (value[0] for value in _image(points, intrinsics[view, None], cam_from_world[view, None]))
        free, limit = z > 0, z * (1 + tolerance)
        for dx, dy in offsets:
            column, row = (u + dx).floor(), (v + dy).floor()
            free = free & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            x, y = torch.where(free, column, 0.0).long(), torch.where(free, row, 0.0).long()
            element = lookup[view, y, x].long()
            here = plane[element.clamp(min=0)]
            surface = here[:, 0]
            if not strict:
                surface = (surface + (u - (x + 0.5)) * here[:, 1]) + (v - (y + 0.5)) * here[:, 2]
            free &= (element >= 0) & (surface * limit < 1)
        total += free
    return total


def surfel_points(
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    width: int,
    matrix: Float32[Tensor, "s 3 3"],
    center: Float32[Tensor, "s 3"],
) -> Float32[Tensor, "n 3"]:
    """See `surfel_points`."""
    x, y, m = (cell % width + 0.5)[:, None], (cell // width + 0.5)[:, None], matrix[source.long()]
    ray = (m[..., 0] * x + m[..., 1] * y) + m[..., 2]
    return ray / plane[:, :1] + center[source.long()]


def voxel_overlap(
    points: Float32[Tensor, "n 3"],
    view: Int[Tensor, " n"],
    other_points: Float32[Tensor, "m 3"],
    other_view: Int[Tensor, " m"],
    views: int,
    other_views: int,
    size: float,
) -> Float32[Tensor, "{views} {other_views}"]:
    """See `voxel_overlap`."""
    # 1. A number for each occupied voxel: axis after axis, so that no extent is too large for 64 bits.
    place = torch.cat([points, other_points]).double() / size
    place = place.floor().clamp(-(2.0**62), 2.0**62).long()
    number = torch.zeros_like(place[:, 0])
    for axis in place.unbind(-1):
        values, rank = axis.unique(return_inverse=True)
        number = (number * len(values) + rank).unique(return_inverse=True)[1]
    voxels = int(number.max()) + 1 if len(number) else 0

    # 2. Which views occupy which voxel, each once; then shared voxels per pair of views.
    mine = (view.long() * voxels + number[: len(points)]).unique()
    theirs = torch.zeros(voxels, other_views, dtype=torch.int64, device=points.device)
    theirs[number[len(points) :], other_view.long()] = 1
    count = torch.zeros(views, dtype=torch.int64, device=points.device)
    shared = count[:, None].repeat(1, other_views)
    if len(mine):
        owner, voxel = mine // voxels, mine % voxels
        shared.index_add_(0, owner, theirs[voxel])
        count.index_add_(0, owner, torch.ones_like(owner))
    union = count[:, None] + theirs.sum(0) - shared
    return shared.float() / union.clamp(min=1).float()
