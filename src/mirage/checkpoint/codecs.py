"""The autoencoder of a model, without the gigabytes of its denoiser; and a fingerprint that tells latents apart."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from safetensors import SafetensorError

from mirage.checkpoint.hub import fetch
from mirage.checkpoint.wan import autoencoder_file, load_autoencoder, published_layout
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.nano import LatentDepth, LatentDepthHead
from mirage.video.codec import LatentCodec
from mirage.video.nano import ENCODING, NanoAutoencoder, NanoCodec
from mirage.video.taef2 import TinyFlux2, TinyFlux2Codec
from mirage.video.wan import WanCodec

NANO = Path(__file__).parents[1] / "models" / "nano"
WAN_SIZE, WAN_CHUNK, WAN_PATCH = (704, 1280), 33, 2
IMAGE_SIZE, IMAGE_CHUNK = (256, 256), 17


@dataclass(frozen=True, kw_only=True)
class ModelCodec:
    """An autoencoder with what its model says of the videos that it wants."""

    name: str
    codec: LatentCodec
    module: torch.nn.Module
    """The weights behind the codec."""
    head: DepthEstimator | None
    """The model's own depth, if it has one."""
    size: tuple[int, int]
    """Height and width that the model was made for, in pixels."""
    step: int
    """What height and width must be multiples of, in pixels."""
    chunk_frames: int

    def to(self, device: torch.device | str) -> "ModelCodec":
        """Move the weights, in place."""
        self.module.to(device)
        if isinstance(self.head, LatentDepth):
            self.head.head.to(device)
        return self

    def told(self) -> dict[str, object]:
        """What tells latents of this autoencoder from others."""
        told = {key: getattr(self.codec, key) for key in ("channels", "stride", "temporal_stride")}
        return {"name": self.name, "fingerprint": fingerprint(self.module), **told}


def model_codec(name: str | Path = "nano", **options: object) -> ModelCodec:
    """Load the autoencoder of a model.

    Args:
        name: "nano", a folder, or "owner/name" on the hub: of a pipeline of ours, of Wan in either layout, or of the
            tiny image autoencoder of FLUX.2.
        options: For the hub, as in `fetch`.

    Returns:
        The autoencoder in float32 on the CPU, frozen.

    Raises:
        ValueError: If there is no such model, or its autoencoder is missing or damaged.
    """
    folder = NANO if str(name) == "nano" else fetch(name, "model", **options)
    if (folder / "taef2_encoder.pth").is_file():
        tiny = TinyFlux2.from_folder(folder)
        about = {"codec": TinyFlux2Codec(tiny), "module": tiny, "head": None, "step": TinyFlux2Codec.stride}
        return ModelCodec(name=_plain(name), **about, size=IMAGE_SIZE, chunk_frames=IMAGE_CHUNK)
    layout = published_layout(folder)
    index = _json(folder / "model_index.json") if layout == "mirage" else {}
    try:
        if layout == "wan":
            vae = load_autoencoder(autoencoder_file(folder))
        else:
            nano = index.get("vae", ["", ""])[1] == "NanoAutoencoder"
            kind = NanoAutoencoder if nano else AutoencoderKLWan
            vae = kind.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        head = None
        if index.get("depth_head", [None])[0]:
            loaded = LatentDepthHead.from_pretrained(folder / "depth_head", torch_dtype=torch.float32)
            head = LatentDepth(loaded.eval().requires_grad_(False))
        patch = _json(folder / "transformer" / "config.json")["patch_size"][1] if layout == "mirage" else WAN_PATCH
    except (OSError, SafetensorError, RuntimeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"model {name} has no autoencoder that can be loaded: {error}") from error
    vae.eval().requires_grad_(False)
    codec: LatentCodec = NanoCodec(vae) if isinstance(vae, NanoAutoencoder) else WanCodec(vae)
    return ModelCodec(
        name=_plain(name),
        codec=codec,
        module=vae,
        head=head,
        size=tuple(index.get("size", WAN_SIZE)),
        step=codec.stride * patch,
        chunk_frames=index.get("chunk_frames", WAN_CHUNK),
    )


def fingerprint(module: torch.nn.Module) -> str:
    """What tells the latents of one autoencoder from those of another: a checksum of its weights and statistics.

    Of the embedded one those that encode: another decoder shows the same latents.

    Args:
        module: The autoencoder; `codec.autoencoder`, `codec.vae` or `codec.model` of ours.

    Returns:
        The same for the same weights, wherever and in whatever order they are.
    """
    total = hashlib.sha256()
    ours = isinstance(module, NanoAutoencoder)
    for name, weight in sorted(module.state_dict().items()):
        if ours and name.split(".")[0] not in ENCODING:
            continue
        total.update(f"{name} {tuple(weight.shape)}".encode())
        total.update(weight.detach().float().cpu().contiguous().numpy())
    config = getattr(module, "config", {})
    total.update(repr([list(config.get(f"latents_{key}") or ()) for key in ("mean", "std")]).encode())
    return total.hexdigest()[:16]


def _plain(name: str | Path) -> str:
    """A name that does not depend on where the folder lies."""
    return Path(name).name if Path(name).exists() else str(name)


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"model must have a readable {path.name}, but {path} cannot be read: {error}") from error
