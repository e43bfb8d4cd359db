"""Paths begin at the input view, go where their words say, and come back bit for bit."""

import itertools
import math

import pytest
import torch

from mirage.camera import PRESETS, Cameras, build_path, cut, measure_motion, resample
from mirage.camera.path import LEGS, fold, leg_frames
from mirage.camera.rigid import compose, screw

CAMERA = Cameras.from_fov(1.0, 48, 80)


def path(words: str, frames: int = 33, **options) -> Cameras:
    return build_path(words, frames, CAMERA, **options).cameras


def end(words: str) -> tuple[list[float], list[float]]:
    """Where a path ends and where it then looks."""
    last = path(words).world_from_cam[-1]
    return [round(x, 3) + 0.0 for x in last[:3, 3].tolist()], [round(x, 3) + 0.0 for x in last[:3, 2].tolist()]


@pytest.mark.parametrize("frames", [1, 2, 5, 33])
@pytest.mark.parametrize("words", [*PRESETS, *LEGS, "a-b-a-b:orbit", "forward 2, left 30deg, back 2"])
def test_every_path_is_rigid_smooth_and_begins_at_the_input_view(words, frames):
    cameras = path(words, frames)
    assert len(cameras.validate()) == frames
    assert cameras.cam_from_world[0].equal(torch.eye(4))
    assert cameras.intrinsics.equal(CAMERA.intrinsics.expand(frames, 3, 3))
    if frames == 33:
        steps = cameras.centers.diff(dim=0).norm(dim=-1)
        assert steps.max() <= 0.25 + 1e-6, "no jumps"
        for scale in (0.1, 7.0):
            scaled = path(words, frames, scale=scale)
            torch.testing.assert_close(scaled.centers, scale * cameras.centers, atol=1e-4, rtol=1e-4)
            assert scaled.cam_from_world[:, :3, :3].equal(cameras.cam_from_world[:, :3, :3])


def test_a_path_begins_wherever_its_camera_is(generator):
    start = screw(*torch.randn(2, 3, generator=generator), torch.tensor(1.0))[None]
    moved = Cameras(CAMERA.intrinsics, start, 48, 80)
    for words in ("orbit", "there-and-back:random-walk", "up 1, roll 10deg"):
        cameras = build_path(words, 9, moved).cameras
        assert cameras.cam_from_world[0].equal(start[0])
        torch.testing.assert_close(
            cameras.cam_from_world, compose(path(words, 9).cam_from_world, start), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    "words, position, view",
    [
        ("dolly:distance=2", [0, 0, 2], [0, 0, 1]),
        ("truck:distance=-1,rise=0.5", [-1, -0.5, 0], [0, 0, 1]),
        ("pan:degrees=90", [0, 0, 0], [1, 0, 0]),
        ("pan:degrees=0,tilt=90", [0, 0, 0], [0, -1, 0]),
        ("orbit:radius=2,degrees=90", [2, 0, 2], [-1, 0, 0]),
        ("orbit:radius=1,degrees=-30", [-0.5, 0, 0.134], [0.5, 0, 0.866]),
        ("forward 2", [0, 0, 2], [0, 0, 1]),
        ("backwards 1.5", [0, 0, -1.5], [0, 0, 1]),
        ("left 1, up 2", [-1, -2, 0], [0, 0, 1]),
        ("right 90deg, forward 2", [2, 0, 0], [1, 0, 0]),
        ("turn left 90 then go forward 1", [-1, 0, 0], [-1, 0, 0]),
        ("look down 90", [0, 0, 0], [0, 1, 0]),
        ("strafe right 2 m; MOVE DOWN 1", [2, 1, 0], [0, 0, 1]),
        ("left 1.5707963rad", [0, 0, 0], [-1, 0, 0]),
        ("forward 2, left 180deg, forward 2", [0, 0, 0], [0, 0, -1]),
        ("roll 90deg, right 1", [0, 1, 0], [0, 0, 1]),
        ("roll left 90, right 1", [0, -1, 0], [0, 0, 1]),
        ("forward 3.1415927 and right 90deg", [2, 0, 2], [1, 0, 0]),
        ("forward -1", [0, 0, -1], [0, 0, 1]),
    ],
)
def test_words_go_where_they_say(words, position, view):
    assert end(words) == (position, view)


def test_orbit_faces_its_pivot_on_a_circle():
    pivot = torch.tensor([[0.0, 0.0, 2.0]])
    xy, z = path("orbit:radius=2,degrees=120").project(pivot)
    torch.testing.assert_close(xy, torch.tensor([40.0, 24.0]).expand_as(xy), atol=1e-3, rtol=0)
    torch.testing.assert_close(z, torch.full_like(z, 2.0))


def test_frames_are_shared_out_by_length_and_angle():
    """A move of 3 units before a turn of 30 degrees takes three quarters of the time; it starts and ends gently."""
    cameras = path("forward 3, left 30deg", 41)
    assert cameras.centers[30, 2].item() == pytest.approx(3)
    assert cameras.cam_from_world[29, :3, :3].equal(torch.eye(3))
    steps = path("forward 1", 41).centers.diff(dim=0).norm(dim=-1)
    assert steps[0] < 0.2 * steps[20] and steps[-1] < 0.2 * steps[20]
    assert steps[20].item() == pytest.approx(1 / 40 / 0.75, rel=1e-3)


def test_spiral_closes_and_keeps_its_focus_in_the_middle():
    cameras = path("spiral:forward=0,turns=2,focus=3,radius=0.5")
    torch.testing.assert_close(cameras.cam_from_world[-1], torch.eye(4), atol=1e-6, rtol=0)
    xy, _ = cameras.project(torch.tensor([[0.0, 0.0, 3.0]]))
    torch.testing.assert_close(xy, torch.tensor([40.0, 24.0]).expand_as(xy), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="focus must be positive"):
        path("spiral:focus=0.2")


def test_random_walks_differ_by_seed_and_not_by_frames():
    assert path("random-walk:seed=1").cam_from_world.equal(path("random-walk:seed=1").cam_from_world)
    assert not path("random-walk:seed=1").cam_from_world.allclose(path("random-walk:seed=2").cam_from_world)
    torch.testing.assert_close(path("random-walk", 33).centers, path("random-walk", 65).centers[::2], atol=1e-5, rtol=0)
    for seed in range(5):
        motion = measure_motion(path(f"random-walk:distance=3,seed={seed}", 129))
        assert motion.length == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("words", ["orbit", "random-walk:seed=5", "forward 1, left 20deg", "spiral"])
@pytest.mark.parametrize("frames", [2, 6, 17, 65, 66])
def test_there_and_back_returns_bit_for_bit(words, frames):
    cameras = path(f"there-and-back:{words}", frames)
    assert len(cameras) == frames
    assert cameras.cam_from_world[0].equal(cameras.cam_from_world[-1])
    if frames % 2:
        assert cameras.cam_from_world.equal(cameras.cam_from_world.flip(0))
        assert cameras.cam_from_world[: frames // 2 + 1].equal(path(words, frames // 2 + 1).cam_from_world)


def test_a_b_a_b_visits_both_places_twice():
    cameras = path("a-b-a-b:orbit:degrees=60", 97).cam_from_world
    assert cameras[0].equal(cameras[64]) and cameras[32].equal(cameras[96]) and not cameras[0].equal(cameras[32])


@pytest.mark.parametrize("legs", [2, 3])
@pytest.mark.parametrize("frames", range(1, 20))
def test_fold_uses_neighbours_and_every_pose(frames, legs):
    order = fold(frames, legs)
    assert len(order) == frames and set(order) == set(range(leg_frames(frames, legs)))
    assert all(abs(a - b) <= 1 for a, b in itertools.pairwise(order))


@pytest.mark.parametrize(
    "words, message",
    [
        ("orbt", "did not understand 'orbt'.*preset.*orbit.*command.*forward 2"),
        ("forward", "did not understand 'forward'"),
        ("forward 2, , left 3", "an empty move"),
        ("", "an empty move"),
        ("forward 30deg", "goes forward by a distance"),
        ("walk left 30deg", "goes left by a distance"),
        ("turn left 2m", "turns left by an angle"),
        ("turn 30", "no direction"),
        ("roll up 30", "no direction"),
        ("forward nan", "did not understand"),
        ("orbit:speed=2", "'speed=2' is not an option; expected orbit:radius=2,degrees=30"),
        ("orbit:radius=two", "'radius=two' is not an option"),
        ("orbit:radius=inf", "'radius=inf' is not an option"),
        ("random-walk:seed=1.5", "'seed=1.5' is not an option"),
        ("still:speed=1", "still without options"),
        ("there-and-back:nowhere", "did not understand 'nowhere'"),
        ("missing/w2c.txt", "no camera path at missing/w2c.txt"),
        ("orbit:radius=0", "radius must be positive"),
        ("random-walk:seed=-1", "seed must be from 0"),
        ("dolly:distance=1e30", "at most 100000 units long"),
        ("there-and-back:forward 99999999", "at most 100000 units long"),
        ("left 99999999999999999999999999999deg", "at most 100000 units long"),
    ],
)
def test_errors_say_what_is_accepted(words, message):
    with pytest.raises(ValueError, match=message):
        path(words)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        path("orbit", 0)
    with pytest.raises(ValueError, match="how many frames"):
        build_path("orbit", None, CAMERA)
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must be positive"):
            path("orbit", scale=scale)
    with pytest.raises(ValueError, match="begins at one camera, got 2"):
        build_path("orbit", 5, Cameras.from_fov(1.0, 4, 6, frames=2))


def test_resample_goes_through_every_pose_exactly():
    cameras = path("random-walk", 9)
    for factor in (1, 2, 3):
        finer = resample(cameras, 8 * factor + 1)
        assert finer.cam_from_world[::factor].equal(cameras.cam_from_world)
        finer.validate()
    assert resample(cameras, 5).cam_from_world.equal(cameras.cam_from_world[::2])
    assert len(resample(cameras[0], 4)) == 4
    assert measure_motion(resample(cameras, 100)).length == pytest.approx(measure_motion(cameras).length, rel=0.02)
    with pytest.raises(ValueError, match="cannot resample a path of 9 poses to 1"):
        resample(cameras, 1)


def test_cut_begins_at_the_identity():
    cameras = path("orbit", 9)
    part = cut(cameras, 3, 7)
    assert len(part) == 4 and part.cam_from_world[0].equal(torch.eye(4))
    assert measure_motion(part).length == pytest.approx(measure_motion(cameras[3:7]).length, rel=1e-4)
    for start, stop in [(3, 3), (-1, 4), (0, 10)]:
        with pytest.raises(ValueError, match=f"no part {start} to {stop}"):
            cut(cameras, start, stop)


def test_motion_is_measured():
    motion = measure_motion(path("there-and-back:orbit:radius=2,degrees=90", 129))
    assert motion.length == pytest.approx(2 * math.pi, rel=1e-3)
    assert motion.rotation == pytest.approx(math.pi, rel=1e-4)
    assert motion.reach == pytest.approx(2 * math.sqrt(2), rel=1e-5)
    assert motion.end_distance == 0 and motion.end_rotation == 0
    assert str(motion).startswith("129 poses, path 6.28 units and 180 degrees, ends 0 units")
    with pytest.raises(ValueError, match="at least one camera"):
        measure_motion(path("still")[:0])
