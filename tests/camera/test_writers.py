"""What is written is read back: random rigid paths, zooms, odd sizes; nothing is ever half written."""

import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirage.camera import WRITERS, Cameras, build_path, load_trajectory, save_trajectory
from mirage.camera.rigid import screw


@st.composite
def paths(draw, zoom: bool = True) -> Cameras:
    """Random rigid poses with random lenses, at an odd size."""
    frames, height, width = draw(st.integers(1, 6)), draw(st.integers(2, 801)), draw(st.integers(2, 801))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    random = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1
    far = 10 ** draw(st.floats(-3, 3))
    poses = torch.stack([screw(random(3) * far, random(3) * 4, torch.tensor(1.0).double()) for _ in range(frames)])
    focal = max(height, width) * (0.8 + 0.5 * random(frames, 1)) * (1 + 0.02 * random(frames, 2))
    k = torch.eye(3, dtype=torch.float64).repeat(frames, 1, 1)
    k[:, [0, 1], [0, 1]] = focal
    k[:, :2, 2] = torch.tensor([width, height]) * (0.5 + 0.3 * random(frames, 2))
    return Cameras((k if zoom else k[:1].expand(frames, 3, 3)).float().clone(), poses.float(), height, width)


def same(read: Cameras, truth: Cameras, lens: float = 1e-6) -> None:
    far = 1 + truth.cam_from_world[:, :3, 3].abs().max().item()
    torch.testing.assert_close(read.cam_from_world, truth.cam_from_world, atol=4e-6 * far, rtol=0)
    torch.testing.assert_close(read.intrinsics, truth.intrinsics, atol=1e-6, rtol=lens)
    assert (read.height, read.width) == (truth.height, truth.width)


quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("format", WRITERS)
def test_what_is_written_is_read_back(format, tmp_path):
    @quick
    @given(paths(zoom=format != "spatia"))
    def check(cameras):
        place = tmp_path / ("clip.txt" if format == "realestate10k" else "out")
        told = save_trajectory(place, cameras, format)
        sized = format in ("nerfstudio", "colmap")
        for name in ("auto", format):
            read = load_trajectory(place, *(() if sized else (cameras.height, cameras.width)), format=name)
            assert read.format == format
            same(read.file_cameras, cameras)
            assert read.cameras.cam_from_world[0].equal(torch.eye(4))
        assert str(place) in told and read.convention.split(", intrinsics")[0] in told

    check()


@pytest.fixture
def cameras() -> Cameras:
    return build_path("random-walk:degrees=60", 5, Cameras.from_fov(1.2, 45, 80)).cameras


def test_a_path_that_begins_at_the_origin_comes_back_bit_for_bit(cameras, tmp_path):
    """Poses go through float64 text; only making them exactly orthonormal may touch the last bit."""
    for format in ("spatia", "realestate10k"):
        save_trajectory(tmp_path / format, cameras, format)
        read = load_trajectory(tmp_path / format, 45, 80).cameras
        torch.testing.assert_close(read.cam_from_world, cameras.cam_from_world, atol=3e-7, rtol=0)
        torch.testing.assert_close(read.intrinsics, cameras.intrinsics, atol=0, rtol=2e-7)


def test_colmap_for_training_splats_from_frames(cameras, tmp_path):
    names = [f"frames/{n}.jpg" for n in range(8, 13)]  # 10 must not come before 9
    points = torch.tensor([[0.25, -1.0, 3.5], [1e-7, 2.0, 4.0]])
    colours = torch.tensor([[255, 0, 7], [1, 2, 3]], dtype=torch.uint8)
    save_trajectory(tmp_path / "sparse" / "0", cameras, "colmap", images=names, points=points, colours=colours)
    same(load_trajectory(tmp_path).file_cameras, cameras)
    rows = (tmp_path / "sparse/0/points3D.txt").read_text().splitlines()
    assert rows[0].startswith("#") and rows[1] == "1 0.25 -1.0 3.5 255 0 7 0" and len(rows) == 3
    lines = [line for line in (tmp_path / "sparse/0/images.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line.split()[9] for line in lines[::2]] == names and not any(lines[1::2])
    assert len((tmp_path / "sparse/0/cameras.txt").read_text().splitlines()) == 2, "one lens is one camera"
    principal = (tmp_path / "sparse/0/cameras.txt").read_text().split()[-2:]
    assert principal == ["40.0", "22.5"], "the middle of 80 x 45 pixels in the corner convention"


def test_nerfstudio_names_its_frames(cameras, tmp_path):
    names = [f"images/{n}.png" for n in range(5)]
    save_trajectory(tmp_path / "any.json", cameras, "nerfstudio", images=names)
    content = json.loads((tmp_path / "any.json").read_text())
    assert [frame["file_path"] for frame in content["frames"]] == names
    matrix = np.array(content["frames"][0]["transform_matrix"])
    assert matrix.tolist() == np.diag([1.0, -1.0, -1.0, 1.0]).tolist(), "OpenGL: y up, looking along -z"
    assert "fl_x" in content and "fl_x" not in content["frames"][0]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "fbx"}, "written as spatia, realestate10k, nerfstudio, colmap, not as 'fbx'"),
        ({"images": ["a"]}, "5 different names, one per camera, got 1"),
        ({"images": ["a"] * 5}, "5 different names"),
        ({"images": ["a", "b", "c", "d", "e\nf"]}, "several lines"),
        ({"format": "spatia", "images": list("abcde")}, "no place for names"),
        ({"points": torch.zeros(2, 3)}, "go together"),
        ({"points": torch.zeros(2, 3), "colours": torch.zeros(3, 3, dtype=torch.uint8)}, "got 2 and 3"),
        ({"points": torch.full((1, 3), math.nan), "colours": torch.zeros(1, 3, dtype=torch.uint8)}, "finite"),
        ({"fps": 0.0}, "fps must be positive"),
    ],
)
def test_what_cannot_be_written_is_refused(change, message, cameras, tmp_path, unchecked):
    with pytest.raises(ValueError, match=message):
        save_trajectory(tmp_path / "out", cameras, **{"format": "colmap", **change})
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_broken_cameras_are_not_written(cameras, tmp_path):
    cameras.cam_from_world[2, 0, 3] = math.nan
    for broken, message in [(cameras, "camera 2 of 5 holds a number"), (cameras[:0], "no camera")]:
        with pytest.raises(ValueError, match=message):
            save_trajectory(tmp_path / "out", broken, "colmap")
    zoom = build_path("still", 2, Cameras.from_fov(1.0, 9, 16)).cameras
    zoom.intrinsics[1, 0, 0] *= 1.5
    with pytest.raises(ValueError, match="one lens for all frames"):
        save_trajectory(tmp_path / "out", zoom, "spatia")


def test_a_failed_write_leaves_what_was_there(cameras, tmp_path, monkeypatch):
    save_trajectory(tmp_path / "out", cameras, "colmap")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_trajectory(tmp_path / "out", cameras[:2], "colmap")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
