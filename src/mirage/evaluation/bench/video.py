"""A long video in an exact world, without its pictures: cameras, depth and latents, chunk by chunk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float16, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory import LatentMemory
from mirage.scenes.halls import hall, placed, walk

PATHS = ("explores", "returns", "stays")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of a measurement; the defaults are the paper's."""

    height: int = 704
    width: int = 1280
    stride: int = 16
    channels: int = 48
    chunk_frames: int = 33
    chunks: int = 8

    @property
    def cells(self) -> int:
        """Latent cells of a view."""
        return self.height // self.stride * (self.width // self.stride)

    @property
    def new_views(self) -> int:
        """Latent frames that a chunk adds; one more is shared with the chunk before."""
        return (self.chunk_frames - 1) // 4

    def __str__(self) -> str:
        return (
            f"{self.height} x {self.width} pixels, stride {self.stride}, {self.channels} channels in float16, chunks "
            f"of {self.chunk_frames} frames, {self.chunks} chunks = {4 * self.new_views * self.chunks + 1} frames"
        )


@dataclass(frozen=True, kw_only=True)
class Video:
    """The latent frames of a walk in the hall. Latents are noise: no time and no size depends on them."""

    cameras: Cameras
    depth: Float32[Tensor, "t H W"]
    latents: Float16[Tensor, "t c h w"]
    scale: Scale

    @classmethod
    def make(cls, scale: Scale, *, path: str = "explores") -> "Video":
        """Walk and look, on one of `PATHS`; depth is exact at every pixel.

        Exploring, it walks down the hall and looks left and right; returning, it turns back in the middle; staying, it
        paces about one place and looks down the hall, so that nearly all it has ever seen is in view.
        """
        frames = 4 * scale.new_views * scale.chunks + 1
        if path == "stays":
            step = torch.arange(frames, dtype=torch.float64)
            place = torch.stack([0.4 * (step / 37).sin(), torch.zeros_like(step), 0.6 * (step / 61).sin()], -1)
            cameras = placed(scale.height, scale.width, place, 4 * (step / 23).sin())
        else:
            cameras = walk(frames, scale.height, scale.width, returns=path == "returns")
        cameras = cameras[range(0, frames, 4)]
        world = hall(float(cameras.centers[:, 2].max()))
        random = torch.Generator().manual_seed(0)
        shape = (len(cameras), scale.channels, scale.height // scale.stride, scale.width // scale.stride)
        latents = torch.randn(shape, generator=random).half()
        return cls(cameras=cameras, depth=world.depth(cameras, scale.height, scale.width), latents=latents, scale=scale)

    def first(self, chunks: int) -> "Video":
        """Only the first chunks."""
        some = slice(0, chunks * self.scale.new_views + 1)
        cut = {name: getattr(self, name)[some] for name in ("cameras", "depth", "latents")}
        return Video(**cut, scale=replace(self.scale, chunks=chunks))

    def views(self, chunk: int, *, shared: bool = False) -> slice:
        """Latent frames of a chunk that are new, or all of them with the one that it shares."""
        start = chunk * self.scale.new_views
        return slice(start + (not shared), start + self.scale.new_views + 1)

    def given(self, which: slice) -> tuple[Tensor, Tensor, Cameras]:
        """Latents, depth and cameras of some latent frames, as `update` takes them."""
        return self.latents[which], self.depth[which], self.cameras[which]

    def remembered(self, **options: object) -> Iterator[LatentMemory]:
        """A memory after the first view and after each chunk; it is one and the same object that grows."""
        memory = LatentMemory.from_view(*self.given(slice(0, 1)), **options)
        yield memory
        for chunk in range(self.scale.chunks):
            memory.update(*self.given(self.views(chunk)))
            yield memory
