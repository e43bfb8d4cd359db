"""Metric depth by MapAnything, where its package is installed.

Written after the package's public documentation and source (views of normalised pictures and intrinsics in, `depth_z`
in metres and `mask` out). The package is on no registry: this file has never met it, only its absence is tested.
"""

import importlib.util
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from mirage.camera.cameras import Cameras
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.foreign import Preparation, loading, settle

INSTALL = "pip install git+https://github.com/facebookresearch/map-anything"
PREPARATION = Preparation(longest=518, multiple=14)


def check_installed() -> None:
    """Refuse to go on without the package.

    Raises:
        ValueError: If it is not there.
    """
    if importlib.util.find_spec("mapanything") is None:
        raise ValueError(f"MapAnything needs its package: {INSTALL}")


class MapAnythingDepth(DepthEstimator):
    """MapAnything, one frame at a time with its intrinsics; what it finds ambiguous, as the sky, is unknown.

    Poses are not given: the model takes them in metres, and the unit of a world need not be one.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval()

    @classmethod
    def load(cls, folder: str | Path, *, dtype: torch.dtype | None = None) -> "MapAnythingDepth":
        """Load a model as its authors publish it.

        Args:
            folder: Where it lies.
            dtype: Left to the package, which computes in bfloat16 on a GPU.

        Returns:
            The estimator, on the CPU.

        Raises:
            ValueError: If the package is missing or the model is damaged.
        """
        check_installed()
        from mapanything.models import MapAnything

        with loading("depth model", folder):
            return cls(MapAnything.from_pretrained(str(folder)))

    def to(self, device: torch.device | str) -> "MapAnythingDepth":
        """Move the model."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def estimate(
        self,
        frames: Float[Tensor, "v 3 H W"],
        latents: Float[Tensor, "v c h w"],
        cameras: Cameras,
        prior: Float32[Tensor, "v h w"] | None = None,
    ) -> Float32[Tensor, "v y x"]:
        device = next(self.model.parameters()).device
        maps = []
        for index, frame in enumerate(frames.split(1)):
            pixels = PREPARATION.pixels(frame).to(device)
            seen = cameras[index].to(device).resize(*pixels.shape[2:])
            view = {"img": pixels, "data_norm_type": ["dinov2"], "intrinsics": seen.intrinsics}
            said = self.model.infer([view], use_amp=device.type == "cuda", apply_mask=True, mask_edges=False)[0]
            maps.append((said["depth_z"] * said["mask"])[..., 0].float().to(frames.device))
        return settle(torch.cat(maps), latents, prior=prior)
