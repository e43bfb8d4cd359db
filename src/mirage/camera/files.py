"""Camera files: what a format is recognised by, who reads it, and the checks that are the same for all.

A file is opened as what it holds, exactly one row of `FORMATS` must recognise it, and its reader gives the poses as
the file means them. A further format is one more row. See docs/formats.md.
"""

import itertools
import math
import re
from pathlib import Path

import torch
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.content import Content, Poses, open_content
from mirage.camera.formats import FORMATS, Format
from mirage.camera.rigid import invert, nearest_rotation, rebase, rigid, rotation_angle
from mirage.camera.trajectory import Trajectory

CV_FROM_GL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
SHAPE_TOLERANCE = 0.05  # how much the shape of an image may differ from the one its intrinsics describe
OFF_CENTRE = 0.2  # of a side: a principal point so far from the middle belongs to an image of another size
ORTHONORMAL_TOLERANCE = 1e-3
GUESS = math.radians(60)  # field of view over the longer side where neither the file nor the caller knows one
AXES = {"opencv": "OpenCV", "opengl": "OpenGL"}
DIRECTIONS = {"w2c": "camera from world", "c2w": "world from camera"}
PIXELS = ("corner", "center")
CONVENTION = "w2c or c2w, opencv or opengl, and corner or center (where pixel position 0 is)"


def load_trajectory(
    path: str | Path,
    height: int | None = None,
    width: int | None = None,
    *,
    format: str = "auto",
    convention: str | None = None,
    camera: Cameras | None = None,
    lens: Cameras | None = None,
    scale: float = 1.0,
    center: float | None = None,
) -> Trajectory:
    """Read a camera path from a file or a folder, whatever format it has.

    Convention:
        The result is in docs/conventions.md: OpenCV axes, corner pixels, and the first pose is exactly the identity.

    Args:
        path: A camera file, or a folder that holds one under its usual name.
        height: Rows of the image that the cameras are for; the file's own if it has one.
        width: Columns of that image.
        format: A name of `FORMATS`, or "auto" to recognise the content.
        convention: What the file means, where it is not what its format says: any of w2c or c2w, opencv or opengl,
            corner or center (where pixel position 0 is), as in "c2w opengl". Bare arrays need the first two.
        camera: One camera whose intrinsics and size take the place of the file's (an image of another lens or shape).
        lens: One camera whose intrinsics are taken where the file has none; else 60 degrees are.
        scale: Factor on every distance of the file, in world units; Lyra's `--pose_scale`.
        center: Distance of the point that the path turns about from the first camera, in world units; ViewCrafter.

    Returns:
        The cameras at `height` x `width`, with what was understood.

    Raises:
        ValueError: If the file is missing, of no known format or of more than one, broken, without poses, or if its
            poses or intrinsics cannot be right; the message names the file and the place.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    name, poses, notes = _understood(Path(path), format, convention, center)
    return finish(poses, str(path), name, height, width, camera=camera, lens=lens, scale=scale, notes=notes)


def nominal_size(
    path: str | Path, *, format: str = "auto", convention: str | None = None, center: float | None = None
) -> tuple[int, int]:
    """Rows and columns to look at a camera file with when no picture is at hand.

    Args:
        path: See `load_trajectory`.
        format: See `load_trajectory`.
        convention: See `load_trajectory`.
        center: See `load_trajectory`.

    Returns:
        The file's own size; else 480 rows of the shape that its intrinsics describe, or as wide as 16 : 9.

    Raises:
        ValueError: See `load_trajectory`.
    """
    _, poses, _ = _understood(Path(path), format, convention, center)
    shape = 16 / 9
    if poses.intrinsics is not None and len(poses.intrinsics):
        if poses.size not in (None, (1, 1)):
            return poses.size
        k = poses.intrinsics[0]
        shape = (k[1, 1] / k[0, 0] if poses.size else k[0, 2] / k[1, 2]).item()
    elif poses.size:
        return poses.size
    return 480, round(480 * shape) if 0.1 < shape < 10 else 480


def finish(
    poses: Poses,
    source: str,
    name: str,
    height: int | None,
    width: int | None,
    *,
    camera: Cameras | None = None,
    lens: Cameras | None = None,
    scale: float = 1.0,
    notes: tuple[str, ...] = (),
) -> Trajectory:
    """Check poses and make cameras of them.

    Args:
        poses: What a reader found.
        source: What it was read from.
        name: Its format.
        height: See `load_trajectory`.
        width: See `load_trajectory`.
        camera: See `load_trajectory`.
        lens: See `load_trajectory`.
        scale: See `load_trajectory`.
        notes: What to say besides.

    Returns:
        The path.

    Raises:
        ValueError: If the poses or intrinsics cannot be right.
    """
    said = [*poses.notes, *notes]
    convention = f"{DIRECTIONS[poses.direction]}, {AXES[poses.axes]} axes, {poses.lens}"
    if poses.pixels == "center":
        convention += " with centres at integers (0.5 was added)"
    cam_from_file = _checked_poses(poses, source, convention, said)
    if camera is None:
        cameras = _with_intrinsics(poses, source, height, width, lens, said)
    else:
        cameras = Cameras(camera.intrinsics[:1].cpu(), torch.eye(4)[None], camera.height, camera.width)
        said.append("intrinsics of the file not used")
    off = cam_from_file[0, :3, 3].norm().item(), math.degrees(rotation_angle(cam_from_file[0, :3, :3]).item())
    if max(off) > 0:
        said.append(f"re-based to the first pose, which was {off[0]:.3g} units and {off[1]:.3g} degrees off the origin")
    if scale != 1:
        cam_from_file[:, :3, 3] *= scale
        said.append(f"distances multiplied by {scale:g}")
    return Trajectory(
        cameras=Cameras(
            cameras.intrinsics.expand(len(cam_from_file), 3, 3).clone(),
            rebase(cam_from_file).float(),
            cameras.height,
            cameras.width,
        ).validate(),
        source=source,
        format=name,
        convention=convention,
        notes=tuple(said),
        file_from_world=invert(cam_from_file[0]).float(),
        prompts=poses.prompts,
    )


def _understood(
    path: Path, format: str, convention: str | None, center: float | None
) -> tuple[str, Poses, tuple[str, ...]]:
    """The name of the one format that recognises a file, its poses with a complete convention, and what to say."""
    if not path.exists():
        raise ValueError(f"no camera path at {path}: no such file or folder")
    if format != "auto" and format not in FORMATS:
        raise ValueError(f"unknown camera format {format!r}, expected auto or one of {', '.join(FORMATS)}")
    if path.is_file() and path.stat().st_size < 4096 and not path.read_bytes().strip():
        raise ValueError(f"{path} holds no poses: the file is empty")
    wanted = FORMATS if format == "auto" else {format: FORMATS[format]}
    candidates = _candidates(path, wanted, center)
    found = [(name, content) for name, content in candidates if _recognises(wanted[name], content)]
    if not found:
        raise ValueError(f"{path} is not a camera path of a known format: {_what_it_is(path, candidates, wanted)}")
    if len(found) > 1:
        said = ", ".join(f"{content.path.name} as {name}" for name, content in found[:8])
        if len({content.path for _, content in found}) > 1:
            raise ValueError(f"{path} holds more than one camera path: {said}; name the file")
        raise ValueError(f"{path} can be read in more than one way: {said}; say which with format")
    name, content = found[0]
    poses = FORMATS[name].read(content)
    notes = (f"read from {content.path.relative_to(path)}",) if path.is_dir() and content.path != path else ()
    return name, *_in_convention(poses, path, convention, notes)


def _what_it_is(path: Path, candidates: list[tuple[str, Content]], wanted: dict[str, Format]) -> str:
    """What a file that no format recognises holds instead, and what was looked for."""
    if path.is_dir():
        files = dict.fromkeys(file for format in wanted.values() for file in format.files if file != ".")
        there = ", ".join(dict.fromkeys(content.path.name for _, content in candidates if content.path != path))
        held = f"the folder has {there}, but not as a format has it" if there else "a folder without a camera file"
        return f"{held}; looked for {', '.join(wanted) if len(wanted) == 1 else ', '.join(files)}"
    content = candidates[0][1]
    if isinstance(content.data, dict):
        held = f"JSON with {', '.join(list(content.data)[:8]) or 'nothing in it'}"
    elif content.arrays is not None:
        held = f"arrays {', '.join(content.arrays.names[:8]) or '(none)'}"
    elif content.kind == "text" and content.lines:
        held = f"text with {len(content.lines[0][1].split())} words in {content.lines[0][0]}"
    else:
        held = {"json": "a JSON list", "text": "no text"}.get(content.kind, content.kind)
    fitting = [f"{name} ({format.what})" for name, format in wanted.items() if content.kind in format.kinds]
    return f"{held}; looked for {', '.join(fitting or wanted)}"


def _candidates(path: Path, formats: dict[str, Format], center: float | None) -> list[tuple[str, Content]]:
    """What could be read: the file itself, or the files of a folder that are called as a format calls them."""
    if not path.is_dir():
        content = open_content(path, center)
        return [(name, content) for name in formats]
    opened, found = {}, []
    for name, format in formats.items():
        for pattern in format.files:
            if pattern == ".":
                files = [path]
            else:
                files = sorted(file for file in path.glob(pattern) if file.is_dir() == ("folder" in format.kinds))
            for file in files[:32]:
                if file not in opened:
                    opened[file] = open_content(file, center)
                found.append((name, opened[file]))
            if any(_recognises(format, opened[file]) for file in files[:32]):
                break
    return found


def _recognises(format: Format, content: Content) -> bool:
    return content.kind in format.kinds and format.recognise(content)


def _in_convention(
    poses: Poses, path: Path, convention: str | None, notes: tuple[str, ...]
) -> tuple[Poses, tuple[str, ...]]:
    """The poses with what the caller says of them."""
    said = {"direction": poses.direction, "axes": poses.axes, "pixels": poses.pixels}
    words = [word for word in re.split(r"[^a-z0-9]+", (convention or "").lower()) if word]
    kinds = {**dict.fromkeys(DIRECTIONS, "direction"), **dict.fromkeys(AXES, "axes"), **dict.fromkeys(PIXELS, "pixels")}
    if any(word not in kinds for word in words) or len({kinds[word] for word in words}) < len(words):
        raise ValueError(f"convention must be {CONVENTION}, got {convention!r}")
    said |= {kinds[word]: word for word in words}
    if not said["direction"] or not said["axes"]:
        raise ValueError(
            f"{path} is a bare array of matrices, which does not say what they mean: give convention, {CONVENTION}, as "
            'in "c2w opencv"'
        )
    if said["pixels"] == "center" and (poses.intrinsics is None or poses.size == (1, 1)):
        raise ValueError(f"{path}: convention center is for intrinsics in pixels, but the file has {poses.lens}")
    if words:
        notes = (*notes, f"convention as told: {' '.join(words)}")
    return Poses(**{**vars(poses), **said}), notes


def _checked_poses(poses: Poses, source: str, convention: str, notes: list[str]) -> Tensor:
    """The poses as exactly rigid transforms from the file to the camera, or an error that names the first bad one."""
    matrix = poses.matrices
    if len(matrix) == 0:
        raise ValueError(f"{source} holds no poses")
    rotation = matrix[:, :3, :3]
    error = (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2))
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    checks = {
        "the pose holds a number that is not finite": matrix.isfinite().all(2).all(1),
        "the rotation is not orthonormal": error < ORTHONORMAL_TOLERANCE,
        "the last row of the pose is not 0 0 0 1": (matrix[:, 3] - last).abs().amax(1) < 1e-6,
        "the rotation is a mirror image (determinant below 0)": torch.linalg.det(rotation.nan_to_num()) > 0,
        "the pose is farther away than 1e+9 units": matrix[:, :3, 3].abs().amax(1) < 1e9,
    }
    for fault, good in checks.items():
        if not good.all():
            first = (~good).nonzero()[0].item()
            by = f", R R^T is off the identity by {error[first]:.2g}" if "orthonormal" in fault else ""
            raise ValueError(f"{source}, {poses.places[first]}: {fault}{by} (expected {convention})")
    for n, (before, after) in enumerate(itertools.pairwise(poses.times or ()), 1):
        if not after > before:
            raise ValueError(
                f"{source}, {poses.places[n]}: time must run forward, got {after:.10g} after {before:.10g}; put the "
                "poses in order, or take out what is there twice"
            )
    if error.max() > 1e-5:
        notes.append(f"rotations made exactly orthonormal (they were off by up to {error.max().item():.1g})")
    if poses.axes == "opengl" and poses.direction == "c2w":
        matrix = matrix @ CV_FROM_GL
    elif poses.axes == "opengl":
        matrix = CV_FROM_GL @ matrix
    exact = rigid(nearest_rotation(matrix[:, :3, :3]), matrix[:, :3, 3])
    return invert(exact) if poses.direction == "c2w" else exact


def _with_intrinsics(
    poses: Poses, source: str, height: int | None, width: int | None, lens: Cameras | None, notes: list[str]
) -> Cameras:
    """Cameras at the origin with the file's intrinsics at the wanted image size, or an error if they disagree."""
    k, size = poses.intrinsics, poses.size
    if height is None or width is None:
        if size is None or size == (1, 1):
            raise ValueError(f"{source} does not say how large the image is: give height and width")
        height, width = size
    rows, columns = size or (height, width)
    if min(height, width, rows, columns) <= 0:
        raise ValueError(f"{source}: image sizes must be positive, got {rows} x {columns} for {height} x {width}")
    if k is None and poses.square is None:
        if lens is not None:
            notes.append("the file has no intrinsics: those of the picture are taken")
            return lens.to("cpu")[:1].resize(height, width)
        notes.append(f"the file has no intrinsics: {math.degrees(GUESS):g} degrees over the longer side are assumed")
        return Cameras.from_fov(GUESS, height, width)
    if k is None:
        kind, values = poses.square
        focal = values if kind == "focal" else (columns if kind == "across" else rows) / 2 / (values / 2).tan()
        k = torch.zeros(len(values), 3, 3, dtype=torch.float64)
        k[:, 0, 0] = k[:, 1, 1] = focal
        k[:, 0, 2], k[:, 1, 2], k[:, 2, 2] = columns / 2, rows / 2, 1.0
    if len(k) not in (1, len(poses.matrices)):
        raise ValueError(f"{source}: {len(k)} intrinsics for {len(poses.matrices)} poses, expected 1 or as many")
    if not k.isfinite().all() or not (k[:, [0, 1], [0, 1]] > 0).all():
        raise ValueError(f"{source}: intrinsics must be finite with a positive focal length, got {k[0].tolist()}")
    fixed = k[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    if fixed.abs().max() > 1e-6:
        wrong = k[fixed.abs().amax(1).argmax()].tolist()
        raise ValueError(f"{source}: intrinsics must be fx 0 cx, 0 fy cy, 0 0 1 (no skew), got {wrong}")
    k = k.clone()
    k[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    if poses.pixels == "center":
        k[:, :2, 2] += 0.5
    shape = (k[:, 1, 1] / k[:, 0, 0]).mean().item() if size == (1, 1) else columns / rows
    if abs(math.log(shape * height / width)) > SHAPE_TOLERANCE:
        raise ValueError(
            f"{source}: its intrinsics are those of an image with width / height = {shape:.3f}, but the image is "
            f"{width} x {height} ({width / height:.3f}); crop the image to that shape, or keep its own intrinsics"
        )
    scale = torch.tensor([width / columns, height / rows, 1.0], dtype=torch.float64)
    k = k * scale[:, None]
    if not ((k[:, :2, 2] > 0) & (k[:, :2, 2] < torch.tensor([width, height]))).all():
        x, y = k[0, :2, 2].tolist()
        raise ValueError(f"{source}: the principal point ({x:.1f}, {y:.1f}) is outside the image of {width} x {height}")
    if size is None and poses.square is None:
        off = (k[:, :2, 2] / torch.tensor([width, height]) - 0.5).abs().max().item()
        if off > OFF_CENTRE:
            x, y = k[0, :2, 2].tolist()
            raise ValueError(
                f"{source}: it does not say how large its images are, and its principal point ({x:.1f}, {y:.1f}) is "
                f"far from the middle of {width} x {height}: give height and width of its images, then resize it"
            )
        notes.append(f"the file does not say how large its images are: taken as {width} x {height}")
    fov = math.degrees(2 * math.atan(max(width / k[:, 0, 0].mean().item(), height / k[:, 1, 1].mean().item()) / 2))
    if not 2 < fov < 170:
        raise ValueError(
            f"{source}: intrinsics give a field of view of {fov:.3g} degrees; are they in the unit expected?"
        )
    return Cameras(k.float(), torch.eye(4).expand(len(k), 4, 4), height, width)
