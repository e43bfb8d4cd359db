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

from mirage.kernels import reference
from mirage.kernels.compiled import HALF, ONE, ZERO, array, each, jit, parts
from mirage.kernels.cpu_hits import surfel_hits as surfel_hits
from mirage.kernels.cpu_lift import cell_planes as cell_planes
from mirage.kernels.cpu_nearest import nearest_cells as nearest_cells
from mirage.kernels.cpu_nearest import nearest_points as nearest_points
from mirage.kernels.cpu_nearest import rows as rows
from mirage.kernels.cpu_nearest import surfel_points as surfel_points
from mirage.kernels.reference import voxel_overlap as voxel_overlap

BLOCK = 512  # points that are projected in one go


# --- free space ---------------------------------------------------------------------------------------------------


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
    out = torch.empty(len(chosen), features.shape[1], dtype=features.dtype)
    out_ = out.view(torch.int16).numpy() if half else out.numpy()

    def part(number: int) -> None:
        some = ranges[number]
        tap, weight = np.empty((len(chosen_[some]), 4), np.int32), np.empty((len(chosen_[some]), 4), np.float32)
        _taps(*elements, chosen_[some], hit_[some], np.float32(tolerance), tap, weight)
        if half:
            sums = np.empty((len(tap), features.shape[1]), np.float32)
            _sum_halves(rows, features.dtype == torch.float16, tap, weight, sums)
            _halves(sums, sums.view(np.int32), features.dtype == torch.float16, out_[some])
        else:
            _sum_rows(rows, tap, weight, out_[some])

    each(len(ranges), len(chosen) * features.shape[1] // 8, part)
    return out


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
    mask, shift = np.int32(0x7FFF if is_float16 else 0xFFFF), np.int32(13 if is_float16 else 16)
    sign, rescale = np.int32(0x8000 if is_float16 else 0), np.float32(2.0**112 if is_float16 else 1.0)
    for i in range(len(tap)):
        if tap[i, 0] < 0:
            out[i] = ZERO
            continue
        f0, f1, f2, f3 = features[tap[i, 0]], features[tap[i, 1]], features[tap[i, 2]], features[tap[i, 3]]
        w0, w1, w2, w3 = weight[i, 0], weight[i, 1], weight[i, 2], weight[i, 3]
        for c in range(out.shape[1]):
            a0, a1 = _wide(f0[c], mask, shift, sign) * rescale, _wide(f1[c], mask, shift, sign) * rescale
            a2, a3 = _wide(f2[c], mask, shift, sign) * rescale, _wide(f3[c], mask, shift, sign) * rescale
            out[i, c] = ((a0 * w0 + a1 * w1) + a2 * w2) + a3 * w3


@jit
def _wide(half, mask, shift, sign):
    """The float of the bits of one in half precision, up to a factor."""
    bits = np.int32(half)
    return np.int32(((bits & mask) << shift) | ((bits & sign) << np.int32(16))).view(np.float32)


@jit
def _halves(values, words, is_float16, out):
    """Round to half precision, to the nearest and of two to the even one, as torch does; `words` are the bits."""
    one, infinite = np.int32(1), np.int32(0x7F80_0000)
    shift, half = (np.int32(13), np.int32(0xFFF)) if is_float16 else (np.int32(16), np.int32(0x7FFF))
    least, most = (np.int32(0x3880_0000), np.int32(0x4780_0000)) if is_float16 else (np.int32(0), infinite)
    bias, top = (np.int32(0x1C000), np.int32(0x7C00)) if is_float16 else (np.int32(0), np.int32(0x7F80))
    for i in range(len(values)):
        for c in range(values.shape[1]):
            word = words[i, c]
            size, sign = word & np.int32(0x7FFF_FFFF), (word >> np.int32(16)) & np.int32(0x8000)
            # Below 2^-14 the last place of a float16 is that of one half.
            small = np.float32(abs(values[i, c]) + HALF).view(np.int32) - np.int32(0x3F00_0000)
            bits = ((size + half + ((size >> shift) & one)) >> shift) - bias
            bits = small if size < least else bits
            bits = top if size >= most else bits
            bits = np.int32(0x7FC0) if size > infinite else bits
            out[i, c] = np.int16(bits | sign)
