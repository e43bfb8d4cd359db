"""Depth by Depth Anything 3, through its package `depth_anything_3`: metric, nested, or several views at once."""

import contextlib
import importlib.util
import logging
import warnings
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float32
from safetensors.torch import load_file
from torch import Tensor, nn

from mirage.camera.cameras import Cameras
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.foreign import Preparation, loading, read_settings, settle

INSTALL = "pip install 'mirage-world[depth-anything]' && pip install --no-deps depth-anything-3"
PREPARATION = Preparation(longest=504, multiple=14)
FOCAL = 300.0  # the metric model gives depth for this focal length in pixels of its input
SKY = 0.3  # of the model's sky map
log = logging.getLogger(__name__)


def check_installed() -> None:
    """Refuse to go on without the package.

    Raises:
        ValueError: If it is not there.
    """
    if missing := [name for name in ("depth_anything_3", "omegaconf", "addict", "einops") if not _there(name)]:
        raise ValueError(f"Depth Anything 3 needs {', '.join(missing)}: {INSTALL}")


def _there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class DepthAnything3(DepthEstimator):
    """Depth Anything 3 with our cameras.

    The metric model sees one frame at a time and gives metres by the camera's focal length. The models for any views
    see all frames of a chunk at once, with their intrinsics and poses; their depth is brought to the unit of the poses
    where the camera moves. Of a single view they give no metres: the first depth then sets the unit of the world. The
    nested model does both and gives metres.

    Equation:
        Metric: depth = output * focal / 300, the focal length that of the resized picture. Any views: poses are
        relative to the first and divided by the median distance of the others from it, and depth is multiplied by the
        factor that brings the model's camera centres onto those given, in least squares. The package's own code keeps
        that distance above 0.1 of whatever unit; here the result does not depend on the unit.

    Args:
        net: The network.
        name: Of its kind, as the package calls it: "da3metric-large", "da3-small", ...
        preparation: How pictures become its input.
        dtype: In which the transformer computes; the heads and the weights stay in float32.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        *,
        preparation: Preparation = PREPARATION,
        dtype: torch.dtype = torch.float32,
    ):
        if "mono" in name:
            raise ValueError(f"depth model must give metres or take poses, got {name}: take da3metric-large")
        self.net, self.name, self.preparation, self.dtype = net.eval(), name, preparation, dtype

    @classmethod
    def load(cls, folder: str | Path, *, dtype: torch.dtype | None = None) -> "DepthAnything3":
        """Load a model as its authors publish it: a config.json that names its kind, and safetensors.

        What the package builds is chosen by that name among its own settings; settings in the folder, which could
        name code to run, are not followed.

        Args:
            folder: Where it lies.
            dtype: In which the transformer computes; float32 if None.

        Returns:
            The estimator, on the CPU.

        Raises:
            ValueError: If the package is missing, or the model is of another kind or damaged.
        """
        check_installed()
        name = read_settings(folder, "depth model").get("model_name")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its imports warn of what they themselves use
            from depth_anything_3.cfg import create_object, load_config
            from depth_anything_3.registry import MODEL_REGISTRY
            from depth_anything_3.utils.logger import logger as chatter

        chatter.level = min(chatter.level, 1)  # it would print with each call
        if name not in MODEL_REGISTRY:
            raise ValueError(f"depth model must be one of {', '.join(MODEL_REGISTRY)}, got {name!r} in {folder}")
        files = sorted(Path(folder).glob("*.safetensors"))
        if not files:
            raise ValueError(f"depth model must have its weights as safetensors, got none in {folder}")
        with loading("depth model", folder):
            weights = {key.removeprefix("model."): value for file in files for key, value in load_file(file).items()}
            with torch.random.fork_rng(devices=[]):
                net = create_object(load_config(MODEL_REGISTRY[name]))
            told = net.load_state_dict(weights, strict=False)
            own = net.state_dict()
            loaded = {own[key].data_ptr() for key in weights.keys() & own.keys()}
            missing = [key for key in told.missing_keys if own[key].data_ptr() not in loaded]  # shared ones are there
            if missing:
                raise ValueError(f"{len(missing)} weights of {name} are missing: {', '.join(missing[:5])}")
        if told.unexpected_keys:
            log.warning("%d weights of %s have no use in %s", len(told.unexpected_keys), folder, name)
        if not cls(net, name).metric:
            log.warning("%s gives no metres of a single view: the first depth sets the unit of the world", name)
        return cls(net, name, dtype=dtype or torch.float32)

    @property
    def metric(self) -> bool:
        """Whether a single view is given in metres."""
        return "metric" in self.name or "nested" in self.name

    def to(self, device: torch.device | str) -> "DepthAnything3":
        """Move the network."""
        self.net.to(device)
        return self

    @torch.no_grad()
    def estimate(
        self,
        frames: Float[Tensor, "v 3 H W"],
        latents: Float[Tensor, "v c h w"],
        cameras: Cameras,
        prior: Float32[Tensor, "v h w"] | None = None,
    ) -> Float32[Tensor, "v y x"]:
        device = next(self.net.parameters()).device
        pixels = self.preparation.pixels(frames).to(device)
        seen = cameras.to(device).resize(*pixels.shape[2:])
        with self._steady(device):
            depth, sky = self._alone(pixels, seen) if "metric" in self.name else self._together(pixels, seen)
        return settle(depth.to(frames.device), latents, sky.to(frames.device), prior)

    def _alone(self, pixels: Tensor, cameras: Cameras) -> tuple[Float[Tensor, "v y x"], Bool[Tensor, "v y x"]]:
        said = [self.net(one[None]) for one in pixels.split(1)]
        depth, sky = (torch.cat([each[key][0] for each in said]).float() for key in ("depth", "sky"))
        focal = (cameras.intrinsics[:, 0, 0] + cameras.intrinsics[:, 1, 1]) / 2
        return depth * (focal / FOCAL)[:, None, None], sky >= SKY

    def _together(self, pixels: Tensor, cameras: Cameras) -> tuple[Float[Tensor, "v y x"], Bool[Tensor, "v y x"]]:
        poses = cameras.cam_from_world @ cameras.cam_from_world[:1].inverse()
        distances = _centers(poses).norm(dim=1)[1:]
        moved = distances[distances > 1e-6]
        unit = moved.median() if len(moved) else poses.new_tensor(1.0)
        poses = torch.cat([torch.cat([poses[:, :3, :3], poses[:, :3, 3:] / unit], 2), poses[:, 3:]], 1)
        nested, skies = "nested" in self.name, []
        hook = self.net.da3_metric.register_forward_hook(lambda *call: skies.append(call[2]["sky"])) if nested else None
        try:
            said = self.net(pixels[None], extrinsics=poses[None], intrinsics=cameras.intrinsics[None])
        except AssertionError:  # nothing but sky: its metric model has nothing to go by
            return torch.zeros_like(skies[-1][0]), torch.ones_like(skies[-1][0], dtype=torch.bool)
        finally:
            if hook is not None:
                hook.remove()
        depth = said["depth"][0].float()
        sky = skies[-1][0] >= SKY if nested else torch.zeros_like(depth, dtype=torch.bool)
        if nested or len(pixels) == 1:
            return depth, sky
        theirs, ours = _centers(said["extrinsics"][0].float()), _centers(poses)
        theirs = theirs - theirs[:1]
        factor = (theirs * ours).sum() / (theirs**2).sum().clamp(min=1e-12)
        return depth * torch.where(factor > 0, factor, 1.0) * unit, sky

    @contextlib.contextmanager
    def _steady(self, device: torch.device):
        """Half precision if asked for, and the same random numbers each time: some of its models draw pixels."""
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
                yield


def _centers(cam_from_world: Float[Tensor, "v r 4"]) -> Float[Tensor, "v 3"]:
    return -torch.einsum("vji,vj->vi", cam_from_world[:, :3, :3], cam_from_world[:, :3, 3])
