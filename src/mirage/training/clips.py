"""Clips of exact worlds on disk: rendered once, in shards that are written whole, read at random."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float32, UInt8
from safetensors import safe_open
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.scenes import Worlds, render, sample_path
from mirage.training.fit import generator, save_atomic

logger = logging.getLogger(__name__)
SIZES = ((128, 128), (128, 128), (128, 128), (96, 160), (160, 96))  # shards take turns
KINDS = ("walk", "there-and-back", "orbit", "walk", "abab", "pan", "walk", "there-and-back")
PER_SHARD = 8


@dataclass(frozen=True)
class Clips:
    """A batch of rendered clips with all that is known of them.

    Convention:
        Colour as bytes; z-depth in world units, 0 for sky; cameras in pixels of the clip.
    """

    frames: UInt8[Tensor, "b f 3 h w"]
    depth: Float[Tensor, "b f h w"]
    movers: Bool[Tensor, "b f h w"]
    intrinsics: Float32[Tensor, "b f 3 3"]
    cam_from_world: Float32[Tensor, "b f 4 4"]


def render_clips(
    seeds: Sequence[int], frames: int, height: int, width: int, kinds: Sequence[str], device: str = "cpu"
) -> Clips:
    """Render one clip per seed: the world, its path and its movers depend on the seed alone.

    Args:
        seeds: One world each; three worlds in four are static.
        frames: Frames per clip.
        height: Pixels.
        width: Pixels.
        kinds: The kind of path of each clip.
        device: Where to render.

    Returns:
        The clips, on `device`.
    """
    worlds = Worlds.cat([Worlds.sample([s], movers=1 + s % 2 if s % 4 == 3 else 0) for s in seeds])
    paths = [
        sample_path(worlds[i], s, frames, kind=kind, height=height, width=width)
        for i, (s, kind) in enumerate(zip(seeds, kinds, strict=True))
    ]
    cameras = Cameras.cat(paths).to(device)
    seen = render(worlds.to(device), cameras)
    split = lambda x: x.unflatten(0, (len(seeds), frames))
    return Clips(
        to_bytes(seen.colour), seen.depth.half(), seen.movers, split(cameras.intrinsics), split(cameras.cam_from_world)
    )


def write_shards(
    folder: Path,
    shards: int,
    *,
    frames: int = 49,
    first_seed: int = 0,
    sizes: Sequence[tuple[int, int]] = SIZES,
    device: str = "cpu",
) -> None:
    """Render shards that are not there yet; a run that was stopped goes on where it was.

    Args:
        folder: Where `clips-00000.safetensors` and so on go; made if missing.
        shards: How many there shall be, of `PER_SHARD` clips each.
        frames: Frames per clip.
        first_seed: Seed of the first clip; the rest follow.
        sizes: Height and width; the shards take turns.
        device: Where to render.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        path = folder / f"clips-{shard:05}.safetensors"
        if path.exists():
            continue
        height, width = sizes[shard % len(sizes)]
        seeds = [first_seed + shard * PER_SHARD + i for i in range(PER_SHARD)]
        clips = render_clips(seeds, frames, height, width, KINDS, device)
        save_atomic({k: v.contiguous().cpu() for k, v in vars(clips).items()}, path)
        logger.info("rendered %s (%d of %d)", path.name, shard + 1, shards)


def read_shard(path: Path) -> Clips:
    """One shard, whole."""
    with safe_open(path, "pt") as file:
        return Clips(**{name: file.get_tensor(name) for name in Clips.__dataclass_fields__})


class Crops:
    """Random windows of random moments, for the autoencoder; the batch of a step depends on the step alone."""

    def __init__(self, folder: Path, seed: int = 0, *, size: int = 64, frames: int = 5, device: str = "cpu"):
        self.paths = sorted(folder.glob("clips-*.safetensors"))
        if not self.paths:
            raise ValueError(f"no clips in {folder}; render some first")
        self.seed, self.size, self.frames, self.device = seed, size, frames, device
        self._open: dict[Path, Tensor] = {}

    def batch(self, step: int, count: int = 1) -> Float[Tensor, "b f 3 {self.size} {self.size}"]:
        """A window of each clip of `count` shards, colour in [-1, 1]."""
        g = generator(self.seed, step)
        pick = lambda n: int(torch.randint(n, (), generator=g))
        windows = []
        for _ in range(count):
            clips = self._load(self.paths[pick(len(self.paths))])
            for clip in clips:
                t, y, x = pick(clip.shape[0] - self.frames + 1), *(pick(n - self.size + 1) for n in clip.shape[-2:])
                windows.append(clip[t : t + self.frames, :, y : y + self.size, x : x + self.size])
        return to_floats(torch.stack(windows))

    def _load(self, path: Path) -> UInt8[Tensor, "b f 3 h w"]:
        if path not in self._open:
            with safe_open(path, "pt") as file:
                self._open[path] = file.get_tensor("frames").to(self.device)
        return self._open[path]


def to_bytes(colour: Float[Tensor, "*b"]) -> UInt8[Tensor, "*b"]:
    """[-1, 1] to bytes."""
    return ((colour.clamp(-1, 1) + 1) * 127.5).round().byte()


def to_floats(colour: UInt8[Tensor, "*b"]) -> Float32[Tensor, "*b"]:
    """Bytes to [-1, 1]."""
    return colour.float() / 127.5 - 1
