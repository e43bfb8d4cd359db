"""What is installed, what the card can do and which settings fit; and what a model is, from its headers alone."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch

from mirage.checkpoint.hub import fetch
from mirage.checkpoint.names import our_name
from mirage.checkpoint.wan import _backbone, _json, _size, branch_of, published_layout
from mirage.cost import CARDS, GIB, Autoencoder, Card, Denoiser, Model, Settings, TextEncoder, estimate, table
from mirage.kernels import backend
from mirage.pipeline import EMBEDDED

PACKAGES = {
    "torch": "everything",
    "diffusers": "denoiser, autoencoder, schedulers, offload",
    "transformers": "text encoder, depth and mask models",
    "safetensors": "weights",
    "numba": "the memory on a CPU, fast",
    "triton": "the memory on a GPU, fast",
    "av": "mp4",
    "accelerate": "--offload model",
    "peft": "--lora",
    "torchao": "--quantize int8",
    "kernels": "--attention with kernels of the hub",
    "flash-attn": "--attention flash",
    "sageattention": "--attention sage",
    "depth-anything-3": "its depth",
    "fastapi": "mirage explore",
    "uvicorn": "mirage explore",
    "opencv-python-headless": "mirage evaluate",
    "scikit-image": "mirage evaluate",
    "matplotlib": "mirage evaluate, train, bench",
}
NEEDED = ("torch", "diffusers", "transformers", "safetensors", "numba", "av")
SIZES = [(352, 640), (480, 832), (704, 1280)]
NOTE = (
    "estimated from counted operations and bytes, not measured; half of the card's dense bfloat16 peak is assumed, "
    "docs/performance.md says how"
)


def installed() -> dict[str, dict[str, str | None]]:
    """Packages, their versions (None if they are not there) and what each is for."""
    found = {}
    for name, use in PACKAGES.items():
        try:
            found[name] = {"version": importlib.metadata.version(name), "for": use}
        except importlib.metadata.PackageNotFoundError:
            found[name] = {"version": None, "for": use}
    return found


def devices() -> list[dict[str, object]]:
    """The cards of this machine, and what they can do."""
    found = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(i)
        found.append(
            {
                "device": f"cuda:{i}",
                "name": facts.name,
                "memory": facts.total_memory,
                "free": torch.cuda.mem_get_info(i)[0],
                "capability": f"{facts.major}.{facts.minor}",
                "bfloat16": facts.major >= 8,
                "fp8": (facts.major, facts.minor) >= (8, 9),
            }
        )
    return found


def writes_video() -> str | None:
    """Why no mp4 can be written here; None if one can."""
    try:
        import av

        av.codec.Codec("libx264", "w")
    except (ImportError, ValueError) as error:
        return f"PyAV has no H.264 encoder: {error}"
    return None


def card_of(name: str) -> Card | None:
    """The data sheet of a card by a name as drivers give it, such as "NVIDIA H100 80GB HBM3"."""
    return next((card for key, card in CARDS.items() if key in name), None)


def diagnose(model: Model | None = None, *, memory: float | None = None, name: str | None = None) -> dict[str, object]:
    """All of it, ready for JSON.

    Args:
        model: Whose settings are looked at; Wan2.2-TI2V-5B with the paper's branch if None.
        memory: Bytes of a card to plan for; those of this machine's first card if None.
        name: Its name; likewise.

    Returns:
        Versions, packages, devices, kernels, video, and rows of settings.
    """
    here = devices()
    if memory is None and name is None and here:
        memory, name = here[0]["memory"], here[0]["name"]
    card = card_of(name or "")
    memory = card.memory if memory is None and card else memory
    model = model or Model()
    rows = [
        {
            "height": chosen.height,
            "width": chosen.width,
            "frames": chosen.frames,
            "steps": chosen.steps,
            "offload": chosen.offload,
            "dtype": chosen.dtype,
            "quantize": chosen.quantize,
            "vae_tiling": chosen.tiling,
            "gigabytes": round(found.peak / GIB, 1),
            "seconds_per_frame": round(found.seconds(card) / (chosen.frames - 1), 3) if card else None,
            "fits": None if memory is None else found.peak <= memory,
            "basis": "estimated",
        }
        for chosen, found in table(model, SIZES, frames=model.chunk_frames, steps=model.steps)
    ]
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": installed(),
        "devices": here,
        "kernels": {
            kind: backend._loaded(kind)[0].__name__.rpartition(".")[2] for kind in ("cpu", *(["gpu"] if here else []))
        },
        "video": writes_video() or "mp4 (H.264) can be written",
        "planned_for": {"name": name, "gigabytes": None if memory is None else round(memory / GIB, 1)},
        "settings": rows,
        "note": NOTE,
    }


def told(found: Mapping[str, object]) -> str:
    """A diagnosis as text.

    Args:
        found: What `diagnose` returned.

    Returns:
        Lines for a terminal.
    """
    lines = [f"Python {found['python']} on {found['machine']}", ""]
    for name, package in found["packages"].items():
        lacking = "MISSING" if name in NEEDED else "-"
        lines.append(f"  {name:<24}{package['version'] or lacking:<16}{package['for']}")
    lines += ["", "devices"]
    for card in found["devices"]:
        can = ", ".join(what for what in ("bfloat16", "fp8") if card[what]) or "neither bfloat16 nor fp8"
        lines.append(
            f"  {card['device']}  {card['name']}, {card['memory'] / GIB:.1f} GiB ({card['free'] / GIB:.1f} free), "
            f"compute capability {card['capability']}, {can}"
        )
    if not found["devices"]:
        lines.append("  no GPU that PyTorch can use: the embedded model runs on the CPU, the 5B model needs a card")
    lines += [f"  the memory's kernels: {', '.join(f'{k} by {v}' for k, v in found['kernels'].items())}"]
    lines += [f"  video: {found['video']}", ""]
    plan = found["planned_for"]
    on = f"{plan['name'] or 'a card'}, {plan['gigabytes']} GiB" if plan["gigabytes"] else "any card"
    row = found["settings"][0]
    model = found.get("model", "Wan2.2-TI2V-5B with a memory branch")
    lines.append(f"{model}, chunks of {row['frames']} frames, {row['steps']} steps, on {on}:")
    lines.append("  size          offload  weights   tiled VAE      GiB   s/frame  fits")
    for row in found["settings"]:
        speed = "-" if row["seconds_per_frame"] is None else f"{row['seconds_per_frame']:.2f}"
        weights = "bf16" if row["quantize"] == "none" else row["quantize"]
        fits = {None: "?", True: "yes", False: "no"}[row["fits"]]
        size = f"{row['height']} x {row['width']}"
        tiled = "yes" if row["vae_tiling"] else "no"
        lines.append(
            f"  {size:<14}{row['offload']:<9}{weights:<10}{tiled:<11}{row['gigabytes']:>7.1f}{speed:>10}  {fits}"
        )
    return "\n".join([*lines, f"  ({found['note']})"])


def fitting(model: Model, memory: float, *, height: int, width: int) -> str:
    """Say which settings fit a card, for an error message.

    Args:
        model: The model.
        memory: Bytes of the card.
        height: Rows of the video that did not fit.
        width: Columns of it.

    Returns:
        A clause.
    """
    smaller = [size for size in SIZES[::-1] if prod(size) < height * width]
    for chosen, found in table(model, [(height, width), *smaller], frames=model.chunk_frames, steps=model.steps):
        if found.peak <= memory and (chosen.offload, chosen.tiling) != ("none", False):
            words = [f"--offload {chosen.offload}"] if chosen.offload != "none" else []
            words += ["--vae-tiling"] * chosen.tiling
            words += [f"--quantize {chosen.quantize}"] if chosen.quantize != "none" else []
            words += (
                [f"--size {chosen.height}x{chosen.width}"] if (chosen.height, chosen.width) != (height, width) else []
            )
            return f"by the table of mirage doctor this fits: {' '.join(words)} (estimated {found.peak / GIB:.1f} GiB)"
    return "by the table of mirage doctor nothing fits: choose a smaller --size"


def model_of(name: str | Path, memory: str | Path | None = None, memory_layout: str | None = None) -> Model:
    """What a model is, from its configuration files and the headers of its weights; no weight is read.

    Args:
        name: As in `MiragePipeline.from_pretrained`; a model on the hub must be here already.
        memory: Weights of the memory branch, likewise.
        memory_layout: What the branch reads, if its keys and shapes do not tell it.

    Returns:
        Sizes of all parts.

    Raises:
        ValueError: If a file is missing or damaged, or is of another model.
    """
    folder = Path(EMBEDDED.get(str(name)) or fetch(name, "model", local_files_only=True))
    layout = published_layout(folder)
    official = layout == "wan"
    weights = folder if official else folder / "transformer"
    for file in _backbone(weights):
        headers(file)
    size = _size(weights / "config.json", official)
    config, index = _json(weights / "config.json"), {} if official else _json(folder / "model_index.json")
    if memory is not None and layout != "mirage":
        shapes = branch_shapes(fetch(memory, "memory", local_files_only=True))
        branch = branch_of(shapes, size["num_layers"], size["in_channels"], layout=memory_layout)
        blocks, channels = len(branch.layers), branch.channels
    else:
        blocks, channels = len(config.get("vace_layers", ())), config.get("vace_in_channels", size["in_channels"] + 1)
    kinds = {key: (value or [None, None])[1] for key, value in index.items() if isinstance(value, list)}
    wan = kinds.get("vae", "AutoencoderKLWan") == "AutoencoderKLWan"
    common = {key: index[key] for key in ("chunk_frames", "size") if key in index}
    common |= {
        ours: index[key]
        for ours, key in (
            ("preceding", "preceding_frames"),
            ("reference", "reference_frames"),
            ("steps", "num_inference_steps"),
        )
        if key in index
    }
    if "size" in common:
        common["size"] = tuple(common["size"])
    return Model(
        denoiser=Denoiser(
            width=size["num_attention_heads"] * size["attention_head_dim"],
            feed=size["ffn_dim"],
            layers=size["num_layers"],
            channels=size["in_channels"],
            patch=prod(size["patch_size"]),
            text_width=size["text_dim"],
            time_width=size["freq_dim"],
            branch=blocks,
            branch_channels=channels,
        ),
        autoencoder=_autoencoder(folder / "vae" / "config.json") if wan else None,
        text=_text_encoder(folder / "text_encoder" / "config.json", official) if size["text_dim"] else None,
        stride=16 if wan else 8,
        patch=size["patch_size"][1],
        **common,
    )


def headers(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a .safetensors file, from its first bytes; its length is checked against them.

    Args:
        file: The file.

    Returns:
        Shapes by name.

    Raises:
        ValueError: If it is damaged or cut short.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            whole = file.stat().st_size
            if length > whole - 8:
                raise ValueError("it ends within its header")
            held = json.loads(opened.read(length))
        held.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in held.values()), default=0)
        if 8 + length + end != whole:
            raise ValueError(f"it has {whole} bytes, its header tells of {8 + length + end}")
        return {name: tuple(entry["shape"]) for name, entry in held.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"path must be an intact .safetensors file, but {file} cannot be read: {error}") from error


def branch_shapes(path: Path) -> dict[str, torch.Tensor]:
    """Names (ours) and shapes of the weights of a memory branch, as tensors without contents.

    Args:
        path: A file or folder.

    Returns:
        Tensors on the meta device.

    Raises:
        ValueError: If it is damaged, or a pickled file, whose shapes cannot be told without opening it.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or any(file.suffix != ".safetensors" for file in files):
        raise ValueError(f"memory must be .safetensors to be looked at without loading it, got {path}")
    shapes = {our_name(name): shape for file in files for name, shape in headers(file).items()}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def bytes_on_disk(folder: Path) -> int:
    """Size of all weights of a folder."""
    kinds = (".safetensors", ".pth", ".bin", ".pt")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.suffix in kinds)


def _autoencoder(path: Path) -> Autoencoder:
    """From its configuration; Wan 2.2's own where there is none, as in Wan's own layout."""
    if not path.is_file():
        return Autoencoder()
    config = _json(path)
    return Autoencoder(
        base=config["base_dim"],
        decoder_base=config.get("decoder_base_dim") or config["base_dim"],
        channels=config["z_dim"],
        multiples=tuple(config["dim_mult"]),
        blocks=config["num_res_blocks"],
        pixels=config.get("in_channels", 12),
        shorter=tuple(config["temperal_downsample"]),
    )


def _text_encoder(path: Path, official: bool) -> TextEncoder | None:
    if not path.is_file():
        return TextEncoder() if official else None
    config = _json(path)
    return TextEncoder(
        vocabulary=config["vocab_size"],
        width=config["d_model"],
        inner=config["d_kv"] * config["num_heads"],
        feed=config["d_ff"],
        layers=config["num_layers"],
        buckets=config.get("relative_attention_num_buckets", 32),
        heads=config["num_heads"],
    )


def measured_rate(device: str) -> float:
    """Operations per second of a matrix product, timed in a moment: for devices of which no data sheet is known.

    Args:
        device: The device.

    Returns:
        Operations per second; in float32 on a CPU, in bfloat16 elsewhere.
    """
    import time

    side = 512 if device == "cpu" else 4096
    a = torch.ones(side, side, device=device, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def forecast(model: Model, settings: Settings, *, chunks: int, frames: int, device: str) -> dict[str, object]:
    """Memory and time of a video before anything is loaded.

    Args:
        model: The model, as `model_of` found it.
        settings: How it would be run.
        chunks: Number of chunks.
        frames: Frames of the video.
        device: Where.

    Returns:
        Figures, all estimated.
    """
    found = estimate(model, settings)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    card = card_of(name)
    basis = f"data sheet of {name}" if card else f"a matrix product timed on {name} just now"
    card = card or Card(float("inf"), measured_rate(device), 1.0)
    have = torch.cuda.get_device_properties(device).total_memory if device.startswith("cuda") else None
    return {
        "chunks": chunks,
        "frames": frames,
        "settings": str(settings),
        "weights": {
            "denoiser": model.denoiser.parameters(),
            "autoencoder": model.autoencoder.parameters() if model.autoencoder else None,
            "text encoder": model.text.parameters() if model.text else None,
        },
        "gigabytes": {phase: round(value / GIB, 2) for phase, value in found.memory.items()},
        "peak_gigabytes": round(found.peak / GIB, 2),
        "fits": None if have is None else found.peak <= have,
        "operations_per_chunk": {phase: float(value) for phase, value in found.operations.items()},
        "seconds": round(chunks * found.seconds(card), 1),
        "time_by": basis,
        "basis": "estimated",
    }
