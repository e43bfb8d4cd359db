"""What a run tells of itself: a page of pictures, figures for a file."""

import math

import numpy as np
from jaxtyping import UInt8

from mirage.camera.trajectory import Trajectory
from mirage.pipeline import ChunkResult, MirageOutput, MiragePipeline
from mirage.video.io import tensor_to_images
from mirage.video.picture import contact_sheet, shade_unseen

PICTURES = 10  # on a contact sheet


def decoded_reads(pipeline: MiragePipeline, chunk: ChunkResult) -> list[UInt8[np.ndarray, "h w 3"]]:
    """What the memory knew of a chunk's new latent frames before it was imagined, the rest hatched.

    Args:
        pipeline: The model that made it.
        chunk: One turn of its loop.

    Returns:
        One picture per latent frame.
    """
    features = chunk.known.features[chunk.chunk.shared :]
    visible = chunk.known.visible[chunk.chunk.shared :].cpu().numpy()
    pictures = tensor_to_images(pipeline.codec.decode(features[:, None])[:, 0])
    return [shade_unseen(picture, seen) for picture, seen in zip(pictures, visible, strict=True)]


def video_sheet(
    frames: UInt8[np.ndarray, "f h w 3"],
    known: list[UInt8[np.ndarray, "_ _ 3"]],
    coverage: list[float],
    temporal_stride: int,
    *,
    truth: UInt8[np.ndarray, "f h w 3"] | None = None,
) -> UInt8[np.ndarray, "y x 3"]:
    """Frames of a video and, below each, what the memory knew of it.

    Args:
        frames: The video.
        known: One picture for each latent frame.
        coverage: Share known of each latent frame.
        temporal_stride: Frames per latent frame.
        truth: What a camera saw on the same path, to be shown above.

    Returns:
        The page.
    """
    chosen = np.unique(np.linspace(0, len(known) - 1, PICTURES).round().astype(int))
    gap = np.full((4, frames.shape[2], 3), 17, np.uint8)
    rows = [] if truth is None else [truth[::temporal_stride]]
    rows += [frames[::temporal_stride], known]
    cells = [np.concatenate([part for row in rows for part in (row[i], gap)][:-1]) for i in chosen]
    labels = [f"frame {i * temporal_stride} · {coverage[i]:.0%} known" for i in chosen]
    title = "The video, and what the memory knew of it"
    title = title if truth is None else f"What a camera saw, {title[0].lower()}{title[1:]}"
    return contact_sheet(cells, labels, columns=5, zoom=-(-256 // frames.shape[2]), title=title)


def psnr(frame: UInt8[np.ndarray, "*b h w 3"], truth: UInt8[np.ndarray, "*b h w 3"]) -> float:
    """Peak signal-to-noise ratio.

    Args:
        frame: Colour, 0 to 255.
        truth: What it should be.

    Returns:
        Decibels, at most 60.

    Example:
        >>> psnr(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8))
        0.0
    """
    error = np.square(frame.astype(np.float64) - truth).mean()
    return min(60.0, 10 * math.log10(255.0**2 / max(error, 1e-9)))


def path_figures(path: Trajectory, scale: float) -> dict:
    """What was understood of a path.

    Args:
        path: The path.
        scale: The factor that was put on its distances.

    Returns:
        Values for a JSON file; distances in world units, angles in degrees.
    """
    motion = path.motion
    return {
        "source": path.source,
        "format": path.format,
        "convention": path.convention,
        "notes": list(path.notes),
        "scale": scale,
        "poses": motion.frames,
        "length": motion.length,
        "rotation_degrees": math.degrees(motion.rotation),
        "reach": motion.reach,
        "end_distance": motion.end_distance,
        "end_rotation_degrees": math.degrees(motion.end_rotation),
        "intrinsics": path.cameras.intrinsics[0].tolist(),
    }


def returns(path: Trajectory) -> bool:
    """Whether a path ends where it began."""
    motion = path.motion
    return motion.end_distance <= 1e-3 * max(motion.length, 1e-9) and motion.end_rotation < 1e-3


def output_figures(output: MirageOutput) -> dict:
    """What a run tells of itself, without its video.

    Args:
        output: What the pipeline gave.

    Returns:
        Values for a JSON file.
    """
    updates = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in vars(update).items()}
        for update in output.updates
    ]
    return {
        "coverage": [round(share, 4) for share in output.coverage],
        "memory_bytes": output.memory_bytes,
        "memory_elements": len(output.memory),
        "updates": updates,
    }
