"""What is compared: kinds of memory, and the two controls that no table goes without."""

import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from mirage.evaluation.worlds import Walk
from mirage.memory import LatentMemory
from mirage.pipeline import MiragePipeline
from mirage.rollout import ChunkResult
from mirage.video.codec import LatentCodec
from mirage.video.io import tensor_to_images

MEMORIES = {  # row -> what `MiragePipeline` takes as memory
    "latent": "latent",
    "latent-nearest": functools.partial(LatentMemory.from_view, read="nearest-corner"),
    "colour": "colour",
    "none": "none",
}
CONTROLS = ("memory-only", "autoencoder")
TITLES = {
    "truth": "the truth",
    "latent": "latent, gather (ours)",
    "latent-nearest": "latent, nearest, corner",
    "colour": "colour",
    "none": "none",
    "memory-only": "*control:* memory only",
    "autoencoder": "*control:* autoencoder",
    "first-frame": "*control:* the input, standing still",
}
PART = 65  # frames that a control encodes or decodes at a time


@runtime_checkable
class Given(Protocol):
    """Settings of a roll-out."""

    depth: str
    """Depth of the input picture: `known`, or what the model estimates."""
    steps: int | None
    """Calls of the denoiser per chunk."""


@torch.no_grad()
def roll_out(
    pipeline: MiragePipeline,
    walk: Walk,
    row: str,
    config: Given,
    *,
    on_chunk: Callable[[ChunkResult], None] | None = None,
) -> tuple[UInt8[np.ndarray, "f h w 3"], list[int]]:
    """The video of one row, and the sizes of its memory.

    Args:
        pipeline: The model.
        walk: Where to go.
        row: A kind of memory, or a control; "first-frame" is the input all the time.
        config: Steps and depth.
        on_chunk: Called with each chunk that a memory made.

    Returns:
        The frames, and the bytes after the first view and after each chunk. The autoencoder shows as many frames as are
        true.
    """
    depth = walk.depth[0] if config.depth == "known" and walk.depth is not None else None
    if row in MEMORIES:
        output = pipeline(
            walk.colour[0],
            walk.cameras,
            memory=MEMORIES[row],
            depth=depth,
            num_inference_steps=config.steps,
            generator=torch.Generator().manual_seed(walk.seed),  # the same noise for every row
            callback_on_chunk_end=on_chunk,
        )
        return output.frames, output.memory_bytes
    codec = pipeline.codec
    if row == "first-frame":
        return np.repeat(walk.frames[:1], len(walk.cameras), 0), [0]
    if row == "autoencoder":
        return through(codec, walk.colour), [0]
    memory = pipeline.begin(walk.colour[0], walk.cameras[0], memory="latent", depth=depth).memory
    video = []
    for part in _parts(len(walk.cameras)):
        known = memory.read_video(walk.cameras[part], codec.temporal_stride)
        video.append(tensor_to_images(codec.decode(known.features[None])[0])[min(1, part.start) :])
    return np.concatenate(video), [memory.nbytes]


def through(codec: LatentCodec, colour: Float32[Tensor, "f 3 h w"]) -> UInt8[np.ndarray, "f h w 3"]:
    """A video encoded and decoded: as well as the model can show it.

    Args:
        codec: The autoencoder.
        colour: The video, in [-1, 1].

    Returns:
        As many frames, 0 to 255.
    """
    parts = _parts(len(colour))
    shown = [tensor_to_images(codec.decode(codec.encode(colour[None, p]))[0])[min(1, p.start) :] for p in parts]
    return np.concatenate(shown)


def _parts(frames: int) -> list[slice]:
    """Parts that share one frame, so that long videos need no more room than short ones."""
    return [slice(s, min(s + PART, frames)) for s in range(0, max(frames - 1, 1), PART - 1)]
