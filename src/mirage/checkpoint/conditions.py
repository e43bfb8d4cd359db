"""What the memory branches of others read beside the memory's latents: a constant, or an encoded score."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.memory import ColourMemory, Memory, MemoryRead
from mirage.video.codec import LatentCodec


class BranchConditions:
    """Brings what a memory knows into the form that a branch was trained on.

    "mask" takes the read as it is. "constant" (the released code) adds an encoded video of ones, made once per shape.
    "score" (Spatia) is a colour memory's rendering of all frames of the chunk, encoded as a video with black holes, and
    an encoded video of what is seen (1) and not (-1). A latent memory feeds such a branch with its latents and, cell
    by cell, with the encodings of "all seen" and "nothing seen". (That seen is 1 is not documented by its authors.)

    Args:
        codec: The autoencoder.
        layout: `transformer.config.memory_layout`.
        preceding: Most clean frames before the targets that the branch sees too.
    """

    def __init__(self, codec: LatentCodec, layout: str, preceding: int) -> None:
        self.codec, self.layout, self.preceding = codec, layout, preceding
        self._flat: dict[tuple, Tensor] = {}

    def __call__(
        self, memory: Memory, known: MemoryRead, cameras: Cameras, preceding: int
    ) -> tuple[Float[Tensor, "t c h w"], Bool[Tensor, "t h w"], Float[Tensor, "m c h w"] | None]:
        """Give features, visibility and what stands beside them.

        Args:
            memory: What is remembered.
            known: Its read at the target frames.
            cameras: Cameras of all video frames of the chunk.
            preceding: Clean frames before the targets that there are now.

        Returns:
            Features and visibility at the target frames; and at target and preceding frames the second half of the
            branch's channels, None for the layout "mask".
        """
        if self.layout == "mask":
            return known.features, known.visible, None
        frames, (height, width) = len(known.features) + preceding, known.features.shape[2:]
        longest = (
            len(known.features) + self.preceding
        )  # autoencoders are causal: the beginning is that of a shorter video
        seen = self.flat(1.0, longest, height, width, known.features)[:frames]
        if self.layout == "constant":
            return known.features, known.visible, seen
        if not isinstance(memory, ColourMemory):
            unseen = self.flat(-1.0, longest, height, width, seen)[:frames]
            visible = torch.cat([known.visible, known.visible.new_ones(preceding, height, width)])
            return known.features, known.visible, torch.where(visible[:, None], seen, unseen)
        pixels = memory.render(cameras)[1]
        there = pixels.visible[:, None]
        features = self.codec.encode(torch.where(there, pixels.features, -1.0)[None])[0]
        score = self.codec.encode((2.0 * there.to(pixels.features) - 1).expand(-1, 3, -1, -1)[None])[0]
        return features, torch.ones_like(known.visible), torch.cat([score, seen[len(score) :]])

    def flat(
        self, value: float, frames: int, height: int, width: int, like: Tensor
    ) -> Float[Tensor, "{frames} c {height} {width}"]:
        """The latents of a video of one grey, encoded once.

        Args:
            value: The grey, in [-1, 1].
            frames: Latent frames.
            height: Rows of cells.
            width: Columns of cells.
            like: A tensor of the device and dtype that are wanted.

        Returns:
            The latents.
        """
        key = (value, frames, height, width, like.device, like.dtype)
        if key not in self._flat:
            size = (1, self.codec.video_frames(frames), 3, height * self.codec.stride, width * self.codec.stride)
            self._flat[key] = self.codec.encode(torch.full(size, value, device=like.device))[0].to(like)
        return self._flat[key]
