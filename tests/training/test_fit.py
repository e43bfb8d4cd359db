"""The training loop: a run that was cut anywhere ends bit for bit where an uncut one does."""

import json

import pytest
import torch

from mirage.training.begun import on_threads
from mirage.training.fit import Schedule, fit, generator, save_atomic

SCHEDULE = Schedule(steps=7, lr=0.05, warmup=2, save_every=3, log_every=2)


def new_model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def loss(model, step):
    x = torch.randn(5, 3, generator=generator(1, step))
    error = (model(x) - x[:, :2].sin()).square().mean()
    return error, {"twice": 2 * error.detach()}


def test_interrupted_run_ends_where_an_uncut_one_does(tmp_path):
    whole = new_model()
    assert fit("net", whole, loss, SCHEDULE, tmp_path / "whole")
    cut, calls = None, 0
    while True:
        cut, calls = new_model(), calls + 1
        if fit("net", cut, loss, SCHEDULE, tmp_path / "cut", stop_after=0.0):
            break
    assert calls == SCHEDULE.steps
    for name, value in whole.state_dict().items():
        assert torch.equal(value, cut.state_dict()[name])


def test_it_goes_on_with_as_many_threads_as_it_began_with(tmp_path):
    """The last bits of sums depend on it."""
    seen = []

    def counted(model, step):
        seen.append(torch.get_num_threads())
        return loss(model, step)

    for count in (3, 1, 2):
        with on_threads(count):
            fit("net", new_model(), counted, SCHEDULE, tmp_path, stop_after=0.0)
            assert torch.get_num_threads() == count
    assert seen == [3, 3, 3]


def test_curve_and_weights_are_written(tmp_path):
    model = new_model()
    fit("net", model, loss, SCHEDULE, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "net.curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 7]
    assert all(abs(line["twice"] - 2 * line["loss"]) < 1e-4 for line in lines)
    assert (tmp_path / "net.safetensors").exists() and not list(tmp_path.glob("*.part"))


def test_training_reduces_the_loss(tmp_path):
    model = new_model()
    before = loss(model, 999)[0].item()
    fit("net", model, loss, Schedule(steps=200, lr=0.05, ema=0.9), tmp_path)
    assert loss(model, 999)[0].item() < 0.5 * before


def test_checkpoint_of_another_model_is_refused(tmp_path):
    fit("net", new_model(), loss, SCHEDULE, tmp_path)
    with pytest.raises(ValueError, match=r"another model.*weight"):
        fit("net", torch.nn.Linear(3, 4), loss, SCHEDULE, tmp_path)


def test_damaged_checkpoint_is_named(tmp_path):
    fit("net", new_model(), loss, SCHEDULE, tmp_path)
    path = tmp_path / "net.state.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"net\.state\.safetensors is damaged.*delete it"):
        fit("net", new_model(), loss, SCHEDULE, tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_atomic({"a": torch.ones(2)}, path)
    old = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        save_atomic({"a": "not a tensor"}, path)
    assert path.read_bytes() == old


def test_schedule_rises_and_falls():
    schedule = Schedule(steps=100, lr=1.0, warmup=10)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == 1.0 and rates[-1] < 0.05
    with pytest.raises(ValueError, match="steps"):
        Schedule(steps=0)
