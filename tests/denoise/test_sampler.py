"""Sampling: the published grid, clean frames that stay, and steps that do what the equations say."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import nn

from mirage.denoise import MirageTransformer, prior_of, sample


def unipc():
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)


def euler():
    return FlowMatchEulerDiscreteScheduler(shift=5.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scheduler", [unipc(), euler()], ids=["unipc", "euler"])
def test_first_frames_stay_bit_for_bit_at_every_step(tiny, conditions, scheduler):
    known = conditions(2, first=1)
    seen = []
    frames = sample(
        tiny(), scheduler, known, steps=3, generator=seeded(), callback=lambda i, t, x: seen.append((i, float(t), x))
    )
    assert [i for i, _, _ in seen] == [0, 1, 2] and seen[0][1] > seen[2][1] > 0
    assert all(torch.equal(x[:, :1], known.first) for _, _, x in seen)
    assert torch.equal(frames[:, :1], known.first) and torch.equal(frames, seen[-1][2])


def test_published_grid_of_noise_levels(tiny, conditions):
    scheduler, n = unipc(), 4
    sample(tiny(), scheduler, conditions(), steps=n, generator=seeded())
    before = [0.999 * (n - i) / n for i in range(n)]
    shifted = [5 * s / (1 + 4 * s) for s in before]
    assert scheduler.sigmas.tolist() == pytest.approx([*shifted, 0.0], abs=1e-6)


@pytest.mark.parametrize(("steps", "prediction"), [(1, "velocity"), (5, "velocity"), (3, "residual")])
def test_euler_steps_equal_the_equation(tiny, conditions, steps, prediction):
    model, known, scheduler = tiny(prediction=prediction), conditions(2, preceding=0, reference=0, first=0), euler()
    x = torch.randn(known.features.shape, generator=seeded())
    frames = sample(model, scheduler, known, steps=steps, generator=seeded())
    memory = torch.cat([known.features, known.visible[:, :, None]], dim=2).transpose(1, 2)
    levels = scheduler.sigmas
    for sigma, after in pairwise(levels):
        with torch.no_grad():
            times = (1000 * sigma).expand(2, 3)
            output = model(x.transpose(1, 2), times, known.context, memory).transpose(1, 2)
        velocity = (
            (x - prior_of(known.features, known.visible) - output) / sigma if prediction == "residual" else output
        )
        x = x + (after - sigma) * velocity
    assert torch.allclose(frames, x, atol=1e-4)


class Pull(MirageTransformer):
    """A toy whose velocity is linear in the frames, v = x - 2, so that the flow has a closed solution."""

    def forward(self, latents, timestep, context=None, memory=None, *, num_reference=0):
        return latents - 2


def test_unipc_follows_a_linear_flow(conditions):
    toy = Pull(
        num_attention_heads=1, attention_head_dim=12, in_channels=4, text_dim=6, freq_dim=8, ffn_dim=8, num_layers=1,
        vace_layers=[0], vace_in_channels=5,
    )  # fmt: skip
    known, scheduler = conditions(1, first=0), unipc()
    frames = sample(toy, scheduler, known, steps=40, generator=seeded())
    noise = torch.randn(known.features.shape, generator=seeded())
    exact = 2 + (noise - 2) * torch.exp(-scheduler.sigmas[0])  # dx / dsigma = x - 2 from sigma_0 to 0
    assert torch.allclose(frames, exact, atol=5e-3)


@pytest.mark.parametrize("scheduler", [unipc(), euler()], ids=["unipc", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_silent_residual_model_shows_exactly_the_memory(tiny, conditions, scheduler, steps):
    model = tiny(prediction="residual")
    nn.init.zeros_(model.proj_out.weight)
    nn.init.zeros_(model.proj_out.bias)
    known = conditions(2, first=0)
    frames = sample(model, scheduler, known, steps=steps, generator=seeded())
    assert torch.allclose(frames, prior_of(known.features, known.visible), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_residual_model_leaves_unmoved_cells_alone(tiny, conditions, steps):
    known = conditions(2, first=0)
    still = known.visible & (torch.rand(known.visible.shape, generator=seeded(5)) < 0.5)
    prior = prior_of(known.features, known.visible)
    frames = sample(
        tiny(prediction="residual"), unipc(), replace(known, unmoved=still), steps=steps, generator=seeded()
    )
    near = (frames - prior).abs().amax(2) < 1e-5
    assert near[still].all() and not near[~still].all()
    free = sample(tiny(), unipc(), replace(known, unmoved=still), steps=steps, generator=seeded())
    assert torch.equal(free, sample(tiny(), unipc(), known, steps=steps, generator=seeded()))


def test_one_residual_step_is_prior_plus_output(tiny, conditions):
    model, known, scheduler = (
        tiny(prediction="residual", vace_layers=[]),
        conditions(1, reference=0, preceding=0),
        euler(),
    )
    frames = sample(model, scheduler, known, steps=1, generator=seeded())
    noise = known.pin(torch.randn(known.features.shape, generator=seeded()))
    times = torch.tensor([[0.0, 1, 1]]) * scheduler.timesteps[0]
    with torch.no_grad():
        output = model(noise.transpose(1, 2), times, known.context).transpose(1, 2)
    expected = known.pin(prior_of(known.features, known.visible) + output)
    assert torch.allclose(frames, expected, atol=1e-4)


def test_same_seed_same_frames_and_batch_equals_one_by_one(tiny, conditions):
    model, known = tiny(), conditions(2)
    whole = sample(model, unipc(), known, steps=3, generator=[seeded(1), seeded(2)])
    again = sample(model, unipc(), known, steps=3, generator=[seeded(1), seeded(2)])
    assert torch.equal(whole, again)
    for i in range(2):
        parts = {name: None if value is None else value[i] for name, value in vars(known).items()}
        one = sample(model, unipc(), type(known)(**parts), steps=3, generator=seeded(i + 1))
        assert one.shape == (3, 4, 5, 7) and torch.allclose(one, whole[i], atol=1e-4)


def test_guidance_goes_away_from_the_negative_text(tiny, conditions):
    model, known = tiny(), conditions(1)
    negative = torch.zeros_like(known.context)
    with_text = sample(model, euler(), known, steps=1, generator=seeded())
    without = sample(model, euler(), replace(known, context=negative), steps=1, generator=seeded())
    guided = sample(model, euler(), known, steps=1, generator=seeded(), negative_context=negative, guidance_scale=3.0)
    assert torch.allclose(guided, without + 3 * (with_text - without), atol=1e-4)


def test_callback_may_replace_the_frames(tiny, conditions):
    known = conditions(first=1)
    frames = sample(tiny(), euler(), known, steps=2, generator=seeded(), callback=lambda i, t, x: torch.zeros_like(x))
    assert torch.equal(frames[:1], known.first) and not frames[1:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be positive, got 0"),
        ({"steps": 2, "sigmas": [1.0]}, "each of the 2 steps, got 1"),
        ({"steps": 1, "guidance_scale": 2.0}, "negative_context must be given"),
    ],
)
def test_bad_arguments_are_named(tiny, conditions, arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(tiny(), euler(), conditions(), **arguments)
