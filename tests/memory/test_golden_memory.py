"""The released code's memory is reproduced: same winner in every cell, same features."""

import pytest
import torch
from safetensors.torch import load_file

from mirage.camera.cameras import Cameras
from mirage.kernels.ops import splat_nearest
from mirage.memory import LatentMemory


def invert(world_from_cam: torch.Tensor) -> torch.Tensor:
    return torch.linalg.inv(world_from_cam.double()).float()


@pytest.fixture(params=["memory_s8", "memory_s16"])
def golden(request, shared):
    return load_file(shared / "golden" / f"{request.param}.safetensors")


def centred(intrinsics: torch.Tensor) -> torch.Tensor:
    """Cells at integer coordinates, rounded = cells at + 1/2, floored, with the principal point at + 1/2."""
    return intrinsics + torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def remembered(golden: dict[str, torch.Tensor]) -> tuple[LatentMemory, Cameras]:
    """Lift and update as the released code does: cell depth bilinear, masks nearest, everything valid is written."""
    latents, depths, excluded = golden["latents"], golden["depths"], golden["exclude_masks"]
    (height, width), (rows, cols) = latents.shape[2:], depths.shape[1:]
    resize = lambda x, mode: torch.nn.functional.interpolate(x[:, None].float(), (height, width), mode=mode)[:, 0]
    depth, keep = resize(depths, "bilinear"), resize(excluded, "nearest") == 0
    k = centred(golden["intrinsics"] * torch.tensor([[width / cols], [height / rows], [1.0]]))
    cams = Cameras(k, invert(golden["cam2world"]), height, width).resize(rows, cols)
    memory = LatentMemory.from_view(latents[:1], depth[:1], cams[0], keep=keep[:1], read="nearest")
    memory.update(latents[1:], depth[1:], cams[1:], keep=keep[1:])
    queries = invert(golden["query_cam2world"])
    k = centred(golden["intrinsics_latent"]).repeat(len(queries), 1, 1)
    return memory, Cameras(k, queries, height, width).resize(rows, cols)


@pytest.mark.parametrize("half_a_cell", [0.5, 0.0])
def test_nearest_splat_equals_the_golden_readout(golden, half_a_cell):
    """Defect 1: without the half cell that floor needs, other cells are read."""
    poses = invert(golden["query_cam2world"])
    height, width = golden["readout"].shape[2:]
    k = golden["intrinsics_latent"].repeat(len(poses), 1, 1)
    k[:, :2, 2] += half_a_cell
    valid = golden["memory_valid"].bool()
    points, features = golden["memory_points"][valid], golden["memory_features"][valid]
    image, index = splat_nearest(points, features, k, poses, height, width)
    # Features are random: where they are equal, the winners are.
    same = ((index >= 0) == golden["readout_mask"].bool()) & ((image - golden["readout"]).abs().amax(1) <= 1e-5)
    assert same.all() == (half_a_cell == 0.5)


def test_lifted_points_are_reproduced(golden):
    memory, _ = remembered(golden)
    valid = golden["memory_valid"].bool()
    assert torch.allclose(memory.surfels.points, golden["memory_points"][valid], atol=1e-4)
    assert (memory.surfels.features == golden["memory_features"][valid]).all()


def test_read_of_the_lifted_and_updated_memory_is_reproduced(golden):
    memory, queries = remembered(golden)
    read = memory.read(queries)
    assert (read.visible == golden["readout_mask"].bool()).all()
    assert (read.features - golden["readout"]).abs().max() <= 1e-5
