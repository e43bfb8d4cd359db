"""The lift in Triton, for GPUs: a part of `gpu`, where the contract stands."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from mirage.kernels import reference
from mirage.kernels.launch import launch

INFINITY = tl.constexpr(float("inf"))


def cell_planes(
    depth: Float32[Tensor, "v H W"], usable: Bool[Tensor, "v H W"], height: int, width: int, tolerance: float
) -> tuple[
    Float32[Tensor, "v {height} {width} 3"],
    Int64[Tensor, "v {height} {width}"],
    Bool[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width} 4"],
]:
    """Fit all cells; cut those that straddle an edge at two depths; fit what is left of them. See `lift_planes`."""
    rows, cols = depth.shape[1] // height, depth.shape[2] // width
    if rows * cols < reference.MINIMUM_FIT:  # nothing there waits for the host
        return reference.cell_planes(depth, usable, height, width, tolerance)
    new = lambda value, *shape: torch.full((len(depth), height, width, *shape), value, device=depth.device)
    plane, count, edge, cut = new(0.0, 3), new(0), new(False), new(0.0, 4)
    box, other, other_box = new(0.5, 4), new(0.0, 3), new(0.0, 4)
    images, sizes = (depth.contiguous(), usable.contiguous()), (height, width, rows, cols)
    across, tile = triton.next_power_of_2(cols), 16
    fit = lambda again: launch(
        _fit,
        (triton.cdiv(count.numel(), tile),),
        *(*images, plane, count, edge, cut, box, other, other_box, count.numel(), *sizes, tolerance),
        AGAIN=again,
        TILE=tile,
        COLS=across,
    )
    fit(False)
    pixels = triton.next_power_of_2(rows * cols)
    launch(_cut, (count.numel(),), *images, edge, cut, *sizes, tolerance, PIXELS=pixels, CHUNK=min(pixels, 16))
    fit(True)

    # The plane stays in front of the camera over the whole reach of the cell.
    steep = (plane[..., 1].abs() + plane[..., 2].abs()) / (0.8 * plane[..., 0]).clamp(min=1e-12)
    plane[..., 1:] /= steep.clamp(min=1)[..., None]
    valid = (plane[..., 0] > 0) & (count > 0)
    plane.mul_(valid[..., None])
    return plane, count, edge & valid, reference.joined_reach(plane, valid, box, other, other_box, tolerance)


@triton.jit(do_not_specialize=["cells"])
@no_type_check
def _fit(
    depth,
    usable,
    plane,
    count,
    edge,
    cut,
    box,
    other,
    other_box,
    cells,
    height,
    width,
    rows,
    cols,
    tolerance,
    AGAIN: tl.constexpr,
    TILE: tl.constexpr,
    COLS: tl.constexpr,
):
    """Least squares plane of the pixels of a tile of cells, a row of pixels at a time.

    `AGAIN` is for cells that straddle an edge: of the pixels of their largest surface, with its box, and what is to be
    known of their second largest.
    """
    cell = tl.program_id(0) * TILE + tl.arange(0, TILE)
    live = cell < cells
    if AGAIN:
        live = live & (tl.load(edge + cell, mask=live, other=0) != 0)
        if tl.max(live.to(tl.int32), 0) == 0:
            return
    low, high = tl.load(cut + cell * 4, mask=live, other=0.0), tl.load(cut + cell * 4 + 1, mask=live, other=0.0)
    from_, to = tl.load(cut + cell * 4 + 2, mask=live, other=0.0), tl.load(cut + cell * 4 + 3, mask=live, other=0.0)
    low, high, from_, to = low[:, None], high[:, None], from_[:, None], to[:, None]
    col = tl.arange(0, COLS)[None, :]
    there = live[:, None] & (col < cols)
    x = _centre(col, cols)
    view, place = cell // (height * width), cell % (height * width)
    corner = (view.to(tl.int64) * height + place // width) * rows * (width * cols) + (place % width) * cols
    at = corner[:, None] + col
    none = tl.zeros([TILE, COLS], tl.float32)

    # 1. The mean.
    number, total = none.to(tl.int32), none
    for row in range(rows):
        d, mask = _pixels(depth, usable, at + row * width * cols, there)
        if AGAIN:
            mask = mask & (d > low) & (d <= high)
        number += mask.to(tl.int32)
        total += tl.where(mask, d, 0.0)
    pixels = tl.sum(number, 1)
    many = tl.maximum(pixels, 1).to(tl.float32)
    mean = tl.div_rn(_total(total, col, cols), many)

    # 2. Moments about it.
    r, rx, ry, mx, my, xx, xy, yy = none, none, none, none, none, none, none, none
    for row in range(rows):
        y = _centre(row, rows)
        d, mask = _pixels(depth, usable, at + row * width * cols, there)
        if AGAIN:
            mask = mask & (d > low) & (d <= high)
        rest = tl.where(mask, d - mean[:, None], 0.0)
        r, rx, ry = r + rest, rx + rest * x, ry + rest * y
        mx, my = mx + tl.where(mask, x, 0.0), my + tl.where(mask, y, 0.0)
        xx, xy, yy = xx + tl.where(mask, x * x, 0.0), xy + tl.where(mask, x * y, 0.0), yy + tl.where(mask, y * y, 0.0)
    r, rx = tl.div_rn(_total(r, col, cols), many), tl.div_rn(_total(rx, col, cols), many)
    ry, mx = tl.div_rn(_total(ry, col, cols), many), tl.div_rn(_total(mx, col, cols), many)
    my, xx = tl.div_rn(_total(my, col, cols), many), tl.div_rn(_total(xx, col, cols), many)
    xy, yy = tl.div_rn(_total(xy, col, cols), many), tl.div_rn(_total(yy, col, cols), many)
    xx = (xx + 1e-4) - mx * mx
    xy = xy - mx * my
    yy = (yy + 1e-4) - my * my
    bx, by, det = rx - mx * r, ry - my * r, xx * yy - xy * xy
    along_x, along_y = tl.div_rn(bx * yy - by * xy, det), tl.div_rn(by * xx - bx * xy, det)
    centre = (mean + r) - (mx * along_x + my * along_y)

    # 3. The largest residual, and the range of what is there.
    residual, least, most = none, none + INFINITY, none - INFINITY
    left, right, top, bottom = none - INFINITY, none - INFINITY, none - INFINITY, none - INFINITY
    far_left, far_right, far_top, far_bottom = left, right, top, bottom
    size, rest_d, rest_x, rest_y = none.to(tl.int32), none, none, none
    side_left, side_right = _sides(col, cols)
    for row in range(rows):
        y = _centre(row, rows)
        d, mask = _pixels(depth, usable, at + row * width * cols, there)
        if AGAIN:
            side_top, side_bottom = _sides(row, rows)
            part = mask & (d > low) & (d <= high)
            rest = mask & ((d <= low) | (d > high)) & (d > from_) & (d <= to)
            mask = part
            left = tl.where(part, tl.maximum(left, side_left), left)
            right = tl.where(part, tl.maximum(right, side_right), right)
            top, bottom = (
                tl.where(part, tl.maximum(top, side_top), top),
                tl.where(part, tl.maximum(bottom, side_bottom), bottom),
            )
            far_left = tl.where(rest, tl.maximum(far_left, side_left), far_left)
            far_right = tl.where(rest, tl.maximum(far_right, side_right), far_right)
            far_top = tl.where(rest, tl.maximum(far_top, side_top), far_top)
            far_bottom = tl.where(rest, tl.maximum(far_bottom, side_bottom), far_bottom)
            size += rest.to(tl.int32)
            rest_d += tl.where(rest, d, 0.0)
            rest_x += tl.where(rest, x, 0.0)
            rest_y += tl.where(rest, y, 0.0)
        else:
            fitted = (centre[:, None] + along_x[:, None] * x) + along_y[:, None] * y
            residual = tl.where(mask, tl.maximum(residual, tl.abs(d - fitted)), residual)
        least, most = tl.where(mask, tl.minimum(least, d), least), tl.where(mask, tl.maximum(most, d), most)
    centre = tl.where(pixels > 0, tl.minimum(tl.maximum(centre, tl.min(least, 1)), tl.max(most, 1)), 0.0)
    tl.store(plane + cell * 3, centre, mask=live)
    tl.store(plane + cell * 3 + 1, along_x, mask=live)
    tl.store(plane + cell * 3 + 2, along_y, mask=live)
    if AGAIN:
        tl.store(box + cell * 4, tl.maximum(tl.max(left, 1), 0.0), mask=live)
        tl.store(box + cell * 4 + 1, tl.maximum(tl.max(right, 1), 0.0), mask=live)
        tl.store(box + cell * 4 + 2, tl.maximum(tl.max(top, 1), 0.0), mask=live)
        tl.store(box + cell * 4 + 3, tl.maximum(tl.max(bottom, 1), 0.0), mask=live)
        tl.store(other_box + cell * 4, tl.max(far_left, 1), mask=live)
        tl.store(other_box + cell * 4 + 1, tl.max(far_right, 1), mask=live)
        tl.store(other_box + cell * 4 + 2, tl.max(far_top, 1), mask=live)
        tl.store(other_box + cell * 4 + 3, tl.max(far_bottom, 1), mask=live)
        many = tl.maximum(tl.sum(size, 1), 1).to(tl.float32)
        tl.store(other + cell * 3, tl.div_rn(_total(rest_d, col, cols), many), mask=live)
        tl.store(other + cell * 3 + 1, tl.div_rn(_total(rest_x, col, cols), many), mask=live)
        tl.store(other + cell * 3 + 2, tl.div_rn(_total(rest_y, col, cols), many), mask=live)
    else:
        tl.store(count + cell, pixels.to(tl.int64), mask=live)
        tl.store(edge + cell, tl.max(residual, 1) > tolerance * tl.maximum(centre, 0.0), mask=live)


@triton.jit
@no_type_check
def _pixels(depth, usable, at, there):
    """Inverse depth of some pixels, and which of them are usable."""
    mask = there & (tl.load(usable + at, mask=there, other=0) != 0)
    d = tl.div_rn(1.0, tl.load(depth + at, mask=mask, other=1.0))
    return tl.where(mask, d, 0.0), mask


@triton.jit
@no_type_check
def _centre(pixel, pixels):
    """Offset of a pixel's centre from the cell's, in cells: rounded once, see `reference.pixel_places`."""
    return ((tl.cast(pixel, tl.float64) + 0.5) / pixels - 0.5).to(tl.float32)


@triton.jit
@no_type_check
def _sides(pixel, pixels):
    """How far the sides of a pixel lie to either side of the cell's centre, see `reference.pixel_places`."""
    pixel = tl.cast(pixel, tl.float64)
    return (0.5 - pixel / pixels).to(tl.float32), ((pixel + 1.0) / pixels - 0.5).to(tl.float32)


@triton.jit
@no_type_check
def _total(columns, col, cols):
    """Sum over columns from left to right: each is brought out by a sum of which it is the only term."""
    total = tl.sum(tl.where(col == 0, columns, 0.0), 1)
    for c in range(1, cols):
        total += tl.sum(tl.where(col == c, columns, 0.0), 1)
    return total


@triton.jit
@no_type_check
def _cut(
    depth,
    usable,
    edge,
    cut,
    height,
    width,
    rows,
    cols,
    tolerance,
    PIXELS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Ranges of inverse depth (above, up to) of a cell's largest surface, and of the largest of what is not on it."""
    cell = tl.program_id(0)
    if tl.load(edge + cell) == 0:
        return
    view, place = cell // (height * width), cell % (height * width)
    corner = (view.to(tl.int64) * height + place // width) * rows * (width * cols) + (place % width) * cols
    own = _range_of_surface(depth, usable, corner, width, rows, cols, tolerance, 1.0, 0.0, PIXELS, CHUNK)
    low, high = own
    tl.store(cut + cell * 4, low)
    tl.store(cut + cell * 4 + 1, high)
    low, high = _range_of_surface(depth, usable, corner, width, rows, cols, tolerance, low, high, PIXELS, CHUNK)
    tl.store(cut + cell * 4 + 2, low)
    tl.store(cut + cell * 4 + 3, high)


@triton.jit
@no_type_check
def _range_of_surface(
    depth, usable, corner, width, rows, cols, tolerance, not_above, not_upto, PIXELS: tl.constexpr, CHUNK: tl.constexpr
):
    """`reference._largest_surface` as a range of inverse depth, of the pixels that are not in a given range."""
    low, high = tolerance * 0 - INFINITY, tolerance * 0 + INFINITY
    d, free = _of_cell(depth, usable, corner, width, rows, cols, not_above, not_upto, tl.arange(0, PIXELS))
    for _ in range(2):
        mask = free & (d > low) & (d <= high)
        after = tl.zeros([PIXELS], tl.float32) + INFINITY
        for begin in range(0, rows * cols, CHUNK):
            e, there = _of_cell(
                depth, usable, corner, width, rows, cols, not_above, not_upto, begin + tl.arange(0, CHUNK)
            )
            there = there & (e > low) & (e <= high)
            behind = there[None, :] & (e[None, :] > d[:, None])
            after = tl.minimum(after, tl.min(tl.where(behind, e[None, :], INFINITY), 1))
        gap = tl.where(mask & (after < INFINITY), tl.div_rn(after, d) - 1, 0.0)
        widest = tl.max(gap, 0)
        where = tl.min(tl.where(mask & (gap == widest), d, INFINITY), 0)
        nearer = tl.sum((mask & (d > where)).to(tl.int32), 0) * 2 >= tl.sum(mask.to(tl.int32), 0)
        split = widest > tolerance
        low, high = tl.where(split & nearer, where, low), tl.where(split & (nearer == 0), where, high)
    return low, high


@triton.jit
@no_type_check
def _of_cell(depth, usable, corner, width, rows, cols, not_above, not_upto, pixel):
    """Inverse depth of pixels of one cell, and which are usable and not in a range."""
    at = corner + (pixel // cols) * (width * cols) + pixel % cols
    d, mask = _pixels(depth, usable, at, pixel < rows * cols)
    return d, mask & ((d <= not_above) | (d > not_upto))
