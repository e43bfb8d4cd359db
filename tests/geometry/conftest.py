"""Small checkpoints on disk, made once."""

import warnings
from pathlib import Path

import pytest
import small_checkpoints
import torch

from mirage.camera import Cameras


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of a small random model of a kind."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("foreign")

    def get(kind: str) -> Path:
        if kind not in made:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what their classes warn of when they are built is theirs
                torch.manual_seed(0)
                made[kind] = getattr(small_checkpoints, kind)(root / kind)
        return made[kind]

    return get


@pytest.fixture
def frames(generator) -> torch.Tensor:
    """Two pictures of 40 x 56 pixels."""
    coarse = torch.rand(2, 3, 5, 7, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (40, 56), mode="bicubic").clamp(-1, 1)


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.zeros(2, 4, 5, 7)


@pytest.fixture
def cameras() -> Cameras:
    """The second has moved 0.5 to the right."""
    cameras = Cameras.from_fov(1.0, 40, 56, frames=2)
    cameras.cam_from_world[1, 0, 3] = -0.5
    return cameras
