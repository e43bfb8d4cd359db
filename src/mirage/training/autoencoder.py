"""Stage 1: the autoencoder learns to be exact, aligned over time, and to move as the picture moves."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mirage.training.fit import generator
from mirage.video.nano import NanoAutoencoder


def autoencoder_loss(
    model: NanoAutoencoder, clips: Float[Tensor, "b f 3 h w"], seed: int, *, align: float = 0.05, noise: float = 0.04
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction of the clip, of its pictures alone, and of pictures moved in latent space.

    Three demands from the first step: clips come back; a group's latent equals the image latent of its last frame and
    decodes as a picture; latents that are resampled by a random affine map decode to the picture resampled by it.

    Args:
        model: The autoencoder.
        clips: Colour in [-1, 1], 4 (t - 1) + 1 frames.
        seed: Fixes the random maps and the noise.
        align: Weight of the distance between video and image latents, relative to the latents' variance.
        noise: Noise that the decoder must bear, relative to each channel's deviation.

    Returns:
        The loss, and figures for the curve (PSNR in dB of the three decodings, the mismatch).
    """
    g = generator(seed, device=clips.device)
    latents = model.encode(clips)
    pictures = clips[:, ::4]
    alone = model.encode(pictures.flatten(0, 1)[:, None])[:, 0]
    deviation = alone.detach().std((0, 2, 3), keepdim=True) + 1e-3
    mismatch = ((latents.flatten(0, 1) - alone) / deviation).square().mean()
    jitter = lambda z: z + noise * deviation.reshape(-1, 1, 1) * torch.randn(z.shape, generator=g, device=z.device)

    video = model.decode(jitter(latents))
    some = slice(seed % 2, None, 2)  # half of the pictures at each step
    shown = pictures.flatten(0, 1)[some]
    still = model.decode(jitter(latents.flatten(0, 1)[some])[:, None])[:, 0]
    grid = random_affine(len(shown), g)
    moved = model.decode(warp(alone[some], grid)[:, None])[:, 0]
    target = warp(shown, grid)
    inside = warp(torch.ones_like(target[:, :1]), grid) > 0.999
    loss = (
        _distance(video, clips)
        + 0.5 * _distance(still, shown)
        + 1.5 * _distance(moved * inside, target * inside)
        + align * mismatch
        + 1e-4 * latents.square().mean()
    )
    with torch.no_grad():
        figures = {
            "video_db": psnr(video, clips),
            "image_db": psnr(still, shown),
            "moved_db": psnr(moved * inside, target * inside) + 10 * inside.float().mean().log10(),
            "mismatch": mismatch,
        }
    return loss, figures


def _distance(a: Tensor, b: Tensor) -> Tensor:
    d = a - b
    return d.abs().mean() + 4 * d.square().mean()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], over all elements."""
    return -10 * ((a.clamp(-1, 1) - b) / 2).square().mean().clamp(min=1e-10).log10()


def random_affine(count: int, g: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Random maps of the picture plane as a walk makes them: shift, zoom, foreshortening, a little roll."""
    u = lambda scale: (torch.rand(count, generator=g, device=g.device) * 2 - 1) * scale
    zoom, stretch, roll, shear = (u(0.4)).exp(), u(0.3).exp(), u(0.15), u(0.15)
    row_x = torch.stack([zoom * stretch * roll.cos(), -zoom * roll.sin() + shear, u(0.3)], -1)
    row_y = torch.stack([zoom * roll.sin(), zoom / stretch * roll.cos(), u(0.3)], -1)
    return torch.stack([row_x, row_y], 1)


def warp(pictures: Float[Tensor, "n c h w"], maps: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n c h w"]:
    """Resample on a mapped grid, bilinear, corner convention: the same call moves pictures and their latents."""
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
