"""A memory as a point cloud: points lie on the world's surfaces and carry its colours, and other programs read them."""

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.export import export_ply
from mirage.kernels import ops
from mirage.memory import LatentMemory
from mirage.video.codec import LatentCodec

NORMAL, DISTANCE, HEIGHT, WIDTH = torch.tensor([0.3, -0.5, 1.0]) / math.sqrt(1.34), 2.5, 40, 56


class Colours(LatentCodec):
    """Latents that are the colours of a cell."""

    channels, stride, temporal_stride = 3, 8, 4

    def encode(self, frames: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(frames[:, ::4].flatten(0, 1), 8).unflatten(0, (len(frames), -1))

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latents[:, 0], scale_factor=8, mode="bilinear")[:, None]


def camera(x: float = 0.0, yaw: float = 0.0) -> Cameras:
    a = math.radians(yaw)
    pose = torch.tensor([[math.cos(a), 0, -math.sin(a), 0], [0, 1, 0, 0], [math.sin(a), 0, math.cos(a), 0]])
    pose = torch.cat([pose, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    pose[:3, 3] = -pose[:3, :3] @ torch.tensor([x, 0.0, 0.0])
    k = torch.tensor([[45.0, 0.0, 28.3], [0.0, 47.0, 19.8], [0.0, 0.0, 1.0]])
    return Cameras(k[None], pose[None], HEIGHT, WIDTH)


def wall(camera: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Colours in [-1, 1] (1, 3, h, w) of a tilted wall, which tell the place, and its depth."""
    ray = camera.unproject(torch.ones(1, height, width)) - camera.centers
    depth = (DISTANCE - camera.centers @ NORMAL) / (ray @ NORMAL)
    return colour(camera.unproject(depth)).movedim(-1, 1), depth


def colour(place: Tensor) -> Tensor:
    return (place / 4).clamp(-1, 1)


def levels(colours: Tensor) -> np.ndarray:
    return ((colours + 1) * 127.5).numpy()


@pytest.fixture
def memory() -> LatentMemory:
    """Two views of the wall, the second with a part that is new and a hole in its depth."""
    memory = None
    for view in (camera(), camera(0.4, 20)):
        latents, depth = wall(view, HEIGHT // 8, WIDTH // 8)[0], wall(view, HEIGHT, WIDTH)[1]
        if memory is None:
            memory = LatentMemory.from_view(latents, depth, view, dtype=torch.float16)
        else:
            depth[:, :17, 40:] = 0
            memory.update(latents, depth, view)
    assert len(memory.surfels.name) == 2 and (memory.surfels.lookup[1] < 0).any()
    return memory


@pytest.mark.parametrize("pixels, points", [(False, 1), (True, 64)])
def test_points_lie_on_the_wall_and_carry_its_colours(memory, tmp_path, pixels, points):
    count = export_ply(memory, Colours(), tmp_path / "new" / "points.ply", pixels=pixels, batch=1)
    place, normal, colours = (x[:, 0] for x in cv2.loadPointCloud(str(tmp_path / "new" / "points.ply")))
    assert 0.9 * points * len(memory) < count <= points * len(memory) and len(place) == count
    place = torch.from_numpy(place)
    assert (place @ NORMAL - DISTANCE).abs().max() < 1e-3
    assert np.abs(normal + NORMAL.numpy()).max() < 1e-3
    error = np.abs(colours * (1 if colours.max() > 1 else 255) - levels(colour(place)))
    assert np.median(error) < 1 and error.max() < 20  # half a cell is not between two centres at the picture's border


def test_a_view_of_the_points_is_the_picture(memory, tmp_path):
    export_ply(memory, Colours(), tmp_path / "points.ply", pixels=True)
    place, _, colours = (torch.from_numpy(x[:, 0]) for x in cv2.loadPointCloud(str(tmp_path / "points.ply")))
    view = camera(0.2, 12)
    picture, index = ops.splat_nearest(place, colours, *vars(view.resize(20, 28)).values())
    truth = torch.from_numpy(levels(wall(view, 20, 28)[0]))
    seen = index >= 0
    assert seen.float().mean() > 0.8
    assert (picture * 255 - truth).abs().movedim(1, -1)[seen].mean() < 3
    mirrored = (picture * 255 - truth.flip(3)).abs().movedim(1, -1)[seen].mean()
    assert mirrored > 20  # the picture is not so flat that any would do


def test_no_points(tmp_path):
    view = camera()
    memory = LatentMemory.from_view(torch.zeros(1, 3, 5, 7), torch.zeros(1, 5, 7), view)
    assert export_ply(memory, Colours(), tmp_path / "points.ply") == 0
    with pytest.raises(ValueError, match="batch must be a positive whole number, got -1"):
        export_ply(memory, Colours(), tmp_path / "points.ply", batch=-1)
    assert b"element vertex 0\n" in (tmp_path / "points.ply").read_bytes()


def test_a_codec_of_another_stride_is_refused(memory, tmp_path):
    codec = Colours()
    codec.stride = 16
    with pytest.raises(ValueError, match="stride 8 and 3 channels like the memory, got stride 16 and 3"):
        export_ply(memory, codec, tmp_path / "points.ply")
    assert not (tmp_path / "points.ply").exists()


def test_what_cannot_be_exported_is_refused(memory, tmp_path, unchecked):
    good = dict(memory=memory, codec=Colours(), path=tmp_path / "points.ply", batch=8)
    for name, bad in (
        ("memory", None),
        ("codec", torch.nn.Identity()),
        ("path", None),
        ("batch", 1.5),
        ("batch", True),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            export_ply(**good | {name: bad})
    assert not list(tmp_path.iterdir())
