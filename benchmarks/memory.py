"""The memory measured in one run: speed, bytes, exactness, real loops, growth of cost. See docs/evaluation.md.

    python benchmarks/memory.py                         # all of it, a quarter of an hour on two cores
    python benchmarks/memory.py --parts bytes,growth    # some parts; those that were measured before are kept

The same as `mirage bench memory --out benchmarks/memory`, whose options it takes: the table is
`benchmarks/memory/memory.md`, with the curves beside it.
"""

import sys
from pathlib import Path

from mirage.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "memory", "--out", str(Path(__file__).with_suffix("")), *sys.argv[1:]]))
