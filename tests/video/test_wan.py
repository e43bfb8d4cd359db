"""Wan's autoencoder at toy size keeps the codec's contract."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from mirage.video.wan import TINY8, TINY16, WanCodec


@pytest.fixture(scope="module", params=[TINY8, TINY16], ids=["stride8", "stride16"])
def codec(request) -> WanCodec:
    torch.manual_seed(0)
    return WanCodec(AutoencoderKLWan(**request.param).eval().requires_grad_(False))


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (9, 3)])
def test_shapes_there_and_back(codec, frames, latents):
    s = codec.stride
    clip = torch.rand(1, frames, 3, 2 * s, 3 * s) * 2 - 1
    z = codec.encode(clip)
    assert z.shape == (1, latents, codec.channels, 2, 3)
    assert codec.latent_frames(frames) == latents and codec.video_frames(latents) == frames
    assert codec.decode(z).shape == clip.shape


def test_a_clip_is_causal_its_first_latent_is_that_of_the_image(codec):
    clip = torch.rand(2, 5, 3, 2 * codec.stride, codec.stride) * 2 - 1
    torch.testing.assert_close(codec.encode(clip)[:, :1], codec.encode(clip[:, :1]), atol=1e-5, rtol=1e-5)


def test_normalisation_is_that_of_the_configuration_and_undone_by_decode(codec):
    clip = torch.rand(1, 5, 3, codec.stride, 2 * codec.stride) * 2 - 1
    raw = codec.vae.encode(clip.transpose(1, 2)).latent_dist.mode()
    config = codec.vae.config
    z = codec.encode(clip)
    for channel in (0, codec.channels - 1):
        by_hand = (raw[:, channel] - config.latents_mean[channel]) / config.latents_std[channel]
        torch.testing.assert_close(z[:, :, channel], by_hand)
    direct = codec.vae.decode(raw).sample.transpose(1, 2)
    torch.testing.assert_close(codec.decode(z), direct, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("frames", "way_out"), [(2, "take 1 or 5"), (4, "take 1 or 5"), (16, "take 13 or 17")])
def test_a_count_that_would_be_cut_is_refused(codec, frames, way_out):
    with pytest.raises(ValueError, match=f"multiple of 4, got {frames}; {way_out}"):
        codec.encode(torch.zeros(1, frames, 3, 2 * codec.stride, codec.stride))


@pytest.mark.parametrize(("height", "width"), [(8, 60), (0, 16), (17, 32)])
def test_a_size_that_does_not_fit_is_refused(codec, height, width):
    with pytest.raises(ValueError, match=f"multiples of {codec.stride}, got {height} x {width}"):
        codec.encode(torch.zeros(1, 1, 3, height, width))


def test_missing_statistics_are_refused():
    with pytest.raises(ValueError, match="must hold 48 numbers"):
        WanCodec(AutoencoderKLWan(**TINY16 | dict(latents_mean=[0.0])))


def test_half_precision_stays_half_and_normalises_in_full(codec):
    frames = torch.rand(1, 1, 3, 2 * codec.stride, 2 * codec.stride) * 2 - 1
    exact = codec.encode(frames)
    codec.vae.to(torch.bfloat16)
    z = codec.encode(frames)
    assert z.dtype == torch.bfloat16 and codec.decode(z).dtype == torch.bfloat16
    assert (z.float() - exact).abs().mean() < 0.05 * exact.std()
    codec.vae.to(torch.float32)
