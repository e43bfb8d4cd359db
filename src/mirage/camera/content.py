"""What a camera file holds, opened defensively: text lines, JSON, or plain arrays, all of limited size.

Nothing here knows a format. Whatever a file contains, the worst that comes out is a `ValueError` that names it.
"""

import json
import lzma
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from PIL import Image
from torch import Tensor

LARGEST_TEXT = 64 * 2**20  # bytes of a text or JSON file: some 100,000 poses
LARGEST_ARRAY = 256 * 2**20  # bytes of an array, unpacked
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.I)
UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, MemoryError, OverflowError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)


@dataclass(frozen=True, kw_only=True)
class Poses:
    """What a reader found, before any check.

    Attributes:
        matrices: Poses as the file means them, 4 x 4, in units of the file.
        direction: "w2c" if they map the world to the camera, "c2w" if the camera to the world, "" if unknown.
        axes: "opencv" or "opengl", the axes of the camera; "" if unknown.
        places: Where each pose stands ("line 3"), for error messages.
        intrinsics: Pinhole matrices, one or one per pose; None if there are none.
        size: Rows and columns of the image that `intrinsics` belong to; (1, 1) if they are normalised, None if the
            file does not say.
        pixels: "corner" if position 0 is the edge of the first pixel, "center" if it is its centre.
        square: In place of intrinsics, for square pixels and a principal point in the middle: ("across", field of view
            over the width), ("down", over the height), both in radians, or ("focal", pixels of the image at hand).
        lens: How the file writes intrinsics.
        times: Time of each pose; it must run forward. None if the file has no times.
        notes: What was changed or ignored.
        prompts: First frame and text of each prompt.
    """

    matrices: Float64[Tensor, "n 4 4"]
    direction: str
    axes: str
    places: list[str]
    intrinsics: Float64[Tensor, "m 3 3"] | None = None
    size: tuple[int, int] | None = None
    pixels: str = "corner"
    square: tuple[str, Float64[Tensor, " m"]] | None = None
    lens: str = "no intrinsics"
    times: list[float] | None = None
    notes: tuple[str, ...] = ()
    prompts: tuple[tuple[int, str], ...] = ()


class Archive:
    """An npz file of plain arrays, each read when it is asked for; nothing is unpickled, nothing huge is unpacked.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no archive.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._sizes = {
                    i.filename.removesuffix(".npy"): i.file_size
                    for i in archive.infolist()
                    if i.filename.endswith(".npy")
                }
        except UNREADABLE as error:
            raise ValueError(f"{path} is not a readable archive of plain arrays: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    @property
    def names(self) -> list[str]:
        """The keys of its arrays."""
        return list(self._sizes)

    def array(self, name: str, *shapes: tuple[int | None, ...]) -> Float64[Tensor, "..."]:
        """One array as numbers.

        Args:
            name: Its key.
            shapes: Shapes that it may have, None for any length; any shape if none is given.

        Returns:
            The array, float64.

        Raises:
            ValueError: If it is missing, too large, damaged, of another shape, or does not hold numbers.
        """
        if name not in self:
            raise ValueError(f"{self.path}: expected an array {name}, got {', '.join(self._sizes) or 'none'}")
        if self._sizes[name] > LARGEST_ARRAY:
            raise ValueError(f"{self.path}: array {name} unpacks to {self._sizes[name]} bytes, more than cameras need")
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                found = np.lib.format.read_array(stream, allow_pickle=False)
        except UNREADABLE as error:
            raise ValueError(f"{self.path} is not a readable archive of plain arrays: {name}: {error}") from error
        if found.dtype.kind not in "iufb":
            raise ValueError(f"{self.path}: expected numbers in {name}, got {found.dtype}")
        if shapes and not any(_fits(found.shape, shape) for shape in shapes):
            raise ValueError(f"{self.path}: expected {name} of shape {_words(shapes)}, got {found.shape}")
        return torch.from_numpy(found.astype(np.float64))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without unpacking it.

        Args:
            name: Its key.

        Returns:
            The shape; () if there is no such array, or it cannot be told.
        """
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                version = np.lib.format.read_magic(stream)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                return tuple(map(int, header[version](stream)[0]))
        except UNREADABLE:
            return ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """A file or folder, opened as what it is.

    Attributes:
        path: The file or folder.
        kind: "text", "json", "npz", "npy", "binary" or "folder".
        lines: Lines that are not blank, with their places; of text and JSON.
        data: The JSON value.
        arrays: The arrays of an npz file.
        center: Distance of the point that the path turns about, if the caller knows it.
    """

    path: Path
    kind: str
    lines: list[tuple[str, str]]
    data: object = None
    arrays: Archive | None = None
    center: float | None = None


def open_content(path: Path, center: float | None = None) -> Content:
    """Open a file by what it holds, not by how it is called.

    Args:
        path: The file or folder.
        center: See `Content`.

    Returns:
        The content.

    Raises:
        ValueError: If the file is too large, or says that it is JSON or an archive and is not.
    """
    if path.is_dir():
        return Content(path=path, kind="folder", lines=[], center=center)
    with path.open("rb") as stream:
        magic = stream.read(8)
    if magic.startswith(b"PK") or path.suffix == ".npz":
        return Content(path=path, kind="npz", lines=[], arrays=Archive(path), center=center)
    if magic.startswith(b"\x93NUMPY") or path.suffix == ".npy":
        return Content(path=path, kind="npy", lines=[], center=center)
    if path.suffix == ".bin":
        return Content(path=path, kind="binary", lines=[], center=center)
    text = read_text(path)
    named = [(f"line {n}", line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        try:
            return Content(path=path, kind="json", lines=named, data=json.loads(text), center=center)
        except (ValueError, RecursionError) as error:
            if path.suffix == ".json":
                raise ValueError(f"{path} is not JSON: {error}") from error
    return Content(path=path, kind="text", lines=named, center=center)


def read_text(path: Path) -> str:
    """The text of a file.

    Args:
        path: The file.

    Returns:
        The text; empty if it is not a text file.

    Raises:
        ValueError: If the file is too large.
    """
    if path.stat().st_size > LARGEST_TEXT:
        raise ValueError(f"{path} is {path.stat().st_size} bytes large, more than a camera file can be")
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode("utf-8-sig", errors="replace")


def read_json(path: Path) -> object:
    """The value of a JSON file.

    Args:
        path: The file.

    Returns:
        The value.

    Raises:
        ValueError: If it is too large or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def number(value: object) -> float:
    """A value of JSON as a number.

    Args:
        value: Anything.

    Returns:
        The number; NaN if it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def whole(path: Path, size: float) -> int:
    """A side of an image.

    Args:
        path: The file that tells it.
        size: Pixels.

    Returns:
        The same as a whole number.

    Raises:
        ValueError: If it is none, or no image is so large.
    """
    if not 1 <= size <= 1e6 or size != int(size):
        raise ValueError(f"{path}: expected an image size in whole pixels, got {size:g}")
    return int(size)


def numbers(line: str) -> list[float]:
    """The words of a line as numbers.

    Args:
        line: Words between blanks or commas.

    Returns:
        One number per word; words that are none become NaN.

    Example:
        >>> numbers("1 2.5e1, frame.png")
        [1.0, 25.0, nan]
    """
    return [float(word) if NUMBER.fullmatch(word) else math.nan for word in re.split(r"[\s,]+", line.strip())]


def array(value: object, *shapes: tuple[int | None, ...]) -> Float64[Tensor, "..."]:
    """Numbers out of JSON, as a tensor.

    Args:
        value: Nested lists of numbers.
        shapes: Shapes that they may have, None for any length.

    Returns:
        The numbers, float64.

    Raises:
        ValueError: If they are no numbers or of another shape.

    Example:
        >>> array([[1, 2], [3, 4]], (2, 2)).tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    try:
        found = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"expected numbers of shape {_words(shapes)}, got {str(value)[:40]!r}") from error
    if not any(_fits(found.shape, shape) for shape in shapes):
        raise ValueError(f"expected numbers of shape {_words(shapes)}, got shape {found.shape}")
    return torch.from_numpy(found)


def square(matrices: Float64[Tensor, "*n rows 4"]) -> Float64[Tensor, "*n 4 4"]:
    """Matrices of three or four rows as 4 x 4.

    Args:
        matrices: 3 x 4 or 4 x 4 matrices.

    Returns:
        The matrices, with a last row of 0 0 0 1 where it was left out.

    Example:
        >>> square(torch.zeros(3, 4, dtype=torch.float64))[3].tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64).expand(*matrices.shape[:-2], 1, 4)
    return torch.cat([matrices, last], -2)[..., :4, :]


def stack(matrices: Sequence[Float64[Tensor, "r c"]], side: int = 4) -> Float64[Tensor, "n {side} {side}"]:
    """Matrices in a row; none is a batch of none.

    Args:
        matrices: Square matrices.
        side: Their rows and columns.

    Returns:
        The batch.

    Example:
        >>> stack([]).shape
        torch.Size([0, 4, 4])
    """
    return torch.stack(list(matrices)) if matrices else torch.zeros(0, side, side, dtype=torch.float64)


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float64[Tensor, "3 3"]:
    """A pinhole matrix of four numbers.

    Args:
        fx: Focal length across.
        fy: Focal length down.
        cx: Principal point across.
        cy: Principal point down.

    Returns:
        The matrix.
    """
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)


def image_size(folder: Path, pattern: str = "*") -> tuple[int, int] | None:
    """Rows and columns of the first picture of a folder.

    Args:
        folder: Where to look; it need not exist.
        pattern: Which files.

    Returns:
        The size, or None if there is no picture.
    """
    for first in sorted(p for p in folder.glob(pattern) if p.suffix.lower() in (".png", ".jpg", ".jpeg"))[:1]:
        try:
            with Image.open(first) as image:
                return image.height, image.width
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return None
    return None


def in_order(name: str) -> list:
    """The key that sorts names with numbers as people do: frame 9 before frame 10.

    Args:
        name: A name.

    Returns:
        What to sort by.

    Example:
        >>> sorted(["10.txt", "9.txt"], key=in_order)
        ['9.txt', '10.txt']
    """
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))


def _words(shapes: Sequence[tuple[int | None, ...]]) -> str:
    return " or ".join(f"({', '.join('n' if side is None else str(side) for side in shape)})" for shape in shapes)
