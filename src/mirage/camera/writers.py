"""Camera files for others: each writer is the inverse of a reader, and no file is ever half written."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.rigid import invert, to_quaternion

GL_FROM_CV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


def save_trajectory(
    path: str | Path,
    cameras: Cameras,
    format: str,
    *,
    images: Sequence[str] | None = None,
    points: Float32[Tensor, "n 3"] | None = None,
    colours: UInt8[Tensor, "n 3"] | None = None,
    fps: float = 16.0,
) -> str:
    """Write cameras as another system reads them; `load_trajectory` reads them back.

    Files are written aside and renamed, so that each is whole or as it was before.

    Convention:
        The result says it; the world of the file is that of `cameras`, so points and meshes of that world fit.

    Args:
        path: The file; for "colmap" and "spatia" the folder, which is made; for "nerfstudio" either.
        cameras: The path, in world units.
        format: A name of `WRITERS`.
        images: File names of the frames, as the format's image folder has them; for "colmap" and "nerfstudio".
        points: Points that start a reconstruction, in world units; for "colmap".
        colours: Their colours.
        fps: Frames per second, for formats with a time.

    Returns:
        What was written and what it means, one sentence.

    Raises:
        ValueError: If the format is unknown or cannot hold what is asked for, or the cameras are none or broken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_trajectory(f"{folder}/clip.txt", Cameras.from_fov(1.0, 2, 4), "realestate10k").split(": ")[1]
        'RealEstate10K, 1 pose, camera from world, OpenCV axes, intrinsics divided by the image size'
    """
    path, count = Path(path), len(cameras)
    if format not in WRITERS:
        raise ValueError(f"cameras can be written as {', '.join(WRITERS)}, not as {format!r}")
    if count == 0:
        raise ValueError("there is no camera to write")
    cameras = cameras.to("cpu").validate()
    if images is not None and format not in ("colmap", "nerfstudio"):
        raise ValueError(f"{format} has no place for names of images; nerfstudio and colmap have")
    if images is not None and (len(images) != count or len(set(images)) != count):
        raise ValueError(f"images must be {count} different names, one per camera, got {len(images)}")
    if images is not None and any(not name.strip() or set("\r\n\0") & set(name) for name in images):
        raise ValueError("images must be names of files, got an empty one or one of several lines")
    if (points is None) != (colours is None) or (points is not None and format != "colmap"):
        raise ValueError("points and colours go together, and only into colmap")
    if points is not None and (len(points) != len(colours) or not points.isfinite().all()):
        raise ValueError(f"points must be finite and as many as colours, got {len(points)} and {len(colours)}")
    if not 0 < fps < 1e6:
        raise ValueError(f"fps must be positive, got {fps}")
    files, means = WRITERS[format](path, cameras, images, points, colours, fps)
    _write(files)
    return f"{path}: {means.format('1 pose' if count == 1 else f'{count} poses')}"


def _spatia(path: Path, cameras: Cameras, *_: object) -> tuple[dict[Path, str], str]:
    lens = _lens(cameras.resize(1, 1))
    if (lens != lens[0]).any():
        raise ValueError("Spatia has one lens for all frames, these zoom: write realestate10k, nerfstudio or colmap")
    poses = cameras.cam_from_world.double().tolist()
    files = {
        path / "w2c.txt": "".join(f"{json.dumps(pose)}\n" for pose in poses),
        path / "intrinsics.txt": f"[{_words(lens[0])}]\n",
    }
    return files, "Spatia, {}, camera from world, OpenCV axes, intrinsics divided by the image size"


def _realestate10k(
    path: Path, cameras: Cameras, images: object, points: object, colours: object, fps: float
) -> tuple[dict[Path, str], str]:
    lens, pose = _lens(cameras.resize(1, 1)), cameras.cam_from_world.double()[:, :3].flatten(1)
    rows = [
        f"{round(n * 1e6 / fps)} {_words(k)} 0 0 {_words(p)}" for n, (k, p) in enumerate(zip(lens, pose, strict=True))
    ]
    means = "RealEstate10K, {}, camera from world, OpenCV axes, intrinsics divided by the image size"
    return {path: "\n".join(["https://", *rows, ""])}, means


def _nerfstudio(path: Path, cameras: Cameras, images: Sequence[str] | None, *_: object) -> tuple[dict[Path, str], str]:
    poses = invert(cameras.cam_from_world.double()) @ GL_FROM_CV
    lens = [dict(zip(("fl_x", "fl_y", "cx", "cy"), row, strict=True)) for row in _lens(cameras).tolist()]
    same = all(entry == lens[0] for entry in lens)
    frames = [
        {"file_path": None if images is None else images[n], "transform_matrix": pose} | ({} if same else lens[n])
        for n, pose in enumerate(poses.tolist())
    ]
    content = {"camera_model": "PINHOLE", "w": cameras.width, "h": cameras.height} | (lens[0] if same else {})
    file = path if path.suffix == ".json" else path / "transforms.json"
    means = "nerfstudio, {}, world from camera, OpenGL axes, intrinsics in pixels (corner convention)"
    return {file: json.dumps(content | {"frames": frames}, indent=1) + "\n"}, means


def _colmap(
    path: Path,
    cameras: Cameras,
    images: Sequence[str] | None,
    points: Tensor | None,
    colours: Tensor | None,
    _: float,
) -> tuple[dict[Path, str], str]:
    lenses = [_words(k) for k in _lens(cameras)]
    numbers = {lens: n for n, lens in enumerate(dict.fromkeys(lenses), 1)}
    pose = cameras.cam_from_world.double()
    quaternion = to_quaternion(pose[:, :3, :3])
    names = images or [f"frame_{n:05d}.png" for n in range(len(cameras))]
    tables = {
        "cameras": [f"{n} PINHOLE {cameras.width} {cameras.height} {lens}" for lens, n in numbers.items()],
        "images": [
            f"{n + 1} {_words(quaternion[n])} {_words(pose[n, :3, 3])} {numbers[lenses[n]]} {name}\n"
            for n, name in enumerate(names)
        ],
        "points3D": [
            f"{n} {_words(at)} {' '.join(map(str, colour))} 0"
            for n, (at, colour) in enumerate(zip(points.cpu(), colours.tolist(), strict=True), 1)
        ]
        if points is not None
        else [],
    }
    heads = {
        "cameras": "# CAMERA_ID MODEL WIDTH HEIGHT PARAMS",
        "images": "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then the 2D points (none)",
        "points3D": "# POINT3D_ID X Y Z R G B ERROR TRACK",
    }
    files = {path / f"{name}.txt": "\n".join([heads[name], *rows, ""]) for name, rows in tables.items()}
    return files, "COLMAP, {}, camera from world, OpenCV axes, intrinsics in pixels (corner convention)"


WRITERS: dict[str, Callable[..., tuple[dict[Path, str], str]]] = {
    "spatia": _spatia,
    "realestate10k": _realestate10k,
    "nerfstudio": _nerfstudio,
    "colmap": _colmap,
}


def _lens(cameras: Cameras) -> Tensor:
    """fx, fy, cx, cy of each camera."""
    return cameras.intrinsics.double()[:, [0, 1, 0, 1], [0, 1, 2, 2]]


def _words(values: Tensor) -> str:
    """Numbers with all their digits: what is read back is the same."""
    return " ".join(map(repr, values.tolist()))


def _write(files: dict[Path, str]) -> None:
    """Write all files aside, then put each in its place at once."""
    aside = {}
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            aside[file] = file.with_name(f".{file.name}.{os.getpid()}")
            with aside[file].open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        for file, written in aside.items():
            written.replace(file)
    finally:
        for written in aside.values():
            written.unlink(missing_ok=True)
