"""The lift on the CPU, compiled by numba: the bits of `reference.cell_planes`.

A row of cells at a time, by sums down the columns of pixels; cells that straddle an edge one by one.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from mirage.kernels import compiled, reference
from mirage.kernels.compiled import INF, ONE, ZERO, array, each, jit

RIDGE, STEEP, TINY = np.float32(1e-4), np.float32(0.8), np.float32(1e-12)


def cell_planes(
    depth: Float32[Tensor, "v H W"], usable: Bool[Tensor, "v H W"], height: int, width: int, tolerance: float
) -> tuple[
    Float32[Tensor, "v {height} {width} 3"],
    Int64[Tensor, "v {height} {width}"],
    Bool[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width} 4"],
]:
    """See `lift_planes`."""
    views, rows, cols = len(depth), depth.shape[1] // height, depth.shape[2] // width
    if rows * cols < reference.MINIMUM_FIT or depth.numel() < 4 * compiled.SMALL:
        return reference.cell_planes(depth, usable, height, width, tolerance)
    shape = (views, height, width)
    plane, other = torch.empty(*shape, 3), torch.zeros(*shape, 3)
    count, edge = torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.bool)
    box, other_box = torch.full((*shape, 4), 0.5), torch.zeros(*shape, 4)
    pixels = (array(depth), array(usable))
    x, y = array(reference.pixel_places(cols, depth.device)), array(reference.pixel_places(rows, depth.device))
    out = tuple(tensor.numpy() for tensor in (plane, count, edge, box, other, other_box))

    def strip(number: int) -> None:
        view, row = divmod(number, height)
        part = slice(row * rows, (row + 1) * rows)
        results = (tensor[view, row] for tensor in out)
        _planes(*(tensor[view, part] for tensor in pixels), x, y, np.float32(tolerance), *results)

    each(views * height, depth.numel(), strip)
    valid = (plane[..., 0] > 0) & (count > 0)
    plane[~valid] = 0
    return plane, count, edge & valid, reference.joined_reach(plane, valid, box, other, other_box, tolerance)


@jit
def _planes(depth, usable, x, y, tolerance, plane, count, edge, box, other, other_box):
    """The cells of one row of cells: planes by sums down the columns of pixels; cells on edges one by one."""
    rows, cols, width, pixels = y.shape[1], x.shape[1], len(plane), depth.shape[1]
    disparity, full = np.empty(depth.shape, np.float32), np.ones((rows, cols), np.bool_)
    known, column = np.zeros(pixels, np.int32), np.zeros((3, pixels), np.float32)
    across = np.empty(pixels, np.float32)
    for i in range(pixels):
        across[i] = x[0, i % cols]
    for r in range(rows):
        for i in range(pixels):
            there = usable[r, i]
            value = ONE / (depth[r, i] if there else ONE)
            value = value if there else ZERO
            disparity[r, i] = value
            known[i] += there
            column[0, i] += value
    everywhere, moments = np.empty(6, np.float32), np.empty(6, np.float32)
    _moments(full, x, y, everywhere)

    # 1. Mean per cell, then the rest's moments.
    mean = np.empty(pixels, np.float32)
    for cell in range(width):
        number, total = 0, column[0, cell * cols]
        for i in range(cell * cols, (cell + 1) * cols):
            number += known[i]
        for i in range(cell * cols + 1, (cell + 1) * cols):
            total += column[0, i]
        count[cell] = number
        mean[cell * cols : (cell + 1) * cols] = total / np.float32(max(number, 1))
    column[:] = ZERO
    for r in range(rows):
        down = y[0, r]
        for i in range(pixels):
            rest = disparity[r, i] - mean[i] if usable[r, i] else ZERO
            column[0, i] += rest
            column[1, i] += rest * across[i]
            column[2, i] += rest * down

    # 2. Planes, and how far the pixels are from them.
    fitted = np.empty((3, pixels), np.float32)
    for cell in range(width):
        part = slice(cell * cols, (cell + 1) * cols)
        if count[cell] == rows * cols:
            moments[:] = everywhere
        else:
            _moments(usable[:, part], x, y, moments)
        number = np.float32(max(count[cell], 1))
        r, rx, ry = _sum(column[0, part]) / number, _sum(column[1, part]) / number, _sum(column[2, part]) / number
        a, b, c = _solve(mean[cell * cols], r, rx, ry, moments)
        fitted[0, part], fitted[1, part], fitted[2, part] = a, b, c
    far = np.zeros(pixels, np.float32)
    low, high = np.full(pixels, INF, np.float32), np.full(pixels, -INF, np.float32)
    for r in range(rows):
        down = y[0, r]
        for i in range(pixels):
            value, there = disparity[r, i], usable[r, i]
            away = abs(value - ((fitted[0, i] + fitted[1, i] * across[i]) + fitted[2, i] * down))
            far[i] = max(far[i], away if there else ZERO)
            low[i] = min(low[i], value if there else INF)
            high[i] = max(high[i], value if there else -INF)
    for cell in range(width):
        first, least, most, away = cell * cols, INF, -INF, ZERO
        for i in range(first, first + cols):
            least, most, away = min(least, low[i]), max(most, high[i]), max(away, far[i])
        centre = min(max(fitted[0, first], least), most) if count[cell] else ZERO
        plane[cell, 0], plane[cell, 1], plane[cell, 2] = centre, fitted[1, first], fitted[2, first]
        edge[cell] = away > tolerance * max(centre, ZERO)
        if edge[cell]:
            part = slice(first, first + cols)
            _edge_cell(disparity[:, part], usable[:, part], x, y, tolerance, plane[cell], box[cell], other[cell],
                       other_box[cell])  # fmt: skip
        steep = (abs(plane[cell, 1]) + abs(plane[cell, 2])) / max(STEEP * plane[cell, 0], TINY)
        plane[cell, 1] /= max(steep, ONE)
        plane[cell, 2] /= max(steep, ONE)


@jit
def _sum(values):
    total = values[0]
    for i in range(1, len(values)):
        total += values[i]
    return total


@jit
def _moments(mask, x, y, moments):
    """Means of x, y, x x, x y and y y over some pixels; the last is their number."""
    rows, cols = mask.shape
    column, number = np.zeros((5, cols), np.float32), 0
    for r in range(rows):
        for c in range(cols):
            if mask[r, c]:
                number += 1
                column[0, c] += x[0, c]
                column[1, c] += y[0, r]
                column[2, c] += x[0, c] * x[0, c]
                column[3, c] += x[0, c] * y[0, r]
                column[4, c] += y[0, r] * y[0, r]
    moments[5] = np.float32(max(number, 1))
    for i in range(5):
        moments[i] = _sum(column[i]) / moments[5]


@jit
def _solve(mean, r, rx, ry, moments):
    mx, my = moments[0], moments[1]
    xx, xy, yy = moments[2] + RIDGE - mx * mx, moments[3] - mx * my, moments[4] + RIDGE - my * my
    bx, by, det = rx - mx * r, ry - my * r, xx * yy - xy * xy
    along_x, along_y = (bx * yy - by * xy) / det, (by * xx - bx * xy) / det
    return (mean + r) - (mx * along_x + my * along_y), along_x, along_y


@jit
def _cut(order, tolerance):
    """The largest surface among sorted inverse depths, as a range: cut twice at the widest gap."""
    low, high = 0, len(order)
    for _ in range(2):
        widest, place = ZERO, low
        for i in range(low, high - 1):
            gap = order[i + 1] / order[i] - ONE
            if gap > widest:
                widest, place = gap, i
        if widest > tolerance:
            if 2 * (high - place - 1) >= high - low:
                low = place + 1
            else:
                high = place + 1
    return low, high


@jit
def _edge_cell(disparity, usable, x, y, tolerance, plane, box, other, other_box):
    """A cell that straddles a depth edge: the plane and box of its largest surface, the middle and box of the next."""
    rows, cols = disparity.shape
    values, number = np.empty(rows * cols, np.float32), 0
    for r in range(rows):
        for c in range(cols):
            if usable[r, c]:
                values[number] = disparity[r, c]
                number += 1
    order = np.sort(values[:number])
    low, high = _cut(order, tolerance)
    least, most = order[low], order[high - 1]
    left = np.concatenate((order[:low], order[high:]))
    part, rest = np.zeros((rows, cols), np.bool_), np.zeros((rows, cols), np.bool_)
    rest_least, rest_most = INF, -INF
    if len(left):
        low, high = _cut(left, tolerance)
        rest_least, rest_most = left[low], left[high - 1]
    for r in range(rows):
        for c in range(cols):
            if usable[r, c]:
                value = disparity[r, c]
                part[r, c] = least <= value <= most
                rest[r, c] = not part[r, c] and rest_least <= value <= rest_most

    # 1. The plane of the part.
    moments, column = np.empty(6, np.float32), np.zeros((3, cols), np.float32)
    _moments(part, x, y, moments)
    for r in range(rows):
        for c in range(cols):
            column[0, c] += disparity[r, c] if part[r, c] else ZERO
    mean = _sum(column[0]) / moments[5]
    column[:] = ZERO
    for r in range(rows):
        for c in range(cols):
            if part[r, c]:
                column[0, c] += disparity[r, c] - mean
                column[1, c] += (disparity[r, c] - mean) * x[0, c]
                column[2, c] += (disparity[r, c] - mean) * y[0, r]
    number = moments[5]
    r, rx, ry = _sum(column[0]) / number, _sum(column[1]) / number, _sum(column[2]) / number
    plane[0], plane[1], plane[2] = _solve(mean, r, rx, ry, moments)
    plane[0] = min(max(plane[0], least), most)

    # 2. Boxes, and the middle of the rest.
    box[:], other_box[:] = ZERO, -INF
    column[:] = ZERO
    number = ZERO
    for r in range(rows):
        for c in range(cols):
            sides = box if part[r, c] else other_box
            if part[r, c] or rest[r, c]:
                sides[0], sides[1] = max(sides[0], x[1, c]), max(sides[1], x[2, c])
                sides[2], sides[3] = max(sides[2], y[1, r]), max(sides[3], y[2, r])
            if rest[r, c]:
                number += ONE
                column[0, c] += disparity[r, c]
                column[1, c] += x[0, c]
                column[2, c] += y[0, r]
    for i in range(3):
        other[i] = _sum(column[i]) / max(number, ONE)
