"""The exact renderer: analytic intersections, soft light, mip-mapped textures; batched, on CPU or GPU.

One sample per pixel centre gives depth and masks; pixels on an edge get a grid of samples for their colour.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.scenes.build import BALLS, BOXES, SKY, SOLIDS
from mirage.scenes.textures import SIZE
from mirage.scenes.worlds import Worlds

NEAR = 0.02
TILE = 8  # on the CPU, solids are tried only on the tiles of TILE**2 rays that they may touch
REACH = 0.45  # metres within which a solid darkens what is near it
_LEVELS = SIZE.bit_length()
_OFFSETS = [sum((SIZE >> k) ** 2 for k in range(level)) for level in range(_LEVELS)]


@dataclass(frozen=True)
class Rendering:
    """Exact images of worlds: `b` worlds, `f` frames of each.

    Convention:
        Colour is in [-1, 1]; depth is z at pixel centres in metres, 0 for sky. `movers` marks every pixel whose colour
        a moving solid can touch (itself and its direct neighbours), so that all others equal the static world's.
    """

    colour: Float32[Tensor, "b f 3 h w"]
    depth: Float32[Tensor, "b f h w"]
    movers: Bool[Tensor, "b f h w"]
    sky: Bool[Tensor, "b f h w"]


@torch.no_grad()
def render(
    worlds: Worlds, cameras: Cameras, *, times: Float[Tensor, "m"] | None = None, supersample: int = 2
) -> Rendering:
    """Render every world from its own cameras.

    Args:
        worlds: The worlds, on the device that shall do the work.
        cameras: All frames of world 0, then all of world 1, ...; as many for each.
        times: The time of each camera, in frames; by default 0, 1, 2, ... in each world.
        supersample: Colour samples per pixel and axis on edges; 1 for none.

    Returns:
        Colour, depth and masks, on the device of `worlds`.

    Raises:
        ValueError: If the cameras are no multiple of the worlds, `times` has another length, or `supersample` < 1.

    Cost:
        About 20 ms per frame of 128 x 128 on one CPU thread (give each process one); no host syncs on a GPU.

    Example:
        Five frames of a walk through each of two worlds, the second one under the sky:

        >>> from mirage.scenes import Worlds, render, sample_path
        >>> worlds = Worlds.cat([Worlds.sample([1], "room"), Worlds.sample([2], "open")])
        >>> paths = [sample_path(worlds[i], i, 5, kind="walk", height=12, width=20) for i in range(2)]
        >>> out = render(worlds, Cameras.cat(paths))
        >>> out.colour.shape, out.sky.flatten(1).any(1).tolist()
        (torch.Size([2, 5, 3, 12, 20]), [False, True])
    """
    count, frames = len(cameras), len(cameras) // max(len(worlds), 1)
    if count == 0 or frames * len(worlds) != count:
        raise ValueError(f"cameras must be f frames for each of {len(worlds)} worlds, world-major, got {count}")
    if times is not None and len(times) != count:
        raise ValueError(f"times must have one entry per camera, {count}, got {len(times)}")
    if supersample < 1:
        raise ValueError(f"supersample must be at least 1, got {supersample}")
    device = worlds.center.device
    cameras = cameras.to(device)
    times = torch.arange(frames, device=device).repeat(len(worlds)) if times is None else times.to(device)
    tiled = device.type == "cpu"
    chunk = 1 if tiled else max(1, 2**21 // (cameras.height * cameras.width))
    parts = []
    for start in range(0, count, chunk):
        index = torch.arange(start, min(start + chunk, count), device=device)
        part = _Chunk(worlds, index // frames, cameras[index], times[index].float(), tiled=tiled)
        parts.append(part.image(supersample))
    colour, depth, movers, sky = (torch.cat(p).unflatten(0, (len(worlds), frames)) for p in zip(*parts, strict=True))
    return Rendering(colour, depth, movers, sky)


class _Chunk:
    """`m` views, each of its own world, with all solids moved to their places at that time."""

    def __init__(self, worlds: Worlds, world: Tensor, cameras: Cameras, times: Tensor, *, tiled: bool) -> None:
        self.tiled = tiled  # one view, in tiles that each know their solids; else all views at once, without asking
        self.m, self.h, self.w = len(world), cameras.height, cameras.width
        take = lambda name: getattr(worlds, name)[world]
        motion, center, size = take("motion"), take("center"), take("size")
        swing = torch.sin(motion[..., 3] * times[:, None] + motion[..., 4])[..., None]
        center = center + motion[..., :3] * swing
        angle = motion[..., 5] * times[:, None]
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        spin = torch.stack([cos, zero, -sin, zero, zero + 1, zero, sin, zero, cos], -1).unflatten(-1, (3, 3))
        self.unit = size[..., None].clamp(min=1e-6).reciprocal() * (take("rotation") @ spin)  # unit_from_world, linear
        self.shift = -(self.unit @ center[..., None])
        pose = cameras.world_from_cam
        self.turn, self.eye = pose[:, :3, :3], pose[:, :3, 3]
        self.ray = self.unit @ self.turn[:, None]  # unit_from_cam, linear
        self.start = (self.unit @ self.eye[:, None, :, None] + self.shift)[..., 0]
        self.k = cameras.intrinsics
        self.size, self.is_mover = size, (motion != 0).any(-1)
        self.material, self.textures, self.open = take("material"), worlds.textures, take("open")
        self.light, self.sun, self.ambient, self.fade = take("light"), take("sun"), take("ambient"), take("fade")
        self.world = world
        self.lamp = (self.unit @ self.light[:, None, :, None] + self.shift)[..., 0]
        self.center, self.radius = center, size.norm(dim=-1)
        self.casts = (size[..., 0] > 0) & ~self.is_mover & (size.amin(-1) > 0.02)
        self.casts[:, 0] = False

    def image(self, supersample: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Colour "m 3 h w", depth, movers and sky."""
        h, w = self.h, self.w
        device = self.eye.device
        order = _tiles(h, w) if self.tiled else torch.arange(h * w, device=device).view(h, w)
        rays = self._rays(order % w + 0.5, order // w + 0.5)
        t, solid = self._trace(rays)
        rgb, side = self._shade(rays, t, solid)
        if self.tiled:  # from tiles to rows
            back = torch.empty(h * w, dtype=torch.int64)
            back[order.flatten()] = torch.arange(order.numel())
            t, solid, rgb, side = (x.flatten(-2)[..., back].unflatten(-1, (h, w)) for x in (t, solid, rgb, side))
        key, sky, mover = solid * 8 + side, side == 7, self._is_mover(solid)
        if supersample > 1:
            edge = torch.zeros_like(sky)
            for axis in (1, 2):
                n = key.shape[axis] - 1
                differ = key.narrow(axis, 1, n) != key.narrow(axis, 0, n)
                edge.narrow(axis, 1, n).logical_or_(differ)
                edge.narrow(axis, 0, n).logical_or_(differ)
            steps = (torch.arange(supersample, device=device) + 0.5) / supersample
            if self.tiled:  # only the pixels on edges, in blocks
                where = order.flatten()[: h * w]
                where = where[edge.flatten()[where]]
                if len(where):
                    xs = (where % w)[:, None, None] + steps[None, None, :]
                    ys = (where // w)[:, None, None] + steps[None, :, None]
                    count = supersample**2
                    block = _blocks(torch.arange(len(where) * count))
                    x, y = (c.flatten()[block] for c in torch.broadcast_tensors(xs, ys))
                    rays = self._rays(x, y)
                    t2, solid2 = self._trace(rays)
                    fine, _ = self._shade(rays, t2, solid2)
                    fine = fine.view(3, -1)[:, : len(where) * count].view(3, -1, count).mean(2)
                    rgb = rgb.contiguous()
                    rgb.view(3, -1)[:, where] = fine
                    touched = self._is_mover(solid2).view(-1)[: len(where) * count].view(-1, count).any(1)
                    mover.view(-1)[where] |= touched
            else:
                total, touched = torch.zeros_like(rgb), torch.zeros_like(mover)
                for dy in steps:
                    for dx in steps:
                        rays = self._rays(order % w + dx, order // w + dy)
                        t2, solid2 = self._trace(rays)
                        total += self._shade(rays, t2, solid2)[0]
                        touched |= self._is_mover(solid2)
                rgb = torch.where(edge[:, None], total / supersample**2, rgb)
                mover = mover | touched & edge
        grown = mover.clone()
        grown[:, 1:] |= mover[:, :-1]
        grown[:, :-1] |= mover[:, 1:]
        grown[:, :, 1:] |= mover[:, :, :-1]
        grown[:, :, :-1] |= mover[:, :, 1:]
        return rgb.mul(2).sub(1), torch.where(sky, 0.0, t), grown, sky

    def _is_mover(self, solid: Tensor) -> Tensor:
        return self.is_mover.gather(1, solid.flatten(1)).view(solid.shape)

    def _rays(self, x: Tensor, y: Tensor) -> Tensor:
        """Directions "m 2 r s" with z = 1 of image points "r s": r tiles, blocks or rows of s rays."""
        k = self.k[..., None, None]
        return torch.stack([(x - k[:, 0, 2]) / k[:, 0, 0], (y - k[:, 1, 2]) / k[:, 1, 1]], 1)

    def _trace(self, rays: Tensor) -> tuple[Tensor, Tensor]:
        """z-depth of the first surface along each ray, and the solid it belongs to, "m r s"."""
        turn, along, start = (
            self.ray[..., :2].unbind(1),
            self.ray[..., 2:].unbind(1),
            self.start[..., None, None].unbind(1),
        )
        unit = lambda i, xy: torch.baddbmm(along[i], turn[i], xy.flatten(2)).unflatten(2, xy.shape[2:])
        inverse = unit(0, rays).reciprocal_()
        exits = (inverse.sign() - start[0]) * inverse
        best = torch.minimum(torch.minimum(exits[:, 0], exits[:, 1]), exits[:, 2])
        solid = torch.zeros_like(best, dtype=torch.int64)
        for i, some in self._in_view(rays):
            enter, leave = _interval(i, start[i], unit(i, _take(rays, some)))
            so_far = _take(best, some)
            hit = (enter < leave).logical_and_(enter < so_far).logical_and_(enter > NEAR)
            best = _put(best, some, torch.where(hit, enter, so_far))
            solid = _put(solid, some, _take(solid, some).masked_fill_(hit, i))
        return best, solid

    def _in_view(self, rays: Tensor) -> list[tuple[int, Tensor | None]]:
        """Each solid with the tiles of rays that may meet it (None: all)."""
        if not self.tiled:
            return [(i, None) for i in range(1, SOLIDS)]
        low, high = rays[0].amin(-1), rays[0].amax(-1)
        mid = (self.center[0] - self.eye[0]) @ self.turn[0]
        radius, z = self.radius[0], mid[:, 2]
        visible = ((self.size[0, :, 0] > 0) & (z > -radius)).expand(rays.shape[2], -1).clone()
        for j in range(2):
            a, lo, hi = mid[:, j], low[j, :, None], high[j, :, None]
            visible &= (a - hi * z < radius * (1 + hi**2).sqrt()) & (lo * z - a < radius * (1 + lo**2).sqrt())
        visible[:, 0] = False
        return _lists(visible)

    def _may_shade(self, point: Tensor) -> list[tuple[int, Tensor | None]]:
        """Each solid with the tiles of points that it may shadow or darken (None: all)."""
        if not self.tiled:
            return [(i, None) for i in range(1, SOLIDS)]
        low, high = point[0].amin(-1), point[0].amax(-1)
        tile, half = ((low + high) / 2)[..., None], ((high - low) / 2).square().sum(0).sqrt()[:, None]
        reach = half + self.radius[0] + 1e-3
        light, solid = self.light[0, :, None, None] - tile, self.center[0].T[:, None] - tile
        along = (_dot(light, solid) / _dot(light, light)).clamp(0, 1)
        off = solid - along * light
        near = _dot(solid, solid) < (reach + REACH).square()
        return _lists(((_dot(off, off) < reach.square()) | near) & self.casts)

    def _shade(self, rays: Tensor, t: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
        """Display colour "m 3 ..." in [0, 1] of each hit, and the side of the solid (0 to 5, 6 round, 7 sky)."""
        m, shape = self.m, t.shape
        n = shape[1] * shape[2]
        cam = torch.cat([rays * t[:, None], t[:, None]], 1).view(m, 3, n)
        point = torch.baddbmm(self.eye[..., None], self.turn, cam)
        solid = solid.view(m, n)
        view = torch.sqrt(cam.square().sum(1))  # distance from the eye
        t = t.view(m, n)

        # The hit in the solid's own unit coordinates, its side and its normal.
        table = torch.cat([self.unit.flatten(2), self.shift.flatten(2)], -1)
        rows = (solid + torch.arange(m, device=solid.device)[:, None] * SOLIDS).view(-1)
        unit = table.view(-1, 12).T.contiguous().index_select(1, rows).view(12, m, n)
        q = [
            unit[3 * j] * point[:, 0] + unit[3 * j + 1] * point[:, 1] + unit[3 * j + 2] * point[:, 2] + unit[9 + j]
            for j in range(3)
        ]
        ax, ay, az = (c.abs() for c in q)
        ball = (solid > BOXES) & (solid <= BOXES + BALLS)
        cylinder = solid > BOXES + BALLS
        side_wall = torch.where(cylinder, (ax.square() + az.square()).sqrt(), torch.maximum(ax, az))
        is_y = (ay > side_wall) & ~ball
        is_x = (ax >= az) & ~is_y
        gx = torch.where(is_x, q[0].sign(), 0.0)
        gy = torch.where(is_y, q[1].sign(), 0.0)
        gz = torch.where(is_x | is_y, 0.0, q[2].sign())
        rounded = (ball | cylinder) & ~is_y
        gx, gz = torch.where(rounded, q[0], gx), torch.where(rounded, q[2], gz)
        gy = torch.where(ball, q[1], gy)
        inside = torch.where(solid == 0, -1.0, 1.0)
        normal = [unit[j] * gx + unit[3 + j] * gy + unit[6 + j] * gz for j in range(3)]
        scale = inside * torch.rsqrt(normal[0].square() + normal[1].square() + normal[2].square())
        normal = [c * scale for c in normal]

        # Material and texture coordinates.
        face = torch.where(is_y, torch.where(q[1] < 0, 2, 3), torch.where(is_x | rounded, 0, 1))
        sheet = self.material.flatten(0, 2).T.contiguous().index_select(1, rows * 4 + face.view(-1)).view(9, m, n)
        around = torch.atan2(q[0], q[2]) * (0.5 / torch.pi)
        u = torch.where(rounded, around, torch.where(is_x, q[2], q[0])) * sheet[1] + sheet[3]
        v = torch.where(is_y, q[2], q[1]) * sheet[2] + sheet[4]
        extent = self.size.view(-1, 3).T.contiguous().index_select(1, rows).view(3, m, n)
        ray = [(point[:, j] - self.eye[:, j, None]) / view for j in range(3)]
        facing = (normal[0] * ray[0] + normal[1] * ray[1] + normal[2] * ray[2]).abs().clamp(min=0.03)
        across = torch.where(is_x, extent[2], extent[0]) * torch.where(rounded, 2 * torch.pi, 1.0)
        along = torch.where(is_y, extent[2], extent[1])
        density = torch.maximum(sheet[1] / across, sheet[2] / along)  # tiles per metre
        footprint = view / self.k[:, 0, 0, None] * density * facing.pow(-0.6)
        texture = sheet[0]

        # The sky is a texture at infinity.
        sky = (solid == 0) & self.open[:, None] & ~(is_y & (q[1] > 0))
        azimuth = torch.atan2(ray[0], ray[2]) * (1 / torch.pi)
        height = 1.0 - (torch.asin(-ray[1].clamp(-1, 1)) + 0.09) * (1 / 1.66)
        u, v = torch.where(sky, azimuth, u), torch.where(sky, height.clamp(0.01, 0.99), v)
        footprint = torch.where(sky, 1 / (self.k[:, 0, 0, None] * torch.pi), footprint)
        texture = torch.where(sky, float(SKY), texture).long() + self.world[:, None] * self.textures.shape[1]
        albedo = self._sample(texture, u, v, torch.log2(footprint * SIZE)) * sheet[5:8]

        # Light: a lamp or the sun with soft shadows, light from above and below, darker corners.
        to_light = [self.light[:, j, None] - point[:, j] for j in range(3)]
        distance = (to_light[0].square() + to_light[1].square() + to_light[2].square()).sqrt()
        cosine = (normal[0] * to_light[0] + normal[1] * to_light[1] + normal[2] * to_light[2]) / distance
        direct = cosine.add(0.1).mul(1 / 1.1).clamp(min=0) / (1 + (distance / self.fade[:, :1]).square())
        lit, open_sky = self._shadow(point.view(m, 3, *shape[1:]), distance.view(shape), solid.view(shape))
        lit, open_sky = lit.view(m, n), open_sky.view(m, n)
        direct = direct * lit
        up = 0.5 - 0.5 * normal[1]
        light = [
            (self.ambient[:, 1, j, None] + (self.ambient[:, 0, j, None] - self.ambient[:, 1, j, None]) * up) * open_sky
            + self.sun[:, j, None] * direct
            for j in range(3)
        ]
        rgb = torch.stack([albedo[j] * (light[j] + sheet[8]) for j in range(3)], 1)
        haze = torch.exp(-view * self.fade[:, 1:])[:, None]
        rgb = torch.where(
            self.open[:, None, None], rgb * haze + (1 - haze) * rgb.new_tensor([0.62, 0.7, 0.78])[:, None], rgb
        )
        tone = torch.sqrt((1 - torch.exp(-1.5 * rgb)) * 1.12).clamp(max=1.0)
        backdrop = albedo.transpose(0, 1).clamp(0, 1).sqrt()
        tone = torch.where(sky[:, None], backdrop / sheet[5:8].transpose(0, 1).clamp(min=1e-3).sqrt(), tone)
        code = torch.where(rounded, 6, face + torch.where(is_x & (q[0] > 0) | (~is_x & ~is_y & (q[2] > 0)), 4, 0))
        code = torch.where(sky, 7, torch.where(code == 4, 5, torch.where(code == 5, 4, code)))
        return tone.view(m, 3, *shape[1:]), code.view(shape)

    def _shadow(self, point: Tensor, distance: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the lamp, and of the surroundings, each point sees, in [0, 1]."""
        lit = torch.ones_like(distance)
        near = torch.ones_like(distance)
        unit, shift, lamp = self.unit.unbind(1), self.shift.unbind(1), self.lamp[..., None, None].unbind(1)
        size, thin = self.size[..., None, None].unbind(1), (2 * self.size.amin(-1))[..., None, None].unbind(1)
        for i, some in self._may_shade(point):
            here, far = _take(point, some), _take(distance, some)
            o = torch.baddbmm(shift[i], unit[i], here.flatten(2)).view(here.shape)
            enter, leave = _interval(i, o, lamp[i] - o)
            enter = enter.clamp_(min=0).mul_(far)
            chord = leave.clamp_(max=1).mul_(far).sub_(enter)
            dark = chord.div_(torch.minimum(enter.mul_(0.25).add_(0.05), thin[i])).clamp_(0, 1)
            x, y, z = o.abs_().sub_(1).clamp_(min=0).mul_(size[i]).unbind(1)
            close = (x * x).addcmul_(y, y).addcmul_(z, z).mul_(-1 / REACH**2).add_(1).clamp_(min=0).square_().mul_(0.5)
            if some is None:  # all solids of all worlds: only some cast a shadow
                casts = self.casts[:, i, None, None]
                dark, close = torch.where(casts, dark, 0.0), torch.where(casts, close, 0.0)
            lit = _put(lit, some, _take(lit, some).mul_(dark.neg_().add_(1)))
            near = _put(near, some, _take(near, some).mul_(close.neg_().add_(1)))
        own = self.casts.gather(1, solid.flatten(1)).view(solid.shape)
        near = torch.where(own, near * 2, near)  # what a solid does to its own surface
        room = torch.baddbmm(self.shift[:, 0], self.unit[:, 0], point.flatten(2)).abs_().view(point.shape)
        gap = (1 - room) * self.size[:, 0, :, None, None]
        corner = 1 - 0.35 * torch.exp(gap * -3.5)
        corner = corner[:, 0] * corner[:, 1] * corner[:, 2]
        return lit, near * torch.where(self.open[:, None, None], 1.0, corner / 0.65)

    def _sample(self, texture: Tensor, u: Tensor, v: Tensor, lod: Tensor) -> Tensor:
        """Trilinear lookup, "3 m n", in texture `texture` of the flattened bank."""
        bank = self.textures.flatten(0, 2)
        base = texture * self.textures.shape[2]
        lod = lod.nan_to_num().clamp(0, _LEVELS - 1.001)  # a ray that meets nothing has no footprint
        floor = lod.floor()
        blend = lod - floor
        offsets = torch.tensor(_OFFSETS, device=u.device)
        result = 0
        for step, weight in ((0, 1 - blend), (1, blend)):
            level = floor.long() + step
            size = SIZE >> level
            x, y = u * size - 0.5, v * size - 0.5
            x0, y0 = x.floor(), y.floor()
            fx, fy = x - x0, y - y0
            x0, y0, mask = x0.long(), y0.long(), size - 1
            xa, xb = x0 & mask, (x0 + 1) & mask
            origin = base + offsets[level]
            ya, yb = origin + (y0 & mask) * size, origin + ((y0 + 1) & mask) * size
            for row, wy in ((ya, 1 - fy), (yb, fy)):
                wy = wy * weight
                for column, wx in ((xa, 1 - fx), (xb, fx)):
                    texel = bank.index_select(0, (row + column).view(-1)).view(*u.shape, 3)
                    result = result + texel * (wy * wx)[..., None]
        return result.movedim(-1, 0)


def _tiles(height: int, width: int) -> Tensor:
    """Pixel numbers by tiles, "r s", each tile compact in the image; the last pixel fills the last tile."""
    pixel = torch.arange(height * width)
    row, column = pixel // width, pixel % width
    return _blocks(torch.argsort((row // TILE) * width + column // TILE, stable=True))


def _blocks(items: Tensor) -> Tensor:
    """The items in rows of `TILE**2`, the last one repeated to fill the last row."""
    missing = -len(items) % TILE**2
    return torch.cat([items, items[-1:].expand(missing)]).view(-1, TILE**2)


def _lists(pairs: Tensor) -> list[tuple[int, Tensor]]:
    """Columns of "r p" with a hit, each with its rows."""
    counts = pairs.sum(0).tolist()
    rows = pairs.T.nonzero()[:, 1].split(counts)
    return [(i, row) for i, row in enumerate(rows) if counts[i]]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _take(x: Tensor, some: Tensor | None) -> Tensor:
    return x if some is None else x.index_select(-2, some)


def _put(x: Tensor, some: Tensor | None, value: Tensor) -> Tensor:
    return value if some is None else x.index_copy_(-2, some, value)


def _interval(i: int, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where the line o + t d is inside unit solid `i`; empty if enter >= leave."""
    if i <= BOXES:
        inverse = d.reciprocal()
        middle = o * inverse  # of the slab |x| < 1, negated
        inverse.abs_()
        x, y, z = (inverse + middle).unbind(1)
        enter = torch.minimum(torch.minimum(x, y), z).neg_()
        x, y, z = inverse.sub_(middle).unbind(1)
        return enter, torch.minimum(torch.minimum(x, y), z)
    (dx, dy, dz), (ox, oy, oz) = d.unbind(1), o.unbind(1)
    aa, bb, cross = dx * dx + dz * dz, dx * ox + dz * oz, (dx * oz - dz * ox).square_()
    if i <= BOXES + BALLS:
        aa, bb = aa.addcmul_(dy, dy), bb.addcmul_(dy, oy)
        cross = cross + (dx * oy - dy * ox).square_() + (dz * oy - dy * oz).square_()
    root = aa - cross  # of the two solutions, exact even for thin things far away
    miss = root < 0
    root.clamp_(min=0).sqrt_()
    enter, leave = (bb + root).neg_().div_(aa), root.sub_(bb).div_(aa)
    if i > BOXES + BALLS:
        inverse = dy.reciprocal()
        middle = oy * inverse
        inverse.abs_()
        enter, leave = torch.maximum(enter, -(inverse + middle)), torch.minimum(leave, inverse - middle)
    return enter.masked_fill_(miss, torch.inf), leave.masked_fill_(miss, -torch.inf)
