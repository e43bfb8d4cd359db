"""Which model made a world: the same weights, under whatever name, may continue it."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import torch

from mirage.pipeline import EMBEDDED, MiragePipeline
from mirage.world.manifest import Manifest, ModelMark


def model_mark(pipeline: MiragePipeline, channels: int) -> ModelMark:
    """How a model is recognised, whatever folder it was loaded from and whatever device it is on.

    Args:
        pipeline: The model.
        channels: Of its latents.

    Returns:
        The mark.
    """
    total = hashlib.sha256()
    for part in ("transformer", "vae", "depth_head", "mover"):
        for name, weight in getattr(pipeline, part).state_dict().items() if getattr(pipeline, part) else ():
            sample = weight.detach().flatten()[:8].to("cpu", torch.bfloat16).float().tolist()
            total.update(f"{part}.{name} {tuple(weight.shape)} {sample}\n".encode())
    source = str(pipeline.config.get("_name_or_path") or "unnamed")
    embedded = {str(folder): name for name, folder in EMBEDDED.items()}
    return ModelMark(
        name=embedded.get(source, Path(source).name if Path(source).is_dir() else source),
        weights=total.hexdigest(),
        stride=pipeline.codec.stride,
        temporal_stride=pipeline.codec.temporal_stride,
        channels=channels,
        chunk_frames=pipeline.config.chunk_frames,
        preceding_frames=pipeline.config.preceding_frames,
    )


def refuse_other_model(folder: Path, manifest: Manifest, pipeline: MiragePipeline) -> None:
    """Refuse a model that did not make a world.

    Args:
        folder: Of the world.
        manifest: Of the world.
        pipeline: The model.

    Raises:
        ValueError: If shapes or weights differ.
    """
    mine, given = manifest.model, model_mark(pipeline, manifest.model.channels)
    for key, theirs in asdict(given).items():
        if key not in ("name", "weights") and theirs != (own := getattr(mine, key)):
            raise ValueError(
                f"world {folder} was made by model {mine.name} with {key} {own}, but model {given.name} has {theirs}: "
                f"load {mine.name}"
            )
    if mine.weights != given.weights:
        raise ValueError(
            f"world {folder} was made by model {mine.name} with weights {mine.weights[:8]}, but model {given.name} has "
            f"weights {given.weights[:8]}: load the same weights"
        )
