"""Stage 3: the depth head learns depth from image latents and from what the memory projects into them."""

import torch
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.nano import LatentDepthHead, ray_slopes
from mirage.training.samples import CHUNK, Samples


def depth_loss(
    model: LatentDepthHead, samples: Samples, g: torch.Generator, choice: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Absolute error of the logarithm of depth, and of its steps between neighbours.

    The projected depth is given as the loop gives it, at a random common scale (the head must follow the memory's), and
    withheld from a quarter of the frames, as from the first one.

    Args:
        model: The depth head.
        samples: Clips with their reads and true depth.
        g: Source of noise, on the device of the samples.
        choice: Source of choices, on the CPU.

    Returns:
        The loss, and figures: mean error where there is projected depth, where there is none, and in frames without.
    """
    k = int(torch.randint(samples.features.shape[1], (), generator=choice))
    frames = slice(k * (CHUNK - 1), k * (CHUNK - 1) + CHUNK)
    latents = samples.image[:, frames].float()
    h, w = latents.shape[-2:]
    b, n = latents.shape[:2]
    rand = lambda *shape: torch.rand(*shape, generator=g, device=latents.device)
    noise = torch.randn(latents.shape, generator=g, device=latents.device)
    latents = latents + 0.15 * rand(b, 1, 1, 1, 1) * noise
    blind = rand(b, n, 1, 1) < 0.25
    scale = torch.where(blind, 1.0, torch.exp(0.3 * torch.randn(b, 1, 1, 1, generator=g, device=latents.device)))
    prior = samples.prior[:, k].float() * scale * ~blind
    truth = samples.log_depth[:, frames].float() + scale.log()

    cells = Cameras(
        samples.intrinsics[:, frames].flatten(0, 1), torch.eye(4, device=g.device).expand(b * n, 4, 4), 8 * h, 8 * w
    ).resize(h, w)
    guess = model(latents.flatten(0, 1), ray_slopes(cells), prior.flatten(0, 1)).unflatten(0, (b, n))
    known = ~truth.isnan()
    truth = truth.nan_to_num()
    error = ((guess - truth) * known).abs()
    steps = sum(((guess - truth) * known).diff(dim=axis).abs().clamp(max=0.5).mean() for axis in (2, 3))
    with torch.no_grad():
        had = (prior > 0).repeat_interleave(2, 2).repeat_interleave(2, 3)
        alone = blind.expand_as(prior).repeat_interleave(2, 2).repeat_interleave(2, 3)
        mean = lambda mask: (error * mask).sum() / mask.sum().clamp(min=1)
        figures = {"with_prior": mean(had), "in_holes": mean(~had & ~alone), "alone": mean(alone)}
    return error.clamp(max=2).mean() + 0.5 * steps, figures
