"""What denoiser and depth head learn from: clips as latents, with the memory's reads as inference makes them."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from safetensors import safe_open
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.nano import FAR
from mirage.memory import LatentMemory, LatentMover, recall
from mirage.training.clips import Clips, read_shard, to_floats
from mirage.training.fit import generator, save_atomic
from mirage.video.nano import NanoCodec

logger = logging.getLogger(__name__)
CHUNK = 5  # latent frames of a chunk, the shared one included
REFERENCES = 2


@dataclass(frozen=True)
class Samples:
    """Clips of t latent frames, cut into k chunks as the loop cuts them.

    Memory reads are those of the loop: lifted from the latents of all earlier pictures, the first with its depth as
    given, the others with depth as imperfect as an estimate.
    """

    video: Float[Tensor, "b t c h w"]
    """Video latents of the clip: what the denoiser makes."""
    image: Float[Tensor, "b t c h w"]
    """Image latents of the same frames: what the memory holds."""
    features: Float[Tensor, "b k n c h w"]
    """What the memory reads at the n latent frames of each chunk."""
    visible: Bool[Tensor, "b k n h w"]
    observed: Bool[Tensor, "b k n h w"]
    prior: Float[Tensor, "b k n h w"]
    """Depth that the memory projects, 0 where it has none."""
    log_depth: Float[Tensor, "b t y x"]
    """True depth, two by two per cell, natural logarithm; NaN where movers are."""
    recalled: Int64[Tensor, "b k r"]
    """Past latent frames that saw the chunk's place, -1 for none."""
    intrinsics: Float32[Tensor, "b t 3 3"]


@torch.no_grad()
def make_samples(codec: NanoCodec, clips: Clips, seed: int, mover: LatentMover | None = None) -> Samples:
    """Encode clips and read the memory for each of their chunks.

    Args:
        codec: The trained autoencoder.
        clips: Rendered clips of 1 + 16 k frames.
        seed: Fixes the errors of the depth that the memory is given.
        mover: Mends the reads; as in inference, so in training.

    Returns:
        The samples, on the device of the clips, latents and depth in half precision.
    """
    g = generator(seed, device=clips.frames.device)
    frames = to_floats(clips.frames)
    video = torch.cat([codec.encode(clip[None]) for clip in frames])
    image = torch.stack([codec.encode(clip[::4, None])[:, 0] for clip in frames])
    depth = clips.depth[:, ::4].float()
    depth = torch.where(depth > 0, depth.clamp(max=FAR), FAR)
    still = ~clips.movers[:, ::4]
    h, w = image.shape[-2:]
    parts = []
    for b in range(len(frames)):
        cameras = Cameras(clips.intrinsics[b], clips.cam_from_world[b], *clips.frames.shape[-2:])
        parts.append(_chunks(image[b], depth[b], still[b], cameras, g, mover))
    return Samples(
        video=video.half(),
        image=image.half(),
        **{name: torch.stack([p[name] for p in parts]) for name in parts[0]},
        log_depth=coarse_log_depth(depth, still, 2 * h, 2 * w).half(),
        intrinsics=clips.intrinsics[:, ::4],
    )


def _chunks(
    image: Float[Tensor, "t c h w"],
    depth: Float32[Tensor, "t H W"],
    still: Bool[Tensor, "t H W"],
    cameras: Cameras,
    g: torch.Generator,
    mover: LatentMover | None,
) -> dict[str, Tensor]:
    """The loop's reads along one clip; cameras are those of all frames."""
    every, cameras = cameras, cameras[::4]
    given = depth[:1] if torch.rand((), generator=g, device=g.device) < 0.7 else depth[:1] * _wobble(depth[:1], 0.08, g)
    memory = LatentMemory.from_view(image[:1], given, cameras[0], keep=still[:1], mover=mover)
    guessed = depth * _wobble(depth, 0.04, g)
    out: dict[str, list[Tensor]] = {k: [] for k in ("features", "visible", "observed", "prior", "recalled")}
    for start in range(0, len(image) - 1, CHUNK - 1):
        targets = cameras[start : start + CHUNK]
        known = memory.read_video(every[4 * start : 4 * (start + CHUNK - 1) + 1], 4)
        chosen = torch.full((REFERENCES,), -1)
        if start:
            points = targets.unproject(known.depth)[known.visible]
            found = recall(points, cameras[: start + 1], guessed[: start + 1], k=REFERENCES)[0]
            chosen[: len(found)] = found.cpu()
        fields = {"features": known.features.half(), "visible": known.visible, "observed": known.observed}
        for name, value in {**fields, "prior": known.depth.half(), "recalled": chosen}.items():
            out[name].append(value)
        later = slice(start + 1, start + CHUNK)
        memory.update(image[later], guessed[later], cameras[later], keep=still[later])
    return {name: torch.stack(values) for name, values in out.items()}


def _wobble(depth: Float32[Tensor, "t H W"], size: float, g: torch.Generator) -> Float32[Tensor, "t H W"]:
    """Smooth factors about one: how an estimator errs over an image."""
    noise = torch.randn(len(depth), 1, 5, 5, generator=g, device=depth.device) * size
    return F.interpolate(noise, depth.shape[1:], mode="bicubic", align_corners=False)[:, 0].exp()


def coarse_log_depth(
    depth: Float32[Tensor, "b t H W"], still: Bool[Tensor, "b t H W"], height: int, width: int
) -> Float32[Tensor, "b t {height} {width}"]:
    """Median depth of each block of pixels, as a logarithm; NaN where half of the block moves.

    Args:
        depth: z-depth in world units, everywhere known.
        still: False on movers.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        Natural logarithm of depth in world units.

    Example:
        >>> depth = torch.tensor([[[[1.0, 1.0, 4.0], [1.0, 8.0, 8.0]]]])
        >>> coarse_log_depth(depth, torch.ones(1, 1, 2, 3, dtype=torch.bool), 1, 1).exp().item()
        1.0
    """
    rows, cols = depth.shape[2] // height, depth.shape[3] // width
    blocks = lambda x: x.unflatten(3, (width, cols)).unflatten(2, (height, rows)).transpose(3, 4).flatten(4)
    log = blocks(depth).clamp(min=1e-3).log().median(-1)[0]
    return log.masked_fill(blocks(still).float().mean(-1) < 0.5, torch.nan)


def write_samples(
    codec: NanoCodec, clips: Path, folder: Path, *, mover: LatentMover | None = None, part: int = 0, parts: int = 1
) -> None:
    """Turn every shard of clips into a shard of samples; what is there already stays.

    Args:
        codec: The trained autoencoder.
        clips: Folder of `clips-*.safetensors`.
        folder: Where `samples-*.safetensors` go; made if missing.
        mover: Mends the reads of the memory.
        part: This worker's share of the shards.
        parts: How many workers share them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(clips.glob("clips-*.safetensors"))[part::parts]:
        target = folder / path.name.replace("clips", "samples")
        if not target.exists():
            number = int(path.stem.split("-")[1])
            samples = make_samples(codec, read_shard(path), number, mover)
            save_atomic({k: v.contiguous() for k, v in vars(samples).items()}, target)
            logger.info("encoded %s", target.name)


def read_samples(path: Path) -> Samples:
    """One shard, whole."""
    with safe_open(path, "pt") as file:
        return Samples(**{name: file.get_tensor(name) for name in Samples.__dataclass_fields__})
