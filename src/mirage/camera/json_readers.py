"""Readers of camera files in JSON.

Each takes the content that its row of `mirage.camera.files.FORMATS` recognised and gives the poses as the file means
them; checks, sizes and the choice of the world are the same for all and live behind that door.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mirage.camera.content import Content, Poses, array, image_size, number, pinhole, read_json, square, stack, whole
from mirage.camera.rigid import from_quaternion, rigid
from mirage.camera.text_readers import latent_note, read_realestate10k

NGP_FOV = math.radians(50.625)  # over the height; what instant-ngp and GEN3C take where a file says nothing
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def read_nerfstudio(content: Content) -> Poses:
    """Nerfstudio, instant-ngp, SEVA, DL3DV, Blender, VMem: `frames` with OpenGL `transform_matrix`.

    Intrinsics are in pixels, or an angle, or missing. `applied_transform` and `applied_scale` are undone. With SEVA's
    `train_test_split_1.json` beside it, the path begins at the input and goes through the test frames. See `Format`.
    """
    file, data, notes = content.path, content.data, []
    split = file.with_name("train_test_split_1.json")
    if "train_ids" in data:
        split, file = file, file.with_name("transforms.json")
        if not file.is_file():
            raise ValueError(f"{split} needs the transforms.json that it splits beside it")
        data = read_json(file)
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list):
        raise ValueError(f"{file}: expected a list of frames")
    if "FISHEYE" in str(data.get("camera_model", "")).upper():
        raise ValueError(f"{file}: camera_model {data['camera_model']} is not a pinhole camera; undistort the images")
    order = list(range(len(frames)))
    if split.is_file():
        order, note = _split(split, len(frames))
        notes.append(note)
    entries = [{**frames[n], **data} if isinstance(frames[n], dict) else {} for n in order]
    matrices = []
    for n, entry in zip(order, entries, strict=True):
        matrices.append(_at(file, f"frame {n}", "transform_matrix", entry, (4, 4), (3, 4)))
    matrices = square(torch.stack([square(m) for m in matrices])) if matrices else stack([])
    if "applied_scale" in data:
        scale = number(data["applied_scale"])
        if not 0 < scale < math.inf:
            raise ValueError(f"{file}: expected a positive applied_scale, got {data['applied_scale']!r}")
        matrices[:, :3, 3] /= scale
        notes.append(f"applied_scale {scale:g} undone")
    if "applied_transform" in data:
        try:
            applied = square(array(data["applied_transform"], (3, 4), (4, 4)))
            matrices = torch.linalg.inv(applied) @ matrices
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{file}: expected an invertible applied_transform of 3 x 4 numbers; {error}") from error
        notes.append("applied_transform undone")
    bent = max((abs(number(entry.get(key) or 0)) for entry in entries for key in DISTORTION), default=0.0)
    if bent:
        notes.append(f"lens distortion of the file (up to {bent:.3g}) not applied: give pictures that are undistorted")
    made = {
        "matrices": matrices,
        "direction": "c2w",
        "axes": "opengl",
        "places": [f"frame {n}" for n in order],
        "notes": tuple(notes),
    }
    has = [("fl_x" in e or "fl_y" in e, "camera_angle_x" in e, "w" in e) for e in entries]
    if any(pixels or (angle and wide) for pixels, angle, wide in has):
        return _pixel_lens(file, order, entries, made)
    if not any(angle for _, angle, _ in has):
        return Poses(**made)
    angles = [number(entry.get("camera_angle_x")) for entry in entries]
    for n, angle in zip(order, angles, strict=True):
        if not 0 < angle < math.pi:
            raise ValueError(f"{file}, frame {n}: expected a camera_angle_x between 0 and pi radians, got {angle}")
    return Poses(
        **made,
        square=("across", torch.tensor(angles, dtype=torch.float64)),
        size=_first_picture(file, frames),
        lens="a field of view over the width",
    )


def read_camera_path(content: Content) -> Poses:
    """Nerfstudio's viewer: `camera_path` with OpenGL `camera_to_world` and a vertical field of view. See `Format`."""
    file, data = content.path, content.data
    if str(data.get("camera_type", "perspective")).lower() != "perspective":
        raise ValueError(f"{file}: camera_type {data['camera_type']!r} is not perspective, no pinhole camera shows it")
    height, width = (number(data.get(f"render_{side}")) for side in ("height", "width"))
    if not (1 <= height <= 1e6 and 1 <= width <= 1e6):
        raise ValueError(f"{file}: expected render_height and render_width in pixels, got {height} and {width}")
    matrices, lens = [], []
    for n, entry in enumerate(data["camera_path"]):
        matrices.append(square(_at(file, f"camera {n}", "camera_to_world", entry, (16,), (12,), (4, 4), (3, 4))))
        fov = number(entry.get("fov"))
        if not 0 < fov < 180:
            raise ValueError(f"{file}, camera {n}: expected a fov between 0 and 180 degrees, got {entry.get('fov')!r}")
        focal = height / 2 / math.tan(math.radians(fov) / 2)
        lens.append(pinhole(focal, focal, width / 2, height / 2))
    return Poses(
        matrices=stack(matrices),
        direction="c2w",
        axes="opengl",
        places=[f"camera {n}" for n in range(len(matrices))],
        intrinsics=stack(lens, 3),
        size=(int(height), int(width)),
        lens="a field of view over the height",
    )


def read_viser(content: Content) -> Poses:
    """SEVA's viewer: a list of `w2c`, `K`, `img_wh`. See `Format`."""
    file, matrices, lens, sizes = content.path, [], [], set()
    for n, entry in enumerate(content.data):
        matrices.append(square(_at(file, f"camera {n}", "w2c", entry, (16,), (12,), (4, 4), (3, 4))))
        lens.append(_at(file, f"camera {n}", "K", entry, (9,), (3, 3)))
        width, height = _at(file, f"camera {n}", "img_wh", entry, (2,)).tolist()
        sizes.add((whole(file, height), whole(file, width)))
    if len(sizes) > 1:
        raise ValueError(f"{file}: images of different sizes (rows, columns) {sorted(sizes)} in one path")
    return Poses(
        matrices=stack(matrices),
        direction="w2c",
        axes="opencv",
        places=[f"camera {n}" for n in range(len(matrices))],
        intrinsics=stack(lens, 3),
        size=sizes.pop(),
        lens="intrinsics in pixels",
    )


def read_ngp_path(content: Content) -> Poses:
    """The camera path of GEN3C's and instant-ngp's window: key frames `R` (x y z w), `T`, `fov`. See `Format`."""
    file, matrices, angles, times = content.path, [], [], []
    for n, entry in enumerate(content.data["path"]):
        quaternion = _at(file, f"key frame {n}", "R", entry, (4,))
        if not abs(quaternion.norm() - 1) < 1e-2:
            raise ValueError(f"{file}, key frame {n}: expected a quaternion R of length 1, got {quaternion.tolist()}")
        matrices.append(rigid(from_quaternion(quaternion[[3, 0, 1, 2]]), _at(file, f"key frame {n}", "T", entry, (3,))))
        angles.append(math.radians(number(entry.get("fov", math.degrees(NGP_FOV)))))
        if not 0 < angles[-1] < math.pi:
            raise ValueError(f"{file}, key frame {n}: expected a fov between 0 and 180 degrees, got {entry['fov']!r}")
        times.append(number(entry.get("timestamp", n)))
    return Poses(
        matrices=stack(matrices),
        direction="c2w",
        axes="opencv",
        places=[f"key frame {n}" for n in range(len(matrices))],
        square=("down", torch.tensor(angles, dtype=torch.float64)),
        lens="a field of view over the height",
        times=times if any(times) else None,
        notes=("key frames: ask for more frames to go straight from one to the next; its spline is not followed",),
    )


def read_ngp_export(content: Content) -> Poses:
    """The cameras that GEN3C's window exports: `cameras` with `start` (and `end`) matrices. See `Format`."""
    file, data, matrices = content.path, content.data, []
    for n, entry in enumerate(data["cameras"]):
        found = _at(file, f"camera {n}", "start", entry, (3, 4), (4, 3), (4, 4))
        matrices.append(square(found.mT if found.shape == (4, 3) else found))
    size = None
    if "resolution" in data:
        try:
            width, height = array(data["resolution"], (2,)).tolist()
        except ValueError as error:
            raise ValueError(f"{file}: expected a resolution of two numbers; {error}") from error
        size = whole(file, height), whole(file, width)
    return Poses(
        matrices=stack(matrices),
        direction="c2w",
        axes="opencv",
        places=[f"camera {n}" for n in range(len(matrices))],
        square=("down", torch.tensor([NGP_FOV], dtype=torch.float64)),
        size=size,
        lens="a field of view of 50.625 degrees over the height",
        notes=("taken as camera to world: if it was exported the other way, say convention=w2c",),
    )


def read_ngp_seed(content: Content) -> Poses:
    """The cameras that seed GEN3C's window: a list of 3 x 4 matrices, camera to world. See `Format`."""
    places = [f"camera {n}" for n in range(len(content.data))]
    matrices = [_one(content.path, place, value) for place, value in zip(places, content.data, strict=True)]
    return Poses(
        matrices=stack(matrices),
        direction="c2w",
        axes="opencv",
        places=places,
        square=("down", torch.tensor([NGP_FOV], dtype=torch.float64)),
        lens="a field of view of 50.625 degrees over the height",
    )


def read_gen3c_request(content: Content) -> Poses:
    """GEN3C's interface: `cameras_to_world`, `focal_lengths`, `principal_points`, `resolutions`. See `Format`."""
    file, found = content.path, {}
    wanted = {"cameras_to_world": [(None, 3, 4), (None, 4, 4)], "focal_lengths": [(None, 2)]}
    wanted |= {"principal_points": [(None, 2)], "resolutions": [(None, 2)]}
    for key, shapes in wanted.items():
        if content.arrays is not None:
            found[key] = content.arrays.array(key, *shapes)
        else:
            found[key] = _at(file, "request", key, content.data, *shapes)
    count = len(found["cameras_to_world"])
    if not all(len(values) in (1, count) for values in found.values()):
        raise ValueError(f"{file}: expected {count} of each, got { ({k: len(v) for k, v in found.items()}) }")
    sizes = found["resolutions"].unique(dim=0)
    if len(sizes) > 1:
        raise ValueError(f"{file}: resolutions of different sizes {sizes.tolist()} in one path")
    size = sizes[0] if len(sizes) else torch.ones(2)
    centers = found["principal_points"] * size
    lens = torch.cat([part.expand(count, 2) for part in (found["focal_lengths"], centers)], 1)
    return Poses(
        matrices=square(found["cameras_to_world"]),
        direction="c2w",
        axes="opencv",
        places=[f"camera {n}" for n in range(count)],
        intrinsics=stack([pinhole(*row) for row in lens.tolist()], 3),
        size=(whole(file, size[1].item()), whole(file, size[0].item())),
        lens="focal lengths in pixels, principal point divided by the image size",
    )


def read_worldscore(content: Content) -> Poses:
    """WorldScore: `cameras_interp` (or `cameras`), OpenGL cameras in a PyTorch3D world. See `Format`."""
    data, focal = content.data, number(content.data["focal_length"])
    name = "cameras_interp" if data.get("cameras_interp") else "cameras"
    if not (isinstance(data.get(name), list) and 0 < focal < math.inf):
        raise ValueError(f"{content.path}: expected a list of {name} and a positive focal_length")
    places = [f"{name}[{n}]" for n in range(len(data[name]))]
    return Poses(
        matrices=stack([_one(content.path, p, value) for p, value in zip(places, data[name], strict=True)]),
        direction="c2w",
        axes="opengl",
        places=places,
        square=("focal", torch.tensor([focal], dtype=torch.float64)),
        lens="a focal length in pixels",
        notes=(
            f"focal length of {focal:g} pixels taken as that of the image at hand: WorldScore does not say its size",
        ),
    )


def read_hyworldplay(content: Content) -> Poses:
    """HY-WorldPlay: an extrinsic (camera to world) and K under the number of each latent frame.

    The axes are those that its own pose strings are written with (forward is +z): OpenCV. The principal point is
    taken to be in the middle, as it does. See `Format`.
    """
    file, keys = content.path, sorted(content.data, key=int)
    matrices = [square(_at(file, f"pose {k}", "extrinsic", content.data[k], (4, 4), (3, 4))) for k in keys]
    lens = stack([_at(file, f"pose {k}", "K", content.data[k], (3, 3)) for k in keys], 3)
    sizes = {tuple(size) for size in (2 * lens[:, [1, 0], 2]).round().tolist()}
    if len(sizes) > 1:
        raise ValueError(f"{file}: principal points of different image sizes in one path")
    size = next(iter(sizes))
    size = (whole(file, size[0]), whole(file, size[1]))
    lens[:, :2, 2] = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    return Poses(
        matrices=stack(matrices),
        direction="c2w",
        axes="opencv",
        places=[f"pose {k}" for k in keys],
        intrinsics=lens,
        size=size,
        lens="intrinsics in pixels of an image twice as large as its principal point",
        notes=(latent_note(len(keys)),),
    )


def read_cameractrl(content: Content) -> Poses:
    """CameraCtrl: RealEstate10K's lines as a JSON list. See `Format`."""
    rows = content.data
    lines = [
        row if isinstance(row, str) else " ".join(map(str, row if isinstance(row, list) else [row])) for row in rows
    ]
    named = [(f"entry {n}", line) for n, line in enumerate(lines) if line.strip()]
    return read_realestate10k(Content(path=content.path, kind="text", lines=named))


def _pixel_lens(file: Path, order: Sequence[int], entries: Sequence[dict], made: dict) -> Poses:
    """Poses with the intrinsics of nerfstudio frames (their own keys and those of the file), in pixels."""
    lens, sizes = [], set()
    for n, entry in zip(order, entries, strict=True):
        try:
            size = (int(entry["h"]), int(entry["w"])) if "h" in entry and "w" in entry else None
            if "fl_x" in entry or "fl_y" in entry:
                fx = float(entry.get("fl_x", entry.get("fl_y")))
            else:
                fx = float(entry["w"]) / 2 / math.tan(float(entry["camera_angle_x"]) / 2)
            center = [
                float(entry[c]) if c in entry else float(entry[side]) / 2 for c, side in (("cx", "w"), ("cy", "h"))
            ]
            lens.append(pinhole(fx, float(entry.get("fl_y", fx)), *center))
        except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(
                f"{file}, frame {n}: expected intrinsics in numbers: fl_x (and fl_y, cx, cy) or camera_angle_x, "
                "with w and h unless cx and cy are given"
            ) from error
        sizes.add(size)
    if len(sizes) > 1:
        raise ValueError(f"{file}: images of different sizes (rows, columns) {sorted(map(str, sizes))} in one path")
    return Poses(**made, intrinsics=stack(lens, 3), size=sizes.pop(), lens="intrinsics in pixels")


def _split(file: Path, frames: int) -> tuple[list[int], str]:
    """The order of frames of SEVA's split, and what to say of it."""
    data = read_json(file)
    ids = [data.get(key) if isinstance(data, dict) else None for key in ("train_ids", "test_ids")]
    flat = [n for part in ids for n in (part if isinstance(part, list) else ["?"])]
    if not all(isinstance(n, int) and 0 <= n < frames for n in flat) or not ids[0] or len(set(flat)) < len(flat):
        raise ValueError(f"{file}: expected train_ids and test_ids, indices of {frames} frames, each at most once")
    return [
        ids[0][0],
        *ids[1],
    ], f"{file.name}: begins at input frame {ids[0][0]}, goes through {len(ids[1])} test frames"


def _first_picture(file: Path, frames: list) -> tuple[int, int] | None:
    """The size of the picture that the first frame names, if it is there."""
    name = frames[0].get("file_path") if isinstance(frames[0], dict) else None
    try:
        at = file.parent / name if isinstance(name, str) and len(name) < 256 else None
        inside = at is not None and at.resolve().is_relative_to(file.parent.resolve())
    except (OSError, ValueError):  # a text that cannot be a path
        inside = False
    return (
        image_size(at.parent, f"{at.stem}.*" if at.suffix else f"{at.name}.*") if inside and "*" not in name else None
    )


def _at(file: Path, place: str, key: str, entry: object, *shapes: tuple[int | None, ...]) -> Tensor:
    """The numbers under a key, rows of 16 or 12 as matrices of 4, those of 9 as 3 x 3."""
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"{file}, {place}: expected {_article(key)} of numbers, got none")
    try:
        found = array(entry[key], *shapes)
    except ValueError as error:
        side = "4 x 4 numbers" if (4, 4) in shapes else "numbers"
        raise ValueError(f"{file}, {place}: expected {_article(key)} of {side}; {error}") from error
    if found.shape in ((16,), (12,)):
        return found.reshape(-1, 4)
    return found.reshape(3, 3) if found.shape == (9,) else found


def _article(key: str) -> str:
    return f"{'an' if key[0].lower() in 'aeio' else 'a'} {key}"


def _one(file: Path, place: str, value: object) -> Tensor:
    try:
        return square(array(value, (4, 4), (3, 4)))
    except ValueError as error:
        raise ValueError(f"{file}, {place}: expected a 4 x 4 or 3 x 4 matrix; {error}") from error
