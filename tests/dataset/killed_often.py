"""Prepare the same set twice: once undisturbed, once killed again and again at random moments; say how often it was.

Run as a program of one thread, so that it can fork: python killed_often.py OUT SEED.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from mirage.dataset.prepare import Settings, prepare

SETTINGS = Settings(size=(16, 32), frames=5, per_shard=1)
SOURCE = "worlds:5:40"


def main(out: Path, seed: int) -> None:
    torch.set_num_threads(1)
    prepare(SOURCE, out / "first", SETTINGS)
    start = time.monotonic()
    prepare(SOURCE, out / "calm", SETTINGS)
    whole, dice, kills = time.monotonic() - start, random.Random(seed), 0
    while True:
        child = os.fork()
        if child == 0:
            prepare(SOURCE, out / "killed", SETTINGS)
            os._exit(0)
        if kills < 4:
            time.sleep(dice.uniform(0.02, 0.6) * whole)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        assert os.WIFSIGNALED(status), "it may be killed, but not fail"
        kills += 1
    print(f"killed {kills} times")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
