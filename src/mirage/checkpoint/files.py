"""Weights from files: tensors by name. Nothing in a file is ever executed, and every defect is named."""

import pickle
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

PICKLED = (".pth", ".pt", ".ckpt", ".bin")
WRAPPERS = ("vace", "generator", "state_dict", "model_state", "model")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file, or of all safetensors files of a folder (a sharded model), or its older kinds.

    Older kinds (.pth, .pt, .ckpt, .bin) are read by PyTorch's unpickler for weights only, which refuses a file that
    holds anything but tensors. Dictionaries round the weights ("state_dict", "vace") are taken off.

    Args:
        path: File or folder.

    Returns:
        Tensors by the names in the file, on the CPU, memory-mapped where the format allows it.

    Raises:
        ValueError: If there is no such file, it is of another kind, damaged or holds more than tensors, or two files of
            a folder hold the same name.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        older = [file for kind in PICKLED for file in sorted(path.glob(f"*{kind}"))]
        files = sorted(path.glob("*.safetensors")) or older
    if not files:
        raise ValueError(f"path must be a weights file or a folder of .safetensors files, but {path} holds none")
    weights: dict[str, Tensor] = {}
    for file in files:
        if file.suffix not in (".safetensors", *PICKLED):
            raise ValueError(f"path must be a .safetensors file ({', '.join(PICKLED)} will do), got {file.name}")
        if not file.is_file():
            raise ValueError(f"path must be a weights file, but there is no {file}")
        loaded = _tensors(file) if file.suffix == ".safetensors" else _unpickled(file)
        if twice := sorted(weights.keys() & loaded.keys()):
            raise ValueError(f"path must hold each weight once, but {file} repeats {some(twice)}")
        weights |= loaded
    return weights


def saved_dtype(folder: str | Path, name: str) -> torch.dtype | None:
    """In which dtype a weight was saved; it is not read.

    Args:
        folder: Of .safetensors files.
        name: Of the weight.

    Returns:
        Its dtype; None if it is not there.

    Raises:
        ValueError: If a file is damaged.
    """
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as held:
                if name in held.keys():  # noqa: SIM118  (it is no dictionary)
                    return held.get_tensor(name).dtype  # mapped
        except (SafetensorError, OSError) as error:
            raise ValueError(f"path must be an intact .safetensors file, but {file} cannot be read: {error}") from error
    return None


def some(names: Iterable[str], limit: int = 12) -> str:
    """The first few of many names, for a message.

    Args:
        names: All of them.
        limit: How many are shown.

    Returns:
        The names, and how many more there are.

    Example:
        >>> some(["a", "b", "c"], limit=2)
        'a, b, and 1 more'
    """
    names = list(names)
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"path must be an intact .safetensors file, but {file} cannot be read: {error}") from error


def _unpickled(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch.save. Only the zip format can be mapped; the older one is read whole."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of pickles that are refused a moment later
            mapped = zipfile.is_zipfile(file)
            held = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"path must hold nothing but tensors, but {file} holds more or is damaged, and is left unopened: it "
            "may run code. Convert it with safetensors.torch.save_file in a place where you trust it"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"path must be an intact weights file, but {file} cannot be read: {error}") from error
    while isinstance(held, dict) and (
        inner := next((key for key in WRAPPERS if isinstance(held.get(key), dict)), None)
    ):
        held = held[inner]
    tensors = {key: value for key, value in held.items() if isinstance(value, Tensor)} if isinstance(held, dict) else {}
    if not tensors:
        raise ValueError(f"path must hold tensors by name, but {file} holds {type(held).__name__} without any")
    return tensors
