"""Depth in OpenEXR, as ViPE packs it: one channel Z of half precision."""

import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32


def read_exr(data: bytes, name: str) -> Float32[np.ndarray, "h w"]:
    """The channel Z of a picture.

    Args:
        data: The content of the file.
        name: What messages call it.

    Returns:
        z-depth, 0 where it is unknown: not finite, or not positive.

    Raises:
        ValueError: If the package is missing, or the file is damaged or has no such channel.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise ValueError(f"{name} needs the package OpenEXR: pip install 'mirage-world[prepare]'") from error
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "depth.exr"
        file.write_bytes(data)
        try:
            with OpenEXR.File(str(file)) as picture:
                channels = picture.channels()
                depth = np.array(channels["Z"].pixels, np.float32)
        except KeyError:
            raise ValueError(f"{name} must have a channel Z, got {', '.join(channels)}") from None
        except (RuntimeError, ValueError, OSError, TypeError) as error:
            raise ValueError(f"{name} cannot be read: {error}") from error
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)
