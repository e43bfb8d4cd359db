"""A walk there and back from one picture, with and without memory: is the place still there?"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from mirage.inputs import Inputs
from mirage.pipeline import ChunkResult, MirageOutput, MiragePipeline
from mirage.preview import Preview, preview
from mirage.report import psnr
from mirage.video.io import tensor_to_images
from mirage.video.picture import return_panel, side_by_side

HOLD = 1.5  # seconds that the panel stays at the end
WITH, WITHOUT = "with memory", "without memory"


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """Two walks from one picture, and how well the place was kept."""

    walks: dict[str, MirageOutput]
    """The two runs, by title."""
    chunks: list[ChunkResult]
    """The turns of the loop with memory."""
    seconds: dict[str, float]
    """Wall-clock time of each run."""
    kept: dict[str, float]
    """PSNR of the returned frame against the picture, in dB; two controls say what the figures are worth."""
    video: UInt8[np.ndarray, "f h w 3"]
    """Both walks side by side, the panel of the return at the end."""
    panel: UInt8[np.ndarray, "y x 3"]
    """The picture beside the returned frames."""


def there_and_back(
    pipeline: MiragePipeline,
    inputs: Inputs,
    *,
    seed: int = 0,
    fps: int = 16,
    steps: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Demo:
    """Walk a path that ends where it began, once with memory and once without.

    Args:
        pipeline: The model.
        inputs: Picture and path.
        seed: Of the noise, the same for both walks.
        fps: Frames per second of the video.
        steps: Calls of the denoiser per chunk; the model's own number if None.
        tell: Called with what begins.

    Returns:
        The walks and what came of them.
    """
    walks, seconds, chunks = {}, {}, []
    for title, memory in ((WITH, "latent"), (WITHOUT, "none")):
        tell(title)
        start = time.perf_counter()
        walks[title] = pipeline(
            inputs.image,
            inputs.cameras,
            memory=memory,
            depth=inputs.depth,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            callback_on_chunk_end=chunks.append if memory == "latent" else None,
        )
        seconds[title] = time.perf_counter() - start
    known = preview(pipeline, inputs.image, inputs.cameras[[0, -1]], depth=inputs.depth)
    kept = {title: psnr(walk.frames[-1], inputs.image) for title, walk in walks.items()}
    kept |= _controls(pipeline, inputs, known)
    panel = return_panel(
        inputs.image,
        {title: walk.frames[-1] for title, walk in walks.items()},
        {title: f"{kept[title]:.1f} dB" for title in walks},
    )
    both = side_by_side({title: walk.frames for title, walk in walks.items()})
    held = np.repeat(_letterbox(panel, *both.shape[1:3])[None], round(HOLD * fps), 0)
    return Demo(walks=walks, chunks=chunks, seconds=seconds, kept=kept, video=np.concatenate([both, held]), panel=panel)


@torch.no_grad()
def _controls(pipeline: MiragePipeline, inputs: Inputs, known: Preview) -> dict[str, float]:
    """What the figure would be without imagining anything, and the best that the autoencoder allows."""
    picture = torch.from_numpy(inputs.image.astype(np.float32) / 127.5 - 1).movedim(-1, 0).to(pipeline.device)
    again = pipeline.codec.decode(pipeline.codec.encode(picture[None, None]))[0, 0]
    return {
        "memory only, nothing imagined": psnr(known.reads[-1], inputs.image),
        "ceiling of the autoencoder": psnr(tensor_to_images(again), inputs.image),
    }


def _letterbox(image: UInt8[np.ndarray, "y x 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """The picture as large as it fits, on the ground colour of the clip."""
    share = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
    page = Image.new("RGB", (width, height), tuple(int(v) for v in image[0, 0]))
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    page.paste(small, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(page)
