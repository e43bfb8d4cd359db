"""Training by a recipe: from shards to a model, resumed bit for bit, the same over several processes."""

import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_training import losses, recipe_of, start, write_shards

from mirage.camera.cameras import Cameras
from mirage.config import read_config
from mirage.pipeline import MiragePipeline
from mirage.training.begun import on_threads
from mirage.training.recipe import Recipe
from mirage.training.train import train

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def shards(tiny_model, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", tiny_model)


@pytest.fixture(scope="module")
def undisturbed(tiny_model, shards, tmp_path_factory):
    """The curve of a run that nothing happens to."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(recipe_of(tiny_model, shards), out, device="cpu")
    return losses(out, "1-full")


def test_the_toy_recipe_trains_from_shards_to_a_model_that_walks(tiny_model, shards, tmp_path):
    changes = [f"model.base={tiny_model}", f"data=[{shards}]", "log.every=1", "log.tracker=tensorboard"]
    changes += ["stages.0.steps=50", "stages.1.steps=2", "stages.2.steps=2", "log.sample_every=50"]
    changes += [f"stages.{i}.batch=4" for i in range(3)]
    recipe = read_config(Recipe, RECIPES / "toy.yaml", changes)
    folder = train(recipe, tmp_path / "out", device="cpu")
    curve = [loss for _, loss in losses(tmp_path / "out", "1-full")]
    assert len(curve) == 50 and np.mean(curve[-10:]) < 0.6 * np.mean(curve[:3])
    assert len(losses(tmp_path / "out", "2-branch")) == len(losses(tmp_path / "out", "3-lora")) == 2
    pipeline = MiragePipeline.from_pretrained(folder)
    assert not getattr(pipeline.transformer, "peft_config", None)
    output = pipeline(np.zeros((32, 48, 3), np.uint8), Cameras.from_fov(1.0, 32, 48, frames=5), num_inference_steps=1)
    assert output.frames.shape == (5, 32, 48, 3)
    assert {path.suffix for path in (tmp_path / "out" / "samples").iterdir()} == {".jpg", ".mp4"}
    assert list((tmp_path / "out").rglob("events.out.tfevents*"))
    assert train(recipe, tmp_path / "out", device="cpu") == folder  # which is done, and said at once


def test_a_run_that_is_killed_goes_on_bit_for_bit(tiny_model, shards, undisturbed, tmp_path):
    recipe, out, step = recipe_of(tiny_model, shards), tmp_path / "run", random.randint(1, 5)
    run = start(recipe, out, last=step)
    assert run.returncode == -signal.SIGKILL and len(losses(out, "1-full")) == step, run.stderr
    train(recipe, out, device="cpu")
    assert losses(out, "1-full") == undisturbed, f"killed at step {step}"


def test_a_run_that_is_stopped_by_the_clock_goes_on_bit_for_bit(tiny_model, shards, undisturbed, tmp_path):
    out, calls = tmp_path / "run", 0
    recipe, threads = recipe_of(tiny_model, shards, log={"every": 4, "save_every": 100, "tracker": "none"}), []
    while True:
        with on_threads((torch.get_num_threads(), 4, 5, 8)[calls % 4]):  # a run goes on with those that it began with
            done = train(recipe, out, device="cpu", stop_after=0.0)
            threads.append(torch.get_num_threads())
        if done is not None:
            break
        calls += 1
    assert calls == 5 and threads[1:4] == [4, 5, 8], "what the caller chose is left alone"
    alone = [loss for _, loss in undisturbed]
    assert losses(out, "1-full") == [(4, sum(alone[:4]) / 4), (6, sum(alone[4:]) / 2)]


def test_two_processes_give_the_losses_of_one_with_the_doubled_batch(tiny_model, shards, undisturbed, tmp_path):
    short = {"train": "full", "steps": 3}
    ddp = recipe_of(tiny_model, shards, short)
    fsdp = recipe_of(tiny_model, shards, short, compute={"precision": "float32", "parallel": "fsdp"})
    run = start(ddp, tmp_path / "run", fsdp, processes=2)
    assert run.returncode == 0, run.stderr
    for out in (tmp_path / "run", tmp_path / "run-1"):
        for (step, loss), (same, alone) in zip(losses(out, "1-full"), undisturbed[:3], strict=True):
            assert step == same and loss == pytest.approx(alone, rel=2e-5)
        MiragePipeline.from_pretrained(out / "model")


def test_samples_one_after_another_are_samples_at_once(tiny_model, shards, undisturbed, tmp_path):
    recipe = recipe_of(tiny_model, shards, {"train": "full", "steps": 3, "micro_batch": 1})
    train(recipe, tmp_path / "run", device="cpu")
    assert losses(tmp_path / "run", "1-full") == [(n, pytest.approx(loss, rel=2e-5)) for n, loss in undisturbed[:3]]


def test_the_branch_alone_then_an_adapter_change_nothing_else(tiny_model, shards, tmp_path):
    before = MiragePipeline.from_pretrained(tiny_model).transformer.state_dict()
    stages = {"train": "branch", "steps": 2}, {"train": "lora", "steps": 2, "rank": 2, "alpha": 6.0, "lora_on": ["q"]}
    recipe = recipe_of(tiny_model, shards, *stages, compute={"precision": "float32", "gradient_checkpointing": True})
    after = MiragePipeline.from_pretrained(train(recipe, tmp_path / "run", device="cpu")).transformer.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    branch = {name for name in before if name.startswith("vace_")}
    queries = {name for name in before if name.startswith("blocks.") and name.endswith("to_q.weight")}
    assert changed <= branch | queries and queries <= changed and len(changed & branch) > len(branch) / 2


def test_joint_training_moves_branch_and_adapter_at_once(tiny_model, shards, tmp_path):
    before = MiragePipeline.from_pretrained(tiny_model).transformer.state_dict()
    recipe = recipe_of(tiny_model, shards, {"train": "joint", "steps": 2, "rank": 2, "alpha": 2.0})
    after = MiragePipeline.from_pretrained(train(recipe, tmp_path / "run", device="cpu")).transformer.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "vace_patch_embedding.weight" in moved and "blocks.1.ffn.net.2.weight" in moved
    assert "patch_embedding.weight" not in moved and "blocks.1.ffn.net.2.bias" not in moved
