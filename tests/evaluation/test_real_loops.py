"""Real loops: measured on a folder of the same layout made from an exact world, and on the real one where it is."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from mirage.camera.cameras import Cameras
from mirage.evaluation.real_loops import KINDS, SEQUENCES, Rgbd, by_motion, present, real_loops
from mirage.scenes import Worlds, render, sample_path
from mirage.video.io import tensor_to_images

YAWS = (0, 20, 45, 70, 40, 0)  # degrees; the last looks where the first did


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A room seen on a turn to the right and back, as an RGB-D folder of 100 x 68 pixels."""
    shared = tmp_path_factory.mktemp("shared")
    folder = shared / "data" / SEQUENCES[0]
    world = Worlds.sample([3], "room", movers=0)
    turns = torch.eye(4).repeat(len(YAWS), 1, 1)
    for turn, yaw in zip(turns, YAWS, strict=True):
        a = math.radians(yaw)
        turn[:3, :3] = torch.tensor([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
    camera = sample_path(world, 3, 1, kind="walk", height=68, width=100)[0]
    poses = turns @ camera.cam_from_world
    cameras = Cameras(camera.intrinsics.repeat(len(YAWS), 1, 1), poses, 68, 100)
    view = render(world, cameras, times=torch.zeros(len(YAWS)))
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for i, (frame, depth) in enumerate(zip(tensor_to_images(view.colour[0]), view.depth[0].numpy(), strict=True)):
        Image.fromarray(frame).save(folder / f"rgb/{i:05}.png")
        Image.fromarray((depth.clip(0, 60) * 1000).astype(np.uint16)).save(folder / f"depth/{i:05}.png")
    k = camera.intrinsics[0].numpy().copy()
    k[:2, 2] -= 0.5  # the folder puts pixel centres at integers
    np.savez(folder / "cameras.npz", w2c=poses.numpy(), c2w=torch.linalg.inv(poses).numpy(), K=k, depth_scale=1000.0)
    (folder / "loops.json").write_text(json.dumps({"loops": [[0, 5]]}))
    return shared


def test_what_is_missing_is_named(made, tmp_path):
    folders, reasons = present(made)
    assert [folder.name for folder in folders] == [SEQUENCES[0]]
    assert len(reasons) == 3 and all(any(name in line for line in reasons) for name in (*SEQUENCES[1:], "FLUX.2"))
    assert real_loops(tmp_path) == [] and len(present(tmp_path)[1]) == 4


def test_frames_depth_and_cameras_are_cut_alike(made):
    rgbd = Rgbd.open(made / "data" / SEQUENCES[0], width=48, step=8)
    views = rgbd.views([0, 3])
    assert views.colour.shape == (2, 3, 32, 48) and views.depth.shape == (2, 32, 48) and len(views.cameras) == 2
    assert rgbd.way_out(0, 5, 3) == [0, 2, 3]  # frame 3 looks farthest away; frame 4 is on the way back


def test_an_exact_return_to_the_only_view_gives_it_back(made):
    by = {row.memory: row for row in real_loops(made, views=1, width=96)}
    for kind in ("gather", "nearest"):
        assert by[kind].seen > 0.95 and by[kind].depth_error < 1e-3 and by[kind].views == 1
        assert abs(by[kind].common - by[kind].ceiling) < 0.01


def test_what_came_between_does_little_harm(made, tmp_path):
    rows = real_loops(made, views=3, width=96, out=tmp_path)
    assert [row.memory for row in rows] == [*KINDS, "first frame"]
    by = {row.memory: row for row in rows}
    assert by["gather"].seen > 0.95 and by["gather"].common > by["gather"].ceiling - 1.5
    assert by["nearest-corner"].common <= by["gather"].common + 0.5
    assert by["colour"].common > by["gather"].common - 3 and by["colour"].nbytes > 5 * by["gather"].nbytes
    assert by["first frame"].psnr == 60 and by["first frame"].elements == 0
    assert by["gather"].views == 3 and by["gather"].elements < by["nearest"].elements
    (picture,) = tmp_path.iterdir()
    with Image.open(picture) as image:
        assert picture.name == f"{SEQUENCES[0]}-0-5-nano.png" and image.width > 4 * 96


def test_what_is_read_from_nearer_by_is_better(made):
    rows = by_motion(made, gaps=(1, 5), pairs=1, width=128)
    assert {row.sequence for row in rows} == {SEQUENCES[0], "exact worlds"}
    gather = [row for row in rows if row.memory == "gather" and row.sequence == "exact worlds"]
    assert [row.gap for row in gather] == [1, 5] and gather[0].motion < gather[1].motion
    assert gather[0].psnr > gather[1].psnr and all(row.psnr < row.ceiling + 0.5 and row.pairs == 1 for row in gather)
    (nearest,) = [row for row in rows if (row.sequence, row.gap, row.memory) == ("exact worlds", 5, "nearest")]
    assert gather[1].psnr > nearest.psnr


def test_the_office_is_recognised_at_the_return(shared, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hololens_office_loop").symlink_to(shared / "data" / "hololens_office_loop")
    by = {row.memory: row for row in real_loops(tmp_path, views=3, width=144)}
    assert by["gather"].seen > 0.5 and by["gather"].depth_agrees > 0.9
    assert by["gather"].common > by["first frame"].common + 2
