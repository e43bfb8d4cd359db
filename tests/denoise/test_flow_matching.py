"""Noisy frames, velocities and clean frames are three views of one thing."""

import pytest
import torch

from mirage.denoise import add_noise, prior_of, to_clean, to_velocity


@pytest.fixture
def clean(generator):
    return torch.randn(2, 3, 4, 5, 7, generator=generator)


@pytest.fixture
def noise(generator):
    return torch.randn(2, 3, 4, 5, 7, generator=generator)


SIGMA = torch.tensor([0.3, 1.0])


def test_noise_ends_are_exact(clean, noise):
    assert torch.equal(add_noise(clean, noise, torch.zeros(2)), clean)
    assert torch.equal(add_noise(clean, noise, torch.ones(2)), noise)


@pytest.mark.parametrize("prediction", ["velocity", "residual"])
def test_a_perfect_output_gives_back_the_clean_frames_and_the_velocity(clean, noise, prediction):
    prior = clean + 1
    output = noise - clean if prediction == "velocity" else clean - prior
    noisy = add_noise(clean, noise, SIGMA)
    assert torch.allclose(to_clean(output, noisy, SIGMA, prior, prediction=prediction), clean, atol=1e-5)
    assert torch.allclose(to_velocity(output, noisy, SIGMA, prior, prediction=prediction), noise - clean, atol=1e-4)


def test_prior_is_the_memory_where_it_has_seen(clean, generator):
    visible = torch.rand(2, 3, 5, 7, generator=generator) > 0.5
    prior = prior_of(clean, visible).movedim(2, -1)
    assert torch.equal(prior[visible], clean.movedim(2, -1)[visible]) and not prior[~visible].any()
