"""Metric depth by any model of transformers that gives metres."""

from pathlib import Path

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from transformers import AutoModelForDepthEstimation

from mirage.camera.cameras import Cameras
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.foreign import Preparation, load_strictly, read_settings, settle

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
KINDS = {  # what holds where a model's own files say nothing
    "depth_anything": Preparation(size=(518, 518), multiple=14),
    "zoedepth": Preparation(size=(384, 512), multiple=32, pad=True, **HALF),
    "depth_pro": Preparation(size=(1536, 1536), keep_aspect=False, **HALF),
    "glpn": Preparation(multiple=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}


class MetricDepth(DepthEstimator):
    """Depth in metres, one frame at a time: Depth Anything V2 (metric), ZoeDepth, Depth Pro, GLPN.

    Depth Pro is told the camera's focal length; the others guess it from the picture, and are right in metres only
    for fields of view like those they were trained on. The memory brings them to its own scale.

    Args:
        model: A depth model of transformers.
        preparation: How pictures become its input.
    """

    def __init__(self, model: torch.nn.Module, preparation: Preparation):
        self.model, self.preparation = model.eval(), preparation

    @classmethod
    def load(cls, folder: str | Path, *, dtype: torch.dtype | None = None) -> "MetricDepth":
        """Load a model from its folder; a model that gives no metres is refused.

        Args:
            folder: As transformers saves it.
            dtype: Of the weights; float32 if None. In bfloat16 depth comes in steps of 0.4 %.

        Returns:
            The estimator, on the CPU.

        Raises:
            ValueError: If the model is of another kind or damaged.
        """
        told = read_settings(folder, "depth model")
        kind = told.get("model_type")
        if kind not in KINDS:
            raise ValueError(f"depth model must give metres and be one of {', '.join(KINDS)}, got {kind!r} in {folder}")
        if kind == "depth_anything" and told.get("depth_estimation_type", "relative") != "metric":
            raise ValueError(
                f"depth model must give metres, got a relative one in {folder}: take one of "
                "depth-anything/Depth-Anything-V2-Metric-Indoor-* or -Outdoor-*"
            )
        model = load_strictly(AutoModelForDepthEstimation, folder, "depth model", dtype)
        return cls(model, KINDS[kind].told_by(Path(folder)))

    def to(self, device: torch.device | str) -> "MetricDepth":
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
        maps = []
        for frame in frames.split(1):  # the result of a frame depends on no other, and memory is bounded
            pixels = self.preparation.pixels(frame).to(self.model.device, self.model.dtype)
            said = self.model(pixel_values=pixels).predicted_depth.float()
            maps.append(self.preparation.maps(said, *frame.shape[2:]).to(frames.device))
        depth = torch.cat(maps)
        if self.model.config.model_type == "depth_pro":  # it gives the inverse depth of a camera of focal length 1
            focal = cameras.intrinsics[:, 0, 0].to(depth) / cameras.width
            depth = focal[:, None, None] / depth.clamp(min=1e-4)
        return settle(depth, latents, prior=prior)
