"""Procedural worlds: a batch of rooms and open places as padded tensors, each fixed by its seed alone.

Every solid is a box, ball or cylinder under an affine map; the enclosure (slot 0) is a box seen from inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mirage.scenes.build import Builder
from mirage.scenes.places import OpenPlace
from mirage.scenes.rooms import Room


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
        built: list[Builder] = []
        for seed in seeds:
            rng = np.random.default_rng([int(seed), 20])
            is_open = rng.random() < 1 / 3 if kind == "any" else kind == "open"
            built.append((OpenPlace if is_open else Room)(rng, movers))
        stack = lambda name: np.stack([np.asarray(getattr(world, name)) for world in built])
        arrays = {f.name: torch.from_numpy(stack(f.name)) for f in fields(cls)}
        return cls(**{name: a if a.dtype == torch.bool else a.float() for name, a in arrays.items()})
