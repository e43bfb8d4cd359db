"""What training minimises: the velocity of flow matching, or the residual on the memory."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mirage.denoise.conditioning import Conditioning
from mirage.denoise.flow import add_noise, prior_of
from mirage.denoise.sampler import run_transformer
from mirage.denoise.transformer import MirageTransformer


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one step: chunks, their conditions, and the noise that is put on them."""

    target: Float[Tensor, "b n c h w"]
    """True video latents."""
    conditions: Conditioning
    noise: Float[Tensor, "b n c h w"]
    sigma: Float[Tensor, "b"]
    """Noise level of each sample, in (0, 1]."""


def flow_loss(model: MirageTransformer, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    r"""Give the error of what the model says of the target frames, the clean first frames outside.

    One noise level per sample, shared by all its target frames, as in sampling. (The released code draws one per
    frame.) Pinned frames (`conditions.first`) are clean and not counted.

    Equation:
        .. math::
            \| v_\theta(x_\sigma) - (n - x_0) \|^2 \;\text{("velocity")}, \qquad
            \| prior + output - x_0 \|^2 \;\text{("residual")}

        as a mean over cells, frames and samples, with :math:`x_\sigma = (1 - \sigma) x_0 + \sigma n`.

    Args:
        model: The denoiser.
        batch: Samples.

    Returns:
        The loss, and figures without gradient that may be averaged over parts of a batch: what of the loss comes from
        where the memory sees and from where it does not, and the share that it sees.

    Gradient:
        To the weights of the model.

    Example:
        A new "velocity" model says zero: its error is the mean square of noise minus clean latents.

        >>> net = MirageTransformer(num_attention_heads=1, attention_head_dim=12, in_channels=2, text_dim=0, freq_dim=8,
        ...     ffn_dim=8, num_layers=1, vace_layers=[0], vace_in_channels=3)
        >>> clean = torch.ones(1, 3, 2, 4, 6)
        >>> known = Conditioning(features=clean, visible=clean[:, :, 0] > 0, first=clean[:, :1])
        >>> batch = Batch(target=clean, conditions=known, noise=3 * clean, sigma=torch.tensor([0.5]))
        >>> flow_loss(net, batch)[0].item()
        4.0
    """
    conditions, target = batch.conditions, batch.target
    noisy = add_noise(target, batch.noise, batch.sigma)
    output = run_transformer(model, noisy, 1000 * batch.sigma, conditions).float()
    if model.config.prediction == "residual":
        error = output + prior_of(conditions.features, conditions.visible) - target
    else:
        error = output - (batch.noise - target)
    pinned = 0 if conditions.first is None else conditions.first.shape[1]
    error = error[:, pinned:].square().mean(2)
    with torch.no_grad():
        seen = conditions.visible[:, pinned:].float()
        figures = {"seen": (error * seen).mean(), "unseen": (error * (1 - seen)).mean(), "known": seen.mean()}
    return error.mean(), figures
