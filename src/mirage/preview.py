"""What the memory of one picture will know along a path, and whether the path suits the scene; nothing is imagined."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.trajectory import Motion, measure_motion
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.movers import Segmenter
from mirage.memory import Memory
from mirage.pipeline import MiragePipeline
from mirage.video.io import tensor_to_images
from mirage.video.picture import shade_unseen

PERCENTILES = (5, 25, 50, 75, 95)
GOOD = 1 / 3  # of the median depth: how far from its start a path of good scale goes
STILL = 0.01  # of the median depth: a path that stays closer to its start only turns, and has no scale
FITTING = (0.05, 0.7)  # shares of the median depth between which a path is left as it is
KEEP_OFF = 0.9  # a camera nearer to an observed surface than this share of its depth runs into it
RULE = (
    f"rule: 1 if the farthest camera is {FITTING[0]:.0%} to {FITTING[1]:.0%} of the median depth away and none is in "
    f"or behind an observed surface, or if none is farther than {STILL:.0%}; else what brings the farthest to a third "
    "of the median depth, made smaller until none is in or behind a surface"
)


@dataclass(frozen=True, kw_only=True)
class PathInScene:
    """How a path lies in the scene of its picture; printing it says so."""

    depth: dict[int, float]
    """Percentiles of the picture's depth, in world units."""
    motion: Motion
    """How far the path goes."""
    blocked: tuple[int, ...]
    """Frames whose camera is in or behind a surface of the picture."""
    factor: float
    """What all distances of the path should be multiplied by; see `RULE`."""

    @property
    def warnings(self) -> list[str]:
        """What speaks against the path, one sentence each."""
        said = []
        if self.blocked:
            said.append(
                f"the camera passes into or behind surfaces of the picture in {len(self.blocked)} frames, first in "
                f"frame {self.blocked[0]}"
            )
        if self.motion.reach > FITTING[1] * self.depth[50]:
            said.append(
                f"the path goes {self.motion.reach:.2g} units away in a scene of median depth {self.depth[50]:.2g}"
            )
        return said

    def __str__(self) -> str:
        return (
            "  scene depth "
            + ", ".join(f"{value:.3g} (p{p})" for p, value in self.depth.items())
            + f" units; the farthest camera is {self.motion.reach:.3g} units away, "
            f"{self.motion.reach / self.depth[50]:.0%} of the median"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Preview:
    """What can be told of a path before anything is generated."""

    reads: UInt8[np.ndarray, "f h w 3"]
    """The decoded reads."""
    visible: Bool[np.ndarray, "f y x"]
    """The latent cells that the memory knows."""
    scene: PathInScene
    """How the path lies in the scene."""

    @property
    def frames(self) -> UInt8[np.ndarray, "f h w 3"]:
        """The decoded reads, what the memory does not know hatched."""
        return np.stack([shade_unseen(frame, seen) for frame, seen in zip(self.reads, self.visible, strict=True)])

    @property
    def coverage(self) -> list[float]:
        """Share of each frame that the memory knows."""
        return self.visible.mean((1, 2)).tolist()

    @property
    def warnings(self) -> list[str]:
        """What speaks against the path, one sentence each."""
        alone = sum(share < 0.02 for share in self.coverage)
        more = [f"{alone} of {len(self.visible)} frames show next to nothing of the picture"] if alone else []
        return self.scene.warnings + more


@torch.no_grad()
def preview(
    pipeline: MiragePipeline,
    image: UInt8[np.ndarray, "h w 3"],
    cameras: Cameras,
    *,
    depth: Float32[Tensor, "h w"] | None = None,
    estimator: DepthEstimator | str | None = None,
    movers: Segmenter | str | None = None,
) -> Preview:
    """Read the memory of the first view along the whole path.

    Args:
        pipeline: The model; its denoiser is not called.
        image: The first frame.
        cameras: One camera per frame; any number.
        depth: Known z-depth of the image, 0 = unknown.
        estimator: Depth where it is not known, as in `MiragePipeline`.
        movers: What may not be remembered, as in `MiragePipeline`.

    Returns:
        Pictures and figures.

    Raises:
        ValueError: If image, cameras or depth do not fit the model or each other.
    """
    memory = pipeline.begin(image, cameras[0], depth=depth, estimator=estimator, movers=movers).memory
    device = pipeline.device
    reads, visible = [], []
    for part in torch.arange(len(cameras)).split(32):
        known = memory.read(cameras[part].to(device))
        reads.append(tensor_to_images(pipeline.codec.decode(known.features[:, None])[:, 0]))
        visible.append(known.visible.cpu().numpy())
    scene = path_in_scene(memory, cameras.to(device))
    return Preview(reads=np.concatenate(reads), visible=np.concatenate(visible), scene=scene)


def path_in_scene(memory: Memory, cameras: Cameras) -> PathInScene:
    """Compare a path with what the memory knows of its first view.

    Args:
        memory: The memory of that view.
        cameras: The path, on the memory's device.

    Returns:
        The comparison.

    Raises:
        ValueError: If the depth of the view is nowhere known.
    """
    surface = memory.read(cameras[0]).depth[0].cpu()
    if not (surface > 0).any():
        raise ValueError("depth must be known in at least one cell of the image, got none")
    cameras = cameras.to("cpu")
    known = surface[surface > 0].numpy()
    return PathInScene(
        depth={p: float(np.percentile(known, p)) for p in PERCENTILES},
        motion=measure_motion(cameras),
        blocked=tuple(blocked(cameras.centers, cameras[0], surface).nonzero()[:, 0].tolist()),
        factor=good_factor(cameras.centers, cameras[0], surface),
    )


def blocked(centers: Float32[Tensor, "f 3"], camera: Cameras, surface: Float32[Tensor, "h w"]) -> Bool[Tensor, "f"]:
    """Which places lie in or behind what a view shows.

    Args:
        centers: Places, in world units.
        camera: The view.
        surface: Its z-depth, 0 = unknown.

    Returns:
        True for places inside the view that are nearly as deep as its surface there, or deeper.

    Example:
        A wall 2 units away: one place is before it, one behind it, one beside the view.

        >>> view = Cameras.from_fov(1.0, 2, 4)
        >>> blocked(torch.tensor([[0.0, 0, 1], [0, 0, 3], [9, 0, 3]]), view, torch.full((2, 4), 2.0)).tolist()
        [False, True, False]
    """
    h, w = surface.shape
    xy, depth = camera.resize(h, w).project(centers)
    (x, y), z = xy[0].unbind(-1), depth[0]
    inside = (z > 0) & (x >= 0) & (x < w) & (y >= 0) & (y < h)
    column, row = (torch.where(inside, place, 0.0).long() for place in (x, y))
    there = surface[row, column]
    return inside & (there > 0) & (z > KEEP_OFF * there)


def good_factor(centers: Float32[Tensor, "f 3"], camera: Cameras, surface: Float32[Tensor, "h w"]) -> float:
    """What the distances of a path should be multiplied by, by `RULE`.

    Args:
        centers: The camera centres of the path, the first that of `camera`.
        camera: The view of the picture.
        surface: Its z-depth, 0 = unknown.

    Returns:
        The factor, in two digits.

    Example:
        >>> view, wall = Cameras.from_fov(1.0, 2, 4), torch.full((2, 4), 3.0)
        >>> steps = torch.tensor([[0.0, 0, 0], [0, 0, 1]])
        >>> good_factor(steps, view, wall), good_factor(100 * steps, view, wall)
        (1.0, 0.01)
    """
    away = centers - centers[0]
    reach, median = away.norm(dim=-1).max().item(), surface[surface > 0].median().item()
    clear = lambda factor: not blocked(centers[0] + factor * away, camera, surface).any()
    if reach < STILL * median or (FITTING[0] <= reach / median <= FITTING[1] and clear(1.0)):
        return 1.0
    factor = GOOD * median / reach
    while not clear(factor) and factor * reach > 1e-3 * median:
        factor *= 0.8
    return float(f"{factor:.2g}")
