"""What others can use of a world: a video, its memory as points, cameras with frames to train 3D Gaussians on."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mirage.camera.writers import WRITERS, save_trajectory
from mirage.export import VERTEX, export_ply
from mirage.video.io import VideoWriter
from mirage.world import disk
from mirage.world.world import World

POINTS = 200_000  # most points that start a reconstruction: more only cost time there


def export_video(world: World, path: str | os.PathLike) -> None:
    """Write all frames of a world as one video that plays everywhere.

    Args:
        world: The world.
        path: The file, .mp4.

    Raises:
        ValueError: If a file of the world is damaged.
        OSError: In one sentence, if the video cannot be written.
    """
    with VideoWriter(path, fps=world.settings.fps) as video:
        for number in range(len(world.chunks)):
            video.write(world.frames(number))


def export_memory(world: World, path: str | os.PathLike, *, pixels: bool = False) -> int:
    """Write what a world remembers as coloured points. See `mirage.export.export_ply`.

    Args:
        world: The world, opened with its model: it decodes the colours.
        path: The file, .ply.
        pixels: One point for each pixel of a cell instead of one in its middle.

    Returns:
        The number of points.

    Raises:
        ValueError: If the world was opened without its model.
        OSError: In one sentence, if the file cannot be written.
    """
    if world.pipeline is None:
        raise ValueError("pipeline must be given to World.open to export the memory: it decodes the colours, got None")
    with torch.no_grad():
        return export_ply(world.state.memory, world.pipeline.codec, path, pixels=pixels)


def export_cameras(world: World, folder: str | os.PathLike, format: str) -> str:
    """Write the cameras of all frames, and for "colmap" and "nerfstudio" the frames, as those are trained on.

    Args:
        world: The world; for "colmap" opened with its model, which colours the points that training starts from.
        folder: Where it goes: no such folder yet, or an empty one.
        format: A name of `mirage.camera.writers.WRITERS`.

    Returns:
        What was written and what it means, one sentence.

    Raises:
        ValueError: If the format is unknown, the folder holds something, or a file of the world is damaged.
        OSError: If the files cannot be written; the folder is then as it was.
    """
    folder = Path(folder)
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}, got {format!r}")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"folder {folder} must be empty or new: choose another")
    cameras, fps = world.cameras, float(world.settings.fps)
    names = [f"frame_{n:05d}.png" for n in range(len(cameras))]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with disk.new_folder(folder) as aside:
        if format == "colmap":
            points, colours = _points(world, aside / "points.ply")
            about = save_trajectory(
                aside / "sparse" / "0", cameras, format, images=names, points=points, colours=colours, fps=fps
            )
        elif format == "nerfstudio":
            about = save_trajectory(aside, cameras, format, images=[f"images/{name}" for name in names], fps=fps)
        else:
            about = save_trajectory(
                aside / "cameras.txt" if format == "realestate10k" else aside, cameras, format, fps=fps
            )
        if format in ("colmap", "nerfstudio"):
            (aside / "images").mkdir()
            for number, chunk in enumerate(world.chunks):
                for name, frame in zip(names[chunk.start : chunk.stop], world.frames(number), strict=True):
                    Image.fromarray(frame).save(aside / "images" / name)
    return about.replace(str(aside), str(folder))


def _points(world: World, aside: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Places and colours of what is remembered, thinned evenly if they are very many."""
    export_memory(world, aside)
    data = aside.read_bytes()
    aside.unlink()
    found = np.frombuffer(data, VERTEX, offset=data.index(b"end_header\n") + 11)
    found = found[np.linspace(0, len(found) - 1, min(POINTS, len(found))).astype(int)]
    return torch.from_numpy(found["place"].copy()), torch.from_numpy(found["colour"].copy())
