"""How the autoencoder's latents are moved in training: what the maps are, and what they add to the loss."""

import json

import pytest
import torch

from mirage.training.autoencoder import (
    EQUIVARIANCES,
    autoencoder_loss,
    random_affine,
    random_homography,
    warp,
)
from mirage.training.clips import render_clips
from mirage.training.fit import generator, save_atomic
from mirage.training.nano import NanoRecipe, train_nano
from mirage.video.nano import NanoAutoencoder


def places(height, width):
    """A picture of its own coordinates, the sides at -1 and 1."""
    y, x = torch.meshgrid(*((torch.arange(n) * 2 + 1) / n - 1 for n in (height, width)), indexing="ij")
    return torch.stack([x, y])


def test_a_homography_without_perspective_is_the_affine_map():
    maps, pictures = random_affine(3, generator(4)), torch.rand(3, 2, 9, 14, generator=generator(5))
    last = torch.tensor([0.0, 0.0, 1.0]).expand(3, 1, 3)
    for scale in (1.0, -2.5):  # homogeneous: a factor changes nothing
        assert torch.allclose(warp(pictures, scale * torch.cat([maps, last], 1)), warp(pictures, maps), atol=1e-5)


def test_a_homography_reads_each_pixel_where_it_maps_to():
    maps, home = random_homography(20, generator(6)), places(31, 22)
    got = warp(home.expand(20, 2, 31, 22), maps)
    rays = torch.einsum("nij,jhw->nihw", maps, torch.cat([home, torch.ones(1, 31, 22)]))
    there = rays[:, :2] / rays[:, 2:]
    inside = (there.abs() < 1 - 2 / 22).all(1)
    assert inside.any(2).any(1).all()
    assert (got - there).abs().amax(1)[inside].max() < 1e-4


def test_random_homographies_keep_the_picture_in_front_of_the_camera():
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)])
    depth = (random_homography(500, generator(7)) @ corners.T)[:, 2]
    assert depth.min() > 0.3 and depth.std() > 0.1


def test_the_term_is_added_to_what_is_there_without_it():
    torch.manual_seed(0)
    model = NanoAutoencoder(latent_channels=4, widths=(4, 8, 16), blocks=(1, 1, 1))
    clips = torch.rand(2, 5, 3, 32, 48, generator=generator(8)) * 2 - 1
    found = {kind: autoencoder_loss(model, clips, 3, equivariance=kind) for kind in EQUIVARIANCES}
    losses = {kind: loss.item() for kind, (loss, _) in found.items()}
    assert losses["affine"] > losses["none"] < losses["homography"] != losses["affine"]
    assert {kind: "moved_db" in figures for kind, (_, figures) in found.items()} == {
        "none": False,
        "affine": True,
        "homography": True,
    }
    double = autoencoder_loss(model, clips, 3, moved_weight=3.0)[0].item()
    assert double - losses["affine"] == pytest.approx(losses["affine"] - losses["none"], rel=1e-4)
    same = [figures["video_db"].item() for _, figures in found.values()]
    assert same[0] == same[1] == same[2]  # the noise of the other terms is the same
    assert autoencoder_loss(model, clips, 3)[0].item() == losses["affine"]
    with pytest.raises(ValueError, match="equivariance must be one of none, affine, homography, got 'shift'"):
        NanoRecipe(equivariance="shift")


def test_the_recipe_says_how_latents_are_moved(tmp_path):
    shown = {}
    for kind in ("none", "homography"):
        (tmp_path / kind / "clips").mkdir(parents=True)
        save_atomic(
            vars(render_clips([21], 5, 64, 64, ["walk"])), tmp_path / kind / "clips" / "clips-00000.safetensors"
        )
        assert train_nano(tmp_path / kind, NanoRecipe(autoencoder_steps=1, equivariance=kind), stages=("autoencoder",))
        shown[kind] = json.loads((tmp_path / kind / "autoencoder.curve.jsonl").read_text())
    assert set(shown["homography"]) - set(shown["none"]) == {"moved_db"}
    assert shown["homography"]["loss"] > shown["none"]["loss"]
