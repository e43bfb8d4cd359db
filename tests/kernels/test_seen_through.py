"""Free space: equal to a loop over points, views and cells in float64."""

import pytest
import torch

from mirage.kernels.ops import seen_through


def scene(generator: torch.Generator):
    height, width, views = 5, 7, 3
    lookup = torch.arange(height * width * views).view(views, height, width)
    lookup[torch.rand(lookup.shape, generator=generator) < 0.15] = -1
    plane = 0.02 * torch.randn(height * width * views, 3, generator=generator)
    plane[:, 0] = 0.2 + 0.3 * torch.rand(len(plane), generator=generator)
    k = torch.tensor([[5.0, 0.0, 3.6], [0.0, 6.0, 2.4], [0.0, 0.0, 1.0]]).repeat(views, 1, 1)
    pose = torch.eye(4).repeat(views, 1, 1)
    pose[:, :3, 3] = 0.3 * torch.randn(views, 3, generator=generator)
    points = torch.randn(400, 3, generator=generator) + torch.tensor([0.0, 0.0, 2.5])
    return points, plane, lookup, k, pose


@pytest.mark.parametrize("strict", [True, False])
def test_equals_a_loop(generator, strict):
    points, plane, lookup, k, pose = scene(generator)
    count = seen_through(points, plane, lookup, k, pose, tolerance=0.1, strict=strict)
    (views, height, width), expected = lookup.shape, []
    for point in points.double():
        total = 0
        for view in range(views):
            x, y, z = (k[view].double() @ (pose[view, :3, :3].double() @ point + pose[view, :3, 3])).tolist()
            if z <= 0:
                continue
            x, y = x / z, y / z
            sides = (-0.5, 0.5) if strict else (0.0,)
            free = True
            for row, col in [(int((y + b) // 1), int((x + a) // 1)) for a in sides for b in sides]:
                element = lookup[view, row, col].item() if 0 <= row < height and 0 <= col < width else -1
                a = plane[element].double().tolist()
                surface = a[0] if strict else a[0] + (x - col - 0.5) * a[1] + (y - row - 0.5) * a[2]
                free &= element >= 0 and surface * z * 1.1 < 1
            total += free
        expected.append(total)
    assert (count == torch.tensor(expected)).float().mean() > 0.995  # a point may lie on a border
    assert 0.1 < (count > 0).float().mean() < 0.9


def test_nothing_known_is_nothing_seen(generator):
    points, plane, lookup, k, pose = scene(generator)
    assert (seen_through(points, plane[:0], lookup[:0], k[:0], pose[:0]) == 0).all()
    assert len(seen_through(points[:0], plane, lookup, k, pose)) == 0


def test_refuses_a_negative_tolerance(generator):
    with pytest.raises(ValueError, match="tolerance must not be negative, got -1"):
        seen_through(*scene(generator), tolerance=-1.0)
