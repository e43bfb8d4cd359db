"""Lift and scale: valid cells only, exact depth, robust alignment."""

import pytest
import torch

from mirage.geometry.lift import lift
from mirage.geometry.scale import align_depth


def test_cells_need_enough_usable_pixels():
    depth = torch.full((2, 6, 15), 2.0)
    depth[0, :, :2] = 0  # a third of the first cell remains
    keep = torch.ones_like(depth, dtype=torch.bool)
    keep[1, :3, 6:9] = False
    lifted = lift(depth, 2, 5, keep=keep)
    assert lifted.valid[0].tolist() == [[False, True, True, True, True]] * 2
    assert lifted.valid[1].tolist() == [[True, True, False, True, True], [True] * 5]
    assert (lifted.depth[lifted.valid] == 2).all() and (lifted.depth[~lifted.valid] == 0).all()
    assert lift(depth, 2, 5, min_usable=0.3).valid.all()


def test_nothing_valid():
    for shape in ((1, 1, 1), (1, 4, 8), (0, 4, 8)):
        lifted = lift(torch.zeros(shape), 1, 1)
        assert not lifted.valid.any() and (lifted.plane == 0).all()


def test_min_usable_is_a_share():
    with pytest.raises(ValueError, match="min_usable"):
        lift(torch.ones(1, 2, 2), 1, 1, min_usable=0.0)


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (0.4, 0.0), (2.5, 0.0), (1.3, 0.1), (0.8, -0.04)])
def test_scale_and_shift_are_found_among_wrong_cells(generator, scale, shift):
    new = 1 + 4 * torch.rand(3, 9, 13, generator=generator)
    known = 1 / (1 / (scale * new) + shift)
    wrong = torch.rand(new.shape, generator=generator) < 0.3
    known = torch.where(wrong, known * (0.3 + torch.rand(new.shape, generator=generator)), known)
    known[:, 0] = 0
    fit = align_depth(new, known)
    assert fit.scale == pytest.approx(scale, rel=5e-3) and fit.shift == pytest.approx(shift, abs=5e-3)
    assert fit.cells == 3 * 8 * 13 and fit.residual < 0.05


def test_noise_alone_is_not_fitted(generator):
    known = 1 + 4 * torch.rand(2, 9, 13, generator=generator)
    fit = align_depth(known * (1 + 0.02 * torch.randn(known.shape, generator=generator)), known)
    assert (fit.scale, fit.shift) == (1.0, 0.0) and 0 < fit.residual < 0.03


def test_too_little_or_contradictory_overlap_changes_nothing(generator):
    known = torch.zeros(1, 9, 13)
    known[0, 0, :5] = 2.0
    assert align_depth(torch.ones(1, 9, 13), known).scale == 1.0
    assert align_depth(known, torch.zeros_like(known)).cells == 0
    noise = lambda: 0.5 + 8 * torch.rand(1, 9, 13, generator=generator)
    assert align_depth(noise(), noise()).scale == 1.0
    with pytest.raises(ValueError, match="min_cells"):
        align_depth(known, known, min_cells=1)


def test_any_depth_fits_a_single_wall_but_only_its_scale_is_looked_for(generator):
    """With a shift, a wall of one depth could be made of anything: scale without end, residual zero."""
    wall = torch.full((2, 9, 13), 3.0)
    fit = align_depth(wall / 1.4, wall)
    assert fit.scale == pytest.approx(1.4, rel=1e-3) and fit.shift == 0 and fit.residual < 1e-3
    fit = align_depth(wall * (1.3 + 2 * torch.rand(wall.shape, generator=generator)), wall)
    assert (fit.scale, fit.shift) == (1.0, 0.0) and fit.residual > 0.1
    tilted = 3 / (1 + torch.linspace(-0.02, 0.02, 13)).expand(2, 9, 13)
    fit = align_depth(tilted * 0.8, tilted)
    assert fit.scale == pytest.approx(1.25, rel=1e-3) and fit.shift == 0


@pytest.mark.parametrize("count", [15, 16, 17, 4096, 4097, 20_000])
def test_a_third_of_wrong_cells_does_not_matter_however_many_there_are(generator, count):
    known = 1 + 4 * torch.rand(1, 1, count, generator=generator)
    wrong = torch.rand(known.shape, generator=generator) < 0.3
    fit = align_depth(torch.where(wrong, 0.4 * known, known) / 1.5, known)
    assert fit.cells == count
    assert fit.scale == pytest.approx(1.5 if count >= 16 else 1.0, rel=1e-2)
