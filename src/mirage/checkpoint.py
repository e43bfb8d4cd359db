"""Released weights into our classes: official names become ours, every mismatch is named, only safetensors are read."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mirage.denoise import MirageTransformer

PREFIX = re.compile(r"^(module\.|model\.|pipe\.dit\.|pipe\.vace\.|vace\.(?!\d)|diffusion_model\.)+")
OFFICIAL_TO_OURS = [
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.(attn[12])\.([qkv])\.", r".\1.to_\2."),
    (r"\.(attn[12])\.o\.", r".\1.to_out.0."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
    (r"\.norm3\.", ".norm2."),
    (r"\.before_proj\.", ".proj_in."),
    (r"\.after_proj\.", ".proj_out."),
]


def our_name(official: str) -> str:
    """Translate one official name of a weight (Wan, VACE, LoRA) to the name it has in `MirageTransformer`.

    Args:
        official: Key of a released file, with or without the prefixes of the trainers.

    Returns:
        Our key; a name without translation comes back as it is.

    Example:
        >>> our_name("pipe.dit.blocks.3.self_attn.q.lora_A.weight")
        'blocks.3.attn1.to_q.lora_A.weight'
    """
    name = PREFIX.sub("", official)
    for pattern, replacement in OFFICIAL_TO_OURS:
        name = re.sub(pattern, replacement, name)
    return name


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file, or all of a folder (a sharded model).

    Args:
        path: File or folder.

    Returns:
        Tensors by the names in the file, on the CPU.

    Raises:
        ValueError: If there is no such file, it is of another kind (pickles can run code and are never opened),
            it is damaged, or two files of a folder hold the same name.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"path must be a .safetensors file or a folder of such files, but {path} holds none")
    weights: dict[str, Tensor] = {}
    for file in files:
        if file.suffix != ".safetensors":
            raise ValueError(
                f"path must be a .safetensors file, got {file.name}: other kinds (.pth, .pt, .ckpt, .bin) can run code "
                "when opened; convert the file with safetensors.torch.save_file in a place you trust"
            )
        try:
            loaded = load_file(file)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"path must be an intact .safetensors file, but {file} cannot be read: {error}") from error
        if twice := sorted(weights.keys() & loaded.keys()):
            raise ValueError(f"path must hold each weight once, but {file} repeats {_some(twice)}")
        weights |= loaded
    return weights


def load_official(transformer: MirageTransformer, *paths: str | Path) -> None:
    """Load released weights (the backbone, and the memory branch if the model has one) into a model, strictly.

    Args:
        transformer: The model of the right size; changed only if everything fits.
        paths: Files or folders in official or in our names, whose union is the whole model.

    Raises:
        ValueError: If anything is missing, left over or of another shape: all of it is named.
    """
    weights = _translated(paths)
    own = transformer.state_dict()
    report = _report(own.keys() - weights.keys(), weights.keys() - own.keys(), _misfits(weights, own))
    if report:
        raise ValueError(f"paths must hold exactly the weights of the model, but in {_names(paths)}:\n{report}")
    transformer.load_state_dict(weights)


def load_lora(transformer: MirageTransformer, path: str | Path, *, name: str = "camera") -> int:
    """Add a released low-rank adapter to a model, as an adapter of peft that can be scaled, disabled or merged.

    Args:
        transformer: The model; `set_adapters`, `disable_adapters` and `fuse_lora` of diffusers then apply.
        path: File or folder with pairs `....lora_A.weight`, `....lora_B.weight`; their scale is 1.
        name: What the adapter is called.

    Returns:
        The number of layers that were adapted.

    Raises:
        ValueError: If there is no pair, or one is incomplete, does not fit, or belongs to a layer that the model lacks.
        ImportError: If peft is not installed.
    """
    weights = _translated([path])
    own = transformer.state_dict()
    layers = {key.split(".lora_")[0] for key in weights if ".lora_" in key}
    wanted = {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    absent = {f"{layer}.weight" for layer in layers if f"{layer}.weight" not in own}
    whole = wanted <= weights.keys() and not absent
    misfits = [_pair_misfit(layer, weights, own) for layer in sorted(layers)] if whole else []
    report = _report(wanted - weights.keys(), (weights.keys() - wanted) | absent, [text for text in misfits if text])
    if report or not layers:
        raise ValueError(
            f"path must hold low-rank pairs for layers of the model, but in {path}:\n{report or 'no pair'}"
        )
    transformer.load_lora_adapter(weights, prefix=None, adapter_name=name)
    return len(layers)


def _translated(paths: tuple[str | Path, ...] | list[str | Path]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for path in paths:
        for key, value in read_weights(path).items():
            if our_name(key) in weights:
                raise ValueError(f"paths must hold each weight once, but {path} repeats {key} ({our_name(key)})")
            weights[our_name(key)] = value
    return weights


def _misfits(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key}: the model has {tuple(own[key].shape)}, the file {tuple(weights[key].shape)}"
        for key in sorted(weights.keys() & own.keys())
        if weights[key].shape != own[key].shape
    ]


def _pair_misfit(layer: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    up, down = (tuple(weights[f"{layer}.lora_{side}.weight"].shape) for side in "BA")
    target = tuple(own[f"{layer}.weight"].shape)
    fits = len(up) == len(down) == 2 and up[1] == down[0] and (up[0], down[1]) == target
    return "" if fits else f"{layer}: the model has {target}, the file {up} x {down}"


def _report(missing: set[str], unexpected: set[str], misfits: list[str]) -> str:
    parts = {"missing": sorted(missing), "not in the model": sorted(unexpected), "of another shape": misfits}
    return "\n".join(f"  {len(names)} {what}: {_some(names)}" for what, names in parts.items() if names)


def _some(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def _names(paths: tuple[str | Path, ...]) -> str:
    return ", ".join(str(path) for path in paths)
