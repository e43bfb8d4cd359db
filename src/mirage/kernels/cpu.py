"""The memory's arithmetic on the CPU, compiled by numba: the same bits as `reference`, only faster.

Every line that decides a winner is the reference's, in its order, in float32 (hence no fastmath). What is passed over
in runs is passed over by bounds that are wider than any rounding. Views, or ranges of rows, are shared among as many
threads as torch may use; each writes to places of its own, so the number of threads changes nothing. What is small is
left to the reference, so that nobody waits for the compiler for its sake.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from mirage.kernels import compiled, reference
from mirage.kernels.compiled import HALF, INF, ONE, ROUNDING, ZERO, array, each, jit, parts
from mirage.kernels.cpu_hits import surfel_hits as surfel_hits
from mirage.kernels.cpu_lift import cell_planes as cell_planes
from mirage.kernels.reference import voxel_overlap as voxel_overlap

GROUP = 16  # points that are passed over together
BLOCK = 512  # points that are projected in one go


# --- nearest point and free space ---------------------------------------------------------------------------------


def nearest_index(
    points: Float32[Tensor, "n 3"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    near: float,
) -> Int64[Tensor, "v {height*width}"]:
    """See `splat_nearest`."""
    k, pose, ranges = array(intrinsics), array(cam_from_world), parts(len(points), GROUP)
    index = torch.empty(len(k), height * width, dtype=torch.int64)
    columns, boxes = array(points.T), np.empty((6, -(-len(points) // GROUP)), np.float32)
    index_ = index.numpy()

    def part(number: int) -> None:
        some = ranges[number]
        _boxes(columns, boxes, some.start // GROUP, -(-some.stop // GROUP))

    def view(v: int) -> None:
        _nearest(columns, boxes, k[v], pose[v], height, width, np.float32(near), index_[v])

    each(len(ranges), len(points), part)
    each(len(k), len(k) * len(points), view)
    return index


def rows(features: Float[Tensor, "n c"], index: Int64[Tensor, " m"]) -> Float[Tensor, "m c"]:
    """See `splat_nearest`."""
    empty = (index < 0).nonzero()[:, 0]
    return features.index_select(0, index.clamp(min=0)).index_fill_(0, empty, 0)


@jit
def _boxes(columns, boxes, first, last):
    """Middle and half extent of some groups of points."""
    for axis in range(3):
        column = columns[axis]
        for group in range(first, last):
            low, high = INF, -INF
            for value in column[group * GROUP : (group + 1) * GROUP]:
                low, high = value if value < low else low, value if value > high else high
            boxes[axis, group], boxes[3 + axis, group] = HALF * (low + high), HALF * (high - low)


@jit
def _seen_groups(planes, scales, boxes, seen):
    """Mark the groups whose box is not on the far side of one of the half-spaces, by more than rounding."""
    seen[:] = True
    for i in range(len(planes)):
        a, b, c, d = planes[i, 0], planes[i, 1], planes[i, 2], planes[i, 3]
        slack = np.float32(ROUNDING)
        e, f, g, h = slack * scales[i, 0], slack * scales[i, 1], slack * scales[i, 2], slack * scales[i, 3]
        for group in range(boxes.shape[1]):
            x, y, z = boxes[0, group], boxes[1, group], boxes[2, group]
            dx, dy, dz = boxes[3, group], boxes[4, group], boxes[5, group]
            most = d + h + (a * x + b * y + c * z) + (abs(a) * dx + abs(b) * dy + abs(c) * dz)
            most += e * (abs(x) + dx) + f * (abs(y) + dy) + g * (abs(z) + dz)
            seen[group] &= most >= ZERO


@jit
def _borders(k, pose, height, width):
    """Half-spaces that hold all that is in a picture: in front, right of its left border, and so on."""
    planes = np.zeros((5, 4), np.float64)
    for j in range(4):
        x, y, z = np.float64(pose[0, j]), np.float64(pose[1, j]), np.float64(pose[2, j])
        planes[0, j] = z
        planes[1, j] = k[0, 0] * x + k[0, 2] * z
        planes[2, j] = (width - k[0, 2]) * z - k[0, 0] * x
        planes[3, j] = k[1, 1] * y + k[1, 2] * z
        planes[4, j] = (height - k[1, 2]) * z - k[1, 1] * y
    return planes


@jit
def _scales(k, pose, height, width):
    """Size of the terms of `_borders`, for the width of the bounds."""
    scales = np.zeros((5, 4), np.float64)
    for j in range(4):
        x, y, z = abs(np.float64(pose[0, j])), abs(np.float64(pose[1, j])), abs(np.float64(pose[2, j]))
        across = abs(k[0, 0]) * x + (abs(k[0, 2]) + width) * z
        down = abs(k[1, 1]) * y + (abs(k[1, 2]) + height) * z
        scales[0, j], scales[1, j], scales[2, j], scales[3, j], scales[4, j] = z, across, across, down, down
    return scales


@jit
def _project(xs, ys, zs, k, pose, u, v, z):
    """Column, row and depth of a few points, as in the reference."""
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    r00, r01, r02, t0 = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, t1 = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, t2 = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    for i in range(len(xs)):
        px, py, pz = xs[i], ys[i], zs[i]
        depth = ((r20 * px + r21 * py) + r22 * pz) + t2
        safe = depth if depth > ZERO else ONE
        u[i] = fx * ((((r00 * px + r01 * py) + r02 * pz) + t0) / safe) + cx
        v[i] = fy * ((((r10 * px + r11 * py) + r12 * pz) + t1) / safe) + cy
        z[i] = depth


@jit
def _nearest(columns, boxes, k, pose, height, width, near, index):
    planes, scales = _borders(k, pose, height, width), _scales(k, pose, height, width)
    groups, seen = boxes.shape[1], np.empty(boxes.shape[1], np.bool_)
    _seen_groups(planes.astype(np.float32), scales.astype(np.float32), boxes, seen)
    z, cells = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    best, won = np.full(height * width + 1, INF, np.float32), np.full(height * width + 1, -1, np.int32)
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    r00, r01, r02, t0 = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, t1 = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, t2 = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    tall, wide, step, none, group = np.float32(height), np.float32(width), np.int32(width), np.int32(height * width), 0
    best[none] = -INF  # points outside win nothing there
    while group < groups:
        if not seen[group]:
            group += 1
            continue
        first = group
        while group < groups and group < first + BLOCK // GROUP and seen[group]:
            group += 1
        start = first * GROUP
        xs, ys, zs = (
            columns[0][start : group * GROUP],
            columns[1][start : group * GROUP],
            columns[2][start : group * GROUP],
        )
        for i in range(len(xs)):  # as in the reference
            px, py, pz = xs[i], ys[i], zs[i]
            depth = ((r20 * px + r21 * py) + r22 * pz) + t2
            safe = depth if depth > ZERO else ONE
            u = fx * ((((r00 * px + r01 * py) + r02 * pz) + t0) / safe) + cx
            v = fy * ((((r10 * px + r11 * py) + r12 * pz) + t1) / safe) + cy
            inside = (depth > near) & (u >= ZERO) & (u < wide) & (v >= ZERO) & (v < tall)
            x, y = u if inside else ZERO, v if inside else ZERO
            cell = np.int32(np.int32(y) * step + np.int32(x))
            z[i], cells[i] = depth, cell if inside else none
        for i in range(len(xs)):
            if z[i] < best[cells[i]]:  # of equals the first: indices rise
                best[cells[i]], won[cells[i]] = z[i], start + i
    for cell in range(height * width):
        index[cell] = won[cell]


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
    total = torch.zeros(len(points), dtype=torch.int64)
    if not len(plane):
        return total
    columns, total_, ranges = array(points.T), total.numpy(), parts(len(points))
    views = (array(plane), array(lookup, torch.int32), array(intrinsics), array(cam_from_world))

    def part(number: int) -> None:
        rows = ranges[number]
        _seen(*columns[:, rows], *views, np.float32(1 + tolerance), strict, total_[rows])

    each(len(ranges), len(points) * len(lookup), part)
    return total


@jit
def _seen(xs, ys, zs, plane, lookup, intrinsics, cam_from_world, factor, strict, total):
    height, width = lookup.shape[1], lookup.shape[2]
    u, v, z = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    tall, wide, shift = np.float32(height), np.float32(width), HALF if strict else ZERO
    for start in range(0, len(xs), BLOCK):
        x_, y_, z_ = xs[start : start + BLOCK], ys[start : start + BLOCK], zs[start : start + BLOCK]
        for view in range(len(lookup)):
            _project(x_, y_, z_, intrinsics[view], cam_from_world[view], u, v, z)
            for i in range(len(x_)):
                x, y = u[i] - shift, v[i] - shift
                if not (z[i] > ZERO and x >= ZERO and x < wide and y >= ZERO and y < tall):
                    continue
                column, row, limit = np.int64(x), np.int64(y), z[i] * factor
                element = lookup[view, row, column]
                if element < 0:
                    continue
                if not strict:
                    a = plane[element, 0] + (u[i] - (np.float32(column) + HALF)) * plane[element, 1]
                    a = a + (v[i] - (np.float32(row) + HALF)) * plane[element, 2]
                    total[start + i] += a * limit < ONE
                    continue
                if not plane[element, 0] * limit < ONE:
                    continue
                # The three other cells, found as in the reference: adding a half may round to the next one.
                right, below = np.floor(u[i] + HALF), np.floor(v[i] + HALF)
                if not (right < wide and below < tall):
                    continue
                a, b, c = lookup[view, row, np.int64(right)], lookup[view, np.int64(below), column], 0
                c = lookup[view, np.int64(below), np.int64(right)]
                if a < 0 or b < 0 or c < 0:
                    continue
                free = plane[a, 0] * limit < ONE and plane[b, 0] * limit < ONE and plane[c, 0] * limit < ONE
                total[start + i] += free


def surfel_points(
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    width: int,
    matrix: Float32[Tensor, "s 3 3"],
    center: Float32[Tensor, "s 3"],
) -> Float32[Tensor, "n 3"]:
    """See `surfel_points`."""
    if len(plane) < compiled.SMALL:
        return reference.surfel_points(plane, cell, source, width, matrix, center)
    out, which = torch.empty(3, len(plane)), parts(len(plane))  # a coordinate after the other, as `nearest_index` wants
    given = array(plane), array(cell, torch.int32), array(source, torch.int32)
    out_, matrix_, center_ = out.numpy(), array(matrix), array(center)

    def part(number: int) -> None:
        some = which[number]
        _points(*(value[some] for value in given), np.int32(width), matrix_, center_, *(axis[some] for axis in out_))

    each(len(which), len(plane), part)
    return out.T


@jit
def _points(plane, cell, source, width, matrix, center, xs, ys, zs):
    """World points of the centres of cells, run by run of one source."""
    first, across = 0, 1.0 / width
    while first < len(cell):
        s, last = source[first], first
        while last < len(cell) and source[last] == s:
            last += 1
        m, c = matrix[s], center[s]
        m00, m01, m02, c0 = m[0, 0], m[0, 1], m[0, 2], c[0]
        m10, m11, m12, c1 = m[1, 0], m[1, 1], m[1, 2], c[1]
        m20, m21, m22, c2 = m[2, 0], m[2, 1], m[2, 2], c[2]
        for e in range(first, last):
            row = np.int32((cell[e] + 0.5) * across)
            x, y, inverse = np.float32(cell[e] - row * width) + HALF, np.float32(row) + HALF, plane[e, 0]
            xs[e] = ((m00 * x + m01 * y) + m02) / inverse + c0
            ys[e] = ((m10 * x + m11 * y) + m12) / inverse + c1
            zs[e] = ((m20 * x + m21 * y) + m22) / inverse + c2
        first = last


# --- backward gather ----------------------------------------------------------------------------------------------


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
    if features.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return reference.gather_rows(features, plane, cell, source, lookup, chosen, hit, tolerance)
    half = features.dtype != torch.float32
    rows = array(features.view(torch.int16) if half else features)
    elements = (array(plane), array(cell, torch.int32), array(source, torch.int32), array(lookup, torch.int32))
    chosen_, hit_, ranges = array(chosen), array(hit), parts(len(chosen))
    out = torch.empty(len(chosen), features.shape[1])
    out_ = out.numpy()

    def part(number: int) -> None:
        some = ranges[number]
        tap, weight = np.empty((len(chosen_[some]), 4), np.int32), np.empty((len(chosen_[some]), 4), np.float32)
        _taps(*elements, chosen_[some], hit_[some], np.float32(tolerance), tap, weight)
        if half:
            _sum_halves(rows, features.dtype == torch.float16, tap, weight, out_[some])
        else:
            _sum_rows(rows, tap, weight, out_[some])

    each(len(ranges), len(chosen) * features.shape[1] // 8, part)
    return out.to(features.dtype)


@jit
def _taps(plane, cell, source, lookup, chosen, hit, tolerance, tap, weight):
    """The four source cells around each hit and their weights; one counts if either plane foretells the other."""
    height, width = lookup.shape[1], lookup.shape[2]
    for i in range(len(chosen)):
        e = chosen[i]
        tap[i], weight[i] = e, ZERO
        if e < 0:
            continue
        s, mine_x, mine_y = source[e], np.float32(cell[e] % width) + HALF, np.float32(cell[e] // width) + HALF
        hit_x, hit_y = hit[i, 0], hit[i, 1]
        corner_x, corner_y = np.floor(hit_x - HALF), np.floor(hit_y - HALF)
        fraction_x, fraction_y = (hit_x - HALF) - corner_x, (hit_y - HALF) - corner_y
        truth = (plane[e, 0] + (hit_x - mine_x) * plane[e, 1]) + (hit_y - mine_y) * plane[e, 2]
        for k in range(4):
            x, y = np.int64(corner_x) + (k & 1), np.int64(corner_y) + (k >> 1)
            if x < 0 or x >= width or y < 0 or y >= height or lookup[s, y, x] < 0:
                continue
            n, their_x, their_y = lookup[s, y, x], np.float32(x) + HALF, np.float32(y) + HALF
            at_hit = (plane[n, 0] + (hit_x - their_x) * plane[n, 1]) + (hit_y - their_y) * plane[n, 2]
            at_them = (plane[e, 0] + (their_x - mine_x) * plane[e, 1]) + (their_y - mine_y) * plane[e, 2]
            if abs(at_hit - truth) <= tolerance * truth or abs(at_them - plane[n, 0]) <= tolerance * plane[n, 0]:
                share = (fraction_x if k & 1 else ONE - fraction_x) * (fraction_y if k >> 1 else ONE - fraction_y)
                tap[i, k], weight[i, k] = n, share
        total = ((weight[i, 0] + weight[i, 1]) + weight[i, 2]) + weight[i, 3]
        for k in range(4):
            weight[i, k] /= total


@jit
def _sum_rows(features, tap, weight, out):
    for i in range(len(tap)):
        if tap[i, 0] < 0:
            out[i] = ZERO
            continue
        f0, f1, f2, f3 = features[tap[i, 0]], features[tap[i, 1]], features[tap[i, 2]], features[tap[i, 3]]
        w0, w1, w2, w3 = weight[i, 0], weight[i, 1], weight[i, 2], weight[i, 3]
        for c in range(len(f0)):
            out[i, c] = ((f0[c] * w0 + f1[c] * w1) + f2[c] * w2) + f3[c] * w3


@jit
def _sum_halves(features, is_float16, tap, weight, out):
    """As `_sum_rows`, for half precision given as its bits, which are widened here."""
    bits, shift = np.empty((4, features.shape[1]), np.int32), np.int32(13 if is_float16 else 16)
    values, mask = bits.view(np.float32), np.int32(0x7FFF if is_float16 else 0xFFFF)
    rescale = np.float32(2.0**112)
    for i in range(len(tap)):
        if tap[i, 0] < 0:
            out[i] = ZERO
            continue
        w0, w1, w2, w3 = weight[i, 0], weight[i, 1], weight[i, 2], weight[i, 3]
        for k in range(4):
            row = features[tap[i, k]]
            for c in range(len(row)):
                bits[k, c] = (np.int32(row[c]) & mask) << shift
            if is_float16:
                for c in range(len(row)):
                    values[k, c] *= rescale if row[c] >= 0 else -rescale
        for c in range(out.shape[1]):
            out[i, c] = ((values[0, c] * w0 + values[1, c] * w1) + values[2, c] * w2) + values[3, c] * w3
