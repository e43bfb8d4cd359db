"""Procedural worlds: a batch of rooms and open places as padded tensors, each fixed by its seed alone.

Every solid is a box, ball or cylinder under an affine map; the enclosure (slot 0) is a box seen from inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mirage.scenes import textures as tx

BOXES, BALLS, CYLINDERS = 42, 10, 10
SOLIDS = 1 + BOXES + BALLS + CYLINDERS  # slot 0 is the enclosure
TEXTURES = 12
FLOOR, WALL, PLASTER, CLOTH, WOOD, TILE, ART, ART2, LEAF, STONE, WINDOW, SKY = range(TEXTURES)
_FIRST = {"box": 1, "ball": 1 + BOXES, "cylinder": 1 + BOXES + BALLS}
_LAST = {"box": 1 + BOXES, "ball": 1 + BOXES + BALLS, "cylinder": SOLIDS}


@dataclass(frozen=True)
class Worlds:
    """A batch of worlds: solids, materials, textures and light.

    Convention:
        World axes are OpenCV (+y down), the floor is y = 0, units are metres and frames.
        Solids are boxes, then balls, then cylinders, in fixed slots; an empty slot has size 0.
        Materials have one row per solid and side (x faces and round sides, z faces, top, bottom):
        texture, u scale, v scale (tiles per unit of the solid), u shift, v shift, tint (3), glow.
        Motion: amplitude (3), angular frequency, phase, spin (radians per frame); zero for static solids.
    """

    center: Float32[Tensor, "b p 3"]
    rotation: Float32[Tensor, "b p 3 3"]
    size: Float32[Tensor, "b p 3"]
    motion: Float32[Tensor, "b p 6"]
    material: Float32[Tensor, "b p 4 9"]
    textures: Float32[Tensor, "b k m 3"]
    light: Float32[Tensor, "b 3"]
    sun: Float32[Tensor, "b 3"]
    ambient: Float32[Tensor, "b 2 3"]
    fade: Float32[Tensor, "b 2"]
    open: Bool[Tensor, "b"]

    def __len__(self) -> int:
        return len(self.center)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Worlds":
        if isinstance(index, int):
            index = slice(index, None if index == -1 else index + 1)
        elif not isinstance(index, (slice, Tensor)):
            index = list(index)
        return Worlds(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> "Worlds":
        """The same worlds on `device`."""
        return Worlds(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def movers(self) -> Bool[Tensor, "b p"]:
        """Which solids move."""
        return (self.motion != 0).any(-1)

    @classmethod
    def cat(cls, batches: Sequence["Worlds"]) -> "Worlds":
        """One batch after another."""
        return Worlds(**{f.name: torch.cat([getattr(w, f.name) for w in batches]) for f in fields(cls)})

    @classmethod
    def sample(
        cls, seeds: Sequence[int], kind: Literal["any", "room", "open"] = "any", *, movers: int | None = None
    ) -> "Worlds":
        """Worlds of these seeds, on the CPU; each depends on its own seed only.

        Args:
            seeds: One non-negative seed per world.
            kind: Rooms, open places, or either (two rooms in three).
            movers: Number of moving things in each world; by default none to two.

        Raises:
            ValueError: If `kind` is not one of the three.
        """
        if kind not in ("any", "room", "open"):
            raise ValueError(f"kind must be 'any', 'room' or 'open', got {kind!r}")
        built = [_Builder(int(seed), kind, movers) for seed in seeds]
        return cls(**{f.name: torch.from_numpy(np.stack([getattr(w, f.name) for w in built])) for f in fields(cls)})


class _Builder:
    """One world under construction, as NumPy arrays with the names of `Worlds`."""

    def __init__(self, seed: int, kind: str, movers: int | None) -> None:
        self.rng = rng = np.random.default_rng([seed, 20])
        self.open = np.array((rng.random() < 1 / 3) if kind == "any" else kind == "open")
        self.center = np.zeros((SOLIDS, 3), np.float32)
        self.rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (SOLIDS, 3, 3)).copy()
        self.size = np.zeros((SOLIDS, 3), np.float32)
        self.motion = np.zeros((SOLIDS, 6), np.float32)
        self.material = np.zeros((SOLIDS, 4, 9), np.float32)
        self.used = dict(_FIRST)
        self.spots: list[tuple[float, float, float]] = []
        self.hung: list[tuple[np.ndarray, float]] = []
        self.light = self.sun = self.ambient = self.fade = np.zeros(0)
        (self._open_place if self.open else self._room)()
        self._movers(int(rng.choice([0, 0, 1, 2])) if movers is None else movers)
        self.textures = np.stack([tx.mip_chain(make(rng)) for make in self._makers()])
        for name in ("light", "sun", "ambient", "fade"):
            setattr(self, name, np.asarray(getattr(self, name), np.float32))

    def _makers(self) -> list[Callable[[np.random.Generator], np.ndarray]]:
        pick = lambda *makers: makers[self.rng.integers(len(makers))]
        floor = (
            pick(tx.ground, tx.ground, tx.ground, tx.ground, tx.tiles)
            if self.open
            else pick(tx.wood, tx.wood, tx.wood, tx.tiles, tx.fabric, tx.stone, tx.checker)
        )
        plain = [tx.plaster] * 6
        wall = pick(*plain, tx.tiles, tx.fabric, tx.stone, tx.wood, tx.leaves)
        tile = pick(tx.stone, tx.leaves, tx.checker, tx.fabric, tx.tiles)
        picture = pick(tx.sky, tx.leaves)
        window = tx.facade if self.open else tx.window
        chosen = [floor, wall, tx.white, tx.fabric, tx.wood, tile, tx.leaves, picture, tx.foliage, tx.stone, window]
        return [*chosen, tx.sky]

    def _add(
        self,
        shape: str,
        center: Sequence[float],
        size: Sequence[float],
        texture: int,
        *,
        yaw: float = 0.0,
        roll: float = 0.0,
        tile: float = 1.5,
        tint: Sequence[float] | None = None,
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
        self._dress(slot, shape, texture, tile, np.ones(3) if tint is None else tint, glow, fit)
        return slot

    def _dress(self, slot: int, shape: str, texture: int, tile: float, tint, glow: float, fit) -> None:
        sx, sy, sz = self.size[slot]
        shift = self.rng.uniform(0, 1, 2)
        for face, (u, v) in enumerate([(sz, sy), (sx, sy), (sx, sz), (sx, sz)]):
            scale = (u / tile, v / tile)
            if shape != "box" and face < 2:
                scale = (max(1.0, np.round(2 * np.pi * sx / tile)), sy / tile)
            if fit is not None:
                scale, shift = (0.5 * fit[0], 0.5 * fit[1]), np.array([0.5 * fit[0], 0.5 * fit[1]])
            self.material[slot, face] = [texture, *scale, *shift, *tint, glow]

    def _free(self, x: float, z: float, radius: float) -> bool:
        return all(np.hypot(x - a, z - b) > radius + r for a, b, r in self.spots)

    def _tint(self, strength: float = 1.0) -> np.ndarray:
        c = tx.colour(self.rng, 0.9, (0.55, 1.0))
        return 1 + strength * (c / c.mean() * self.rng.uniform(0.6, 1.05) - 1)

    # ---- rooms -------------------------------------------------------------------------------------------------

    def _room(self) -> None:
        rng = self.rng
        hx, hz, height = rng.uniform(2.1, 4.5), rng.uniform(2.1, 4.5), rng.uniform(2.4, 3.3)
        self.hx, self.hz, self.height = hx, hz, height
        self.center[0], self.size[0] = (0, -height / 2, 0), (hx, height / 2, hz)
        self._dress(0, "box", WALL, rng.uniform(1.6, 3.0), self._tint(0.25), 0.0, None)
        accent = self.material[0, 1].copy()
        if rng.random() < 0.4:
            accent[0], accent[5:8] = PLASTER, self._tint(0.7)
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
            self._add("cylinder", self.light - [0, 0.12, 0], (0.22, 0.03, 0.22), PLASTER, glow=1.0)
        warmth = np.array([1.0, rng.uniform(0.86, 0.98), rng.uniform(0.68, 0.95)])
        self.sun = warmth * rng.uniform(1.1, 2.0)
        sky = np.array([0.92, 0.97, 1.05]) * rng.uniform(0.3, 0.5)
        self.ambient = np.stack([sky, sky * np.array([1.0, 0.92, 0.84]) * rng.uniform(0.7, 0.95)])
        self.fade = np.array([rng.uniform(2.5, 5.0), 0.0])

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
            if self._free(c[0], c[2], max(w, d) * 0.9):
                break
        else:
            return
        self.spots.append((c[0], c[2], max(w, d)))
        put = lambda off, up, a, b, t, **k: self._add(
            "box",
            c + n * off[0] + along * off[1] - [0, up, 0],
            np.abs(along) * a[0] + np.abs(n) * a[1] + [0, b, 0],
            t,
            **k,
        )
        tint = self._tint(0.8)
        if kind == "cabinet":
            h = rng.uniform(0.35, 0.6)
            put((0, 0), h, (w, d), h, rng.choice([WOOD, PLASTER]), tile=1.2, tint=tint)
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
            self._add(
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
            self._add(
                shape,
                at,
                size,
                int(rng.choice([STONE, TILE, ART2, PLASTER])),
                tile=0.6,
                tint=self._tint(),
                yaw=rng.uniform(0, 3),
            )

    def _table(self) -> None:
        rng = self.rng
        x, z = rng.uniform(-0.5, 0.5) * self.hx, rng.uniform(-0.5, 0.5) * self.hz
        if not self._free(x, z, 0.7):
            return
        self.spots.append((x, z, 0.75))
        h, tint, yaw = rng.choice([0.42, 0.74]), self._tint(0.7), rng.uniform(0, np.pi)
        if rng.random() < 0.5:
            r = rng.uniform(0.4, 0.65)
            self._add("cylinder", (x, -h, z), (r, 0.03, r), WOOD, tint=tint, tile=1.2)
            self._add("cylinder", (x, -h / 2, z), (0.07, h / 2, 0.07), WOOD, tint=tint * 0.7)
        else:
            w, d = rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.45)
            self._add("box", (x, -h, z), (w, 0.03, d), WOOD, tint=tint, yaw=yaw, tile=1.2)
            for s in (-0.85, 0.85):
                leg = np.array([np.cos(yaw), 0, -np.sin(yaw)]) * s * w
                self._add(
                    "box", (x + leg[0], -h / 2, z + leg[2]), (0.04, h / 2, d * 0.85), WOOD, tint=tint * 0.8, yaw=yaw
                )
        self._small_things(np.array([x, 0, z]), h + 0.03)

    def _corner_piece(self) -> None:
        rng = self.rng
        for _ in range(10):
            x, z = rng.uniform(-1, 1) * (self.hx - 0.4), rng.uniform(-1, 1) * (self.hz - 0.4)
            if max(abs(x) / self.hx, abs(z) / self.hz) > 0.6 and self._free(x, z, 0.3):
                break
        else:
            return
        self.spots.append((x, z, 0.3))
        kind = rng.choice(["plant", "lamp", "column", "crate", "stool"])
        if kind == "plant":
            r, up = rng.uniform(0.16, 0.24), rng.uniform(0.25, 0.4)
            self._add("cylinder", (x, -up / 2, z), (r, up / 2, r), int(rng.choice([STONE, TILE])), tint=self._tint())
            self._add("ball", (x, -up - 0.42, z), (0.36, 0.5, 0.36), LEAF, tile=0.9)
        elif kind == "lamp":
            self._add("cylinder", (x, -0.75, z), (0.025, 0.75, 0.025), WOOD, tint=(0.4, 0.4, 0.4))
            self._add("cylinder", (x, -1.55, z), (0.2, 0.17, 0.2), PLASTER, tint=(1.2, 1.05, 0.8), glow=0.6)
        elif kind == "column":
            r = rng.uniform(0.12, 0.24)
            self._add(
                "cylinder", (x, -self.height / 2, z), (r, self.height / 2, r), int(rng.choice([STONE, PLASTER, WALL]))
            )
        elif kind == "crate":
            r = rng.uniform(0.2, 0.32)
            self._add(
                "box", (x, -r, z), (r, r, r), int(rng.choice([WOOD, TILE, ART])), yaw=rng.uniform(0, 1.5), tile=2 * r
            )
        else:
            self._add("cylinder", (x, -0.42, z), (0.2, 0.04, 0.2), CLOTH, tint=self._tint())
            self._add("cylinder", (x, -0.2, z), (0.05, 0.2, 0.05), WOOD)

    def _partition(self) -> None:
        rng = self.rng
        n, along, dist, half = self._wall_frame(int(rng.integers(4)))
        length, place = rng.uniform(0.5, 0.8) * dist / 2, rng.uniform(-0.4, 0.4) * half
        c = -n * (dist - length) + along * place
        for s in (-0.6, 0.6):
            self.spots.append((c[0] + n[0] * s * length, c[2] + n[2] * s * length, length * 0.45))
        size = np.abs(n) * length + along * 0.07 + [0, self.height / 2, 0]
        self._add(
            "box",
            c - [0, self.height / 2, 0],
            size,
            int(rng.choice([WALL, PLASTER, PLASTER, TILE])),
            tile=2.2,
            tint=self._tint(0.5),
        )

    def _rug(self) -> None:
        rng = self.rng
        w, d = rng.uniform(0.7, 1.4), rng.uniform(0.6, 1.1)
        c = (rng.uniform(-0.4, 0.4) * self.hx, -0.006, rng.uniform(-0.4, 0.4) * self.hz)
        self._add(
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
        panel = lambda off, a, b, texture, **k: self._add(
            "box", c + n * off[0] + along * off[1], np.abs(n) * off[2] + along * a + [0, b, 0], texture, **k
        )
        if kind == "window":
            panel((0.01, 0, 0.015), w, h, WINDOW, fit=(1, 1), glow=0.75)
            if rng.random() < 0.5:
                tint = self._tint()
                for s in (-1, 1):
                    panel((0.05, s * (w + 0.1), 0.04), 0.16, h + 0.15, CLOTH, tile=0.5, tint=tint)
        elif kind == "door":
            tint = self._tint(0.6)
            panel((0, 0, 0.015), w + 0.07, h + 0.06, PLASTER, tint=tint * 0.95)
            panel((0.01, 0, 0.02), w, h, int(rng.choice([WOOD, PLASTER])), fit=(1, 1), tint=tint)
        else:
            panel((0, 0, 0.015), w + 0.04, h + 0.04, WOOD, tint=self._tint(0.6) * 0.8)
            texture = int(rng.choice([ART, ART2]))
            slot = panel((0.01, 0, 0.015), w, h, texture, fit=(1, 1))
            if slot is not None:  # another part of the texture in every frame
                self.material[slot, :, 3] += rng.uniform()
                self.material[slot, :, 1] *= min(1.0, w / 0.5)

    # ---- open places -------------------------------------------------------------------------------------------

    def _open_place(self) -> None:
        rng = self.rng
        reach, height = 42.0, 30.0
        self.center[0], self.size[0] = (0, -height / 2, 0), (reach, height / 2, reach)
        self._dress(0, "box", FLOOR, rng.uniform(3.0, 6.0), np.ones(3), 0.0, None)
        self.spots.append((0.0, 0.0, 1.5))
        for make, low, high in ((self._house, 3, 7), (self._tree, 3, 8), (self._open_thing, 5, 10)):
            for _ in range(int(rng.integers(low, high))):
                make()
        for k in range(int(rng.integers(1, 4))):  # paths, lawns, paved squares
            self._add(
                "box",
                (rng.uniform(-5, 5), 0.0, rng.uniform(-5, 5)),
                (rng.uniform(1.0, 4), 0.01 + 0.004 * k, rng.uniform(4, 18)),
                int(rng.choice([TILE, STONE, WALL, LEAF])),
                tile=rng.uniform(2.5, 5.0),
                yaw=rng.uniform(0, 3.1),
                tint=self._tint(0.3),
            )
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.1)
        self.light = 400 * np.array(
            [np.cos(elevation) * np.cos(azimuth), -np.sin(elevation), np.cos(elevation) * np.sin(azimuth)]
        )
        self.sun = np.array([1.0, rng.uniform(0.88, 0.97), rng.uniform(0.72, 0.92)]) * rng.uniform(0.6, 1.6)
        sky = np.array([0.82, 0.93, 1.1]) * rng.uniform(0.35, 0.55)
        self.ambient = np.stack([sky, sky * np.array([1.0, 0.9, 0.75]) * 0.6])
        self.fade = np.array([1e6, rng.uniform(0.004, 0.014)])

    def _spot(self, near: float, far: float, radius: float) -> tuple[float, float] | None:
        for _ in range(15):
            r, a = self.rng.uniform(near, far), self.rng.uniform(0, 2 * np.pi)
            x, z = r * np.cos(a), r * np.sin(a)
            if self._free(x, z, radius):
                self.spots.append((x, z, radius))
                return x, z
        return None

    def _house(self) -> None:
        rng = self.rng
        w, d, storeys = rng.uniform(1.6, 2.8), rng.uniform(2, 4.5), int(rng.integers(1, 4))
        at = self._spot(7, 26, np.hypot(w, d))
        if at is None:
            return
        x, z = at
        yaw, h, tint = rng.uniform(0, np.pi), 1.4 * storeys, self._tint(0.4)
        slot = self._add("box", (x, -h, z), (w, h, d), WINDOW, yaw=yaw, tint=tint)
        if slot is None:
            return
        for face, width in ((0, d), (1, w)):
            repeat = max(1, round(2 * width / 2.4))
            self.material[slot, face, 1:5] = repeat / 2, storeys / 2, repeat / 2, storeys / 2
        if rng.random() < 0.65:  # a gable: a box turned by 45 degrees, half sunk into the house
            side = w / np.sqrt(2) * 1.12
            self._add(
                "box",
                (x, -2 * h, z),
                (side, side, d * 0.985),
                int(rng.choice([TILE, WOOD, STONE])),
                yaw=yaw,
                roll=np.pi / 4,
                tint=(0.8, 0.55, 0.45) if rng.random() < 0.5 else (0.55, 0.55, 0.6),
            )
        else:
            self._add("box", (x, -2 * h - 0.12, z), (w * 1.05, 0.14, d * 1.05), STONE, yaw=yaw)

    def _tree(self) -> None:
        rng = self.rng
        at = self._spot(3.0, 18, 1.1)
        if at is None:
            return
        h, r = rng.uniform(0.7, 1.4), rng.uniform(0.8, 1.7)
        self._add("cylinder", (at[0], -h, at[1]), (0.12, h + 0.3, 0.12), WOOD, tint=(0.6, 0.55, 0.5), tile=0.8)
        stretch = rng.uniform(0.8, 1.7)
        tint = np.array([1.0, 1.0, 1.0]) if rng.random() < 0.7 else rng.uniform([1.0, 0.7, 0.6], [1.5, 1.1, 0.9])
        self._add("ball", (at[0], -2 * h - r * stretch * 0.7, at[1]), (r, r * stretch, r), LEAF, tile=2.0, tint=tint)

    def _open_thing(self) -> None:
        rng = self.rng
        kind = rng.choice(["hedge", "wall", "crate", "column", "ball", "bench", "pole"])
        at = self._spot(2.4, 11, 0.9)
        if at is None:
            return
        x, z = at
        yaw = rng.uniform(0, np.pi)
        if kind == "hedge":
            h = rng.uniform(0.35, 0.7)
            self._add("box", (x, -h, z), (rng.uniform(0.8, 2.0), h, 0.4), LEAF, yaw=yaw, tile=1.6)
        elif kind == "wall":
            h = rng.uniform(0.4, 1.2)
            self._add(
                "box",
                (x, -h, z),
                (rng.uniform(0.8, 2.0), h, 0.15),
                int(rng.choice([WALL, STONE, TILE, ART])),
                yaw=yaw,
                tile=1.8,
            )
        elif kind == "crate":
            r = rng.uniform(0.3, 0.6)
            self._add("box", (x, -r, z), (r, r, r), int(rng.choice([WOOD, ART2, CLOTH])), yaw=yaw, tile=2 * r)
            if rng.random() < 0.5:
                self._add(
                    "box",
                    (x + 0.1, -2.6 * r, z),
                    (r * 0.6, r * 0.6, r * 0.6),
                    WOOD,
                    yaw=yaw + 0.5,
                    tile=r,
                    tint=self._tint(),
                )
        elif kind == "column":
            r, h = rng.uniform(0.2, 0.4), rng.uniform(0.8, 1.8)
            self._add("cylinder", (x, -h, z), (r, h, r), STONE)
            self._add("box", (x, -2 * h - 0.1, z), (r * 1.3, 0.1, r * 1.3), STONE, yaw=yaw)
        elif kind == "ball":
            r = rng.uniform(0.3, 0.7)
            self._add("ball", (x, -r, z), (r, r, r), int(rng.choice([ART, TILE, STONE])), tint=self._tint(), tile=2.0)
        elif kind == "bench":
            self._add("box", (x, -0.42, z), (0.8, 0.04, 0.22), WOOD, yaw=yaw)
            self._add("box", (x, -0.2, z), (0.6, 0.2, 0.15), STONE, yaw=yaw)
        else:
            self._add("cylinder", (x, -1.6, z), (0.06, 1.6, 0.06), STONE, tint=(0.5, 0.5, 0.5))
            self._add("ball", (x, -3.25, z), (0.2, 0.2, 0.2), PLASTER, glow=0.4)

    def _movers(self, count: int) -> None:
        """Things that drift to and fro above the floor and turn; small, so that a camera path still fits."""
        rng = self.rng
        for _ in range(count):
            shape = str(rng.choice(["box", "ball", "cylinder"]))
            r = rng.uniform(0.16, 0.3) * (1.6 if self.open else 1.0)
            reach = 5.0 if self.open else 0.45 * min(self.hx, self.hz)
            at = [*rng.uniform(-reach, reach, 2)]
            slot = self._add(
                shape,
                (at[0], -r - rng.uniform(0.0, 0.9), at[1]),
                (r, r, r),
                int(rng.choice([ART, CLOTH, TILE, STONE])),
                tint=self._tint(),
                tile=2 * r,
            )
            if slot is None:
                continue
            angle, swing = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8)
            self.motion[slot] = [
                swing * np.cos(angle),
                -rng.uniform(0, 0.2),
                swing * np.sin(angle),
                rng.uniform(0.08, 0.25),
                rng.uniform(0, 6.28),
                rng.uniform(-0.1, 0.1),
            ]
