"""The learned corrector of reads: latents that are carried to another pose become the latents of that pose.

A latent cell holds a patch of the picture at one sub-cell phase, scale and direction, and interpolating latents moves
none of that. The mover opens each source cell into sub-cells whose features do move like an image, carries these by the
memory's own geometry at sub-cell resolution, and closes them into latents again: a decoder, a warp and an encoder of a
few hundred thousand parameters. What comes out is added to the plain gather.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mirage.camera.cameras import Cameras
from mirage.kernels import ops
from mirage.memory.motion import GroupMotion
from mirage.memory.store import Hits, Surfels

CONFIG, WEIGHTS = "config.json", "mover.safetensors"
FORMAT = "mirage-latent-mover-1"
AT_ONCE = 16  # source views opened at a time
TOLERANCE = 0.1  # relative difference of inverse depth above which two sub-cells are on different surfaces


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Where the sub-cells of some views come from: geometry alone, no latent and no weight."""

    sources: Int64[Tensor, " s"]
    """The source views that are looked at."""
    element: Int64[Tensor, "s h w"]
    """Their elements, -1 where there is none."""
    plane: Float32[Tensor, "n 3"]
    """Inverse depth and slopes of each of their sub-cells, per sub-cell."""
    lookup: Int64[Tensor, "s kh kw"]
    """Their sub-cells, -1 where there is none."""
    chosen: Int64[Tensor, "v KH KW"]
    """The sub-cell that each sub-cell of the target views shows, -1 for none."""
    place: Float32[Tensor, "v KH KW 2"]
    """Where in the source, in sub-cells."""
    clues: Float32[Tensor, "v q H W"]
    """What geometry tells of each target cell."""


class LatentMover(nn.Module):
    """Turns what a gather brings from other poses into latents of the pose that is read.

    At its initialisation it changes nothing, and it never changes cells that are read from where they were stored.

    Attributes:
        channels: Channels of a latent.
        split: Sub-cells per cell, along both axes.
        motion: Makes video latents of the reads of a group of frames; None for a mover of pictures alone.
    """

    @no_type_check  # malformed arguments get a ValueError with a way out
    def __init__(
        self, *, channels: int, split: int = 4, features: int = 16, width: int = 128, motion: dict | None = None
    ):
        super().__init__()
        sizes = (channels, split, features, width)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError("channels, split, features and width must be positive whole numbers, got "
                             f"{channels=}, {split=}, {features=}, {width=}")  # fmt: skip
        if not isinstance(motion, dict | None):
            raise ValueError(f"motion must be a dict of the arguments of GroupMotion or None, got {motion!r}")
        self.config = {"channels": channels, "split": split, "features": features, "width": width}
        self.channels, self.split = channels, split
        inner = features * split**2
        self.expand = nn.Sequential(
            nn.Conv2d(channels + 1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, inner, 1),
            nn.PixelShuffle(split),
        )
        self.contract = nn.Sequential(
            nn.Conv2d(inner + channels + 2 * split**2 + 4, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, channels, 1),
        )
        nn.init.zeros_(self.contract[-1].weight)
        nn.init.zeros_(self.contract[-1].bias)
        self.motion = None if motion is None else GroupMotion(channels=channels, **motion)

    def forward(
        self, surfels: Surfels, gathered: Float[Tensor, "v c H W"], hits: Hits, cameras: Cameras
    ) -> Float[Tensor, "v c H W"]:
        """What a read gives: the gather, mended.

        Args:
            surfels: The elements of the memory.
            gathered: What `surfels.sample(hits)` gave.
            hits: What the cells of the views show.
            cameras: The views, on the grid of cells.

        Returns:
            Latents in the dtype of `gathered`, equal to it where nothing moved and where nothing is known.
        """
        if not len(gathered):
            return gathered
        to = next(self.parameters())
        carried = carry(surfels, hits, cameras, self.split)
        opened = self._opened(surfels, carried)
        split, (views, height, width) = self.split, hits.index.shape
        by_cell = lambda x: x.unflatten(2, (width, split)).unflatten(1, (height, split)).transpose(2, 3)
        size = max(1, len(carried.plane) // max(1, len(carried.sources)))
        cell = torch.arange(len(carried.plane), device=gathered.device)
        moved = ops.gather(
            opened, carried.plane, cell % size, cell // size, carried.lookup, by_cell(carried.chosen).flatten(),
            by_cell(carried.place).flatten(0, 4), tolerance=TOLERANCE,
        )  # fmt: skip
        # The first layer in two parts: that of the sub-cells is a product with rows that lie as they were gathered.
        moved = moved.to(to).view(views * height * width, -1)
        inner, first = moved.shape[1], self.contract[0]
        weight = first.weight[:, :inner, 0, 0].unflatten(1, (-1, split**2)).transpose(1, 2).flatten(1)
        told = torch.cat([gathered.to(to), carried.clues.to(to)], 1)
        told = F.conv2d(told, first.weight[:, inner:], first.bias)
        moved = (moved @ weight.T).view(views, height, width, -1).movedim(-1, 1)
        change = self.contract[1:](moved + told)
        mend = ((hits.index >= 0) & ~hits.unmoved)[:, None]
        return torch.where(mend, (gathered.to(to) + change).to(gathered.dtype), gathered)

    def _opened(self, surfels: Surfels, carried: Carried) -> Float[Tensor, "n f"]:
        """Features of the sub-cells of the source views, row by row."""
        to = next(self.parameters())
        parts = []
        for element in carried.element.split(AT_ONCE):
            known = (element >= 0)[:, None]
            rows = surfels.features[element.clamp(min=0).flatten()].to(to).unflatten(0, element.shape)
            latents = torch.where(known, rows.movedim(-1, 1), 0.0)
            opened = self.expand(torch.cat([latents, known.to(to)], 1))
            parts.append(opened.movedim(1, -1).flatten(0, 2))
        return torch.cat(parts) if parts else surfels.plane.new_zeros(0, self.config["features"])

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `config.json` and `mover.safetensors`.

        Args:
            folder: Where; made if missing.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        config = self.config | ({} if self.motion is None else {"motion": self.motion.config})
        aside = folder / f".{WEIGHTS}.part"
        aside.write_bytes(save(tensors))  # a file of its own mode, not for the owner alone
        os.replace(aside, folder / WEIGHTS)
        aside = folder / f".{CONFIG}.part"
        aside.write_text(json.dumps({"format": FORMAT} | config, indent=1) + "\n", encoding="utf-8")
        os.replace(aside, folder / CONFIG)

    @classmethod
    @no_type_check
    def from_pretrained(cls, folder: str | os.PathLike) -> "LatentMover":
        """Read what `save_pretrained` wrote.

        Args:
            folder: Where it is.

        Returns:
            The mover, in float32, not to be trained.

        Raises:
            ValueError: If a file is missing, damaged or of something else.
        """
        if not isinstance(folder, str | os.PathLike):
            raise ValueError(f"folder must be the path of a folder, got {folder!r}")
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            mover = cls(**config)
            weights = {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
            mover.load_state_dict(weights)
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"folder: {folder} holds no mover ({CONFIG} and {WEIGHTS}): {error}") from error
        return mover.requires_grad_(False).eval()


@torch.no_grad()
def carry(surfels: Surfels, hits: Hits, cameras: Cameras, split: int) -> Carried:
    """Find for each sub-cell of the target views the sub-cell of a source view that it shows.

    Args:
        surfels: The elements of the memory.
        hits: What the cells of the views show.
        cameras: The views, on the grid of cells.
        split: Sub-cells per cell, along both axes.

    Returns:
        Places, and clues for each cell.
    """
    height, width = hits.index.shape[1:]
    fine = surfels.bare.render(cameras.resize(height * split, width * split))
    device = fine.index.device
    found = fine.index >= 0
    # The source views in sight, in their own numbering.
    index = fine.index.flatten().clamp(min=0)
    source = surfels.source[index] if len(surfels) else index
    used = torch.zeros(len(surfels.name) + 1, dtype=torch.bool, device=device)
    used[torch.where(found.flatten(), source, len(surfels.name))] = True
    sources, number = used[:-1].nonzero()[:, 0], (used.cumsum(0) - 1)[source]
    element = surfels.lookup[sources].long()
    larger = lambda x: x.repeat_interleave(split, 1).repeat_interleave(split, 2)
    grid = larger(element)
    rows, cols = grid.shape[1:]
    step = (torch.arange(split, device=device) + 0.5) / split - 0.5
    dx, dy = step.repeat(cols // split), step.repeat(rows // split)[:, None]
    plane = torch.where((element >= 0)[..., None], surfels.plane[element.clamp(min=0)], 0.0) if len(surfels) else (
        torch.zeros(*element.shape, 3, device=device))  # fmt: skip
    level, along_x, along_y = (larger(x) for x in plane.unbind(-1))
    inverse = (level + along_x * dx) + along_y * dy
    plane = torch.stack([inverse, along_x / split, along_y / split], -1).flatten(0, 2)
    lookup = torch.where(grid >= 0, torch.arange(grid.numel(), device=device).view(grid.shape), -1)

    # The nearest sub-cell of the element that was hit; where another one lies under the hit and is of the same surface,
    # that one.
    x, y = (side.contiguous() for side in (fine.place.flatten(0, 2) * split).unbind(-1))
    cell = surfels.cell[index] if len(surfels) else index
    left, top = ((side * split).float() for side in (cell % (cols // split), cell // (cols // split)))
    own_x = torch.minimum(torch.maximum(x.floor(), left), left + (split - 1))
    own_y = torch.minimum(torch.maximum(y.floor(), top), top + (split - 1))
    first = number * (rows * cols)
    chosen = first + (own_y * cols + own_x).long()
    under_x, under_y = x.clamp(0.5, cols - 0.5).floor(), y.clamp(0.5, rows - 0.5).floor()
    aside = (((under_x != own_x) | (under_y != own_y)) & found.flatten()).nonzero()[:, 0]
    other = lookup.flatten()[first[aside] + (under_y[aside] * cols + under_x[aside]).long()]
    mine, theirs = (
        (plane[which, 0] + plane[which, 1] * (x[aside] - (column[aside] + 0.5)))
        + plane[which, 2] * (y[aside] - (row[aside] + 0.5))
        for which, column, row in ((chosen[aside], own_x, own_y), (other.clamp(min=0), under_x, under_y))
    )
    same = (other >= 0) & ((theirs - mine).abs() <= TOLERANCE * mine)
    aside = aside[same]
    chosen[aside], own_x[aside], own_y[aside] = other[same], under_x[aside], under_y[aside]
    chosen = torch.where(found, chosen.view(found.shape), -1)
    near = lambda at, middle: torch.minimum(torch.maximum(at, middle - 0.499), middle + 1.499)
    places = torch.stack([near(x, own_x), near(y, own_y)], -1).view(*found.shape, 2)

    # What a cell is told: how it moved, which of its sub-cells are known, and their depth beside its own.
    seen = hits.index >= 0
    moved = hits.place - (surfels.center[hits.index.clamp(min=0)] if len(surfels) else 0.0)
    size = hits.size.clamp(min=1e-3).log2().clamp(-3, 3)
    own_depth = larger(hits.depth)
    both = found & (own_depth > 0)
    ratio = torch.where(both, fine.depth / own_depth.clamp(min=1e-30), 1.0).clamp(0.25, 4).log2()
    cells = torch.stack([size, moved[..., 0], moved[..., 1], torch.ones_like(size)], 1)
    cells = torch.where(seen[:, None], cells, 0.0)
    per_cell = [F.pixel_unshuffle(x[:, None].float(), split) for x in (found, 4 * ratio)]
    return Carried(
        sources=sources,
        element=element,
        plane=plane,
        lookup=lookup,
        chosen=chosen,
        place=places,
        clues=torch.cat([cells, *per_cell], 1),
    )
