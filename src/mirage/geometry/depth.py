"""How far things are: one abstract method, and depth that is known."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from mirage.camera.cameras import Cameras


class DepthEstimator(ABC):
    """Depth of frames that were seen or made; a foreign model is one subclass in one file."""

    @abstractmethod
    def estimate(
        self,
        frames: Float[Tensor, "v 3 H W"],
        latents: Float[Tensor, "v c h w"],
        cameras: Cameras,
        prior: Float32[Tensor, "v h w"] | None = None,
    ) -> Float32[Tensor, "v y x"]:
        """z-depth of each frame on a grid that is a whole multiple of the latents'; 0 where it is unknown.

        Args:
            frames: Colour in [-1, 1].
            latents: Image latents of the same frames, normalised.
            cameras: Their cameras; only intrinsics may matter.
            prior: Depth that the memory projects into the cells, in world units, 0 where it has none.

        Returns:
            Depth in the estimator's own unit, which the memory aligns with what it knows.
        """

    def to(self, device: torch.device | str) -> "DepthEstimator":
        """Move the estimator's own model; one that has none, or whose model moves with the pipeline, stays as it is.

        Args:
            device: Where it shall compute.

        Returns:
            The estimator there.
        """
        return self


class KnownDepth(DepthEstimator):
    """Depth that was measured or rendered, for the views it was given for and no others."""

    def __init__(self, depth: Float32[Tensor, "v H W"]):
        if depth.isnan().any() or depth.isinf().any() or (depth < 0).any():
            raise ValueError("depth must be finite and not negative (0 = unknown), got " + _first_bad(depth))
        self.depth = depth

    def to(self, device: torch.device | str) -> "KnownDepth":
        return KnownDepth(self.depth.to(device))

    def estimate(
        self,
        frames: Float[Tensor, "v 3 H W"],
        latents: Float[Tensor, "v c h w"],
        cameras: Cameras,
        prior: Float32[Tensor, "v h w"] | None = None,
    ) -> Float32[Tensor, "v y x"]:
        if len(frames) != len(self.depth):
            raise ValueError(f"depth is known for {len(self.depth)} views, asked for {len(frames)}")
        return self.depth


def _first_bad(depth: Tensor) -> str:
    bad = depth[~(depth >= 0) | depth.isinf()]
    return f"{bad[0].item()} among {bad.numel()} such values"


def fill_depth(known: Float32[Tensor, "v H W"], guess: Float32[Tensor, "v y x"]) -> Float32[Tensor, "v H W"]:
    """Complete measured depth with estimated depth, brought to its scale.

    Sensors have holes, and a cell of unknown depth could not be remembered though the picture shows it.

    Args:
        known: Measured z-depth in world units, 0 where there is none.
        guess: Estimated depth of the same views in any unit, on any grid.

    Returns:
        `known` where there is any; elsewhere the estimate, times the median ratio of the two where both are; all
        `known` if nothing is known.

    Example:
        >>> import torch
        >>> known = torch.tensor([[[2.0, 4.0], [0.0, 2.0]]])
        >>> fill_depth(known, torch.ones(1, 1, 1)).tolist()
        [[[2.0, 4.0], [2.0, 2.0]]]
    """
    near = F.interpolate(guess[None], known.shape[1:], mode="bilinear", align_corners=False)[0]
    both = (known > 0) & (near > 0)
    if not bool(both.any()):
        return known
    return torch.where(known > 0, known, near * (known[both] / near[both]).median())
