"""The denoising loop: from noise to the target frames of one chunk, under its conditions."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from diffusers.schedulers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from mirage.denoise.conditioning import Conditioning, branch_input
from mirage.denoise.flow import prior_of, to_velocity
from mirage.denoise.transformer import MirageTransformer


def run_transformer(
    transformer: MirageTransformer,
    noisy: Float[Tensor, "b t c h w"],
    timestep: Float[Tensor, "b"],
    conditioning: Conditioning,
) -> Float[Tensor, "b t c h w"]:
    """Give the transformer's raw output at the target frames; training and sampling both pass through here.

    Args:
        transformer: The denoiser.
        noisy: Target frames; the pinned ones are put in their place here.
        timestep: Noise level per sample in 0..1000.
        conditioning: With a leading batch axis.

    Returns:
        The output in the dtype of `noisy`; see `to_clean` and `to_velocity` for what it means.

    Example:
        A new model says nothing yet.

        >>> from mirage.denoise.conditioning import Conditioning
        >>> net = MirageTransformer(num_attention_heads=1, attention_head_dim=12, in_channels=2, text_dim=0, freq_dim=8,
        ...     ffn_dim=8, num_layers=1, vace_layers=[0], vace_in_channels=3)
        >>> known = Conditioning(features=torch.ones(1, 3, 2, 5, 4), visible=torch.ones(1, 3, 5, 4, dtype=torch.bool))
        >>> run_transformer(net, torch.ones(1, 3, 2, 5, 4), torch.tensor([500.0]), known).abs().max().item()
        0.0
    """
    config = transformer.config
    frames, times, start = conditioning.sequence(noisy, timestep)
    memory = branch_input(conditioning, config.memory_layout).to(noisy) if config.vace_layers else None
    output = transformer(frames, times, conditioning.context, memory, num_reference=start)
    return output[:, :, start : start + noisy.shape[1]].transpose(1, 2)


@torch.no_grad()
def sample(
    transformer: MirageTransformer,
    scheduler: SchedulerMixin,
    conditioning: Conditioning,
    *,
    steps: int,
    generator: torch.Generator | list[torch.Generator] | None = None,
    sigmas: Sequence[float] | None = None,
    negative_context: Float[Tensor, "*b l d"] | None = None,
    guidance_scale: float = 1.0,
    callback: Callable[[int, Tensor, Tensor], Tensor | None] | None = None,
) -> Float[Tensor, "*b t c h w"]:
    r"""Imagine the target frames of one chunk.

    The first target frames stay what `conditioning.first` says, bit for bit; preceding and reference frames are clean
    at every step; all other frames share one noise level. A "residual" model adds nothing to unmoved cells.

    Equation:
        .. math::
            x_{\sigma'} = step(x_\sigma, v(x_\sigma, \sigma)), \quad
            v = v_{neg} + g\,(v_{text} - v_{neg})

        with the step of the scheduler. The default grid of noise levels, before the scheduler's shift, is the
        released code's: n values from 0.999 down, equally spaced, zero left out.

    Args:
        transformer: The denoiser, in evaluation mode.
        scheduler: A flow-matching scheduler of diffusers (UniPC with `use_flow_sigmas`, or FlowMatchEuler).
        conditioning: With or without a leading batch axis.
        steps: Number of calls of the denoiser.
        generator: Source of the noise; one per sample for batches that equal single runs.
        sigmas: Another grid of noise levels, before the shift, descending in (0, 1]; as many as `steps`.
        negative_context: Text embeddings to be guided away from.
        guidance_scale: Strength of that guidance; 1 does without it and its second call.
        callback: Called after each step with its number, its timestep and the frames; may return other frames.

    Returns:
        The clean frames, float32, with the batch axis of the conditions.

    Raises:
        ValueError: If `steps` is not positive, `sigmas` has another length, or guidance lacks `negative_context`.

    Gradient:
        None: sampling runs without gradients.

    Example:
        A new "residual" model shows what the memory holds, and zero where it holds nothing.

        >>> from diffusers import UniPCMultistepScheduler
        >>> net = MirageTransformer(num_attention_heads=1, attention_head_dim=12, in_channels=2, text_dim=0, freq_dim=8,
        ...     ffn_dim=8, num_layers=1, vace_layers=[0], vace_in_channels=3, prediction="residual")
        >>> plan = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
        >>> known = Conditioning(features=torch.ones(3, 2, 4, 6), visible=torch.ones(3, 4, 6, dtype=torch.bool))
        >>> frames = sample(net, plan, known, steps=2, generator=torch.Generator().manual_seed(0))
        >>> frames.shape, frames.mean().round(decimals=4).item()
        (torch.Size([3, 2, 4, 6]), 1.0)
    """
    if steps < 1:
        raise ValueError(f"steps must be positive, got {steps}")
    if sigmas is not None and len(sigmas) != steps:
        raise ValueError(f"sigmas must have one value for each of the {steps} steps, got {len(sigmas)}")
    if guidance_scale != 1.0 and negative_context is None:
        raise ValueError(f"negative_context must be given for guidance_scale={guidance_scale}, or leave the scale at 1")
    single = conditioning.features.ndim == 4
    conditioning = conditioning.batched()
    device = conditioning.features.device
    grid = np.linspace(0.999, 0.0, steps + 1)[:-1] if sigmas is None else np.asarray(sigmas, dtype=np.float64)
    scheduler.set_timesteps(sigmas=grid, device=device)
    scheduler.set_begin_index(0)

    features = conditioning.features.float()
    prior, residual = prior_of(features, conditioning.visible), transformer.config.prediction == "residual"
    x = randn_tensor(features.shape, generator=generator, device=device, dtype=torch.float32)
    x = conditioning.pin(x)
    for i, time in enumerate(scheduler.timesteps):
        timestep = time.to(torch.float32).expand(len(x))
        output = run_transformer(transformer, x, timestep, conditioning)
        if guidance_scale != 1.0:
            away = negative_context[None] if single else negative_context
            other = run_transformer(transformer, x, timestep, replace(conditioning, context=away))
            output = torch.lerp(other, output, guidance_scale)
        sigma = scheduler.sigmas[i].to(device)[None]
        if residual and conditioning.unmoved is not None:
            output = output.masked_fill(conditioning.unmoved[:, :, None], 0)
        velocity = to_velocity(output, x, sigma, prior, prediction=transformer.config.prediction)
        x = conditioning.pin(scheduler.step(velocity, time, x, return_dict=False)[0])
        if callback is not None:
            x = conditioning.pin(_or(callback(i, time, x[0] if single else x), x, single))
    return x[0] if single else x


def _or(replaced: Tensor | None, x: Float[Tensor, "b t c h w"], single: bool) -> Float[Tensor, "b t c h w"]:
    if replaced is None:
        return x
    return replaced[None] if single else replaced
