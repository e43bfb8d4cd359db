"""Pictures that somebody sent, decoded with suspicion."""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from mirage.video.io import SMALLEST

FORMATS = ("JPEG", "PNG", "WEBP")  # what an upload may be: no format that runs anything
MOST_PIXELS = 50_000_000


def decode_upload(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Read a picture that somebody sent.

    Args:
        data: The file.

    Returns:
        Colour, upright, transparency on white.

    Raises:
        ValueError: If it is no still JPEG, PNG or WebP, too small, too large, or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is tighter
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        with image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(
                    f"the picture must have at most {MOST_PIXELS // 10**6} megapixels, got {width} x {height}: "
                    "resize it first"
                )
            if min(width, height) < SMALLEST or max(width, height) > 50 * min(width, height):
                raise ValueError(
                    f"the picture must be at least {SMALLEST} pixels across and no stripe, got {width} x {height}"
                )
            if getattr(image, "n_frames", 1) != 1:
                raise ValueError("the picture must be a still, got an animation: save one of its frames")
            image.draft("RGB", (2048, 2048))  # a JPEG need not be decoded at full size
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"the picture must be {', '.join(FORMATS)}, got something else") from error
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"the picture is damaged: {error}") from error
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.asarray(upright.convert("RGB"))
