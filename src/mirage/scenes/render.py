"""The exact renderer: analytic intersections, soft light, mip-mapped textures; batched, on CPU or GPU.

One sample per pixel centre gives depth and masks; pixels on an edge get a grid of samples for their colour.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.scenes.textures import SIZE
from mirage.scenes.worlds import BALLS, BOXES, SKY, SOLIDS, Worlds

NEAR = 0.02
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
    chunk = 1 if device.type == "cpu" else max(1, 2**21 // (cameras.height * cameras.width))
    parts = []
    for start in range(0, count, chunk):
        index = torch.arange(start, min(start + chunk, count), device=device)
        parts.append(_Chunk(worlds, index // frames, cameras[index], times[index].float()).image(supersample))
    colour, depth, movers, sky = (torch.cat(p).unflatten(0, (len(worlds), frames)) for p in zip(*parts, strict=True))
    return Rendering(colour, depth, movers, sky)


class _Chunk:
    """`m` views, each of its own world, with all solids moved to their places at that time."""

    def __init__(self, worlds: Worlds, world: Tensor, cameras: Cameras, times: Tensor) -> None:
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
        self.seen = self.casts = range(1, SOLIDS)
        if size.device.type == "cpu":  # skip empty slots, and what lies outside the view
            radius = size[0].norm(dim=-1)
            mid = self.turn[0].T @ (center[0] - self.eye[0])[..., None]
            x, y, z = mid[:, :, 0].T
            fx, fy, cx, cy = self.k[0, 0, 0], self.k[0, 1, 1], self.k[0, 0, 2], self.k[0, 1, 2]
            visible = (size[0, :, 0] > 0) & (z > -radius)
            for a, f, lo, hi in ((x, fx, cx, self.w - cx), (y, fy, cy, self.h - cy)):
                visible &= (a * f - hi * z) / (f**2 + hi**2).sqrt() < radius
                visible &= (-a * f - lo * z) / (f**2 + lo**2).sqrt() < radius
            self.seen = [i for i, v in enumerate(visible.tolist()) if v and i]
            casts = (size[0, :, 0] > 0) & ~self.is_mover[0] & (size[0].amin(-1) > 0.02)
            self.casts = [i for i, v in enumerate(casts.tolist()) if v and i]

    def image(self, supersample: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Colour "m 3 h w", depth, movers and sky."""
        m, h, w = self.m, self.h, self.w
        rx, ry = self._grid(0.5)
        t, solid = self._trace(rx, ry)
        rgb, side = self._shade(rx, ry, t, solid)
        key = solid * 8 + side
        sky = side == 7
        mover = self._is_mover(solid)
        if supersample > 1:
            edge = torch.zeros_like(sky)
            for a, b in ((key[:, 1:], key[:, :-1]), (key[:, :, 1:], key[:, :, :-1])):
                differ = a != b
                axis = 1 if a.shape[2] == w else 2
                edge.narrow(axis, 1, differ.shape[axis]).logical_or_(differ)
                edge.narrow(axis, 0, differ.shape[axis]).logical_or_(differ)
            offsets = [(i + 0.5) / supersample for i in range(supersample)]
            if m == 1 and rgb.device.type == "cpu":  # only the pixels on edges
                where = edge.flatten().nonzero()[:, 0]
                row, column = where // w, where % w
                xs = torch.cat([column + x for _ in offsets for x in offsets])
                ys = torch.cat([row + y for y in offsets for _ in offsets])
                ex, ey = self._rays(xs[None, None], ys[None, None])
                st, ssolid = self._trace(ex, ey)
                srgb, _ = self._shade(ex, ey, st, ssolid)
                count = supersample**2
                rgb.view(3, -1)[:, where] = srgb.view(3, count, -1).mean(1)
                touched = self._is_mover(ssolid).view(count, -1).any(0)
                mover.view(-1)[where] |= touched
            else:
                total, touched = torch.zeros_like(rgb), torch.zeros_like(mover)
                for y in offsets:
                    for x in offsets:
                        ex, ey = self._grid(x, y)
                        st, ssolid = self._trace(ex, ey)
                        total += self._shade(ex, ey, st, ssolid)[0]
                        touched |= self._is_mover(ssolid)
                rgb = torch.where(edge[:, None], total / supersample**2, rgb)
                mover |= touched & edge
        grown = mover.clone()
        grown[:, 1:] |= mover[:, :-1]
        grown[:, :-1] |= mover[:, 1:]
        grown[:, :, 1:] |= mover[:, :, :-1]
        grown[:, :, :-1] |= mover[:, :, 1:]
        return rgb.mul(2).sub_(1), torch.where(sky, 0.0, t), grown, sky

    def _is_mover(self, solid: Tensor) -> Tensor:
        return self.is_mover.gather(1, solid.flatten(1)).view(solid.shape)

    def _grid(self, x: float, y: float | None = None) -> tuple[Tensor, Tensor]:
        columns = torch.arange(self.w, device=self.eye.device)[None, None] + x
        rows = torch.arange(self.h, device=self.eye.device)[None, :, None] + (x if y is None else y)
        return self._rays(columns, rows)

    def _rays(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        k = self.k[..., None, None]
        return (x - k[:, 0, 2]) / k[:, 0, 0], (y - k[:, 1, 2]) / k[:, 1, 1]

    def _direction(self, i: int, rx: Tensor, ry: Tensor) -> Tensor:
        a = self.ray[:, i, :, :, None, None]
        return (rx[:, None] * a[:, :, 0] + a[:, :, 2]) + ry[:, None] * a[:, :, 1]

    def _trace(self, rx: Tensor, ry: Tensor) -> tuple[Tensor, Tensor]:
        """z-depth of the first surface along each ray, and the solid it belongs to."""
        inverse = self._direction(0, rx, ry).reciprocal_()
        start = self.start[:, 0, :, None, None]
        exits = (inverse.sign() - start) * inverse
        best = torch.minimum(torch.minimum(exits[:, 0], exits[:, 1]), exits[:, 2])
        solid = torch.zeros_like(best, dtype=torch.int64)
        for i in self.seen:
            enter, leave = _interval(i, self.start[:, i, :, None, None], self._direction(i, rx, ry))
            hit = (enter < leave) & (enter < best) & (enter > NEAR)
            best = torch.where(hit, enter, best)
            solid.masked_fill_(hit, i)
        return best, solid

    def _shade(self, rx: Tensor, ry: Tensor, t: Tensor, solid: Tensor) -> tuple[Tensor, Tensor]:
        """Display colour "m 3 ..." in [0, 1] of each hit, and the side of the solid (0 to 5, 6 round, 7 sky)."""
        m, shape = self.m, t.shape
        n = shape[1] * shape[2]
        cam = torch.stack(torch.broadcast_tensors(rx * t, ry * t, t), 1).view(m, 3, n)
        point = torch.baddbmm(self.eye[..., None], self.turn, cam)
        solid = solid.view(m, n)
        view = torch.sqrt(cam.square().sum(1))  # distance from the eye
        t = t.view(m, n)

        # The hit in the solid's own unit coordinates, its side and its normal.
        table = torch.cat([self.unit.flatten(2), self.shift.flatten(2)], -1)
        rows = (solid + torch.arange(m, device=solid.device)[:, None] * SOLIDS).view(-1)
        unit = table.view(-1, 12).T.contiguous()[:, rows].view(12, m, n)
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
        sheet = self.material.flatten(0, 2).T.contiguous()[:, rows * 4 + face.view(-1)].view(9, m, n)
        around = torch.atan2(q[0], q[2]) * (0.5 / torch.pi)
        u = torch.where(rounded, around, torch.where(is_x, q[2], q[0])) * sheet[1] + sheet[3]
        v = torch.where(is_y, q[2], q[1]) * sheet[2] + sheet[4]
        extent = self.size.view(-1, 3).T.contiguous()[:, rows].view(3, m, n)
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
        lit, open_sky = self._shadow(point, distance, solid)
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
        for i in self.casts:
            o = torch.baddbmm(self.shift[:, i], self.unit[:, i], point)
            d = self.lamp[:, i, :, None] - o
            enter, leave = _interval(i, o, d)
            enter = enter.clamp_(min=0)
            chord = (leave.clamp_(max=1) - enter) * distance
            thin = 2 * self.size[:, i].amin(-1, keepdim=True)
            blur = torch.minimum(0.05 + 0.25 * enter * distance, thin)
            dark = (chord / blur).clamp_(0, 1)
            keep = ~self.is_mover[:, i, None]
            lit = lit * (1 - dark * keep)
            gap = (o.abs_() - 1).clamp_(min=0) * self.size[:, i, :, None]
            close = (1 - gap.square_().sum(1).mul_(1 / REACH**2)).clamp_(min=0).square_().mul_(0.5)
            near = near * (1 - torch.where((solid == i) | ~keep, 0.0, close))
        room = torch.baddbmm(self.shift[:, 0], self.unit[:, 0], point).abs_()
        gap = (1 - room) * self.size[:, 0, :, None]
        corner = 1 - 0.35 * torch.exp(gap * -3.5)
        corner = corner[:, 0] * corner[:, 1] * corner[:, 2]
        return lit, near * torch.where(self.open[:, None], 1.0, corner / 0.65)

    def _sample(self, texture: Tensor, u: Tensor, v: Tensor, lod: Tensor) -> Tensor:
        """Trilinear lookup, "3 m n", in texture `texture` of the flattened bank."""
        bank = self.textures.flatten(0, 2)
        base = texture * self.textures.shape[2]
        lod = lod.clamp(0, _LEVELS - 1.001)
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


def _interval(i: int, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where the line o + t d is inside unit solid `i`; empty if enter >= leave."""
    if i <= BOXES:
        inverse = d.reciprocal()
        a, b = (-1 - o) * inverse, (1 - o) * inverse
        enter, leave = torch.minimum(a, b), torch.maximum(a, b)
        return (
            torch.maximum(torch.maximum(enter[:, 0], enter[:, 1]), enter[:, 2]),
            torch.minimum(torch.minimum(leave[:, 0], leave[:, 1]), leave[:, 2]),
        )
    axes = (0, 1, 2) if i <= BOXES + BALLS else (0, 2)
    aa = sum(d[:, j].square() for j in axes)
    bb = sum(d[:, j] * o[:, j] for j in axes)
    cc = sum(o[:, j].square() for j in axes) - 1
    root = bb.square() - aa * cc
    miss = root < 0
    root = root.clamp(min=0).sqrt()
    inverse = aa.reciprocal()
    enter, leave = (-bb - root) * inverse, (root - bb) * inverse
    if len(axes) == 2:
        inverse = d[:, 1].reciprocal()
        a, b = (-1 - o[:, 1]) * inverse, (1 - o[:, 1]) * inverse
        enter, leave = torch.maximum(enter, torch.minimum(a, b)), torch.minimum(leave, torch.maximum(a, b))
    return torch.where(miss, torch.inf, enter), torch.where(miss, -torch.inf, leave)
