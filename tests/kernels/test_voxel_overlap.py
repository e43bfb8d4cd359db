"""The paper's recall rule: equal to Python's sets, and to the released implementation."""

import pytest
import torch
from safetensors.torch import load_file

from mirage.kernels.ops import voxel_overlap


def occupied(points: torch.Tensor, size: float) -> set:
    return {tuple(voxel) for voxel in (points.double() / size).floor().tolist()}


@pytest.mark.parametrize("scale", [1.0, 1e8, 1e30])
def test_equals_sets(generator, scale):
    points, view = scale * torch.rand(300, 3, generator=generator), torch.randint(0, 4, (300,), generator=generator)
    other = torch.cat([points[:50], scale * torch.rand(90, 3, generator=generator) - 0.5 * scale])
    other_view = torch.randint(0, 3, (140,), generator=generator)
    overlap = voxel_overlap(points, view, other, other_view, 5, 3, size=0.23 * scale)
    for i in range(5):
        for j in range(3):
            a = occupied(points[view == i], 0.23 * scale)
            b = occupied(other[other_view == j], 0.23 * scale)
            assert overlap[i, j].item() == pytest.approx(len(a & b) / max(len(a | b), 1))
    assert overlap[4].sum() == 0 < overlap[:4].min()


@pytest.mark.parametrize("name", ["memory_s8", "memory_s16"])
def test_the_released_overlap_is_reproduced(shared, name):
    """It counts all points of the first view and of the memory, valid or not."""
    golden = load_file(shared / "golden" / f"{name}.safetensors")
    first, memory = golden["first_points_world"], golden["memory_points"]
    zeros = [torch.zeros(len(x), dtype=torch.int64) for x in (first, memory)]
    overlap = voxel_overlap(first, zeros[0], memory, zeros[1], 1, 1, size=0.1)
    assert overlap.item() == pytest.approx(golden["iou_voxel_0p1"].item(), rel=1e-6)


def test_no_points_no_overlap():
    nothing, zero = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert (voxel_overlap(nothing, zero, nothing, zero, 2, 3) == 0).all()


def test_refuses_a_voxel_without_size():
    nothing, zero = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"size must be positive, got 0\.0"):
        voxel_overlap(nothing, zero, nothing, zero, 1, 1, size=0.0)
