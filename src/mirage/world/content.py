"""What the files of a chunk hold: tensors as safetensors, the picture as PNG, frames as mp4 without any loss."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import av
import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory import LatentMemory, LatentMover
from mirage.memory.memory import check_cameras
from mirage.world.manifest import ChunkMark, ModelMark, Settings

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, kw_only=True)
class ChunkTensors:
    """What the next chunk may depend on."""

    latents: Float[Tensor, "t c y x"]
    """As they were imagined, the shared one first."""
    clean: Float[Tensor, "v c y x"]
    """Of the remembered frames, each encoded as an image."""
    depth: Float32[Tensor, "v i j"]
    """Of the remembered frames."""
    cameras: Cameras
    """Of all new frames."""


def encode_tensors(tensors: ChunkTensors) -> bytes:
    """A safetensors file of them."""
    return safetensors.torch.save(
        {
            "latents": _plain(tensors.latents),
            "clean": _plain(tensors.clean),
            "depth": _plain(tensors.depth),
        }
        | _camera_tensors(tensors.cameras)
    )


def decode_tensors(data: bytes, chunk: ChunkMark, model: ModelMark, settings: Settings) -> ChunkTensors:
    """What `encode_tensors` wrote, if it fits the chunk."""
    found = _load(data, {"latents", "clean", "depth", "intrinsics", "cam_from_world"})
    views = max(1, len(chunk) // model.temporal_stride)
    cells = (model.channels, settings.height // model.stride, settings.width // model.stride)
    for name, count in (("latents", views + (chunk.start > 0)), ("clean", views)):
        _expect(name, found[name], (count, *cells), FLOATS)
    depth = found["depth"]
    _expect("depth", depth, (views, *depth.shape[1:]) if depth.ndim == 3 else (views, 0, 0), (torch.float32,))
    if not depth.numel() or depth.shape[1] % cells[1] or depth.shape[2] % cells[2] or (depth < 0).any():
        raise ValueError(f"depth must not be negative and a whole multiple of the latents, got {tuple(depth.shape)}")
    cameras = _cameras(found, len(chunk), settings)
    return ChunkTensors(latents=found["latents"], clean=found["clean"], depth=depth, cameras=cameras)


def encode_cameras(cameras: Cameras) -> bytes:
    """A safetensors file of cameras."""
    return safetensors.torch.save(_camera_tensors(cameras))


def decode_cameras(data: bytes, count: int, settings: Settings) -> Cameras:
    """What `encode_cameras` wrote, if it fits the world."""
    return _cameras(_load(data, {"intrinsics", "cam_from_world"}), count, settings)


def encode_picture(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def decode_picture(data: bytes, settings: Settings) -> UInt8[np.ndarray, "h w 3"]:
    """What `encode_picture` wrote, if it fits the world."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (settings.width, settings.height) or image.mode != "RGB":
                raise ValueError(f"must be {settings.width} x {settings.height} RGB, got {image.size} {image.mode}")
            return np.asarray(image)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"is no PNG ({error})") from None


def encode_frames(frames: UInt8[np.ndarray, "f h w 3"], fps: int) -> bytes:
    """An mp4 that gives back every frame bit for bit (H.264 in RGB, quantiser 0)."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0", "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def decode_frames(data: bytes, count: int, settings: Settings) -> UInt8[np.ndarray, "f h w 3"]:
    """What `encode_frames` wrote, if it fits the chunk; no more is decoded than that."""
    frames = []
    try:
        with av.open(io.BytesIO(data), format="mp4") as container:
            for frame in container.decode(video=0):
                if (frame.height, frame.width) != (settings.height, settings.width) or len(frames) == count:
                    raise ValueError(f"must be {count} frames of {settings.height} x {settings.width}")
                frames.append(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError, MemoryError) as error:
        raise ValueError(f"is no video ({error})") from None
    if len(frames) != count:
        raise ValueError(f"must be {count} frames of {settings.height} x {settings.width}, got {len(frames)}")
    return np.stack(frames)


def load_memory(
    path: str | os.PathLike, model: ModelMark, device: torch.device, mover: LatentMover | None = None
) -> LatentMemory:
    """A memory that does not depend on its file any more: results must not depend on how a file lies in memory."""
    memory = LatentMemory.load(path, stride=model.stride, channels=model.channels, device=device, mover=mover)
    memory.surfels = replace(memory.surfels, **{name: t.clone() for name, t in memory.surfels.tensors.items()})
    return memory


def _camera_tensors(cameras: Cameras) -> dict[str, Tensor]:
    return {"intrinsics": _plain(cameras.intrinsics), "cam_from_world": _plain(cameras.cam_from_world)}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()  # no two names of one piece of memory


def _load(data: bytes, names: set[str]) -> dict[str, Tensor]:
    try:
        found = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"is no readable safetensors file ({error})") from None
    if set(found) != names:
        raise ValueError(f"must hold {sorted(names)}, got {sorted(found)!s:.200}")
    return {name: tensor.clone() for name, tensor in found.items()}


def _cameras(found: Mapping[str, Tensor], count: int, settings: Settings) -> Cameras:
    _expect("intrinsics", found["intrinsics"], (count, 3, 3), (torch.float32,))
    _expect("cam_from_world", found["cam_from_world"], (count, 4, 4), (torch.float32,))
    cameras = Cameras(found["intrinsics"], found["cam_from_world"], settings.height, settings.width)
    check_cameras(cameras)
    return cameras


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], kinds: tuple[torch.dtype, ...]) -> None:
    if tensor.dtype not in kinds or tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {shape} of {kinds[0]}, got {tuple(tensor.shape)} of {tensor.dtype}")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")


def begins(path: Cameras, first: Cameras) -> bool:
    """Whether a path begins with certain cameras, bit for bit.

    Args:
        path: The path.
        first: The cameras.

    Returns:
        Whether it does.
    """
    part = path[: len(first)]
    return len(part) == len(first) and all(
        torch.equal(getattr(part, name), getattr(first, name)) for name in ("intrinsics", "cam_from_world")
    )
