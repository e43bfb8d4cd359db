"""Rigid transforms form a group, and interpolation stays in it."""

import math

import pytest
import torch

from mirage.camera.rigid import compose, interpolate, invert, look_at, nearest_rotation, rebase, rotation_angle, screw

IDENTITY = torch.eye(4, dtype=torch.float64)


@pytest.fixture
def poses(generator) -> torch.Tensor:
    """Any poses, 3 x 5 of them; among them turns by almost pi."""
    move, turn = torch.randn(2, 3, 5, 3, generator=generator, dtype=torch.float64)
    turn[0] *= 3.14159 / turn[0].norm(dim=-1, keepdim=True)
    return screw(move, turn, torch.ones(3, 5, dtype=torch.float64))


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b.expand_as(a), atol=tolerance, rtol=0)


def test_group_axioms(poses):
    a, b, c = poses
    close(compose(compose(a, b), c), compose(a, compose(b, c)))
    close(compose(a, b, c), a @ b @ c)
    close(compose(a, invert(a)), IDENTITY)
    close(compose(a, IDENTITY), a)
    close(invert(compose(a, b)), compose(invert(b), invert(a)))
    close(invert(invert(a)), a)
    with pytest.raises(ValueError, match="at least one transform"):
        compose()


def test_transforms_stay_rigid(poses):
    for result in (compose(poses, poses), invert(poses), interpolate(poses[0], poses[1], torch.rand(5).double())):
        rotation = result[..., :3, :3]
        close(rotation @ rotation.mT, IDENTITY[:3, :3])
        close(torch.linalg.det(rotation), torch.ones((), dtype=torch.float64))
        assert (result[..., 3, :] == IDENTITY[3]).all()


def test_rebase_keeps_the_motion_and_begins_at_the_identity(poses):
    path = poses.flatten(0, 1)
    based = rebase(path)
    assert based[0].equal(IDENTITY)
    close(compose(based[1:], invert(based[:-1])), compose(path[1:], invert(path[:-1])))


def test_screw_is_a_one_parameter_group(generator):
    move, turn = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    one = lambda amount: screw(move, turn, torch.tensor(amount, dtype=torch.float64))
    close(compose(one(0.3), one(0.5)), one(0.8))
    close(one(-0.4), invert(one(0.4)))
    assert one(0.0).equal(IDENTITY)
    close(rotation_angle(one(0.1)[:3, :3]), 0.1 * turn.norm())


def test_look_at_puts_the_target_in_the_middle_and_the_sky_up(generator):
    eye, target = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    cam_from_world = look_at(eye, target)
    seen = (cam_from_world[:, :3, :3] @ target[..., None])[..., 0] + cam_from_world[:, :3, 3]
    close(seen[:, :2], torch.zeros(2, dtype=torch.float64))
    close(seen[:, 2], (target - eye).norm(dim=-1))
    close(invert(cam_from_world)[:, :3, 3], eye)
    assert (cam_from_world[:, 1, 1] > 0).all() and cam_from_world[:, 0, 1].abs().max() < 1e-12, "no roll"


@pytest.mark.parametrize("direction", [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
def test_looking_straight_up_or_down_is_still_a_rotation(direction):
    rotation = look_at(torch.zeros(3), torch.tensor(direction))[:3, :3]
    assert torch.linalg.det(rotation).item() == pytest.approx(1.0)
    assert rotation[2].tolist() == direction


def test_interpolation_is_a_geodesic(poses):
    a, b, _ = poses
    whole = rotation_angle(a[:, :3, :3].mT @ b[:, :3, :3])
    for amount in (0.0, 0.25, 0.5, 1.0):
        part = torch.full((5,), amount, dtype=torch.float64)
        between = interpolate(a, b, part)
        close(rotation_angle(a[:, :3, :3].mT @ between[:, :3, :3]), amount * whole, 1e-6)
        close(between, interpolate(b, a, 1 - part), 1e-6)
        close(between[:, :3, 3], torch.lerp(a[:, :3, 3], b[:, :3, 3], amount))
    close(interpolate(a, b, torch.zeros(5).double()), a)
    close(interpolate(a, b, torch.ones(5).double()), b)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, math.pi / 2, 3.1, math.pi])
def test_rotation_angle_is_accurate_everywhere(angle):
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), dim=0)
    rotation = screw(torch.zeros(3).double(), axis * angle, torch.tensor(1.0).double())[:3, :3]
    assert rotation_angle(rotation).item() == pytest.approx(angle, abs=1e-9)


def test_nearest_rotation_undoes_small_noise(poses, generator):
    rotation = poses[..., :3, :3]
    noisy = rotation + 1e-4 * torch.randn(rotation.shape, generator=generator, dtype=torch.float64)
    fixed = nearest_rotation(noisy)
    close(fixed @ fixed.mT, IDENTITY[:3, :3])
    close(fixed, rotation, 1e-3)
    close(nearest_rotation(rotation), rotation)
    assert (torch.linalg.det(nearest_rotation(-rotation)) > 0).all(), "never a mirror image"
