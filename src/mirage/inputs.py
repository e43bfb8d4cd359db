"""What a person hands over - picture, path, perhaps depth - brought to a model's size through one window."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from mirage.camera.cameras import Cameras, cover
from mirage.camera.path import LEGS, build_path
from mirage.camera.trajectory import Trajectory
from mirage.chunks import nearest_frames, plan_chunks
from mirage.video.io import fit_image, read_image

FOV = math.radians(60)  # of a photograph of which nothing is known
FRAMES = 65
VIEWS = (math.radians(5), math.radians(160))  # fields of view that a picture can have
FARTHEST = 1e5  # world units
LENS = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """A picture with its path, ready for a model."""

    image: UInt8[np.ndarray, "h w 3"]
    """The first frame, at the model's size."""
    path: Trajectory
    """Where to go, one camera per frame, at the same size; printing it says what was understood."""
    depth: Float32[Tensor, "h w"] | None
    """z-depth of the picture if it is known, in world units, 0 = unknown."""

    @property
    def cameras(self) -> Cameras:
        """The cameras of the path."""
        return self.path.cameras

    @classmethod
    def load(
        cls,
        image: str | Path,
        path: str,
        *,
        size: tuple[int, int] | None = None,
        like: tuple[int, int] = (128, 128),
        step: int = 16,
        temporal_stride: int = 4,
        frames: int | None = None,
        fov: float | None = None,
        intrinsics: tuple[float, float, float, float] | None = None,
        scale: float = 1.0,
        depth: str | Path | None = None,
        depth_scale: float = 1.0,
    ) -> "Inputs":
        """Read what was handed over, and cut picture, depth and cameras alike.

        Args:
            image: A picture.
            path: Words that `build_path` understands: preset, command, or a camera file.
            size: Height and width of the video, in pixels; chosen by the picture's shape if None.
            like: A size whose number of pixels suits the model.
            step: What height and width must be multiples of.
            temporal_stride: Frames per latent frame of the model.
            frames: Frames of the video; all of a camera file, else 65, if None.
            fov: Field of view across the longer side of the picture, in radians; that of the camera file, else 60
                degrees, if None.
            intrinsics: fx, fy, cx, cy in pixels of the picture (corner convention), in place of `fov`.
            scale: Factor on every distance of the path.
            depth: z-depth of the picture, as 16-bit PNG or NumPy array of its shape; 0 = unknown.
            depth_scale: What one world unit is in the numbers of `depth`.

        Returns:
            The inputs; the path's notes tell of every change.

        Raises:
            ValueError: If a file or a value cannot be used; the message says which and why.
        """
        picture = read_image(image)
        height, width = picture.shape[:2]
        rows, columns = size or model_size(height, width, like, step)
        if min(rows, columns) < step or rows % step or columns % step:
            raise ValueError(f"size must be multiples of {step}, at least {step}, got {rows} x {columns}")
        known = None if depth is None else read_depth(depth, depth_scale)
        if known is not None and abs(math.log(known.shape[1] * height / (known.shape[0] * width))) > 0.02:
            raise ValueError(
                f"depth must be of the shape of the image, {height} x {width}, got {known.shape[0]} x {known.shape[1]}"
            )
        if frames is None and not _is_file(path):
            frames = FRAMES
        trajectory = build_path(
            path,
            frames,
            _lens(height, width, fov, intrinsics),
            scale=scale,
            keep_intrinsics=fov is not None or intrinsics is not None,
        )
        cameras, box = trajectory.cameras.fit(rows, columns)
        notes = list(trajectory.notes)
        if frames is None and len(cameras) > 1:
            whole = nearest_frames(len(cameras), temporal_stride)[0]
            if whole < len(cameras):
                notes.append(f"the first {whole} of {len(cameras)} poses: a video has 1 + n * {temporal_stride} frames")
            cameras = cameras[:whole]
        plan_chunks(len(cameras), 1 + temporal_stride, temporal_stride)  # refuses what is no video
        if (box.height, box.width) != (height, width):
            notes.append(f"picture of {width} x {height} cut to {box.width} x {box.height} pixels in its middle")
        return cls(
            image=fit_image(picture, rows, columns),
            path=replace(trajectory, cameras=cameras, notes=tuple(notes)),
            depth=None if known is None else fit_depth(torch.from_numpy(known), rows, columns),
        )


def model_size(height: int, width: int, like: tuple[int, int], step: int) -> tuple[int, int]:
    """A size in whole steps with about the shape of a picture and about the pixels of another size.

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        like: Height and width whose number of pixels is wanted.
        step: What both sides must be multiples of.

    Returns:
        Height and width.

    Example:
        >>> model_size(704, 1248, (128, 128), 16), model_size(500, 500, (128, 128), 16)
        ((96, 176), (128, 128))
    """
    area = like[0] * like[1]
    most = max(1, round(2 * math.sqrt(area) / step))
    sizes = [(r * step, c * step) for r in range(1, 2 * most + 1) for c in range(1, 2 * most + 1)]
    shape = lambda s: abs(math.log(s[1] * height / (s[0] * width)))
    pixels = lambda s: abs(math.log(s[0] * s[1] / area))
    return min(sizes, key=lambda s: shape(s) + pixels(s) / 2)


def read_depth(path: str | Path, depth_scale: float = 1.0) -> Float32[np.ndarray, "h w"]:
    """Read a depth map of one picture.

    Args:
        path: A grey PNG (8, 16 or 32 bits) or a NumPy array of two axes.
        depth_scale: What one world unit is in the file's numbers; 1000 for millimetres to metres.

    Returns:
        z-depth in world units, 0 = unknown.

    Raises:
        ValueError: If the file is missing, no depth map, or holds negative or infinite depth or none at all.
    """
    path = Path(path)
    if not 1e-6 <= depth_scale <= 1e6:
        raise ValueError(f"depth_scale must be from 1e-06 to 1e+06, got {depth_scale:g}")
    if not path.is_file():
        raise ValueError(f"depth not found: {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    kind = "F"
    try:
        if path.suffix == ".npy":
            depth = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                kind, depth = image.mode, np.asarray(image)
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"depth cannot be read: {path} is damaged or no PNG or npy file ({error})") from error
    if depth.ndim != 2 or depth.dtype.kind not in "iuf" or kind == "P":
        held = "colours of a palette" if kind == "P" else f"{depth.dtype} {depth.shape}"
        raise ValueError(f"depth must be one number per pixel, {path} holds {held}")
    depth = depth.astype(np.float32) / np.float32(depth_scale)
    if not np.isfinite(depth).all():
        raise ValueError(f"depth must be finite, {path} holds NaN or infinity: write 0 where it is unknown")
    if (depth < 0).any():
        raise ValueError(f"depth must not be negative, {path} holds {depth.min():.3g}: write 0 where it is unknown")
    if not (depth > 0).any():
        raise ValueError(f"depth must be known somewhere, {path} is 0 everywhere")
    if not 1 / FARTHEST <= depth.max() <= FARTHEST:
        raise ValueError(
            f"depth must be at most {FARTHEST:g} world units and somewhere more than {1 / FARTHEST:g}, {path} goes to "
            f"{depth.max():.3g}: give the depth_scale of its numbers"
        )
    return depth


def fit_depth(depth: Float32[Tensor, "h w"], height: int, width: int) -> Float32[Tensor, "{height} {width}"]:
    """Bring a depth map to a model's size through the window of `fit_image`; no two depths are blended.

    Args:
        depth: z-depth, 0 = unknown.
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        The depth of the nearest pixel.

    Example:
        >>> fit_depth(torch.tensor([[1.0, 2.0, 0.0, 4.0]]), 2, 4)[1].tolist()
        [2.0, 2.0, 0.0, 0.0]
    """
    top, left, rows, columns = cover(*depth.shape, height, width)
    window = depth[None, None, top : top + rows, left : left + columns]
    return torch.nn.functional.interpolate(window, (height, width), mode="nearest-exact")[0, 0]


def _lens(height: int, width: int, fov: float | None, intrinsics: tuple[float, float, float, float] | None) -> Cameras:
    """The camera of the picture at its own size."""
    if fov is not None and not VIEWS[0] <= fov <= VIEWS[1]:
        least, most = map(math.degrees, VIEWS)
        raise ValueError(f"fov must be {least:g} to {most:g} degrees, got {math.degrees(fov):g}")
    if intrinsics is None:
        return Cameras.from_fov(FOV if fov is None else fov, height, width)
    if fov is not None:
        raise ValueError("give fov or intrinsics, not both")
    fx, fy, cx, cy = intrinsics
    if not (0 < fx < math.inf and 0 < fy < math.inf and 0 < cx < width and 0 < cy < height):
        raise ValueError(
            f"intrinsics must be {', '.join(LENS)} in pixels of the image of {width} x {height}: focal lengths "
            f"positive, principal point inside, got {intrinsics}"
        )
    view = 2 * math.atan(max(width / fx, height / fy) / 2)
    if not VIEWS[0] <= view <= VIEWS[1]:
        least, most = map(math.degrees, VIEWS)
        raise ValueError(
            f"intrinsics must be {', '.join(LENS)} in pixels of the image of {width} x {height}: focal lengths for a "
            f"view of {least:g} to {most:g} degrees, got {fx:g} and {fy:g} for {math.degrees(view):.3g}"
        )
    k = torch.tensor([[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]])
    return Cameras(k, torch.eye(4)[None], height, width)


def _is_file(path: str) -> bool:
    """Whether the words of a path name a camera file, which has a number of poses of its own."""
    name, _, rest = path.strip().partition(":")
    words = rest.strip() if name in LEGS else path.strip()
    try:
        return bool(words) and Path(words).exists()
    except (OSError, ValueError):
        return False
