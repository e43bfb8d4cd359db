"""What happens within a group of frames: reads at all of its poses become the group's video latent.

A video latent stands for several frames, but a read shows one pose. The camera path gives the others too: the memory is
read at each of them, and a small net adds to the read of the group's last frame what the others tell. So what is read
speaks the code of the video, and nothing of it is ever stored: a memory holds latents of single pictures.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class GroupMotion(nn.Module):
    """Adds to the reads of latent frames what the reads of the frames between them tell.

    At its initialisation it changes nothing, and it never changes a cell that all frames of its group read from where
    it was stored: a camera that stands still.

    Args:
        channels: Channels of a latent.
        frames: Frames of a group: the temporal stride of the autoencoder.
        width: Of the hidden layers.
        blocks: Residual blocks of two convolutions.

    Raises:
        ValueError: If a number is not positive, or a group is of a single frame.
    """

    def __init__(self, *, channels: int, frames: int, width: int = 96, blocks: int = 2):
        super().__init__()
        sizes = (channels, frames, width, blocks)
        if not all(type(size) is int and size > 0 for size in sizes) or frames < 2:
            raise ValueError("channels, width and blocks must be positive whole numbers and frames at least 2, got "
                             f"{channels=}, {frames=}, {width=}, {blocks=}")  # fmt: skip
        self.config = {"frames": frames, "width": width, "blocks": blocks}
        self.frames = frames
        self.enter = nn.Conv2d((frames + 1) * (channels + 2), width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(blocks)
        )
        self.leave = nn.Conv2d(width, channels, 1)
        for layer in (*(block[-1] for block in self.blocks), self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, reads: Float[Tensor, "f c h w"], visible: Bool[Tensor, "f h w"], unmoved: Bool[Tensor, "f h w"]
    ) -> Float[Tensor, "t c h w"]:
        """Give what is known of the latent frames of a video.

        Args:
            reads: Latents read at the poses of all its frames, one and then whole groups; zero where not visible.
            visible: Cells that the memory explains.
            unmoved: Cells that are read from where they were stored.

        Returns:
            Latents of the first frame, as it was read, and of each group, in the dtype of `reads`.

        Raises:
            ValueError: If the frames are not one and whole groups.
        """
        n = self.frames
        if not len(reads) or (len(reads) - 1) % n:
            raise ValueError(f"reads must be of 1 + k * {n} frames, one and whole groups, got {len(reads)}")
        last = reads[n::n]
        if not len(last):
            return reads
        to = next(self.parameters())
        told = torch.cat([reads.to(to), visible[:, None].to(to), unmoved[:, None].to(to)], 1)
        told = told.unfold(0, n + 1, n).movedim(-1, 1).flatten(1, 2)  # each group with the frame before it
        x = self.enter(told.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = x + block(x)
        change = self.leave(F.silu(x))
        still = unmoved[1:].unflatten(0, (-1, n)).all(1)
        mend = (visible[n::n] & ~still)[:, None]
        return torch.cat([reads[:1], torch.where(mend, (last.to(to) + change).to(reads.dtype), last)])
