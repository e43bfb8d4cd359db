"""Forward depth with footprints on the CPU, compiled by numba: the bits of `reference.surfel_hits`.

Runs of elements of one source view are passed over together; those that are likely to win come first.
"""

import numpy as np
import torch
from jaxtyping import Float32, Int, Int8, Int64
from torch import Tensor

from mirage.kernels import compiled, reference
from mirage.kernels.compiled import HALF, INF, ONE, ROUNDING, TWO, ZERO, array, each, jit, parts

TILE = 64  # elements that are passed over together
AT_ONCE = 8  # cells whose rays are met with a patch in one go
SLOP, FRINGE = np.float32(reference.SLOP), np.float32(reference.FRINGE)
BEYOND = np.float32(0.5 + reference.SLOP)
STEP, THOUSANDTH, FINE = np.float32(reference.REACH_STEP), np.float32(1e-3), np.float32(1024)


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
    views = (source_intrinsics, source_cam_from_world, intrinsics, cam_from_world)
    if (len(plane) + height * width) * len(intrinsics) < compiled.SMALL // 4:
        given = (plane, cell, reach, rank, source, name, source_size, *views)
        return reference.surfel_hits(*given, height, width, near, tolerance)
    table = reference.target_from_source(*views).numpy()
    elements = (array(plane), array(cell, torch.int32), array(reach), array(source, torch.int32))
    rank_, name_ = array(rank, torch.int32), array(name) * (source_size[0] * source_size[1])
    center, ranges = np.empty((len(plane), 2), np.float32), parts(len(plane), TILE)
    found = [(np.empty((0, 2), np.int64), np.empty((0, 6), np.float32))] * max(1, len(ranges))

    def part(number: int) -> None:
        some = ranges[number]
        given = (elements[0][some], elements[1][some], elements[3][some])
        runs, bounds = _runs(*given, np.int32(source_size[1]), center[some])
        found[number] = runs + some.start, bounds

    each(len(ranges), len(plane), part)
    runs, bounds = (np.concatenate(both) for both in zip(*found, strict=True))
    shape = (len(intrinsics), height, width)
    index, depth, size = torch.full(shape, -1), torch.zeros(shape), torch.zeros(shape)
    place = torch.zeros(*shape, 2)
    limits = (np.float32(near), np.float32(1 + tolerance))
    index_, depth_, place_, size_ = (x.view(len(x), -1).numpy() for x in (index, depth, place, size))

    def view(v: int) -> None:
        out = (index_[v], depth_[v], place_[v].reshape(-1, 2), size_[v])
        _hits(*elements, rank_, name_, center, runs, bounds, table[v], height, width, *limits, *out)

    each(len(table), len(table) * len(plane), view)
    return index, depth, place, size


@jit
def _runs(plane, cell, source, width, center):
    """Centres; runs of elements of one source view: first and last + 1, bounds of column, row and inverse depth."""
    most, across = len(cell) // TILE + 1, 1.0 / width
    for e in range(1, len(cell)):
        most += source[e] != source[e - 1]
    for e in range(len(cell)):
        row = np.int32((cell[e] + 0.5) * across)
        center[e, 0], center[e, 1] = np.float32(cell[e] - row * width) + HALF, np.float32(row) + HALF
    runs, bounds, count, first = np.empty((most, 2), np.int64), np.empty((most, 6), np.float32), 0, 0
    while first < len(cell):
        last, final = first + 1, min(first + TILE, len(cell))
        while last < final and source[last] == source[first]:
            last += 1
        runs[count, 0], runs[count, 1] = first, last
        for j in range(3):
            low, high = INF, -INF
            for e in range(first, last):
                value = plane[e, 0] if j == 2 else center[e, j]
                low, high = min(low, value), max(high, value)
            bounds[count, j], bounds[count, 3 + j] = HALF * (low + high), HALF * (high - low)
        count, first = count + 1, last
    return runs[:count], bounds[:count]


@jit
def _picture(m, height, width, margin_x, margin_y, near, planes, scales):
    """Half-spaces of [u, v, inverse depth, 1] that hold all elements near a picture; and the size of their terms."""
    for j in range(4):
        c = 3 if j == 2 else (2 if j == 3 else j)
        x, y, z = np.float64(m[0, c]), np.float64(m[1, c]), np.float64(m[2, c])
        own = np.float64(near) if j == 2 else 0.0
        planes[0, j], scales[0, j] = z - own, abs(z) + own
        planes[1, j], scales[1, j] = x + margin_x * z, abs(x) + margin_x * abs(z)
        planes[2, j], scales[2, j] = (width + margin_x) * z - x, abs(x) + (width + margin_x) * abs(z)
        planes[3, j], scales[3, j] = y + margin_y * z, abs(y) + margin_y * abs(z)
        planes[4, j], scales[4, j] = (height + margin_y) * z - y, abs(y) + (height + margin_y) * abs(z)


@jit
def _coarse(depth):
    return np.int32(np.float32(depth).view(np.int32) & -8192).view(np.float32)


@jit
def _log2_ceil(x):
    bits = np.float32(x).view(np.int32)
    return (bits >> 23) - 127 + ((bits & 0x7F_FFFF) != 0)


@jit
def _blur_near(m, center, plane):
    """About how much larger or smaller than a cell the image of an element is, 0 to 32: only an order of work."""
    h = np.empty((3, 3), np.float64)
    for i in range(3):
        h[i, 0], h[i, 1] = m[i, 0] + plane[1] * m[i, 3], m[i, 1] + plane[2] * m[i, 3]
        h[i, 2] = m[i, 2] + center[0] * m[i, 0] + center[1] * m[i, 1] + plane[0] * m[i, 3]
    det = h[0, 0] * (h[1, 1] * h[2, 2] - h[1, 2] * h[2, 1]) - h[0, 1] * (h[1, 0] * h[2, 2] - h[1, 2] * h[2, 0])
    det += h[0, 2] * (h[1, 0] * h[2, 1] - h[1, 1] * h[2, 0])
    if not (h[2, 2] > 0 and det > 0):
        return 32
    octaves = np.log2(det / h[2, 2] ** 3)  # of the area
    return int(min(max(np.ceil(octaves - 1), 0.0), 15.0) + min(max(np.floor(-octaves / 2 - 1), 0.0), 15.0))


@jit
def _is_outside(planes, scales, box):
    """Whether a box is on the far side of one of the half-spaces, by more than rounding."""
    for i in range(len(planes)):
        most, scale = planes[i, 3], scales[i, 3]
        for j in range(3):
            most += planes[i, j] * box[j] + abs(planes[i, j]) * box[3 + j]
            scale += scales[i, j] * (abs(box[j]) + box[3 + j])
        if most < -ROUNDING * scale:
            return True
    return False


@jit
def _images(plane, center, reach, table, near, margin_x, margin_y, wide, tall, b):
    """How a run of elements appears in a picture, as in the reference: sixty-four of each number in `b`, see `_hits`.

    The numbers are in one array, so that the compiler sees that they do not overlap and takes eight elements at a time.
    """
    for i in range(len(center)):
        b[i], b[64 + i] = center[i, 0], center[i, 1]
        b[128 + i], b[192 + i], b[256 + i] = plane[i, 0], plane[i, 1], plane[i, 2]
        b[320 + i], b[384 + i] = np.float32(reach[i, 0]) * STEP, np.float32(reach[i, 1]) * STEP
        b[448 + i], b[512 + i] = np.float32(reach[i, 2]) * STEP, np.float32(reach[i, 3]) * STEP
    m00, m01, m02, m03 = table[0, 0], table[0, 1], table[0, 2], table[0, 3]
    m10, m11, m12, m13 = table[1, 0], table[1, 1], table[1, 2], table[1, 3]
    m20, m21, m22, m23 = table[2, 0], table[2, 1], table[2, 2], table[2, 3]
    far_x, far_y = wide + margin_x, tall + margin_y
    for i in range(TILE):
        u, v, a0, a1, a2 = b[i], b[64 + i], b[128 + i], b[192 + i], b[256 + i]
        left, right, top, bottom = b[320 + i], b[384 + i], b[448 + i], b[512 + i]
        oz = ((m22 + u * m20) + v * m21) + a0 * m23
        x = ((m02 + u * m00) + v * m01) + a0 * m03
        y = ((m12 + u * m10) + v * m11) + a0 * m13
        ok = (oz > near * a0) & (x > -margin_x * oz) & (x < far_x * oz)
        ok &= (y > -margin_y * oz) & (y < far_y * oz)
        mid_x, mid_y = x / oz, y / oz
        uz, vz = m20 + a1 * m23, m21 + a2 * m23
        ux, uy = (m00 + a1 * m03) - mid_x * uz, (m10 + a1 * m13) - mid_y * uz
        vx, vy = (m01 + a2 * m03) - mid_x * vz, (m11 + a2 * m13) - mid_y * vz
        det0, det_x, det_y = ux * vy - uy * vx, vz * uy - uz * vy, vx * uz - ux * vz
        ok &= det0 > ZERO
        # The box of its four corners.
        least = THOUSANDTH * oz
        i0 = ONE / max((oz + uz * -left) + vz * -top, least)
        i1 = ONE / max((oz + uz * right) + vz * -top, least)
        i2 = ONE / max((oz + uz * -left) + vz * bottom, least)
        i3 = ONE / max((oz + uz * right) + vz * bottom, least)
        x_0, x_1 = (ux * -left + vx * -top) * i0, (ux * right + vx * -top) * i1
        x_2, x_3 = (ux * -left + vx * bottom) * i2, (ux * right + vx * bottom) * i3
        y_0, y_1 = (uy * -left + vy * -top) * i0, (uy * right + vy * -top) * i1
        y_2, y_3 = (uy * -left + vy * bottom) * i2, (uy * right + vy * bottom) * i3
        x0, x1 = min(min(x_0, x_1), min(x_2, x_3)), max(max(x_0, x_1), max(x_2, x_3))
        y0, y1 = min(min(y_0, y_1), min(y_2, y_3)), max(max(y_0, y_1), max(y_2, y_3))
        across = max((x1 - x0) / (left + right), (y1 - y0) / (top + bottom))
        ok &= across < INF
        b[576 + i], b[640 + i], b[704 + i] = oz, mid_x, mid_y
        b[768 + i], b[832 + i], b[896 + i] = det0, det_x, det_y
        b[960 + i], b[1024 + i], b[1088 + i], b[1152 + i] = ux, uy, vx, vy
        b[1216 + i] = across
        first_x = np.ceil(min(max(((x0 + mid_x) - HALF) - SLOP, ZERO), wide))
        last_x = np.floor(min(max(((x1 + mid_x) - HALF) + SLOP, -ONE), wide - ONE))
        first_y = np.ceil(min(max(((y0 + mid_y) - HALF) - SLOP, ZERO), tall))
        last_y = np.floor(min(max(((y1 + mid_y) - HALF) + SLOP, -ONE), tall - ONE))
        ok &= (first_x <= last_x) & (first_y <= last_y)
        b[1280 + i], b[1344 + i] = first_x if ok else ONE, last_x if ok else ZERO
        b[1408 + i], b[1472 + i] = first_y if ok else ONE, last_y if ok else ZERO


@jit
def _any_in(counts, first_x, first_y, last_x, last_y):
    """Whether a box has any of the cells that are counted above and to the left of each corner."""
    if first_x > last_x:
        return False
    after = counts[last_y + 1, last_x + 1] - counts[first_y, last_x + 1]
    return after - counts[last_y + 1, first_x] + counts[first_y, first_x] > 0


@jit
def _hits(
    plane, cell, reach, source, rank, name, center, runs, bounds, table, height, width, near, factor,
    index, depth, place, size,
):  # fmt: skip
    planes, scales = np.empty((5, 4), np.float64), np.empty((5, 4), np.float64)
    margin_x, margin_y = np.float32(max(width / 2, 4)), np.float32(max(height / 2, 4))
    wide, tall, b = np.float32(width), np.float32(height), np.zeros(24 * TILE, np.float32)
    room = height * width + AT_ONCE
    limit = np.full(room, INF, np.float32)  # the greatest depth that is still on the front surface
    best, best_z = np.full(room, reference.EMPTY, np.int64), np.full(room, INF, np.float32)
    front, previous = np.full(room, INF, np.float32), -1

    # 1. Runs near the picture, those first that are likely to win: the sharpest, and of these the oldest.
    order, levels, starts = np.empty(len(runs), np.int64), np.empty(len(runs), np.int64), np.zeros(34, np.int64)
    for run in range(len(runs)):
        middle = (runs[run, 0] + runs[run, 1]) // 2
        s = source[middle]
        m = table[s]
        if s != previous:
            _picture(m, height, width, margin_x, margin_y, near, planes, scales)
            previous = s
        levels[run] = -1
        if not _is_outside(planes, scales, bounds[run]):
            levels[run] = _blur_near(m, center[middle], plane[middle])
            starts[levels[run] + 1] += 1
    for level in range(1, 34):
        starts[level] += starts[level - 1]
    seen = starts[33]
    for run in range(len(runs)):
        if levels[run] >= 0:
            order[starts[levels[run]]] = run
            starts[levels[run]] += 1

    # 2. The best of what is not behind what is known already. It has won if it is on the front surface in the end;
    # where it is not, a second sweep looks again, at the front surface only. `lost` counts these cells above and to the
    # left, `spans` are the cells that a run may reach.
    lost, spans = np.zeros((height + 1, width + 1), np.int32), np.empty((len(runs), 4), np.int64)
    spans[:, :2], spans[:, 2:] = max(height, width), -1
    for sweep in range(2):
        if sweep == 1:
            for target in range(height * width):
                row, column = target // width, target % width
                again = best_z[target] > limit[target]
                if again:
                    best[target] = reference.EMPTY
                else:
                    limit[target] = -ONE
                front[target] = -INF
                lost[row + 1, column + 1] = lost[row, column + 1] + lost[row + 1, column] - lost[row, column] + again
            if lost[height, width] == 0:
                break
        for run in order[:seen]:
            if sweep == 1 and not _any_in(lost, spans[run, 0], spans[run, 1], spans[run, 2], spans[run, 3]):
                continue
            some, m = slice(runs[run, 0], runs[run, 1]), table[source[runs[run, 0]]]
            _images(plane[some], center[some], reach[some], m, near, margin_x, margin_y, wide, tall, b)
            for i in range(some.stop - some.start):
                if b[1280 + i] > b[1344 + i]:
                    continue
                e = some.start + i
                first_x, last_x = np.int64(b[1280 + i]), np.int64(b[1344 + i])
                first_y, last_y = np.int64(b[1408 + i]), np.int64(b[1472 + i])
                if sweep == 0:
                    spans[run, 0], spans[run, 1] = min(spans[run, 0], first_x), min(spans[run, 1], first_y)
                    spans[run, 2], spans[run, 3] = max(spans[run, 2], last_x), max(spans[run, 3], last_y)
                elif not _any_in(lost, first_x, first_y, last_x, last_y):
                    continue
                u, v, a0, a1, a2 = b[i], b[64 + i], b[128 + i], b[192 + i], b[256 + i]
                oz, mid_x, mid_y = b[576 + i], b[640 + i], b[704 + i]
                det0, det_x, det_y = b[768 + i], b[832 + i], b[896 + i]
                ux, uy, vx, vy, across = b[960 + i], b[1024 + i], b[1088 + i], b[1152 + i], b[1216 + i]
                u_x, u_y, v_y, v_x, over = vy * oz, vx * oz, ux * oz, uy * oz, oz * det0
                left, right = -(b[320 + i] + SLOP), b[384 + i] + SLOP
                top, bottom = -(b[448 + i] + SLOP), b[512 + i] + SLOP
                blur = min(max(_log2_ceil((across * across) * HALF), 0), 15)
                blur += min(max(-_log2_ceil(across * TWO), 0), 15)
                least_key = (((np.int64(rank[e]) << 6) + blur) << 45) | (name[source[e]] + cell[e])
                for row in range(first_y, last_y + 1):
                    dy = (np.float32(row) + HALF) - mid_y
                    det_row, u_row, v_row = det0 + dy * det_y, u_y * dy, v_y * dy
                    for start in range(row * width + first_x, row * width + last_x + 1, AT_ONCE):
                        shift, length = start - row * width, row * width + last_x + 1 - start
                        some_limit, some_front, some_best = limit[start:], front[start:], best[start:]
                        mask = np.int32(0)
                        for j in range(AT_ONCE):
                            dx = (np.float32(np.int32(shift + j)) + HALF) - mid_x
                            det, du, dv = det_row + dx * det_x, u_x * dx - u_row, v_row - v_x * dx
                            under = (a0 * det + a1 * du) + a2 * dv
                            z = over / under
                            level = _coarse(z)
                            ok = (det > ZERO) & (under > ZERO) & (du >= left * det) & (du <= right * det)
                            ok &= (dv >= top * det) & (dv <= bottom * det)
                            ok &= (z > near) & (z < INF) & (level <= some_limit[j])
                            # It is of use if it may be better than the best, or if it is the new front.
                            ok &= (some_front[j] > level) | (some_best[j] >= least_key)
                            mask |= np.int32(1 << j) if ok else np.int32(0)
                        mask &= (1 << min(length, AT_ONCE)) - 1
                        if mask == 0:
                            continue
                        for j in range(AT_ONCE):
                            if not mask & (1 << j):
                                continue
                            target, dx = start + j, (np.float32(np.int32(shift + j)) + HALF) - mid_x
                            det, du, dv = det_row + dx * det_x, u_x * dx - u_row, v_row - v_x * dx
                            z, inverse = over / ((a0 * det + a1 * du) + a2 * dv), ONE / det
                            du, dv, level = du * inverse, dv * inverse, _coarse(z)
                            fringe = (du < -FRINGE and reach[e, 0] <= 64) or (du > FRINGE and reach[e, 1] <= 64)
                            fringe |= (dv < -FRINGE and reach[e, 2] <= 64) or (dv > FRINGE and reach[e, 3] <= 64)
                            outside = max(abs(du), abs(dv)) > BEYOND
                            key = least_key + (np.int64(fringe) << 50) + (np.int64(outside) << 44)
                            if level < front[target]:
                                front[target], limit[target] = level, level * factor
                            if key < best[target]:
                                best[target], best_z[target] = key, level
                                index[target], depth[target], size[target] = e, z, across
                                place[target, 0] = np.floor(du * FINE + HALF) / FINE + u
                                place[target, 1] = np.floor(dv * FINE + HALF) / FINE + v
