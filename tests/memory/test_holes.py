"""Holes filled from around: what is seen stays, what is not is between what is seen."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage.memory.holes import fill_holes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 13), st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_what_is_seen_stays_and_the_rest_is_between(height, width, seed, share):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 3, height, width, generator=generator)
    visible = torch.rand(2, height, width, generator=generator) < share
    filled = fill_holes(torch.where(visible[:, None], image, torch.nan), visible)
    assert torch.equal(filled.movedim(1, -1)[visible], image.movedim(1, -1)[visible])
    for view in range(2):
        seen = image[view][:, visible[view]]
        low, high = (seen.amin(1), seen.amax(1)) if seen.numel() else (torch.zeros(3), torch.zeros(3))
        assert (filled[view] >= low[:, None, None] - 1e-5).all() and (filled[view] <= high[:, None, None] + 1e-5).all()


def test_near_holes_look_like_what_is_near():
    image = torch.zeros(1, 1, 8, 32)
    image[..., 16:] = 1.0
    visible = torch.ones(1, 8, 32, dtype=torch.bool)
    visible[:, 3:5, 4:6] = visible[:, 3:5, 26:28] = False
    filled = fill_holes(image, visible)
    assert filled[0, 0, 3:5, 4:6].max() < 0.01 and filled[0, 0, 3:5, 26:28].min() > 0.99


def test_what_does_not_fit_is_refused():
    image, visible = torch.zeros(2, 3, 4, 5), torch.ones(2, 4, 5, dtype=torch.bool)
    for name, bad in (
        ("image", image[0]),
        ("image", image.long()),
        ("visible", visible.float()),
        ("visible", visible[1:]),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            fill_holes(**{"image": image, "visible": visible} | {name: bad})
    assert fill_holes(image[..., :0], visible[..., :0]).shape == (2, 3, 4, 0)
