"""The benchmark of the 5B model at toy size: it runs, keeps what it measured, and its plane is a plane."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path

PATH = Path(__file__).parents[1] / "benchmarks" / "gpu" / "rollout_5b.py"


@pytest.fixture(scope="module")
def rollout():
    spec = importlib.util.spec_from_file_location("rollout_5b", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_small_run_is_whole_and_is_not_made_again(rollout, tmp_path, capsys):
    out = tmp_path / "kept" / "rollout.json"
    words = ["--small", "--chunks", "1", "--out", str(out)]
    assert rollout.main(words) == 0
    said, kept = capsys.readouterr().out, json.loads(out.read_text())
    assert kept["rows"].keys() == {"latent", "colour"}
    for rows in kept["rows"].values():
        assert len(rows) == 1 and rows[0]["steps made"] == rows[0]["steps"] == 3
        assert rows[0]["seconds"].keys() >= set(rollout.PHASES) and 0 < rows[0]["known"] <= 1
    assert all(f"- {name}: " in said for name in rollout.AIMS) and "| latent |" in said
    assert rollout.main(words) == 0
    assert json.loads(out.read_text()) == kept and "latent, chunk 1" not in capsys.readouterr().out


def test_steps_that_were_not_made_are_extrapolated(rollout):
    row = {"seconds": {"denoise": 4.0, "read": 0.25}, "steps made": 4, "steps": 40, "step": 1.0}
    row |= {"peak bytes": None, "memory bytes": 2**20, "known": 1.0}
    assert rollout.totals([row, row])["denoise"] == 80 and rollout.totals([row, row])["read"] == 0.5
    colour = row | {"seconds": {"denoise": 4.0, "read": 5.0}, "memory bytes": 60 * 2**20}
    met = rollout.aims({"rows": {"latent": [row], "colour": [colour]}}, 32)
    assert met["seconds per frame"] == (40.25 / 32, False)
    assert met["conditioning, times faster than colour"] == (20.0, True)
    assert met["cache, times smaller than colour"] == (60.0, True)
    assert met["conditioning, share of the time"] == (0.25 / 40.25, True)
    assert "extrapolated" in rollout.report({"rows": {"latent": [row]}}, 32)


def test_the_plane_is_four_units_away_from_everywhere(rollout):
    path = build_path("forward 1, right 20deg, up 0.3", 9, Cameras.from_fov(1.2, 64, 96)).cameras
    depth = rollout.Plane().estimate(None, torch.zeros(9, 48, 4, 6), path)
    assert depth.shape == (9, 4, 6) and bool((depth < 50).all())
    assert (path.unproject(depth)[..., 2] - 4.0).abs().max() < 1e-4
