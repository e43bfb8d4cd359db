"""Camera files: each reader says what it understood, and refuses what it would have to guess.

A further format is one more function in `READERS`: it gives the poses as the file means them, in OpenCV axes, or None
if the content is not of its format. Checks, sizes and the choice of the world are the same for all.
"""

import itertools
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from PIL import Image
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.rigid import invert, nearest_rotation, rebase, rigid, rotation_angle
from mirage.camera.trajectory import Trajectory

CV_FROM_GL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
SHAPE_TOLERANCE = 0.05  # how much the shape of an image may differ from the one its intrinsics describe
ORTHONORMAL_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Poses:
    """What a reader found, before any check.

    Attributes:
        cam_from_file: Transforms from the file's world to the camera (OpenCV axes), in units of the file.
        intrinsics: Pinhole matrices, corner convention, one or one per pose.
        places: Where each pose stands ("line 3"), for error messages.
        convention: How the file writes poses and intrinsics.
        size: Rows and columns of the image that `intrinsics` belong to; (1, 1) if they are normalised, None if the
            file does not say.
        notes: What was ignored.
    """

    cam_from_file: Float64[Tensor, "n 4 4"]
    intrinsics: Float64[Tensor, "m 3 3"]
    places: list[str]
    convention: str
    size: tuple[int, int] | None
    notes: tuple[str, ...] = ()


def load_trajectory(
    path: str | Path,
    height: int | None = None,
    width: int | None = None,
    *,
    format: str = "auto",
    camera: Cameras | None = None,
) -> Trajectory:
    """Read a camera path from a file or a folder, whatever format it has.

    Convention:
        The result is in docs/conventions.md: OpenCV axes, corner pixels, and the first pose is exactly the identity.

    Args:
        path: A camera file, or a folder that holds one under its usual name.
        height: Rows of the image that the cameras are for; the file's own if it has one.
        width: Columns of that image.
        format: A name of `READERS`, or "auto" to recognise the content.
        camera: One camera whose intrinsics and size take the place of the file's (an image of another lens or shape).

    Returns:
        The cameras at `height` x `width`, with what was understood.

    Raises:
        ValueError: If the file is missing, of no known format, broken, without poses, or if its poses or intrinsics
            cannot be right; the message names the file and the place.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"no camera path at {path}: no such file or folder")
    if format != "auto" and format not in READERS:
        raise ValueError(f"unknown camera format {format!r}, expected auto or one of {', '.join(READERS)}")
    if path.is_file() and path.stat().st_size < 4096 and not path.read_bytes().strip():
        raise ValueError(f"{path} holds no poses: the file is empty")
    for name in READERS if format == "auto" else [format]:
        if (poses := READERS[name](path)) is not None:
            break
    else:
        known = ", ".join(READERS) if format == "auto" else format
        raise ValueError(f"{path} is not a camera path of a known format (looked for {known})")

    notes = list(poses.notes)
    cam_from_file = _checked_poses(poses, path, notes)
    if camera is None:
        cameras = _with_intrinsics(poses, path, height, width)
    else:
        cameras = Cameras(camera.intrinsics[:1].cpu(), torch.eye(4)[None], camera.height, camera.width)
        notes.append("intrinsics of the file not used")
    off = cam_from_file[0, :3, 3].norm().item(), math.degrees(rotation_angle(cam_from_file[0, :3, :3]).item())
    if max(off) > 0:
        notes.append(
            f"re-based to the first pose, which was {off[0]:.3g} units and {off[1]:.3g} degrees off the origin"
        )
    return Trajectory(
        cameras=Cameras(
            cameras.intrinsics.expand(len(cam_from_file), 3, 3).clone(),
            rebase(cam_from_file).float(),
            cameras.height,
            cameras.width,
        ).validate(),
        source=str(path),
        format=name,
        convention=poses.convention,
        notes=tuple(notes),
        file_from_world=invert(cam_from_file[0]).float(),
    )


def read_spatia(path: Path) -> Poses | None:
    """Spatia: `w2c.txt`, a JSON matrix per line, with `intrinsics.txt`, `[fx fy cx cy]`, beside it.

    Args:
        path: The file of poses, or the folder of both.

    Returns:
        The poses, or None if the content is of another format.

    Raises:
        ValueError: If the content is of this format but broken.
    """
    file = path / "w2c.txt" if path.is_dir() else path
    lines = _lines(file)
    if not file.is_file() or (file.name != "w2c.txt" and not (lines and lines[0][1].startswith("[["))):
        return None
    matrices, places = [], []
    for place, line in lines:
        try:
            matrices.append(_matrix(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}, {place}: expected a 4 x 4 matrix as a JSON list, got {line[:40]!r}") from error
        places.append(place)
    lens = file.with_name("intrinsics.txt")
    if not lens.is_file():
        raise ValueError(f"{file} needs an intrinsics.txt with [fx fy cx cy] beside it")
    rows = [re.split(r"[\s,]+", line.strip("[] \t")) for _, line in _lines(lens)]
    try:
        intrinsics = torch.stack([_pinhole(*map(float, row)) for row in rows])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{lens}: expected one line of four numbers [fx fy cx cy]") from error
    if len(intrinsics) not in (1, len(matrices)):
        raise ValueError(
            f"{lens} has {len(intrinsics)} lines for the {len(matrices)} poses of {file.name}, expected one"
        )
    return Poses(
        cam_from_file=_stack(matrices),
        intrinsics=intrinsics,
        places=places,
        convention="camera from world, OpenCV axes, intrinsics divided by the image size",
        size=(1, 1),
    )


def read_realestate10k(path: Path) -> Poses | None:
    """RealEstate10K: a URL, then `timestamp fx fy cx cy k1 k2` and a 3 x 4 matrix per line.

    Lines with a frame's name in place of the time and without `k1 k2` are read as well, and a caption after the URL.

    Args:
        path: The text file.

    Returns:
        The poses, or None if the content is of another format.

    Raises:
        ValueError: If the content is of this format but broken.
    """
    lines = [] if path.is_dir() else _lines(path)
    rows = [(place, _numbers(line)) for place, line in lines]
    while rows and sum(map(math.isfinite, rows[0][1])) < 5:  # the URL and a caption
        rows.pop(0)
    if not lines or not (
        lines[0][1].startswith(("http://", "https://")) or len(rows[0][1] if rows else []) in (17, 19)
    ):
        return None
    lens, matrices, distorted = [], [], False
    for place, row in rows:
        if len(row) not in (17, 19):
            raise ValueError(f"{path}, {place}: expected 19 numbers (or a name and 16), got {len(row)}")
        lens.append(_pinhole(*row[1:5]))
        distorted |= len(row) == 19 and any(row[5:7])
        matrices.append(_matrix(np.reshape(row[-12:], (3, 4)).tolist()))
    times = [row[0] for _, row in rows]
    notes = ["lens distortion ignored"] if distorted else []
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        notes.append("time does not run forward in every line; the order of the lines is kept")
    return Poses(
        cam_from_file=_stack(matrices),
        intrinsics=torch.stack(lens) if lens else torch.zeros(0, 3, 3, dtype=torch.float64),
        places=[place for place, _ in rows],
        convention="camera from world, OpenCV axes, intrinsics divided by the image size, arbitrary units",
        size=(1, 1),
        notes=tuple(notes),
    )


def read_nerfstudio(path: Path) -> Poses | None:
    """Nerfstudio and SEVA: `transforms.json` with OpenGL `transform_matrix` and intrinsics in pixels.

    Args:
        path: The JSON file, or its folder.

    Returns:
        The poses, or None if the content is of another format.

    Raises:
        ValueError: If the content is of this format but broken.
    """
    file = path / "transforms.json" if path.is_dir() else path
    if file.suffix != ".json" or not file.is_file():
        return None
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        return None
    if "FISHEYE" in str(content.get("camera_model", "")).upper():
        raise ValueError(
            f"{file}: camera_model {content['camera_model']} is not a pinhole camera; undistort the images"
        )
    lens, matrices, places, sizes = [], [], [], set()
    for index, frame in enumerate(content["frames"]):
        places.append(f"frame {index}")
        entry = {**frame, **content} if isinstance(frame, dict) else {}
        try:
            matrices.append(_matrix(entry["transform_matrix"]) @ CV_FROM_GL)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}, frame {index}: expected a transform_matrix of 4 x 4 numbers") from error
        try:
            size = (int(entry["h"]), int(entry["w"])) if "h" in entry and "w" in entry else None
            lens.append(_nerfstudio_lens(entry, size))
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(
                f"{file}, frame {index}: expected intrinsics in numbers: fl_x (and fl_y, cx, cy) or camera_angle_x, "
                "with w and h unless cx and cy are given"
            ) from error
        sizes.add(size)
    if len(sizes) > 1:
        raise ValueError(f"{file}: images of different sizes (rows, columns) {sorted(map(str, sizes))} in one path")
    file_from_cam = _stack(matrices)
    notes = []
    if "applied_transform" in content:
        try:
            file_from_cam = torch.linalg.inv(_matrix(content["applied_transform"])) @ file_from_cam
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{file}: expected an invertible applied_transform of 3 x 4 numbers") from error
        notes.append("applied_transform undone")
    if any(content.get(key) for key in ("k1", "k2", "k3", "k4", "p1", "p2")):
        notes.append("lens distortion ignored")
    return Poses(
        cam_from_file=_inverse(file_from_cam),
        intrinsics=torch.stack(lens) if lens else torch.zeros(0, 3, 3, dtype=torch.float64),
        places=places,
        convention="world from camera, OpenGL axes, intrinsics in pixels",
        size=sizes.pop() if sizes else None,
        notes=tuple(notes),
    )


def read_rgbd(path: Path) -> Poses | None:
    """A folder of RGB-D frames: `cameras.npz` with `c2w` or `w2c`, `K` in pixels, `depth_scale`; images in `rgb/`.

    Args:
        path: The folder, or its `cameras.npz`.

    Returns:
        The poses, or None if the content is of another format.

    Raises:
        ValueError: If the content is of this format but broken.
    """
    file = path / "cameras.npz" if path.is_dir() else path
    if file.suffix != ".npz" or not file.is_file():
        return None
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {k: torch.from_numpy(archive[k].astype(np.float64)) for k in ("c2w", "w2c", "K") if k in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file} is not a readable archive of plain arrays: {error}") from error
    if "K" not in arrays or not {"c2w", "w2c"} & set(arrays):
        return None
    for name, array in arrays.items():
        last = (3, 3) if name == "K" else (4, 4)
        if array.shape[-2:] != last or array.ndim not in ((2, 3) if name == "K" else (3,)):
            raise ValueError(f"{file}: expected {name} of shape (n, {last[0]}, {last[1]}), got {tuple(array.shape)}")
    cam_from_file = arrays.get("w2c", arrays.get("c2w"))
    if "w2c" in arrays and "c2w" in arrays:
        if len(arrays["w2c"]) != len(arrays["c2w"]):
            raise ValueError(f"{file}: {len(arrays['w2c'])} poses in w2c but {len(arrays['c2w'])} in c2w")
        wrong = (arrays["w2c"] @ arrays["c2w"] - torch.eye(4, dtype=torch.float64)).abs().amax((1, 2)) > 1e-2
        if wrong.any():
            raise ValueError(f"{file}, pose {wrong.nonzero()[0].item()}: w2c is not the inverse of c2w")
    elif "c2w" in arrays:
        cam_from_file = _inverse(cam_from_file)
    intrinsics = arrays["K"].reshape(-1, 3, 3).clone()
    if len(intrinsics) not in (1, len(cam_from_file)):
        raise ValueError(
            f"{file}: {len(intrinsics)} intrinsics K for {len(cam_from_file)} poses, expected 1 or as many"
        )
    intrinsics[:, :2, 2] += 0.5
    size = None
    for first in sorted(p for p in (file.parent / "rgb").glob("*") if p.suffix in (".png", ".jpg", ".jpeg"))[:1]:
        with Image.open(first) as image:
            size = image.height, image.width
    return Poses(
        cam_from_file=cam_from_file,
        intrinsics=intrinsics,
        places=[f"pose {index}" for index in range(len(cam_from_file))],
        convention="world from camera, OpenCV axes, intrinsics in pixels with centres at integers (0.5 was added)",
        size=size,
    )


READERS: dict[str, Callable[[Path], Poses | None]] = {
    "spatia": read_spatia,
    "rgbd": read_rgbd,
    "nerfstudio": read_nerfstudio,
    "realestate10k": read_realestate10k,
}


def _checked_poses(poses: Poses, path: Path, notes: list[str]) -> Tensor:
    """The poses as exactly rigid transforms, or an error that names the first that is not one."""
    matrix = poses.cam_from_file
    if len(matrix) == 0:
        raise ValueError(f"{path} holds no poses")
    rotation = matrix[:, :3, :3]
    error = (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2))
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    checks = {
        "the pose holds a number that is not finite": matrix.isfinite().all(2).all(1),
        "the last row of the pose is not 0 0 0 1": (matrix[:, 3] - last).abs().amax(1) < 1e-6,
        "the rotation is not orthonormal": error < ORTHONORMAL_TOLERANCE,
        "the rotation is a mirror image (determinant below 0)": torch.linalg.det(rotation.nan_to_num()) > 0,
    }
    for fault, good in checks.items():
        if not good.all():
            first = (~good).nonzero()[0].item()
            by = f", R R^T is off the identity by {error[first]:.2g}" if "orthonormal" in fault else ""
            raise ValueError(f"{path}, {poses.places[first]}: {fault}{by} (expected {poses.convention})")
    if error.max() > 1e-5:
        notes.append(f"rotations made exactly orthonormal (they were off by up to {error.max().item():.1g})")
    return rigid(nearest_rotation(rotation), matrix[:, :3, 3])


def _with_intrinsics(poses: Poses, path: Path, height: int | None, width: int | None) -> Cameras:
    """Cameras at the origin with the file's intrinsics at the wanted image size, or an error if they disagree."""
    k, size = poses.intrinsics, poses.size
    if height is None or width is None:
        if size is None or size == (1, 1):
            raise ValueError(f"{path} does not say how large the image is: give height and width")
        height, width = size
    if not k.isfinite().all() or not (k[:, [0, 1], [0, 1]] > 0).all():
        raise ValueError(f"{path}: intrinsics must be finite with a positive focal length, got {k[0].tolist()}")
    rows, columns = size or (height, width)
    if min(height, width, rows, columns) <= 0:
        raise ValueError(f"{path}: image sizes must be positive, got {rows} x {columns} for {height} x {width}")
    shape = (k[:, 1, 1] / k[:, 0, 0]).mean().item() if size == (1, 1) else columns / rows
    if abs(math.log(shape * height / width)) > SHAPE_TOLERANCE:
        raise ValueError(
            f"{path}: its intrinsics are those of an image with width / height = {shape:.3f}, but the image is "
            f"{width} x {height} ({width / height:.3f}); crop the image to that shape, or keep its own intrinsics"
        )
    scale = torch.tensor([width / columns, height / rows, 1.0], dtype=torch.float64)
    k = k * scale[:, None]
    if not ((k[:, :2, 2] > 0) & (k[:, :2, 2] < torch.tensor([width, height]))).all():
        x, y = k[0, :2, 2].tolist()
        raise ValueError(f"{path}: the principal point ({x:.1f}, {y:.1f}) is outside the image of {width} x {height}")
    fov = math.degrees(2 * math.atan(width / 2 / k[:, 0, 0].mean().item()))
    if not 2 < fov < 170:
        raise ValueError(
            f"{path}: intrinsics give a field of view of {fov:.3g} degrees; are they in the unit expected?"
        )
    return Cameras(k.float(), torch.eye(4).expand(len(k), 4, 4), height, width)


def _lines(file: Path) -> list[tuple[str, str]]:
    """The lines of a text file that are not blank, with their places; none if it is not a text file."""
    if not file.is_file() or b"\0" in (content := file.read_bytes()):
        return []
    lines = content.decode("utf-8", errors="replace").splitlines()
    return [(f"line {n}", line.strip()) for n, line in enumerate(lines, 1) if line.strip()]


def _numbers(line: str) -> list[float]:
    """The words of a line as numbers; words that are none become NaN."""
    return [float(word) if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", word, re.I) else math.nan for word in line.split()]


def _matrix(rows: list) -> Tensor:
    """A 4 x 4 matrix from 4 x 4 or 3 x 4 numbers."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise ValueError(f"expected 4 x 4 or 3 x 4 numbers, got {tuple(matrix.shape)}")
    return torch.cat([matrix, torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)])[:4]


def _stack(matrices: list[Tensor]) -> Tensor:
    return torch.stack(matrices) if matrices else torch.zeros(0, 4, 4, dtype=torch.float64)


def _inverse(matrices: Tensor) -> Tensor:
    """Inverses that keep every fault visible to the checks: NaN stays NaN, no inverse becomes a rotation of zeros."""
    finite = matrices.isfinite().all(2).all(1)[:, None, None]
    inverse, info = torch.linalg.inv_ex(matrices.nan_to_num(posinf=0.0, neginf=0.0))
    flat = torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    return torch.where(finite, torch.where((info == 0)[:, None, None], inverse, flat), torch.nan)


def _pinhole(fx: float, fy: float, cx: float, cy: float) -> Tensor:
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _nerfstudio_lens(entry: dict, size: tuple[int, int] | None) -> Tensor:
    """Intrinsics of one nerfstudio frame (its own keys and those of the file), in pixels."""
    if "fl_x" in entry:
        fx = float(entry["fl_x"])
    else:
        fx = float(entry["w"]) / 2 / math.tan(float(entry["camera_angle_x"]) / 2)
    center = [float(entry[key]) if key in entry else float(entry[side]) / 2 for key, side in (("cx", "w"), ("cy", "h"))]
    return _pinhole(fx, float(entry.get("fl_y", fx)), *center)
