"""Depth models and segmenters by name: a short name, a folder, or a name on the hub."""

import json
import re
from pathlib import Path

import torch

from mirage.checkpoint.hub import fetch
from mirage.geometry import depth_anything_3, map_anything
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.metric import MetricDepth
from mirage.geometry.movers import ClassMovers, Segmenter

DEPTH_MODELS = {
    "depth-anything-3": "depth-anything/DA3METRIC-LARGE",
    "depth-anything-3-nested": "depth-anything/DA3NESTED-GIANT-LARGE",
    "depth-anything-3-small": "depth-anything/DA3-SMALL",
    "depth-anything-v2-metric-indoor": "depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf",
    "depth-anything-v2-metric-outdoor": "depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf",
    "zoedepth": "Intel/zoedepth-nyu-kitti",
    "depth-pro": "apple/DepthPro-hf",
    "map-anything": "facebook/map-anything-apache",
}
MOVERS_MODELS = {
    "qwen3-vl+sam3": "Qwen/Qwen3-VL-4B-Instruct+facebook/sam3",
    "mask2former": "facebook/mask2former-swin-large-ade-panoptic",
    "segformer": "nvidia/segformer-b0-finetuned-ade-512-512",
}


def depth_estimator(
    name: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, **options: object
) -> DepthEstimator:
    """Load a depth model by its name.

    Args:
        name: One of `DEPTH_MODELS`, a folder, or "owner/name" on the hub.
        device: Where it shall compute.
        dtype: In which it shall compute; float32 if None.
        options: For the hub, as in `fetch`.

    Returns:
        The estimator.

    Raises:
        ValueError: If there is no such model, its package is missing, or it is of another kind or damaged.
    """
    published = _published(name, DEPTH_MODELS, "depth model")
    for family, kind in (("depth-anything-3", depth_anything_3), ("map-anything", map_anything)):
        if str(name).startswith(family):
            kind.check_installed()  # before gigabytes are fetched
    folder = fetch(published, "depth model", **options)
    told = _told(folder)
    if str(told.get("model_name", "")).startswith("da3"):
        kind = depth_anything_3.DepthAnything3
    elif "model_type" not in told and {"encoder_config", "info_sharing_config"} & told.keys():
        kind = map_anything.MapAnythingDepth
    else:
        kind = MetricDepth
    return kind.load(folder, dtype=dtype).to(device)


def segmenter(
    name: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None, **options: object
) -> Segmenter:
    """Load a segmenter of movers by its name.

    Args:
        name: One of `MOVERS_MODELS`, a folder, or "owner/name" on the hub; two of them joined by "+" for a language
            model that names the movers and the SAM 3 that finds them.
        device: Where it shall compute.
        dtype: Of the weights; float32 if None.
        options: For the hub, as in `fetch`.

    Returns:
        The segmenter.

    Raises:
        ValueError: If there is no such model, or it is of another kind or damaged.
    """
    published = _published(name, MOVERS_MODELS, "movers model")
    if Path(published).exists() or "+" not in published:
        return ClassMovers.load(fetch(published, "movers model", **options), dtype=dtype).to(device)
    try:
        from mirage.geometry.named_movers import NamedMovers
    except ImportError as error:
        raise ValueError(f"movers model {name} needs a newer transformers: {error}") from error
    folders = [fetch(part, "movers model", **options) for part in published.split("+", 1)]
    return NamedMovers.load(*folders, dtype=dtype).to(device)


def _published(name: str | Path, known: dict[str, str], what: str) -> str:
    name = str(name)
    if name in known:
        return known[name]
    if not Path(name).exists() and not re.search(r"[/\\]", name):
        raise ValueError(f"{what} must be one of {', '.join(known)}, a folder, or OWNER/NAME on the hub, got {name}")
    return name


def _told(folder: Path) -> dict:
    """The settings of a model if they can be read; what is wrong with them is said by what loads it."""
    try:
        told = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
