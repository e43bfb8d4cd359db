"""Whatever a file holds, reading it gives cameras or a ValueError: never another error, never a crash."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_files import FILES, HEIGHT, WIDTH

from mirage.camera import load_trajectory

NAMES = ["a.txt", "w2c.txt", "a.json", "a.npz", "a.npy", "images.bin", "images.txt", "transforms.json"]
WORDS = (
    "frames transform_matrix fl_x fl_y cx cy w h camera_angle_x applied_transform applied_scale camera_path fov "
    "camera_to_world render_height render_width w2c K img_wh path R T timestamp cameras start resolution 0 1 extrinsic "
    "cameras_to_world focal_lengths principal_points resolutions focal_length cameras_interp train_ids test_ids k1 "
    "camera_model camera_type file_path"
)
KEYS = st.sampled_from(WORDS.split())
MATRIX = st.sampled_from([np.eye(4).tolist(), np.eye(4)[:3].tolist(), np.eye(3).tolist(), np.eye(4).ravel().tolist()])
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), MATRIX, st.just(10**400))
JSON = st.recursive(LEAF, lambda v: st.lists(v, max_size=4) | st.dictionaries(KEYS, v, max_size=6), max_leaves=12)
ARRAYS = "w2c c2w K intrinsics poses_c2w inds data image_height image_width depths"
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def survives(place) -> None:
    for words in (None, "c2w opencv center"):
        for size in ((), (HEIGHT, WIDTH)):
            try:
                read = load_trajectory(place, *size, convention=words, center=2.0)
            except ValueError as error:
                assert str(error), "an error says something"
            else:
                assert read.cameras.validate() and str(read)


@quick
@given(st.binary(max_size=400), st.sampled_from(NAMES))
@example(b"[" * 100_000, "a.json")
@example(b"[[" + b"9" * 5000 + b"]]", "a.txt")
@example(b"{" * 5000, "w2c.txt")
@example(b"PK\x05\x06" + b"\0" * 18, "a.npz")
@example("\uff11 \u0663".encode(), "a.txt")
def test_bytes(tmp_path_factory, content, name):
    place = tmp_path_factory.mktemp("fuzz")
    for file in {name, "cameras.bin", "cameras.txt", "intrinsics.txt"}:
        (place / file).write_bytes(content)
    survives(place / name)
    survives(place)


@quick
@given(
    st.lists(
        st.lists(st.sampled_from(["0", "1", "-1", "nan", "1e400", "PINHOLE", "x", "#", "[["]), max_size=20), max_size=6
    )
)
def test_words(tmp_path_factory, rows):
    place = tmp_path_factory.mktemp("fuzz")
    for file in ("a.txt", "cameras.txt", "images.txt"):
        (place / file).write_text("\n".join(map(" ".join, rows)))
    survives(place / "a.txt")
    survives(place / "images.txt")


@settings(quick, max_examples=150)
@given(JSON)
@example({"frames": [{}], "w": 1, "applied_transform": np.zeros((4, 4)).tolist()})
@example({"0": {"extrinsic": np.eye(4).tolist(), "K": np.zeros((3, 3)).tolist()}, "00": 1})
@example({"frames": [{"transform_matrix": np.eye(4).tolist(), "file_path": "../" * 90}], "camera_angle_x": 1})
@example({"frames": [{"transform_matrix": np.eye(4).tolist(), "file_path": "[*\0"}], "camera_angle_x": 1})
@example({"focal_length": 1, "cameras": "x"})
@example({"camera_path": [], "render_height": 1, "render_width": 1})
@example({"path": [{"R": [0, 0, 0, 1], "T": [0, 0, 0], "fov": None}]})
@example([{"w2c": 1, "K": 2}])
@example({"0": 1})
@example({"path": [1]})
@example({"path": [[{"a": 1}]], "cameras": [1]})
@example([{"w2c": np.eye(4).tolist(), "K": np.eye(3).tolist(), "img_wh": [1e9, 1]}, 3])
def test_json(tmp_path_factory, value):
    place = tmp_path_factory.mktemp("fuzz") / "a.json"
    place.write_text(json.dumps(value))
    survives(place)


@pytest.mark.parametrize("name", FILES)
def test_files_with_one_thing_wrong(name, tmp_path_factory, truth, w2c):
    """Each format with a byte flipped, a part cut out, or an end missing."""
    generator = np.random.default_rng(0)
    for turn in range(6):
        folder = tmp_path_factory.mktemp("fuzz")
        place = FILES[name](folder, truth.to("cpu"), w2c)
        for file in [f for f in folder.rglob("*") if f.is_file()]:
            content = bytearray(file.read_bytes())
            at = int(generator.integers(len(content)))
            if turn % 3 == 0:
                content[at] = int(generator.integers(256))
            elif turn % 3 == 1:
                del content[at:]
            else:
                del content[at : at + 7]
            file.write_bytes(bytes(content))
        survives(place)


@quick
@given(
    st.dictionaries(
        st.sampled_from(ARRAYS.split()),
        st.sampled_from(
            [
                np.eye(4),
                np.eye(4)[None],
                np.eye(3),
                np.eye(3)[None] * np.nan,
                np.zeros(0),
                np.array("x"),
                np.array(1j),
                np.zeros((0, 4, 4)),
                np.full((2, 4, 4), 1e300),
                np.array([1e308]),
                np.array(54),
                np.array([[1, 2, 3, 4]]),
            ]
        ),
    )
)
def test_arrays(tmp_path_factory, arrays):
    place = tmp_path_factory.mktemp("fuzz") / "a.npz"
    np.savez(place, **arrays)
    survives(place)


def test_an_archive_that_lies_about_its_arrays(tmp_path):
    """A header that promises more than there is, one that is no header, an encrypted entry, a missing one."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 4, 4)})
    for content in (header.getvalue() + b"\0" * 64, b"\x93NUMPY\x01\0\x08\0(((((((\n", b"", b"\x93NUMPY\x09\0"):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("w2c.npy", content)
            archive.writestr("K.npy", content)
        with pytest.raises(ValueError, match="archive of plain arrays"):
            load_trajectory(tmp_path / "a.npz", 3, 5)
        (tmp_path / "a.npy").write_bytes(content or b"\x93NUMPY")
        with pytest.raises(ValueError, match="not a readable array"):
            load_trajectory(tmp_path / "a.npy", 3, 5, convention="w2c opencv")
