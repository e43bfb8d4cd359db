"""Open places: ground and sky, houses, trees, hedges, walls, paths, the sun."""

import numpy as np

from mirage.scenes import textures as tx
from mirage.scenes.build import ART, ART2, CLOTH, FLOOR, LEAF, PLASTER, STONE, TILE, WALL, WINDOW, WOOD, Builder, Maker


class OpenPlace(Builder):
    """A place under the sky, open for 40 metres."""

    open = True

    def furnish(self) -> None:
        rng = self.rng
        reach, height = 42.0, 30.0
        self.center[0], self.size[0] = (0, -height / 2, 0), (reach, height / 2, reach)
        self.dress(0, "box", FLOOR, rng.uniform(3.0, 6.0), np.ones(3), 0.0, None)
        self.spots.append((0.0, 0.0, 1.5))
        for make, low, high in ((self._house, 3, 7), (self._tree, 3, 8), (self._open_thing, 5, 10)):
            for _ in range(int(rng.integers(low, high))):
                make()
        for k in range(int(rng.integers(1, 4))):  # paths, lawns, paved squares
            self.add(
                "box",
                (rng.uniform(-5, 5), 0.0, rng.uniform(-5, 5)),
                (rng.uniform(1.0, 4), 0.01 + 0.004 * k, rng.uniform(4, 18)),
                int(rng.choice([TILE, STONE, WALL, LEAF])),
                tile=rng.uniform(2.5, 5.0),
                yaw=rng.uniform(0, 3.1),
                tint=self.tint(0.3),
            )
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.1)
        self.light = 400 * np.array(
            [np.cos(elevation) * np.cos(azimuth), -np.sin(elevation), np.cos(elevation) * np.sin(azimuth)]
        )
        self.sun = np.array([1.0, rng.uniform(0.88, 0.97), rng.uniform(0.72, 0.92)]) * rng.uniform(0.6, 1.6)
        sky = np.array([0.82, 0.93, 1.1]) * rng.uniform(0.35, 0.55)
        self.ambient = np.stack([sky, sky * np.array([1.0, 0.9, 0.75]) * 0.6])
        self.fade = np.array([1e6, rng.uniform(0.004, 0.014)])

    def surfaces(self) -> tuple[Maker, Maker, Maker]:
        floor = self.pick(tx.ground, tx.ground, tx.ground, tx.ground, tx.tiles)
        plain = [tx.plaster] * 6
        return floor, self.pick(*plain, tx.tiles, tx.fabric, tx.stone, tx.wood, tx.leaves), tx.facade

    def _spot(self, near: float, far: float, radius: float) -> tuple[float, float] | None:
        for _ in range(15):
            r, a = self.rng.uniform(near, far), self.rng.uniform(0, 2 * np.pi)
            x, z = r * np.cos(a), r * np.sin(a)
            if self.free(x, z, radius):
                self.spots.append((x, z, radius))
                return x, z
        return None

    def _house(self) -> None:
        rng = self.rng
        w, d, storeys = rng.uniform(1.6, 2.8), rng.uniform(2, 4.5), int(rng.integers(1, 4))
        at = self._spot(7.0, 26.0, np.hypot(w, d))
        if at is None:
            return
        x, z = at
        yaw, h, tint = rng.uniform(0, np.pi), 1.4 * storeys, self.tint(0.4)
        slot = self.add("box", (x, -h, z), (w, h, d), WINDOW, yaw=yaw, tint=tint)
        if slot is None:
            return
        for face, width in ((0, d), (1, w)):
            repeat = max(1, round(2 * width / 2.4))
            self.material[slot, face, 1:5] = repeat / 2, storeys / 2, repeat / 2, storeys / 2
        if rng.random() < 0.65:  # a gable: a box turned by 45 degrees, half sunk into the house
            side = w / np.sqrt(2) * 1.12
            self.add(
                "box",
                (x, -2 * h, z),
                (side, side, d * 0.985),
                int(rng.choice([TILE, WOOD, STONE])),
                yaw=yaw,
                roll=np.pi / 4,
                tint=(0.8, 0.55, 0.45) if rng.random() < 0.5 else (0.55, 0.55, 0.6),
            )
        else:
            self.add("box", (x, -2 * h - 0.12, z), (w * 1.05, 0.14, d * 1.05), STONE, yaw=yaw)

    def _tree(self) -> None:
        rng = self.rng
        at = self._spot(3.0, 18.0, 1.1)
        if at is None:
            return
        h, r = rng.uniform(0.7, 1.4), rng.uniform(0.8, 1.7)
        self.add("cylinder", (at[0], -h, at[1]), (0.12, h + 0.3, 0.12), WOOD, tint=(0.6, 0.55, 0.5), tile=0.8)
        stretch = rng.uniform(0.8, 1.7)
        tint = np.array([1.0, 1.0, 1.0]) if rng.random() < 0.7 else rng.uniform([1.0, 0.7, 0.6], [1.5, 1.1, 0.9])
        self.add("ball", (at[0], -2 * h - r * stretch * 0.7, at[1]), (r, r * stretch, r), LEAF, tile=2.0, tint=tint)

    def _open_thing(self) -> None:
        rng = self.rng
        kind = rng.choice(["hedge", "wall", "crate", "column", "ball", "bench", "pole"])
        at = self._spot(2.4, 11.0, 0.9)
        if at is None:
            return
        x, z = at
        yaw = rng.uniform(0, np.pi)
        if kind == "hedge":
            h = rng.uniform(0.35, 0.7)
            self.add("box", (x, -h, z), (rng.uniform(0.8, 2.0), h, 0.4), LEAF, yaw=yaw, tile=1.6)
        elif kind == "wall":
            h = rng.uniform(0.4, 1.2)
            self.add(
                "box",
                (x, -h, z),
                (rng.uniform(0.8, 2.0), h, 0.15),
                int(rng.choice([WALL, STONE, TILE, ART])),
                yaw=yaw,
                tile=1.8,
            )
        elif kind == "crate":
            r = rng.uniform(0.3, 0.6)
            self.add("box", (x, -r, z), (r, r, r), int(rng.choice([WOOD, ART2, CLOTH])), yaw=yaw, tile=2 * r)
            if rng.random() < 0.5:
                self.add(
                    "box",
                    (x + 0.1, -2.6 * r, z),
                    (r * 0.6, r * 0.6, r * 0.6),
                    WOOD,
                    yaw=yaw + 0.5,
                    tile=r,
                    tint=self.tint(),
                )
        elif kind == "column":
            r, h = rng.uniform(0.2, 0.4), rng.uniform(0.8, 1.8)
            self.add("cylinder", (x, -h, z), (r, h, r), STONE)
            self.add("box", (x, -2 * h - 0.1, z), (r * 1.3, 0.1, r * 1.3), STONE, yaw=yaw)
        elif kind == "ball":
            r = rng.uniform(0.3, 0.7)
            self.add("ball", (x, -r, z), (r, r, r), int(rng.choice([ART, TILE, STONE])), tint=self.tint(), tile=2.0)
        elif kind == "bench":
            self.add("box", (x, -0.42, z), (0.8, 0.04, 0.22), WOOD, yaw=yaw)
            self.add("box", (x, -0.2, z), (0.6, 0.2, 0.15), STONE, yaw=yaw)
        else:
            self.add("cylinder", (x, -1.6, z), (0.06, 1.6, 0.06), STONE, tint=(0.5, 0.5, 0.5))
            self.add("ball", (x, -3.25, z), (0.2, 0.2, 0.2), PLASTER, glow=0.4)
