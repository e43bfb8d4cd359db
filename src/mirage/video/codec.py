"""What every video autoencoder offers the loop: frames in [-1, 1] to normalised latents and back."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class LatentCodec(ABC):
    """A causal video autoencoder: the first frame stands alone, then `temporal_stride` frames share one latent.

    Time comes before channels. Latents are normalised: about zero mean and unit variance per channel.

    Attributes:
        channels: Channels of a latent.
        stride: Pixels per latent cell, along both axes.
        temporal_stride: Video frames per latent frame, after the first.
    """

    channels: int
    stride: int
    temporal_stride: int

    @abstractmethod
    def encode(
        self, frames: Float[Tensor, "b f 3 h w"]
    ) -> Float[Tensor, "b 1+(f-1)//{self.temporal_stride} {self.channels} h//{self.stride} w//{self.stride}"]:
        """Normalised latents of whole clips; a clip of one frame is the image path.

        Args:
            frames: Colour in [-1, 1]; see `check` for the sizes that are accepted.

        Returns:
            Latents, normalised, in the dtype of the codec.
        """

    @abstractmethod
    def decode(
        self, latents: Float[Tensor, "b t {self.channels} h w"]
    ) -> Float[Tensor, "b 1+(t-1)*{self.temporal_stride} 3 h*{self.stride} w*{self.stride}"]:
        """Frames of normalised latents.

        Args:
            latents: Normalised latents.

        Returns:
            Colour, about [-1, 1]; the caller clamps.
        """

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a clip of `frames` frames.

        Args:
            frames: Video frames, 1 + a multiple of the temporal stride.

        Returns:
            1 + the number of whole groups that follow the first frame.

        Raises:
            ValueError: If the count does not fit; it is never truncated.
        """
        if frames < 1 or (frames - 1) % self.temporal_stride:
            step = self.temporal_stride
            below = max(1, frames - (frames - 1) % step)
            raise ValueError(
                f"frames must be 1 + a multiple of {step}, got {frames}; take {below} or {below + step} frames"
            )
        return 1 + (frames - 1) // self.temporal_stride

    def video_frames(self, latent_frames: int) -> int:
        """Video frames that `latent_frames` latents decode to; the inverse of `latent_frames`."""
        return 1 + self.temporal_stride * (latent_frames - 1)

    def check(self, frames: Float[Tensor, "b f 3 h w"]) -> None:
        """Refuse clips that `encode` would have to cut silently.

        Args:
            frames: A clip about to be encoded.

        Raises:
            ValueError: If the frame count or the height and width do not fit the strides.
        """
        self.latent_frames(frames.shape[1])
        h, w = frames.shape[-2:]
        if min(h, w) < self.stride or h % self.stride or w % self.stride:
            raise ValueError(f"height and width must be multiples of {self.stride}, got {h} x {w}; resize or crop")
