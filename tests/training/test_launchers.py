"""`mirage train` under torchrun: the processes form a group, one that dies takes the run down, and it goes on."""

import os
import re
import subprocess
import sys

import pytest
from toy_training import losses, recipe_of, write_shards

from mirage.config import write_config
from mirage.training.train import train

WORDS = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "[::1]:0"]


def test_a_process_that_dies_under_torchrun_costs_the_steps_since_the_last_checkpoint(tiny_model, tmp_path):
    shards = write_shards(tmp_path / "shards", tiny_model)
    recipe = recipe_of(tiny_model, shards, log={"every": 1, "save_every": 2, "sample_every": 3, "tracker": "none"})
    path, out = tmp_path / "toy.yaml", tmp_path / "out"
    path.write_text(write_config(recipe))
    words = [*WORDS, "-m", "mirage", "train", "--recipe", str(path), "--out", str(out)]
    run = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    told = []
    for line in run.stderr:
        told.append(line)
        if "step 3 of 6" in line:
            children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
            os.kill(int(children[-1]), 9)
            break
    told.append(run.communicate()[1])
    assert run.returncode != 0 and not (out / "model").exists(), "".join(told)
    started = [line for line in told if re.search(r"2 processes, step 0 of 6", line)]
    assert len(started) == 1, "".join(told)  # one group, of which one speaks
    train(recipe, out, device="cpu")  # one process goes on with what two began
    train(recipe, tmp_path / "alone", device="cpu")
    alone = losses(tmp_path / "alone", "1-full")
    assert losses(out, "1-full") == [(step, pytest.approx(loss, rel=2e-5)) for step, loss in alone]
    assert {path.suffix for path in (out / "samples").iterdir()} == {".jpg", ".mp4"}
