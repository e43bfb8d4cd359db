"""The memory as coloured points for the 3D view: each source view is decoded once, whatever is added later."""

import threading

import numpy as np
import torch
from torch import Tensor

from mirage.explorer.wire import POINT_TYPE
from mirage.export import reached, surface_points
from mirage.memory import LatentMemory
from mirage.video.codec import LatentCodec
from mirage.video.io import tensor_to_images

SIDE = 4  # points along a side of a latent cell
MOST = 120_000  # points that are sent; of more, every second or third


class PointCloud:
    """Colours of the cells of every remembered view, and points made of them."""

    def __init__(self):
        self._colours: dict[int, Tensor] = {}
        self._lock = threading.Lock()

    def forget(self, views: int) -> None:
        """Forget the colours of views that were taken back.

        Args:
            views: How many are left.
        """
        with self._lock:
            self._colours = {name: colours for name, colours in self._colours.items() if name < views}

    @torch.no_grad()
    def pack(self, memory: LatentMemory, clean: Tensor, codec: LatentCodec) -> bytes:
        """All points, as they go over the wire: x y z as float32, then red green blue and 1 if given, 0 if imagined.

        Args:
            memory: What is remembered.
            clean: Latents of all remembered views, by serial number.
            codec: What decodes them.

        Returns:
            Items of `POINT_TYPE`.
        """
        surfels = memory.surfels
        with self._lock:
            names = surfels.name.tolist()
            for name in names:
                if name not in self._colours:
                    self._colours[name] = self._decode(clean[name], codec)
            colours = torch.stack([self._colours[name] for name in names])
        every = torch.arange(len(surfels), device=surfels.plane.device)
        place, _ = surface_points(surfels, every, SIDE)
        columns, rows = reached(surfels.reach, SIDE)
        shown = (rows[:, :, None] & columns[:, None]).cpu()
        colour = colours[surfels.source.long().cpu(), surfels.cell.long().cpu()]
        given = surfels.observed.cpu()[:, None, None, None].expand(*shown.shape, 1)
        count = int(shown.sum())
        points = np.empty(count, POINT_TYPE)
        points["place"] = place.cpu()[shown].numpy()
        points["colour"] = colour[shown].numpy()
        points["given"] = given[shown][:, 0].numpy()
        return points[:: -(-count // MOST) or 1].tobytes()

    def _decode(self, latents: Tensor, codec: LatentCodec) -> Tensor:
        """Colours (cells, SIDE, SIDE, 3) of one view."""
        frame = codec.decode(latents[None, None])[:, 0]
        height, width = latents.shape[1:]
        small = torch.nn.functional.interpolate(frame, (height * SIDE, width * SIDE), mode="area")
        image = torch.from_numpy(tensor_to_images(small)[0])
        return image.view(height, SIDE, width, SIDE, 3).transpose(1, 2).flatten(0, 1)
