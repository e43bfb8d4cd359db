"""Walks: rigid, smooth, free of collisions, and back where they promise to be."""

import pytest
import torch

from mirage.scenes import Worlds, render, sample_path

KINDS = ["walk", "there-and-back", "abab", "orbit", "pan", "truck"]


@pytest.fixture(scope="module")
def worlds() -> Worlds:
    return Worlds.sample(range(5))


@pytest.mark.parametrize("kind", KINDS)
def test_walks_touch_nothing(worlds, kind):
    """Nothing is nearer to a camera than the margin, in any direction that it looks."""
    for i in range(len(worlds)):
        cameras = sample_path(worlds[i], i, 17, kind=kind, height=16, width=20, speed=2.0)[::5]
        depth = render(worlds[i], cameras, supersample=1).depth
        distance = (cameras.unproject(depth[0]) - cameras.centers[:, None, None]).norm(dim=-1)
        assert distance[depth[0] > 0].min() > 0.34
        size = worlds.size[i, 0]
        assert (cameras.centers[:, 0].abs() < size[0] - 0.34).all()
        assert (cameras.centers[:, 2].abs() < size[2] - 0.34).all()


@pytest.mark.parametrize("kind", KINDS)
def test_walks_are_rigid_smooth_and_repeatable(worlds, kind):
    a, b = (sample_path(worlds[1], 5, 33, kind=kind, height=40, width=56) for _ in range(2))
    assert torch.equal(a.cam_from_world, b.cam_from_world) and torch.equal(a.intrinsics, b.intrinsics)
    turn = a.cam_from_world[:, :3, :3]
    assert torch.allclose(turn @ turn.mT, torch.eye(3).expand_as(turn), atol=1e-6)
    step = (a.centers[1:] - a.centers[:-1]).norm(dim=-1)
    angle = ((turn[1:] @ turn[:-1].mT).diagonal(dim1=1, dim2=2).sum(-1) - 1).div(2).clamp(-1, 1).acos()
    assert step.max() < 0.5 and angle.max() < (0.4 if kind == "abab" else 0.1)
    height = -a.centers[:, 1]
    assert height.min() > 1.1 and height.max() < 1.8


def test_there_and_back_is_exactly_back(worlds):
    still = Worlds.sample([2], movers=0)
    for frames in (8, 9):
        cameras = sample_path(still, 3, frames, kind="there-and-back", height=24, width=40)
        assert torch.equal(cameras.cam_from_world, cameras.cam_from_world.flip(0))
        out = render(still, cameras)
        assert torch.equal(out.colour, out.colour.flip(1)) and torch.equal(out.depth, out.depth.flip(1))


def test_abab_visits_a_hidden_place_twice():
    for seed in range(4):
        world = Worlds.sample([seed], movers=0)
        cameras = sample_path(world, seed, 17, kind="abab", height=24, width=24)
        pose = cameras.cam_from_world
        for i, j in ((0, 8), (8, 16), (4, 12), (2, 6), (3, 11)):
            assert torch.equal(pose[i], pose[j])
        out = render(world, cameras, supersample=1)
        uv, z = cameras[0].project(cameras[4].unproject(out.depth[0, 4:5]).view(-1, 3))
        seen = (z > 0) & (uv >= 0).all(-1) & (uv < 24).all(-1) & (out.depth[0, 4].flatten() > 0)
        truth = out.depth[0, 0][uv[0, :, 1].clamp(0, 23).long(), uv[0, :, 0].clamp(0, 23).long()]
        assert (seen[0] & ((truth - z[0]).abs() < 0.05 * z[0])).float().mean() < 0.1


def test_the_pace_keeps_most_of_a_view_for_sixteen_frames():
    """Half to nine tenths, over many walks, of what is seen 16 frames later was seen before."""
    shares = []
    for seed in range(8):
        world = Worlds.sample([seed], movers=0)
        cameras = sample_path(world, seed, 17, kind="walk", height=24, width=24)
        out = render(world, cameras[[0, 16]], supersample=1)
        uv, z = cameras[0].project(cameras[16].unproject(out.depth[0, 1:]).view(-1, 3))
        x, y = uv[0].clamp(0, 23).long().unbind(-1)
        known = out.depth[0, 1].flatten() > 0
        framed = (z[0] > 0) & (uv[0] >= 0).all(-1) & (uv[0] < 24).all(-1)
        shares.append((framed & ((out.depth[0, 0][y, x] - z[0]).abs() < 0.1 * z[0]))[known].float().mean())
    assert 0.5 < torch.stack(shares).mean() < 0.9


def test_bad_arguments_are_named(worlds, unchecked):
    with pytest.raises(ValueError, match="world"):
        sample_path(worlds, 0, 4)
    with pytest.raises(ValueError, match="frames"):
        sample_path(worlds[0], 0, 0)
    with pytest.raises(ValueError, match="kind"):
        sample_path(worlds[0], 0, 4, kind="teleport")
