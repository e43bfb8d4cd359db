"""Runs of elements for `cpu_hits`: neighbours in one source view, on one plane, and what a picture can show of them."""

import functools

import numpy as np

from mirage.kernels import reference
from mirage.kernels.compiled import HALF, INF, ONE, ROUNDING, TWO, ZERO, jit

RUN = 64  # elements of a run at most
LANES = 16  # what the processor does in one go
SURFACES = 24  # that are told apart in one block of a source view
SAME = np.float32(0.01)  # relative inverse depth by which an element may differ from the plane of its run
SLOP, STEP = np.float32(reference.SLOP), np.float32(reference.REACH_STEP)

# Where `bound_runs` finds and leaves its numbers, sixty-four of each. What runs are, in their source view: range of
# columns and rows, plane of inverse depth and error of it, ranges of its slopes, size of its terms, range of shapes.
U0, U1, V0, V1, P0, P1, P2, E, A0, A1, B0, B1, WS, R0, R1 = (RUN * i for i in range(15))
# What they are in a picture: out of sight (-1), unsure (0) or sure (1); cells; the most inverse depth, linear in column
# and row; range of the size of a source cell; the most inverse depth of all.
KIND, X0, X1, Y0, Y1, G0, GX, GY, S0, S1, NEAREST = (RUN * i for i in range(16, 27))
NUMBERS = 27 * RUN


@functools.lru_cache(maxsize=8)
def grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Centre of each cell; its block, of eight columns and up to 32 rows; number of blocks. See `splat_surfels`."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    places = np.stack([column + 0.5, row + 0.5], 1).astype(np.float32)
    tall, wide = -(-rows // 32), -(-columns // 8)
    return places, (row * tall // rows * wide + column // 8).astype(np.int32), tall * wide


@jit
def sort_into_runs(elements, source, places, block, blocks, sources, order, sorted_, first, last):
    """Sort a range of elements by source view, block and surface; make runs of them and the bounds of these.

    Runs are: first element and last + 1 in the order, source view, least rank. See `splat_surfels`.
    """
    plane, cell, reach, rank = elements
    plane_, cell_, reach_, rank_ = sorted_
    starts = np.zeros(sources * blocks + 1, np.int32)
    for e in range(first, last):
        starts[source[e] * blocks + block[cell[e]] + 1] += 1
    most = 0
    starts[0] = first
    for i in range(sources * blocks):
        most = max(most, starts[i + 1])
        starts[i + 1] += starts[i]
    given = np.empty(last - first, np.int32)
    for e in range(first, last):
        i = source[e] * blocks + block[cell[e]]
        given[starts[i] - first] = e
        starts[i] += 1
    runs, bounds = np.empty((last - first, 4), np.int32), np.empty((last - first, 15), np.float32)
    which, p = np.empty(most, np.int32), np.empty((SURFACES, 3), np.float32)
    ends = np.empty(SURFACES, np.int32)
    count, start = 0, first
    for i in range(sources * blocks):
        end = starts[i]
        # 1. Surfaces: elements on the plane of the first one of them.
        surfaces, k = 0, 0
        ends[:] = 0
        for j in range(start, end):
            e = given[j - first]
            u, v = places[cell[e], 0], places[cell[e], 1]
            a0, a1, a2 = plane[e, 0], plane[e, 1], plane[e, 2]
            if surfaces == 0 or not _is_on(p[k], u, v, a0, a1, a2):
                k = 0
                while k < surfaces and not _is_on(p[k], u, v, a0, a1, a2):
                    k += 1
                if k == surfaces:
                    if surfaces == SURFACES:
                        k -= 1
                    else:
                        surfaces += 1
                        p[k, 0], p[k, 1], p[k, 2] = a0 - (a1 * u + a2 * v), a1, a2
            which[j - start] = k
            ends[k] += 1
        # 2. Sorted by surface, each cut into runs.
        at = start
        for k in range(surfaces):
            ends[k], at = at, at + ends[k]
        for j in range(start, end):
            k = which[j - start]
            e, i_ = given[j - first], ends[k]
            order[i_], cell_[i_], rank_[i_] = e, cell[e], rank[e]
            for c in range(3):
                plane_[i_, c] = plane[e, c]
            for c in range(4):
                reach_[i_, c] = reach[e, c]
            ends[k] = i_ + 1
        for k in range(surfaces):
            while start < ends[k]:
                to = min(start + RUN, ends[k])
                runs[count, 0], runs[count, 1], runs[count, 2] = start, to, i // blocks
                runs[count, 3] = _surround(
                    plane_[start:to], cell_[start:to], reach_[start:to], rank_[start:to], places, p[k], bounds[count]
                )
                count, start = count + 1, to
    return runs[:count], bounds[:count].T.copy()


@jit
def _is_on(p, u, v, a0, a1, a2):
    apart = abs((a0 - p[0]) - (p[1] * u + p[2] * v))
    return apart + HALF * (abs(a1 - p[1]) + abs(a2 - p[2])) <= SAME * a0


@jit
def _surround(plane, cell, reach, rank, places, p, q):
    """Bounds of a run, as `bound_runs` takes them; its least rank.

    Range of its patches along u and v; a plane in inverse depth and how far the patches differ from it; the range of
    their slopes; the size of the terms of their inverse depth; the range of their width over height.
    """
    p1, p2, least = p[1], p[2], np.int32(2**31 - 1)
    u0, v0, low, a_0, b_0, r0 = INF, INF, INF, INF, INF, INF
    u1, v1, high, a_1, b_1, ws, r1 = -INF, -INF, -INF, -INF, -INF, ZERO, -INF
    for e in range(len(cell)):
        u, v, a0, a1, a2 = places[cell[e], 0], places[cell[e], 1], plane[e, 0], plane[e, 1], plane[e, 2]
        left, right = np.float32(max(reach[e, 0], 0)) * STEP + SLOP, np.float32(max(reach[e, 1], 0)) * STEP + SLOP
        top, bottom = np.float32(max(reach[e, 2], 0)) * STEP + SLOP, np.float32(max(reach[e, 3], 0)) * STEP + SLOP
        across, down = left if left > right else right, top if top > bottom else bottom
        middle, apart = a0 - (p1 * u + p2 * v), abs(a1 - p1) * across + abs(a2 - p2) * down
        size, ratio = abs(a0) + (abs(a1) * across + abs(a2) * down), (left + right) / (top + bottom)
        u0, u1 = u - left if u - left < u0 else u0, u + right if u + right > u1 else u1
        v0, v1 = v - top if v - top < v0 else v0, v + bottom if v + bottom > v1 else v1
        low, high = middle - apart if middle - apart < low else low, middle + apart if middle + apart > high else high
        a_0, a_1 = a1 if a1 < a_0 else a_0, a1 if a1 > a_1 else a_1
        b_0, b_1 = a2 if a2 < b_0 else b_0, a2 if a2 > b_1 else b_1
        ws, r0, r1 = size if size > ws else ws, ratio if ratio < r0 else r0, ratio if ratio > r1 else r1
        least = min(least, rank[e])
    ws += abs(p1) * u1 + abs(p2) * v1
    q[0], q[1], q[2], q[3], q[4], q[5], q[6] = u0, u1, v0, v1, HALF * (low + high), p1, p2
    q[7], q[8], q[9], q[10], q[11] = HALF * (high - low) + np.float32(1e-6) * ws, a_0, a_1, b_0, b_1
    q[12], q[13], q[14] = ws, r0, r1
    return least


@jit
def bound_runs(m, count, near, margin_x, margin_y, wide, tall, numbers):
    """Where runs of one source view appear in a picture, how near and how large: never wrong by more than rounding.

    Of which elements it is sure: those so far in front of the camera, and seen so little from the side, that float32
    loses less of their depth than `cpu_hits.SURE` leaves. Sizes and places are wider by what may be lost.
    See `splat_surfels`.
    """
    m00, m01, m02, m03 = m[0, 0], m[0, 1], m[0, 2], m[0, 3]
    m10, m11, m12, m13 = m[1, 0], m[1, 1], m[1, 2], m[1, 3]
    m20, m21, m22, m23 = m[2, 0], m[2, 1], m[2, 2], m[2, 3]
    tiny, slack = np.float32(4e-6), np.float32(ROUNDING)
    far_x, far_y = wide + margin_x, tall + margin_y
    for start in range(0, count, LANES):
        b = numbers[start:]
        for i in range(LANES):
            u0, u1, v0, v1, ws = b[U0 + i], b[U1 + i], b[V0 + i], b[V1 + i], b[WS + i]
            p0, p1, p2, e = b[P0 + i], b[P1 + i], b[P2 + i], b[E + i]
            # 1. Its corners, with the middle of the inverse depths, and what the rest of these changes.
            wa, wb = (p0 + p1 * u0) + p2 * v0, (p0 + p1 * u1) + p2 * v0
            wc, wd = (p0 + p1 * u0) + p2 * v1, (p0 + p1 * u1) + p2 * v1
            xa, xb = ((m02 + u0 * m00) + v0 * m01) + wa * m03, ((m02 + u1 * m00) + v0 * m01) + wb * m03
            xc, xd = ((m02 + u0 * m00) + v1 * m01) + wc * m03, ((m02 + u1 * m00) + v1 * m01) + wd * m03
            ya, yb = ((m12 + u0 * m10) + v0 * m11) + wa * m13, ((m12 + u1 * m10) + v0 * m11) + wb * m13
            yc, yd = ((m12 + u0 * m10) + v1 * m11) + wc * m13, ((m12 + u1 * m10) + v1 * m11) + wd * m13
            za, zb = ((m22 + u0 * m20) + v0 * m21) + wa * m23, ((m22 + u1 * m20) + v0 * m21) + wb * m23
            zc, zd = ((m22 + u0 * m20) + v1 * m21) + wc * m23, ((m22 + u1 * m20) + v1 * m21) + wd * m23
            ex, ey, ez = m03 * e, m13 * e, m23 * e
            exx, eyy, ezz = abs(ex), abs(ey), abs(ez)
            xs = (abs(m02) + u1 * abs(m00)) + (v1 * abs(m01) + ws * abs(m03))
            ys = (abs(m12) + u1 * abs(m10)) + (v1 * abs(m11) + ws * abs(m13))
            zs = (abs(m22) + u1 * abs(m20)) + (v1 * abs(m21) + ws * abs(m23))
            z0, z1 = min(min(za, zb), min(zc, zd)) - ezz, max(max(za, zb), max(zc, zd)) + ezz
            # 2. Out of sight: behind the camera, or beyond the margin of the picture, by more than rounding.
            q0 = z1 - near * (min(min(wa, wb), min(wc, wd)) - e)
            q1 = max(max(xa + margin_x * za, xb + margin_x * zb), max(xc + margin_x * zc, xd + margin_x * zd))
            q2 = max(max(far_x * za - xa, far_x * zb - xb), max(far_x * zc - xc, far_x * zd - xd))
            q3 = max(max(ya + margin_y * za, yb + margin_y * zb), max(yc + margin_y * zc, yd + margin_y * zd))
            q4 = max(max(far_y * za - ya, far_y * zb - yb), max(far_y * zc - yc, far_y * zd - yd))
            out = q0 < -slack * (zs + near * ws)
            out |= q1 + (exx + margin_x * ezz) < -slack * (xs + margin_x * zs)
            out |= q2 + (exx + far_x * ezz) < -slack * (xs + far_x * zs)
            out |= q3 + (eyy + margin_y * ezz) < -slack * (ys + margin_y * zs)
            out |= q4 + (eyy + far_y * ezz) < -slack * (ys + far_y * zs)
            # 3. Eight corners in the picture, nearer and farther, and their inverse depth there.
            ia, ib, ic, id_ = ONE / (za + ez), ONE / (zb + ez), ONE / (zc + ez), ONE / (zd + ez)
            ja, jb, jc, jd = ONE / (za - ez), ONE / (zb - ez), ONE / (zc - ez), ONE / (zd - ez)
            xa0, xb0, xc0, xd0 = (xa + ex) * ia, (xb + ex) * ib, (xc + ex) * ic, (xd + ex) * id_
            xa1, xb1, xc1, xd1 = (xa - ex) * ja, (xb - ex) * jb, (xc - ex) * jc, (xd - ex) * jd
            ya0, yb0, yc0, yd0 = (ya + ey) * ia, (yb + ey) * ib, (yc + ey) * ic, (yd + ey) * id_
            ya1, yb1, yc1, yd1 = (ya - ey) * ja, (yb - ey) * jb, (yc - ey) * jc, (yd - ey) * jd
            wa0, wb0, wc0, wd0 = (wa + e) * ia, (wb + e) * ib, (wc + e) * ic, (wd + e) * id_
            wa1, wb1, wc1, wd1 = (wa - e) * ja, (wb - e) * jb, (wc - e) * jc, (wd - e) * jd
            x0 = min(min(min(xa0, xb0), min(xc0, xd0)), min(min(xa1, xb1), min(xc1, xd1)))
            x1 = max(max(max(xa0, xb0), max(xc0, xd0)), max(max(xa1, xb1), max(xc1, xd1)))
            y0 = min(min(min(ya0, yb0), min(yc0, yd0)), min(min(ya1, yb1), min(yc1, yd1)))
            y1 = max(max(max(ya0, yb0), max(yc0, yd0)), max(max(ya1, yb1), max(yc1, yd1)))
            # 4. Inverse depth is at most G0 + GX x + GY y: any slopes do, these are those of the nearer plane.
            dx, dy, dw, cx, cy, cw = xb0 - xa0, yb0 - ya0, wb0 - wa0, xc0 - xa0, yc0 - ya0, wc0 - wa0
            turn = ONE / (dx * cy - dy * cx)
            gx, gy = (dw * cy - cw * dy) * turn, (dx * cw - cx * dw) * turn
            flat = abs(gx) + abs(gy) < INF
            gx, gy = gx if flat else ZERO, gy if flat else ZERO
            fa = max(wa0 - (gx * xa0 + gy * ya0), wa1 - (gx * xa1 + gy * ya1))
            fb = max(wb0 - (gx * xb0 + gy * yb0), wb1 - (gx * xb1 + gy * yb1))
            fc = max(wc0 - (gx * xc0 + gy * yc0), wc1 - (gx * xc1 + gy * yc1))
            fd = max(wd0 - (gx * xd0 + gy * yd0), wd1 - (gx * xd1 + gy * yd1))
            over = ONE / z0
            # Only centres within the margins count from here on.
            x_l, x_r, y_t, y_b = max(x0, -margin_x), min(x1, far_x), max(y0, -margin_y), min(y1, far_y)
            x_far, y_far = max(abs(x_l), abs(x_r)), max(abs(y_t), abs(y_b))
            lost_x, lost_y = tiny * ((xs + x_far * zs) * over), tiny * ((ys + y_far * zs) * over)
            g0 = max(max(fa, fb), max(fc, fd)) + (slack * (ws * over)) * (zs * over)
            g0 += abs(gx) * (lost_x + slack * max(abs(x0), abs(x1))) + abs(gy) * (
                lost_y + slack * max(abs(y0), abs(y1))
            )
            # 5. Slopes of the image, times z: how large a source cell is, and whether it is seen from its front.
            xm, xh, ym, yh = HALF * (x_l + x_r), HALF * abs(x_r - x_l), HALF * (y_t + y_b), HALF * abs(y_b - y_t)
            am, ah = HALF * (b[A0 + i] + b[A1 + i]), HALF * (b[A1 + i] - b[A0 + i])
            bm, bh = HALF * (b[B0 + i] + b[B1 + i]), HALF * (b[B1 + i] - b[B0 + i])
            tx, txh, ty, tyh = m03 - xm * m23, xh * abs(m23), m13 - ym * m23, yh * abs(m23)
            ux, uxh = (m00 - xm * m20) + am * tx, xh * abs(m20) + (abs(am) * txh + ah * (abs(tx) + txh))
            vx, vxh = (m01 - xm * m21) + bm * tx, xh * abs(m21) + (abs(bm) * txh + bh * (abs(tx) + txh))
            uy, uyh = (m10 - ym * m20) + am * ty, yh * abs(m20) + (abs(am) * tyh + ah * (abs(ty) + tyh))
            vy, vyh = (m11 - ym * m21) + bm * ty, yh * abs(m21) + (abs(bm) * tyh + bh * (abs(ty) + tyh))
            af, bf = abs(am) + ah, abs(bm) + bh
            sx = (abs(m00) + af * abs(m03)) + x_far * (abs(m20) + af * abs(m23))
            sx += (abs(m01) + bf * abs(m03)) + x_far * (abs(m21) + bf * abs(m23))
            sy = (abs(m10) + af * abs(m13)) + y_far * (abs(m20) + af * abs(m23))
            sy += (abs(m11) + bf * abs(m13)) + y_far * (abs(m21) + bf * abs(m23))
            det, scale = ux * vy - uy * vx, sx * sy
            deth = ((abs(ux) * vyh + uxh * abs(vy)) + uxh * vyh) + ((abs(uy) * vxh + uyh * abs(vx)) + uyh * vxh)
            placed = (z0 * np.float32(64) > zs) & (lost_x < HALF) & (lost_y < HALF)
            sure = placed & ((det - deth) * np.float32(64) > scale) & (g0 < INF)
            sure &= ((det - deth) * np.float32(768)) * (z0 * z0) > scale * (z1 * (z1 - z0))
            out |= placed & (det + deth < scale * np.float32(-1e-4))
            whole = (x_l == x0) & (x_r == x1) & (y_t == y0) & (y_b == y1)
            # A patch is at least 1/128 of a cell wide, so sizes are lost as places are, times that at most.
            lost = np.float32(16) * (lost_x + lost_y)
            least = max(abs(ux) - uxh, abs(vy) - vyh) / z1 - lost
            across = (abs(ux) + uxh) + np.float32(1.3) * (abs(vx) + vxh) / b[R0 + i]
            down = (abs(vy) + vyh) + np.float32(1.3) * (abs(uy) + uyh) * b[R1 + i]
            b[S0 + i], b[S1 + i] = least if whole else ZERO, max(across, down) * over + lost if whole else INF
            # 6. Its cells.
            first_x = np.ceil(min(max((x0 - HALF) - (lost_x + TWO * SLOP), ZERO), wide))
            last_x = np.floor(min(max((x1 - HALF) + (lost_x + TWO * SLOP), -ONE), wide - ONE))
            first_y = np.ceil(min(max((y0 - HALF) - (lost_y + TWO * SLOP), ZERO), tall))
            last_y = np.floor(min(max((y1 - HALF) + (lost_y + TWO * SLOP), -ONE), tall - ONE))
            out |= placed & ((first_x > last_x) | (first_y > last_y))
            b[KIND + i] = -ONE if out else (ONE if sure else ZERO)
            b[X0 + i], b[X1 + i] = first_x if placed else ZERO, last_x if placed else wide - ONE
            b[Y0 + i], b[Y1 + i] = first_y if placed else ZERO, last_y if placed else tall - ONE
            b[G0 + i], b[GX + i], b[GY + i] = g0 if sure else INF, gx if sure else ZERO, gy if sure else ZERO
            nearest = max(max(max(wa0, wb0), max(wc0, wd0)), max(max(wa1, wb1), max(wc1, wd1)))
            b[NEAREST + i] = nearest if sure else INF
