"""A latent memory as a cloud of coloured points that other programs open (PLY)."""

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int8, Int64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory.holes import fill_holes
from mirage.memory.latent_memory import LatentMemory
from mirage.memory.store import REACH_STEP, Surfels
from mirage.video.codec import LatentCodec
from mirage.video.io import atomic, tensor_to_images

VERTEX = np.dtype([("place", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 3)])
HEADER = """ply
format binary_little_endian 1.0
comment made by Mirage; world units, OpenCV axes of the first camera: x right, y down, z forward
element vertex {count}
property float x
property float y
property float z
property float nx
property float ny
property float nz
property uchar red
property uchar green
property uchar blue
end_header
"""


def export_ply(
    memory: LatentMemory, codec: LatentCodec, path: str | os.PathLike, *, pixels: bool = False, batch: int = 8
) -> int:
    """Write what a memory holds as points with normals and colours.

    Each source view is decoded once: its own latents, and around them what the memory shows there, so that the decoder
    sees no holes where another view was kept. Colours are those of the image path of the codec.

    Convention:
        Binary little-endian PLY: float x y z nx ny nz, uchar red green blue. Normals face the camera that saw them.

    Args:
        memory: What is remembered.
        codec: The autoencoder that its latents come from, on the same device.
        path: The file; its folder is made if it is missing.
        pixels: One point for each pixel of a cell instead of one in its middle.
        batch: Source views decoded at once.

    Returns:
        The number of points.

    Raises:
        ValueError: If stride or channels of memory and codec differ, or an argument is malformed.
        OSError: In one sentence, if the file cannot be written.
    """
    if not isinstance(memory, LatentMemory):
        raise ValueError(f"memory must be a LatentMemory, got {type(memory).__name__}")
    if not isinstance(codec, LatentCodec):
        raise ValueError(f"codec must be a LatentCodec, got {type(codec).__name__}: derive yours from it")
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be the path of a file, got {path!r}")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be a positive whole number, got {batch!r}")
    channels = memory.surfels.features.shape[1]
    if (memory.stride, channels) != (codec.stride, codec.channels):
        raise ValueError(
            f"codec must be of stride {memory.stride} and {channels} channels like the memory, got stride "
            f"{codec.stride} and {codec.channels} channels"
        )
    steps = memory.stride if pixels else 1
    columns, rows = reached(memory.surfels.reach, steps)
    count = int((columns.sum(1) * rows.sum(1)).sum())
    with atomic(path) as aside, aside.open("wb") as file:
        file.write(HEADER.format(count=count).encode())
        for elements, colours in _decoded(memory, codec, steps, batch):
            shown = rows[elements][:, :, None] & columns[elements][:, None]
            place, normal = surface_points(memory.surfels, elements, steps)
            vertices = np.empty(int(shown.sum()), VERTEX)
            for name, value in (("place", place[shown]), ("normal", normal[shown]), ("colour", colours[shown.cpu()])):
                vertices[name] = value.cpu().numpy()
            file.write(vertices.tobytes())
    return count


@torch.no_grad()
def _decoded(memory: LatentMemory, codec: LatentCodec, steps: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The elements of a few source views at a time, and the colours (m, steps, steps, 3) of their points."""
    surfels = replace(memory.surfels)  # a passing copy, whose table of cells is not kept
    lookup, (height, width) = surfels.lookup, surfels.grid
    for start in range(0, len(surfels.name), batch):
        views = slice(start, start + batch)
        element = lookup[views].long()
        own = element >= 0
        cameras = Cameras(surfels.intrinsics[views], surfels.cam_from_world[views], height, width)
        hits = surfels.render(cameras)
        latents = surfels.sample(hits).float().movedim(1, -1).contiguous()
        latents[own] = surfels.features[element[own]].float()
        latents = fill_holes(latents.movedim(-1, 1), own | (hits.index >= 0))
        frames = codec.decode(latents[:, None])[:, 0].float()
        frames = torch.nn.functional.interpolate(frames, (height * steps, width * steps), mode="bilinear")
        cells = torch.from_numpy(tensor_to_images(frames)).view(len(own), height, steps, width, steps, 3)
        yield element[own], cells.transpose(2, 3)[own.cpu()]


def _middles(steps: int, device: torch.device) -> Float32[Tensor, " k"]:
    """Where the points of a cell lie along an axis, from its centre, in cells."""
    return (torch.arange(steps, device=device) + 0.5) / steps - 0.5


def reached(reach: Int8[Tensor, "n 4"], steps: int) -> tuple[Bool[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """Columns and rows of points in each cell that lie on its surface."""
    left, right, top, bottom = (reach * REACH_STEP)[..., None].unbind(1)
    place = _middles(steps, reach.device)
    return (place >= -left) & (place <= right), (place >= -top) & (place <= bottom)


def surface_points(
    surfels: Surfels, elements: Int64[Tensor, " m"], steps: int
) -> tuple[Float32[Tensor, "m k k 3"], Float32[Tensor, "m k k 3"]]:
    """World positions of the points of some elements, row by row, and their normals.

    Equation:
        A plane of inverse depth 1 / z = m . [u, v, 1] is (K^T m) . x = 1 in the camera: its normal is -K^T m.
    """
    source = surfels.source[elements].long()
    k, pose = surfels.intrinsics[source].double(), surfels.cam_from_world[source].double()
    inverse, slope_x, slope_y = surfels.plane[elements].double().unbind(-1)
    u, v = surfels.center[elements].double().unbind(-1)
    m = torch.stack([slope_x, slope_y, inverse - slope_x * u - slope_y * v], -1)
    y, x = torch.meshgrid(*[_middles(steps, source.device)] * 2, indexing="ij")
    image = torch.stack([u[:, None, None] + x, v[:, None, None] + y, torch.ones(len(u), *x.shape).to(u)], -1)
    rays = torch.einsum("mij,mrcj->mrci", torch.linalg.inv(k), image)
    cam = rays / torch.einsum("mrci,mi->mrc", image, m)[..., None] - pose[:, None, None, :3, 3]
    place = torch.einsum("mji,mrcj->mrci", pose[:, :3, :3], cam)
    normal = torch.nn.functional.normalize(-torch.einsum("mji,mj->mi", k @ pose[:, :3, :3], m), dim=-1)
    return place.float(), normal.float()[:, None, None].expand(place.shape)
