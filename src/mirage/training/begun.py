"""A run goes on with the arithmetic that it was begun with: the last bits of sums depend on the number of threads."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from mirage.video.io import write_json

logger = logging.getLogger(__name__)


def begun_threads(path: Path) -> int:
    """With how many threads a run on the CPU was begun; one that begins now writes it down.

    What else makes other bits cannot be chosen, and is told of: another release of torch, another kind of processor.

    Args:
        path: Says with what the run was begun; made if missing.

    Returns:
        The number of threads.
    """
    here = {"torch": str(torch.__version__), "processor": torch.backends.cpu.get_cpu_capability()}
    if not path.is_file():
        write_json(path, {"threads": torch.get_num_threads()} | here)
    begun = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{name} {begun[name]}, here {here[name]}" for name in here if begun[name] != here[name]]
    if other:
        logger.warning("begun with %s: it goes on, but not bit for bit", "; ".join(other))
    if begun["threads"] != torch.get_num_threads():
        logger.info("goes on with %d threads, as it was begun", begun["threads"])
    return begun["threads"]


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
