"""Models by name: a folder or file that is here, or one of the hub, fetched once."""

import json
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only")
SETTINGS = ("*.json", "*.model", "*.txt")  # and tokenizers
LEFT = ["assets/*", "examples/*", "onnx/*", "*.fp16.*", "*.index.fp16.json"]  # pictures, and weights held twice


def fetch(name: str | Path, what: str = "model", **options: object) -> Path:
    """Find a model on this machine, or fetch it from the hub.

    Args:
        name: A folder or file, or "owner/name" on the hub.
        what: How messages call it: the name of the caller's argument.
        options: `revision`, `cache_dir`, `token`, `local_files_only` of the hub.

    Returns:
        The folder or file.

    Raises:
        ValueError: If there is no such file, or the hub does not have it or cannot be reached.
    """
    if Path(name).exists():
        return Path(name)
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name)):
        kinds = "nano, a folder" if what == "model" else "a file, a folder"
        raise ValueError(f"{what} must be {kinds} or OWNER/NAME on the hub, got {name}")
    get = lambda patterns: Path(snapshot_download(str(name), allow_patterns=patterns, ignore_patterns=LEFT, **options))
    try:
        parts = None
        if what == "model" and (index := get(["model_index.json"]) / "model_index.json").is_file():
            parts = [key for key, value in json.loads(index.read_text()).items() if isinstance(value, list)] + ["mover"]
        return get(wanted(what, parts))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError, AttributeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{what} {name} is not here and cannot be fetched from the hub ({first}); without a network, give a folder "
            "that holds it"
        ) from error


def wanted(what: str, parts: list[str] | None = None) -> list[str]:
    """Which files of a repository are of use: gigabytes that nothing reads stay where they are.

    Args:
        what: "model", "memory", "lora", or another name for a model of transformers.
        parts: Of a pipeline of diffusers, by its model_index.json; None if the repository is none.

    Returns:
        Patterns for the hub.

    Example:
        >>> wanted("model", ["vae"])
        ['model_index.json', 'vae/*.json', 'vae/*.model', 'vae/*.txt', 'vae/*.safetensors']
    """
    if parts is not None:
        return ["model_index.json", *(f"{part}/{kind}" for part in parts for kind in (*SETTINGS, "*.safetensors"))]
    pickled = ["*.pth", "*.pt"] if what in ("memory", "lora") else ["*.pth"] if what == "model" else []
    return [*SETTINGS, "*.safetensors", *pickled]
