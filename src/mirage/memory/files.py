"""A latent memory on disk: one safetensors file, written whole or not at all, checked on load, mapped into memory.

What must be in the file, of which type and shape, follows from the fields of `Surfels`: a new field needs no line here,
only another `VERSION`.
"""

import json
import os
import secrets
import zlib
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory.memory import FLOATS, check_cameras
from mirage.memory.store import Surfels

FORMAT, VERSION = "mirage-latent-memory", 4
DIMS = {
    field.name: field.type.dim_str.split() for field in fields(Surfels) if field.name != "grid"
}  # such as ["n", "c"]


def save_surfels(surfels: Surfels, path: str | os.PathLike, settings: dict) -> None:
    """Write the elements of a memory and its settings, in place of an old file only when complete.

    Whoever has mapped the old file goes on reading the old one.

    Convention:
        The metadata hold `format`, `version`, `settings` and `checksum`, the CRC-32 of settings and tensors, as JSON.

    Args:
        surfels: The elements.
        path: The file; its folder is made if it is missing.
        settings: What JSON can say of the memory; given back by `load_surfels`.

    Raises:
        ValueError: If `path` is no path.
        OSError: In one sentence, if the file cannot be written; an older one is then unchanged.
    """
    path = _path(path)
    tensors = {key: t.detach().cpu().contiguous() for key, t in surfels.tensors.items()}
    settings = settings | {"grid": list(surfels.grid)}
    about = {"format": FORMAT, "version": VERSION, "settings": settings, "checksum": _checksum(tensors, settings)}
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
        mode = aside.stat().st_mode  # that of any new file here; safetensors' own is for the owner alone
        save_file(tensors, aside, metadata={key: json.dumps(value) for key, value in about.items()})
        aside.chmod(mode)
        _to_disk(aside)
        os.replace(aside, path)
        _to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        raise OSError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if aside.parent.is_dir():
            aside.unlink(missing_ok=True)


def load_surfels(path: str | os.PathLike) -> tuple[Surfels, dict]:
    """Read what `save_surfels` wrote. The tensors are the pages of the file, loaded when touched and never written to.

    Args:
        path: The file.

    Returns:
        The elements, on the CPU, and the settings.

    Raises:
        ValueError: If the file is missing, of another format or version, or damaged in any way.

    Cost:
        One pass over the file for checksum and checks; no copy.
    """
    path = _path(path)
    if not path.is_file():
        raise ValueError(f"path: {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with safe_open(str(path), "pt") as file:
            about = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            if (about.get("format"), about.get("version")) != (FORMAT, VERSION):
                raise ValueError(
                    f"path: {path} must hold a {FORMAT} of version {VERSION}, got {about.get('format')} "
                    f"{about.get('version')}"
                )
            if set(file.keys()) != set(DIMS):
                raise ValueError(f"path: {path} must hold {sorted(DIMS)}, got {sorted(file.keys())}: it is damaged")
            tensors = {key: file.get_tensor(key) for key in DIMS}
    except (SafetensorError, OSError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"path: {path} is not a readable safetensors file: {error}") from None
    settings = about.get("settings")
    grid = settings.pop("grid", None) if isinstance(settings, dict) else None
    try:
        surfels = _checked(tensors, grid)
    except ValueError as error:
        raise ValueError(f"path: {path} is damaged: {error}") from None
    if about.get("checksum") != _checksum(tensors, settings | {"grid": grid}):
        raise ValueError(f"path: {path} is damaged: its checksum is not that of its content")
    return surfels, settings


def _path(path: str | os.PathLike) -> Path:
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise ValueError(f"path must be the path of a file, got {path!r}")
    return Path(path)


def _checksum(tensors: dict[str, Tensor], settings: dict) -> int:
    """Of the settings, and of the name, type, shape and bytes of each tensor."""
    total = zlib.crc32(json.dumps(settings, sort_keys=True).encode())
    for key, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), total)
    return total


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checked(tensors: dict[str, Tensor], grid: object) -> Surfels:
    """The elements, after a look at types, shapes, ranges and values."""
    if not (isinstance(grid, list) and len(grid) == 2 and all(type(x) is int and 0 < x < 1 << 15 for x in grid)):
        raise ValueError(f"grid must be two positive whole numbers, got {str(grid)[:40]}")
    sizes: dict[str, int] = {}
    for key, like in Surfels.empty(torch.zeros(1, 1, 1, 1)).tensors.items():
        tensor, dims = tensors[key], DIMS[key]
        if tensor.dtype not in (FLOATS if key == "features" else (like.dtype,)):
            raise ValueError(f"{key} must be {FLOATS if key == 'features' else like.dtype}, got {tensor.dtype}")
        shape = [int(d) if d.isdigit() else sizes.get(d, -1) for d in dims]
        if tensor.ndim != len(dims) or any(a not in (-1, b) for a, b in zip(shape, tensor.shape, strict=True)):
            raise ValueError(f"{key} must be ({', '.join(dims)}) with {sizes}, got {tuple(tensor.shape)}")
        sizes |= {d: size for d, size in zip(dims, tensor.shape, strict=True) if not d.isdigit()}
        if tensor.is_floating_point() and not all(bool(part.isfinite().all()) for part in tensor.split(1 << 16)):
            raise ValueError(f"{key} must be finite, got NaN or infinity")
    surfels = Surfels(**tensors, grid=tuple(grid))
    (n, s), (h, w) = (sizes[d] for d in "ns"), grid
    if sizes["c"] < 1:
        raise ValueError(f"channels must be positive, got {sizes}")
    for key, end in (("source", s), ("cell", h * w)):
        if n and not (int(tensors[key].min()) >= 0 and int(tensors[key].max()) < end):
            raise ValueError(f"{key} is out of range, 0 to {end - 1}")
    if not bool((surfels.plane[:, 0] > 0).all()):
        raise ValueError("plane is out of range: inverse depth must be positive")
    names = surfels.name.unique()
    if len(names) != s or (s and int(names.min()) < 0):
        raise ValueError("name must be unique and not negative")
    if len((surfels.source.long() * (h * w) + surfels.cell).unique()) != n:
        raise ValueError("cell must be unique in each view")
    check_cameras(Cameras(surfels.intrinsics, surfels.cam_from_world, h, w))
    return surfels
