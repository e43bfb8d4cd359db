"""Picture, depth and cameras go through one window."""

import numpy as np
import pytest
import torch
from PIL import Image

from mirage.inputs import Inputs, fit_depth, model_size, read_depth


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (61, 200), (50, 50)])
def test_picture_depth_and_camera_stay_together(tmp_path, shape):
    """Picture and depth both hold the column they were taken at; the camera must say the same."""
    height, width = shape
    column = np.tile(np.arange(width) + 1, (height, 1)).astype(np.uint8)
    Image.fromarray(np.stack([column] * 3, -1)).save(tmp_path / "picture.png")
    np.save(tmp_path / "depth.npy", column.astype(np.float32))
    inputs = Inputs.load(
        tmp_path / "picture.png",
        "still",
        frames=5,
        like=(64, 64),
        depth=tmp_path / "depth.npy",
        intrinsics=(80.0, 80.0, width / 2 + 3, height / 2),
    )
    rows, columns = inputs.image.shape[:2]
    assert (rows % 16, columns % 16) == (0, 0) and inputs.depth.shape == (rows, columns)
    ray = inputs.cameras[0].unproject(torch.ones(1, rows, columns))[0, rows // 2, :, 0]
    at = ray * 80 + width / 2 + 3  # the column of the picture, in pixels
    inside = (at > 1.5) & (at < width - 1.5)
    blended = max(1.0, columns / width)
    assert (torch.from_numpy(inputs.image[rows // 2, :, 0].astype(np.float32)) - 0.5 - at).abs()[inside].max() < 1.5
    assert (inputs.depth[rows // 2] - 0.5 - at).abs()[inside].max() < 1.5 * blended


@pytest.mark.parametrize("shape", [(704, 1248), (1248, 704), (500, 500), (360, 540), (100, 1000), (17, 900)])
def test_sizes_suit_shape_and_model(shape):
    height, width = model_size(*shape, (128, 128), 16)
    assert height % 16 == width % 16 == 0 and min(height, width) >= 16
    assert 0.6 < height * width / 128**2 < 1.6 or max(shape) / min(shape) > 8
    assert (height > width) == (shape[0] > shape[1]) or height == width


def test_depth_files(tmp_path):
    values = np.array([[0, 1500], [65535, 20]], np.uint16)
    Image.fromarray(values).save(tmp_path / "depth.png")
    np.save(tmp_path / "depth.npy", values)
    for name in ("depth.png", "depth.npy"):
        assert read_depth(tmp_path / name, 1000.0) == pytest.approx(values / 1000)


def test_depths_are_never_blended():
    depth = torch.tensor([[0.0, 3.0, 3.0, 9.0, 9.0], [0.0, 3.0, 9.0, 9.0, 0.0]])
    assert set(fit_depth(depth, 3, 7).unique().tolist()) <= {0.0, 3.0, 9.0}


@pytest.mark.parametrize("mode", ["P", "RGB", "LA", "1"])
def test_colours_are_no_depth(tmp_path, mode):
    Image.new("RGB", (6, 4), "red").convert(mode).save(tmp_path / "depth.png")
    with pytest.raises(ValueError, match="one number per pixel"):
        read_depth(tmp_path / "depth.png")


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_depth_of_another_unit_is_refused(tmp_path, value):
    np.save(tmp_path / "depth.npy", np.full((2, 3), value))
    with pytest.raises(ValueError, match="give the depth_scale"):
        read_depth(tmp_path / "depth.npy")
