"""Laws of the measure of mended reads: the same cells for all, nothing gained by a mover that does nothing."""

import json

import pytest
import torch
import torch.nn.functional as F

from mirage.camera.cameras import Cameras
from mirage.evaluation.moved_reads import CODED, GATHER, WARP, Pair, read_pair, tables, there_and_back, write
from mirage.evaluation.real_loops import Views
from mirage.memory import LatentMover
from mirage.video.codec import LatentCodec

STRIDE, H, W = 4, 24, 40


class Means(LatentCodec):
    """The mean colour of 4 x 4 pixels."""

    channels, stride, temporal_stride = 3, STRIDE, 1

    def encode(self, frames):
        return F.avg_pool2d(frames.flatten(0, 1), STRIDE).unflatten(0, frames.shape[:2])

    def decode(self, latents):
        return F.interpolate(latents.flatten(0, 1), scale_factor=STRIDE).unflatten(0, latents.shape[:2])


def wall(step: float, gain: float = 1.0) -> Views:
    """A smooth wall at depth 2, seen from two places `step` pixels apart; the second picture is darker by `gain`."""
    k = torch.tensor([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1.0]]).repeat(2, 1, 1)
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[1, 0, 3] = -2 * step / W
    cameras = Cameras(k, pose, H, W)
    xy = cameras.unproject(torch.full((2, H, W), 2.0))[..., :2]
    colour = torch.stack([(3 * xy[..., 0]).sin(), (4 * xy[..., 1]).cos(), (5 * xy.sum(-1)).sin()], 1) * 0.7
    colour[1] *= gain
    return Views(colour, torch.full((2, H, W), 2.0), cameras)


def row(views: Views, **movers: LatentMover) -> tuple[float, torch.Tensor, dict, dict]:
    got = read_pair(Means(), views, movers)
    assert got is not None
    return got


def test_a_mover_at_its_start_is_the_gather_and_ways_agree_outside_the_cells():
    motion, cells, pictures, latents = row(wall(6), fresh=LatentMover(channels=3, split=2, features=2, width=4))
    assert motion == pytest.approx(6 / W, abs=1e-3) and 20 <= int(cells.sum()) < cells.numel()
    assert torch.equal(latents["fresh"], latents[GATHER])
    outside = ~cells
    assert all(torch.equal(x[:, outside], latents["ceiling"][:, outside]) for x in latents.values())
    assert set(pictures) == {*latents, WARP}


def test_whole_cells_are_read_exactly_and_no_motion_is_the_ceiling():
    for step in (0, 2 * STRIDE):
        _, cells, _, latents = row(wall(step))
        torch.testing.assert_close(latents[GATHER][:, cells], latents["ceiling"][:, cells], atol=2e-3, rtol=0)


def test_exposure_is_no_fault_of_a_read():
    errors = []
    for gain in (1.0, 0.6):
        views = wall(8, gain)
        _, cells, pictures, _ = row(views)
        inside = cells.repeat_interleave(STRIDE, 0).repeat_interleave(STRIDE, 1)
        errors.append(float((pictures[WARP] - views.colour[1])[:, inside].abs().max() / gain))
    assert max(errors) < 0.02


def test_places_without_anything_in_common_do_not_count():
    assert read_pair(Means(), wall(W - 3), {}) is None


def test_trips_without_motion_change_nothing_and_with_motion_wear_off():
    still = there_and_back(Means(), wall(0), {}, trips=(1, 3))
    assert still[GATHER] == pytest.approx(2 * still["no trip"], abs=1e-3)
    worn = there_and_back(Means(), wall(2), {}, trips=(1, 4))
    assert worn[GATHER][1] < worn[GATHER][0] < worn["no trip"][0]


def test_tables_tell_shares_of_the_way(tmp_path):
    psnr = {GATHER: 20.0, "mover": 23.0, CODED: 24.0, "ceiling": 30.0, WARP: 25.0}
    other = {key: value - 1 for key, value in psnr.items()} | {"mover": 18.0}
    same = {"sequence": "one", "frames": (0, 1), "motion": 0.05, "cells": 30, "nmse": {"mover": 0.5}, "cosine": {}}
    rows = [Pair(**same, psnr=psnr), Pair(**same, psnr=other)]
    write(tmp_path, rows)
    text = (tmp_path / "tables.md").read_text()
    assert tables(rows) == text
    assert (
        "| mover | 20.50 (18.00, 23.00) | 1.00 (-1.00, 3.00) | 20 % | 25 % | 1 of 2 | 0.50 (0.50, 0.50) | - |" in text
    )
    assert json.loads((tmp_path / "pairs.json").read_text())[0]["psnr"] == psnr
