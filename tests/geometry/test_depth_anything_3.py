"""Depth Anything 3 through its package; skipped where that is not installed."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from mirage.camera import Cameras
from mirage.geometry import depth_anything_3
from mirage.geometry.depth_anything_3 import INSTALL, PREPARATION, DepthAnything3
from mirage.geometry.nano import FAR

SMALL = replace(PREPARATION, longest=56)


@pytest.fixture(scope="module")
def net():
    """The package's small network with the metric model's head."""
    pytest.importorskip("depth_anything_3", reason=f"not installed: {INSTALL}")
    pytest.importorskip("omegaconf", reason=f"not installed: {INSTALL}")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        from depth_anything_3.model.da3 import DepthAnything3Net
        from depth_anything_3.model.dinov2.dinov2 import DinoV2
        from depth_anything_3.model.dpt import DPT

        backbone = DinoV2(
            name="vits", out_layers=[2, 5, 8, 11], alt_start=-1, qknorm_start=-1, rope_start=-1, cat_token=False
        )
        return DepthAnything3Net(backbone, DPT(384, features=16, out_channels=[8, 8, 16, 16])).eval()


def test_a_missing_package_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(depth_anything_3, "_there", lambda name: name != "depth_anything_3")
    with pytest.raises(ValueError, match=r"needs depth_anything_3: pip install .* --no-deps depth-anything-3$"):
        DepthAnything3.load(tmp_path)


@pytest.fixture
def latents() -> torch.Tensor:
    """A grid of which the small input is a multiple, so that no resampling blurs what is compared."""
    return torch.zeros(2, 4, 3, 4)


def test_metres_are_by_the_focal_length_and_the_sky_is_far(net, frames, latents):
    estimator = DepthAnything3(net, "da3metric-large", preparation=SMALL)
    wide = Cameras.from_fov(1.0, 40, 56, frames=2)
    tele = Cameras(wide.intrinsics * torch.tensor([2.0, 2.0, 1.0])[:, None], wide.cam_from_world, 40, 56)
    state = torch.random.get_rng_state()
    near, far = (estimator.estimate(frames, latents, cameras) for cameras in (wide, tele))
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.no_grad():
        sky = torch.cat([net(SMALL.pixels(frame)[None])["sky"][0] for frame in frames.split(1)]) >= 0.3
    assert near.shape == (2, 42, 56) and torch.equal(near, estimator.estimate(frames, latents, wide))
    assert (near[sky] == FAR).all()
    ground = ~sky & (near > 0) & (near < FAR / 2)
    assert torch.allclose(far[ground], 2 * near[ground], rtol=1e-4)


def test_any_views_are_in_the_unit_of_the_poses(checkpoint, frames, latents, cameras, net):
    estimator = DepthAnything3.load(checkpoint("depth_anything_3"))
    estimator.preparation = SMALL
    assert not estimator.metric and not estimator.net.training
    depth = estimator.estimate(frames, latents, cameras)
    assert depth.shape == (2, 42, 56) and (depth > 0).all()
    assert torch.equal(depth, estimator.estimate(frames, latents, cameras))
    larger = cameras.cam_from_world.clone()
    larger[:, :3, 3] *= 3
    moved = Cameras(cameras.intrinsics, larger, 40, 56)  # the same walk in a unit a third as long
    assert torch.allclose(estimator.estimate(frames, latents, moved), 3 * depth, rtol=1e-3)
    turned = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]))[0]
    placed = torch.eye(4)
    placed[:3, :3], placed[:3, 3] = turned * turned.det(), torch.tensor([3.0, -1.0, 2.0])
    elsewhere = Cameras(cameras.intrinsics, cameras.cam_from_world @ placed, 40, 56)  # another origin of the world
    assert torch.allclose(estimator.estimate(frames, latents, elsewhere), depth, rtol=1e-3)
    half = DepthAnything3(estimator.net, "da3-small", preparation=SMALL, dtype=torch.bfloat16)
    assert ((half.estimate(frames, latents, cameras) - depth).abs() / depth).median() < 0.1


def test_nested_metres_and_sky(checkpoint, net, frames, latents, cameras):
    from depth_anything_3.model.da3 import NestedDepthAnything3Net

    any_view = DepthAnything3.load(checkpoint("depth_anything_3")).net
    nested = NestedDepthAnything3Net.__new__(NestedDepthAnything3Net)  # its constructor builds the giant one
    torch.nn.Module.__init__(nested)
    nested.da3, nested.da3_metric = any_view, net
    estimator = DepthAnything3(nested, "da3nested-giant-large", preparation=SMALL)
    with torch.no_grad():
        sky = net(SMALL.pixels(frames)[None])["sky"][0] >= 0.3
    depth = estimator.estimate(frames, latents, cameras)
    assert depth.shape == sky.shape and (depth[sky] == FAR).all()
    assert torch.equal(depth, estimator.estimate(frames, latents, cameras))


def test_what_cannot_be_used_is_refused(net, tmp_path):
    with pytest.raises(ValueError, match="take da3metric-large"):
        DepthAnything3(net, "da3mono-large")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3-nano"}))
    with pytest.raises(ValueError, match=r"must be one of da3-base.*got 'da3-nano'"):
        DepthAnything3.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3-small"}))
    with pytest.raises(ValueError, match="must have its weights as safetensors"):
        DepthAnything3.load(tmp_path)
    from safetensors.torch import save_file

    save_file({"model.backbone.nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="weights of da3-small are missing: "):
        DepthAnything3.load(tmp_path)
