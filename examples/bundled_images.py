"""Render the pictures that ship with the package, from worlds that are in no training set.

python examples/bundled_images.py src/mirage/assets
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from mirage.camera.cameras import Cameras
from mirage.scenes import Worlds, render, sample_path
from mirage.video.io import tensor_to_images, write_image

PICTURES = {"bedroom": 3_000_087, "parlour": 3_000_032, "garden": 3_000_003}
SIZE, FIELD = 512, math.radians(60)


def picture(seed: int) -> np.ndarray:
    """The view from where the world's own walk begins, 60 degrees wide, with nothing moving in it."""
    world = Worlds.sample([seed], movers=0)
    place = sample_path(world, seed, 1, kind="walk", height=SIZE, width=SIZE)
    camera = replace(place, intrinsics=Cameras.from_fov(FIELD, SIZE, SIZE).intrinsics)
    return tensor_to_images(render(world, camera, supersample=4).colour[0, 0])


if __name__ == "__main__":
    for name, seed in PICTURES.items():
        write_image(Path(sys.argv[1]) / f"{name}.jpg", picture(seed))
