"""The formats of camera files: one row each, with what it is recognised by and who reads it. See docs/formats.md."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mirage.camera.array_readers import (
    read_gen3c,
    read_gen3c_video,
    read_geometry,
    read_lyra,
    read_npy,
    read_rgbd,
    read_vipe,
)
from mirage.camera.content import Content, Poses, numbers, read_text
from mirage.camera.json_readers import (
    read_camera_path,
    read_cameractrl,
    read_gen3c_request,
    read_hyworldplay,
    read_nerfstudio,
    read_ngp_export,
    read_ngp_path,
    read_ngp_seed,
    read_viser,
    read_worldscore,
)
from mirage.camera.text_readers import (
    POSE_STRING,
    matrix_files,
    read_colmap,
    read_kitti,
    read_matrices,
    read_pose_string,
    read_realestate10k,
    read_spatia,
    read_tum,
    read_viewcrafter,
    split_realestate10k,
)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of camera file.

    Its reader takes a `Content` that `recognise` accepted and returns `Poses`, or raises a `ValueError` that names the
    file, the line or key, what was expected and what came.

    Attributes:
        what: What a file of this kind holds.
        kinds: What it may be opened as, see `Content`.
        files: Where it is in a folder, the first pattern that is there counts; "." is the folder itself.
        recognise: Whether content of these kinds is of this format.
        read: The reader.
    """

    what: str
    kinds: tuple[str, ...]
    files: tuple[str, ...]
    recognise: Callable[[Content], bool]
    read: Callable[[Content], Poses]


def _text(recognise: Callable[[list[str]], bool]) -> Callable[[Content], bool]:
    """A test of the lines of a text that are no comments."""
    return lambda content: recognise([line for _, line in content.lines if not line.startswith("#")])


def _keys(recognise: Callable[[dict], bool]) -> Callable[[Content], bool]:
    """A test of a JSON object."""
    return lambda content: isinstance(content.data, dict) and recognise(content.data)


def _entries(recognise: Callable[[object], bool]) -> Callable[[Content], bool]:
    """A test of the first entry of a JSON list."""
    return lambda content: isinstance(content.data, list) and bool(content.data) and recognise(content.data[0])


def _holds(*names: str, without: str = "") -> Callable[[Content], bool]:
    """A test of the arrays of an archive."""
    return lambda content: all(name in content.arrays for name in names) and not (without and without in content.arrays)


def _row(count: int) -> Callable[[list[str]], bool]:
    return lambda lines: (
        bool(lines) and len(numbers(lines[0])) == count and all(map(math.isfinite, numbers(lines[0])[1:]))
    )


def _first(data: dict, key: str) -> object:
    """The first entry of the list under a key, or None."""
    value = data.get(key)
    return value[0] if isinstance(value, list) and value else None


def _has(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and set(keys) <= set(value)


def _is_spatia(content: Content) -> bool:
    line = content.lines[0][1].replace(" ", "") if content.lines else ""
    matrix = line.startswith("[[") and line.endswith("]]") and (line.count("["), line.count(",")) in ((4, 11), (5, 15))
    return content.path.name == "w2c.txt" or matrix


def _is_realestate10k(content: Content) -> bool:
    _, rows = split_realestate10k(content.lines)
    url = bool(content.lines) and content.lines[0][1].startswith(("http://", "https://"))
    return url or bool(rows and len(rows[0][1]) in (17, 19))


def _is_viewcrafter(lines: list[str]) -> bool:
    rows = [numbers(line) for line in lines]
    return len(rows) == 3 and all(row[0] == 0 and 2 <= len(row) <= 25 and all(map(math.isfinite, row)) for row in rows)


def _is_matrices(content: Content) -> bool:
    files = matrix_files(content.path)
    return bool(files) and len(read_text(files[0]).split("\n", 6)) < 7


def _is_colmap(content: Content) -> bool:
    stem, suffix = content.path.stem, content.path.suffix
    other = {"cameras": "images", "images": "cameras"}.get(stem)
    return bool(other) and suffix in (".txt", ".bin") and content.path.with_name(other + suffix).is_file()


def _voyager(content: Content) -> Poses:
    raise ValueError(
        f"{content.path} is a Voyager condition folder: it holds pictures and depth rendered along a path, but no "
        "cameras; give the path that they were rendered along"
    )


_LENS = ("fl_x", "fl_y", "camera_angle_x")


def _lens_keys(data: dict) -> set[str]:
    frames = [frame for frame in data["frames"][:1] if isinstance(frame, dict)]
    return {key for entry in (data, *frames) for key in entry if key in _LENS or key in ("w", "cx")}


def _frames(data: dict) -> bool:
    return isinstance(data.get("frames"), list)


FORMATS: dict[str, Format] = {
    "spatia": Format(
        what="a 4 x 4 matrix per line as a JSON list, with intrinsics.txt beside it",
        kinds=("text", "json"),
        files=("w2c.txt",),
        recognise=_is_spatia,
        read=read_spatia,
    ),
    "realestate10k": Format(
        what="19 numbers a line (or a name and 16) after a URL",
        kinds=("text",),
        files=(),
        recognise=_is_realestate10k,
        read=read_realestate10k,
    ),
    "tum": Format(
        what="8 numbers a line: t tx ty tz qx qy qz qw",
        kinds=("text",),
        files=("groundtruth.txt",),
        recognise=_text(_row(8)),
        read=read_tum,
    ),
    "kitti": Format(
        what="12 numbers a line: a 3 x 4 matrix",
        kinds=("text",),
        files=("poses.txt",),
        recognise=_text(_row(12)),
        read=read_kitti,
    ),
    "viewcrafter": Format(
        what="three lines of 2 to 25 numbers that begin with 0",
        kinds=("text",),
        files=(),
        recognise=_text(_is_viewcrafter),
        read=read_viewcrafter,
    ),
    "pose-string": Format(
        what="keys with durations, as in w-3,right-4",
        kinds=("text",),
        files=("pose_string.txt",),
        recognise=_text(lambda lines: POSE_STRING.fullmatch(" ".join(lines)) is not None),
        read=read_pose_string,
    ),
    "matrices": Format(
        what="a folder with a 4 x 4 text file per frame",
        kinds=("folder",),
        files=("pose", "."),
        recognise=_is_matrices,
        read=read_matrices,
    ),
    "colmap": Format(
        what="cameras and images, both .txt or both .bin",
        kinds=("text", "binary"),
        files=tuple(f"{at}images{end}" for at in ("", "sparse/0/", "sparse/", "0/") for end in (".txt", ".bin")),
        recognise=_is_colmap,
        read=read_colmap,
    ),
    "nerfstudio": Format(
        what="frames with transform_matrix, and fl_x (or camera_angle_x with w)",
        kinds=("json",),
        files=("transforms.json",),
        recognise=_keys(lambda d: (_frames(d) and bool(_lens_keys(d) - {"camera_angle_x"})) or "train_ids" in d),
        read=read_nerfstudio,
    ),
    "blender": Format(
        what="frames with transform_matrix, and camera_angle_x",
        kinds=("json",),
        files=("transforms.json", "transforms_*.json"),
        recognise=_keys(lambda d: _frames(d) and _lens_keys(d) == {"camera_angle_x"}),
        read=read_nerfstudio,
    ),
    "vmem": Format(
        what="frames with transform_matrix, and no intrinsics",
        kinds=("json",),
        files=("transforms.json", "transforms_*_frames.json"),
        recognise=_keys(lambda d: _frames(d) and not _lens_keys(d)),
        read=read_nerfstudio,
    ),
    "camera-path": Format(
        what="camera_path with camera_to_world and fov",
        kinds=("json",),
        files=("camera_path.json",),
        recognise=_keys(lambda d: isinstance(d.get("camera_path"), list)),
        read=read_camera_path,
    ),
    "viser": Format(
        what="a list of w2c, K and img_wh",
        kinds=("json",),
        files=(),
        recognise=_entries(lambda entry: _has(entry, "w2c", "K")),
        read=read_viser,
    ),
    "ngp-path": Format(
        what="path with R, T and fov",
        kinds=("json",),
        files=(),
        recognise=_keys(lambda d: _has(_first(d, "path"), "R", "T")),
        read=read_ngp_path,
    ),
    "ngp-export": Format(
        what="cameras with start and end matrices",
        kinds=("json",),
        files=(),
        recognise=_keys(lambda d: _has(_first(d, "cameras"), "start")),
        read=read_ngp_export,
    ),
    "ngp-seed": Format(
        what="a list of 3 x 4 matrices",
        kinds=("json",),
        files=("cameras.json",),
        recognise=_entries(lambda e: isinstance(e, list) and len(e) in (3, 4) and isinstance(e[0], list)),
        read=read_ngp_seed,
    ),
    "gen3c-request": Format(
        what="cameras_to_world, focal_lengths, principal_points and resolutions",
        kinds=("json", "npz"),
        files=(),
        recognise=lambda c: _has(c.data, "cameras_to_world") or (c.kind == "npz" and "cameras_to_world" in c.arrays),
        read=read_gen3c_request,
    ),
    "worldscore": Format(
        what="focal_length and cameras",
        kinds=("json",),
        files=("camera_data.json",),
        recognise=_keys(lambda d: "focal_length" in d and ("cameras" in d or "cameras_interp" in d)),
        read=read_worldscore,
    ),
    "hyworldplay": Format(
        what="extrinsic and K under the numbers of latent frames",
        kinds=("json",),
        files=("pose.json",),
        recognise=_keys(lambda d: all(k.isdecimal() for k in d) and _has(next(iter(d.values()), None), "extrinsic")),
        read=read_hyworldplay,
    ),
    "cameractrl": Format(
        what="a list of RealEstate10K's lines",
        kinds=("json",),
        files=(),
        recognise=_entries(lambda e: len(numbers(e if isinstance(e, str) else str(e).strip("[]"))) in (17, 19)),
        read=read_cameractrl,
    ),
    "rgbd": Format(
        what="c2w or w2c, and K",
        kinds=("npz",),
        files=("cameras.npz",),
        recognise=lambda c: "K" in c.arrays and ("w2c" in c.arrays or "c2w" in c.arrays),
        read=read_rgbd,
    ),
    "geometry": Format(
        what="poses_c2w and intrinsics",
        kinds=("npz",),
        files=("geometry.npz",),
        recognise=_holds("poses_c2w", "intrinsics"),
        read=read_geometry,
    ),
    "gen3c": Format(
        what="w2cs_all or w2cs_key_frames, and K_key_frames",
        kinds=("npz",),
        files=(),
        recognise=lambda c: "w2cs_all" in c.arrays or "w2cs_key_frames" in c.arrays,
        read=read_gen3c,
    ),
    "gen3c-video": Format(
        what="w2c and intrinsics",
        kinds=("npz",),
        files=("camera.npz",),
        recognise=_holds("w2c", "intrinsics", without="image_height"),
        read=read_gen3c_video,
    ),
    "lyra": Format(
        what="w2c, intrinsics, image_height and image_width",
        kinds=("npz",),
        files=("trajectory.npz",),
        recognise=_holds("w2c", "intrinsics", "image_height", "image_width"),
        read=read_lyra,
    ),
    "vipe": Format(
        what="inds and data",
        kinds=("npz",),
        files=("pose/*.npz",),
        recognise=_holds("inds", "data"),
        read=read_vipe,
    ),
    "npy": Format(
        what="an array of shape (n, 4, 4)",
        kinds=("npy",),
        files=(),
        recognise=lambda content: True,
        read=read_npy,
    ),
    "voyager": Format(
        what="a condition folder, which holds no cameras",
        kinds=("folder",),
        files=(".",),
        recognise=lambda c: (c.path / "video_input").is_dir() or (c.path / "depth_range.json").is_file(),
        read=_voyager,
    ),
}
