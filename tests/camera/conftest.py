"""Cameras that every file of the tests says in its own way."""

import numpy as np
import pytest
import torch
from small_files import FRAMES, HEIGHT, WIDTH

from mirage.camera import Cameras, build_path
from mirage.camera.rigid import screw


@pytest.fixture
def truth() -> Cameras:
    """A path with a lens whose principal point is not in the middle."""
    cameras = build_path("random-walk:degrees=60", FRAMES, Cameras.from_fov(1.1, HEIGHT, WIDTH)).cameras
    cameras.intrinsics[:, 0, 2] += 3.0
    cameras.intrinsics[:, 1, 1] *= 1.01
    return cameras


@pytest.fixture
def w2c(truth) -> np.ndarray:
    """The poses in a world that is not the first camera."""
    start = screw(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.3, 0.2, -0.1]), torch.tensor(1.0)).double()
    return (truth.cam_from_world.double() @ start).numpy()
