"""Training of `GroupMotion`: prepared clips are walked as the loop walks them, and what is read is held to the video.

What counts is what the decoder shows of it, so the loss looks at decoded frames: those of the clip's own video latents,
wherever the memory knows what they show. The rest of the latents are the clip's own, as a denoiser would imagine them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors import safe_open
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.dataset.shards import LatentClip, Shards
from mirage.geometry.nano import FAR
from mirage.memory import GroupMotion, LatentMemory, LatentMover
from mirage.training.clips import Clips, to_floats
from mirage.training.fit import Schedule, fit, generator, mixed
from mirage.training.reads import all_cameras, wobble
from mirage.video.codec import LatentCodec

logger = logging.getLogger(__name__)
GROUPS = 4  # of a chunk
FLOOR = 1e-3  # squared error of a colour below which nothing is gained by getting better
LEAST = 0.01  # share of pixels that a chunk must know


@dataclass(frozen=True, kw_only=True)
class MotionRecipe:
    """How it is made and trained.

    Attributes:
        width: Of the hidden layers.
        blocks: Residual blocks of two convolutions.
        steps: Optimiser steps.
        batch: Chunks per step.
        lr: Peak learning rate.
        depth_error: How far depth is off that the memory is given after the first view, as a logarithm.
        first_exact: Share of walks whose first view has its true depth; the others' is off twice as far.
        seed: Fixes first weights, samples and errors.
        stop_after: Seconds of training after which to save and stop; None never does.
    """

    width: int = 96
    blocks: int = 2
    steps: int = 1000
    batch: int = 2
    lr: float = 2e-3
    depth_error: float = 0.04
    first_exact: float = 0.7
    seed: int = 0
    stop_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class ChunkReads:
    """What a memory knows of all frames of a chunk of t latent frames, and the truth."""

    reads: Float[Tensor, "f c h w"]
    visible: Bool[Tensor, "f h w"]
    unmoved: Bool[Tensor, "f h w"]
    first: Float[Tensor, "1 c h w"]
    """The picture that the chunk begins with, encoded alone."""
    video: Float[Tensor, "t c h w"]
    counts: Bool[Tensor, "f h w"]
    """Cells that are known in their frame and in the last one of their group, and where nothing moves."""
    plain: Float[Tensor, ""] | None = None
    """The error of the reads at latent frames as they are."""


def train_motion(
    out: Path,
    codec: LatentCodec,
    mover: LatentMover,
    clips: Sequence[LatentClip] | Shards,
    recipe: MotionRecipe | None = None,
    *,
    device: torch.device | str = "cpu",
) -> bool:
    """Train what makes video latents of a mover's reads, and save both in `out/mover`; the same call resumes.

    Args:
        out: Folder of checkpoints, curve and mover.
        codec: The frozen autoencoder.
        mover: Its mover, which stays as it is.
        clips: Prepared clips of at least one group after the first frame.
        recipe: How.
        device: Where to compute.

    Returns:
        Whether all steps are done.

    Raises:
        ValueError: If the autoencoder has a latent for every frame, or clips are too short.
    """
    recipe, frames = recipe or MotionRecipe(), codec.temporal_stride
    if frames < 2:
        raise ValueError(f"codec must have several frames per latent, got temporal_stride {frames}: nothing to train")
    if not len(clips):
        raise ValueError("clips must be at least one, got none")
    torch.manual_seed(recipe.seed)
    motion = GroupMotion(channels=codec.channels, frames=frames, width=recipe.width, blocks=recipe.blocks).to(device)
    mover = mover.to(device).requires_grad_(False)
    known: dict[int, list[ChunkReads]] = {}

    def loss(model: GroupMotion, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        g, losses, gains = generator(recipe.seed, step), [], []
        for _ in range(recipe.batch):
            number = int(torch.randint(len(clips), (), generator=g))
            if number not in known:
                known[number] = walk(clips[number], codec, mover, recipe, generator(recipe.seed + 1, number), device)
            chunk = known[number][int(torch.randint(len(known[number]), (), generator=g))]
            if chunk.counts[1:].float().mean() < LEAST:
                continue
            with mixed(device):
                after = chunk_error(codec, chunk, model(chunk.reads.float(), chunk.visible, chunk.unmoved))
            losses.append((after + FLOOR).log())
            gains.append(10 * ((chunk.plain + FLOOR).log10() - (after.detach() + FLOOR).log10()))
        if not losses:
            return 0 * sum(p.sum() for p in model.parameters()), {}
        return torch.stack(losses).mean(), {"gain": torch.stack(gains).mean()}

    schedule = Schedule(
        steps=recipe.steps, lr=recipe.lr, warmup=min(30, recipe.steps // 10), weight_decay=0.01, ema=0.995,
        save_every=100, log_every=25,
    )  # fmt: skip
    whole = fit("motion", motion, loss, schedule, out, recipe.stop_after)
    mover.motion = motion.requires_grad_(False)
    mover.save_pretrained(out / "mover")
    return whole


class RenderedClips(Sequence[LatentClip]):
    """Clips of exact worlds as prepared clips, encoded when they are asked for.

    Args:
        codec: The autoencoder.
        folder: Of `clips-*.safetensors`.
        shards: How many of them, the last ones; all if None.
    """

    def __init__(self, codec: LatentCodec, folder: Path, shards: int | None = None):
        self.codec, paths = codec, sorted(folder.glob("clips-*.safetensors"))
        self._places = []
        for path in paths if shards is None else paths[-shards:]:
            with safe_open(path, "pt") as file:
                self._places += [(path, i) for i in range(file.get_slice("frames").get_shape()[0])]

    def __len__(self) -> int:
        return len(self._places)

    @torch.no_grad()
    def __getitem__(self, index: int) -> LatentClip:
        path, i = self._places[index]
        with safe_open(path, "pt") as file:
            seen = {name: file.get_slice(name)[i] for name in Clips.__dataclass_fields__}
        frames, n = to_floats(seen["frames"]), self.codec.temporal_stride
        way = Cameras(seen["intrinsics"], seen["cam_from_world"], *frames.shape[2:])
        depth = seen["depth"][::n].float()
        return LatentClip(
            name=f"{path.stem}-{i}",
            caption="",
            video=self.codec.encode(frames[None])[0],
            image=self.codec.encode(frames[::n, None])[:, 0],
            depth=torch.where(depth > 0, depth.clamp(max=FAR), FAR),
            keep=~seen["movers"][::n].bool(),
            cameras=way[::n],
            picture=seen["frames"][::n],
            way=way,
        )


@torch.no_grad()
def walk(
    clip: LatentClip,
    codec: LatentCodec,
    mover: LatentMover,
    recipe: MotionRecipe,
    g: torch.Generator,
    device: torch.device | str = "cpu",
) -> list[ChunkReads]:
    """Read every chunk of a clip at the poses of all its frames, then remember its pictures, as the loop does.

    Args:
        clip: The clip; poses between latent frames are interpolated.
        codec: Its autoencoder.
        mover: Mends the reads.
        recipe: How far depth is off.
        g: Decides by how much.
        device: Where to compute.

    Returns:
        The reads of its whole chunks, the latents in half precision.
    """
    video, image, depth = (x.to(device).float() for x in (clip.video, clip.image, clip.depth))
    cameras, keep, n = clip.cameras.to(device), clip.keep.to(device), codec.temporal_stride
    if len(image) < 2:
        raise ValueError(f"clips must have a group after their first frame, got {len(image)} latent frames")
    exact = bool(torch.rand((), generator=g) < recipe.first_exact)
    given = depth[:1] if exact else depth[:1] * wobble(depth[:1], 2 * recipe.depth_error, g)
    guessed = depth * wobble(depth, recipe.depth_error, g)
    memory = LatentMemory.from_view(image[:1], given, cameras[0], keep=keep[:1], mover=mover)
    still = -F.max_pool2d(-keep[:, None].float(), depth.shape[1] // image.shape[2])[:, 0] > 0
    parts, way = [], all_cameras(clip, n).to(device)
    for start in range(0, len(image) - 1, GROUPS):
        later = slice(start + 1, start + 1 + GROUPS)
        known = memory.read(way[n * start : n * (start + GROUPS) + 1])
        last = lambda x: torch.cat([x[:1], x[1:].repeat_interleave(n, 0)])  # of its group, for every frame
        counts = known.visible & last(known.visible[::n]) & last(still[start : start + 1 + GROUPS])
        chunk = ChunkReads(
            reads=known.features.half(),
            visible=known.visible,
            unmoved=known.unmoved,
            first=image[start : start + 1].half(),
            video=video[start : start + 1 + GROUPS].half(),
            counts=counts,
        )
        with mixed(device):
            parts.append(replace(chunk, plain=chunk_error(codec, chunk, chunk.reads[::n])))
        memory.update(image[later], guessed[later], cameras[later], keep=keep[later])
    return parts


def chunk_error(codec: LatentCodec, chunk: ChunkReads, latents: Float[Tensor, "t c h w"]) -> Float[Tensor, ""]:
    """Squared error per colour of the frames of a chunk, where they are known.

    Args:
        codec: Decodes; gradients pass through it.
        chunk: The reads and the truth.
        latents: What is made of the reads; where nothing was read at the latent frame, the truth takes its place.

    Returns:
        The error, in [-1, 1] squared.
    """
    video, size = chunk.video.float(), codec.stride
    seen = chunk.visible[:: codec.temporal_stride, None]
    pixels = chunk.counts[1:, None].repeat_interleave(size, 2).repeat_interleave(size, 3)
    show = lambda latents: codec.decode(latents[None])[0, 1:].float()
    with torch.no_grad():
        truth = show(video)
    filled = torch.cat([chunk.first.float(), torch.where(seen, latents.float(), video)[1:]])
    return ((show(filled) - truth).square() * pixels).sum() / (3 * pixels.sum()).clamp(min=1)
