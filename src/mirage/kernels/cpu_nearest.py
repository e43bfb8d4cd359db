"""The nearest read on the CPU, compiled by numba: the bits of `reference.nearest_points` and `nearest_cells`.

Points are bounded in groups, and a view passes over the groups that it cannot see. Cells of source views are bounded
in column, row and inverse depth, so that points which no view sees are never made.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from mirage.kernels import compiled, reference
from mirage.kernels.compiled import HALF, ONE, ROUNDING, ZERO, array, each, jit, parts

GROUP = 16  # points that are passed over together
BLOCK = 512  # points that are projected in one go
CHUNK = 4096  # elements that are bounded, compared with the views and made points of while they are in the cache
SLACK = np.float32(ROUNDING)
NOTHING = np.int64(reference.EMPTY)


def nearest_points(
    points: Float32[Tensor, "n 3"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    near: float,
) -> tuple[Int64[Tensor, "v {height*width}"], Float32[Tensor, "v {height*width}"]]:
    """See `splat_nearest`."""
    columns, views = array(points.T), (array(intrinsics), array(cam_from_world))
    seen, ranges = np.empty((len(intrinsics), -(-len(points) // GROUP)), np.bool_), parts(len(points), GROUP)

    def part(number: int) -> None:
        _see_points(columns, *views, height, width, ranges[number].start, ranges[number].stop, seen)

    each(len(ranges), len(points), part)
    return _nearest_seen(columns, seen, *views, height, width, near)


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
    if (len(plane) + height * width) * len(intrinsics) < compiled.SMALL // 4:
        target = (intrinsics, cam_from_world, height, width, near)
        return reference.nearest_cells(plane, cell, source, columns, matrix, center, *target)
    elements = (array(plane), array(cell, torch.int32), array(source, torch.int32))
    unproject, views = (array(matrix), array(center)), (array(intrinsics), array(cam_from_world))
    seen, ranges = np.empty((len(intrinsics), -(-len(plane) // GROUP)), np.bool_), parts(len(plane), GROUP)
    points = np.empty((3, len(plane)), np.float32)

    def part(number: int) -> None:
        some = ranges[number].start, ranges[number].stop
        _see_cells(*elements, np.int32(columns), *unproject, *views, height, width, *some, seen, points)

    each(len(ranges), len(plane), part)
    return _nearest_seen(points, seen, *views, height, width, near)


def _nearest_seen(points, seen, intrinsics, pose, height, width, near):
    """The nearest of the points that each view may see and its depth; views with many of them come first."""
    index, depth = torch.empty(len(seen), height * width, dtype=torch.int64), torch.empty(len(seen), height * width)
    work, index_, depth_ = [np.count_nonzero(groups) for groups in seen], index.numpy(), depth.numpy()
    order = sorted(range(len(seen)), key=lambda v: -work[v])

    def view(number: int) -> None:
        v = order[number]
        _nearest(points, seen[v], intrinsics[v], pose[v], height, width, np.float32(near), index_[v], depth_[v])

    each(len(seen), GROUP * int(sum(work)), view)
    return index, depth


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
    out, ranges = torch.empty(3, len(plane)), parts(len(plane))
    inverse, places = array(plane[:, 0]), (array(cell, torch.int32), array(source, torch.int32))
    out_, unproject = out.numpy(), (array(matrix), array(center))

    def part(number: int) -> None:
        some = ranges[number]
        _points(inverse, 0, *places, some.start, some.stop, np.int32(width), *unproject, *out_)

    each(len(ranges), len(plane), part)
    return out.T


def rows(features: Float[Tensor, "n c"], index: Int64[Tensor, " m"]) -> Float[Tensor, "m c"]:
    """See `splat_nearest`."""
    out, ranges = features.new_empty(len(index), features.shape[1]), parts(len(index))
    given, index_, out_ = array(features.contiguous().view(torch.uint8)), array(index), out.view(torch.uint8).numpy()
    each(len(ranges), len(index), lambda number: _rows(given, index_[ranges[number]], out_[ranges[number]]))
    return out


@jit
def _rows(features, index, out):
    for i in range(len(index)):
        e = index[i]
        for byte in range(out.shape[1] if e >= 0 else 0):
            out[i, byte] = features[e, byte]
        for byte in range(out.shape[1] if e < 0 else 0):
            out[i, byte] = 0


@jit
def _see_points(columns, intrinsics, pose, height, width, start, stop, seen):
    """Which groups of points each view may see, by their boxes in space."""
    groups = (stop - start + GROUP - 1) // GROUP
    boxes, order = np.empty((6, groups), np.float32), np.empty(stop - start, np.int32)
    low, high, m, sizes = np.empty(groups, np.int32), np.empty(groups, np.int32), np.empty((3, 4)), np.empty((3, 4))
    least, most = low.view(np.float32), high.view(np.float32)
    for axis in range(3):
        bits = columns[axis, start:stop].view(np.int32)
        for i in range(len(order)):
            order[i] = _order(bits[i])
        _extents(order, 0, len(order), low, high)
        for group in range(groups):
            low[group], high[group] = _order(low[group]), _order(high[group])
            boxes[axis, group] = HALF * least[group] + HALF * most[group]
            boxes[3 + axis, group] = HALF * most[group] - HALF * least[group]
    for view in range(len(seen)):
        for i in range(3):
            for j in range(4):
                m[i, j], sizes[i, j] = pose[view, i, j], abs(pose[view, i, j])
        _mark(intrinsics[view], m, sizes, height, width, boxes, 0, groups, seen[view, start // GROUP :])


@jit
def _see_cells(
    plane, cell, source, columns, matrix, center, intrinsics, pose, height, width, first_cell, last_cell, seen, points
):
    """Which groups of cells each view may see, by the bounds of column, row and inverse depth; the points of these."""
    boxes, owner = np.empty((6, CHUNK // GROUP), np.float32), np.empty(CHUNK // GROUP, np.int32)
    marks, shown = np.empty((len(seen), CHUNK // GROUP), np.bool_), np.empty(CHUNK // GROUP, np.bool_)
    inverse, m, sizes = np.empty(CHUNK, np.float32), np.empty((3, 4), np.float64), np.empty((3, 4), np.float64)
    xs, ys, zs = points[0], points[1], points[2]
    for start in range(first_cell, last_cell, CHUNK):
        stop = min(start + CHUNK, last_cell)
        groups = (stop - start + GROUP - 1) // GROUP
        for e in range(np.uint64(start), np.uint64(stop)):
            inverse[e - np.uint64(start)] = plane[e, 0]
        _bounds(inverse, cell, source, start, stop, columns, boxes, owner[:groups])
        first = 0
        while first < groups:
            last, s = first + 1, owner[first]
            while last < groups and owner[last] == s:
                last += 1
            for view in range(len(seen)):
                if s < 0:
                    marks[view, first:last] = True
                else:
                    _compose(pose[view], matrix[s], center[s], m, sizes)
                    _mark(intrinsics[view], m, sizes, height, width, boxes, first, last, marks[view])
            first = last
        shown[:] = False
        for view in range(len(seen)):
            for group in range(groups):
                shown[group] |= marks[view, group]
                seen[view, start // GROUP + group] = marks[view, group]
        for group in range(groups):
            if shown[group]:
                a, b = start + group * GROUP, min(start + group * GROUP + GROUP, stop)
                _points(inverse, start, cell, source, a, b, columns, matrix, center, xs, ys, zs)


@jit
def _compose(pose, matrix, center, m, sizes):
    """The map of [u, v, w, 1] to the camera's coordinates times inverse depth w, and the sizes of its terms."""
    for i in range(3):
        m[i, 2], sizes[i, 2] = pose[i, 3], abs(pose[i, 3])
        for j in range(3):
            turn, at = np.float64(pose[i, j]), j + j // 2
            m[i, 2] += turn * center[j]
            sizes[i, 2] += abs(turn * center[j])
            m[i, at], sizes[i, at] = 0, 0
            for k in range(3):
                term = np.float64(pose[i, k]) * matrix[k, j]
                m[i, at] += term
                sizes[i, at] += abs(term)


@jit
def _bounds(inverse, cell, source, start, stop, width, boxes, owner):
    """Middle and half extent of groups of cells, and their source: -1 if they have several, or no depth."""
    groups, across = len(owner), 1.0 / width
    c0, c1, s1 = np.empty(groups, np.int32), np.empty(groups, np.int32), np.empty(groups, np.int32)
    w0, w1 = np.empty(groups, np.int32), np.empty(groups, np.int32)
    _extents(cell, start, stop, c0, c1)
    _extents(source, start, stop, owner, s1)
    _extents(inverse.view(np.int32), 0, stop - start, w0, w1)  # positive floats order as their own bits
    far, near = w0.view(np.float32), w1.view(np.float32)
    for group in range(groups):
        if owner[group] != s1[group] or w0[group] <= 0:
            owner[group] = -1
        top, bottom = np.int32((c0[group] + 0.5) * across), np.int32((c1[group] + 0.5) * across)
        left, right = c0[group] - top * width, c1[group] - bottom * width
        left, right = left if top == bottom else np.int32(0), right if top == bottom else np.int32(width - 1)
        boxes[0, group], boxes[3, group] = HALF * np.float32(left + right + 1), HALF * np.float32(right - left)
        boxes[1, group], boxes[4, group] = HALF * np.float32(top + bottom + 1), HALF * np.float32(bottom - top)
        boxes[2, group], boxes[5, group] = HALF * (far[group] + near[group]), HALF * (near[group] - far[group])


@jit
def _order(bits):
    """An integer that orders as the float of these bits; from this integer the bits."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFF_FFFF)))


@jit
def _extents(values, start, stop, least, most):
    """Least and greatest number of each group."""
    for group in range(len(least)):
        low, high = values[start + group * GROUP], values[start + group * GROUP]
        for e in range(np.uint64(start + group * GROUP), np.uint64(min(start + group * GROUP + GROUP, stop))):
            low, high = min(low, values[e]), max(high, values[e])
        least[group], most[group] = low, high


@jit
def _points(inverse, skipped, cell, source, first, stop, width, matrix, center, xs, ys, zs):
    """World points of the centres of the cells first to stop - 1, run by run of one source."""
    across = 1.0 / width
    while first < stop:
        s, last = source[first], first
        while last < stop and source[last] == s:
            last += 1
        m00, m01, m02, c0 = matrix[s, 0, 0], matrix[s, 0, 1], matrix[s, 0, 2], center[s, 0]
        m10, m11, m12, c1 = matrix[s, 1, 0], matrix[s, 1, 1], matrix[s, 1, 2], center[s, 1]
        m20, m21, m22, c2 = matrix[s, 2, 0], matrix[s, 2, 1], matrix[s, 2, 2], center[s, 2]
        for e in range(np.uint64(first), np.uint64(last)):
            row, w = np.int32((cell[e] + 0.5) * across), inverse[e - np.uint64(skipped)]
            x, y = np.float32(cell[e] - row * width) + HALF, np.float32(row) + HALF
            xs[e] = ((m00 * x + m01 * y) + m02) / w + c0
            ys[e] = ((m10 * x + m11 * y) + m12) / w + c1
            zs[e] = ((m20 * x + m21 * y) + m22) / w + c2
        first = last


@jit
def _mark(k, m, sizes, height, width, boxes, first, last, seen):
    """Mark the boxes that are not, by more than rounding, on the far side of a border of the picture.

    `m` maps [place in the box, 1] to the camera's coordinates; `sizes` are the sums of the sizes of its terms.
    """
    planes, slack = np.empty((5, 4), np.float32), np.empty((5, 4), np.float32)
    _borders(k[0, 0], k[0, 2], k[1, 1], k[1, 2], m, height, width, planes)
    _borders(-abs(k[0, 0]), -abs(k[0, 2]), -abs(k[1, 1]), -abs(k[1, 2]), sizes, height, width, slack)
    for i in range(5):
        for j in range(4):
            slack[i, j] = SLACK * abs(slack[i, j])
    seen[first:last] = True
    for i in range(5):
        a, b, c, d = planes[i, 0], planes[i, 1], planes[i, 2], planes[i, 3]
        e, f, g, h = (
            abs(slack[i, 0]) * SLACK,
            abs(slack[i, 1]) * SLACK,
            abs(slack[i, 2]) * SLACK,
            abs(slack[i, 3]) * SLACK,
        )
        across, down, along, rest = abs(a) + e, abs(b) + f, abs(c) + g, d + h
        for n in range(np.uint64(first), np.uint64(last)):  # without a sign: not counted from the end
            x, y, z = boxes[0, n], boxes[1, n], boxes[2, n]
            most = rest + (a * x + e * abs(x) + across * boxes[3, n]) + (b * y + f * abs(y) + down * boxes[4, n])
            most += c * z + g * abs(z) + along * boxes[5, n]
            seen[n] &= not most < ZERO  # what is not a number proves nothing


@jit
def _borders(fx, cx, fy, cy, m, height, width, planes):
    """Half-spaces that hold all that is in a picture: in front, right of its left border, and so on."""
    for j in range(4):
        x, y, z = m[0, j], m[1, j], m[2, j]
        planes[0, j] = z
        planes[1, j] = fx * x + cx * z
        planes[2, j] = width * z - (cx * z + fx * x)
        planes[3, j] = fy * y + cy * z
        planes[4, j] = height * z - (cy * z + fy * y)


@jit
def _nearest(points, seen, k, pose, height, width, near, index, depth):
    z, cells, keys = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int64)
    best = np.full(height * width + BLOCK, NOTHING)  # points outside go to a place of their own behind the cells
    bits, none, group = z.view(np.int32), np.int32(height * width), 0
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    r00, r01, r02, t0 = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, t1 = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, t2 = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    tall, wide, step = np.float32(height), np.float32(width), np.int32(width)
    while group < len(seen):
        if not seen[group]:
            group += 1
            continue
        first = group
        while group < len(seen) and group < first + BLOCK // GROUP and seen[group]:
            group += 1
        a, b = first * GROUP, group * GROUP
        xs, ys, zs = points[0][a:b], points[1][a:b], points[2][a:b]
        for i in range(len(xs)):  # as in the reference
            px, py, pz = xs[i], ys[i], zs[i]
            ahead = ((r20 * px + r21 * py) + r22 * pz) + t2
            safe = ahead if ahead > ZERO else ONE
            u = fx * ((((r00 * px + r01 * py) + r02 * pz) + t0) / safe) + cx
            v = fy * ((((r10 * px + r11 * py) + r12 * pz) + t1) / safe) + cy
            inside = (ahead > near) & (u >= ZERO) & (u < wide) & (v >= ZERO) & (v < tall)
            x, y = u if inside else ZERO, v if inside else ZERO
            cell = np.int32(np.int32(y) * step + np.int32(x))
            z[i], cells[i] = ahead, cell if inside else np.int32(none + i)
        for i in range(len(xs)):
            keys[i] = (np.int64(bits[i]) << 32) | np.int64(a + i)
        for i in range(len(xs)):  # without a branch: which is nearer cannot be foretold
            best[cells[i]] = min(best[cells[i]], keys[i])
    depth_bits = depth.view(np.int32)
    for cell in range(height * width):
        key = best[cell]
        index[cell] = -1 if key == NOTHING else key & 0xFFFF_FFFF
        depth_bits[cell] = 0 if key == NOTHING else key >> 32
