"""The embedded model's autoencoder: 8 x 8 pixels and 4 frames per latent cell, light enough to train on a laptop.

A group's latent is anchored to the image latent of the group's *last* frame, so that what is lifted from one picture
and what is generated as video speak the same code: without that, a latent memory is useless as content.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from mirage.video.codec import LatentCodec
from mirage.video.nano_motion import Block, Fuse, PairFlow

# What makes latents, and so what must stay as it is for all that was learned from them; the rest shows them.
ENCODING = ("encoder", "to_latent", "merge_in", "merge", "merge_out")


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[Block(width) for _ in range(count)])


class NanoAutoencoder(ModelMixin, ConfigMixin):
    """A small causal video autoencoder whose video latents are aligned with its image latents.

    Frame 0 is its own latent; each later group of four frames is one. Every frame passes the same 2D encoder; a
    zero-initialised merge adds what the other three frames of a group tell to the last frame's code. The decoder
    expands a latent (seeing the one before) to four feature maps, zero-initialised to four copies of the image path,
    and renders each with the same 2D decoder. With `motion`, the three frames between two latent frames are made of
    that and of the two latent frames, carried along a motion that the latents tell (`nano_motion.py`).
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        widths: Sequence[int] = (24, 64, 128),
        blocks: Sequence[int] = (1, 2, 3),
        motion: bool = False,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ):
        super().__init__()
        half, quarter, eighth = widths
        n_half, n_quarter, n_eighth = blocks
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, half, 3, padding=1),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * half, quarter, 3, padding=1),
            _blocks(quarter, n_quarter),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * quarter, eighth, 1),
            _blocks(eighth, n_eighth),
        )
        self.to_latent = nn.Conv2d(eighth, latent_channels, 1)
        self.merge_in = nn.Conv2d(4 * eighth, eighth, 1)
        self.merge = _blocks(eighth, 1)
        self.merge_out = nn.Conv2d(eighth, latent_channels, 1)
        self.from_latent = nn.Conv2d(latent_channels, eighth, 3, padding=1)
        self.expand_in = nn.Conv2d(2 * latent_channels, eighth, 3, padding=1)
        self.expand = _blocks(eighth, 2)
        self.expand_out = nn.Conv2d(eighth, 4 * eighth, 1)
        self.decoder = nn.Sequential(
            _blocks(eighth, n_eighth),
            nn.Conv2d(eighth, 4 * quarter, 1),
            nn.PixelShuffle(2),
            _blocks(quarter, n_quarter),
            nn.Conv2d(quarter, 4 * half, 3, padding=1),
            nn.PixelShuffle(2),
            _blocks(half, n_half),
            nn.SiLU(),
            nn.Conv2d(half, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.flow = PairFlow(latent_channels) if motion else None
        self.fuse = Fuse() if motion else None
        for layer in (self.merge_out, self.expand_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("mean", torch.tensor(latents_mean or [0.0] * latent_channels), persistent=False)
        self.register_buffer("std", torch.tensor(latents_std or [1.0] * latent_channels), persistent=False)

    def encode(self, frames: Float[Tensor, "b f 3 h w"]) -> Float[Tensor, "b t c h8 w8"]:
        """Raw (not normalised) latents of 4 (t - 1) + 1 frames; frame 0 alone is the image path."""
        b, f = frames.shape[:2]
        features = self.encoder(_channels_last(frames.flatten(0, 1)))
        anchors = features.unflatten(0, (b, f))[:, ::4].flatten(0, 1)
        latents = self.to_latent(anchors).unflatten(0, (b, -1))
        if f == 1:
            return latents
        groups = features.unflatten(0, (b, f))[:, 1:]
        groups = _channels_last(groups.reshape(b * ((f - 1) // 4), -1, *groups.shape[3:]))
        motion = self.merge_out(self.merge(self.merge_in(groups))).unflatten(0, (b, -1))
        return torch.cat([latents[:, :1], latents[:, 1:] + motion], 1)

    def decode(self, latents: Float[Tensor, "b t c h8 w8"]) -> Float[Tensor, "b f 3 h w"]:
        """Frames of raw latents: one for the first, four for each later one."""
        return self.decode_moving(latents)[0]

    def decode_moving(
        self, latents: Float[Tensor, "b t c h8 w8"]
    ) -> tuple[Float[Tensor, "b f 3 h w"], Float[Tensor, "n 3 2 2 h4 w4"] | None]:
        """The frames, and the motion that they were made with, if any."""
        b, t = latents.shape[:2]
        copies = self.from_latent(_channels_last(latents.flatten(0, 1))).unflatten(0, (b, t))
        features = copies[:, :1]
        if t > 1:
            pairs = _channels_last(torch.cat([latents[:, :-1], latents[:, 1:]], 2).flatten(0, 1))
            offsets = self.expand_out(self.expand(self.expand_in(pairs)))
            offsets = offsets.unflatten(1, (4, -1)).unflatten(0, (b, t - 1))
            later = (copies[:, 1:, None] + offsets).flatten(1, 2)
            features = torch.cat([features, later], 1)
        frames = self.decoder(_channels_last(features.flatten(0, 1))).unflatten(0, (b, -1))
        if t == 1 or self.flow is None:
            return frames, None
        flows, trust = self.flow(pairs)
        return self.fuse(frames, flows, trust), flows


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class NanoCodec(LatentCodec):
    """The embedded autoencoder as a `LatentCodec`: normalised latents, stride 8, four frames per latent."""

    stride = 8
    temporal_stride = 4

    def __init__(self, autoencoder: NanoAutoencoder):
        self.autoencoder = autoencoder
        self.channels = autoencoder.config.latent_channels

    def encode(self, frames: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b t c h w"]:
        self.check(frames)
        a = self.autoencoder
        return (a.encode(frames) - a.mean[:, None, None]) / a.std[:, None, None]

    def decode(self, latents: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b f 3 H W"]:
        a = self.autoencoder
        return a.decode(latents * a.std[:, None, None] + a.mean[:, None, None]).clamp(-1, 1)
