"""A chunk that a model in training imagines, beside the truth and what the memory knew: a picture and a video."""

from pathlib import Path

import torch
from torch import nn

from mirage.denoise.sampler import sample
from mirage.pipeline import MiragePipeline
from mirage.training.loss import Batch
from mirage.video.io import tensor_to_images, write_image, write_video
from mirage.video.picture import contact_sheet, shade_unseen, side_by_side

TITLES = ("true", "known", "imagined")


@torch.no_grad()
def show(model: nn.Module, pipeline: MiragePipeline, batch: Batch, path: Path | None, *, seed: int) -> None:
    """Imagine one chunk as the loop does and write it.

    Args:
        model: The denoiser as it is wrapped for training, in evaluation mode.
        pipeline: Its scheduler and autoencoder.
        batch: One sample; its noise is not used.
        path: Where to write, without ending: .jpg of the latent frames, .mp4 of all; None only computes, for processes
            that must take part.
        seed: Of the noise.
    """
    noise = torch.Generator().manual_seed(seed)
    steps = pipeline.config["num_inference_steps"]
    plan = pipeline.scheduler
    imagined = model(lambda net: sample(net, plan, batch.conditions, steps=steps, generator=noise))
    if path is None:
        return
    codec, stride = pipeline.codec, pipeline.codec.temporal_stride
    decode = lambda latents: tensor_to_images(codec.decode(latents.float())[0].clamp(-1, 1))
    reads = codec.decode(batch.conditions.features[0][:, None].float())[:, 0].clamp(-1, 1)
    visible = batch.conditions.visible[0].cpu().numpy()
    known = [shade_unseen(picture, seen) for picture, seen in zip(tensor_to_images(reads), visible, strict=True)]
    true, made = decode(batch.target), decode(imagined)
    frames = [*true[::stride], *known, *made[::stride]]
    labels = [f"{title}, latent frame {i}" for title in TITLES for i in range(len(known))]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path.with_suffix(".jpg"), contact_sheet(frames, labels, columns=len(known), title=path.name))
    write_video(path.with_suffix(".mp4"), side_by_side({"true": true, "imagined": made}))
