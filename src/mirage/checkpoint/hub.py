"""Models by name: a folder or file that is here, or one of the hub, fetched once."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only")
WANTED = ["*.json", "*.safetensors", "*.pth", "*.model", "*.txt"]  # weights, settings and tokenizers; no pictures


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
    try:
        return Path(snapshot_download(str(name), allow_patterns=WANTED, **options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{what} {name} is not here and cannot be fetched from the hub ({first}); without a network, give a folder "
            "that holds it"
        ) from error
