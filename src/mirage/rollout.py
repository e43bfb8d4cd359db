"""What a rollout is made of: its state between two chunks, what each chunk made, the video, and the time it took."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.chunks import Chunk
from mirage.memory import Memory, MemoryRead, UpdateReport


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """What one turn of the loop made."""

    chunk: Chunk
    """Which frames these are."""
    frames: Float[Tensor, "f 3 h w"]
    """The new frames, in [-1, 1]."""
    known: MemoryRead
    """What the memory knew of the chunk's latent frames before it was imagined."""
    latents: Float[Tensor, "t c y x"]
    """Its latent frames as they were imagined, the first of them given."""
    clean: Float[Tensor, "v c y x"]
    """Latents of the frames that were remembered: each encoded by itself, as an image."""
    depth: Float32[Tensor, "v i j"]
    """Depth of the frames that were remembered."""
    cameras: Cameras
    """Cameras of all frames after the shared one; every `temporal_stride`-th frame was remembered."""
    update: UpdateReport
    """What the memory took of them."""


@dataclass(frozen=True, kw_only=True)
class RolloutState:
    """All that the next chunk depends on. A value: `advance` gives a new one, and the old one can be used again."""

    memory: Memory
    """What is known; never changed once it is here."""
    frames: int
    """Frames so far, the first view included."""
    clean: Float[Tensor, "s c y x"]
    """Latents of the first view and of all frames that were remembered, each encoded as an image."""
    generated: Float[Tensor, "p c y x"]
    """The last latent frames as they were imagined."""
    depth: Float32[Tensor, "s i j"]
    """Depth of the remembered frames."""
    cameras: Cameras
    """Cameras of the remembered frames; the last is that of the last frame."""


@dataclass
class MirageOutput(BaseOutput):
    """A video and what there is to know about it.

    Args:
        frames: uint8 images, or a tensor "f 3 h w" in [-1, 1] for `output_type="pt"`.
        memory: What is remembered at the end.
        coverage: Share of each latent frame that the memory knew before the frame was imagined.
        memory_bytes: Size of the memory after the first view and after each chunk.
        seconds: Wall-clock time by phase.
        updates: What each chunk added to the memory.
    """

    frames: UInt8[np.ndarray, "f h w 3"] | Float[Tensor, "f 3 h w"]
    memory: Memory
    coverage: list[float]
    memory_bytes: list[int]
    seconds: dict[str, float]
    updates: list[UpdateReport]


class Clock:
    """Adds wall-clock time to the phases of a dictionary; waits for the device so that the time is the phase's own."""

    def __init__(self, seconds: dict[str, float], device: torch.device):
        self.seconds, self.device = seconds, device

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
