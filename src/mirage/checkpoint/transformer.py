"""Released weights into our transformer: every mismatch is named, nothing is loaded half."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mirage.checkpoint.files import read_weights, some
from mirage.checkpoint.names import our_name
from mirage.denoise import MirageTransformer


def load_official(
    transformer: MirageTransformer, *paths: str | Path, dtype: torch.dtype | None = None, adapter: bool = False
) -> None:
    """Load released weights (the backbone, and the memory branch if the model has one) into a model, strictly.

    A model on the meta device takes the tensors of the files as they are, so that nothing is held twice.

    Args:
        transformer: The model of the right size; changed only if everything fits.
        paths: Files or folders in official or in our names, whose union is the whole model.
        dtype: What weights on the meta device become, those apart that are kept in float32; as in the files if None.
        adapter: Whether low-rank pairs may stand beside them, which are left for `load_lora`.

    Raises:
        ValueError: If anything is missing, left over or of another shape: all of it is named.
    """
    weights = {key: value for key, value in translated(paths).items() if not adapter or ".lora_" not in key}
    own = transformer.state_dict()
    report = _report(own.keys() - weights.keys(), weights.keys() - own.keys(), _misfits(weights, own))
    if report:
        raise ValueError(f"paths must hold exactly the weights of the model, but in {_names(paths)}:\n{report}")
    empty = any(value.is_meta for value in own.values())
    if empty and dtype is not None:
        precise = transformer._keep_in_fp32_modules
        weights = {
            key: value.to(torch.float32 if any(part in precise for part in key.split(".")) else dtype)
            for key, value in weights.items()
        }
    transformer.load_state_dict(weights, assign=empty)


def load_lora(transformer: MirageTransformer, path: str | Path, *, name: str = "camera", beside: bool = False) -> int:
    """Add a released low-rank adapter to a model, as an adapter of peft that can be scaled, disabled or merged.

    Args:
        transformer: The model; `set_adapters`, `disable_adapters` and `fuse_lora` of diffusers then apply.
        path: File or folder with pairs `....lora_A.weight`, `....lora_B.weight`; their scale is 1.
        name: What the adapter is called.
        beside: Whether weights of the model itself may stand beside the pairs, which are left.

    Returns:
        The number of layers that were adapted.

    Raises:
        ValueError: If there is no pair, or one is incomplete, does not fit, or belongs to a layer that the model lacks.
        ImportError: If peft is not installed.
    """
    weights = {key: value for key, value in translated([path]).items() if not beside or ".lora_" in key}
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


def translated(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """Read weights under our names.

    Args:
        paths: Files or folders in official or in our names.

    Returns:
        All tensors.

    Raises:
        ValueError: If a weight comes twice, or a file cannot be read.
    """
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
    return "\n".join(f"  {len(names)} {what}: {some(names)}" for what, names in parts.items() if names)


def _names(paths: Sequence[str | Path]) -> str:
    return ", ".join(str(path) for path in paths)
