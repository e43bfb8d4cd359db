"""Collision-free camera walks through exact worlds, at a human height and pace."""

from typing import Literal, get_args

import numpy as np
import torch

from mirage.camera.cameras import Cameras
from mirage.scenes.build import BOXES
from mirage.scenes.worlds import Worlds

Kind = Literal["any", "walk", "there-and-back", "abab", "orbit", "pan", "truck"]
_SHARES = {"walk": 0.4, "there-and-back": 0.2, "abab": 0.1, "orbit": 0.12, "pan": 0.08, "truck": 0.1}
_LOOK = 22  # frames a walker looks ahead


def sample_path(
    world: Worlds,
    seed: int,
    frames: int,
    *,
    kind: Kind = "any",
    height: int = 128,
    width: int = 128,
    speed: float = 1.0,
    margin: float = 0.35,
) -> Cameras:
    """Cameras that walk through one world without touching anything.

    Kinds: `walk` forward with turns; `there-and-back` the same to the middle frame and exactly back; `abab` from A to a
    B that looks elsewhere, back, and both once more with the very same poses; `orbit` about an object; `pan` on the
    spot; `truck` sideways. Where a kind does not fit into the world, a pan takes its place.

    Args:
        world: A batch of one world.
        seed: Fixes the path, together with the world.
        frames: Number of cameras.
        kind: One of the kinds, or `any` for a random one.
        height: Rows of the image, in pixels.
        width: Columns of the image, in pixels.
        speed: Pace; at 1, some two thirds of a view are still seen 16 frames later.
        margin: Least distance between the camera and any solid, in metres.

    Returns:
        `frames` cameras with a horizontal field of view between 50 and 75 degrees.

    Raises:
        ValueError: If `world` is not one world, `kind` is unknown, or `frames` < 1.
    """
    if len(world) != 1:
        raise ValueError(f"world must be a batch of one, got {len(world)}; take worlds[i]")
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {get_args(Kind)}, got {kind!r}")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    walker = _Walker(world, seed, speed, margin)
    if kind == "any":
        kind = str(walker.rng.choice(list(_SHARES), p=list(_SHARES.values())))
    field = np.radians(walker.rng.uniform(50, 75))
    place, yaw, pitch = {
        "walk": walker.walk,
        "there-and-back": walker.there_and_back,
        "abab": walker.abab,
        "orbit": walker.orbit,
        "pan": walker.pan,
        "truck": walker.truck,
    }[kind](frames)
    focal = max(width, height) / 2 / np.tan(field / 2)
    k = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)
    cy, sy, cp, sp, o = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.zeros(frames)
    # Yaw 0 looks along +z, positive yaw turns towards +x, positive pitch looks down (+y).
    turn = np.stack([cy, o, -sy, -sp * sy, cp, -sp * cy, cp * sy, sp, cp * cy], -1).reshape(frames, 3, 3)
    pose = np.tile(np.eye(4), (frames, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = turn, -(turn @ place[..., None])[..., 0]
    return Cameras(k.expand(frames, 3, 3).clone(), torch.from_numpy(pose).float(), height, width)


Path = tuple[np.ndarray, np.ndarray, np.ndarray]  # places "f 3", yaw "f", pitch "f"


class _Walker:
    """Someone who knows where the solids of one world are, the sweep of movers included."""

    def __init__(self, world: Worlds, seed: int, speed: float, margin: float) -> None:
        self.rng = rng = np.random.default_rng([seed, 21])
        self.speed, self.margin, self.open = speed, margin, bool(world.open[0])
        size = world.size[0].double().numpy()
        slots = np.flatnonzero((size[:, 0] > 0) & (np.arange(len(size)) > 0))
        self.center, self.size = world.center[0].double().numpy()[slots], size[slots]
        self.turn = world.rotation[0].double().numpy()[slots]
        motion = world.motion[0].double().numpy()[slots]
        moving = (motion != 0).any(-1)
        self.grow = np.where(moving, np.linalg.norm(motion[:, :3], axis=-1) + 0.7 * size[slots].max(-1), 0.0)
        self.round = slots > BOXES
        self.objects = np.flatnonzero((self.size.max(-1) > 0.2) & (self.size.min(-1) > 0.1) & (self.size.max(-1) < 3))
        self.bounds = world.size[0, 0].double().numpy()
        self.eye = rng.uniform(1.25, 1.75) if self.open else rng.uniform(1.15, min(1.7, 2 * self.bounds[1] - 0.6))
        self.reach = 12.0 if self.open else np.inf

    def clearance(self, x: np.ndarray | float, z: np.ndarray | float) -> np.ndarray:
        """Distance in metres from each place (at eye height) to the nearest solid or wall."""
        point = np.stack(np.broadcast_arrays(x, -self.eye, z), -1)
        local = np.einsum("pij,...pj->...pi", self.turn, point[..., None, :] - self.center)
        gap = np.linalg.norm(np.maximum(np.abs(local) - self.size, 0), axis=-1) - self.grow
        walls = np.minimum(self.bounds[0] - np.abs(x), self.bounds[2] - np.abs(z))
        out = np.minimum(walls, self.reach - np.hypot(x, z))
        return np.asarray(np.minimum(gap.min(-1), out) if len(self.center) else out)

    def start(self, spread: float = 0.85) -> tuple[float, float]:
        """The roomiest of a few free places."""
        reach = np.minimum(self.bounds[[0, 2]] - self.margin, 6.0) * spread
        x, z = self.rng.uniform(-1, 1, (2, 40)) * reach[:, None]
        free = self.clearance(x, z)
        good = np.flatnonzero(free > self.margin + 0.3)
        i = good[0] if len(good) else int(free.argmax())
        return float(x[i]), float(z[i])

    def heading(self, x: float, z: float) -> float:
        """A direction with something to see: open, but not empty, space ahead."""
        yaw = self.rng.uniform(-np.pi, np.pi, 16)
        step = np.linspace(0.2, 6.0, 16)
        room = self.clearance(x + np.sin(yaw)[:, None] * step, z + np.cos(yaw)[:, None] * step) > self.margin
        return float(yaw[np.argmax(room.cumprod(1).sum(1) + self.rng.uniform(0, 5, 16))])

    def pitches(self, frames: int) -> np.ndarray:
        """A slow nod about a slight look down."""
        base, swing, phase = self.rng.uniform(0.0, 0.2), self.rng.uniform(0.0, 0.06), self.rng.uniform(0, 6.28)
        return base + swing * np.sin(0.06 * self.speed * np.arange(frames) + phase)

    def walk(self, frames: int) -> Path:
        rng = self.rng
        x, z = self.start()
        yaw = self.heading(x, z)
        pace = self.speed * rng.uniform(0.02, 0.045) * (2.0 if self.open else 1.0)
        most = np.radians(2.6) * self.speed
        rate, wish, out = 0.0, 0.0, []
        options = np.linspace(-most, most, 9)
        ahead = np.arange(1, _LOOK + 1)
        drift = 1.0
        for f in range(frames):
            out.append((x, z, yaw))
            if f % 10 == 0:
                wish = float(rng.normal(0, 0.45) * most)
            if f % 4 == 0:  # choose the turn whose next steps are free and that is nearest to the wish
                fade = rate + (options[:, None] - rate) * (1 - 0.75**ahead)
                turned = yaw + np.cumsum(fade, 1)
                px, pz = x + pace * np.cumsum(np.sin(turned), 1), z + pace * np.cumsum(np.cos(turned), 1)
                free = self.clearance(px, pz) - self.margin
                steps = np.cumprod(free > 0.08, 1).sum(1)
                pick = int(np.argmax(steps - 3.0 * np.abs(options - wish) / most))
                goal = options[pick]
                slow = 1.0 if steps[pick] >= _LOOK else max(0.0, (steps[pick] - 4) / _LOOK)
            rate += 0.25 * (goal - rate)
            drift += 0.25 * (slow - drift)
            yaw += rate
            nx, nz = x + drift * pace * np.sin(yaw), z + drift * pace * np.cos(yaw)
            if self.clearance(nx, nz) > self.margin:
                x, z = nx, nz
        x, z, yaw = np.array(out).T
        return np.stack([x, np.full(frames, -self.eye), z], -1), yaw, self.pitches(frames)

    def there_and_back(self, frames: int) -> Path:
        half = (frames + 1) // 2
        i = np.arange(frames)
        return self._at(self.walk(half), np.minimum(i, frames - 1 - i))

    def abab(self, frames: int) -> Path:
        rng, leg = self.rng, max((frames - 1) // 4, 1)
        for _ in range(40):
            x, z = self.start()
            a, r = rng.uniform(-np.pi, np.pi), rng.uniform(0.1, 1.2) * (2.0 if self.open else 1.0)
            s = np.linspace(0, 1, 24)
            if (self.clearance(x + s * r * np.sin(a), z + s * r * np.cos(a)) > self.margin).all():
                break
        else:
            r = 0.0
        s = np.linspace(0, 1, leg + 1)
        s = s * s * (3 - 2 * s)
        yaw = self.heading(x, z) + rng.choice([-1, 1]) * rng.uniform(np.radians(78), np.radians(115)) * s
        place = np.stack([x + s * r * np.sin(a), np.full_like(s, -self.eye), z + s * r * np.cos(a)], -1)
        i = np.arange(frames) % (2 * leg)
        return self._at((place, yaw, np.full_like(s, rng.uniform(0, 0.18))), np.minimum(i, 2 * leg - i))

    def orbit(self, frames: int) -> Path:
        rng = self.rng
        sweep = np.radians(rng.uniform(0.8, 1.8)) * self.speed * rng.choice([-1, 1]) * np.arange(frames)
        for _ in range(60):
            if len(self.objects) == 0:
                break
            i = rng.choice(self.objects)
            reach = np.linalg.norm(self.size[i, [0, 2]])
            r = reach + rng.uniform(0.8, 2.2) * (1.6 if self.open else 1.0)
            angle = rng.uniform(0, 2 * np.pi) + sweep * min(1.0, 1.6 / r)
            x, z = self.center[i, 0] - r * np.sin(angle), self.center[i, 2] - r * np.cos(angle)
            if (self.clearance(x, z) > self.margin).all():
                pitch = np.clip(np.arctan2(self.eye + self.center[i, 1], r), -0.1, 0.45) * rng.uniform(0.6, 1.0)
                return np.stack([x, np.full(frames, -self.eye), z], -1), angle, np.full(frames, pitch)
        return self.pan(frames)

    def pan(self, frames: int) -> Path:
        x, z = self.start()
        rate = np.radians(self.rng.uniform(0.7, 1.8)) * self.speed * self.rng.choice([-1, 1])
        yaw = self.heading(x, z) + rate * np.arange(frames)
        return np.tile([x, -self.eye, z], (frames, 1)), yaw, self.pitches(frames)

    def truck(self, frames: int) -> Path:
        rng = self.rng
        for _ in range(60):
            x, z = self.start()
            yaw = self.heading(x, z)
            pace = self.speed * rng.uniform(0.015, 0.05) * (2.0 if self.open else 1.0) * rng.choice([-1, 1])
            lean = rng.uniform(-0.5, 0.5)
            along = pace * (np.arange(frames) - frames // 2)
            px, pz = x + along * np.cos(yaw + lean), z - along * np.sin(yaw + lean)
            if (self.clearance(px, pz) > self.margin).all():
                spin = yaw + np.radians(rng.uniform(-0.4, 0.4)) * self.speed * np.arange(frames)
                return np.stack([px, np.full(frames, -self.eye), pz], -1), spin, self.pitches(frames)
        return self.pan(frames)

    @staticmethod
    def _at(path: Path, index: np.ndarray) -> Path:
        return path[0][index], path[1][index], path[2][index]
