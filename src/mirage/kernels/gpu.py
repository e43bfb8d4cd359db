"""The memory's arithmetic in Triton, for GPUs. Contracts are in `ops`, the specification is `reference`.

Every number is rounded where the specification rounds it: no fused multiply-add, quotients to nearest, sums in the
stated order. Nothing waits for the host, and no shape depends on data: an element walks the cells of its own box.
Not run on a GPU yet: all values are checked by Triton's interpreter only, and that the code compiles for one.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int, Int8, Int64
from torch import Tensor

from mirage.kernels import reference
from mirage.kernels.gpu_lift import cell_planes
from mirage.kernels.launch import launch
from mirage.kernels.reference import rows, surfel_points

__all__ = [
    "cell_planes",
    "gather_rows",
    "nearest_cells",
    "nearest_points",
    "rows",
    "seen_through",
    "surfel_hits",
    "surfel_points",
    "voxel_overlap",
]

EMPTY = reference.EMPTY
STEP = tl.constexpr(reference.REACH_STEP)
FRINGE = tl.constexpr(reference.FRINGE)
SLOP = tl.constexpr(reference.SLOP)
INFINITY = tl.constexpr(float("inf"))


def nearest_points(
    points: Float32[Tensor, "n 3"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    near: float,
) -> tuple[Int64[Tensor, "v {height*width}"], Float32[Tensor, "v {height*width}"]]:
    """See `splat_nearest`."""
    count, views, block = len(points), len(intrinsics), 256
    best = torch.full((views, height * width), EMPTY, device=points.device)
    cameras = (intrinsics.contiguous(), cam_from_world.contiguous())
    grid = (triton.cdiv(count, block), views)
    launch(_nearest, grid, points.contiguous(), *cameras, best, count, height, width, near, BLOCK=block)
    return reference.nearest_of_keys(best)


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


@triton.jit(do_not_specialize=["count"])
@no_type_check
def _nearest(points, intrinsics, pose, best, count, height, width, near, BLOCK: tl.constexpr):
    view = tl.program_id(1)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    u, v, z = _image(points, intrinsics + view * 9, pose + view * 16, n, n < count)
    inside = (n < count) & (z > near) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    cell = tl.where(inside, tl.floor(v), 0.0).to(tl.int32) * width + tl.where(inside, tl.floor(u), 0.0).to(tl.int32)
    key = (z.to(tl.int32, bitcast=True).to(tl.int64) << 32) | n
    tl.atomic_min(best + view.to(tl.int64) * height * width + cell, key, mask=inside, sem="relaxed")


@triton.jit
@no_type_check
def _image(points, intrinsics, pose, n, there):
    """Column, row and z of points in one view, see `reference._image`."""
    px, py, pz = _three(points + n.to(tl.int64) * 3, there)
    x = ((tl.load(pose) * px + tl.load(pose + 1) * py) + tl.load(pose + 2) * pz) + tl.load(pose + 3)
    y = ((tl.load(pose + 4) * px + tl.load(pose + 5) * py) + tl.load(pose + 6) * pz) + tl.load(pose + 7)
    z = ((tl.load(pose + 8) * px + tl.load(pose + 9) * py) + tl.load(pose + 10) * pz) + tl.load(pose + 11)
    depth = tl.where(z > 0, z, 1.0)
    u = tl.load(intrinsics) * tl.div_rn(x, depth) + tl.load(intrinsics + 2)
    v = tl.load(intrinsics + 4) * tl.div_rn(y, depth) + tl.load(intrinsics + 5)
    return u, v, z


@triton.jit
@no_type_check
def _three(row, there):
    """Three floats in a row of memory."""
    first, second = tl.load(row, mask=there, other=0.0), tl.load(row + 1, mask=there, other=0.0)
    return first, second, tl.load(row + 2, mask=there, other=0.0)


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
    """Three passes over tiles of elements and views: front depth of each cell, least key there, the winner's values.

    The first marks the tiles with nothing in the picture, which the others skip. See `splat_surfels`.
    """
    count, views, sources, tile = len(plane), len(intrinsics), len(name), 128
    new = lambda value, *shape: torch.full((views, height, width, *shape), value, device=plane.device)
    front, best, index = new(torch.inf), new(EMPTY), new(-1)
    depth, hit, size = new(0.0), new(0.0, 2), new(0.0)
    table = torch.empty(views, sources, 12, device=plane.device)
    cameras = (x.contiguous() for x in (source_intrinsics, source_cam_from_world, intrinsics, cam_from_world))
    launch(_table, (triton.cdiv(views * sources, 64),), *cameras, table, views * sources, sources, BLOCK=64)
    grid = (triton.cdiv(count, tile), views)
    alive = torch.zeros(grid, dtype=torch.int8, device=plane.device)
    elements = (x.contiguous() for x in (plane, cell, reach, rank, source, name))
    tensors = (*elements, table, alive, front, best, index, depth, hit, size)
    sizes = (count, sources, source_size[0] * source_size[1], source_size[1], height, width)
    margin_x, margin_y = max(width / 2, 4.0), max(height / 2, 4.0)
    numbers = (near, 1 + tolerance, -margin_x, width + margin_x, -margin_y, height + margin_y)
    for stage in range(3):
        launch(_surfels, grid, *tensors, *sizes, *numbers, STAGE=stage, TILE=tile)
    return index, depth, hit, size


@triton.jit(do_not_specialize=["count", "sources"])
@no_type_check
def _table(source_intrinsics, source_pose, intrinsics, pose, table, count, sources, BLOCK: tl.constexpr):
    """Maps from source to target views, in float64, see `reference.target_from_source`."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < count
    view, source = n // sources, n % sources
    ray, turn = _inverse(source_intrinsics + source * 9, 3, there), _inverse(source_pose + source * 16, 4, there)
    m0, m1, m2 = _column(source_pose + source * 16 + 3, 4, there)
    first = _projection(intrinsics + view * 9, pose + view * 16, there)
    second = _projection(intrinsics + view * 9 + 3, pose + view * 16, there)
    third = _projection(intrinsics + view * 9 + 6, pose + view * 16, there)
    out = table + n * 12
    for j in tl.static_range(4):
        if j < 3:
            c0, c1, c2 = ray[j], ray[3 + j], ray[6 + j]
        else:
            c0, c1, c2 = -m0, -m1, -m2
        w0, w1 = _dot(turn[0], turn[1], turn[2], c0, c1, c2), _dot(turn[3], turn[4], turn[5], c0, c1, c2)
        w2 = _dot(turn[6], turn[7], turn[8], c0, c1, c2)
        x, y = _dot(first[0], first[1], first[2], w0, w1, w2), _dot(second[0], second[1], second[2], w0, w1, w2)
        z = _dot(third[0], third[1], third[2], w0, w1, w2)
        if j == 3:
            x, y, z = x + first[3], y + second[3], z + third[3]
        tl.store(out + j, x.to(tl.float32), mask=there)
        tl.store(out + 4 + j, y.to(tl.float32), mask=there)
        tl.store(out + 8 + j, z.to(tl.float32), mask=there)


@triton.jit
@no_type_check
def _dot(a0, a1, a2, b0, b1, b2):
    """Product of a row and a column, summed from left to right."""
    return (a0 * b0 + a1 * b1) + a2 * b2


@triton.jit
@no_type_check
def _column(first, step, there):
    """Three numbers of a matrix, in float64."""
    a, b = tl.load(first, mask=there, other=0.0), tl.load(first + step, mask=there, other=0.0)
    c = tl.load(first + 2 * step, mask=there, other=0.0)
    return a.to(tl.float64), b.to(tl.float64), c.to(tl.float64)


@triton.jit
@no_type_check
def _projection(row, pose, there):
    """A row of the product of intrinsics and pose, four numbers."""
    a, b, c = _column(row, 1, there)
    p0, p1, p2 = _column(pose, 4, there)
    q0, q1, q2 = _column(pose + 1, 4, there)
    r0, r1, r2 = _column(pose + 2, 4, there)
    s0, s1, s2 = _column(pose + 3, 4, there)
    return _dot(a, b, c, p0, p1, p2), _dot(a, b, c, q0, q1, q2), _dot(a, b, c, r0, r1, r2), _dot(a, b, c, s0, s1, s2)


@triton.jit
@no_type_check
def _inverse(matrix, step, there):
    """Inverse of 3 x 3 numbers by cofactors, in float64, row by row."""
    a, d, g = _column(matrix, step, there)
    b, e, h = _column(matrix + 1, step, there)
    c, f, i = _column(matrix + 2, step, there)
    r0, r1, r2 = e * i - f * h, h * c - i * b, b * f - c * e
    s0, s1, s2 = f * g - d * i, i * a - g * c, c * d - a * f
    t0, t1, t2 = d * h - e * g, g * b - h * a, a * e - b * d
    det = tl.where(there, _dot(a, b, c, r0, s0, t0), 1.0)
    return r0 / det, r1 / det, r2 / det, s0 / det, s1 / det, s2 / det, t0 / det, t1 / det, t2 / det


@triton.jit(do_not_specialize=["count", "sources"])
@no_type_check
def _surfels(
    plane,
    cell,
    reach,
    rank,
    source,
    name,
    table,
    alive,
    front,
    best,
    index_out,
    depth_out,
    hit_out,
    size_out,
    count,
    sources,
    source_cells,
    source_width,
    height,
    width,
    near,
    agree,
    least_x,
    most_x,
    least_y,
    most_y,
    STAGE: tl.constexpr,
    TILE: tl.constexpr,
):
    """One pass of `surfel_hits` over a tile of elements and a view; the numbers of steps are the specification's."""
    view = tl.program_id(1)
    flag = alive + tl.program_id(0).to(tl.int64) * tl.num_programs(1) + view
    if STAGE > 0 and tl.load(flag) == 0:
        return

    # 1. Only elements go on whose centre is in front of the camera and less than half a picture outside of it.
    n = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = n < count
    at = tl.load(cell + n, mask=there, other=0).to(tl.int32)
    src = tl.load(source + n, mask=there, other=0).to(tl.int32)
    center_x, center_y = (at % source_width).to(tl.float32) + 0.5, (at // source_width).to(tl.float32) + 0.5
    p0, p1, p2 = _three(plane + n.to(tl.int64) * 3, there)
    row = table + (view * sources + src) * 12
    m00, m01, m02 = _three(row, there)
    m03, m10, m11 = _three(row + 3, there)
    m12, m13, m20 = _three(row + 6, there)
    m21, m22, m23 = _three(row + 9, there)
    x = ((m02 + center_x * m00) + center_y * m01) + p0 * m03
    y = ((m12 + center_x * m10) + center_y * m11) + p0 * m13
    z = ((m22 + center_x * m20) + center_y * m21) + p0 * m23
    shown = there & (z > near * p0) & (x > least_x * z) & (x < most_x * z) & (y > least_y * z) & (y < most_y * z)
    if tl.max(shown.to(tl.int32), 0) == 0:
        return

    # 2. The element's homography [du, dv, 1] -> target, relative to the image of its centre.
    mid_x, mid_y = tl.div_rn(x, z), tl.div_rn(y, z)
    uz, vz = m20 + p1 * m23, m21 + p2 * m23
    ux, uy = (m00 + p1 * m03) - mid_x * uz, (m10 + p1 * m13) - mid_y * uz
    vx, vy = (m01 + p2 * m03) - mid_x * vz, (m11 + p2 * m13) - mid_y * vz

    # 3. Target cells whose centres lie in the box around its four corners.
    sides = reach + n.to(tl.int64) * 4
    left = tl.load(sides, mask=there, other=0).to(tl.float32) * STEP
    right = tl.load(sides + 1, mask=there, other=0).to(tl.float32) * STEP
    top = tl.load(sides + 2, mask=there, other=0).to(tl.float32) * STEP
    bottom = tl.load(sides + 3, mask=there, other=0).to(tl.float32) * STEP
    ax, ay = _corner(-left, -top, ux, uy, uz, vx, vy, vz, z)
    bx, by = _corner(right, -top, ux, uy, uz, vx, vy, vz, z)
    cx, cy = _corner(-left, bottom, ux, uy, uz, vx, vy, vz, z)
    ex, ey = _corner(right, bottom, ux, uy, uz, vx, vy, vz, z)
    x0, x1 = tl.minimum(tl.minimum(ax, bx), tl.minimum(cx, ex)), tl.maximum(tl.maximum(ax, bx), tl.maximum(cx, ex))
    y0, y1 = tl.minimum(tl.minimum(ay, by), tl.minimum(cy, ey)), tl.maximum(tl.maximum(ay, by), tl.maximum(cy, ey))
    size = tl.maximum(tl.div_rn(x1 - x0, left + right), tl.div_rn(y1 - y0, top + bottom))
    first_x, across = _range(x0 + mid_x, x1 + mid_x, width)
    first_y, down = _range(y0 + mid_y, y1 + mid_y, height)
    det, det_x, det_y = ux * vy - uy * vx, vz * uy - uz * vy, vx * uz - ux * vz
    number = tl.where(shown & (det > 0) & (size < INFINITY), across * down, 0)
    most = tl.max(number, 0)
    if STAGE == 0:
        tl.store(flag, (most > 0).to(tl.int8))
    else:
        blur = tl.minimum(tl.maximum(_log2_ceil(size * size * 0.5), 0), 15)
        blur += tl.minimum(tl.maximum(-_log2_ceil(size * 2), 0), 15)
        grade = (tl.load(rank + n, mask=there, other=0).to(tl.int64) << 6) + blur
        ident = tl.load(name + src, mask=there, other=0) * source_cells + at

    # 4. Per cell of the box: where does its central ray meet the plane?
    u_x, u_y, v_x, v_y, over = vy * z, vx * z, uy * z, ux * z, z * det
    beyond_left, beyond_right, beyond_top, beyond_bottom = left + SLOP, right + SLOP, top + SLOP, bottom + SLOP
    across = tl.maximum(across, 1)
    for nth in range(most):
        row_y, col_x = first_y + nth // across, first_x + nth % across
        dx, dy = (col_x.to(tl.float32) + 0.5) - mid_x, (row_y.to(tl.float32) + 0.5) - mid_y
        here = (det + dy * det_y) + dx * det_x
        du, dv = u_x * dx - u_y * dy, v_y * dy - v_x * dx  # times the determinant here
        under = (p0 * here + p1 * du) + p2 * dv
        inside = (nth < number) & (here > 0) & (du >= -beyond_left * here) & (du <= beyond_right * here)
        inside &= (dv >= -beyond_top * here) & (dv <= beyond_bottom * here) & (under > 0)
        depth, inverse = tl.div_rn(over, under), tl.div_rn(1.0, here)
        du, dv = du * inverse, dv * inverse
        inside &= (depth > near) & (depth < INFINITY)
        target = view.to(tl.int64) * height * width + tl.where(inside, row_y * width + col_x, 0)

        # 5. The front surface, then the best source of it: two minima, so order and threads do not matter.
        if STAGE == 0:  # positive floats order as their own bits
            bits = depth.to(tl.int32, bitcast=True)
            tl.atomic_min(front.to(tl.pointer_type(tl.int32)) + target, bits, mask=inside, sem="relaxed")
        else:
            inside &= _coarse(depth) <= _coarse(tl.load(front + target, mask=inside, other=0.0)) * agree
            outside = tl.maximum(tl.abs(du), tl.abs(dv)) > 0.5 + SLOP
            fringe = (left <= 0.5) & (du < -FRINGE) | (right <= 0.5) & (du > FRINGE)
            fringe |= (top <= 0.5) & (dv < -FRINGE) | (bottom <= 0.5) & (dv > FRINGE)
            key = ((((grade + (fringe.to(tl.int32) << 5)) << 1) | outside.to(tl.int64)) << 44) | ident
            if STAGE == 1:
                tl.atomic_min(best + target, key, mask=inside, sem="relaxed")
            else:
                inside &= key == tl.load(best + target, mask=inside, other=0)
                tl.store(index_out + target, n.to(tl.int64), mask=inside)
                tl.store(depth_out + target, depth, mask=inside)
                tl.store(hit_out + target * 2, tl.floor(du * 1024 + 0.5) * (1 / 1024) + center_x, mask=inside)
                tl.store(hit_out + target * 2 + 1, tl.floor(dv * 1024 + 0.5) * (1 / 1024) + center_y, mask=inside)
                tl.store(size_out + target, size, mask=inside)


@triton.jit
@no_type_check
def _corner(du, dv, ux, uy, uz, vx, vy, vz, oz):
    """Image of a corner of an element, relative to that of its centre."""
    inverse = tl.div_rn(1.0, tl.maximum((oz + uz * du) + vz * dv, 0.001 * oz))
    return (ux * du + vx * dv) * inverse, (uy * du + vy * dv) * inverse


@triton.jit
@no_type_check
def _range(low, high, size):
    """First cell whose centre lies in an interval, and how many do."""
    first = tl.ceil(tl.minimum(tl.maximum((low - 0.5) - SLOP, -1.0), size)).to(tl.int32)
    last = tl.floor(tl.minimum(tl.maximum((high - 0.5) + SLOP, -1.0), size)).to(tl.int32)
    first = tl.maximum(first, 0)
    return first, tl.maximum(tl.minimum(last, size - 1) - first + 1, 0)


@triton.jit
@no_type_check
def _coarse(depth):
    """Depth to ten bits, rounded down."""
    return (depth.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def _log2_ceil(x):
    """Base-2 logarithm of positive numbers, rounded up, from their bits."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits >> 23) - 127 + ((bits & 0x7FFFFF) != 0).to(tl.int32)


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
    count, channels, tile = len(chosen), features.shape[1], 16
    block = min(64, triton.next_power_of_2(channels))
    out = features.new_empty(count, channels)
    tensors = (x.contiguous() for x in (features, plane, cell, source, lookup, chosen, hit))
    grid = (triton.cdiv(count, tile), triton.cdiv(channels, block))
    sizes = (count, channels, *lookup.shape[1:], tolerance)
    launch(_gather, grid, *tensors, out, *sizes, TILE=tile, BLOCK=block)
    return out


@triton.jit(do_not_specialize=["count"])
@no_type_check
def _gather(
    features,
    plane,
    cell,
    source,
    lookup,
    chosen,
    hit,
    out,
    count,
    channels,
    height,
    width,
    tolerance,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Taps and weighted rows of a tile of hits, for a block of channels."""
    m = (tl.program_id(0) * TILE + tl.arange(0, TILE))[:, None].to(tl.int64)
    there = m < count
    element = tl.load(chosen + m, mask=there, other=-1)
    some = element >= 0
    hit_x, hit_y = tl.load(hit + m * 2, mask=some, other=0.5), tl.load(hit + m * 2 + 1, mask=some, other=0.5)
    left, top = tl.floor(hit_x - 0.5), tl.floor(hit_y - 0.5)
    right_share, bottom_share = (hit_x - 0.5) - left, (hit_y - 0.5) - top
    at = tl.load(cell + element, mask=some, other=0).to(tl.int32)
    view = tl.load(source + element, mask=some, other=0).to(tl.int64)
    mine_x, mine_y = (at % width).to(tl.float32) + 0.5, (at // width).to(tl.float32) + 0.5
    p0, p1, p2 = _three(plane + element * 3, some)
    truth = (p0 + (hit_x - mine_x) * p1) + (hit_y - mine_y) * p2
    base = lookup + view * height * width
    own = (element, some, p0, p1, p2, truth, mine_x, mine_y, hit_x, hit_y)
    x, y = left.to(tl.int32), top.to(tl.int32)
    n0, w0 = _tap(base, plane, x, y, height, width, (1 - right_share) * (1 - bottom_share), tolerance, own)
    n1, w1 = _tap(base, plane, x + 1, y, height, width, right_share * (1 - bottom_share), tolerance, own)
    n2, w2 = _tap(base, plane, x, y + 1, height, width, (1 - right_share) * bottom_share, tolerance, own)
    n3, w3 = _tap(base, plane, x + 1, y + 1, height, width, right_share * bottom_share, tolerance, own)
    total = tl.where(some, ((w0 + w1) + w2) + w3, 1.0)
    w0, w1, w2, w3 = tl.div_rn(w0, total), tl.div_rn(w1, total), tl.div_rn(w2, total), tl.div_rn(w3, total)

    channel = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    valid = some & (channel < channels)
    f0 = tl.load(features + n0 * channels + channel, mask=valid, other=0.0).to(tl.float32) * w0
    f1 = tl.load(features + n1 * channels + channel, mask=valid, other=0.0).to(tl.float32) * w1
    f2 = tl.load(features + n2 * channels + channel, mask=valid, other=0.0).to(tl.float32) * w2
    f3 = tl.load(features + n3 * channels + channel, mask=valid, other=0.0).to(tl.float32) * w3
    value = (((f0 + f1) + f2) + f3).to(out.dtype.element_ty)
    tl.store(out + m * channels + channel, value, mask=there & (channel < channels))


@triton.jit
@no_type_check
def _tap(base, plane, x, y, height, width, share, tolerance, own):
    """One neighbour of each hit and its weight: none unless it exists and either plane foretells the other."""
    element, some, p0, p1, p2, truth, mine_x, mine_y, hit_x, hit_y = own
    inside = some & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    neighbour = tl.load(base + y * width + x, mask=inside, other=-1).to(tl.int64)
    exists = neighbour >= 0
    neighbour = tl.where(exists, neighbour, element)
    q0, q1, q2 = _three(plane + neighbour * 3, some)
    their_x, their_y = x.to(tl.float32) + 0.5, y.to(tl.float32) + 0.5
    agrees = tl.abs(((q0 + (hit_x - their_x) * q1) + (hit_y - their_y) * q2) - truth) <= tolerance * truth
    foretold = (p0 + (their_x - mine_x) * p1) + (their_y - mine_y) * p2
    agrees |= tl.abs(foretold - q0) <= tolerance * q0
    return neighbour, tl.where(exists & agrees, share, 0.0)


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
    total, block = torch.zeros(len(points), dtype=torch.int64, device=points.device), 128
    if not len(plane):
        return total
    tensors = (x.contiguous() for x in (points, plane, lookup, intrinsics, cam_from_world))
    sizes = (len(points), *lookup.shape, 1 + tolerance)
    launch(_seen_through, (triton.cdiv(len(points), block),), *tensors, total, *sizes, STRICT=strict, BLOCK=block)
    return total


@triton.jit(do_not_specialize=["count", "views"])
@no_type_check
def _seen_through(
    points,
    plane,
    lookup,
    intrinsics,
    pose,
    total,
    count,
    views,
    height,
    width,
    agree,
    STRICT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < count
    seen = tl.zeros([BLOCK], tl.int64)
    for view in range(views):
        u, v, z = _image(points, intrinsics + view * 9, pose + view * 16, n, there)
        free, limit = there & (z > 0), z * agree
        image = lookup + tl.cast(view, tl.int64) * height * width
        if STRICT:
            free = _free(image, plane, u - 0.5, v - 0.5, u, v, limit, height, width, free, STRICT)
            free = _free(image, plane, u + 0.5, v - 0.5, u, v, limit, height, width, free, STRICT)
            free = _free(image, plane, u - 0.5, v + 0.5, u, v, limit, height, width, free, STRICT)
            free = _free(image, plane, u + 0.5, v + 0.5, u, v, limit, height, width, free, STRICT)
        else:
            free = _free(image, plane, u, v, u, v, limit, height, width, free, STRICT)
        seen += free.to(tl.int64)
    tl.store(total + n, seen, mask=there)


@triton.jit
@no_type_check
def _free(image, plane, at_x, at_y, u, v, limit, height, width, free, STRICT: tl.constexpr):
    """Which of the points so far free are in front of the surface that the view has at a place."""
    column, row = tl.floor(at_x), tl.floor(at_y)
    free = free & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    x, y = tl.where(free, column, 0.0).to(tl.int32), tl.where(free, row, 0.0).to(tl.int32)
    element = tl.load(image + y * width + x, mask=free, other=-1).to(tl.int64)
    free = free & (element >= 0)
    surface, p1, p2 = _three(plane + element * 3, free)
    if not STRICT:
        surface = (surface + (u - (x.to(tl.float32) + 0.5)) * p1) + (v - (y.to(tl.float32) + 0.5)) * p2
    return free & (surface * limit < 1)


def voxel_overlap(
    points: Float32[Tensor, "n 3"],
    view: Int[Tensor, " n"],
    other_points: Float32[Tensor, "m 3"],
    other_view: Int[Tensor, " m"],
    views: int,
    other_views: int,
    size: float,
) -> Float32[Tensor, "{views} {other_views}"]:
    """Occupied voxels are bits, one per view, and who sets a bit first counts it. See `voxel_overlap`."""
    device, count, others = points.device, len(points), len(other_points)
    new = lambda *shape: torch.zeros(shape, dtype=torch.int32, device=device)
    alone, shared = new(views + other_views), new(views, other_views)
    if not count + others:
        return shared.float()
    # A number for each occupied voxel, axis after axis. Divided by a tensor: by a number, GPUs multiply by its inverse.
    unit = torch.full((), size, dtype=torch.float64, device=device)
    place = (torch.cat([points, other_points]).double() / unit).floor().clamp(-(2.0**62), 2.0**62).long()
    number = torch.zeros_like(place[:, 0])
    for axis in place.unbind(-1):
        number = _rank(number * len(place) + _rank(axis))
    owner = torch.cat([view.long(), other_view.long() + views])
    words = triton.cdiv(views + other_views, 32)
    bits, block = new(len(place), words), 128
    sizes = (words, views, other_views)
    run = lambda first, last, other: launch(
        _occupy,
        (triton.cdiv(last - first, block),),
        *(number, owner, bits, alone, shared, first, last, *sizes),
        OTHER=other,
        BLOCK=block,
    )
    run(0, count, False)
    run(count, count + others, True)
    union = alone[:views, None] + alone[views:] - shared
    return shared.float() / union.clamp(min=1).float()


def _rank(values: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How many different values are smaller, for each."""
    ordered, order = values.sort()
    steps = torch.zeros_like(ordered)
    steps[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(ordered).scatter_(0, order, steps.cumsum(0))


@triton.jit(do_not_specialize=["first", "last", "words", "views", "other_views"])
@no_type_check
def _occupy(
    number, owner, bits, alone, shared, first, last, words, views, other_views, OTHER: tl.constexpr, BLOCK: tl.constexpr
):
    """Mark the voxels of points for their views, each counted once; with `OTHER` also the views that share them."""
    n = first + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < last
    who = tl.load(owner + n, mask=there, other=0).to(tl.int32)
    there = there & (who >= 0) & (who < views + other_views)
    row = bits + tl.load(number + n, mask=there, other=0) * words
    mark = (who * 0 + 1) << (who % 32)
    new = there & ((tl.atomic_or(row + who // 32, mark, mask=there, sem="relaxed") & mark) == 0)
    tl.atomic_add(alone + who, 1, mask=new, sem="relaxed")
    if OTHER:
        for view in range(views):
            both = new & (((tl.load(row + view // 32, mask=new, other=0) >> (view % 32)) & 1) != 0)
            tl.atomic_add(shared + view * other_views + (who - views), 1, mask=both, sem="relaxed")
