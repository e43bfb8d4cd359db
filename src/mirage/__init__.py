"""Mirage: latent spatial memory for video world models. These names are its face; each is loaded when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirage.camera.cameras import Cameras as Cameras
    from mirage.camera.files import load_trajectory as load_trajectory
    from mirage.camera.path import build_path as build_path
    from mirage.inputs import Inputs as Inputs
    from mirage.memory import ColourMemory as ColourMemory
    from mirage.memory import LatentMemory as LatentMemory
    from mirage.memory import NoMemory as NoMemory
    from mirage.pipeline import MirageOutput as MirageOutput
    from mirage.pipeline import MiragePipeline as MiragePipeline
    from mirage.video.io import fit_image as fit_image
    from mirage.video.io import read_image as read_image
    from mirage.video.io import write_video as write_video

__version__ = "0.1.0"

_HOMES = {
    "Cameras": "mirage.camera.cameras",
    "ColourMemory": "mirage.memory",
    "Inputs": "mirage.inputs",
    "LatentMemory": "mirage.memory",
    "MirageOutput": "mirage.pipeline",
    "MiragePipeline": "mirage.pipeline",
    "NoMemory": "mirage.memory",
    "build_path": "mirage.camera.path",
    "fit_image": "mirage.video.io",
    "load_trajectory": "mirage.camera.files",
    "read_image": "mirage.video.io",
    "write_video": "mirage.video.io",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'mirage' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
