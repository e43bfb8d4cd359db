"""Stage 1: the autoencoder learns to be exact, aligned over time, and to move as the picture moves."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mirage.training.fit import generator
from mirage.video.nano import NanoAutoencoder

Equivariance = Literal["none", "affine", "homography"]
EQUIVARIANCES = get_args(Equivariance)


def autoencoder_loss(
    model: NanoAutoencoder,
    clips: Float[Tensor, "b f 3 h w"],
    seed: int,
    *,
    align: float = 0.05,
    noise: float = 0.04,
    equivariance: Equivariance = "affine",
    moved_weight: float = 1.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction of the clip, of its pictures alone, and of pictures moved in latent space.

    Three demands from the first step: clips come back; a group's latent equals the image latent of its last frame and
    decodes as a picture; latents that are resampled by a random map decode to the picture resampled by it.

    Args:
        model: The autoencoder.
        clips: Colour in [-1, 1], 4 (t - 1) + 1 frames.
        seed: Fixes the random maps and the noise.
        align: Weight of the distance between video and image latents, relative to the latents' variance.
        noise: Noise that the decoder must bear, relative to each channel's deviation.
        equivariance: The maps of the third demand: "affine", the wider "homography", or "none" to do without it.
        moved_weight: Weight of the third demand, relative to the first.

    Returns:
        The loss, and figures for the curve (PSNR in dB of the decodings, the mismatch).
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
    loss = distance(video, clips) + 0.5 * distance(still, shown)
    loss = loss + align * mismatch + 1e-4 * latents.square().mean()
    figures = {"video_db": psnr(video, clips), "image_db": psnr(still, shown), "mismatch": mismatch}
    if equivariance != "none":
        maps = (random_affine if equivariance == "affine" else random_homography)(len(shown), g)
        moved = model.decode(warp(alone[some], maps)[:, None])[:, 0]
        target = warp(shown, maps)
        inside = warp(torch.ones_like(target[:, :1]), maps) > 0.999
        loss = loss + moved_weight * distance(moved * inside, target * inside)
        figures["moved_db"] = psnr(moved * inside, target * inside) + 10 * inside.float().mean().log10()
    return loss, {name: figure.detach() for name, figure in figures.items()}


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute error and four times the squared one."""
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


def random_homography(count: int, g: torch.Generator) -> Float[Tensor, "n 3 3"]:
    """Random maps as a slanted surface makes them: half as strong again as the affine ones, and with perspective."""
    u = lambda scale: (torch.rand(count, generator=g, device=g.device) * 2 - 1) * scale
    zoom, stretch, roll, shear = u(0.6).exp(), u(0.45).exp(), u(0.25), u(0.2)
    row_x = torch.stack([zoom * stretch * roll.cos(), -zoom * roll.sin() + shear, u(0.4)], -1)
    row_y = torch.stack([zoom * roll.sin(), zoom / stretch * roll.cos(), u(0.4)], -1)
    row_w = torch.stack([u(0.25), u(0.25), torch.ones(count, device=g.device)], -1)
    return torch.stack([row_x, row_y, row_w], 1)


def warp(pictures: Float[Tensor, "n c h w"], maps: Float[Tensor, "n r 3"]) -> Float[Tensor, "n c h w"]:
    """Resample on a mapped grid, bilinear, corner convention: the same call moves pictures and their latents.

    Maps of two rows are affine, of three homographies; the picture's sides are at -1 and 1.
    """
    if maps.shape[1] == 2:
        grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    else:
        still = torch.eye(2, 3, device=maps.device, dtype=maps.dtype).expand(len(maps), 2, 3)
        places = F.pad(F.affine_grid(still, list(pictures.shape), align_corners=False), (0, 1), value=1.0)
        rays = torch.einsum("nij,nhwj->nhwi", maps, places)
        grid = rays[..., :2] / rays[..., 2:]
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
