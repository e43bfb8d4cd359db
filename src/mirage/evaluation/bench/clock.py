"""Time, taken fairly: contenders in turn, medians, and what the machine itself can do, measured in the same run."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from mirage.kernels.backend import use

Contender = Callable[[], Callable[[], object]]
"""Prepares, outside the clock, what is then timed."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one contender."""

    cold: float
    """The very first call, compilation and all."""
    rounds: list[float]
    """The calls that count, one per round."""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    def over(self, other: "Times") -> float:
        """How many times this takes what the other takes: the median of the rounds' ratios."""
        return statistics.median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))


def interleaved(contenders: dict[str, Contender], *, rounds: int, seconds: float) -> dict[str, Times]:
    """Time contenders in turn, so that a busy minute of the machine meets all of them.

    In its turn each is called twice and the second call counts: torch's threads go on waiting for some 10 ms after an
    operation, and whoever came next would pay for them.

    Args:
        contenders: What to time.
        rounds: Turns of each, after one cold and one warm call.
        seconds: Stop after the round in which so many seconds have passed, but not before the third.

    Returns:
        Times by name.

    Example:
        >>> times = interleaved({"a": lambda: lambda: 1, "b": lambda: lambda: 2}, rounds=3, seconds=1.0)
        >>> len(times["b"].rounds), times["a"].over(times["a"])
        (3, 1.0)
    """
    cold = {name: timed(prepare()) for name, prepare in contenders.items()}
    for prepare in contenders.values():
        prepare()()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - start > seconds:
            break
        names = list(contenders)
        for name in names[done % len(names) :] + names[: done % len(names)]:
            contenders[name]()()
            taken[name].append(timed(contenders[name]()))
    return {name: Times(cold=cold[name], rounds=taken[name]) for name in contenders}


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine reaches with the threads that are set: bounds for all that runs on it."""

    bandwidth: float
    """Bytes per second, read and written, of a large copy."""
    flops: float
    """Float operations per second of a large float32 matrix product."""
    lookups: float
    """Random 8-byte reads per second from a table that the nearest cache holds."""

    @classmethod
    def measure(cls, *, size: int = 1 << 26) -> "Machine":
        """Measure it; a second or two at the default size (floats in the copy)."""
        best = lambda run: min(timed(run) for _ in range(15))
        source, target = torch.ones(size), torch.ones(size)
        copied = best(lambda: target.copy_(source))
        side = min(2048, int(size**0.5))
        matrix = torch.ones(side, side)
        product = best(lambda: matrix @ matrix)
        table, index = torch.ones(3520, dtype=torch.int64), torch.randint(3520, (size // 16,))
        looked = best(lambda: table[index])
        return cls(bandwidth=8 * size / copied, flops=2 * side**3 / product, lookups=len(index) / looked)

    def least(self, *, nbytes: float, flops: float, lookups: float) -> tuple[float, float]:
        """Seconds below which work cannot come: if all overlaps, and if nothing does."""
        terms = nbytes / self.bandwidth, flops / self.flops, lookups / self.lookups
        return max(terms), sum(terms)

    def __str__(self) -> str:
        return (
            f"{self.bandwidth / 1e9:.1f} GB/s copied (read + written), {self.flops / 1e9:.0f} GFLOP/s in a float32 "
            f"matrix product, {self.lookups / 1e6:.0f} million random reads per second from the cache"
        )


def cpu_backends() -> list[str]:
    """The backends that run on this CPU, the specification first; or the one that MIRAGE_KERNELS names."""
    if named := os.environ.get("MIRAGE_KERNELS"):
        return [named]
    names = ["reference"]
    try:
        with use("cpu"):
            names.append("cpu")
    except ValueError:
        pass  # its package is not installed
    return names


def hardware() -> str:
    """The machine and the software, in one line."""
    info = Path("/proc/cpuinfo")
    named = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    packages = ", ".join(f"{package} {_version(package)}" for package in ("torch", "numba", "diffusers"))
    return (
        f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB; {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, {packages}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
