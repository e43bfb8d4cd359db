"""A walk through an exact world, written the ways in which footage comes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mirage.camera import Cameras, save_trajectory
from mirage.scenes import Worlds, render, sample_path
from mirage.video.io import write_video


class Walk(NamedTuple):
    """What is true."""

    frames: np.ndarray
    depth: np.ndarray
    cameras: Cameras


def make_walk() -> Walk:
    """25 frames of 60 x 84 in a room without sky and without movers."""
    world = Worlds.sample([6], "room", movers=0)
    cameras = sample_path(world, 6, 25, kind="walk", height=60, width=84)
    seen = render(world, cameras, supersample=1)
    frames = ((seen.colour[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return Walk(frames, seen.depth[0].float().numpy(), cameras)


def write_pictures(folder: Path, frames: np.ndarray, names: list[str] | None = None) -> Path:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{names[i] if names else f'{i:05}'}.png")
    return folder


def write_rgbd(folder: Path, walk: Walk, *, frames: int = 25) -> Path:
    """The layout of RGB-D folders: pictures, depth in millimetres, cameras.npz with pixel centres at integers."""
    write_pictures(folder / "rgb", walk.frames[:frames])
    write_pictures(folder / "depth", (walk.depth[:frames] * 1000).round().clip(0, 65535).astype(np.uint16))
    k = walk.cameras.intrinsics[0].double().numpy().copy()
    k[:2, 2] -= 0.5
    w2c = walk.cameras.cam_from_world[:frames].double().numpy()
    np.savez(folder / "cameras.npz", w2c=w2c, c2w=np.linalg.inv(w2c), K=k, depth_scale=1000.0)
    return folder


def write_nerfstudio(path: Path, cameras: Cameras) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_trajectory(path, cameras, "nerfstudio")
    return path


def write_clip(path: Path, frames: np.ndarray, fps: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, fps=fps, crf=4)
    return path


def write_list(
    path: Path, cameras: Cameras, *, url: str = "https://www.youtube.com/watch?v=abcdefghijk", start=0.0, fps=8
):
    """A camera file of RealEstate10K: intrinsics divided by the size, times in microseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [url]
    for i, (k, pose) in enumerate(zip(cameras.intrinsics, cameras.cam_from_world, strict=True)):
        lens = [k[0, 0] / cameras.width, k[1, 1] / cameras.height, k[0, 2] / cameras.width, k[1, 2] / cameras.height]
        numbers = [*map(float, lens), 0.0, 0.0, *pose[:3].flatten().tolist()]
        lines.append(" ".join([str(round((start + i / fps) * 1e6)), *(f"{n:.9f}" for n in numbers)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def same_path(cameras: Cameras, truth: Cameras) -> bool:
    """Whether two paths are one path, in a world of the first camera."""
    rebased = truth.cam_from_world @ truth.world_from_cam[:1]
    off = (cameras.cam_from_world @ cameras.world_from_cam[:1] - rebased).abs().max()
    return bool(off < 1e-4) and torch.allclose(cameras.intrinsics, truth.intrinsics, rtol=1e-4, atol=2e-3)
