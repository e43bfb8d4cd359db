"""Depth pooling: planes are found exactly, surfaces and unknown depth are never blended."""

import pytest
import torch

from mirage.kernels.ops import lift_planes


def test_a_plane_is_found_exactly_at_any_resolution():
    height, width = 5, 7
    for rows, cols in ((1, 1), (2, 2), (4, 8), (16, 16)):
        y, x = torch.meshgrid(
            (torch.arange(height * rows) + 0.5) / rows, (torch.arange(width * cols) + 0.5) / cols, indexing="ij"
        )
        depth = 1 / (0.3 + 0.02 * x - 0.03 * y)[None]
        plane, count, edge, reach = lift_planes(depth, depth > 0, height, width)
        cy, cx = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        assert torch.allclose(plane[0, ..., 0], 0.3 + 0.02 * cx - 0.03 * cy, rtol=2e-2 if rows == 2 else 1e-3)
        assert torch.allclose(plane[0, ..., 1:], torch.tensor([0.02, -0.03]), atol=3e-4)
        assert (count == rows * cols).all() and not edge.any()
        assert (reach[0, 1:-1, 1:-1] > 0.5).all() and (reach[0, 0, :, 2] == 0.5).all()


@pytest.mark.parametrize("defect", [False, True])
def test_no_phantom_depth_between_surfaces_or_towards_unknown(generator, defect):
    """Defect 4: bilinear down-sampling of a depth map with holes and edges invents points near the camera."""
    depth = torch.full((1, 40, 64), 5.0)
    depth[:, 12:29, 21:42] = 2.0
    depth[torch.rand(depth.shape, generator=generator) < 0.2] = 0.0
    if defect:
        pooled = torch.nn.functional.interpolate(depth[None], (5, 8), mode="bilinear", antialias=True)[0]
    else:
        pooled = 1 / lift_planes(depth, depth > 0, 5, 8)[0][..., 0]
    on_a_surface = ((pooled - 5).abs() < 1e-3) | ((pooled - 2).abs() < 1e-3)
    assert on_a_surface.all() != defect


def test_the_larger_surface_wins_and_the_edge_is_marked():
    depth = torch.full((1, 8, 24), 4.0)
    depth[:, :, 5:13] = 2.0  # 3 of 8 columns of the first cell, 5 of 8 of the second
    plane, _, edge, reach = lift_planes(depth, depth > 0, 1, 3)
    assert torch.allclose(1 / plane[0, 0, :, 0], torch.tensor([4.0, 2.0, 4.0]), rtol=1e-4)
    assert edge[0, 0].tolist() == [True, True, False]
    left, right = reach[0, 0, :, 0], reach[0, 0, :, 1]
    assert right[0] == pytest.approx(0.125)  # up to the edge at column 5
    assert left[1] == pytest.approx(0.5 + 0.375) and right[1] == pytest.approx(0.125)  # its part of the first cell too
    assert left[2] == pytest.approx(0.5 + 0.375)  # the far wall's part of the second cell


def test_a_surface_that_ends_at_the_centre_of_a_cell_reaches_no_further():
    """Seen from the side, what lies behind its rim is not the surface's: it is a hole."""
    depth = torch.full((1, 6, 16), 8.0)
    depth[:, :, 6:13] = 2.0  # the right half of the second cell, all of the third, a quarter of the fourth
    for axis in (0, 1):
        grid = (1, 4) if axis == 0 else (4, 1)
        maps = depth if axis == 0 else depth.mT.contiguous()
        plane, _, edge, reach = (x.flatten(1, 2)[0] for x in lift_planes(maps, maps > 0, *grid))
        assert torch.allclose(1 / plane[:, 0], torch.tensor([8.0, 2.0, 2.0, 8.0]), rtol=1e-4)
        assert edge.tolist() == [False, True, False, True]
        assert reach[1, 2 * axis].item() == 0.0 and reach[1, 2 * axis + 1] > 0.5


def test_only_usable_pixels_count():
    depth = torch.full((1, 6, 9), 3.0)
    usable = torch.ones_like(depth, dtype=torch.bool)
    usable[:, :, 3:6] = False
    depth[:, :, 3:6] = 0.1
    plane, count, _, reach = lift_planes(depth, usable, 2, 3)
    assert (plane[0, :, 1] == 0).all() and count[0].tolist() == [[9, 0, 9], [9, 0, 9]]
    assert torch.allclose(plane[0, :, [0, 2], 0], torch.tensor(1 / 3))
    assert (reach[0, :, 0, 1] == 0.5).all()


def test_steep_planes_stay_in_front_of_the_camera():
    x = (torch.arange(16) + 0.5) / 16
    depth = (1 / (0.05 + x)).expand(1, 16, 16).contiguous()
    plane = lift_planes(depth, depth > 0, 1, 1)[0][0, 0, 0]
    assert plane[0] - 0.85 * plane[1:].abs().sum() > 0


def test_refuses_a_grid_that_does_not_divide():
    with pytest.raises(ValueError, match="whole multiple of the 2 x 3"):
        lift_planes(torch.ones(1, 5, 6), torch.ones(1, 5, 6, dtype=torch.bool), 2, 3)


def test_threads_do_not_matter(generator):
    depth = 1 + 3 * torch.rand(2, 72, 120, generator=generator)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(lift_planes(depth, depth > 1.1, 9, 15))
    finally:
        torch.set_num_threads(threads)
    assert all((a == b).all() for a, b in zip(*results, strict=True))
