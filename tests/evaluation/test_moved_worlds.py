"""Reads at another pose against the truth: what is compared, what is pooled, what is resumed."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from mirage.camera.cameras import Cameras
from mirage.evaluation.moved_worlds import (
    MOTIONS,
    WARPS,
    MovedWorlds,
    compare,
    evaluate,
    format_tables,
    read_pair,
    summarise,
)
from mirage.memory import LatentMemory
from mirage.video.codec import LatentCodec
from mirage.video.nano import NanoAutoencoder, NanoCodec

READS = {"nearest": partial(LatentMemory.from_view, read="nearest"), "gather": LatentMemory.from_view}


class Means(LatentCodec):
    """Latents are the mean colours of blocks of 4 x 4 pixels."""

    stride, temporal_stride, channels = 4, 4, 3

    def encode(self, frames):
        return torch.nn.functional.avg_pool3d(frames.transpose(1, 2), (1, 4, 4)).transpose(1, 2)

    def decode(self, latents):
        return latents.repeat_interleave(4, 3).repeat_interleave(4, 4)


def wall(shift, height=20, width=36):
    """A striped wall two units away, seen from two places `shift` pixels apart."""
    k = torch.tensor([[20.0, 0.0, width / 2], [0.0, 20.0, height / 2], [0.0, 0.0, 1.0]]).expand(2, 3, 3)
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[1, 0, 3] = -shift * 2 / 20
    x = torch.arange(width) + 0.5
    colour = torch.stack([torch.sin((x + s) * 0.7).expand(3, height, width) for s in (0, shift)])
    return colour, torch.full((2, height, width), 2.0), Cameras(k, pose, height, width)


def test_without_motion_a_read_is_the_ceiling():
    pair = read_pair(Means(), *wall(0), READS)
    assert pair.motion == 0 and pair.cells.all()
    for name in READS:
        assert torch.equal(pair.decoded[name], pair.decoded["ceiling"]) and pair.filled[name] == 1


def test_a_shift_by_whole_cells_costs_nothing_and_by_parts_of_one_only_latents():
    colour, *_ = whole = wall(8)
    pair = read_pair(Means(), *whole, READS)
    assert abs(pair.motion - 8 / 36) < 1e-4
    assert pair.covisible.sum() == 5 * 7  # two columns of nine have come into view
    assert (pair.decoded["gather"] - pair.decoded["ceiling"]).abs().max() < 1e-4
    inside = lambda pair: pair.cells.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert (pair.decoded["rgb"] - colour[1])[:, inside(pair)].abs().max() < 1e-3
    colour, *_ = half = wall(6)
    pair = read_pair(Means(), *half, READS)
    off = {name: (picture - colour[1])[:, inside(pair)].square().mean() for name, picture in pair.decoded.items()}
    assert off["rgb"] < 1e-5 < off["rgb re-encoded"] < off["gather"] < off["nearest"]


def test_outside_the_cells_the_truth_is_decoded_and_inside_no_hole():
    colour, depth, cameras = wall(6)
    closer = cameras.cam_from_world.clone()
    closer[1, 2, 3] = -0.5  # what is seen grows, so that the nearest read leaves rows and columns empty
    cameras = Cameras(cameras.intrinsics, closer, cameras.height, cameras.width)
    pair = read_pair(Means(), colour, depth - torch.tensor([0.0, 0.5]).view(2, 1, 1), cameras, READS)
    assert 0 < pair.cells.sum() < pair.cells.numel()
    for latents in (pair.latents["gather"], pair.latents["nearest"]):
        assert torch.equal(latents[:, ~pair.cells], pair.latents["ceiling"][:, ~pair.cells])
    assert pair.filled["nearest"] < 0.9 and pair.filled["gather"] == 1
    same = (pair.latents["nearest"] == pair.latents["gather"]).all(0)
    assert (same & pair.cells).any() and (~same & pair.cells).any()


def record(seed, square, cells=10, where="0"):
    reads = {name: {"square": s * cells, "filled": 1.0 * cells} for name, s in square.items()}
    return {"seed": seed, "image": 30.0, "video": 29.0, where: {"cells": cells, "reads": reads}}


def test_errors_are_pooled_in_a_world_and_decibels_averaged_over_worlds():
    square = {"gather": 1e-2, **dict.fromkeys(WARPS, 1e-3), "rgb": 1e-4, "mover": 1e-3}
    results = summarise([record(0, square), record(1, {k: v * 10 for k, v in square.items()}, where="2")])
    every = results["motion"]["all"]["reads"]
    assert np.isclose(every["gather"]["psnr"]["mean"], 15) and np.isclose(every["mover"]["gain"]["mean"], 10)
    assert np.isclose(every["mover"]["way"], 0.5) and np.isclose(every["mover"]["coded"], 1)
    assert every["mover"]["gain"]["low"] == pytest.approx(every["mover"]["gain"]["high"])  # paired by world
    assert every["gather"]["psnr"]["low"] < 11 and set(results["motion"]) == {"all", "0", "2"}
    both = record(0, square) | {"1": record(0, {k: 3 * v for k, v in square.items()}, cells=30)["0"]}
    pooled = summarise([both])["motion"]["all"]["reads"]["gather"]["psnr"]["mean"]
    assert np.isclose(pooled, -10 * np.log10(0.25 * 1e-2 + 0.75 * 3e-2))
    assert f"above {100 * MOTIONS[-1]:.0f} %" not in format_tables(results)
    assert f"{100 * MOTIONS[1]:.0f} % to {100 * MOTIONS[2]:.0f} %" in format_tables(results)


def test_runs_are_compared_world_by_world(tmp_path):
    square = {"gather": 1e-2, **dict.fromkeys(WARPS[1:], 1e-3)}
    for name, factor in (("a", 1.0), ("b", 10.0)):
        (tmp_path / name).mkdir()
        worlds = [record(seed, {k: v * factor * (seed + 1) for k, v in square.items()}) for seed in (0, 1)]
        lines = [{"reads": ["gather"]}, *worlds, record(7 + (name == "a"), square)]
        (tmp_path / name / "worlds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = compare(tmp_path / "a", tmp_path / "b").splitlines()
    assert len(told) == 4 and told[2].count("+10.00 (+10.00, +10.00)") == 4 and "| up to 3 % |" in told[3]
    assert "-10.00" in compare(tmp_path / "b", tmp_path / "a")


def test_a_run_that_was_cut_goes_on_and_ends_the_same(tmp_path):
    torch.manual_seed(0)
    codec = NanoCodec(NanoAutoencoder(latent_channels=4, widths=(4, 8, 16), blocks=(1, 1, 1)).eval())
    config = MovedWorlds(worlds=2, size=(40, 56), first_seed=1_000_003)
    whole = evaluate(codec, READS, config, tmp_path / "a", sheets=1)
    assert [p.name for p in (tmp_path / "a").glob("*.png")] == ["sheet-1000003.png"]
    journal = tmp_path / "b" / "worlds.jsonl"
    journal.parent.mkdir()
    journal.write_text((tmp_path / "a" / "worlds.jsonl").read_text()[:-40])  # the last world was cut off
    done = []
    assert evaluate(codec, READS, config, tmp_path / "b", on_world=lambda *n: done.append(n)) == whole
    assert done == [(1, 2), (2, 2)] and len(journal.read_text().splitlines()) == 3
    assert json.loads((tmp_path / "b" / "results.json").read_text())["settings"]["size"] == [40, 56]
    told = compare(tmp_path / "a", tmp_path / "b").splitlines()
    assert "| video | nearest | gather | rgb re-encoded |" in told[0] and "+0.00 (+0.00, +0.00)" in told[2]
    with pytest.raises(ValueError, match="there must be results in"):
        compare(tmp_path / "a", tmp_path)
    with pytest.raises(ValueError, match="out must be a new folder or hold results of"):
        evaluate(codec, {"gather": READS["gather"]}, config, tmp_path / "b")
    with pytest.raises(ValueError, match="must be positive"):
        MovedWorlds(worlds=0)
