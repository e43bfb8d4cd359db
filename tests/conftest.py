"""Fixtures of all tests."""

import os
from pathlib import Path

import jaxtyping
import pytest
import torch

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and real data, or a skip that says what to do."""
    folder = Path(os.environ.get("MIRAGE_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no golden vectors and real data at {folder}: set MIRAGE_SHARED to the folder that holds them")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def unchecked():
    """Turn the check of annotations off, as it is for users, so that a test sees the errors that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
