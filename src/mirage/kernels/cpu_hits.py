"""Forward depth with footprints on the CPU, compiled by numba: the bits of `reference.surfel_hits`.

Many elements show the same surface. They are taken in runs (`cpu_runs`): neighbours of one source view on one plane.
Where a run can appear in a picture, how near it can be there and how good are bounded first. It is passed over if in
each of its cells it is behind the front surface, or no nearer (but for a share of the tolerance) and no better than
what is known: those that are likely to win come first. What was passed over may be a little nearer than the front that
was found: cells in which that would matter are looked at again, with nothing passed over that might be nearer.
"""

import numpy as np
import torch
from jaxtyping import Float32, Int, Int8, Int64
from torch import Tensor

from mirage.kernels import compiled, cpu_runs, reference
from mirage.kernels.compiled import HALF, INF, ONE, TWO, ZERO, array, each, jit, parts

AT_ONCE = 8  # cells whose rays are met with a patch in one go
LAYERS = 8  # elements per cell of a picture from which on many hide each other
SLOP, FRINGE = np.float32(reference.SLOP), np.float32(reference.FRINGE)
BEYOND = np.float32(0.5 + reference.SLOP)
STEP, THOUSANDTH, FINE = np.float32(reference.REACH_STEP), np.float32(1e-3), np.float32(1024)
SURE = np.float32(0.9975)  # ten bits of depth, and what rounding may do to a depth of which `bound_runs` is sure


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
    elements = (array(plane), array(cell, torch.int32), array(reach), array(rank, torch.int32))
    source_, name_ = array(source, torch.int32), array(name) * (source_size[0] * source_size[1])
    places, block, blocks = cpu_runs.grid(*source_size)
    order, ranges = np.empty(len(plane), np.int32), parts(len(plane), cpu_runs.RUN)
    sorted_ = tuple(np.empty_like(some) for some in elements)
    found = [(np.empty((0, 4), np.int32), np.empty((15, 0), np.float32))] * max(1, len(ranges))

    def part(number: int) -> None:
        first, last = ranges[number].start, ranges[number].stop
        found[number] = cpu_runs.sort_into_runs(
            elements, source_, places, block, blocks, len(name), order, sorted_, first, last
        )

    each(len(ranges), len(plane), part)
    runs = np.concatenate([some for some, _ in found])
    bounds = np.concatenate([some for _, some in found], 1)
    shape = (len(intrinsics), height, width)
    zeros = lambda *more: torch.from_numpy(np.zeros((*shape, *more), np.float32))
    index, depth, size, place = torch.from_numpy(np.full(shape, -1)), zeros(), zeros(), zeros(2)
    limits = (np.float32(near), np.float32(1 + tolerance), np.float32(1 + tolerance / 4))
    index_, depth_, place_, size_ = (x.view(len(x), -1).numpy() for x in (index, depth, place, size))

    def view(v: int) -> None:
        out = (index_[v], depth_[v], place_[v].reshape(-1, 2), size_[v])
        _hits(sorted_, places, name_, order, runs, bounds, table[v], height, width, *limits, out)

    each(len(table), len(table) * len(plane), view)
    return index, depth, place, size


@jit
def _coarse(depth):
    return np.int32(np.float32(depth).view(np.int32) & -8192).view(np.float32)


@jit
def _log2_ceil(x):
    bits = np.float32(x).view(np.int32)
    return (bits >> 23) - 127 + ((bits & 0x7F_FFFF) != 0)


@jit
def _blur(size):
    return min(max(_log2_ceil((size * size) * HALF), 0), 15) + min(max(-_log2_ceil(size * TWO), 0), 15)


@jit
def _images(
    elements, places, first, last, table, near, margin_x, margin_y, wide, tall, x_0_, x_1_, y_0_, y_1_, numbers
):
    """How a run of elements appears in a picture, as in the reference: sixty-four of each number in `b`.

    The numbers are in one array, so that the compiler sees that they do not overlap and takes sixteen elements at once.
    """
    plane, cell, reach, _ = elements
    plane, cell, reach = plane[first:last], cell[first:last], reach[first:last]
    for e in range(last - first):
        i = e
        numbers[i], numbers[64 + i] = places[cell[e], 0], places[cell[e], 1]
        numbers[128 + i], numbers[192 + i], numbers[256 + i] = plane[e, 0], plane[e, 1], plane[e, 2]
        numbers[320 + i], numbers[384 + i] = np.float32(reach[e, 0]) * STEP, np.float32(reach[e, 1]) * STEP
        numbers[448 + i], numbers[512 + i] = np.float32(reach[e, 2]) * STEP, np.float32(reach[e, 3]) * STEP
    m00, m01, m02, m03 = table[0, 0], table[0, 1], table[0, 2], table[0, 3]
    m10, m11, m12, m13 = table[1, 0], table[1, 1], table[1, 2], table[1, 3]
    m20, m21, m22, m23 = table[2, 0], table[2, 1], table[2, 2], table[2, 3]
    far_x, far_y = wide + margin_x, tall + margin_y
    for start in range(0, last - first, cpu_runs.LANES):
        b = numbers[start:]
        for i in range(cpu_runs.LANES):
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
            first_x, last_x, first_y, last_y = (
                max(first_x, x_0_),
                min(last_x, x_1_),
                max(first_y, y_0_),
                min(last_y, y_1_),
            )
            ok &= (first_x <= last_x) & (first_y <= last_y)
            b[1280 + i], b[1344 + i] = first_x if ok else ONE, last_x if ok else ZERO
            b[1408 + i], b[1472 + i] = first_y if ok else ONE, last_y if ok else ZERO


@jit
def _is_settled(front, best, width, box, g, behind, most, key):
    """Whether a run is behind the front surface, or neither nearer nor better than what is known, in all cells."""
    count = box[1] + 1 - box[0]
    padded, left = -(-count // cpu_runs.LANES) * cpu_runs.LANES, np.int32(count)
    for row in range(box[2], box[3] + 1):
        start, bad = row * width + box[0], np.int32(0)
        some, some_best = front[start : start + padded], best[start : start + padded]
        first = (g[0] + g[2] * (np.float32(row) + HALF)) + g[1] * (np.float32(box[0]) + HALF)
        for j in range(len(some)):
            t = some[j] * (first + g[1] * np.float32(np.int32(j)))
            ok = (t < behind) | ((t <= most) & (some_best[j] <= key)) | (np.int32(j) >= left)
            bad |= np.int32(0) if ok else np.int32(1)
        if bad:
            return False
    return True


@jit
def _unsettled(front, best, width, box, g, behind, most, key, columns):
    """Box of the cells in which a run is not settled: first and last column, first and last row."""
    count, y0, y1 = box[1] + 1 - box[0], box[3], box[2]
    columns = columns[: -(-count // cpu_runs.LANES) * cpu_runs.LANES]
    columns[:] = 0
    for row in range(box[2], box[3] + 1):
        start, bad = row * width + box[0], np.int32(0)
        some, some_best = front[start : start + len(columns)], best[start : start + len(columns)]
        first = (g[0] + g[2] * (np.float32(row) + HALF)) + g[1] * (np.float32(box[0]) + HALF)
        left = np.int32(count)
        for j in range(len(columns)):
            t = some[j] * (first + g[1] * np.float32(np.int32(j)))
            ok = (t < behind) | ((t <= most) & (some_best[j] <= key)) | (np.int32(j) >= left)
            columns[j] |= np.int32(0) if ok else np.int32(1)
            bad |= np.int32(0) if ok else np.int32(1)
        if bad:
            y0, y1 = min(y0, row), max(y1, row)
    x0, x1 = 0, count - 1
    while x0 < x1 and not columns[x0]:
        x0 += 1
    while x0 < x1 and not columns[x1]:
        x1 -= 1
    return box[0] + x0, box[0] + x1, y0, y1


@jit
def _any_in(counts, first_x, first_y, last_x, last_y):
    """Whether a box has any of the cells that are counted above and to the left of each corner."""
    after = counts[last_y + 1, last_x + 1] - counts[first_y, last_x + 1]
    return after - counts[last_y + 1, first_x] + counts[first_y, first_x] > 0


@jit
def _approach(elements, places, runs, todo, boxes, g, table, height, width, near, most, front, b):
    """Bring the front surface near to what it will be: runs whose middle is nearer than what is known."""
    margin_x, margin_y = np.float32(max(width / 2, 4)), np.float32(max(height / 2, 4))
    wide, tall = np.float32(width), np.float32(height)
    for r in todo:
        x, y = (boxes[r, 0] + boxes[r, 1]) // 2, (boxes[r, 2] + boxes[r, 3]) // 2
        if (
            not front[y * width + x] * (g[r, 0] + (g[r, 1] * (np.float32(x) + HALF) + g[r, 2] * (np.float32(y) + HALF)))
            > most
        ):
            continue
        _images(
            elements,
            places,
            runs[r, 0],
            runs[r, 1],
            table[runs[r, 2]],
            near,
            margin_x,
            margin_y,
            wide,
            tall,
            ZERO,
            wide,
            ZERO,
            tall,
            b,
        )
        for i in range(runs[r, 1] - runs[r, 0]):
            if b[1280 + i] > b[1344 + i]:
                continue
            first_x, last_x = np.int64(b[1280 + i]), np.int64(b[1344 + i])
            first_y, last_y = np.int64(b[1408 + i]), np.int64(b[1472 + i])
            a0, a1, a2 = b[128 + i], b[192 + i], b[256 + i]
            oz, mid_x, mid_y = b[576 + i], b[640 + i], b[704 + i]
            det0, det_x, det_y = b[768 + i], b[832 + i], b[896 + i]
            ux, uy, vx, vy = b[960 + i], b[1024 + i], b[1088 + i], b[1152 + i]
            u_x, u_y, v_y, v_x, over = vy * oz, vx * oz, ux * oz, uy * oz, oz * det0
            left, right = -(b[320 + i] + SLOP), b[384 + i] + SLOP
            top, bottom = -(b[448 + i] + SLOP), b[512 + i] + SLOP
            for row in range(first_y, last_y + 1):
                dy = (np.float32(row) + HALF) - mid_y
                det_row, u_row, v_row = det0 + dy * det_y, u_y * dy, v_y * dy
                for start in range(row * width + first_x, row * width + last_x + 1, AT_ONCE):
                    shift, length = start - row * width, np.int32(min(row * width + last_x + 1 - start, AT_ONCE))
                    some_front = front[start:]
                    for j in range(AT_ONCE):
                        dx = (np.float32(np.int32(shift + j)) + HALF) - mid_x
                        det, du, dv = det_row + dx * det_x, u_x * dx - u_row, v_row - v_x * dx
                        under = (a0 * det + a1 * du) + a2 * dv
                        z = over / under
                        ok = (det > ZERO) & (under > ZERO) & (du >= left * det) & (du <= right * det)
                        ok &= (dv >= top * det) & (dv <= bottom * det)
                        ok &= (z > near) & (z < INF) & (np.int32(j) < length)
                        level = _coarse(z)
                        some_front[j] = level if ok & (level < some_front[j]) else some_front[j]


@jit
def _sweep(
    elements,
    places,
    name,
    order,
    runs,
    todo,
    boxes,
    g,
    keys,
    table,
    height,
    width,
    near,
    factor,
    most,
    certain,
    state,
    lost,
    out,
    b,
):
    _, cell, reach, rank = elements
    front, best, best_z, doubt, columns = state
    index, depth, place, size = out
    margin_x, margin_y = np.float32(max(width / 2, 4)), np.float32(max(height / 2, 4))
    wide, tall = np.float32(width), np.float32(height)
    behind, ignored, again = SURE / factor, min(ONE, ONE / most), len(lost) > 1
    for r in todo:
        box, s = boxes[r], runs[r, 2]
        if again and (box[0] > box[1] or not _any_in(lost, box[0], box[2], box[1], box[3])):
            continue
        sure, x0, x1, y0, y1 = g[r, 0] < INF, box[0], box[1], box[2], box[3]
        if sure:
            if _is_settled(front, best, width, box, g[r], behind, most, keys[r]):
                continue
            x0, x1, y0, y1 = _unsettled(front, best, width, box, g[r], behind, most, keys[r], columns)
        _images(
            elements,
            places,
            runs[r, 0],
            runs[r, 1],
            table[s],
            near,
            margin_x,
            margin_y,
            wide,
            tall,
            np.float32(x0),
            np.float32(x1),
            np.float32(y0),
            np.float32(y1),
            b,
        )
        if not sure and not again:
            box[0], box[1], box[2], box[3] = width, -1, height, -1
        for i in range(runs[r, 1] - runs[r, 0]):
            if b[1280 + i] > b[1344 + i]:
                continue
            e = runs[r, 0] + i
            first_x, last_x = np.int64(b[1280 + i]), np.int64(b[1344 + i])
            first_y, last_y = np.int64(b[1408 + i]), np.int64(b[1472 + i])
            if not sure and not again:
                box[0], box[1] = min(box[0], first_x), max(box[1], last_x)
                box[2], box[3] = min(box[2], first_y), max(box[3], last_y)
            if again and not _any_in(lost, first_x, first_y, last_x, last_y):
                continue
            u, v, a0, a1, a2 = b[i], b[64 + i], b[128 + i], b[192 + i], b[256 + i]
            oz, mid_x, mid_y = b[576 + i], b[640 + i], b[704 + i]
            det0, det_x, det_y = b[768 + i], b[832 + i], b[896 + i]
            ux, uy, vx, vy, across = b[960 + i], b[1024 + i], b[1088 + i], b[1152 + i], b[1216 + i]
            u_x, u_y, v_y, v_x, over = vy * oz, vx * oz, ux * oz, uy * oz, oz * det0
            left, right = -(b[320 + i] + SLOP), b[384 + i] + SLOP
            top, bottom = -(b[448 + i] + SLOP), b[512 + i] + SLOP
            least_key = (((np.int64(rank[e]) << 6) + _blur(across)) << 45) | (name[s] + cell[e])
            for row in range(first_y, last_y + 1):
                dy = (np.float32(row) + HALF) - mid_y
                det_row, u_row, v_row = det0 + dy * det_y, u_y * dy, v_y * dy
                for start in range(row * width + first_x, row * width + last_x + 1, AT_ONCE):
                    shift, length = start - row * width, np.int32(min(row * width + last_x + 1 - start, AT_ONCE))
                    some_front, some_best, mask = front[start:], best[start:], np.int32(0)
                    for j in range(AT_ONCE):
                        dx = (np.float32(np.int32(shift + j)) + HALF) - mid_x
                        det, du, dv = det_row + dx * det_x, u_x * dx - u_row, v_row - v_x * dx
                        under = (a0 * det + a1 * du) + a2 * dv
                        z = over / under
                        level = _coarse(z)
                        ok = (det > ZERO) & (under > ZERO) & (du >= left * det) & (du <= right * det)
                        ok &= (dv >= top * det) & (dv <= bottom * det)
                        ok &= (z > near) & (z < INF) & (np.int32(j) < length) & (level <= some_front[j] * factor)
                        ok &= (some_best[j] > least_key) | (level < some_front[j] * ignored)
                        mask |= np.int32(1 << j) if ok else np.int32(0)
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
                        front[target] = min(front[target], level)
                        if key < best[target]:
                            if level <= front[target] * certain:
                                best[target], best_z[target] = key, level
                                index[target], depth[target], size[target] = order[e], z, across
                                place[target, 0] = np.floor(du * FINE + HALF) / FINE + u
                                place[target, 1] = np.floor(dv * FINE + HALF) / FINE + v
                            else:
                                doubt[target] = min(doubt[target], key)


@jit
def _hits(elements, places, name, order, runs, bounds, table, height, width, near, factor, most, out):
    margin_x, margin_y = np.float32(max(width / 2, 4)), np.float32(max(height / 2, 4))
    wide, tall, b = np.float32(width), np.float32(height), np.zeros(cpu_runs.NUMBERS, np.float32)
    total, room = len(runs), height * width + cpu_runs.LANES
    boxes, g, keys = np.empty((total, 4), np.int32), np.empty((total, 3), np.float32), np.empty(total, np.int64)
    nearness, goodness = np.empty(total, np.int32), np.empty(total, np.int32)

    # 1. What runs can be.
    first = 0
    while first < total:
        s, last = runs[first, 2], first + 1
        while last < total and last < first + cpu_runs.RUN and runs[last, 2] == s:
            last += 1
        for k in range(15):
            for i in range(last - first):
                b[cpu_runs.RUN * k + i] = bounds[k, first + i]
        cpu_runs.bound_runs(table[s], last - first, near, margin_x, margin_y, wide, tall, b)
        for i in range(last - first):
            r, kind, blur = first + i, b[cpu_runs.KIND + i], 0
            if kind < 0:
                nearness[r] = goodness[r] = -1
                continue
            g[r, 0], g[r, 1], g[r, 2] = b[cpu_runs.G0 + i], b[cpu_runs.GX + i], b[cpu_runs.GY + i]
            boxes[r, 0], boxes[r, 1] = b[cpu_runs.X0 + i], b[cpu_runs.X1 + i]
            boxes[r, 2], boxes[r, 3] = b[cpu_runs.Y0 + i], b[cpu_runs.Y1 + i]
            s0, s1 = b[cpu_runs.S0 + i] * np.float32(0.99), b[cpu_runs.S1 + i] * np.float32(1.01)
            if kind > 0 and s0 > ONE:
                blur = _blur(s0)
            elif kind > 0 and s1 < ONE:
                blur = _blur(s1)
            keys[r] = (((np.int64(runs[r, 3]) << 6) + blur) << 45) | name[s]
            goodness[r] = min(runs[r, 3], 3) * 32 + blur
            octave = np.float32(b[cpu_runs.NEAREST + i]).view(np.int32) >> 21  # four steps to each
            nearness[r] = min(max(1023 - octave, 0), 1023) if kind > 0 else -1
        first = last

    # 2. The front surface as far as it is cheap, nearest runs first.
    front = np.full(room, INF, np.float32)
    if len(order) > LAYERS * height * width:
        near_first = _sorted(nearness, 1024)
        _approach(elements, places, runs, near_first, boxes, g, table, height, width, near, most, front, b)

    # 3. The best element on it, best runs first; again where the front was not known well enough.
    best_first = _sorted(goodness, 128)
    best, doubt = np.full(room, reference.EMPTY, np.int64), np.full(room, reference.EMPTY, np.int64)
    best_z, lost = np.full(room, INF, np.float32), np.zeros((1, 1), np.int32)
    memory, seen, target = (elements, places, name, order, runs), (boxes, g, keys), (table, height, width, near, factor)
    state = front, best, best_z, doubt, np.empty(width + cpu_runs.LANES, np.int32)
    for sweep in range(3):
        certain = factor * SURE / most if sweep == 0 else factor
        _sweep(*memory, best_first, *seen, *target, most, certain, state, lost, out, b)
        lost = np.zeros((height + 1, width + 1), np.int32)
        for row in range(height):
            for column in range(width):
                t = row * width + column
                behind = best[t] < reference.EMPTY and best_z[t] > front[t] * certain
                again = front[t] > 0 and (behind or doubt[t] < best[t])
                if again:
                    best[t], doubt[t], best_z[t] = reference.EMPTY, reference.EMPTY, INF
                else:
                    front[t] = ZERO
                lost[row + 1, column + 1] = lost[row, column + 1] + lost[row + 1, column] - lost[row, column] + again
        if lost[height, width] == 0:
            break
        most = SURE if sweep == 0 else INF


@jit
def _sorted(level, levels):
    """Positions of what is not negative, by level."""
    starts = np.zeros(levels + 1, np.int64)
    for value in level:
        if value >= 0:
            starts[value + 1] += 1
    for i in range(levels):
        starts[i + 1] += starts[i]
    out = np.empty(starts[levels], np.int32)
    for i in range(len(level)):
        if level[i] >= 0:
            out[starts[level[i]]] = i
            starts[level[i]] += 1
    return out
