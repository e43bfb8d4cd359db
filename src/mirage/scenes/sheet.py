"""A contact sheet: one view of each of many worlds, to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mirage.camera.cameras import Cameras
from mirage.scenes.paths import sample_path
from mirage.scenes.render import render
from mirage.scenes.worlds import Worlds


def contact_sheet(
    seeds: Sequence[int], path: str | Path, *, columns: int = 5, height: int = 192, width: int = 192
) -> None:
    """Render the world of each seed from a place inside it and save all views as one image.

    Args:
        seeds: One world each.
        path: Where to write; the ending chooses the format.
        columns: Views per row.
        height: Rows of each view, in pixels.
        width: Columns of each view, in pixels.
    """
    worlds = Worlds.sample(seeds)
    paths = [sample_path(worlds[i], s, 1, kind="walk", height=height, width=width) for i, s in enumerate(seeds)]
    colour = render(worlds, Cameras.cat(paths), supersample=3).colour[:, 0]
    image = colour.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    rows = [np.concatenate(list(image[i : i + columns]), 1) for i in range(0, len(image), columns)]
    wide = rows[0].shape[1]
    rows = [np.pad(r, ((0, 0), (0, wide - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    Image.fromarray(np.concatenate(rows)).save(path, quality=88)
