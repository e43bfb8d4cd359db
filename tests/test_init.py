"""The face: a few names, each loaded when it is used, all of them documented."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import mirage


def test_every_name_is_there():
    assert set(mirage.__all__) == set(dir(mirage))
    assert len(mirage.__all__) <= 16
    for name in mirage.__all__:
        assert name == "__version__" or getattr(mirage, name).__doc__


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mirage.nothing


def test_version_is_that_of_the_package():
    assert version("mirage-world") == mirage.__version__


def test_help_needs_no_model_code():
    code = (
        "import sys; sys.argv = ['mirage', '--help']\nfrom mirage.cli import main\ntry: main()\nexcept SystemExit: pass"
    )
    code += "\nprint([p for p in ('torch', 'diffusers', 'transformers') if p in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


ALONE = """
import socket
import sys

for package in ("diffusers", "transformers", "accelerate", "huggingface_hub", "av"):
    sys.modules[package] = None  # importing it fails

def refuse(*args):
    raise AssertionError("a connection")

socket.socket.connect = socket.getaddrinfo = refuse
import torch
from mirage import Cameras, LatentMemory
from mirage.memory import recall

camera, latents, depth = Cameras.from_fov(1.0, 16, 24), torch.randn(1, 4, 2, 3), torch.ones(1, 16, 24)
memory = LatentMemory.from_view(latents, depth, camera)
memory.update(latents, depth, camera)
memory.save(sys.argv[1])
memory = LatentMemory.load(sys.argv[1])
assert (memory.read(camera).features == latents).all() and len(recall(memory.surfels.points, camera, depth)[0]) == 1
"""


def test_the_memory_needs_no_model_code_and_no_network(tmp_path):
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path / "a")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
