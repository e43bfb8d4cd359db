"""A walk there and back from one picture, with and without memory: is the place still there?"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from mirage.inputs import Inputs
from mirage.pipeline import MirageOutput, MiragePipeline
from mirage.preview import Preview, preview
from mirage.report import psnr, returns
from mirage.video.io import tensor_to_images
from mirage.video.picture import contact_sheet, return_panel, side_by_side

HOLD = 1.5  # seconds that the panel stays at the end
WITH, WITHOUT = "with memory", "without memory"


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """Two walks from one picture, and how well the place was kept."""

    walks: dict[str, MirageOutput]
    """The two runs, by title."""
    seconds: dict[str, float]
    """Wall-clock time of each run."""
    kept: dict[str, float]
    """PSNR of the returned frame against the picture, in dB; two controls say what the figures are worth."""
    video: UInt8[np.ndarray, "f h w 3"]
    """The picture and both walks side by side; the return stands still at the end."""
    panel: UInt8[np.ndarray, "_ _ 3"]
    """The picture beside the returned frames."""
    sheet: UInt8[np.ndarray, "_ _ 3"]
    """Five frames of the walk, with memory above, without below."""


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

    Raises:
        ValueError: If the path ends elsewhere.
    """
    if not returns(inputs.path):
        raise ValueError(
            f"path must end where it began, {inputs.path.source!r} does not: put there-and-back: before it"
        )
    walks, seconds = {}, {}
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
    chosen = np.linspace(0, len(inputs.cameras) - 1, 5).round().astype(int)
    sheet = contact_sheet(
        [np.concatenate([walk.frames[i] for walk in walks.values()]) for i in chosen],
        [f"frame {i}" for i in chosen],
        title=f"There and back: {WITH} above, {WITHOUT} below",
        zoom=-(-256 // inputs.image.shape[1]),
    )
    video = _beside(inputs, walks, kept, fps)
    return Demo(walks=walks, seconds=seconds, kept=kept, video=video, panel=panel, sheet=sheet)


def _beside(
    inputs: Inputs, walks: dict[str, MirageOutput], kept: dict[str, float], fps: int
) -> UInt8[np.ndarray, "f h w 3"]:
    """The picture and the walks in it side by side; the return stands still for a while."""
    count = len(inputs.cameras)
    order = [*range(count), *[count - 1] * round(HOLD * fps)]
    coverage = walks[WITH].coverage
    stride = (count - 1) // (len(coverage) - 1)
    captions = [f"frame {i}: the memory knew {coverage[i // stride]:.0%} of it" for i in range(count)]
    end = "back where it began, against the picture: " + ", ".join(f"{kept[t]:.1f} dB {t}" for t in walks)
    columns = {"the picture": np.broadcast_to(inputs.image, (count, *inputs.image.shape))}
    columns |= {title: walk.frames for title, walk in walks.items()}
    return side_by_side(
        {title: frames[order] for title, frames in columns.items()},
        captions=captions + [end] * (len(order) - count),
    )


@torch.no_grad()
def _controls(pipeline: MiragePipeline, inputs: Inputs, known: Preview) -> dict[str, float]:
    """What the figure would be without imagining anything, and the best that the autoencoder allows."""
    picture = torch.from_numpy(inputs.image.astype(np.float32) / 127.5 - 1).movedim(-1, 0).to(pipeline.device)
    again = pipeline.codec.decode(pipeline.codec.encode(picture[None, None]))[0, 0]
    return {
        "memory only, nothing imagined": psnr(known.reads[-1], inputs.image),
        "ceiling of the autoencoder": psnr(tensor_to_images(again), inputs.image),
    }
