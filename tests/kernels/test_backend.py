"""The door: backends are chosen by device, by name or by the environment, and loaded on first use."""

import os
import subprocess
import sys

import pytest
import torch

from mirage.kernels import backend, reference

HERE = torch.zeros(1)


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return done.stdout.strip()


def test_use_holds_inside_its_block_and_gives_back_what_was():
    with backend.use("reference"):
        assert backend.of(HERE) is reference
        with backend.use("cpu"):
            assert backend.of(HERE).__name__ == "mirage.kernels.cpu"
        assert backend.of(HERE) is reference


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv("MIRAGE_KERNELS", "reference")
    assert backend.of(HERE) is reference
    with backend.use("cpu"):
        assert backend.of(HERE) is not reference


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="must be one of reference, cpu, gpu, got 'tpu'"), backend.use("tpu"):
        pass
    monkeypatch.setenv("MIRAGE_KERNELS", "fast")
    with pytest.raises(ValueError, match="MIRAGE_KERNELS must be one of reference, cpu, gpu or unset, got 'fast'"):
        backend.of(HERE)


def test_without_numba_the_reference_does_the_work():
    """Also: the memory is imported without numba, which is loaded on first use only."""
    code = """
import logging, sys
import torch, mirage.memory
assert "numba" not in sys.modules and "triton" not in sys.modules
sys.modules["numba"] = None
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from mirage.kernels import backend
for _ in range(2):
    print(backend.of(torch.zeros(1)).__name__)
try:
    with backend.use("cpu"): pass
except ValueError as error: print(error)
"""
    lines = run(code, MIRAGE_KERNELS="").splitlines()
    assert len(lines) == 4 and "cannot be loaded" in lines[0] and "numba" in lines[0]
    assert lines[1:3] == ["mirage.kernels.reference"] * 2
    assert lines[3].startswith("name 'cpu': this backend needs a package that is not installed")


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path):
    code = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
import torch
from mirage.kernels import backend
from mirage.kernels.ops import splat_nearest
with backend.use("cpu"):
    k, pose = torch.eye(3)[None], torch.eye(4)[None]
    print(splat_nearest(torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 1), k, pose, 1, 1)[1].tolist())
"""
    assert run(code) == "[[[0]]]"
