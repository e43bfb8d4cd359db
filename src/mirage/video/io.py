"""Images and videos on disk to uint8 arrays and back; a file that is written is complete or absent."""

import io
import json
import os
import secrets
import struct
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mirage.camera.cameras import cover

SMALLEST = 16  # pixels along a side: less is no picture of a place


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    """Read a still picture as sRGB, upright, whatever its mode.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey keeps its high byte.

    Args:
        path: A file of any format that Pillow reads.

    Returns:
        Colour, 0 to 255.

    Raises:
        ValueError: If the file is missing, corrupt, animated, too small or absurdly large.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"image not found: {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            still = getattr(image, "n_frames", 1) == 1 or image.format == "MPO"  # MPO: a phone's jpeg with extras
            picture = _to_rgb(ImageOps.exif_transpose(image)) if still else None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"image is too large: {path} ({error}); resize it first") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"image cannot be read: {path} is in no known format; save it as PNG or JPEG") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(f"image cannot be read: {path} is damaged ({error})") from error
    if picture is None:
        raise ValueError(f"image must be a still: {path} is animated; save one of its frames")
    if min(picture.size) < SMALLEST:
        raise ValueError(
            f"image must be at least {SMALLEST} x {SMALLEST} pixels, {path} is {picture.width} x {picture.height}"
        )
    return np.asarray(picture)


def _to_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 bits per channel")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def fit_image(image: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Fill a size with the image: crop its centre to the shape, then resize once, in the corner convention.

    The window is that of `Cameras.fit`, so that a picture and its camera stay together.

    Args:
        image: Colour, 0 to 255.
        height: Rows wanted, in pixels.
        width: Columns wanted, in pixels.

    Returns:
        Colour, 0 to 255.

    Example:
        >>> image = np.zeros((2, 6, 3), np.uint8)
        >>> image[:, 2:4] = 200
        >>> fit_image(image, 2, 2)[..., 0].tolist()
        [[200, 200], [200, 200]]
    """
    top, left, rows, columns = cover(*image.shape[:2], height, width)
    box = (left, top, left + columns, top + rows)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box))


def images_to_tensor(images: UInt8[np.ndarray, "*b h w 3"]) -> Float[Tensor, "*b 3 h w"]:
    """Colour for the model: channels first, in [-1, 1].

    Args:
        images: Colour, 0 to 255; any leading axes.

    Returns:
        The same in float32, -1 for 0 and 1 for 255.

    Example:
        >>> images_to_tensor(np.full((2, 5, 3), 255, np.uint8)).shape
        torch.Size([3, 2, 5])
    """
    return torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0).movedim(-1, -3).contiguous()


def tensor_to_images(frames: Float[Tensor, "*b 3 h w"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Colour for the world outside: channels last, rounded and clamped to 0..255; undoes `images_to_tensor`.

    Args:
        frames: Colour, about [-1, 1]; any leading axes, device and float dtype.

    Returns:
        Colour, 0 to 255.

    Gradient:
        None.

    Example:
        >>> tensor_to_images(torch.tensor([-1.0, 0.0, 2.0]).reshape(3, 1, 1)).tolist()
        [[[0, 128, 255]]]
    """
    scaled = (frames.detach().float() + 1.0) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).contiguous().cpu().numpy()


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file aside, and give it its name when it is whole.

    The folder is made if it is missing. When the block fails or is interrupted, what was written is removed and
    an older file of the name stays as it was.

    Args:
        path: The file to write.

    Yields:
        A path in the same folder and with the same suffix, to be written instead.

    Raises:
        OSError: In one sentence, if the folder cannot be written or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic(Path(folder) / "new" / "a.txt") as aside:
        ...         _ = aside.write_text("whole")
        ...     (Path(folder) / "new" / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    aside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(aside, path)
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(f"cannot write {path}: {reason[:1].lower()}{reason[1:]}") from error
    finally:
        if aside.parent.is_dir():
            aside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write a value as indented JSON, whole or not at all; NaN and infinity are refused.

    Args:
        path: The file.
        value: What `json` can say.

    Raises:
        OSError: See `atomic`.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_image(path: str | os.PathLike, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a picture, whole or not at all; the suffix chooses the format.

    Args:
        path: The file, .png or .jpg.
        image: Colour, 0 to 255.

    Raises:
        OSError: See `atomic`.
    """
    encoded = io.BytesIO()  # Pillow writing to a full disk cuts the file without a word
    Image.fromarray(image).save(encoded, Image.registered_extensions()[Path(path).suffix.lower()], quality=92)
    with atomic(path) as aside:
        aside.write_bytes(encoded.getvalue())


class VideoWriter(AbstractContextManager):
    """An mp4 that grows by frames and appears only when it is whole.

    H.264 in yuv420p with its index in front, so that browsers, phones and editors play it; colours are BT.709 and
    tagged so. An odd height or width is padded by repeating the last row or column. Leaving the block by an error
    or an interruption leaves nothing behind.

    Args:
        path: The file, .mp4.
        fps: Frames per second.
        crf: Quality of x264: 0 is lossless, 17 looks so, 28 is coarse.

    Raises:
        ValueError: If the frames differ in size, or if there are none.
        OSError: See `atomic`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(Path(folder) / "a.mp4", fps=8) as video:
        ...         video.write(np.zeros((5, 20, 30, 3), np.uint8))
        ...     read_video(Path(folder) / "a.mp4").shape
        (5, 20, 30, 3)
    """

    def __init__(self, path: str | os.PathLike, *, fps: int = 16, crf: int = 17) -> None:
        self.path, self.fps, self.crf = Path(path), fps, crf
        self.frames = 0
        self._stack = ExitStack()

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            aside = stack.enter_context(atomic(self.path))
            self._container = stack.enter_context(av.open(str(aside), "w", options={"movflags": "faststart"}))
            stack.push(self._flush)
            self._stack = stack.pop_all()
        return self

    def write(self, frames: UInt8[np.ndarray, "*f h w 3"]) -> None:
        """Append one frame or several.

        Args:
            frames: Colour, 0 to 255; all of one size.

        Raises:
            ValueError: If their size is not that of the first frame.
        """
        height, width = frames.shape[-3:-1]
        if not self.frames:
            self._begin(height, width)
        if (height, width) != self._size:
            raise ValueError(f"frames must all be {self._size[0]} x {self._size[1]}, got {height} x {width}")
        for image in frames.reshape(-1, height, width, 3):
            even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_trc=ColorTrc.BT709,
                dst_color_primaries=ColorPrimaries.BT709,
            )
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def _begin(self, height: int, width: int) -> None:
        self._size = height, width
        # x264's macroblock tree reads memory that it never wrote: the same frames gave other bytes each time.
        options = {"crf": str(self.crf), "x264-params": "mbtree=0"}
        self._stream = self._container.add_stream("libx264", rate=self.fps, options=options)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_trc, context.color_primaries = ColorTrc.BT709, ColorPrimaries.BT709

    def _flush(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            return
        if not self.frames:
            raise ValueError(f"a video needs at least one frame, {self.path} got none")
        self._container.mux(self._stream.encode())

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)


def write_video(path: str | os.PathLike, frames: UInt8[np.ndarray, "f h w 3"], *, fps: int = 16, crf: int = 17) -> None:
    """Write a whole clip. See `VideoWriter`."""
    with VideoWriter(path, fps=fps, crf=crf) as video:
        video.write(frames)


def read_video(path: str | os.PathLike) -> UInt8[np.ndarray, "f h w 3"]:
    """Read every frame of a video.

    Args:
        path: A file of any format that FFmpeg reads.

    Returns:
        Colour, 0 to 255.

    Raises:
        ValueError: If the file is missing, holds no video or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"video not found: {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"video cannot be read: {path} is damaged or holds no video ({error})") from error
    if not frames:
        raise ValueError(f"video cannot be read: {path} holds no frame")
    return np.stack(frames)
