"""Readers of camera files of arrays, npz and npy.

Each takes the content that its row of `mirage.camera.files.FORMATS` recognised and gives the poses as the file means
them; checks, sizes and the choice of the world are the same for all and live behind that door.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from mirage.camera.content import (
    LARGEST_ARRAY,
    UNREADABLE,
    Archive,
    Content,
    Poses,
    image_size,
    pinhole,
    read_json,
    square,
    stack,
    whole,
)


def read_rgbd(content: Content) -> Poses:
    """A folder of RGB-D frames: `cameras.npz` with `c2w` or `w2c`, `K` in pixels; images in `rgb/`. See `Format`."""
    file, arrays = content.path, content.arrays
    found = {name: arrays.array(name, (None, 4, 4)) for name in ("w2c", "c2w") if name in arrays}
    direction = "w2c" if "w2c" in found else "c2w"
    if len(found) == 2:
        if len(found["w2c"]) != len(found["c2w"]):
            raise ValueError(f"{file}: {len(found['w2c'])} poses in w2c but {len(found['c2w'])} in c2w")
        wrong = (found["w2c"] @ found["c2w"] - torch.eye(4, dtype=torch.float64)).abs().amax((1, 2)) > 1e-2
        if wrong.any():
            raise ValueError(f"{file}, pose {wrong.nonzero()[0].item()}: w2c is not the inverse of c2w")
    return Poses(
        matrices=found[direction],
        direction=direction,
        axes="opencv",
        places=_numbered(found[direction]),
        intrinsics=_intrinsics(arrays.array("K", (3, 3), (None, 3, 3))),
        size=image_size(file.parent / "rgb"),
        pixels="center",
        lens="intrinsics K in pixels",
    )


def read_geometry(content: Content) -> Poses:
    """The released Mirage: `geometry.npz` with `poses_c2w`, `intrinsics` in pixels of `depths`. See `Format`."""
    arrays = content.arrays
    poses, shape = arrays.array("poses_c2w", (None, 4, 4), (None, 3, 4)), arrays.shape("depths")
    size = tuple(shape[-2:]) if len(shape) in (3, 4) and shape[-1] > 1 else None
    if size is None and "processed_size" in arrays:
        size = _array_size(arrays, "processed_size")
    return Poses(
        matrices=square(poses),
        direction="c2w",
        axes="opencv",
        places=_numbered(poses),
        intrinsics=_intrinsics(arrays.array("intrinsics", (3, 3), (None, 3, 3))),
        size=size,
        lens="intrinsics in pixels of the depth maps",
    )


def read_gen3c(content: Content) -> Poses:
    """GEN3C, several views: `w2cs_all` (else `w2cs_key_frames`), `Ks_all` or `K_key_frames`. See `Format`."""
    arrays, notes = content.arrays, []
    name = "w2cs_all" if "w2cs_all" in arrays else "w2cs_key_frames"
    poses = arrays.array(name, (None, 4, 4), (None, 3, 4))
    if "Ks_all" in arrays:
        lens = _intrinsics(arrays.array("Ks_all", (3, 3), (None, 3, 3)))
    else:
        lens = _intrinsics(arrays.array("K_key_frames", (3, 3), (None, 3, 3)))
        if name == "w2cs_all" and len(lens) > 1:
            notes.append("no Ks_all: the intrinsics of the first key frame are those of all frames")
            lens = lens[:1]
    shape = arrays.shape("images_key_frames")
    return Poses(
        matrices=square(poses),
        direction="w2c",
        axes="opencv",
        places=_numbered(poses),
        intrinsics=lens,
        size=tuple(shape[-2:]) if len(shape) == 4 else None,
        lens="intrinsics in pixels",
        notes=tuple(notes),
    )


def read_gen3c_video(content: Content) -> Poses:
    """GEN3C, video to video: `camera.npz` with `w2c`, `intrinsics`; size from `depth.npz`. See `Format`."""
    arrays, depth = content.arrays, content.path.with_name("depth.npz")
    poses = arrays.array("w2c", (None, 4, 4), (None, 3, 4))
    shape = Archive(depth).shape("depth") if depth.is_file() else ()
    return Poses(
        matrices=square(poses),
        direction="w2c",
        axes="opencv",
        places=_numbered(poses),
        intrinsics=_intrinsics(arrays.array("intrinsics", (3, 3), (None, 3, 3))),
        size=tuple(shape[-2:]) if len(shape) == 3 else None,
        lens="intrinsics in pixels",
    )


def read_lyra(content: Content) -> Poses:
    """Lyra 2: `w2c`, `intrinsics`, `image_height`, `image_width`; prompts in `captions.json`. See `Format`."""
    arrays, captions = content.arrays, content.path.with_name("captions.json")
    poses, prompts = arrays.array("w2c", (None, 4, 4), (None, 3, 4)), []
    if captions.is_file():
        data = read_json(captions)
        if not isinstance(data, dict) or not all(k.isdecimal() and isinstance(v, str) for k, v in data.items()):
            raise ValueError(f'{captions}: expected {{"0": "text", "81": "text", ...}}')
        prompts = sorted((int(key), text) for key, text in data.items())
    return Poses(
        matrices=square(poses),
        direction="w2c",
        axes="opencv",
        places=_numbered(poses),
        intrinsics=_intrinsics(arrays.array("intrinsics", (3, 3), (None, 3, 3))),
        size=tuple(whole(content.path, arrays.array(f"image_{s}").sum().item()) for s in ("height", "width")),
        lens="intrinsics in pixels",
        prompts=tuple(prompts),
        notes=(f"{len(prompts)} prompts from captions.json",) if prompts else (),
    )


def read_vipe(content: Content) -> Poses:
    """ViPE: `pose/NAME.npz` and `intrinsics/NAME.npz`, each `inds` and `data`, camera to world.

    Frames without a pose are left out. Intrinsics that are not found leave the path without. See `Format`.
    """
    file, arrays = content.path, content.arrays
    data = arrays.array("data", (None, 4, 4), (None, 16), (None, 3, 4))
    matrices = data.reshape(-1, 4, 4) if data.ndim == 2 else square(data)
    indices = _indices(arrays, len(matrices))
    notes, lens, other = [], None, file.parent.parent / "intrinsics" / file.name
    gaps = [n for a, b in itertools.pairwise(indices) for n in range(a + 1, min(b, a + 5))]
    if gaps:
        absent = indices[-1] - indices[0] + 1 - len(indices)
        notes.append(f"{absent} frames have no pose and are left out ({', '.join(map(str, gaps[:4]))}, ...)")
    if other.is_file() and file.parent.name == "pose":
        archive = Archive(other)
        values = archive.array("data", (None, 4), (None, 3, 3))
        found = dict(zip(_indices(archive, len(values)), values, strict=True))
        if missing := [n for n in indices if n not in found]:
            raise ValueError(f"{other}: no intrinsics of frame {missing[0]}, which has a pose in {file}")
        lens = stack([k if k.ndim == 2 else pinhole(*k.tolist()) for k in (found[n] for n in indices)], 3)
    return Poses(
        matrices=matrices,
        direction="c2w",
        axes="opencv",
        places=[f"frame {n}" for n in indices],
        intrinsics=lens,
        lens="no intrinsics beside it" if lens is None else "intrinsics in pixels",
        times=[float(n) for n in indices],
        notes=tuple(notes),
    )


def read_npy(content: Content) -> Poses:
    """A bare array of matrices, which must be told what they mean. See `Format`."""
    file = content.path
    if file.stat().st_size > LARGEST_ARRAY:
        raise ValueError(f"{file} is {file.stat().st_size} bytes large, more than a camera file can be")
    try:
        with file.open("rb") as stream:
            found = np.lib.format.read_array(stream, allow_pickle=False)
    except UNREADABLE as error:
        raise ValueError(f"{file} is not a readable array of numbers: {error}") from error
    if found.dtype.kind not in "iuf" or found.shape[1:] not in ((4, 4), (3, 4)):
        raise ValueError(f"{file}: expected numbers of shape (n, 4, 4) or (n, 3, 4), got {found.dtype} {found.shape}")
    matrices = square(torch.from_numpy(found.astype(np.float64)))
    return Poses(matrices=matrices, direction="", axes="", places=_numbered(matrices))


def _array_size(arrays: Archive, name: str) -> tuple[int, int]:
    rows, columns = arrays.array(name, (2,)).tolist()
    return whole(arrays.path, rows), whole(arrays.path, columns)


def _intrinsics(k: Tensor) -> Tensor:
    return k.reshape(-1, 3, 3).clone()


def _numbered(poses: Tensor) -> list[str]:
    return [f"pose {n}" for n in range(len(poses))]


def _indices(arrays: Archive, count: int) -> list[int]:
    """The frame numbers of a ViPE file."""
    found = arrays.array("inds", (None,)).tolist()
    if len(found) != count or not all(math.isfinite(n) and n == int(n) for n in found):
        raise ValueError(
            f"{arrays.path}: expected {count} whole numbers in inds, one per entry of data, got {len(found)}"
        )
    return [int(n) for n in found]
