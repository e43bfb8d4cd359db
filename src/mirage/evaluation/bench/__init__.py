"""The memory measured: speed, bytes, exactness, real loops and growth of cost, in one run."""

from mirage.evaluation.bench.run import PARTS as PARTS
from mirage.evaluation.bench.run import MemoryBench as MemoryBench
from mirage.evaluation.bench.run import run as run
