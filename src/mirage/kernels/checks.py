"""What the operations refuse: arguments that do not fit the signature, and on the CPU values that none can use.

A tensor on a GPU is asked for its shape, dtype and device alone: a look at its values would make the host wait.
"""

import functools
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "bool")
P, R = ParamSpec("P"), TypeVar("R")


def checked(**ranges: Callable[[dict], tuple[int, int]]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let an operation refuse what its annotations do not allow.

    Tensors must be dense, of the annotated type and shape (a letter is one size throughout) and on one device; numbers
    must be numbers. On the CPU matrices of cameras must be finite, those of intrinsics with positive focal lengths, and
    indices in their range: they are not looked at again before something is read or written there.

    Args:
        ranges: By name of an argument of indices: its range, end excluded, given all arguments by name.

    Returns:
        What makes the operation such a one.

    Raises:
        ValueError: When the operation is called, if devices differ or an argument is refused; the message names it.

    Example:
        >>> from jaxtyping import Float, Int
        >>> @checked(index=lambda given: (0, len(given["rows"])))
        ... def take(rows: Float[Tensor, "n c"], index: Int[Tensor, " m"]):
        ...     return rows[index]
        >>> take(torch.ones(2, 3), torch.tensor([2]))
        Traceback (most recent call last):
        ValueError: index must be from 0 to 1, got 2 to 2
        >>> take(torch.ones(2), torch.tensor([0]))
        Traceback (most recent call last):
        ValueError: rows must be (n, c), got (2,)
    """

    def decorate(operation: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(operation)
        kinds = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        tensors = {
            name: ([getattr(torch, dtype) for dtype in DTYPES if dtype in kind.dtypes], kind.dim_str.split())
            for name, kind in kinds.items()
            if hasattr(kind, "dim_str")
        }
        cameras = [name for name, (_, dims) in tensors.items() if dims[1:] in (["3", "3"], ["4", "4"])]

        @functools.wraps(operation)
        def refusing(*args: P.args, **options: P.kwargs) -> R:
            given = signature.bind(*args, **options).arguments
            sizes: dict[str, tuple[int, str]] = {}
            for name, (dtypes, dims) in tensors.items():
                _check_tensor(name, given[name], dtypes, dims, sizes)
            devices = {given[name].device for name in tensors}
            if len(devices) > 1:
                where = ", ".join(f"{name} on {given[name].device}" for name in tensors)
                raise ValueError(f"{', '.join(tensors)} must be on one device, got {where}: use .to")
            for name in given.keys() - tensors.keys():
                _check_number(name, given[name], kinds[name])
            if devices == {torch.device("cpu")}:
                for name in cameras:
                    _check_matrices(name, given[name])
                for name, range_of in ranges.items():
                    _check_range(name, given[name], *range_of(given))
            return operation(*args, **options)

        return refusing

    return decorate


def _check_tensor(
    name: str, value: object, dtypes: list[torch.dtype], dims: list[str], sizes: dict[str, tuple[int, str]]
) -> None:
    """Refuse a tensor; `sizes` are those of the letters so far, and whose they are."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(value).__name__}: use torch.as_tensor")
    if value.layout != torch.strided or value.is_nested:
        raise ValueError(f"{name} must be a dense tensor, got {value.layout}: use .to_dense()")
    if value.dtype not in dtypes:
        raise ValueError(f"{name} must be of {', '.join(map(str, dtypes))}, got {value.dtype}: use .to")
    known = {d: sizes[d] for d in dims if d in sizes}
    fits = value.ndim == len(dims) and all(
        size == (int(d) if d.isdigit() else sizes.setdefault(d, (size, name))[0])
        for d, size in zip(dims, value.shape, strict=True)
    )
    if not fits:
        others = "".join(f", {d} = {size} as in {whose}" for d, (size, whose) in known.items())
        raise ValueError(f"{name} must be ({', '.join(dims)}){others}, got {tuple(value.shape)}")


def _check_number(name: str, value: object, kind: object) -> None:
    if kind is int and (not isinstance(value, Integral) or isinstance(value, bool)):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if kind is float and (not isinstance(value, Real) or isinstance(value, bool) or math.isnan(value)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if kind == tuple[int, int]:
        pair = isinstance(value, tuple) and len(value) == 2
        if not pair or not all(isinstance(x, Integral) and x > 0 for x in value):
            raise ValueError(f"{name} must be two positive whole numbers, got {value!r}")


def _check_matrices(name: str, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if value.shape[-1] == 3 and len(value) and not float(value.detach().diagonal(dim1=1, dim2=2).min()) > 0:
        raise ValueError(f"{name} must have positive focal lengths and a last row of 0 0 1, got a singular matrix")


def _check_range(name: str, value: Tensor, low: int, end: int) -> None:
    if value.numel():
        numbers = value.detach().numpy()  # its own threads would go on waiting, and take time from those of the kernels
        least, most = int(numbers.min()), int(numbers.max())
        if least < low or most >= end:
            raise ValueError(f"{name} must be from {low} to {end - 1}, got {least} to {most}")
