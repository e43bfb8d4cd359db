"""The door: which module does the arithmetic of an operation, chosen from the device of its tensors on first use.

A backend has the functions of `reference`: `nearest_points`, `nearest_cells`, `rows`, `cell_planes`, `surfel_hits`,
`surfel_points`, `gather_rows`, `seen_through` and `voxel_overlap`, with its arguments and results. `reference` runs
everywhere, `cpu` (numba) where tensors are on the CPU, `gpu` (Triton) where they are on CUDA. The environment variable
MIRAGE_KERNELS, and `use` before it, name one for all devices.
"""

import contextlib
import functools
import importlib
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType

from torch import Tensor

NAMES = ("reference", "cpu", "gpu")
_LOG = logging.getLogger(__name__)
_wanted: ContextVar[str | None] = ContextVar("wanted", default=None)


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Let one backend do all operations of this thread, for tests and benchmarks.

    Args:
        name: "reference", "cpu" or "gpu".

    Yields:
        Nothing; the choice ends with the block.

    Raises:
        ValueError: If there is no such backend, or it cannot be loaded here.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    _, error = _loaded(name)
    if error is not None:
        raise ValueError(f"name {name!r}: this backend needs a package that is not installed: {error}")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)


def of(tensor: Tensor) -> ModuleType:
    """The backend for an operation on this tensor: the wanted one, else the fastest that can be loaded here.

    Args:
        tensor: Any argument of the operation.

    Returns:
        The module.

    Raises:
        ValueError: If MIRAGE_KERNELS does not name a backend.

    Example:
        >>> import torch
        >>> with use("reference"):
        ...     of(torch.zeros(2, 3)).__name__
        'mirage.kernels.reference'
    """
    name = _wanted.get() or os.environ.get("MIRAGE_KERNELS") or {"cpu": "cpu", "cuda": "gpu"}.get(tensor.device.type)
    if name not in (*NAMES, None):
        raise ValueError(f"MIRAGE_KERNELS must be one of {', '.join(NAMES)} or unset, got {name!r}")
    return _loaded(name or "reference")[0]


@functools.cache
def _loaded(name: str) -> tuple[ModuleType, ImportError | None]:
    """The backend, or the reference and the reason if a package is missing."""
    try:
        return importlib.import_module(f"mirage.kernels.{name}"), None
    except ImportError as error:
        _LOG.info("kernels: the plain PyTorch reference is used, since backend %r cannot be loaded: %s", name, error)
        return importlib.import_module("mirage.kernels.reference"), error
