"""Metric models of transformers: loading, units, exactness, precision, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import small_checkpoints
import torch
from transformers import DepthAnythingForDepthEstimation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from mirage.camera import Cameras
from mirage.geometry.metric import KINDS, MetricDepth


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_sane_and_the_same_each_time(checkpoint, kind, frames, latents, cameras):
    estimator = MetricDepth.load(checkpoint(kind)).to("cpu")
    assert not any(part.training for part in estimator.model.modules())
    depth = estimator.estimate(frames, latents, cameras)
    assert len(depth) == 2 and depth.shape[1] % 5 == depth.shape[2] % 7 == 0
    assert (depth >= 0).all() and depth.isfinite().all() and depth.std() > 0
    assert torch.equal(depth, estimator.estimate(frames, latents, cameras))
    assert torch.equal(depth[1:], estimator.estimate(frames[1:], latents[1:], cameras[1:]))


def test_depth_is_what_transformers_gives(checkpoint, frames, latents, cameras):
    folder = checkpoint("depth_anything")
    pictures = [((frame + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy() for frame in frames]
    exact = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    pixels = DPTImageProcessorPil.from_pretrained(folder)(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        true = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()(pixel_values=pixels).predicted_depth
    mine = MetricDepth.load(folder).estimate(exact, torch.zeros(2, 4, 3, 4), cameras)
    assert mine.shape == true.shape == (2, 42, 56)
    assert (mine - true).abs().median() < 0.02 * true.median()  # their resize rounds to whole colours


def test_depth_pro_takes_its_unit_from_the_focal_length(checkpoint, frames, latents):
    estimator = MetricDepth.load(checkpoint("depth_pro"))
    wide, tele = (Cameras.from_fov(2 * np.arctan(0.5 / f), 40, 56, frames=2) for f in (0.7, 1.4))
    near, far = (estimator.estimate(frames, latents, cameras) for cameras in (wide, tele))
    free = (near < 40) & (near > 0)
    assert free.any()
    assert torch.allclose(far[free], 2 * near[free], rtol=1e-4)


def test_bfloat16_is_close(checkpoint, frames, latents, cameras):
    folder = checkpoint("zoedepth")
    exact, half = (MetricDepth.load(folder, dtype=dtype) for dtype in (None, torch.bfloat16))
    assert half.model.dtype == torch.bfloat16
    depth, coarse = (each.estimate(frames, latents, cameras) for each in (exact, half))
    assert coarse.dtype == torch.float32 and ((coarse - depth).abs() / depth).median() < 0.05


def test_what_gives_no_metres_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must give metres, got a relative one .*Metric-Indoor"):
        MetricDepth.load(small_checkpoints.depth_anything(tmp_path / "relative", "relative"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dpt"}))
    with pytest.raises(ValueError, match="one of depth_anything, zoedepth, depth_pro, glpn, got 'dpt'"):
        MetricDepth.load(tmp_path)


def test_damage_is_said_in_one_sentence(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("glpn"), tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"depth model .*cut cannot be loaded: ") as said:
        MetricDepth.load(folder)
    assert "\n" not in str(said.value)
    weights.unlink()
    with pytest.raises(ValueError, match=r"cut cannot be loaded: .*safetensors"):
        MetricDepth.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cut cannot be loaded"):
        MetricDepth.load(folder)
    with pytest.raises(ValueError, match=r"with a config\.json and safetensors"):
        MetricDepth.load(tmp_path)


def test_missing_weights_are_listed(checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoint("glpn"), tmp_path / "part")
    weights = load_file(folder / "model.safetensors")
    lost = sorted(weights)[0]
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"1 weights are missing or of another shape: {lost}"):
        MetricDepth.load(folder)
