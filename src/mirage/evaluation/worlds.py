"""A walk with all that is true of it; and walks through held-out exact worlds."""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.evaluation import metrics
from mirage.geometry.nano import FAR
from mirage.scenes import Worlds, render, sample_path
from mirage.video.io import tensor_to_images

HELD_OUT = 1_000_000  # training uses seeds from 0 on
BATCH = 64  # views that are rendered at a time


@dataclass(frozen=True)
class Walk:
    """A path and what is true along it: all in an exact world, less in a real place, one view of a picture."""

    seed: int
    """Of the noise."""
    cameras: Cameras
    colour: Float32[Tensor, "t 3 h w"]
    """The true frames; of a single picture the first alone."""
    depth: Float32[Tensor, "t h w"] | None
    """True z-depth, 0 = unknown, the sky at `FAR`."""
    seen: Bool[np.ndarray, "t h w"] | None
    """Pixels that show what the first view shows too."""
    sure: Bool[np.ndarray, "t h w"] | None = None
    """Pixels of which it is known whether they were seen; all if None."""

    @functools.cached_property
    def frames(self) -> UInt8[np.ndarray, "t h w 3"]:
        """The true frames, as they are shown."""
        return tensor_to_images(self.colour)

    @property
    def unseen(self) -> Bool[np.ndarray, "t h w"]:
        """Pixels that surely show what the first view does not."""
        return ~self.seen if self.sure is None else ~self.seen & self.sure


def make_walk(
    seed: int,
    frames: int,
    height: int,
    width: int,
    device: str = "cpu",
    *,
    kind: Literal["any", "walk", "there-and-back", "abab", "orbit", "pan", "truck"] = "abab",
    repeat: int = 1,
) -> Walk:
    """A static world and a walk in it, A-B-A-B-A unless told otherwise; what is visited twice is rendered once.

    Args:
        seed: Fixes both.
        frames: Frames of the walk.
        height: Pixels.
        width: Pixels.
        device: Where to render.
        kind: Of the path, as `sample_path` has it.
        repeat: How often the walk is gone; it must end where it begins then.

    Returns:
        The walk, on `device`; the sky at depth `FAR`, where the model remembers it.
    """
    world = Worlds.sample([seed], movers=0)
    cameras = sample_path(world, seed, frames, kind=kind, height=height, width=width)
    if repeat > 1:
        cameras = cameras[[0, *range(1, frames)] + [*range(1, frames)] * (repeat - 1)]
    poses, index = torch.unique(cameras.cam_from_world, dim=0, return_inverse=True)
    places = Cameras(cameras.intrinsics[: len(poses)], poses, height, width)
    views = [render(world.to(device), places[i : i + BATCH].to(device)) for i in range(0, len(poses), BATCH)]
    cameras, index = cameras.to(device), index.to(device)
    depth = torch.cat([torch.where(v.sky, FAR, v.depth.clamp(max=FAR))[0] for v in views])[index]
    parts = [slice(i, i + BATCH) for i in range(0, len(depth), BATCH)]
    seen = torch.cat([metrics.seen_from(depth[p], cameras[p], depth[0], cameras[0]) for p in parts])
    # What the model gets is what a file would hold.
    colour = tensor_to_images(torch.cat([v.colour[0] for v in views])[index])
    colour = torch.from_numpy(colour).to(device).movedim(-1, 1).float() / 127.5 - 1
    return Walk(seed, cameras, colour, depth, seen.cpu().numpy())
