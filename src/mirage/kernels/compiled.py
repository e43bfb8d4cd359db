"""What the CPU backend stands on: compilation by numba, threads, and numbers in float32."""

import functools
import inspect
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 15  # pieces of work below which a second thread, or compiling at all, costs more than it brings
ROUNDING = 1e-5  # relative width of bounds, about a hundred times the rounding of float32
ZERO, HALF, ONE, TWO, INF = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2), np.float32(np.inf)


def jit(function: Callable) -> Callable:
    """Compile a function on its first call, to run without the interpreter's lock.

    The result is kept on disk where that is possible. Products and sums are rounded one by one (no fastmath).

    Args:
        function: What numba understands.

    Returns:
        The compiled function.
    """
    function = inspect.unwrap(function)  # of the check of annotations
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no place to write the cache to
        return numba.njit(nogil=True, error_model="numpy")(function)


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of this process; a forked one gets its own."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mirage-kernels")


def each(count: int, work: int, task: Callable[[int], None]) -> None:
    """Do the tasks 0 to count - 1, on as many threads as torch may use if there is enough to do.

    Args:
        count: Number of tasks, which must write to places of their own.
        work: Pieces of work in all of them together.
        task: Does one task, given its number.
    """
    threads = min(torch.get_num_threads(), count, 1 + work // SMALL)
    left = itertools.count()

    def worker() -> None:
        while (number := next(left)) < count:
            task(number)

    others = [_pool(os.getpid()).submit(worker) for _ in range(threads - 1)]
    worker()
    for other in others:
        other.result()


def parts(count: int, multiple: int = 1) -> list[slice]:
    """Cut rows into ranges, two per thread.

    Args:
        count: Number of rows.
        multiple: Of which the ranges' ends are, but for the last one's.

    Returns:
        The ranges, none empty.

    Example:
        >>> parts(5, 8)
        [slice(0, 5, None)]
    """
    number = 2 * torch.get_num_threads()
    edges = [count * i // number // multiple * multiple for i in range(number)] + [count]
    return [slice(a, b) for a, b in itertools.pairwise(edges) if a < b]


def array(tensor: Tensor, dtype: torch.dtype | None = None) -> np.ndarray:
    """Give the numbers of a tensor to numba, without a copy where they are contiguous and of the dtype.

    Not by torch: its threads would go on waiting for work, and take time from those of `each`.

    Args:
        tensor: On the CPU.
        dtype: What numba shall see; that of the tensor if None.

    Returns:
        The array.

    Example:
        >>> array(torch.tensor([[1, 2, 3]]), torch.int32).dtype
        dtype('int32')
    """
    wanted = torch.empty(0, dtype=dtype or tensor.dtype).numpy().dtype
    return np.ascontiguousarray(tensor.detach().numpy(), wanted)
