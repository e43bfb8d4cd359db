"""Readers find the same path in every format, written here or real, and refuse what cannot be right."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage.camera import Cameras, build_path, load_trajectory
from mirage.camera.rigid import invert, screw

HEIGHT, WIDTH, FRAMES = 72, 128, 7
GL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture
def truth() -> Cameras:
    """A path with an odd lens: what every file below says in its own way."""
    cameras = build_path("random-walk:degrees=60", FRAMES, Cameras.from_fov(1.2, HEIGHT, WIDTH)).cameras
    cameras.intrinsics[:, 0, 2] += 3.0
    cameras.intrinsics[:, 1, 1] *= 1.01
    return cameras


@pytest.fixture
def start() -> torch.Tensor:
    """A first pose that is not the origin of the file's world."""
    return screw(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.3, 0.2, -0.1]), torch.tensor(1.0)).double()


@pytest.fixture
def poses(truth, start) -> np.ndarray:
    """cam_from_file in float64."""
    return (truth.cam_from_world.double() @ start).numpy()


def normalised(truth: Cameras) -> list[float]:
    k = truth.resize(1, 1).intrinsics[0]
    return [k[0, 0].item(), k[1, 1].item(), k[0, 2].item(), k[1, 2].item()]


def write_spatia(folder: Path, truth: Cameras, poses: np.ndarray) -> Path:
    (folder / "w2c.txt").write_text("\n".join(json.dumps(m.tolist()) for m in poses))
    (folder / "intrinsics.txt").write_text("[{} {} {} {}]".format(*normalised(truth)))
    return folder


def write_realestate10k(folder: Path, truth: Cameras, poses: np.ndarray) -> Path:
    lines = ["https://example.org/watch"]
    for n, m in enumerate(poses):
        lines.append(" ".join(f"{x:.9f}" for x in [1000 * n, *normalised(truth), 0, 0, *m[:3].ravel()]))
    (folder / "clip.txt").write_text("\n".join(lines) + "\n")
    return folder / "clip.txt"


def nerfstudio(truth: Cameras, poses: np.ndarray) -> dict:
    k = truth.intrinsics[0].double()
    names = {"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
    frames = [{"file_path": None, "transform_matrix": (np.linalg.inv(m) @ GL).tolist()} for m in poses]
    return {**{name: value.item() for name, value in names.items()}, "w": WIDTH, "h": HEIGHT, "frames": frames}


def write_nerfstudio(folder: Path, truth: Cameras, poses: np.ndarray) -> Path:
    (folder / "transforms.json").write_text(json.dumps(nerfstudio(truth, poses)))
    return folder


def write_rgbd(folder: Path, truth: Cameras, poses: np.ndarray) -> Path:
    w2c, k = poses, truth.intrinsics[0].double().numpy().copy()
    k[:2, 2] -= 0.5
    np.savez(folder / "cameras.npz", w2c=w2c, c2w=np.linalg.inv(w2c), K=k, depth_scale=1000.0)
    (folder / "rgb").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "rgb" / "00000.png")
    return folder


WRITERS = {
    "spatia": write_spatia,
    "realestate10k": write_realestate10k,
    "nerfstudio": write_nerfstudio,
    "rgbd": write_rgbd,
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_path_is_read_from_every_format(name, truth, start, poses, tmp_path):
    place = WRITERS[name](tmp_path, truth, poses)
    for format in ("auto", name):
        read = load_trajectory(place, HEIGHT, WIDTH, format=format)
        assert read.format == name
        assert read.cameras.cam_from_world[0].equal(torch.eye(4)), "first pose is exactly the identity"
        torch.testing.assert_close(read.cameras.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
        torch.testing.assert_close(read.cameras.intrinsics, truth.intrinsics, atol=1e-4, rtol=1e-6)
        torch.testing.assert_close(read.file_from_world, invert(start).float(), atol=1e-5, rtol=0)
    assert f"{FRAMES} poses, path 1.9" in str(read) and "re-based to the first pose" in str(read) and name in str(read)
    double = load_trajectory(place, 2 * HEIGHT, 2 * WIDTH).cameras
    torch.testing.assert_close(double.intrinsics, truth.resize(2 * HEIGHT, 2 * WIDTH).intrinsics, atol=1e-3, rtol=1e-6)


@pytest.mark.parametrize("name", WRITERS)
def test_a_path_from_a_file_is_built_like_any_other(name, truth, poses, tmp_path):
    place = str(WRITERS[name](tmp_path, truth, poses))
    camera = Cameras.from_fov(1.0, HEIGHT, WIDTH)
    whole = build_path(place, None, camera).cameras
    torch.testing.assert_close(whole.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
    assert build_path(place, 4, camera).cameras.cam_from_world.equal(whole.cam_from_world[:4])
    finer = build_path(place, 13, camera, scale=3.0)
    torch.testing.assert_close(finer.cameras.centers[::2], 3 * truth.centers, atol=1e-5, rtol=0)
    assert "7 poses resampled to 13" in finer.notes and "distances multiplied by 3" in finer.notes
    back = build_path(f"there-and-back:{place}", None, camera).cameras
    assert len(back) == 13 and back.cam_from_world.equal(back.cam_from_world.flip(0))
    square = Cameras.from_fov(1.0, 50, 50)
    with pytest.raises(ValueError, match=r"width / height = 1\.7.*50 x 50"):
        build_path(place, 4, square)
    assert build_path(place, 4, square, keep_intrinsics=True).cameras.intrinsics[3].equal(square.intrinsics[0])


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    "fault, message",
    [
        ("nan", "not finite"),
        ("stretched", "not orthonormal, R R.T is off the identity by 0"),
        ("mirrored", "mirror image"),
        ("empty", "no poses"),
    ],
)
def test_impossible_poses_are_refused_with_their_place(name, fault, message, truth, poses, tmp_path):
    if fault == "nan":
        poses[2, 0, 3] = math.nan
    elif fault == "stretched":
        poses[2, :3, :3] *= 1.1
    elif fault == "mirrored":
        poses[2, :3, :3] *= -1
    elif fault == "empty":
        poses = poses[:0]
    place = WRITERS[name](tmp_path, truth, poses)
    where = {"spatia": "line 3", "realestate10k": "line 4", "nerfstudio": "frame 2", "rgbd": "pose 2"}[name]
    with pytest.raises(ValueError, match=message if fault == "empty" else f"{where}: .*{message}"):
        load_trajectory(place, HEIGHT, WIDTH)


def test_few_digits_are_made_exactly_rigid(truth, poses, tmp_path):
    write_spatia(tmp_path, truth, poses)
    rounded = [json.dumps(np.round(m, 4).tolist()) for m in poses]
    (tmp_path / "w2c.txt").write_text("\n".join(rounded))
    read = load_trajectory(tmp_path, HEIGHT, WIDTH)
    rotation = read.cameras.cam_from_world[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(FRAMES, 3, 3), atol=1e-6, rtol=0)
    assert any("made exactly orthonormal" in note for note in read.notes)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "w2c.txt").write_text("[[1, 0, 0, 0], [0, 1]]"), r"w2c.txt, line 1: expected a 4 x 4 matrix"),
        (lambda f: (f / "w2c.txt").write_text("[[1, 0, 0, 0]]"), r"w2c.txt, line 1: expected a 4 x 4 matrix"),
        (lambda f: (f / "w2c.txt").write_text("hello"), r"w2c.txt, line 1: expected a 4 x 4 matrix .* got 'hello'"),
        (lambda f: (f / "intrinsics.txt").write_text("[0.8 1.4 0.5]"), "intrinsics.txt: expected one line of four"),
        (lambda f: (f / "intrinsics.txt").write_text("[a b c d]"), "intrinsics.txt: expected one line of four"),
        (lambda f: (f / "intrinsics.txt").write_text(""), "intrinsics.txt: expected one line of four"),
        (lambda f: (f / "intrinsics.txt").write_text("[.8 1.4 .5 .5]\n" * 3), "3 lines for the 7 poses"),
        (lambda f: (f / "intrinsics.txt").write_text("[1029 1028 624 352]"), "width / height = 0.999"),
        (lambda f: (f / "intrinsics.txt").write_text("[-0.8 1.4 0.5 0.5]"), "positive focal length"),
        (lambda f: (f / "intrinsics.txt").write_text("[nan 1.4 0.5 0.5]"), "four finite numbers"),
        (lambda f: (f / "intrinsics.txt").write_text("[0.8 1.42 1.5 0.5]"), "principal point .* outside"),
        (lambda f: (f / "intrinsics.txt").write_text("[800 1422 0.5 0.5]"), "field of view of 0.0716 degrees"),
        (lambda f: (f / "intrinsics.txt").unlink(), "needs an intrinsics.txt"),
    ],
)
def test_broken_spatia_files_are_refused(change, message, truth, poses, tmp_path):
    change(write_spatia(tmp_path, truth, poses))
    with pytest.raises(ValueError, match=message):
        load_trajectory(tmp_path, HEIGHT, WIDTH)


def test_broken_realestate10k_files_are_refused(truth, poses, tmp_path):
    file = write_realestate10k(tmp_path, truth, poses)
    lines = file.read_text().splitlines()
    for n, line in [(3, lines[3] + " 1.0"), (3, "x y z"), (1, lines[1].rsplit(" ", 1)[0])]:
        file.write_text("\n".join([*lines[:n], line, *lines[n + 1 :]]))
        with pytest.raises(ValueError, match=f"clip.txt, line {n + 1}: expected 19 numbers"):
            load_trajectory(file, HEIGHT, WIDTH)
    file.write_text(lines[0])
    with pytest.raises(ValueError, match="holds no poses"):
        load_trajectory(file, HEIGHT, WIDTH)


def test_realestate10k_variants(truth, poses, tmp_path):
    """Without a URL, with names in place of times and a caption, with distortion, with time running back."""
    file = write_realestate10k(tmp_path, truth, poses)
    url, *lines = file.read_text().splitlines()
    words = [line.split() for line in lines]
    named = [" ".join([f"frames/{n}.png", *row[1:5], *row[7:]]) for n, row in enumerate(words)]
    distorted = [" ".join([*row[:5], "0.1", "0", *row[7:]]) for row in words]
    for content, note in [
        (lines, None),
        ([url, "", "a room with 2 chairs", *named], None),
        ([url, *distorted], "distortion"),
        ([url, *(" ".join(["5", *row[1:]]) for row in words)], "time does not run forward"),
    ]:
        file.write_text("\n".join(content))
        read = load_trajectory(file, HEIGHT, WIDTH)
        torch.testing.assert_close(read.cameras.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
        assert note is None or any(note in found for found in read.notes)


def test_nerfstudio_variants(truth, poses, tmp_path):
    """Intrinsics per frame or as an angle, an applied transform, a last row left out."""
    content = nerfstudio(truth, poses)
    applied = np.array([[0, 1, 0, 0.5], [1, 0, 0, 0], [0, 0, -1, 2.0]])
    square = np.vstack([applied, [0, 0, 0, 1]])
    turned = [{"transform_matrix": (square @ f["transform_matrix"])[:3].tolist()} for f in content["frames"]]
    lens = {key: content.pop(key) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    per_frame = [{**frame, **lens} for frame in content["frames"]]
    file = tmp_path / "any_name.json"
    for variant in (
        {"frames": per_frame, "k1": 0.1},
        {"frames": turned, "applied_transform": applied.tolist(), **lens},
    ):
        file.write_text(json.dumps(variant))
        read = load_trajectory(file)
        torch.testing.assert_close(read.cameras.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
        torch.testing.assert_close(read.cameras.intrinsics, truth.intrinsics, atol=1e-4, rtol=1e-6)
        assert read.notes[0].startswith(
            ("lens distortion of the file (up to 0.1) not applied", "applied_transform undone")
        )
    file.write_text(json.dumps({"camera_angle_x": math.pi / 2, "w": 128, "h": 72, "frames": content["frames"]}))
    assert load_trajectory(file).cameras.intrinsics[0].tolist() == [[64.0, 0, 64.0], [0, 64.0, 36.0], [0, 0, 1.0]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"frames": [{"transform_matrix": [[1, 2], [3, 4]]}]}, "frame 0: expected a transform_matrix of 4 x 4"),
        ({"frames": [{}]}, "frame 0: expected a transform_matrix"),
        ({"frames": ["x"]}, "frame 0: expected a transform_matrix"),
        ({"fl_x": "far"}, "frame 0: expected intrinsics in numbers"),
        ({"camera_model": "OPENCV_FISHEYE"}, "not a pinhole camera"),
        ({"cx": 4000}, "principal point"),
        ({"w": 0}, "image sizes must be positive"),
        ({"applied_transform": [[0, 0, 0, 0]] * 3}, "invertible applied_transform"),
        ({"frames": {}}, "not a camera path of a known format"),
        ({"frames": [{"transform_matrix": np.zeros((4, 4)).tolist()}]}, "frame 0: .*not orthonormal"),
    ],
)
def test_broken_nerfstudio_files_are_refused(change, message, truth, poses, tmp_path):
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({**nerfstudio(truth, poses), **change}))
    with pytest.raises(ValueError, match=message):
        load_trajectory(file)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"w2c": np.zeros((3, 4, 4))}, "3 poses in w2c but 7 in c2w"),
        ({"c2w": np.tile(np.eye(4), (7, 1, 1))}, "pose 0: w2c is not the inverse of c2w"),
        ({"K": np.eye(4)}, r"expected K of shape \(3, 3\) or \(n, 3, 3\), got \(4, 4\)"),
        ({"K": np.tile(np.eye(3), (5, 1, 1))}, "5 intrinsics for 7 poses"),
        ({"w2c": np.eye(4)}, r"expected w2c of shape \(n, 4, 4\)"),
        ({"w2c": np.array([{}])}, "archive of plain arrays"),
    ],
)
def test_broken_rgbd_folders_are_refused(change, message, truth, poses, tmp_path):
    write_rgbd(tmp_path, truth, poses)
    with np.load(tmp_path / "cameras.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "cameras.npz", **{**arrays, **change})
    with pytest.raises(ValueError, match=message):
        load_trajectory(tmp_path)
    (tmp_path / "cameras.npz").write_bytes(b"PK\3\4 damaged")
    with pytest.raises(ValueError, match="not a readable archive"):
        load_trajectory(tmp_path)


def test_an_rgbd_folder_knows_its_size_and_needs_only_one_direction(truth, poses, tmp_path):
    write_rgbd(tmp_path, truth, poses)
    with np.load(tmp_path / "cameras.npz") as archive:
        arrays = dict(archive)
    del arrays["w2c"]
    np.savez(tmp_path / "cameras.npz", **arrays)
    read = load_trajectory(tmp_path / "cameras.npz").cameras
    assert (read.height, read.width) == (HEIGHT, WIDTH)
    torch.testing.assert_close(read.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
    (tmp_path / "rgb" / "00000.png").unlink()
    with pytest.raises(ValueError, match="give height and width"):
        load_trajectory(tmp_path)
    torch.testing.assert_close(load_trajectory(tmp_path, HEIGHT, WIDTH).cameras.intrinsics, truth.intrinsics)


@pytest.mark.parametrize(
    "content",
    [b"a letter to my aunt", b"\x89PNG\r\n\0\0", b'{"cameras": []}', b"1 2 3\n4 5 6", b"[1, 2]", b"\xff\xfe\xfd"],
)
@pytest.mark.parametrize("suffix", [".txt", ".json", ".npz", ".png"])
def test_files_of_another_format_are_refused(content, suffix, tmp_path):
    file = tmp_path / f"path{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file.name}.* is not "):
        load_trajectory(file, HEIGHT, WIDTH)


def test_what_is_not_there_is_refused(truth, poses, tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        load_trajectory(tmp_path / "nothing")
    with pytest.raises(ValueError, match="not a camera path of a known format"):
        load_trajectory(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match="the file is empty"):
        load_trajectory(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="unknown camera format 'fbx', expected auto or one of spatia"):
        load_trajectory(write_spatia(tmp_path, truth, poses), format="fbx")
    with pytest.raises(ValueError, match="looked for rgbd"):
        load_trajectory(tmp_path, format="rgbd")
    with pytest.raises(ValueError, match="give height and width"):
        load_trajectory(tmp_path)


@pytest.mark.parametrize("case, poses, length", [(1, 193, 2.6), (2, 193, 0.0), (3, 121, 0.0)])
def test_real_spatia_cases(shared, case, poses, length):
    read = load_trajectory(shared / "data" / "spatia_test_cases" / f"case_{case}", 704, 1248)
    assert (read.format, len(read.cameras)) == ("spatia", poses)
    assert read.motion.reach == pytest.approx(length, abs=0.2)
    if case == 1:
        assert read.cameras.intrinsics[0, 0, 0].item() == pytest.approx(1029, abs=0.5)


def test_real_realestate10k_files(shared):
    files = sorted((shared / "data" / "re10k_poses_cameractrl").glob("*.txt"))
    assert len(files) == 10
    for file in files:
        read = load_trajectory(file, 360, 640)
        assert (read.format, len(read.cameras)) == ("realestate10k", 16)
        assert 0.01 < read.motion.length < 100


@pytest.mark.parametrize(
    "folder, poses, size",
    [
        ("hololens_office_loop", 111, (360, 540)),
        ("icl_livingroom1", 106, (480, 640)),
        ("tum_fr3_cabinet58", 58, (480, 640)),
    ],
)
def test_real_rgbd_folders(shared, folder, poses, size):
    read = load_trajectory(shared / "data" / folder)
    assert (read.format, len(read.cameras)) == ("rgbd", poses)
    assert (read.cameras.height, read.cameras.width) == size
    with np.load(shared / "data" / folder / "cameras.npz") as archive:
        torch.testing.assert_close(
            read.cameras.intrinsics[0, :2, 2] - 0.5, torch.from_numpy(archive["K"][:2, 2]).float(), atol=1e-4, rtol=0
        )


def test_real_depth_agrees_between_real_poses(shared):
    """The convention is right: depth carried from one frame to another by the cameras lands on the depth there."""
    folder = shared / "data" / "icl_livingroom1"
    cameras = load_trajectory(folder).cameras
    depth = [
        torch.from_numpy(np.asarray(Image.open(folder / "depth" / f"{n:05d}.png")).astype(np.float32)) / 1000
        for n in (0, 5)
    ]
    points = cameras[0].unproject(depth[0][None])[0][depth[0] > 0]
    (xy,), (z,) = cameras[5].project(points)
    column, row = xy.floor().long().unbind(-1)
    inside = (z > 0) & (column >= 0) & (column < 640) & (row >= 0) & (row < 480)
    there = depth[1][row[inside], column[inside]]
    agree = ((there - z[inside]).abs() < 0.02 * z[inside])[there > 0]
    assert agree.float().mean() > 0.95
