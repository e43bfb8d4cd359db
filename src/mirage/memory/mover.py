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

    def __init__(
        self, *, channels: int, split: int = 4, features: int = 16, width: int = 128, motion: dict | None = None
    ):
        super().__init__()
        if min(channels, split, features, width) < 1:
            raise ValueError(f"channels, split, features and width must be positive, got {channels=}, {split=}, "
                             f"{features=}, {width=}")  # fmt: skip
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
        self.close = nn.PixelUnshuffle(split)
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
        chosen, place = carried.chosen.flatten(), carried.place.flatten(0, 2)
        size = len(carried.plane) // max(1, len(carried.sources))
        cell = torch.arange(len(carried.plane), device=place.device)
        moved = ops.gather(
            opened, carried.plane, cell % max(1, size), cell // max(1, size), carried.lookup, chosen, place,
            tolerance=TOLERANCE,
        )  # fmt: skip
        moved = moved.unflatten(0, carried.chosen.shape).movedim(-1, 1)
        told = torch.cat([self.close(moved).to(to), gathered.to(to), carried.clues.to(to)], 1)
        change = self.contract(told)
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
    if len(surfels):
        sources, number = surfels.source[fine.index.clamp(min=0)].long()[found].unique(return_inverse=True)
    else:
        sources, number = (
            torch.zeros(0, dtype=torch.int64, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
        )
    element = surfels.lookup[sources].long()
    grid = element.repeat_interleave(split, 1).repeat_interleave(split, 2)
    rows, cols = grid.shape[1:]
    step = (torch.arange(split, device=device) + 0.5) / split - 0.5
    dx, dy = step.repeat(cols // split), step.repeat(rows // split)[:, None]
    plane = torch.where((grid >= 0)[..., None], surfels.plane[grid.clamp(min=0)], 0.0) if len(surfels) else (
        torch.zeros(*grid.shape, 3, device=device))  # fmt: skip
    inverse = (plane[..., 0] + plane[..., 1] * dx) + plane[..., 2] * dy
    plane = torch.stack([inverse, plane[..., 1] / split, plane[..., 2] / split], -1).flatten(0, 2)
    lookup = torch.where(grid >= 0, torch.arange(grid.numel(), device=device).view(grid.shape), -1)

    # The sub-cell under each hit, if it is of the same surface, else the nearest one of the element that was hit.
    index, place = fine.index[found], fine.place[found] * split
    center = surfels.center[index] * split
    half = (split - 1) / 2
    own = torch.minimum(torch.maximum(place.floor() + 0.5, center - half), center + half)
    under = torch.stack([place[:, 0].clamp(0.5, cols - 0.5), place[:, 1].clamp(0.5, rows - 0.5)], -1).floor()
    at = lambda where: lookup[number, where[:, 1].long(), where[:, 0].long()]
    mine, other = at(own), at(under)
    offset = place - own
    truth = (plane[mine] * torch.cat([torch.ones_like(offset[:, :1]), offset], 1)).sum(1)
    offset = place - (under + 0.5)
    theirs = (plane[other.clamp(min=0)] * torch.cat([torch.ones_like(offset[:, :1]), offset], 1)).sum(1)
    same = (other >= 0) & ((theirs - truth).abs() <= TOLERANCE * truth)
    chosen = torch.full(fine.index.shape, -1, dtype=torch.int64, device=device)
    chosen[found] = torch.where(same, other, mine)
    middle = torch.where(same[:, None], under + 0.5, own)
    places = torch.zeros_like(fine.place)
    places[found] = torch.minimum(torch.maximum(place, middle - 0.999), middle + 0.999)

    # What a cell is told: how it moved, which of its sub-cells are known, and their depth beside its own.
    seen = hits.index >= 0
    moved = hits.place - (surfels.center[hits.index.clamp(min=0)] if len(surfels) else 0.0)
    size = hits.size.clamp(min=1e-3).log2().clamp(-3, 3)
    own_depth = hits.depth.repeat_interleave(split, 1).repeat_interleave(split, 2)
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
