"""Readers of camera files made of lines and records: numbers in a row, COLMAP's tables, folders of matrices.

Each takes the content that its row of `mirage.camera.files.FORMATS` recognised and gives the poses as the file means
them; checks, sizes and the choice of the world are the same for all and live behind that door.
"""

import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mirage.camera.content import (
    LARGEST_TEXT,
    Content,
    Poses,
    array,
    image_size,
    in_order,
    numbers,
    pinhole,
    read_text,
    square,
    stack,
)
from mirage.camera.rigid import from_quaternion, rigid, screw

COLMAP = {  # model of a camera file -> its number in binary files, number of parameters, how many of them are focal
    "SIMPLE_PINHOLE": (0, 3, 1),
    "PINHOLE": (1, 4, 2),
    "SIMPLE_RADIAL": (2, 4, 1),
    "RADIAL": (3, 5, 1),
    "OPENCV": (4, 8, 2),
    "FULL_OPENCV": (6, 12, 2),
}
STEP, TURN = 0.08, math.radians(3)  # of HY-WorldPlay, per latent frame
MOVES = {  # of HY-WorldPlay: what each key adds to a move along (x, z) and a turn about (x, y)
    "w": (0, 1, 0, 0),
    "s": (0, -1, 0, 0),
    "a": (-1, 0, 0, 0),
    "d": (1, 0, 0, 0),
    "up": (0, 0, 1, 0),
    "down": (0, 0, -1, 0),
    "left": (0, 0, 0, -1),
    "right": (0, 0, 0, 1),
}
POSE_STRING = re.compile(rf"\s*(?:(?:{'|'.join(MOVES)})-\d+(?:\.\d+)?\s*(?:,\s*|$))+", re.I)
ELEVATION = math.radians(5)  # ViewCrafter's default
VIEWCRAFTER_FRAMES = 25


def read_spatia(content: Content) -> Poses:
    """Spatia: `w2c.txt`, a JSON matrix per line, with `[fx fy cx cy]` in `intrinsics.txt`. See `Format`."""
    file = content.path
    matrices, places = [], []
    for place, line in content.lines:
        try:
            matrices.append(square(array(json.loads(line), (4, 4), (3, 4))))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, {place}: expected a 4 x 4 matrix as a JSON list, got {line[:40]!r}") from error
        places.append(place)
    lens = file.with_name("intrinsics.txt")
    if not lens.is_file():
        raise ValueError(f"{file} needs an intrinsics.txt with [fx fy cx cy] beside it")
    rows = [numbers(line.strip("[] \t")) for line in read_text(lens).splitlines() if line.strip()]
    if not rows or any(len(row) != 4 or any(map(math.isnan, row)) for row in rows):
        raise ValueError(f"{lens}: expected one line of four finite numbers [fx fy cx cy]")
    if len(rows) not in (1, len(matrices)):
        raise ValueError(f"{lens} has {len(rows)} lines for the {len(matrices)} poses of {file.name}, expected one")
    prompt = file.with_name("prompt.txt")
    rounds = [line.strip() for line in read_text(prompt).splitlines() if line.strip()] if prompt.is_file() else []
    return Poses(
        matrices=stack(matrices),
        direction="w2c",
        axes="opencv",
        places=places,
        intrinsics=stack([pinhole(*row) for row in rows], 3),
        size=(1, 1),
        lens="intrinsics divided by the image size",
        prompts=((0, rounds[0]),) if rounds else (),
        notes=(f"prompt.txt has {len(rounds)} prompts, one per round of Spatia; the first is kept",)
        * (len(rounds) > 1),
    )


def read_realestate10k(content: Content) -> Poses:
    """RealEstate10K: a URL, then `timestamp fx fy cx cy k1 k2` and a 3 x 4 matrix per line.

    Lines with a frame's name in place of the time and without `k1 k2` are read as well, and a caption after the URL.
    See `Format`.
    """
    head, rows = split_realestate10k(content.lines)
    for place, row in rows:
        if len(row) not in (17, 19):
            raise ValueError(f"{content.path}, {place}: expected 19 numbers (or a name and 16), got {len(row)}")
    distortion = [abs(k) for _, row in rows if len(row) == 19 for k in row[5:7]]
    times = [row[0] for _, row in rows]
    notes = []
    if any(k != 0 for k in distortion):
        notes.append(_distorted(max(distortion)))
    if len(times) > 1 and len(set(times)) == 1:
        notes.append("time does not run forward in any line: the poses are taken as equally spaced")
    caption = [line for _, line in head if not line.startswith(("http://", "https://"))]
    return Poses(
        matrices=stack([square(torch.tensor(row[-12:], dtype=torch.float64).reshape(3, 4)) for _, row in rows]),
        direction="w2c",
        axes="opencv",
        places=[place for place, _ in rows],
        intrinsics=stack([pinhole(*row[1:5]) for _, row in rows], 3),
        size=(1, 1),
        lens="intrinsics divided by the image size, arbitrary units",
        times=None if any(map(math.isnan, times)) or len(set(times)) < 2 else times,
        notes=tuple(notes),
        prompts=((0, " ".join(caption)),) if caption and len(rows[0][1] if rows else []) == 17 else (),
    )


def split_realestate10k(lines: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, list[float]]]]:
    """The lines before the first pose of a RealEstate10K file, and the numbers of the others.

    Args:
        lines: Lines with their places.

    Returns:
        URL and caption; places and numbers.
    """
    rows = [(place, numbers(line)) for place, line in lines]
    begin = next((n for n, (_, row) in enumerate(rows) if sum(map(math.isfinite, row)) >= 5), len(rows))
    return lines[:begin], rows[begin:]


def read_tum(content: Content) -> Poses:
    """TUM: `time tx ty tz qx qy qz qw` per line, the camera's place in the world, scalar last. See `Format`."""
    rows = _rows(content, 8, "t tx ty tz qx qy qz qw")
    table = torch.tensor([row for _, row in rows], dtype=torch.float64).reshape(-1, 8)
    return Poses(
        matrices=_from_quaternions(table[:, [7, 4, 5, 6]], table[:, 1:4], content.path, [p for p, _ in rows]),
        direction="c2w",
        axes="opencv",
        places=[place for place, _ in rows],
        times=table[:, 0].tolist(),
    )


def read_kitti(content: Content) -> Poses:
    """KITTI: a 3 x 4 matrix per line, the left camera's place in the world. See `Format`."""
    rows = _rows(content, 12, "a 3 x 4 matrix")
    return Poses(
        matrices=square(torch.tensor([row for _, row in rows], dtype=torch.float64).reshape(-1, 3, 4)),
        direction="c2w",
        axes="opencv",
        places=[place for place, _ in rows],
    )


def read_matrices(content: Content) -> Poses:
    """ScanNet and 7-Scenes: a folder with a 4 x 4 text file per frame, camera to world. See `Format`."""
    matrices, files = [], matrix_files(content.path)
    for file in files:
        rows = [numbers(line) for line in read_text(file).splitlines() if line.strip()]
        try:
            matrices.append(square(array(rows, (4, 4), (3, 4))))
        except ValueError as error:
            raise ValueError(f"{file}: expected a 4 x 4 matrix in four lines; {error}") from error
    sides = [content.path, content.path.parent]
    lenses = [s / "intrinsic" / name for s in sides for name in ("intrinsic_color.txt", "intrinsic_depth.txt")]
    lens = next((file for file in lenses if file.is_file()), None)
    k = None
    if lens is not None:
        try:
            k = array([numbers(line) for line in read_text(lens).splitlines() if line.strip()], (4, 4), (3, 3))[:3, :3]
        except ValueError as error:
            raise ValueError(f"{lens}: expected a 4 x 4 or 3 x 3 matrix; {error}") from error
    kind = "depth" if lens is not None and "depth" in lens.name else "color"
    sizes = [image_size(s / kind) for s in sides] + [image_size(content.path, "*.color.png")]
    return Poses(
        matrices=stack(matrices),
        direction="c2w",
        axes="opencv",
        places=[file.name for file in files],
        intrinsics=None if k is None else k[None],
        size=next((size for size in sizes if size), None) if k is not None else None,
        lens="no intrinsics" if lens is None else f"intrinsics in pixels from {lens.name}",
    )


def matrix_files(folder: Path) -> list[Path]:
    """The files of a folder that hold a pose each, in order.

    Args:
        folder: Where to look.

    Returns:
        `*.pose.txt`, else `*.txt` whose names are numbers (as in `frame-000012.txt`).
    """
    named = sorted(folder.glob("*.pose.txt"), key=lambda file: in_order(file.name))
    numbered = (file for file in folder.glob("*.txt") if re.fullmatch(r"(frame|pose)?[-_]?\d+", file.stem))
    return named or sorted(numbered, key=lambda file: in_order(file.name))


def read_colmap(content: Content) -> Poses:
    """COLMAP: `cameras` and `images`, as text or binary, in order of the images' names. See `Format`."""
    folder = content.path.parent
    binary = content.kind == "binary"
    suffix = ".bin" if binary else ".txt"
    for file in (folder / f"cameras{suffix}", folder / f"images{suffix}"):
        if not file.is_file():
            raise ValueError(f"{content.path} needs {file.name} beside it: a COLMAP model is both")
    read = (_colmap_binary_cameras, _colmap_binary_images) if binary else (_colmap_cameras, _colmap_images)
    cameras, images = read[0](folder / f"cameras{suffix}"), read[1](folder / f"images{suffix}")
    given = [name for name, *_ in images]
    images.sort(key=lambda image: in_order(image[0]))
    lens, sizes, distortion = [], set(), 0.0
    for name, camera, *_ in images:
        if camera not in cameras:
            raise ValueError(f"{folder / f'images{suffix}'}, image {name}: no camera {camera} in cameras{suffix}")
        model, height, width, parameters = cameras[camera]
        focal = COLMAP[model][2]
        lens.append(pinhole(parameters[0], parameters[focal - 1], *parameters[focal : focal + 2]))
        sizes.add((height, width))
        distortion = max([distortion, *map(abs, parameters[focal + 2 :])])
    if len(sizes) > 1:
        raise ValueError(f"{folder}: images of different sizes (rows, columns) {sorted(sizes)} in one path")
    table = torch.tensor([pose for *_, pose in images], dtype=torch.float64).reshape(-1, 7)
    places = [f"image {name}" for name, *_ in images]
    notes = ["poses put in the order of the images' names"] if given != [name for name, *_ in images] else []
    return Poses(
        matrices=_from_quaternions(table[:, :4], table[:, 4:], folder / f"images{suffix}", places),
        direction="w2c",
        axes="opencv",
        places=places,
        intrinsics=stack(lens, 3),
        size=sizes.pop() if sizes else None,
        lens="intrinsics in pixels",
        notes=(*notes, *([_distorted(distortion)] if distortion else [])),
    )


def read_pose_string(content: Content) -> Poses:
    """HY-WorldPlay: `w-3,right-4`, moves of 0.08 units and turns of 3 degrees per latent frame. See `Format`."""
    return pose_string(" ".join(line for _, line in content.lines))


def pose_string(text: str) -> Poses:
    """The poses of a HY-WorldPlay pose string.

    Args:
        text: Keys w s a d up down left right, each with a number of latent frames, separated by commas.

    Returns:
        One pose per latent frame, the first at the origin.

    Raises:
        ValueError: If it is too long to be meant.
    """
    pose, path, cut = torch.eye(4, dtype=torch.float64), [], []
    path.append(pose)
    for part in filter(None, re.split(r"[\s,]+", text.strip().lower())):
        key, _, count = part.partition("-")
        x, z, up, right = MOVES[key]
        if float(count) > 10_000 or len(path) > 100_000:
            raise ValueError(f"pose string: {part} is too long, at most 10000 latent frames a move")
        if float(count) != int(float(count)):
            cut.append(part)
        move = torch.tensor([x * STEP, 0.0, z * STEP], dtype=torch.float64)
        turn = torch.tensor([up * TURN, right * TURN, 0.0], dtype=torch.float64)
        for _ in range(int(float(count))):
            pose = pose @ screw(move, turn, torch.tensor(1.0, dtype=torch.float64))
            path.append(pose)
    notes = [f"durations are whole latent frames: {', '.join(cut)} cut, as HY-WorldPlay does"] if cut else []
    return Poses(
        matrices=stack(path),
        direction="c2w",
        axes="opencv",
        places=[f"latent {n}" for n in range(len(path))],
        notes=(*notes, latent_note(len(path))),
    )


def latent_note(poses: int) -> str:
    """What to say of a path with a pose per latent frame.

    Args:
        poses: How many it has.

    Returns:
        A sentence.
    """
    return f"one pose per latent frame: ask for {4 * poses - 3} frames to have one per video frame"


def read_viewcrafter(content: Content) -> Poses:
    """ViewCrafter: three lines of steps of phi, theta (degrees) and radius, round a centre.

    The radius steps are shares of the distance to the centre. ViewCrafter smooths series of more than three values with
    a spline that misses them; here it goes through them. See `Format`.
    """
    if content.center is None:
        raise ValueError(
            f"{content.path}: a ViewCrafter path turns about the centre of the scene, which it does not name: give "
            "center, the distance of that point in front of the first camera, in world units (the depth in the middle)"
        )
    if not 0 < content.center < math.inf:
        raise ValueError(f"center must be positive and finite, got {content.center}")
    phi, theta, radius = (_series(numbers(line)) for _, line in content.lines)
    cos, sin = math.cos(ELEVATION), math.sin(ELEVATION)
    # World: y up, z from the centre to the viewer; the camera looks down at the centre.
    start = torch.tensor([[1.0, 0, 0, 0], [0, -cos, -sin, sin], [0, sin, -cos, cos], [0, 0, 0, 1]], dtype=torch.float64)
    start[:3, 3] *= content.center
    path = start.repeat(VIEWCRAFTER_FRAMES, 1, 1)
    path[:, 2, 3] *= 1 + radius
    none, still = torch.zeros_like(phi), torch.zeros(VIEWCRAFTER_FRAMES, 3, dtype=torch.float64)
    turns = [
        rigid(torch.linalg.matrix_exp(_cross(axis)), still)
        for axis in (torch.stack([none, phi.deg2rad(), none], -1), torch.stack([theta.deg2rad(), none, none], -1))
    ]
    return Poses(
        matrices=turns[0] @ turns[1] @ path,
        direction="c2w",
        axes="opencv",
        places=[f"frame {n}" for n in range(VIEWCRAFTER_FRAMES)],
        notes=(
            f"round the point {content.center:g} units ahead, from an elevation of {math.degrees(ELEVATION):g} degrees",
        ),
    )


def _rows(content: Content, count: int, what: str) -> list[tuple[str, list[float]]]:
    """The rows of a table of numbers, with their places; lines that begin with # are comments."""
    rows = [(place, numbers(line)) for place, line in content.lines if not line.startswith("#")]
    for place, row in rows:
        if len(row) != count:
            raise ValueError(f"{content.path}, {place}: expected {count} numbers ({what}), got {len(row)}")
    return rows


def _from_quaternions(quaternion: Tensor, translation: Tensor, path: Path, places: list[str]) -> Tensor:
    """Rigid matrices of quaternions, scalar first, of length 1; numbers that are not finite stay so."""
    length = quaternion.norm(dim=-1)
    for index in ((length - 1).abs() > 1e-2).nonzero()[:1, 0].tolist():
        raise ValueError(
            f"{path}, {places[index]}: expected a quaternion of length 1, got length {length[index]:.3g}; are the "
            "numbers in the right order?"
        )
    rotation = from_quaternion(quaternion)
    return rigid(torch.where(length.isfinite()[:, None, None], rotation, torch.nan), translation)


def _distorted(most: float) -> str:
    return f"lens distortion of the file (up to {most:.3g}) not applied: give pictures that are undistorted"


def _cross(axis: Tensor) -> Tensor:
    """The matrices of rotation vectors whose exponentials are the rotations."""
    twist = axis.new_zeros(*axis.shape[:-1], 3, 3)
    x, y, z = axis.unbind(-1)
    twist[..., 0, 1], twist[..., 0, 2], twist[..., 1, 2] = -z, y, -x
    return twist - twist.mT


def _series(values: list[float]) -> Tensor:
    """A value per frame: straight between up to three values, through more on a natural cubic spline."""
    n = len(values)
    at = np.linspace(0, n - 1, VIEWCRAFTER_FRAMES)
    y = np.asarray(values)
    if n <= 3:
        return torch.from_numpy(np.interp(at, np.arange(n), y))
    system = np.eye(n)
    right = np.zeros(n)
    for i in range(1, n - 1):
        system[i, i - 1 : i + 2] = 1, 4, 1
        right[i] = 6 * (y[i - 1] - 2 * y[i] + y[i + 1])
    bend = np.linalg.solve(system, right)
    low = np.minimum(at.astype(int), n - 2)
    b = at - low
    a = 1 - b
    curve = a * y[low] + b * y[low + 1] + ((a**3 - a) * bend[low] + (b**3 - b) * bend[low + 1]) / 6
    return torch.from_numpy(curve)


def _colmap_cameras(file: Path) -> dict[int, tuple[str, int, int, list[float]]]:
    cameras = {}
    for n, line in enumerate(read_text(file).splitlines(), 1):
        words = line.split()
        if not words or line.lstrip().startswith("#"):
            continue
        where = f"{file}, line {n}"
        if len(words) < 5 or not (words[0].isdecimal() and words[2].isdecimal() and words[3].isdecimal()):
            raise ValueError(f"{where}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS, got {line[:60]!r}")
        cameras[int(words[0])] = _colmap_camera(
            where, words[1], int(words[2]), int(words[3]), numbers(" ".join(words[4:]))
        )
    return cameras


def _colmap_camera(
    where: str, model: str, width: int, height: int, parameters: list[float]
) -> tuple[str, int, int, list[float]]:
    if model not in COLMAP:
        raise ValueError(
            f"{where}: camera model {model} is not a pinhole camera ({', '.join(COLMAP)}); undistort the images "
            "(colmap image_undistorter)"
        )
    if len(parameters) != COLMAP[model][1] or not all(map(math.isfinite, parameters)):
        raise ValueError(f"{where}: expected {COLMAP[model][1]} parameters of {model}, got {parameters}")
    if max(width, height) > 10**6:
        raise ValueError(f"{where}: no image is {width} x {height} pixels large")
    return model, height, width, parameters


def _colmap_images(file: Path) -> list[tuple[str, int, list[float]]]:
    images, points = [], False
    for n, line in enumerate(read_text(file).splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        words = line.split(maxsplit=9)
        if points:  # the line of 2D points may be empty, or left out
            points = False
            row = numbers(line) if words else []
            if len(row) % 3 == 0 and all(map(math.isfinite, row)):
                continue
        if not words:
            continue
        row = numbers(" ".join(words[:9]))
        if len(words) < 10 or not all(map(math.isfinite, [row[0], row[8]])) or row[8] != int(row[8]):
            raise ValueError(
                f"{file}, line {n}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, got {line[:60]!r}"
            )
        images.append((words[9], int(row[8]), row[1:8]))
        points = True
    return images


def _colmap_binary_cameras(file: Path) -> dict[int, tuple[str, int, int, list[float]]]:
    data, at, cameras = _binary(file), 8, {}
    names = {number: model for model, (number, _, _) in COLMAP.items()}
    try:
        for n in range(*struct.unpack_from("<Q", data)):
            camera, number, width, height = struct.unpack_from("<iiQQ", data, at)
            model = names.get(number, f"number {number}")
            count = COLMAP[model][1] if model in COLMAP else 0
            parameters = list(struct.unpack_from(f"<{count}d", data, at + 24))
            cameras[camera] = _colmap_camera(f"{file}, camera {n}", model, width, height, parameters)
            at += 24 + 8 * count
    except struct.error as error:
        raise ValueError(f"{file} ends in the middle of camera {len(cameras)}: it is damaged") from error
    return cameras


def _colmap_binary_images(file: Path) -> list[tuple[str, int, list[float]]]:
    data, at, images = _binary(file), 8, []
    try:
        for _ in range(*struct.unpack_from("<Q", data)):
            _, *pose, camera = struct.unpack_from("<i7di", data, at)
            end = data.find(b"\0", at + 64)
            if end < 0:
                raise struct.error("no end of the name")
            images.append((data[at + 64 : end].decode("utf-8", errors="replace"), camera, pose))
            (points,) = struct.unpack_from("<Q", data, end + 1)
            at = end + 9 + 24 * points
            if at > len(data):
                raise struct.error("no points")
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{file} ends in the middle of image {len(images)}: it is damaged") from error
    return images


def _binary(file: Path) -> bytes:
    if file.stat().st_size > 16 * LARGEST_TEXT:  # images.bin holds all 2D points
        raise ValueError(f"{file} is {file.stat().st_size} bytes large, more than a camera file can be")
    return file.read_bytes()
