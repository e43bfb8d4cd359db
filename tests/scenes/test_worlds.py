"""Worlds depend on their seed alone."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from mirage.scenes import Worlds, textures


def test_a_world_depends_on_its_seed_alone():
    many, one = Worlds.sample([3, 11, 5]), Worlds.sample([11])
    for f in fields(Worlds):
        assert torch.equal(getattr(many[1], f.name), getattr(one, f.name)), f.name
    assert not torch.equal(many[0].textures, many[1].textures)


def test_kinds_and_movers_are_as_asked(unchecked):
    rooms, places = Worlds.sample([0, 1], "room", movers=0), Worlds.sample([0, 1], "open", movers=2)
    assert not rooms.open.any() and places.open.all()
    assert rooms.movers.sum(1).tolist() == [0, 0] and places.movers.sum(1).tolist() == [2, 2]
    with pytest.raises(ValueError, match="kind"):
        Worlds.sample([0], "cave")


def test_batches_join_and_split():
    worlds = Worlds.sample([7, 8])
    joined = Worlds.cat([worlds[1], worlds[0]])
    assert len(joined) == 2 and torch.equal(joined[[1, 0]].center, worlds.center) and len(worlds[-1]) == 1


@pytest.mark.parametrize("make", ["plaster", "ground", "stone", "wood", "tiles", "fabric", "foliage", "leaves", "sky"])
def test_textures_tile_and_have_colours(make):
    """The seam between two tiles is no more visible than any other line (skies only repeat around the horizon)."""
    image = getattr(textures, make)(np.random.default_rng(4))
    assert image.shape == (textures.SIZE, textures.SIZE, 3) and image.min() > -0.2 and np.isfinite(image).all()
    for axis in (1,) if make == "sky" else (0, 1):
        steps = np.abs(np.diff(image, axis=axis, append=image.take([0], axis))).mean((1 - axis, 2))
        assert steps[-1] <= 1.5 * steps.max()


def test_the_coarsest_texel_is_the_mean():
    image = textures.leaves(np.random.default_rng(0))
    texels = textures.mip_chain(image)
    assert np.allclose(texels[-1], (np.clip(image, 0.01, 1) ** 2).mean((0, 1)), atol=1e-5)
