"""The Wan video autoencoder of diffusers behind `LatentCodec`: any size of it, 2.1 or 2.2."""

from typing import Any

import torch
from diffusers import AutoencoderKLWan
from jaxtyping import Float
from torch import Tensor

from mirage.video.codec import LatentCodec

WAN22: dict[str, Any] = dict(
    base_dim=160, decoder_base_dim=256, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2, is_residual=True,
    temperal_downsample=[False, True, True], in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16,
    latents_mean=[
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
        0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
        -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ],
    latents_std=[
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885,
        0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338,
        0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458,
        1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ],
)  # fmt: skip
"""Wan 2.2's own size, 705 million parameters. The statistics of its latents are not in the weights file; they are taken
from github.com/Wan-Video/Wan2.2, wan/modules/vae2_2.py."""

TINY16: dict[str, Any] = dict(
    base_dim=16, decoder_base_dim=16, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=1, is_residual=True,
    temperal_downsample=[False, True, True], in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16,
    latents_mean=[0.1] * 48, latents_std=[0.5] * 48,
)  # fmt: skip
"""Wan 2.2's layout (stride 16, 48 channels) in 2.9 million parameters, for tests and dry runs; it has no weights."""

TINY8: dict[str, Any] = dict(base_dim=16, decoder_base_dim=16, num_res_blocks=1)
"""Wan 2.1's layout (stride 8, 16 channels) in 2.6 million parameters, for tests and dry runs; it has no weights."""


class WanCodec(LatentCodec):
    """Wan's autoencoder with normalised latents and time before channels.

    Tiling and slicing are those of the wrapped module: `codec.vae.enable_tiling()`.

    Args:
        vae: The autoencoder; its configuration holds mean and deviation of its latents.

    Raises:
        ValueError: If the configuration's mean and deviation are not one pair per channel, deviation positive.

    Example:
        >>> codec = WanCodec(AutoencoderKLWan(**TINY8))
        >>> codec.channels, codec.stride, codec.temporal_stride
        (16, 8, 4)
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
        if not len(mean) == len(std) == vae.config.z_dim or not (std > 0).all():
            raise ValueError(
                f"latents_mean and latents_std must hold {vae.config.z_dim} numbers, the latter positive, "
                f"got {len(mean)} and {len(std)}; take them from the configuration that came with the weights"
            )
        self.vae = vae
        self.channels = vae.config.z_dim
        self.stride = vae.config.scale_factor_spatial
        self.temporal_stride = vae.config.scale_factor_temporal
        self._mean, self._std = mean[:, None, None], std[:, None, None]  # float32 whatever the autoencoder's dtype

    @classmethod
    def untrained(cls, config: dict[str, Any]) -> "WanCodec":
        """An autoencoder of random weights, for tests and for taking its time.

        Args:
            config: As `AutoencoderKLWan` takes it, such as `TINY16` or `WAN22`.

        Returns:
            The codec, on the CPU.
        """
        return cls(AutoencoderKLWan(**config).eval())

    def encode(
        self, frames: Float[Tensor, "b f 3 h w"]
    ) -> Float[Tensor, "b 1+(f-1)//{self.temporal_stride} {self.channels} h//{self.stride} w//{self.stride}"]:
        """Normalised latents of whole clips; a clip of one frame is the image path.

        The mode of the posterior, so nothing is random. A frame count that the autoencoder would truncate is refused.

        Args:
            frames: Colour in [-1, 1]; `f` is 1 + a multiple of the temporal stride.

        Returns:
            Latents, normalised, in the dtype of the autoencoder.

        Raises:
            ValueError: See `check`.
        """
        self.check(frames)
        latents = self.vae.encode(frames.transpose(1, 2).to(self.vae.dtype)).latent_dist.mode().transpose(1, 2)
        normalised = (latents.float() - self._mean.to(latents.device)) / self._std.to(latents.device)
        return normalised.to(latents.dtype)

    def decode(
        self, latents: Float[Tensor, "b t {self.channels} h w"]
    ) -> Float[Tensor, "b 1+(t-1)*{self.temporal_stride} 3 h*{self.stride} w*{self.stride}"]:
        """Frames of normalised latents, clamped to [-1, 1].

        Args:
            latents: Normalised latents.

        Returns:
            Colour in [-1, 1], in the dtype of the autoencoder.
        """
        raw = latents.float() * self._std.to(latents.device) + self._mean.to(latents.device)
        return self.vae.decode(raw.transpose(1, 2).to(self.vae.dtype)).sample.transpose(1, 2)
