"""What is measured of frames: nearness, displacement, detail, which pixels were seen, and how sure a mean is."""

import functools
import importlib
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from mirage.camera.cameras import Cameras

CAP = 60.0  # dB of identical frames, so that means exist; one level off in every value is 48 dB
WINDOW = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
BACKBONE = "alexnet-owt-7be5be79.pth"  # what torchvision calls the weights under LPIPS
USED = {  # figure -> package, what computes it with which setting
    "psnr": ("PSNR, dB", "scikit-image", f"metrics.peak_signal_noise_ratio(data_range=255), at most {CAP:.0f} dB; the "
             "squared error is pooled over the pixels and frames that count"),
    "ssim": ("SSIM", "scikit-image", "metrics.structural_similarity(channel_axis=-1, data_range=255, "
             "gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True), the mean over the pixels that "
             "count"),
    "lpips": ("LPIPS", "torchmetrics", 'image.lpip.LearnedPerceptualImagePatchSimilarity(net_type="alex", '
              "normalize=False), whole frames, the mean over frames"),
    "flow": ("flow, px", "OpenCV", "DISOpticalFlow (PRESET_MEDIUM, finest scale 0, patch stride 2) on "
             "grey values"),
    "detail": ("detail", "numpy", "mean absolute difference of neighbouring pixels over that of the truth: 0 is a "
               "blank wall"),
}  # fmt: skip


def psnr(
    frames: UInt8[np.ndarray, "*b h w 3"],
    truth: UInt8[np.ndarray, "*b h w 3"],
    mask: Bool[np.ndarray, "*b h w"] | None = None,
) -> float:
    """Peak signal-to-noise ratio over all pixels of all frames together.

    The squared error is pooled over the masked pixels of all frames, then expressed in dB. Without any pixel there
    is no value.

    Equation:
        `min(60, 10 log10(255^2 / mean squared error))` by scikit-image: identical frames have 60 dB.

    Args:
        frames: Colour, 0 to 255.
        truth: What it should be, 0 to 255.
        mask: Pixels that count; all if None.

    Returns:
        Decibels; NaN if no pixel counts.

    Example:
        >>> black = np.zeros((2, 3, 3), np.uint8)
        >>> psnr(black, black), round(psnr(black, black + 1), 2)
        (60.0, 48.13)
    """
    if mask is not None:
        frames, truth = frames[mask], truth[mask]
    if frames.size == 0:
        return float("nan")
    if np.array_equal(frames, truth):
        return CAP
    return float(min(CAP, peak_signal_noise_ratio(truth, frames, data_range=255)))


def ssim(
    frame: UInt8[np.ndarray, "h w 3"],
    truth: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Structural similarity of two frames, averaged over pixels.

    As Wang et al. (2004) have it: Gaussian window of sigma 1.5, population statistics, on each colour channel.

    Args:
        frame: Colour, 0 to 255, at least 11 x 11 pixels.
        truth: What it should be, 0 to 255.
        mask: Pixels (centres of windows) that count; all if None.

    Returns:
        At most 1, which is the similarity of identical frames; NaN if no pixel counts.

    Example:
        >>> ramp = np.arange(12 * 13 * 3).reshape(12, 13, 3).astype(np.uint8)
        >>> ssim(ramp, ramp)
        1.0
    """
    each = ssim_map(frame, truth)
    each = each if mask is None else each[mask]
    return float(each.mean()) if each.size else float("nan")


def ssim_map(frame: UInt8[np.ndarray, "h w 3"], truth: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Structural similarity around each pixel, averaged over colours; see `ssim`.

    Args:
        frame: Colour, 0 to 255, at least 11 x 11 pixels.
        truth: What it should be, 0 to 255.

    Returns:
        At most 1.
    """
    _, each = structural_similarity(frame, truth, channel_axis=-1, data_range=255, full=True, **WINDOW)
    return each.mean(-1)


def lpips(frames: UInt8[np.ndarray, "f h w 3"], truth: UInt8[np.ndarray, "f h w 3"]) -> float:
    """Learned perceptual distance, averaged over frames; it knows of textures what PSNR does not.

    It needs the weights of an image classifier, which are not fetched without being asked for.

    Args:
        frames: Colour, 0 to 255, at least 32 x 32 pixels.
        truth: What it should be, 0 to 255.

    Returns:
        0 for identical frames; NaN without the weights, see `lpips_missing`.
    """
    if lpips_missing() or not len(frames):
        return float("nan")
    metric = _lpips_net()
    metric.reset()
    for i in range(0, len(frames), 8):
        pair = (torch.from_numpy(v[i : i + 8]).movedim(-1, 1).float() / 127.5 - 1 for v in (frames, truth))
        metric.update(*pair)
    return float(metric.compute())


@functools.cache
def lpips_missing() -> str:
    """Why there is no LPIPS here, and how to get it, in one sentence; empty if there is.

    Returns:
        A sentence or nothing.
    """
    weights = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError):
        return (
            "LPIPS is left out: it needs torchvision (the wheel that fits this torch, from PyTorch's index for CPU or "
            f"your CUDA) and the weights {BACKBONE}"
        )
    if not weights.is_file():
        return (
            f"LPIPS is left out: the weights of its network are not there; python -c 'import torchvision; "
            f'torchvision.models.alexnet(weights="DEFAULT")\' puts them at {weights}'
        )
    return ""


@functools.cache
def _lpips_net() -> torch.nn.Module:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=False)


def used(*names: str) -> list[tuple[str, str, str]]:
    """What computes some figures, for a report.

    Args:
        names: Keys of `USED`.

    Returns:
        Figure, library with its version, and exact setting; for LPIPS that is not there, how to get it.

    Example:
        >>> [figure for figure, library, setting in used("psnr", "ssim")]
        ['PSNR, dB', 'SSIM']
    """
    told = []
    for name in names:
        figure, package, setting = USED[name]
        number = cv2.__version__ if package == "OpenCV" else version(package)
        told.append((figure, f"{package} {number}", (name == "lpips" and lpips_missing()) or setting))
    return told


def flow(first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
    """Dense optical flow between two frames: how far each pixel has moved.

    Dense inverse search (Kroeger et al., 2016) of OpenCV on grey values: medium preset, but on the full resolution and
    with overlapping patches at every second pixel. Where both frames are flat, nothing moves.

    Convention:
        `second[y + flow_y, x + flow_x]` shows what `first[y, x]` shows; pixels, x to the right, y down.

    Args:
        first: Colour, 0 to 255.
        second: Colour, 0 to 255.

    Returns:
        Displacement (x, y) in pixels.

    Example:
        >>> still = np.zeros((20, 32, 3), np.uint8)
        >>> bool(flow(still, still).any())
        False
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchStride(2)
    grey = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (first, second)]
    return search.calc(*grey, None)


def detail(
    frames: UInt8[np.ndarray, "*b h w 3"],
    truth: UInt8[np.ndarray, "*b h w 3"],
    mask: Bool[np.ndarray, "*b h w"] | None = None,
) -> float:
    """How much the frames have in them, relative to the truth: 0 is a blank wall, 1 is as rich as the truth.

    PSNR and self-consistency reward blur and emptiness; this tells them from success.

    Equation:
        Mean absolute difference between neighbouring pixels (right and below) of `frames`, over that of `truth`.

    Args:
        frames: Colour, 0 to 255.
        truth: What it should be, 0 to 255.
        mask: Pixels that count; all if None.

    Returns:
        A ratio; NaN if no pixel counts or the truth is flat.

    Example:
        >>> stripes = np.tile(np.array([0, 100], np.uint8)[:, None], (4, 3, 3))
        >>> detail(stripes // 2, stripes)
        0.5
    """

    def edges(images: UInt8[np.ndarray, "*b h w 3"]) -> float:
        x = images.astype(np.float32)
        each = np.abs(np.diff(x, axis=-2))[..., :-1, :, :] + np.abs(np.diff(x, axis=-3))[..., :, :-1, :]
        each = each.mean(-1)
        return float(each.sum() if mask is None else each[mask[..., :-1, :-1]].sum())

    there = edges(truth)
    return edges(frames) / there if there > 0 else float("nan")


def seen_from(
    depth: Float32[Tensor, "v h w"],
    cameras: Cameras,
    first_depth: Float32[Tensor, "i j"],
    first_camera: Cameras,
    *,
    tolerance: float = 0.02,
) -> Bool[Tensor, "v h w"]:
    """Which pixels of each view show a surface that the first view shows too.

    Each pixel's true surface point is projected into the first view. It was seen if it falls inside that image and its
    depth there agrees with what the first view shows around that position.

    Convention:
        z-depth at pixel centres, all of it known: give sky a large finite depth. A point agrees with the four pixels
        around its position if its depth lies between their least and greatest, widened by `tolerance`.

    Args:
        depth: True depth of the views, in world units.
        cameras: Their cameras.
        first_depth: True depth of the first view, in world units.
        first_camera: Its camera.
        tolerance: Relative difference of depth that is still the same surface.

    Returns:
        True where the first view has seen it.

    Example:
        A wall 2 away; the second camera stands one unit, half an image, further right.

        >>> K = torch.tensor([[2.0, 0.0, 2.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]).expand(2, 3, 3)
        >>> pose = torch.eye(4).repeat(2, 1, 1)
        >>> pose[1, 0, 3] = -2.0
        >>> cameras, wall = Cameras(K, pose, 2, 4), torch.full((2, 2, 4), 2.0)
        >>> seen_from(wall, cameras, wall[0], cameras[0])[1, 0].tolist()
        [True, True, False, False]
    """
    xy, z = first_camera.project(cameras.unproject(depth).reshape(-1, 3))
    x, y = xy[0].unbind(-1)
    z = z[0]
    height, width = first_depth.shape
    inside = (z > 0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    left, top = (torch.where(inside, (v - 0.5).floor(), 0.0).long() for v in (x, y))
    around = torch.stack(
        [first_depth[(top + i).clamp(0, height - 1), (left + j).clamp(0, width - 1)] for i in (0, 1) for j in (0, 1)]
    )
    agrees = (z >= around.amin(0) * (1 - tolerance)) & (z <= around.amax(0) * (1 + tolerance))
    return (inside & agrees).view(depth.shape)


def bootstrap(
    values: Float[np.ndarray, "n"], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, float | int | None]:
    """Mean over worlds with its percentile bootstrap interval.

    Worlds are drawn with replacement; the interval holds the middle `level` of the means. NaN are left out first.

    Args:
        values: One value per world.
        resamples: Number of draws.
        level: Share of the means inside the interval.
        seed: Fixes the draws.

    Returns:
        `mean`, `low`, `high` and the number `n` of worlds; None for the three without any world.

    Example:
        >>> bootstrap(np.array([2.0, 2.0, np.nan]))
        {'mean': 2.0, 'low': 2.0, 'high': 2.0, 'n': 2}
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "low": None, "high": None, "n": 0}
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    tail = 50 * (1 - level)
    low, high = np.percentile(values[draws].mean(1), [tail, 100 - tail])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}
