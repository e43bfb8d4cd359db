"""Rooms: furniture along the walls, tables, partitions, pictures, windows, doors, a lamp."""

import numpy as np

from mirage.scenes import textures as tx
from mirage.scenes.build import ART, ART2, CLOTH, FLOOR, LEAF, PLASTER, STONE, TILE, WALL, WINDOW, WOOD, Builder, Maker


class Room(Builder):
    """A room of 4 to 9 metres."""

    open = False

    def furnish(self) -> None:
        rng = self.rng
        self.hung: list[tuple[np.ndarray, float]] = []
        hx, hz, height = rng.uniform(2.1, 4.5), rng.uniform(2.1, 4.5), rng.uniform(2.4, 3.3)
        self.hx, self.hz, self.height = hx, hz, height
        self.center[0], self.size[0] = (0, -height / 2, 0), (hx, height / 2, hz)
        self.dress(0, "box", WALL, rng.uniform(1.6, 3.0), self.tint(0.25), 0.0, None)
        accent = self.material[0, 1].copy()
        if rng.random() < 0.4:
            accent[0], accent[5:8] = PLASTER, self.tint(0.7)
        self.material[0, 1] = accent
        for face, texture, tile, tint in (
            (2, PLASTER, 3.0, np.full(3, 1.1)),
            (3, FLOOR, rng.uniform(1.4, 2.6), np.ones(3)),
        ):
            self.material[0, face, [0, 1, 2]] = texture, hx / tile, hz / tile
            self.material[0, face, 5:8] = tint
        for _ in range(int(rng.integers(2, 6))):
            self._wall_piece()
        if rng.random() < 0.7:
            self._table()
        for _ in range(int(rng.integers(2, 5))):
            self._corner_piece()
        if rng.random() < 0.35:
            self._partition()
        if rng.random() < 0.7:
            self._rug()
        walls = [int(wall) for wall in rng.permutation(4)]
        self._on_wall(walls[0], "window")
        if rng.random() < 0.5:
            self._on_wall(walls[1], "window")
        if rng.random() < 0.6:
            self._on_wall(walls[2], "door")
        for wall in range(4):
            for _ in range(int(rng.integers(1, 3))):
                self._on_wall(wall, "picture")
        self.light = np.array([rng.uniform(-0.6, 0.6) * hx, -height + 0.15, rng.uniform(-0.6, 0.6) * hz])
        if rng.random() < 0.6:
            self.add("cylinder", self.light - [0, 0.12, 0], (0.22, 0.03, 0.22), PLASTER, glow=1.0)
        warmth = np.array([1.0, rng.uniform(0.86, 0.98), rng.uniform(0.68, 0.95)])
        self.sun = warmth * rng.uniform(1.1, 2.0)
        sky = np.array([0.92, 0.97, 1.05]) * rng.uniform(0.3, 0.5)
        self.ambient = np.stack([sky, sky * np.array([1.0, 0.92, 0.84]) * rng.uniform(0.7, 0.95)])
        self.fade = np.array([rng.uniform(2.5, 5.0), 0.0])

    def surfaces(self) -> tuple[Maker, Maker, Maker]:
        floor = self.pick(tx.wood, tx.wood, tx.wood, tx.tiles, tx.fabric, tx.stone, tx.checker)
        plain = [tx.plaster] * 6
        return floor, self.pick(*plain, tx.tiles, tx.fabric, tx.stone, tx.wood, tx.leaves), tx.window

    def _wall_frame(self, wall: int) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Inward normal, direction along, distance of the wall, half its length."""
        n = [np.array([1.0, 0, 0]), np.array([-1.0, 0, 0]), np.array([0, 0, 1.0]), np.array([0, 0, -1.0])][wall]
        along = np.array([abs(n[2]), 0.0, abs(n[0])])
        return n, along, (self.hx if wall < 2 else self.hz), (self.hz if wall < 2 else self.hx)

    def _wall_piece(self) -> None:
        """A cabinet, shelf, sofa or bed against a wall."""
        rng = self.rng
        kind = rng.choice(["cabinet", "shelf", "sofa", "bed", "desk"])
        w = {
            "cabinet": rng.uniform(0.4, 0.9),
            "shelf": rng.uniform(0.4, 0.8),
            "sofa": rng.uniform(0.7, 1.1),
            "bed": rng.uniform(0.6, 0.9),
            "desk": rng.uniform(0.5, 0.8),
        }[kind]
        d = {"cabinet": 0.25, "shelf": 0.18, "sofa": 0.42, "bed": 1.0, "desk": 0.35}[kind] * rng.uniform(0.85, 1.15)
        for _ in range(12):
            n, along, dist, half = self._wall_frame(int(rng.integers(4)))
            place = rng.uniform(-1, 1) * max(half - w - 0.05, 0)
            c = -n * (dist - d - 0.02) + along * place
            if self.free(c[0], c[2], max(w, d) * 0.9):
                break
        else:
            return
        self.spots.append((c[0], c[2], max(w, d)))
        put = lambda off, up, a, b, t, **k: self.add(
            "box",
            c + n * off[0] + along * off[1] - [0, up, 0],
            np.abs(along) * a[0] + np.abs(n) * a[1] + [0, b, 0],
            t,
            **k,
        )
        tint = self.tint(0.8)
        if kind == "cabinet":
            h = rng.uniform(0.35, 0.6)
            put((0, 0), h, (w, d), h, int(rng.choice([WOOD, PLASTER])), tile=1.2, tint=tint)
            self._small_things(c + along * rng.uniform(-0.5, 0.5) * w, 2 * h)
        elif kind == "shelf":
            h = rng.uniform(0.7, 1.05)
            put((-d * 0.9, 0), h, (w, d * 0.1), h - 0.01, WOOD, tint=tint * 0.8)
            put((0, w), h, (0.03, d), h, WOOD, tint=tint)
            put((0, -w), h, (0.03, d), h, WOOD, tint=tint)
            for k in range(3):
                level = 2 * h * (k + 1) / 3
                put((0, 0), level - 0.03, (w, d - 0.01), 0.025, WOOD, tint=tint)
                books = rng.uniform(0.3, 0.7) * w
                put((0, rng.uniform(-0.25, 0.25) * w), level - 2 * h / 3 + 0.16, (books, d * 0.7), 0.14, ART, tile=0.9)
        elif kind == "sofa":
            put((0, 0), 0.22, (w - 0.01, d - 0.01), 0.22, CLOTH, tint=tint)
            put((-d * 0.75, 0), 0.6, (w - 0.02, d * 0.25), 0.22, CLOTH, tint=tint * 0.92)
            for s in (-1, 1):
                put((0, s * (w - 0.09)), 0.5, (0.09, d), 0.1, CLOTH, tint=tint * 0.95)
            self.add(
                "ball", c + along * w * 0.45 * rng.choice([-1, 1]) - [0, 0.56, 0], (0.17, 0.15, 0.17), ART2, tile=0.6
            )
        elif kind == "bed":
            put((0, 0), 0.22, (w - 0.01, d), 0.22, CLOTH, tint=tint)
            put((-d + 0.05, 0), 0.5, (w, 0.05), 0.5, WOOD)
            put((-d * 0.7, 0), 0.5, (w * 0.7, 0.18), 0.07, PLASTER)
        else:
            put((0, 0), 0.74, (w, d), 0.025, WOOD, tint=tint)
            for s in (-1, 1):
                put((0, s * (w - 0.04)), 0.36, (0.03, d * 0.9), 0.36, WOOD, tint=tint)
            put((-d * 0.4, 0), 1.0, (0.28, 0.02), 0.18, ART, fit=(1, 1), glow=0.35)

    def _small_things(self, c: np.ndarray, top: float) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(1, 3))):
            r, h = rng.uniform(0.05, 0.13), rng.uniform(0.08, 0.2)
            at = [c[0] + rng.uniform(-0.25, 0.25), -top - h, c[2] + rng.uniform(-0.12, 0.12)]
            shape = str(rng.choice(["cylinder", "ball", "box"]))
            size = (r, r, r) if shape == "ball" else (r, h, r)
            at[1] = -top - size[1]
            self.add(
                shape,
                at,
                size,
                int(rng.choice([STONE, TILE, ART2, PLASTER])),
                tile=0.6,
                tint=self.tint(),
                yaw=rng.uniform(0, 3),
            )

    def _table(self) -> None:
        rng = self.rng
        x, z = rng.uniform(-0.5, 0.5) * self.hx, rng.uniform(-0.5, 0.5) * self.hz
        if not self.free(x, z, 0.7):
            return
        self.spots.append((x, z, 0.75))
        h, tint, yaw = rng.choice([0.42, 0.74]), self.tint(0.7), rng.uniform(0, np.pi)
        if rng.random() < 0.5:
            r = rng.uniform(0.4, 0.65)
            self.add("cylinder", (x, -h, z), (r, 0.03, r), WOOD, tint=tint, tile=1.2)
            self.add("cylinder", (x, -h / 2, z), (0.07, h / 2, 0.07), WOOD, tint=tint * 0.7)
        else:
            w, d = rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.45)
            self.add("box", (x, -h, z), (w, 0.03, d), WOOD, tint=tint, yaw=yaw, tile=1.2)
            for s in (-0.85, 0.85):
                leg = np.array([np.cos(yaw), 0, -np.sin(yaw)]) * s * w
                self.add(
                    "box", (x + leg[0], -h / 2, z + leg[2]), (0.04, h / 2, d * 0.85), WOOD, tint=tint * 0.8, yaw=yaw
                )
        self._small_things(np.array([x, 0, z]), h + 0.03)

    def _corner_piece(self) -> None:
        rng = self.rng
        for _ in range(10):
            x, z = rng.uniform(-1, 1) * (self.hx - 0.4), rng.uniform(-1, 1) * (self.hz - 0.4)
            if max(abs(x) / self.hx, abs(z) / self.hz) > 0.6 and self.free(x, z, 0.3):
                break
        else:
            return
        self.spots.append((x, z, 0.3))
        kind = rng.choice(["plant", "lamp", "column", "crate", "stool"])
        if kind == "plant":
            r, up = rng.uniform(0.16, 0.24), rng.uniform(0.25, 0.4)
            self.add("cylinder", (x, -up / 2, z), (r, up / 2, r), int(rng.choice([STONE, TILE])), tint=self.tint())
            self.add("ball", (x, -up - 0.42, z), (0.36, 0.5, 0.36), LEAF, tile=0.9)
        elif kind == "lamp":
            self.add("cylinder", (x, -0.75, z), (0.025, 0.75, 0.025), WOOD, tint=(0.4, 0.4, 0.4))
            self.add("cylinder", (x, -1.55, z), (0.2, 0.17, 0.2), PLASTER, tint=(1.2, 1.05, 0.8), glow=0.6)
        elif kind == "column":
            r = rng.uniform(0.12, 0.24)
            self.add(
                "cylinder", (x, -self.height / 2, z), (r, self.height / 2, r), int(rng.choice([STONE, PLASTER, WALL]))
            )
        elif kind == "crate":
            r = rng.uniform(0.2, 0.32)
            self.add(
                "box", (x, -r, z), (r, r, r), int(rng.choice([WOOD, TILE, ART])), yaw=rng.uniform(0, 1.5), tile=2 * r
            )
        else:
            self.add("cylinder", (x, -0.42, z), (0.2, 0.04, 0.2), CLOTH, tint=self.tint())
            self.add("cylinder", (x, -0.2, z), (0.05, 0.2, 0.05), WOOD)

    def _partition(self) -> None:
        rng = self.rng
        n, along, dist, half = self._wall_frame(int(rng.integers(4)))
        length, place = rng.uniform(0.5, 0.8) * dist / 2, rng.uniform(-0.4, 0.4) * half
        c = -n * (dist - length) + along * place
        for s in (-0.6, 0.6):
            self.spots.append((c[0] + n[0] * s * length, c[2] + n[2] * s * length, length * 0.45))
        size = np.abs(n) * length + along * 0.07 + [0, self.height / 2, 0]
        self.add(
            "box",
            c - [0, self.height / 2, 0],
            size,
            int(rng.choice([WALL, PLASTER, PLASTER, TILE])),
            tile=2.2,
            tint=self.tint(0.5),
        )

    def _rug(self) -> None:
        rng = self.rng
        w, d = rng.uniform(0.7, 1.4), rng.uniform(0.6, 1.1)
        c = (rng.uniform(-0.4, 0.4) * self.hx, -0.006, rng.uniform(-0.4, 0.4) * self.hz)
        self.add(
            "box",
            c,
            (w, 0.008, d),
            int(rng.choice([CLOTH, ART, ART2, TILE])),
            yaw=rng.choice([0.0, 0.3, 1.2]),
            fit=(1, 1),
        )

    def _on_wall(self, wall: int, kind: str) -> None:
        """A window with or without curtains, a door, or a framed picture; nothing where something hangs already."""
        rng = self.rng
        n, along, dist, half = self._wall_frame(wall)
        w, h, up = {
            "window": (rng.uniform(0.5, 1.0), rng.uniform(0.45, 0.7), rng.uniform(1.35, 1.65)),
            "door": (rng.uniform(0.4, 0.48), 1.0, 1.0),
            "picture": (rng.uniform(0.22, 0.7), rng.uniform(0.22, 0.5), rng.uniform(1.35, 1.65)),
        }[kind]
        w = min(w, half * 0.6)
        place = rng.uniform(-1, 1) * max(half - w - 0.15, 0)
        c = -n * (dist - 0.015) + along * place - [0, up, 0]
        if any(np.hypot(*(c - o)[[0, 2]]) < w + s + 0.1 for o, s in self.hung):
            return
        self.hung.append((c, w))
        panel = lambda off, a, b, texture, **k: self.add(
            "box", c + n * off[0] + along * off[1], np.abs(n) * off[2] + along * a + [0, b, 0], texture, **k
        )
        if kind == "window":
            panel((0.01, 0, 0.015), w, h, WINDOW, fit=(1, 1), glow=0.75)
            if rng.random() < 0.5:
                tint = self.tint()
                for s in (-1, 1):
                    panel((0.05, s * (w + 0.1), 0.04), 0.16, h + 0.15, CLOTH, tile=0.5, tint=tint)
        elif kind == "door":
            tint = self.tint(0.6)
            panel((0, 0, 0.015), w + 0.07, h + 0.06, PLASTER, tint=tint * 0.95)
            panel((0.01, 0, 0.02), w, h, int(rng.choice([WOOD, PLASTER])), fit=(1, 1), tint=tint)
        else:
            panel((0, 0, 0.015), w + 0.04, h + 0.04, WOOD, tint=self.tint(0.6) * 0.8)
            texture = int(rng.choice([ART, ART2]))
            slot = panel((0.01, 0, 0.015), w, h, texture, fit=(1, 1))
            if slot is not None:  # another part of the texture in every frame
                self.material[slot, :, 3] += rng.uniform()
                self.material[slot, :, 1] *= min(1.0, w / 0.5)
