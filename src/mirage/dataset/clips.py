"""One clip: frames cut and resized with their cameras, depth and movers on a coarse grid, latents, all in one world."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.rigid import rebase
from mirage.checkpoint.codecs import ModelCodec
from mirage.dataset.footage import Footage
from mirage.dataset.scale import fit_scale
from mirage.dataset.shards import LatentClip
from mirage.geometry.depth import DepthEstimator, fill_depth
from mirage.geometry.movers import Segmenter
from mirage.inputs import fit_depth, model_size
from mirage.video.io import fit_image, images_to_tensor

FINE = 4  # values of depth along the side of a latent cell
DEPTHS = ("auto", "known", "filled", "estimated")
UNITS = (1e-3, 1e4)  # world units between which the typical depth of a clip must be


@dataclass(frozen=True, kw_only=True, eq=False)
class Tools:
    """The models that make a clip."""

    model: ModelCodec
    estimator: DepthEstimator | None
    segmenter: Segmenter | None
    device: str


def size_of(footage: Footage, size: tuple[int, int] | None, model: ModelCodec) -> tuple[int, int]:
    """Height and width of a clip: as told, else of the model's area and the footage's shape."""
    return size or model_size(footage.cameras.height, footage.cameras.width, model.size, model.step)


@torch.no_grad()
def make_clip(
    footage: Footage, wanted: Sequence[int], name: str, size: tuple[int, int] | None, depth: str, tools: Tools
) -> LatentClip:
    """Make a clip of footage.

    Args:
        footage: Where it comes from.
        wanted: Numbers of its frames, 1 + a multiple of the autoencoder's temporal stride.
        name: What it is called.
        size: Height and width in pixels; None for the model's area in the footage's shape.
        depth: One of `DEPTHS`.
        tools: The models.

    Returns:
        The clip, on the CPU; its world is that of its first camera.

    Raises:
        ValueError: If a frame cannot be read, or its depth is neither known nor can be estimated.
    """
    codec, model = tools.model.codec, tools.model
    height, width = size_of(footage, size, model)
    raw = footage.frames(wanted)
    frames = images_to_tensor(np.stack([fit_image(frame, height, width) for frame in raw])).to(tools.device)
    kept = wanted[:: codec.temporal_stride]
    way = footage.cameras[list(wanted)].fit(height, width)[0]
    way = Cameras(way.intrinsics, rebase(way.cam_from_world), height, width)
    cameras = way[:: codec.temporal_stride]
    video = codec.encode(frames[None])[0]
    views = frames[:: codec.temporal_stride]
    image = torch.cat([codec.encode(view[None, None])[0] for view in views])
    fine = (video.shape[2] * FINE, video.shape[3] * FINE)
    picture = torch.from_numpy(np.stack([fit_image(frame, *fine) for frame in raw[:: codec.temporal_stride]]))

    use_known = depth == "known" or (depth != "estimated" and footage.has_depth)
    if use_known and not footage.has_depth:
        raise ValueError("its depth is not known: give --depth auto and a --depth-model")
    z = _known_depth(footage, kept, height, width, fine) if use_known else None
    if z is None or depth == "filled":
        guess = _estimated(tools, views, image, cameras, fine)
        if z is None and not footage.metric:
            factor = fit_scale(picture.movedim(-1, 1), guess, cameras)
            way = Cameras(way.intrinsics, _stretched(way.cam_from_world, factor), height, width)
            cameras = way[:: codec.temporal_stride]
        z = (
            guess
            if z is None
            else torch.stack([fill_depth(k[None], g[None])[0] for k, g in zip(z, guess, strict=True)])
        )
    typical = float(z[z > 0].median()) if bool((z > 0).any()) else 0.0
    if not UNITS[0] <= typical <= UNITS[1]:
        how = f"is typically {typical:.3g} world units: give --depth-scale" if typical else "is known nowhere"
        raise ValueError(f"its depth {how}")
    return LatentClip(
        name=name,
        caption=footage.caption,
        video=video.float().cpu(),
        image=image.float().cpu(),
        depth=z,
        keep=_keep(footage, kept, tools, views, fine),
        cameras=cameras,
        picture=picture.movedim(-1, 1).contiguous(),
        way=way if len(video) > 1 else None,
    )


def _known_depth(
    footage: Footage, kept: Sequence[int], height: int, width: int, fine: tuple[int, int]
) -> Float32[Tensor, "t y x"]:
    maps = []
    for found in footage.depth(kept):
        _check_shape(found, footage, "depth maps")
        maps.append(fit_depth(torch.from_numpy(np.ascontiguousarray(found)), height, width))
    return coarse_depth(torch.stack(maps), *fine)


def _estimated(
    tools: Tools, views: Tensor, image: Tensor, cameras: Cameras, fine: tuple[int, int]
) -> Float32[Tensor, "t y x"]:
    if tools.estimator is None:
        raise ValueError("its depth is not known and its model has no depth of its own: give --depth-model")
    found = tools.estimator.estimate(views, image, cameras.to(tools.device)).float().cpu()
    if found.shape[1] > fine[0]:
        whole = math.lcm(found.shape[1], fine[0]), math.lcm(found.shape[2], fine[1])
        return coarse_depth(F.interpolate(found[None], whole, mode="nearest-exact")[0], *fine)
    smooth = {"mode": "bilinear", "align_corners": False} if bool((found > 0).all()) else {"mode": "nearest-exact"}
    return F.interpolate(found[None], fine, **smooth)[0]


def _keep(
    footage: Footage, kept: Sequence[int], tools: Tools, views: Tensor, fine: tuple[int, int]
) -> Bool[Tensor, "t y x"]:
    keep = torch.ones(len(kept), *fine, dtype=torch.bool)
    if (masks := footage.movers(kept)) is not None:
        for i, mask in enumerate(masks):
            _check_shape(mask, footage, "masks of movers")
            moving = fit_depth(torch.from_numpy(np.ascontiguousarray(mask)).float(), *views.shape[2:])
            keep[i] = F.adaptive_max_pool2d(moving[None], fine)[0] == 0
    if tools.segmenter is not None:
        seen = tools.segmenter.keep(views).cpu()
        keep &= F.adaptive_max_pool2d((~seen).float(), fine) == 0
    return keep


def _check_shape(found: np.ndarray, footage: Footage, what: str) -> None:
    height, width = footage.cameras.height, footage.cameras.width
    if abs(math.log(found.shape[1] * height / (found.shape[0] * width))) > 0.02:
        raise ValueError(
            f"{what} must be of the shape of the frames, {height} x {width}, got {found.shape[0]} x {found.shape[1]}"
        )


def _stretched(cam_from_world: Float32[Tensor, "t 4 4"], factor: float) -> Float32[Tensor, "t 4 4"]:
    pose = cam_from_world.clone()
    pose[:, :3, 3] *= factor
    return pose


def coarse_depth(depth: Float32[Tensor, "t H W"], height: int, width: int) -> Float32[Tensor, "t {height} {width}"]:
    """Median of the known depths of each block of pixels, a depth that is there; 0 where half of them are unknown.

    Args:
        depth: z-depth, 0 = unknown.
        height: Rows of the result, a divisor of those of `depth`.
        width: Columns of the result, likewise.

    Returns:
        z-depth, 0 = unknown.

    Example:
        >>> coarse_depth(torch.tensor([[[1.0, 2.0, 4.0, 0.0], [9.0, 2.0, 0.0, 0.0]]]), 1, 2).tolist()
        [[[2.0, 0.0]]]
    """
    rows, columns = depth.shape[1] // height, depth.shape[2] // width
    blocks = depth.reshape(len(depth), height, rows, width, columns).transpose(2, 3).flatten(3)
    known = blocks > 0
    count = known.sum(-1, keepdim=True)
    ordered = blocks.masked_fill(~known, torch.inf).sort(-1)[0]
    middle = ordered.gather(-1, ((count - 1).clamp(min=0)) // 2)
    return torch.where(2 * count > blocks.shape[-1], middle, 0.0)[..., 0]
