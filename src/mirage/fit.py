"""Make a pipeline fit a card: offload, tiles, small weights, attention, compiler. Each is one call of a library."""

import importlib
from typing import Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import apply_group_offloading
from diffusers.models.attention_dispatch import attention_backend

OFFLOADS = ("none", "model", "group")
QUANTIZED = ("none", "fp8", "int8")


def fit(
    pipeline: DiffusionPipeline,
    *,
    device: str | torch.device = "cpu",
    offload: Literal["none", "model", "group"] = "none",
    vae_tiling: bool = False,
    quantize: Literal["none", "fp8", "int8"] = "none",
    attention: str | None = None,
    compiled: bool = False,
) -> DiffusionPipeline:
    """Bring a loaded pipeline to a device in a way that fits. To be called once, before anything is generated.

    Args:
        pipeline: A `MiragePipeline` on the CPU.
        device: Where it computes.
        offload: "none": all parts stay on the device. "model": one part at a time is there
            (`enable_model_cpu_offload`). "group": one block of transformer and text encoder at a time
            (`apply_group_offloading`; with CUDA the next is fetched meanwhile), the autoencoder stays. With either,
            depth models and segmenters are there only while they work.
        vae_tiling: Encode and decode in tiles (`vae.enable_tiling`); seams are blended, so pixels differ a little.
        quantize: How the weights of the denoiser's layers are kept: "fp8" as 8-bit floats that are brought back for
            each use (`enable_layerwise_casting`), "int8" as 8-bit integers by torchao.
        attention: A backend of diffusers (`set_attention_backend`), such as "native", "flash", "sage".
        compiled: Compile the transformer's blocks, once per shape (`compile_repeated_blocks`).

    Returns:
        The same pipeline.

    Raises:
        ValueError: If a choice is unknown or cannot be had here.
    """
    for name, value, known in (("offload", offload, OFFLOADS), ("quantize", quantize, QUANTIZED)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    transformer = pipeline.transformer
    if vae_tiling:
        if not hasattr(pipeline.vae, "enable_tiling"):
            raise ValueError("vae_tiling is for Wan's autoencoder, this model has another: leave it out")
        pipeline.vae.enable_tiling()
    if attention is not None:
        try:
            with attention_backend("native"):  # which afterwards is again what it was: the choice is this model's alone
                transformer.set_attention_backend(attention)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"attention {attention!r} cannot be had here: {' '.join(str(error).split())}") from error
    if quantize == "fp8":
        transformer.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=transformer.patch_embedding.weight.dtype
        )
    elif quantize == "int8":
        _int8(transformer)
    if compiled:
        transformer.compile_repeated_blocks(dynamic=False)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "group":
        _group(pipeline, torch.device(device))
    else:
        pipeline.to(device)
    return pipeline


def _int8(transformer: torch.nn.Module) -> None:
    """8-bit integers for what the blocks multiply by; ends and norms stay as they are."""
    try:
        torchao = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise ValueError(
            "quantize 'int8' needs torchao: pip install torchao, or choose fp8, which needs nothing"
        ) from error
    inner = lambda module, name: isinstance(module, torch.nn.Linear) and "blocks." in name
    torchao.quantize_(transformer, torchao.Int8WeightOnlyConfig(), filter_fn=inner)


def _group(pipeline: DiffusionPipeline, device: torch.device) -> None:
    stream = {"use_stream": True} if device.type == "cuda" else {}
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        if name == "transformer":
            part.enable_group_offload(device, offload_type="block_level", num_blocks_per_group=1, **stream)
        elif name == "text_encoder":
            apply_group_offloading(part, device, offload_type="leaf_level", **stream)
        else:
            part.to(device)
