"""Pictures and points as bytes, the same for server and client; the browser's side is `static/api.js`, `map.js`."""

import io
import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

MAGIC, VERSION = b"MV", 1
VIEW = struct.Struct("<2sBBIHHffHH")  # magic, version, kind, number, width, height, known, given, columns, rows
POINT_TYPE = np.dtype([("place", "<f4", 3), ("colour", "u1", 3), ("given", "u1")])
QUALITY = 88  # of JPEG


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """A picture as it came over the wire."""

    number: int
    """That of the pose it answers."""
    image: UInt8[np.ndarray, "h w 3"]
    visible: Bool[np.ndarray, "rows columns"]
    """Cells that the memory knows."""
    known: float
    """Their share."""
    given: float
    """Share that the first picture explains."""


def jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int = QUALITY) -> bytes:
    """A picture as JPEG.

    Args:
        image: Colour.
        quality: 1 to 95.

    Returns:
        The file.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def pack_view(
    number: int, image: UInt8[np.ndarray, "h w 3"], visible: Bool[np.ndarray, "rows columns"], given: float
) -> bytes:
    """A view as it goes over the wire: header, one bit per cell that is known (rows first, high bit first), JPEG.

    Args:
        number: That of the pose it answers.
        image: The decoded read.
        visible: Cells that the memory knows.
        given: Share of the view that the first picture explains.

    Returns:
        The message.
    """
    (height, width), (rows, columns) = image.shape[:2], visible.shape
    head = VIEW.pack(MAGIC, VERSION, 1, number, width, height, float(visible.mean()), given, columns, rows)
    return head + np.packbits(visible).tobytes() + jpeg(image)


def unpack_view(message: bytes) -> View:
    """What `pack_view` made.

    Args:
        message: The message.

    Returns:
        The view; its colours are those that JPEG left.

    Raises:
        ValueError: If it is no view of this version.

    Example:
        >>> grey, seen = np.full((16, 24, 3), 128, np.uint8), np.array([[True, False, True]])
        >>> view = unpack_view(pack_view(7, grey, seen, 0.5))
        >>> view.number, view.image.shape, view.visible.tolist(), view.given
        (7, (16, 24, 3), [[True, False, True]], 0.5)
    """
    if len(message) < VIEW.size:
        raise ValueError(f"message must be a view of at least {VIEW.size} bytes, got {len(message)}")
    magic, version, kind, number, _, _, known, given, columns, rows = VIEW.unpack_from(message)
    if (magic, version, kind) != (MAGIC, VERSION, 1):
        raise ValueError(f"message must be a view of version {VERSION}, got {message[:4]!r}")
    end = VIEW.size + -(-columns * rows // 8)
    bits = np.unpackbits(np.frombuffer(message[VIEW.size : end], np.uint8), count=columns * rows)
    with Image.open(io.BytesIO(message[end:]), formats=["JPEG"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    visible = bits.reshape(rows, columns).astype(bool)
    return View(number=number, image=pixels, visible=visible, known=known, given=given)
