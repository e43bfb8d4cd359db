"""What rooms and open places have in common: slots for solids, materials, free floor, things that move."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from mirage.scenes import textures as tx

BOXES, BALLS, CYLINDERS = 42, 10, 10
SOLIDS = 1 + BOXES + BALLS + CYLINDERS  # slot 0 is the enclosure
TEXTURES = 12
FLOOR, WALL, PLASTER, CLOTH, WOOD, TILE, ART, ART2, LEAF, STONE, WINDOW, SKY = range(TEXTURES)
_FIRST = {"box": 1, "ball": 1 + BOXES, "cylinder": 1 + BOXES + BALLS}
_LAST = {"box": 1 + BOXES, "ball": 1 + BOXES + BALLS, "cylinder": SOLIDS}

Vector = np.ndarray | Sequence[float]
Maker = Callable[[np.random.Generator], np.ndarray]


class Builder(ABC):
    """One world under construction, as NumPy arrays with the names of `Worlds`."""

    open: bool
    hx: float
    hz: float

    def __init__(self, rng: np.random.Generator, movers: int | None) -> None:
        self.rng = rng
        self.center = np.zeros((SOLIDS, 3), np.float32)
        self.rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (SOLIDS, 3, 3)).copy()
        self.size = np.zeros((SOLIDS, 3), np.float32)
        self.motion = np.zeros((SOLIDS, 6), np.float32)
        self.material = np.zeros((SOLIDS, 4, 9), np.float32)
        self.used = dict(_FIRST)
        self.spots: list[tuple[float, float, float]] = []  # x, z, radius of what stands on the floor
        self.light = self.sun = self.ambient = self.fade = np.zeros(0)
        self.furnish()
        self.movers(int(rng.choice([0, 0, 1, 2])) if movers is None else movers)
        exposure = np.exp(rng.uniform(np.log(0.5), np.log(1.1)))  # lamps, windows and the sky keep their brightness
        self.sun, self.ambient = self.sun * exposure, self.ambient * exposure
        floor, wall, window = self.surfaces()
        tile = self.pick(tx.stone, tx.leaves, tx.checker, tx.fabric, tx.tiles)
        makers = [floor, wall, tx.white, tx.fabric, tx.wood, tile, tx.leaves, self.pick(tx.sky, tx.leaves)]
        makers += [tx.foliage, tx.stone, window, tx.sky]
        self.textures = np.stack([tx.mip_chain(make(rng)) for make in makers])

    @abstractmethod
    def furnish(self) -> None:
        """Put everything that stands still, and the light."""

    @abstractmethod
    def surfaces(self) -> tuple[Maker, Maker, Maker]:
        """Makers of the textures of the floor, the walls and the windows."""

    def pick(self, *makers: Maker) -> Maker:
        """One of the makers."""
        return makers[self.rng.integers(len(makers))]

    def add(
        self,
        shape: str,
        center: Vector,
        size: Vector,
        texture: int,
        *,
        yaw: float = 0.0,
        roll: float = 0.0,
        tile: float = 1.5,
        tint: Vector | None = None,
        glow: float = 0.0,
        fit: tuple[int, int] | None = None,
    ) -> int | None:
        """Put a solid of half extents `size` in the next slot of its shape; None when there is no room left."""
        slot = self.used[shape]
        if slot >= _LAST[shape]:
            return None
        self.used[shape] += 1
        cy, sy, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        self.rotation[slot] = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]]) @ turn
        self.center[slot], self.size[slot] = center, size
        self.dress(slot, shape, texture, tile, np.ones(3) if tint is None else tint, glow, fit)
        return slot

    def dress(
        self, slot: int, shape: str, texture: int, tile: float, tint: Vector, glow: float, fit: tuple[int, int] | None
    ) -> None:
        """Give every side of a solid a texture of `tile` metres, or of `fit` repeats per side."""
        sx, sy, sz = self.size[slot]
        shift = self.rng.uniform(0, 1, 2)
        for face, (u, v) in enumerate([(sz, sy), (sx, sy), (sx, sz), (sx, sz)]):
            scale = (u / tile, v / tile)
            if shape != "box" and face < 2:
                scale = (max(1.0, np.round(2 * np.pi * sx / tile)), sy / tile)
            if fit is not None:
                scale, shift = (0.5 * fit[0], 0.5 * fit[1]), np.array([0.5 * fit[0], 0.5 * fit[1]])
            self.material[slot, face] = [texture, *scale, *shift, *tint, glow]

    def free(self, x: float, z: float, radius: float) -> bool:
        """Whether nothing stands within `radius` of a place on the floor."""
        return all(np.hypot(x - a, z - b) > radius + r for a, b, r in self.spots)

    def tint(self, strength: float = 1.0) -> np.ndarray:
        """A factor per colour channel, near 1 for small strengths."""
        c = tx.colour(self.rng, 0.9, (0.55, 1.0))
        return 1 + strength * (c / c.mean() * self.rng.uniform(0.6, 1.05) - 1)

    def movers(self, count: int) -> None:
        """Things that drift to and fro above the floor and turn; small, so that a camera path still fits."""
        rng = self.rng
        for _ in range(count):
            shape = str(rng.choice(["box", "ball", "cylinder"]))
            shape = next(s for s in (shape, "ball", "box", "cylinder") if self.used[s] < _LAST[s])
            r = rng.uniform(0.16, 0.3) * (1.6 if self.open else 1.0)
            reach = 5.0 if self.open else 0.45 * min(self.hx, self.hz)
            at = [*rng.uniform(-reach, reach, 2)]
            slot = self.add(
                shape,
                (at[0], -r - rng.uniform(0.0, 0.9), at[1]),
                (r, r, r),
                int(rng.choice([ART, CLOTH, TILE, STONE])),
                tint=self.tint(),
                tile=2 * r,
            )
            angle, swing = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8)
            self.motion[slot] = [
                swing * np.cos(angle),
                -rng.uniform(0, 0.2),
                swing * np.sin(angle),
                rng.uniform(0.08, 0.25),
                rng.uniform(0, 6.28),
                rng.uniform(-0.1, 0.1),
            ]
