"""The arithmetic of flow matching: noisy frames, velocities and clean frames, the same for training and sampling."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def add_noise(
    clean: Float[Tensor, "b t c h w"], noise: Float[Tensor, "b t c h w"], sigma: Float[Tensor, "#b"]
) -> Float[Tensor, "b t c h w"]:
    r"""Blend clean frames with noise.

    Equation:
        .. math::
            x_\sigma = (1 - \sigma) x_0 + \sigma\, n, \qquad v = n - x_0

        One noise level for all frames of a sample, as in sampling. (The released code trains with one per frame.)

    Args:
        clean: Normalised latents.
        noise: Standard normal.
        sigma: Noise level per sample, in [0, 1].

    Returns:
        The noisy latents.

    Example:
        >>> add_noise(torch.zeros(1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 2), torch.tensor([0.25])).flatten().tolist()
        [0.25, 0.25]
    """
    return torch.lerp(clean, noise, _per_sample(sigma))


def prior_of(features: Float[Tensor, "b t c h w"], visible: Bool[Tensor, "b t h w"]) -> Float[Tensor, "b t c h w"]:
    """Give what the memory alone would show: its features where it has seen something, zero elsewhere.

    It is the guess that a "residual" model corrects; a model whose output is zero shows exactly the memory.

    Args:
        features: Memory read at the target frames, normalised latents.
        visible: Cells that the memory has seen.

    Returns:
        The prior, dtype of `features`.

    Example:
        >>> prior_of(torch.full((1, 1, 1, 1, 2), 3.0), torch.tensor([[[[True, False]]]])).flatten().tolist()
        [3.0, 0.0]
    """
    return features.masked_fill(~visible[:, :, None], 0)


def to_clean(
    output: Float[Tensor, "b t c h w"],
    noisy: Float[Tensor, "b t c h w"],
    sigma: Float[Tensor, "#b"],
    prior: Float[Tensor, "b t c h w"],
    *,
    prediction: str,
) -> Float[Tensor, "b t c h w"]:
    r"""Turn the network's output into its estimate of the clean frames.

    Equation:
        .. math::
            \hat x_0 = x_\sigma - \sigma\, v \;\text{("velocity")}, \qquad
            \hat x_0 = prior + output \;\text{("residual")}

    Args:
        output: What the transformer said at the target frames.
        noisy: What it was given there.
        sigma: Noise level per sample, in [0, 1].
        prior: From `prior_of`; used by "residual" only.
        prediction: `transformer.config.prediction`.

    Returns:
        The estimate of the clean latents.

    Example:
        >>> one = torch.ones(1, 1, 1, 1, 1)
        >>> to_clean(one, 3 * one, torch.tensor([0.5]), 5 * one, prediction="velocity").item()
        2.5
        >>> to_clean(one, 3 * one, torch.tensor([0.5]), 5 * one, prediction="residual").item()
        6.0
    """
    return prior + output if prediction == "residual" else noisy - _per_sample(sigma) * output


def to_velocity(
    output: Float[Tensor, "b t c h w"],
    noisy: Float[Tensor, "b t c h w"],
    sigma: Float[Tensor, "#b"],
    prior: Float[Tensor, "b t c h w"],
    *,
    prediction: str,
) -> Float[Tensor, "b t c h w"]:
    r"""Turn the network's output into the velocity that the flow schedulers of diffusers step along.

    Equation:
        .. math::
            v = (x_\sigma - \hat x_0) / \sigma, \quad \hat x_0 \text{ from } `to\_clean`

    Args:
        output: What the transformer said at the target frames.
        noisy: What it was given there.
        sigma: Noise level per sample, in (0, 1].
        prior: From `prior_of`; used by "residual" only.
        prediction: `transformer.config.prediction`.

    Returns:
        The velocity: noise minus clean latents.

    Example:
        >>> one = torch.ones(1, 1, 1, 1, 1)
        >>> to_velocity(one, 3 * one, torch.tensor([0.5]), one, prediction="residual").item()
        2.0
    """
    if prediction != "residual":
        return output
    return (noisy - to_clean(output, noisy, sigma, prior, prediction=prediction)) / _per_sample(sigma)


def _per_sample(sigma: Float[Tensor, "#b"]) -> Float[Tensor, "#b 1 1 1 1"]:
    return sigma[:, None, None, None, None]
