"""Every format of the table: small files of it, made from known cameras, give those cameras back."""

import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from small_files import (
    FILES,
    FRAMES,
    GL,
    HEIGHT,
    WIDTH,
    as_json,
    blender,
    colmap,
    guessed,
    k_of,
    lyra,
    nerfstudio,
    quaternions,
    realestate10k,
    rgbd,
    spatia,
    table,
    tum,
    vipe,
)

from mirage.camera import FORMATS, WRITERS, Cameras, build_path, load_trajectory
from mirage.camera.files import nominal_size
from mirage.camera.rigid import invert

GUESSED = {"tum", "kitti", "vmem", "npy"}
SIZED = {"matrices", "colmap", "nerfstudio", "blender", "camera-path", "viser", "ngp-export", "gen3c-request"}
SIZED |= {"hyworldplay", "rgbd", "geometry", "gen3c", "gen3c-video", "lyra"}
CONVENTION = {"npy": "c2w opengl"}


def test_every_format_is_tested():
    assert set(FILES) | {"voyager", "viewcrafter", "pose-string"} == set(FORMATS)


def test_every_format_has_its_row_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    read, _, written = page.partition("## Written")
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", written, re.M)) == sorted(WRITERS)
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", read, re.M)) == sorted(FORMATS)
    for name, format in FORMATS.items():
        row = next(line for line in read.splitlines() if line.startswith(f"| `{name}` |"))
        for file in format.files:
            named = file.split("/")[-1].removesuffix(".txt").removesuffix(".bin")
            assert file in (".", "pose") or file in row or named in row, f"{name}: {file} is not named"


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_format_is_recognised_and_gives_its_cameras(name, truth, w2c, tmp_path):
    place = FILES[name](tmp_path, truth, w2c)
    if name in GUESSED:
        guessed(truth)
    for format in ("auto", name):
        read = load_trajectory(place, HEIGHT, WIDTH, format=format, convention=CONVENTION.get(name))
        assert read.format == name
        assert read.cameras.cam_from_world[0].equal(torch.eye(4)), "first pose is exactly the identity"
        torch.testing.assert_close(read.cameras.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
        torch.testing.assert_close(read.cameras.intrinsics, truth.intrinsics, atol=1e-4, rtol=1e-6)
    said = str(read)
    assert "5 poses" in said and name in said and ("OpenCV axes" in said or "OpenGL axes" in said)
    assert ("60 degrees over the longer side are assumed" in said) == (name in GUESSED)
    if name in SIZED:
        own = load_trajectory(place).cameras
        assert (own.height, own.width) == (HEIGHT, WIDTH)
        assert nominal_size(place) == (HEIGHT, WIDTH)
    else:
        with pytest.raises(ValueError, match="give height and width"):
            load_trajectory(place, convention=CONVENTION.get(name))
        assert nominal_size(place, convention=CONVENTION.get(name))[0] == 480
    if name == "vipe":
        with pytest.raises(ValueError, match="far from the middle of 192 x 108: give height and width of its images"):
            load_trajectory(place, 2 * HEIGHT, 2 * WIDTH)
        return
    double = load_trajectory(place, 2 * HEIGHT, 2 * WIDTH, convention=CONVENTION.get(name)).cameras
    if name != "worldscore":
        torch.testing.assert_close(
            double.intrinsics, truth.resize(2 * HEIGHT, 2 * WIDTH).intrinsics, atol=1e-3, rtol=1e-6
        )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["nan", "mirrored", "stretched"])
def test_impossible_poses_are_refused_with_their_place(name, fault, truth, w2c, tmp_path):
    change = {"nan": lambda m: m * math.nan, "mirrored": lambda m: m * [[1.0], [1.0], [-1.0], [1.0]]}
    w2c[2] = change.get(fault, lambda m: m * [[1.2], [1.0], [1.0], [1.0]])(w2c[2])
    if name == "worldscore" or (name in ("tum", "colmap", "ngp-path") and fault != "nan"):
        pytest.skip("this format cannot say such a thing, or its file is made from the cameras")
    with np.errstate(invalid="ignore"):
        place = FILES[name](tmp_path, truth, w2c)
    with pytest.raises(ValueError, match=f"({place.name}|{tmp_path.name}).*(2|3|4|6|10|entry|frame).*") as error:
        load_trajectory(place, HEIGHT, WIDTH, convention=CONVENTION.get(name))
    wanted = {"nan": "finite|numbers|expected|last row", "mirrored": "mirror", "stretched": "orthonormal"}[fault]
    assert any(word in str(error.value) for word in wanted.split("|")), error.value


def test_prompts_and_scale_come_along(truth, w2c, tmp_path):
    for name in ("lyra", "realestate10k", "spatia"):
        (tmp_path / name).mkdir()
    read = load_trajectory(lyra(tmp_path / "lyra", truth, w2c), scale=2.5)
    assert read.prompts == ((0, "a quiet street"), (81, "the sea"))
    torch.testing.assert_close(read.cameras.centers, 2.5 * truth.centers, atol=1e-5, rtol=0)
    assert "distances multiplied by 2.5" in read.notes
    assert load_trajectory(realestate10k(tmp_path / "realestate10k", truth, w2c), 54, 96).prompts == (
        (0, "a quiet street"),
    )
    assert load_trajectory(spatia(tmp_path / "spatia", truth, w2c), 54, 96).prompts == ((0, "A quiet street."),)
    for scale in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="scale must be positive"):
            load_trajectory(tmp_path / "lyra", scale=scale)


def test_a_convention_can_be_told(truth, w2c, tmp_path):
    np.save(tmp_path / "poses.npy", w2c)
    for words in (None, "w2c", "opencv"):
        with pytest.raises(ValueError, match=r"bare array .* give convention, w2c or c2w, opencv or opengl"):
            load_trajectory(tmp_path / "poses.npy", HEIGHT, WIDTH, convention=words)
    for words in ("left-handed", "w2c c2w", "w2c w2c"):
        with pytest.raises(ValueError, match="convention must be w2c or c2w"):
            load_trajectory(tmp_path / "poses.npy", HEIGHT, WIDTH, convention=words)
    read = load_trajectory(tmp_path / "poses.npy", HEIGHT, WIDTH, convention="OpenCV, w2c")
    torch.testing.assert_close(read.cameras.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
    np.save(tmp_path / "poses.npy", (GL @ w2c)[:, :3])
    read = load_trajectory(tmp_path / "poses.npy", HEIGHT, WIDTH, convention="w2c/opengl")
    torch.testing.assert_close(read.cameras.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
    assert "convention as told: w2c opengl" in read.notes
    with pytest.raises(ValueError, match="center is for intrinsics in pixels"):
        load_trajectory(tmp_path / "poses.npy", HEIGHT, WIDTH, convention="w2c opengl center")


def test_half_a_pixel_is_added_where_the_caller_says_so(truth, w2c, tmp_path):
    corner = load_trajectory(lyra(tmp_path, truth, w2c)).cameras.intrinsics
    center = load_trajectory(tmp_path, convention="center")
    assert (center.cameras.intrinsics[:, :2, 2] - corner[:, :2, 2] == 0.5).all() and "0.5 was added" in str(center)
    (tmp_path / "rgbd").mkdir()
    own = load_trajectory(rgbd(tmp_path / "rgbd", truth, w2c)).cameras.intrinsics
    told = load_trajectory(tmp_path / "rgbd", convention="corner").cameras.intrinsics
    assert (own[:, :2, 2] - told[:, :2, 2] == 0.5).all()


def test_what_can_be_two_things_is_refused(truth, w2c, tmp_path):
    table(tmp_path / "three.txt", [[0, 0, 0, 0, 0, 0, 0, 1]] * 3)
    with pytest.raises(ValueError, match=r"more than one way: three.txt as tum, three.txt as viewcrafter; say which"):
        load_trajectory(tmp_path / "three.txt", HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="time must run forward, got 0 after 0"):
        load_trajectory(tmp_path / "three.txt", HEIGHT, WIDTH, format="tum")
    spatia(tmp_path, truth, w2c)
    lyra(tmp_path, truth, w2c)
    with pytest.raises(ValueError, match=r"more than one camera path: w2c.txt as spatia, trajectory.npz as lyra; name"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)
    assert load_trajectory(tmp_path, HEIGHT, WIDTH, format="lyra").format == "lyra"
    assert load_trajectory(tmp_path / "w2c.txt", HEIGHT, WIDTH).format == "spatia"


def test_blender_splits_are_not_chosen_from(truth, w2c, tmp_path):
    blender(tmp_path, truth, w2c)
    (tmp_path / "transforms_test.json").write_bytes((tmp_path / "transforms_train.json").read_bytes())
    with pytest.raises(ValueError, match=r"transforms_test.json as blender, transforms_train.json as blender; name"):
        load_trajectory(tmp_path)


def test_time_runs_forward(truth, w2c, tmp_path):
    place = tum(tmp_path, truth, w2c)
    lines = place.read_text().splitlines()
    place.write_text("\n".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    with pytest.raises(ValueError, match=r"line 4: time must run forward, got 0.0333.* after 0.0666"):
        load_trajectory(place, HEIGHT, WIDTH)


def test_seva_begins_at_its_input(truth, w2c, tmp_path):
    nerfstudio(tmp_path, truth, w2c)
    whole = load_trajectory(tmp_path).cameras
    split = as_json(tmp_path / "train_test_split_1.json", {"train_ids": [2], "test_ids": [0, 4]})
    read = load_trajectory(tmp_path)
    assert read.notes[0] == "train_test_split_1.json: begins at input frame 2, goes through 2 test frames"
    relative = whole.cam_from_world[[2, 0, 4]] @ whole.world_from_cam[2]
    torch.testing.assert_close(read.cameras.cam_from_world, relative, atol=2e-6, rtol=0)
    other = as_json(tmp_path / "train_test_split_3.json", {"train_ids": [4, 1], "test_ids": [0]})
    assert len(load_trajectory(other).cameras) == 2
    for broken in ({"train_ids": [], "test_ids": [1]}, {"train_ids": [0], "test_ids": [0]}, {"train_ids": [9]}, [1]):
        as_json(split, broken)
        with pytest.raises(ValueError, match=r"train_test_split_1.json: expected train_ids and test_ids"):
            load_trajectory(tmp_path)


# The moves of WorldScore at camera_speed 1: last centre and turn about y, after re-basing. Positive yaw turns right.
WORLDSCORE = {
    "push_in": ((0, 0, 1), 0),
    "pull_out": ((0, 0, -1), 0),
    "move_left": ((-0.5, 0, 0), 0),
    "move_right": ((0.5, 0, 0), 0),
    "pan_left": ((0, 0, 0), -30),
    "pan_right": ((0, 0, 0), 30),
    "orbit_left": ((-0.5, 0, 0.134), 30),
    "orbit_right": ((0.5, 0, 0.134), -30),
}


@pytest.mark.parametrize("move", WORLDSCORE)
def test_worldscore_signs(move, tmp_path):
    """Matrices in its axes, written down by hand: world x left, y up, z forward; camera x right, y up, z backward."""
    (x, y, z), yaw = WORLDSCORE[move]
    c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    # Columns: where the camera's right, up and backward point to in the world (left, up, forward), then its place.
    last = [[-c, 0, -s, -x], [0, 1, 0, -y], [-s, 0, -c, z], [0, 0, 0, 1]]
    last[0][2], last[2][0] = s, -s
    first = np.diag([-1.0, 1, -1, 1]).tolist()
    as_json(tmp_path / "camera_data.json", {"focal_length": 500, "scale": 1, "cameras": [first, last]})
    read = load_trajectory(tmp_path, 512, 512).cameras
    np.testing.assert_allclose(read.centers[1], [x, y, z], atol=1e-6)
    ahead = read.world_from_cam[1, :3, 2]
    assert math.degrees(math.atan2(ahead[0], ahead[2])) == pytest.approx(yaw, abs=1e-4), "yaw to the right"


def test_a_pose_string_and_its_json_are_one_path(truth, tmp_path):
    """As HY-WorldPlay makes JSON of a string: turn, then go along +z (w) or +x (d), 3 degrees and 0.08 a latent."""
    pose, expected = np.eye(4), [np.eye(4)]
    c, s = math.cos(math.radians(3)), math.sin(math.radians(3))
    right, up = np.eye(4), np.eye(4)
    right[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    up[:3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    go, side = np.eye(4), np.eye(4)
    go[2, 3] = side[0, 3] = 0.08
    for step, count in [(go, 3), (right, 4), (side, 2), (up, 1), (go, 1)]:
        for _ in range(count):
            pose = pose @ step
            expected.append(pose)
    (tmp_path / "pose.txt").write_text("w-3, right-4,d-2, up-1,left-0.5, w-1\n")
    read = load_trajectory(tmp_path / "pose.txt", HEIGHT, WIDTH)
    assert read.format == "pose-string" and "left-0.5 cut" in read.notes[0] and "ask for 45 frames" in read.notes[1]
    np.testing.assert_allclose(read.cameras.world_from_cam, expected, atol=1e-6)
    k = [[969.697, 0, 960], [0, 969.697, 540], [0, 0, 1]]
    as_json(tmp_path / "pose.json", {str(n): {"extrinsic": m.tolist(), "K": k} for n, m in enumerate(expected)})
    same = load_trajectory(tmp_path / "pose.json")
    assert (same.cameras.height, same.cameras.width) == (1080, 1920)
    torch.testing.assert_close(same.cameras.cam_from_world, read.cameras.cam_from_world, atol=1e-6, rtol=0)
    words = build_path("w-3,right-4", 29, Cameras.from_fov(1.0, HEIGHT, WIDTH)).cameras
    torch.testing.assert_close(words.cam_from_world[::4], read.cameras.cam_from_world[:8], atol=1e-6, rtol=0)


def test_viewcrafter_turns_about_a_centre(tmp_path):
    """The camera faces the centre from the same distance, ends where the lists end, and d_r is a share of it."""
    file = tmp_path / "loop.txt"
    file.write_text("0 -3 -15 -20 -17 -5 0\n0 -2 -5 -10 -8 -5 0 2 5 3 0\n0 0\n")
    with pytest.raises(ValueError, match="give center, the distance of that point"):
        load_trajectory(file, HEIGHT, WIDTH)
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="center must be positive"):
            load_trajectory(file, HEIGHT, WIDTH, center=wrong)
    read = load_trajectory(file, HEIGHT, WIDTH, center=4.0).cameras
    assert len(read) == 25
    centre = torch.tensor([[0.0, 0.0, 4.0]])
    (xy, z) = read.project(centre)
    torch.testing.assert_close(z, torch.full((25, 1), 4.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(xy[:, 0], torch.tensor([[WIDTH / 2, HEIGHT / 2]]).expand(25, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(read.cam_from_world[24], torch.eye(4), atol=1e-5, rtol=0)
    file.write_text("0 30\n0 0\n0 0\n")
    right = load_trajectory(file, HEIGHT, WIDTH, center=4.0).cameras
    assert right.centers[24, 0].item() == pytest.approx(2.0, abs=0.05), "positive phi goes to the right"
    file.write_text("0 0\n0 0\n0 -0.5\n")
    ahead = load_trajectory(file, HEIGHT, WIDTH, center=4.0).cameras.centers[24]
    assert ahead[2].item() == pytest.approx(2.0, abs=0.05) and ahead[0].abs() < 1e-6, "half of the way to the centre"
    assert build_path(str(file), None, Cameras.from_fov(1.0, HEIGHT, WIDTH), scale=4.0).cameras.centers[24, 2] > 1.9


def test_colmap_models(truth, w2c, tmp_path):
    colmap(tmp_path, truth, w2c)
    file = tmp_path / "sparse/0/cameras.txt"
    for model, parameters, expected in [
        ("SIMPLE_PINHOLE", "70 48 27", None),
        ("SIMPLE_RADIAL", "70 48 27 0", None),
        ("SIMPLE_RADIAL", "70 48 27 -0.05", "lens distortion of the file (up to 0.05) not applied"),
        ("RADIAL", "70 48 27 0.01 0.002", "lens distortion of the file (up to 0.01)"),
        ("OPENCV", "70 70 48 27 0.01 0 0 0.001", "lens distortion of the file (up to 0.01)"),
        ("FULL_OPENCV", "70 70 48 27 0 0 0 0 0 0 0 0", None),
    ]:
        file.write_text(f"3 {model} {WIDTH} {HEIGHT} {parameters}\n")
        read = load_trajectory(tmp_path)
        assert read.cameras.intrinsics[0].tolist() == [[70, 0, 48], [0, 70, 27], [0, 0, 1]]
        assert any("distortion" in note for note in read.notes) == (expected is not None)
        assert expected is None or any(note.startswith(expected) for note in read.notes)
    for text, message in [
        (
            f"3 OPENCV_FISHEYE {WIDTH} {HEIGHT} 70 70 48 27 0 0 0 0",
            "line 1: camera model OPENCV_FISHEYE is not a pinhole",
        ),
        (f"3 PINHOLE {WIDTH} {HEIGHT} 70 70 48", "line 1: expected 4 parameters of PINHOLE"),
        ("\n3 PINHOLE wide", "line 2: expected CAMERA_ID MODEL"),
        (f"7 SIMPLE_PINHOLE {WIDTH} {HEIGHT} 70 48 27", "image frame 8.png: no camera 3"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_trajectory(tmp_path)
    file.write_text(f"3 SIMPLE_PINHOLE {WIDTH} {HEIGHT} 70 48 27")
    images = tmp_path / "sparse/0/images.txt"
    images.write_text(images.read_text() + "\n9 1 0 0 0 0 0")
    with pytest.raises(ValueError, match=r"images.txt, line \d+: expected IMAGE_ID QW"):
        load_trajectory(tmp_path)
    images.unlink()
    with pytest.raises(ValueError, match="not a camera path"):
        load_trajectory(tmp_path / "sparse")


def test_colmap_binary(truth, w2c, tmp_path):
    colmap(tmp_path, truth, w2c)
    text = load_trajectory(tmp_path).cameras
    folder = tmp_path / "binary"
    folder.mkdir()
    k = k_of(truth)[0][[0, 1, 0, 1], [0, 1, 2, 2]]
    cameras = struct.pack("<QiiQQ4d", 1, 3, 1, WIDTH, HEIGHT, *k)
    images = struct.pack("<Q", FRAMES)
    for n, (q, m) in enumerate(zip(quaternions(w2c), w2c, strict=True)):
        images += struct.pack("<i7di", n + 1, *q, *m[:3, 3], 3) + f"frame {n}.png".encode() + b"\0"
        images += struct.pack("<Q", n) + b"".join(struct.pack("<ddq", 1.0, 2.0, -1) for _ in range(n))
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(images)
    read = load_trajectory(folder)
    assert read.format == "colmap"
    torch.testing.assert_close(read.cameras.cam_from_world, text.cam_from_world, atol=1e-6, rtol=0)
    torch.testing.assert_close(read.cameras.intrinsics, text.intrinsics, atol=1e-5, rtol=0)
    for end in (4, 8, 60, len(images) - 30):
        (folder / "images.bin").write_bytes(images[:end])
        with pytest.raises(ValueError, match=r"images.bin ends in the middle of image \d"):
            load_trajectory(folder)


def test_seven_scenes(truth, w2c, tmp_path):
    for n, m in enumerate(np.linalg.inv(w2c)):
        table(tmp_path / f"frame-{n:06d}.pose.txt", m)
    picture = Cameras.from_fov(0.9, HEIGHT, WIDTH)
    read = load_trajectory(tmp_path, HEIGHT, WIDTH, lens=picture)
    assert read.format == "matrices" and "those of the picture are taken" in str(read)
    torch.testing.assert_close(read.cameras.cam_from_world, truth.cam_from_world, atol=2e-6, rtol=0)
    assert read.cameras.intrinsics[2].equal(picture.intrinsics[0])
    (tmp_path / "frame-000002.pose.txt").write_text("-inf -inf -inf -inf\n" * 4)
    with pytest.raises(ValueError, match=r"frame-000002.pose.txt: the pose holds a number that is not finite"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)
    (tmp_path / "frame-000002.pose.txt").write_text("1 0 0\n" * 4)
    with pytest.raises(ValueError, match=r"frame-000002.pose.txt: expected a 4 x 4 matrix"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)


def test_vipe_says_which_frames_are_missing(truth, w2c, tmp_path):
    read = load_trajectory(vipe(tmp_path, truth, w2c), HEIGHT, WIDTH)
    assert read.notes[0].startswith("2 frames have no pose and are left out (1, 4")
    np.savez(tmp_path / "intrinsics" / "clip.npz", inds=[0, 2, 3, 5], data=np.ones((4, 4)))
    with pytest.raises(ValueError, match="no intrinsics of frame 6"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)
    (tmp_path / "intrinsics" / "clip.npz").unlink()
    assert "are assumed" in str(load_trajectory(tmp_path, HEIGHT, WIDTH))
    np.savez(tmp_path / "pose" / "clip.npz", inds=[0, 2, 1, 5, 6], data=np.linalg.inv(w2c))
    with pytest.raises(ValueError, match="frame 1: time must run forward, got 1 after 2"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)


def test_voyager_holds_no_cameras(tmp_path):
    (tmp_path / "video_input").mkdir()
    with pytest.raises(ValueError, match=r"Voyager condition folder.*no cameras; give the path"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_format_is_refused_with_what_was_expected(name, truth, w2c, tmp_path):
    place = FILES[name](tmp_path, truth, w2c)
    for other in ("pose-string", "viewcrafter", "ngp-path"):
        if other != name:
            with pytest.raises(ValueError, match=f"looked for {other}"):
                load_trajectory(place, HEIGHT, WIDTH, format=other, convention=CONVENTION.get(name))


def test_what_is_no_camera_file_says_what_it_is(tmp_path):
    np.savez(tmp_path / "a.npz", foo=np.eye(4), K=np.eye(3))
    as_json(tmp_path / "a.json", {"bar": 1})
    (tmp_path / "a.txt").write_text("\n1 2 3\n")
    for name, said in [
        ("a.npz", r"arrays foo, K; looked for .*lyra \(w2c, intrinsics, image_height and image_width\)"),
        ("a.json", r"JSON with bar; looked for .*viser \(a list of w2c, K and img_wh\)"),
        ("a.txt", r"text with 3 words in line 2; looked for .*tum \(8 numbers a line: t tx ty tz qx qy qz qw\)"),
        (".", r"a folder without a camera file; looked for w2c.txt, .*sparse/0/images.txt"),
    ]:
        with pytest.raises(ValueError, match=f"is not a camera path of a known format: {said}"):
            load_trajectory(tmp_path / name, HEIGHT, WIDTH)


def test_quaternions_out_of_order_are_noticed(truth, w2c, tmp_path):
    place = tum(tmp_path, truth, w2c)
    place.write_text("0 0 0 0 0 0 0 2\n1 0 0 0 0 0 0 2\n")
    with pytest.raises(ValueError, match=r"groundtruth.txt, line 1: expected a quaternion of length 1, got length 2"):
        load_trajectory(place, HEIGHT, WIDTH)
    place.write_text("0 0 0 0 0 0 0 1\n1 0 0 0 0 0 0\n")
    with pytest.raises(ValueError, match=r"line 2: expected 8 numbers \(t tx ty tz qx qy qz qw\), got 7"):
        load_trajectory(place, HEIGHT, WIDTH)


def test_archives_are_not_trusted(truth, w2c, tmp_path):
    np.savez(tmp_path / "camera.npz", w2c=np.array([{"a": 1}], dtype=object), intrinsics=k_of(truth))
    with pytest.raises(ValueError, match="archive of plain arrays"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)
    np.savez_compressed(tmp_path / "camera.npz", w2c=np.zeros((2**21 + 1, 4, 4)), intrinsics=k_of(truth))
    with pytest.raises(ValueError, match=r"array w2c unpacks to 268435\d+ bytes, more than cameras need"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)
    np.savez(tmp_path / "camera.npz", w2c=np.array(["one", "two"]), intrinsics=k_of(truth))
    with pytest.raises(ValueError, match="expected numbers in w2c"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)
    np.savez(tmp_path / "camera.npz", w2c=w2c[:, :2], intrinsics=k_of(truth))
    with pytest.raises(ValueError, match=r"expected w2c of shape \(n, 4, 4\) or \(n, 3, 4\), got \(5, 2, 4\)"):
        load_trajectory(tmp_path, HEIGHT, WIDTH)


def test_skew_is_refused(truth, w2c, tmp_path):
    k = k_of(truth)
    k[1, 0, 1] = 0.5
    np.savez(tmp_path / "trajectory.npz", w2c=w2c, intrinsics=k, image_height=HEIGHT, image_width=WIDTH)
    with pytest.raises(ValueError, match=r"no skew\), got"):
        load_trajectory(tmp_path)


def test_the_world_of_the_file_can_be_had_back(truth, w2c, tmp_path):
    read = load_trajectory(lyra(tmp_path, truth, w2c))
    torch.testing.assert_close(read.file_cameras.cam_from_world, torch.from_numpy(w2c).float(), atol=2e-6, rtol=0)
    torch.testing.assert_close(read.file_from_world, invert(torch.from_numpy(w2c[0])).float(), atol=1e-6, rtol=0)
