"""A Wan model in any of its published layouts, with a memory branch or without: the parts of a pipeline."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from torch import Tensor
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from mirage.checkpoint.files import read_weights, some
from mirage.checkpoint.names import autoencoder_name, text_encoder_name
from mirage.checkpoint.transformer import load_official, translated
from mirage.denoise import MirageTransformer
from mirage.video.wan import WAN22

log = logging.getLogger(__name__)
LAYOUTS = {2: "constant", 4: "score"}
"""What the second half of a branch's channels means, by the distance of its blocks: the paper's authors, Spatia."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What a file of memory-branch weights is, found from its keys and shapes."""

    layers: tuple[int, ...]
    """Main blocks that receive its hints."""
    channels: int
    """Channels that it reads."""
    layout: str
    """What they mean, see `MirageTransformer`."""


def published_layout(folder: str | Path) -> str:
    """Tell in which layout a model lies in a folder.

    Args:
        folder: The folder.

    Returns:
        "mirage" (our own), "diffusers" (a Wan pipeline of diffusers) or "wan" (as Wan publishes it).

    Raises:
        ValueError: If it is none of these.
    """
    folder = Path(folder)
    index = folder / "model_index.json"
    if index.is_file():
        name = _json(index).get("_class_name")
        if name == "MiragePipeline":
            return "mirage"
        if isinstance(name, str) and name.startswith("Wan"):
            return "diffusers"
        raise ValueError(f"model must be of Mirage or Wan, got the pipeline {name!r} in {folder}")
    if (folder / "config.json").is_file() and any(folder.glob("diffusion_pytorch_model*.safetensors")):
        return "wan"
    raise ValueError(
        "model must be a folder with a model_index.json (of Mirage, or of a Wan pipeline of diffusers), or with the "
        f"config.json and diffusion_pytorch_model*.safetensors that Wan publishes, got {folder}"
    )


def wan_parts(
    folder: str | Path,
    memory: str | Path | None = None,
    *,
    memory_layout: str | None = None,
    dtype: torch.dtype | None = None,
    adapter: bool = False,
) -> dict[str, object]:
    """Load the parts of a pipeline from a Wan model, and a memory branch of anyone's format.

    Args:
        folder: A Wan pipeline of diffusers, or a folder as Wan publishes it.
        memory: Weights of the memory branch, a file or folder: ours, the paper's authors' (15 blocks that read latents
            and a constant, or 8 that read latents and visibility), or Spatia's (8 blocks that read an encoded rendering
            and an encoded score). None for the backbone alone, whose videos ignore the path. A file that holds a
            backbone beside the branch is taken in place of the folder's.
        memory_layout: What the branch reads, if keys and shapes do not tell it rightly; see `MirageTransformer`.
        dtype: Of transformer and text encoder; bfloat16 if None. The autoencoder stays in float32.
        adapter: Whether `memory` may hold low-rank pairs too, which are left for `load_lora`.

    Returns:
        Arguments of `MiragePipeline`: transformer, vae, scheduler, text_encoder, tokenizer.

    Raises:
        ValueError: If a part is missing, of another model, or damaged.
    """
    folder, dtype = Path(folder), dtype or torch.bfloat16
    official = published_layout(folder) == "wan"
    weights = folder if official else folder / "transformer"
    size = _size(weights / "config.json", official)
    paths = _backbone(weights)
    branch = None
    if memory is not None:
        held = translated([memory])
        branch = branch_of(held, size["num_layers"], size["in_channels"], layout=memory_layout)
        size |= {"vace_layers": branch.layers, "vace_in_channels": branch.channels, "memory_layout": branch.layout}
        if not adapter and (pairs := sorted(key for key in held if ".lora_" in key)):
            raise ValueError(
                f"memory must hold a branch without an adapter, but {memory} has {len(pairs)} low-rank weights too "
                f"({some(pairs, 2)}): give the same path as lora (--lora), so that they are not left out"
            )
        if "patch_embedding.weight" in held:
            log.warning("%s holds a backbone beside the branch: it takes the place of that in %s", memory, weights)
            paths = []
        paths.append(Path(memory))
    with torch.device("meta"):
        transformer = MirageTransformer(**({"vace_layers": ()} | size)).eval()
    load_official(transformer, *paths, dtype=dtype, adapter=adapter)
    rest = _official_rest(folder, dtype) if official else _diffusers_rest(folder, dtype)
    return {"transformer": transformer.requires_grad_(False), **rest}


def branch_of(weights: Mapping[str, Tensor], num_layers: int, in_channels: int, *, layout: str | None = None) -> Branch:
    """Find out what memory branch a set of weights is.

    Args:
        weights: Tensors under our names.
        num_layers: Blocks of the backbone.
        in_channels: Channels of a latent.
        layout: Overrides what is found.

    Returns:
        Where its hints go and what it reads.

    Raises:
        ValueError: If these are not the weights of a branch, or their number of blocks or channels is of no known kind.

    Example:
        >>> weights = {"vace_patch_embedding.weight": torch.zeros(4, 96, 1, 2, 2)}
        >>> weights |= {f"vace_blocks.{i}.proj_out.weight": torch.zeros(4, 4) for i in range(15)}
        >>> branch_of(weights, 30, 48).layers[-1], branch_of(weights, 30, 48).layout
        (28, 'constant')
    """
    read = weights.get("vace_patch_embedding.weight")
    blocks = {
        int(key.split(".")[1]) for key in weights if key.startswith("vace_blocks.") and key.split(".")[1].isdigit()
    }
    if read is None or read.ndim != 5 or not blocks:
        raise ValueError(
            "memory must hold the weights of a memory branch (vace_patch_embedding, vace_blocks.N), got "
            f"{some(sorted(weights), 4) or 'nothing'}"
        )
    count, channels = len(blocks), read.shape[1]
    step = next((step for step in range(1, num_layers + 1) if len(range(0, num_layers, step)) == count), None)
    if step is None or blocks != set(range(count)):
        raise ValueError(
            f"memory must have blocks 0, 1, ... that are spread evenly over the {num_layers} of the backbone, got "
            f"{some(map(str, sorted(blocks)))}"
        )
    if layout is None:
        layout = "mask" if channels > in_channels and channels != 2 * in_channels else LAYOUTS.get(step)
    if layout is None or channels <= in_channels or (layout != "mask" and channels != 2 * in_channels):
        raise ValueError(
            f"memory must read {in_channels + 1} channels (latents, visibility) or {2 * in_channels} (latents and as "
            f"many more), got {channels} in {count} blocks; if you know what they mean, say memory_layout"
        )
    return Branch(layers=tuple(range(0, num_layers, step)), channels=channels, layout=layout)


def _size(path: Path, official: bool) -> dict[str, object]:
    """The transformer's size from a configuration file of diffusers or of Wan."""
    config = _json(path)
    try:
        if official:
            heads = config["num_heads"]
            found = {
                "num_attention_heads": heads,
                "attention_head_dim": config["dim"] // heads,
                "in_channels": config["in_dim"],
            }
            found |= {key: config[key] for key in ("ffn_dim", "freq_dim", "num_layers")}
            found |= {"text_dim": config.get("text_dim", 4096), "eps": config.get("eps", 1e-6)}
            outputs = config["out_dim"]
        else:
            same = (
                "num_attention_heads",
                "attention_head_dim",
                "in_channels",
                "ffn_dim",
                "freq_dim",
                "num_layers",
                "text_dim",
            )
            found = {key: config[key] for key in same} | {"eps": config.get("eps", 1e-6)}
            outputs = config.get("out_channels") or config["in_channels"]
    except KeyError as error:
        raise ValueError(f"model must say its size, but {path} has no {error}") from None
    found["patch_size"] = tuple(config.get("patch_size", (1, 2, 2)))
    if outputs != found["in_channels"] or config.get("image_dim"):
        raise ValueError(
            f"model must take as many channels as it gives (such as Wan2.2-TI2V-5B), got {found['in_channels']} and "
            f"{outputs} in {path}: models that are fed an image by further channels or embeddings cannot be driven"
        )
    return found


def _backbone(folder: Path) -> list[str | Path]:
    files = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    if not files:
        raise ValueError(f"model must have weights diffusion_pytorch_model*.safetensors, but {folder} holds none")
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    if index.is_file() and (absent := set(_json(index).get("weight_map", {}).values()) - {file.name for file in files}):
        raise ValueError(f"model is not whole: {folder} lacks {some(sorted(absent))}")
    return list(files)


def _diffusers_rest(folder: Path, dtype: torch.dtype) -> dict[str, object]:
    parts: dict[str, object] = {
        "vae": AutoencoderKLWan.from_pretrained(folder / "vae", dtype=torch.float32),
        "scheduler": UniPCMultistepScheduler.from_pretrained(folder / "scheduler"),
    }
    if (folder / "text_encoder").is_dir():
        parts["text_encoder"] = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=dtype).eval()
        parts["tokenizer"] = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return parts


def _official_rest(folder: Path, dtype: torch.dtype) -> dict[str, object]:
    parts: dict[str, object] = {
        "vae": load_autoencoder(autoencoder_file(folder)),
        "scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
    }
    if any(folder.glob("models_t5*")):
        parts["text_encoder"] = load_text_encoder(_only(folder, "models_t5*"), dtype)
        words = next((at for at in (folder / "google" / "umt5-xxl", folder / "tokenizer") if at.is_dir()), None)
        if words is None:
            raise ValueError(f"model must have its tokenizer in google/umt5-xxl, but {folder} has no such folder")
        parts["tokenizer"] = AutoTokenizer.from_pretrained(words)
    return parts


def autoencoder_file(folder: str | Path) -> Path:
    """The file of the autoencoder of a model in Wan's own layout.

    Args:
        folder: Of the model.

    Returns:
        The file.

    Raises:
        ValueError: If there is none.
    """
    return _only(Path(folder), "*VAE*")


def load_autoencoder(path: str | Path) -> AutoencoderKLWan:
    """Read `Wan2.2_VAE.pth` (or the same tensors as safetensors) into diffusers' class.

    Args:
        path: The file.

    Returns:
        The autoencoder, in float32; its widths are those of the file.

    Raises:
        ValueError: If the file is damaged or of another autoencoder.
    """
    weights = {autoencoder_name(key): value.float() for key, value in read_weights(path).items()}
    try:
        first, last, latent = (
            weights[f"{key}.weight"].shape for key in ("encoder.conv_in", "decoder.conv_in", "post_quant_conv")
        )
        block = {key.split(".")[4] for key in weights if key.startswith("encoder.down_blocks.0.resnets.")}
        widths = {"base_dim": first[0], "decoder_base_dim": last[0] // 4, "z_dim": latent[0]}
        if widths["z_dim"] != WAN22["z_dim"] or not block:
            raise KeyError("a latent of 48 channels")
        with torch.device("meta"):
            vae = AutoencoderKLWan(**(WAN22 | widths | {"num_res_blocks": len(block)}))
        vae.load_state_dict(weights, assign=True)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"path must hold Wan 2.2's autoencoder, but {path} does not fit: {error}") from None
    return vae.eval()


def load_text_encoder(path: str | Path, dtype: torch.dtype) -> UMT5EncoderModel:
    """Read `models_t5_umt5-xxl-enc-bf16.pth` (or the same tensors as safetensors) into transformers' class.

    Args:
        path: The file.
        dtype: Of the encoder.

    Returns:
        The encoder; its widths are those of the file.

    Raises:
        ValueError: If the file is damaged or of another encoder.
    """
    weights = {text_encoder_name(key): value.to(dtype) for key, value in read_weights(path).items()}
    try:
        attention, relative = (
            weights[f"encoder.block.0.layer.0.SelfAttention.{key}.weight"].shape
            for key in ("q", "relative_attention_bias")
        )
        words, feed = weights["shared.weight"], weights["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape
        layers = {key.split(".")[2] for key in weights if key.startswith("encoder.block.")}
        config = UMT5Config(
            vocab_size=len(words),
            d_model=attention[1],
            d_kv=attention[0] // relative[1],
            d_ff=feed[0],
            num_layers=len(layers),
            num_heads=relative[1],
            relative_attention_num_buckets=relative[0],
        )
        with torch.device("meta"):
            encoder = UMT5EncoderModel(config)
        encoder.load_state_dict(weights | {"encoder.embed_tokens.weight": words}, assign=True)
        encoder.tie_weights()
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"path must hold Wan's text encoder, but {path} does not fit: {error}") from None
    return encoder.eval().requires_grad_(False)


def _only(folder: Path, pattern: str) -> Path:
    """The file of a pattern: safetensors before pickles."""
    found = sorted(folder.glob(pattern), key=lambda path: path.suffix != ".safetensors")
    if not found:
        raise ValueError(f"model must have a file {pattern}, but {folder} holds none")
    return found[0]


def _json(path: Path) -> dict:
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"model must have a readable {path.name}, but {path} cannot be read: {error}") from None
    if not isinstance(held, dict):
        raise ValueError(f"model must have a {path.name} that holds an object, got {type(held).__name__} in {path}")
    return held
