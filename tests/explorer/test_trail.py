"""The way walked: even steps, ends that stay bit for bit, and a bound on what is kept."""

import math

import torch

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path
from mirage.camera.rigid import invert
from mirage.explorer.trail import MOST, Trail, effort, even, smooth


def walked(words: str = "forward 2, left 40deg, up 1 and right 20deg", frames: int = 41) -> Cameras:
    return build_path(words, frames, Cameras.from_fov(1.0, 24, 40)).cameras


def test_even_steps_are_even_and_end_where_the_way_ends():
    way = walked("forward 2 and left 50deg")
    steps = even(way, 1.5, 16)
    assert len(steps) == 16
    assert torch.equal(steps.cam_from_world[-1], way.cam_from_world[-1])
    sizes = effort(torch.cat([way.cam_from_world[:1], steps.cam_from_world]), 1.5)
    assert sizes.max() < 1.05 * sizes.min(), sizes
    steps.validate()


def test_the_steps_do_not_depend_on_how_often_the_way_was_noted():
    often, seldom = (even(walked(frames=n), 1.5, 8).centers for n in (161, 81))
    assert (often - seldom).abs().max() < 0.02


def test_a_turn_on_the_spot_is_a_way_too():
    steps = even(walked("left 60deg", 9), 1.0, 4)
    assert (steps.centers.abs() < 1e-5).all()
    assert torch.allclose(effort(steps.cam_from_world, 1.0), torch.full((3,), 0.5, dtype=torch.float64), atol=0.02)


def test_a_smooth_path_goes_through_its_keyframes_without_corners():
    keys = walked(frames=4)
    path = smooth(keys, 1.0, 121)
    assert len(path) == 121
    path.validate()
    assert torch.equal(path.cam_from_world[0], keys.cam_from_world[0])
    assert torch.equal(path.cam_from_world[-1], keys.cam_from_world[-1])
    for center in keys.centers:
        assert (path.centers - center).norm(dim=-1).min() < 0.05
    moves = path.centers.diff(dim=0)
    moves = moves[moves.norm(dim=-1) > 1e-4]
    turns = torch.nn.functional.cosine_similarity(moves[:-1], moves[1:])
    assert turns.min() > math.cos(math.radians(30))


def test_one_keyframe_is_a_place_to_stay():
    assert len(smooth(walked()[3], 1.0, 5)) == 5


def test_a_trail_forgets_poses_but_not_where_it_goes():
    trail = Trail(torch.eye(4), 1.0)
    pose = torch.eye(4)
    for step in range(3 * MOST):
        pose = pose.clone()
        pose[2, 3] = -0.02 * (step + 1)
        trail.add(pose)
    assert len(trail.poses) <= MOST + 1
    assert torch.equal(trail.way[0], torch.eye(4)) and torch.equal(trail.way[-1], pose)
    assert abs(trail.length - 0.02 * 3 * MOST) < 0.1
    assert invert(trail.way[-1])[2, 3] > 0


def test_standing_still_is_no_step():
    trail = Trail(torch.eye(4), 1.0)
    for _ in range(10):
        trail.add(torch.eye(4))
    assert len(trail.poses) == 1 and trail.length == 0
