"""Laws of the pose estimator: it finds the poses of true pictures, and says that a wrong path is wrong."""

import math

import numpy as np
import pytest
import torch

from mirage.camera.rigid import rotation_angle
from mirage.evaluation import pose
from mirage.evaluation.camera_control import measure, ray_angles
from mirage.evaluation.metrics import flow
from mirage.evaluation.worlds import HELD_OUT, Walk, make_walk

AT = (4, 8, 12, 16)


@pytest.fixture(scope="module")
def walk() -> Walk:
    return make_walk(HELD_OUT + 1, 17, 114, 150, kind="walk")


@pytest.fixture(scope="module")
def found(walk):
    return {i: pose.features(walk.frames[i]) for i in (0, *AT)}


@pytest.fixture(params=["pycolmap", "OpenCV"])
def library(request, monkeypatch):
    if request.param == "pycolmap":
        pytest.importorskip("pycolmap")
    else:
        monkeypatch.setattr(pose, "_colmap", lambda: None)
    assert pose.estimator().startswith(request.param)


@pytest.mark.usefixtures("library")
def test_true_pictures_are_found_where_they_were_taken(walk, found):
    for i in AT:
        at = pose.locate(found[i], found[0], walk.depth[0], walk.cameras[0], walk.cameras[i])
        turn, place = pose.pose_error(at, walk.cameras.cam_from_world[i])
        assert turn < 0.5 and place < 0.03, (i, turn, place)
    moved = pose.between(found[0], found[16], walk.cameras[0], walk.cameras[16])
    true = walk.cameras.cam_from_world[16].double() @ torch.linalg.inv(walk.cameras.cam_from_world[0].double())
    turn, heading = pose.motion_error(moved, true, 1.0)
    assert turn < 1.0 and heading < 12.0


@pytest.mark.usefixtures("library")
def test_flow_tells_where_a_picture_was_taken(walk):
    """The flow from frame 8 to frame 9 leads from the pose of the one to that of the other."""
    moved = flow(walk.frames[8], walk.frames[9])
    mask = np.ones(moved.shape[:2], bool)
    at = pose.locate_by_flow(moved, mask, walk.depth[8], walk.cameras[8])
    turn, place = pose.pose_error(at, walk.cameras.cam_from_world[9])
    gone = pose.pose_error(walk.cameras.cam_from_world[8], walk.cameras.cam_from_world[9])
    assert turn < gone[0] / 4 and place < gone[1] / 2, (turn, place, gone)
    assert pose.locate_by_flow(moved, ~mask, walk.depth[8], walk.cameras[8]) is None


@pytest.mark.usefixtures("library")
def test_another_place_is_another_place(walk, found):
    """The error of a picture that was taken elsewhere is how far away that is."""
    at = pose.locate(found[16], found[0], walk.depth[0], walk.cameras[0], walk.cameras[16])
    turn, place = pose.pose_error(at, walk.cameras.cam_from_world[0])
    way = (walk.cameras.centers[16] - walk.cameras.centers[0]).norm()
    turned = walk.cameras.cam_from_world[16, :3, :3] @ walk.cameras.cam_from_world[0, :3, :3].T
    assert place == pytest.approx(float(way), abs=0.03)
    assert turn == pytest.approx(math.degrees(float(rotation_angle(turned))), abs=0.5)


def test_pictures_that_share_nothing_have_no_pose(walk, found):
    blank = pose.features(np.full((114, 150, 3), 90, np.uint8))
    assert len(blank.places) == 0
    assert pose.locate(blank, found[0], walk.depth[0], walk.cameras[0], walk.cameras[4]) is None
    assert pose.between(blank, found[0], walk.cameras[0], walk.cameras[4]) is None
    unknown = torch.zeros_like(walk.depth[0])
    assert pose.locate(found[4], found[0], unknown, walk.cameras[0], walk.cameras[4]) is None


def test_the_unit_of_a_path_is_found(walk):
    factor, told = pose.match_scale(walk.frames, walk.cameras, 2.5 * walk.depth[0])
    assert factor == pytest.approx(2.5, rel=0.03) and told > pose.LEAST
    assert pose.match_scale(walk.frames * 0, walk.cameras, walk.depth[0]) == (1.0, 0)


def test_a_wrong_path_scores_badly(walk):
    """The truth is its own floor; standing still and going too slowly are far from it, in every figure."""
    floor = measure(walk, walk.frames)
    slow = measure(walk, walk.frames[np.arange(len(walk.frames)) // 2])
    still = measure(walk, np.repeat(walk.frames[:1], len(walk.frames), 0))
    assert floor["flow"] == 0 and floor["located"] == floor["compared"] == 1
    for name, least in (("flow", 1.0), ("turn", 0.5), ("place", 3.0)):
        assert floor[name] < least < slow[name] < still[name], (name, floor[name], slow[name], still[name])
    assert floor["flow_turn"] < 0.1 and floor["flow_degrees"] < 0.1 < slow["flow_degrees"] < still["flow_degrees"]


def test_flow_as_an_angle(walk):
    camera = walk.cameras[0]
    k = camera.intrinsics[0]
    moved = np.zeros((114, 150, 2), np.float32)
    moved[..., 0] = float(k[0, 0]) - (np.arange(150) + 0.5 - float(k[0, 2]))  # to 45 degrees right of the axis
    angle = ray_angles(moved, camera)
    row, column = round(float(k[1, 2]) - 0.5), round(float(k[0, 2]) - 0.5)
    assert angle[row, column] == pytest.approx(45, abs=0.5)
    assert not ray_angles(moved * 0, camera).any()
