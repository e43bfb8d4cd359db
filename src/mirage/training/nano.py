"""`mirage train nano`: the embedded model from nothing, stage by stage, each resumed where it stopped.

clips -> autoencoder -> decoder -> mover -> samples -> denoiser -> depth -> pack. The same on a CPU and on a GPU.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler
from jaxtyping import UInt8
from safetensors.torch import load_file
from torch import nn

from mirage.denoise.transformer import MirageTransformer
from mirage.geometry.nano import LatentDepthHead
from mirage.memory import LatentMover
from mirage.pipeline import MiragePipeline
from mirage.training.autoencoder import EQUIVARIANCES, autoencoder_loss
from mirage.training.clips import PER_SHARD, Crops, read_shard, to_floats, write_shards
from mirage.training.decoder import train_decoder
from mirage.training.denoiser import SampleShards, chunk_batch, denoiser_loss
from mirage.training.depth import depth_loss
from mirage.training.fit import Schedule, fit, generator, mixed
from mirage.training.motion import MotionRecipe, RenderedClips, train_motion
from mirage.training.mover import MoverRecipe, fit_mover
from mirage.training.mover_data import clip_groups
from mirage.training.samples import CHUNK, REFERENCES, write_samples
from mirage.video.io import write_image
from mirage.video.nano import NanoAutoencoder, NanoCodec
from mirage.video.picture import chart

logger = logging.getLogger(__name__)
STAGES = ("clips", "autoencoder", "decoder", "mover", "samples", "denoiser", "depth", "pack")


@dataclass(frozen=True, kw_only=True)
class NanoRecipe:
    """What the shipped weights were made with, unless the model card says otherwise.

    Attributes:
        shards: Shards of eight clips of exact worlds.
        autoencoder_steps: Steps of stage 1, 40 frames and 20 pictures of 64 x 64 each.
        decoder_steps: Steps of the motion between latents, then of the decoder with it; 0 leaves both as they are.
        fine_shards: Shards of eight clips of 192 x 192 that they learn from beside the others.
        mover_steps: Steps of the mover of reads, two places each; 0 does without one.
        motion_steps: Steps of its reads of groups of frames, two chunks each; 0 does without them.
        denoiser_steps: Steps of stage 2, eight chunks each.
        depth_steps: Steps of stage 3, forty frames each.
        heads: Attention heads of 40 channels of the transformer.
        layers: Its blocks; every other one has a twin in the memory branch.
        batch: Shards per step; one on a CPU, more for a device that is quick with large batches.
        workers: Processes that make the samples.
        equivariance: How the autoencoder's latents are moved in training: "none", "affine" or "homography".
        moved_weight: Weight of that in the autoencoder's loss.
        seed: Of weights and batches; worlds are numbered from 0.
        stop_after: Seconds after which a stage saves and the command returns, to be resumed.
    """

    shards: int = 156
    autoencoder_steps: int = 4000
    decoder_steps: int = 0
    fine_shards: int = 19
    mover_steps: int = 0
    motion_steps: int = 0
    denoiser_steps: int = 4600
    depth_steps: int = 7000
    heads: int = 4
    layers: int = 6
    batch: int = 1
    workers: int = 1
    equivariance: str = "affine"
    moved_weight: float = 1.5
    seed: int = 0
    stop_after: float | None = None

    def __post_init__(self) -> None:
        if self.motion_steps and not self.mover_steps:
            raise ValueError(f"motion_steps needs a mover: give mover_steps too, got {self.motion_steps} and 0")
        if self.equivariance not in EQUIVARIANCES:
            raise ValueError(f"equivariance must be one of {', '.join(EQUIVARIANCES)}, got {self.equivariance!r}")


def train_nano(
    folder: Path, recipe: NanoRecipe, *, stages: tuple[str, ...] = STAGES, device: torch.device | str = "cpu"
) -> bool:
    """Run stages of the recipe in `folder`, each from where it stopped.

    Args:
        folder: Where clips, samples, checkpoints, curves and the packed model go.
        recipe: How much of everything.
        stages: Which of `STAGES` to run.
        device: Where to compute.

    Returns:
        True if every stage asked for is complete.

    Raises:
        ValueError: If a stage is unknown, or what it needs is not there yet.
    """
    unknown = set(stages) - set(STAGES)
    if unknown:
        raise ValueError(f"stages must be of {', '.join(STAGES)}, got {', '.join(sorted(unknown))}")
    run = {
        "clips": lambda: write_shards(folder / "clips", recipe.shards, device=str(device)),
        "autoencoder": lambda: _autoencoder(folder, recipe, device),
        "decoder": lambda: _decoder(folder, recipe, device),
        "mover": lambda: _mover(folder, recipe, device),
        "samples": lambda: _samples(folder, recipe),
        "denoiser": lambda: _denoiser(folder, recipe, device),
        "depth": lambda: _depth(folder, recipe, device),
        "pack": lambda: pack(folder, recipe),
    }
    return all(run[stage]() is not False for stage in STAGES if stage in stages)


def _samples(folder: Path, recipe: NanoRecipe) -> None:
    """On the CPU, in processes of one thread: the reads of a clip are many small steps, one after the other."""
    codec = trained_codec(folder)
    if recipe.workers == 1:
        return write_samples(codec, folder / "clips", folder / "samples", mover=_trained_mover(folder))
    work = (codec, folder, recipe.workers)
    torch.multiprocessing.spawn(_write_part, args=work, nprocs=recipe.workers)
    return None


def _write_part(part: int, codec: NanoCodec, folder: Path, parts: int) -> None:
    torch.set_num_threads(1)
    mover = _trained_mover(folder)
    write_samples(codec, folder / "clips", folder / "samples", mover=mover, part=part, parts=parts)


def _autoencoder(folder: Path, recipe: NanoRecipe, device: torch.device | str) -> bool:
    torch.manual_seed(recipe.seed)
    model = NanoAutoencoder().to(device, memory_format=torch.channels_last)
    crops = Crops(folder / "clips", recipe.seed, device=str(device))

    def loss(model: nn.Module, step: int) -> tuple:
        with mixed(device):
            batch, kind = crops.batch(step, recipe.batch), recipe.equivariance
            return autoencoder_loss(model, batch, step, equivariance=kind, moved_weight=recipe.moved_weight)

    return fit(
        "autoencoder", model, loss, Schedule(steps=recipe.autoencoder_steps, lr=1.5e-3), folder, recipe.stop_after
    )


def _decoder(folder: Path, recipe: NanoRecipe, device: torch.device | str) -> bool:
    """Also from clips as large as the model is shown."""
    if not recipe.decoder_steps:
        return True
    torch.manual_seed(recipe.seed)
    model = NanoAutoencoder(motion=True)
    model.load_state_dict(_weights(folder, "autoencoder"), strict=False)
    seed, fine = recipe.shards * PER_SHARD, folder / "fine"
    write_shards(fine, recipe.fine_shards, first_seed=seed, sizes=((192, 192),), device=str(device))
    shards = [sorted(clips.glob("clips-*.safetensors")) for clips in (folder / "clips", fine)]
    how = {"seed": recipe.seed, "stop_after": recipe.stop_after, "device": device}
    return train_decoder(folder, model, shards, steps=recipe.decoder_steps, **how)


def trained_codec(folder: Path) -> NanoCodec:
    """The trained autoencoder, its latents normalised by statistics over the first clips.

    What the stage `decoder` left, if it was run, shows the same latents.
    """
    weights = _weights(folder, "autoencoder")
    further = (folder / "decoder.safetensors").exists()
    if further:
        weights |= _weights(folder, "decoder")
    model = NanoAutoencoder(motion=further)
    model.load_state_dict(weights)
    latents = []
    with torch.no_grad():
        for path in sorted((folder / "clips").glob("clips-*.safetensors"))[:20]:
            pictures = to_floats(read_shard(path).frames[:, ::16].flatten(0, 1))
            latents.append(model.encode(pictures[:, None])[:, 0].transpose(0, 1).flatten(1))
    flat = torch.cat(latents, 1)
    mean, std = flat.mean(1).tolist(), flat.std(1).tolist()
    model = NanoAutoencoder(motion=further, latents_mean=mean, latents_std=std)
    model.load_state_dict(weights)
    return NanoCodec(model.eval().to(memory_format=torch.channels_last))


def _mover(folder: Path, recipe: NanoRecipe, device: torch.device | str) -> bool:
    """Learned on the clips too: each gives one place."""
    if not recipe.mover_steps:
        return True
    codec, out, common = trained_codec(folder), folder / "mover", {"seed": recipe.seed, "stop_after": recipe.stop_after}
    files = clip_groups(out / "groups", codec, folder / "clips")
    whole = fit_mover(out, files, MoverRecipe(steps=recipe.mover_steps, batch=2, **common), device=device)
    if not (whole and recipe.motion_steps):
        return whole
    clips, how = RenderedClips(codec, folder / "clips"), MotionRecipe(steps=recipe.motion_steps, **common)
    return train_motion(out, codec, LatentMover.from_pretrained(out / "mover"), clips, how, device=device)


def _trained_mover(folder: Path) -> LatentMover | None:
    """What the stage left, if it was run."""
    made = folder / "mover" / "mover"
    return LatentMover.from_pretrained(made) if made.is_dir() else None


def _weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise ValueError(f"{path} is not there yet: run the stage {name!r} first")
    return load_file(path)


def _transformer(recipe: NanoRecipe) -> MirageTransformer:
    torch.manual_seed(recipe.seed)
    return MirageTransformer(
        num_attention_heads=recipe.heads,
        attention_head_dim=40,
        in_channels=16,
        freq_dim=128,
        ffn_dim=160 * recipe.heads,
        num_layers=recipe.layers,
        text_dim=0,
        vace_layers=list(range(0, recipe.layers, 2)),
        vace_in_channels=17,
        prediction="residual",
    )


def _denoiser(folder: Path, recipe: NanoRecipe, device: torch.device | str) -> bool:
    shards = SampleShards(folder / "samples", recipe.seed, device=device)

    def loss(model: nn.Module, step: int) -> tuple:
        samples, g = shards.draw(step, recipe.batch)
        target, conditions = chunk_batch(samples, g, generator(recipe.seed + 2, step))
        with mixed(device):
            return denoiser_loss(model, target, conditions, g)

    schedule = Schedule(steps=recipe.denoiser_steps, lr=1e-3, warmup=200, weight_decay=0.01)
    return fit("denoiser", _transformer(recipe).to(device), loss, schedule, folder, recipe.stop_after)


def _depth(folder: Path, recipe: NanoRecipe, device: torch.device | str) -> bool:
    shards = SampleShards(folder / "samples", recipe.seed, device=device)
    torch.manual_seed(recipe.seed)

    def loss(model: nn.Module, step: int) -> tuple:
        samples, g = shards.draw(step, recipe.batch)
        with mixed(device):
            return depth_loss(model, samples, g, generator(recipe.seed + 2, step))

    schedule = Schedule(steps=recipe.depth_steps, lr=1e-3)
    return fit("depth", LatentDepthHead().to(device), loss, schedule, folder, recipe.stop_after)


def pack(folder: Path, recipe: NanoRecipe) -> None:
    """Write the pipeline to `folder`/nano, in half precision.

    Args:
        folder: Where the stages left their weights.
        recipe: The recipe that they were made with.

    Raises:
        ValueError: If a stage has left nothing yet.
    """
    transformer, head = _transformer(recipe), LatentDepthHead()
    transformer.load_state_dict(_weights(folder, "denoiser"))
    head.load_state_dict(_weights(folder, "depth"))
    mover = _trained_mover(folder)
    pipeline = MiragePipeline(
        transformer.half(),
        trained_codec(folder).autoencoder.half(),
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        head.half(),
        chunk_frames=4 * (CHUNK - 1) + 1,
        reference_frames=REFERENCES,
        num_inference_steps=1,
        mover=mover and mover.half(),
        size=(192, 192),  # trained at 128 x 128; a finer grid of cells shows more
    )
    pipeline.save_pretrained(folder / "nano")
    write_image(folder / "curves.png", _curves(folder))


def _curves(folder: Path) -> UInt8[np.ndarray, "h w 3"]:
    """What each stage reached, over its steps, one chart below the other."""
    shown = {
        "autoencoder": ("decibels on windows of training clips", ("video_db", "image_db", "moved_db")),
        "decoder": ("decibels on windows of training clips", ("video_db", "between_db", "image_db", "moved_db")),
        "denoiser": ("squared error of latents", ("seen", "unseen", "memory")),
        "depth": ("error of log depth", ("with_prior", "in_holes", "alone")),
    }
    charts = []
    for name, (title, keys) in shown.items():
        if not (folder / f"{name}.curve.jsonl").exists():  # a stage that may be left out
            continue
        lines = [json.loads(line) for line in (folder / f"{name}.curve.jsonl").read_text().splitlines()]
        last = lines[-1]
        title = f"{name}: {title}, {last['step']} steps"
        charts.append(
            chart(
                {k: [line[k] for line in lines] for k in keys if k in last},
                title=title,
                across=f"1/{len(lines)} of the run",
            )
        )
    return np.concatenate(charts)
