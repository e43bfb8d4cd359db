"""The tiny autoencoder of FLUX.2's latent space (taef2 of github.com/madebyollin/taesd, MIT): real latents on a CPU."""

import pickle
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mirage.video.codec import LatentCodec

WIDTH, DEEP = 64, 256
SPREAD = 0.8  # standard deviation of the latents of photographs; 0.7 to 0.9 from one set of pictures to another


class TinyFlux2(nn.Module):
    """Image autoencoder of 2.7 million parameters: stride 8, 32 channels, colours in [0, 1].

    The names of the parameters are those of the published files.
    """

    channels = 32

    def __init__(self):
        super().__init__()
        encoder, decoder = [_conv(3, WIDTH), _Block()], [nn.Identity(), _conv(self.channels, WIDTH), nn.ReLU()]
        for deep in (False, False, True):
            encoder += [_conv(WIDTH, WIDTH, bias=False, stride=2), *(_Block(deep) for _ in range(3))]
        for deep in (True, False, False):
            up = [nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)]
            decoder += [*(_Block(deep) for _ in range(3)), *up]
        self.encoder = nn.Sequential(*encoder, _conv(WIDTH, self.channels))
        self.decoder = nn.Sequential(*decoder, _Block(), _conv(WIDTH, 3))

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TinyFlux2":
        """Read `taef2_encoder.pth` and `taef2_decoder.pth`.

        Args:
            folder: Where they are.

        Returns:
            The autoencoder, in float32, not to be trained.

        Raises:
            ValueError: If a file is missing or holds something else.
        """
        model = cls()
        for name, part in (("encoder", model.encoder), ("decoder", model.decoder)):
            file = Path(folder) / f"taef2_{name}.pth"
            try:
                part.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
            except (OSError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
                raise ValueError(f"folder: {file} is not the {name} of taef2: {error}") from error
        return model.to(memory_format=torch.channels_last).requires_grad_(False).eval()

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 32 h8 w8"]:
        """Latents of images in [0, 1]."""
        return self.encoder(images)

    def decode(self, latents: Float[Tensor, "b 32 h8 w8"]) -> Float[Tensor, "b 3 h w"]:
        """Images of latents, about [0, 1]."""
        return self.decoder(3 * (latents / 3).tanh())


class TinyFlux2Codec(LatentCodec):
    """The tiny autoencoder as a `LatentCodec`: every frame is an image of its own."""

    channels = TinyFlux2.channels
    stride = 8
    temporal_stride = 1

    def __init__(self, model: TinyFlux2):
        self.model = model

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "b f 3 H W"]) -> Float[Tensor, "b f c h w"]:
        self.check(frames)
        images = (frames.flatten(0, 1).clamp(-1, 1) + 1) / 2
        latents = self.model.encode(images.contiguous(memory_format=torch.channels_last))  # a third faster
        return latents.unflatten(0, frames.shape[:2]) / SPREAD

    def decode(self, latents: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b f 3 H W"]:
        raw = latents.flatten(0, 1) * SPREAD
        images = self.model.decode(raw.contiguous(memory_format=torch.channels_last))
        return (images * 2 - 1).clamp(-1, 1).unflatten(0, latents.shape[:2])


class _Block(nn.Module):
    """Three convolutions beside the input; `deep` ones see the whole picture through a normalisation."""

    def __init__(self, deep: bool = False):
        super().__init__()
        inner = [_conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH)]
        wide = [nn.Conv2d(WIDTH, DEEP, 1, bias=False), nn.GroupNorm(4, DEEP), nn.ReLU()]
        self.conv = nn.Sequential(*inner)
        self.pool = nn.Sequential(*wide, nn.Conv2d(DEEP, WIDTH, 1, bias=False)) if deep else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return (self.conv(x) + x).relu()


def _conv(inner: int, outer: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, padding=1, **options)
