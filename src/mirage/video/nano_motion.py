"""What lies between two latents of the embedded autoencoder: where each of three frames is in the pictures beside it.

A decoder of cells cannot move a picture by less than a cell as sharply as resampling moves it. So the motion is read
from the two latents, the pictures of both are carried along it, and small weights say what to show of the three.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-activation residual block without normalisation; starts as the identity."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class PairFlow(nn.Module):
    """Motion from a pair of latents, and how far it is to be trusted; on a grid of twice the latents' resolution.

    Both latents are compared on a grid of half their resolution, up to `reach` cells away (80 pixels), and what fits is
    spread over the picture. A new one says that nothing moves.
    """

    reach = 5

    def __init__(self, channels: int, width: int = 128):
        super().__init__()
        self.enter = nn.Conv2d(channels, 64, 3, stride=2, padding=1)
        self.look = Block(64)
        self.join = nn.Conv2d(128 + (2 * self.reach + 1) ** 2, width, 1)
        self.blocks = nn.Sequential(*[Block(width, dilation) for dilation in (1, 2, 4, 2, 1)])
        self.up = nn.Conv2d(width, 4 * 64, 1)
        self.fine = nn.Conv2d(64 + 2 * channels, 64, 3, padding=1)
        self.mend = Block(64)
        self.leave = nn.Conv2d(64, 4 * 18, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        nn.init.constant_(self.leave.bias[48:], -1.5)  # of the softmax: half is the decoder's own

    def forward(
        self, pairs: Float[Tensor, "n c2 h w"]
    ) -> tuple[Float[Tensor, "n 3 2 2 h2 w2"], Float[Tensor, "n 3 2 h2 w2"]]:
        """Of each frame: pixels (x, y) to where it is in the picture before and the one after, and their logits."""
        before, after = self.look(self.enter(torch.cat(pairs.chunk(2, 1)))).chunk(2)
        known = torch.cat([before, after, _alike(after, before, self.reach)], 1)
        x = F.pixel_shuffle(self.up(self.blocks(self.join(known))), 2)[..., : pairs.shape[-2], : pairs.shape[-1]]
        x = self.leave(F.silu(self.mend(self.fine(torch.cat([x, pairs], 1)))))
        x = F.pixel_shuffle(x, 2).float()
        return 8 * x[:, :12].unflatten(1, (3, 2, 2)), x[:, 12:].unflatten(1, (3, 2))


def _alike(here: Tensor, there: Tensor, reach: int) -> Tensor:
    """How each cell's code fits the codes around the same place of another map: (2 reach + 1)^2 channels."""
    channels, h, w = here.shape[1:]
    wide, side = F.pad(there, (reach,) * 4), range(2 * reach + 1)
    fits = [(here * wide[:, :, y : y + h, x : x + w]).sum(1) for y in side for x in side]
    return torch.stack(fits, 1) / channels**0.5


class Fuse(nn.Module):
    """Three pictures of each frame between, the decoder's own and two carried ones, become one; starts as their mean.

    What it adds to the logits of the two, and to the mean, it sees in the pictures: carried ones that disagree with the
    decoder's own were carried wrongly.
    """

    def __init__(self, width: int = 24):
        super().__init__()
        self.enter = nn.Conv2d(9, width, 2, stride=2)
        self.leave = nn.Conv2d(width, 20, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self,
        frames: Float[Tensor, "b f 3 h w"],
        flows: Float[Tensor, "n 3 2 2 y x"],
        trust: Float[Tensor, "n 3 2 y x"],
    ) -> Float[Tensor, "b f 3 h w"]:
        """The frames again, those between latent frames made anew, a group at a time: it needs the room of one."""
        groups = (frames.shape[1] - 1) // 4
        flows, trust = flows.unflatten(0, (-1, groups)), trust.unflatten(0, (-1, groups))
        made = [frames[:, :1]]
        for i in range(groups):
            group = frames[:, 4 * i : 4 * i + 5]
            made += [self._between(group, flows[:, i], trust[:, i]), group[:, 4:]]
        return torch.cat(made, 1)

    def _between(
        self, group: Float[Tensor, "b 5 3 h w"], flows: Float[Tensor, "b 3 2 2 y x"], trust: Float[Tensor, "b 3 2 y x"]
    ) -> Float[Tensor, "b 3 3 h w"]:
        on_grid = torch.cat([flows.flatten(1, 3), trust.flatten(1, 2)], 1)
        fine = F.interpolate(on_grid, size=group.shape[-2:], mode="bilinear", align_corners=False)
        flows, trust = fine[:, :12].unflatten(1, (3, 2, 2)), fine[:, 12:].unflatten(1, (3, 2))
        own = group[:, 1:4]
        before, in_before = carry(group[:, 0], flows[:, :, 0])
        after, in_after = carry(group[:, 4], flows[:, :, 1])
        shown = torch.cat([own, before.to(own), after.to(own)], 2)
        more = self.leave(F.silu(self.enter(shown.flatten(0, 1).contiguous(memory_format=torch.channels_last))))
        more = F.pixel_shuffle(more, 2).unflatten(0, own.shape[:2]).float()
        sure = trust + more[:, :, 3:] - 10.0 * ~torch.stack([in_before, in_after], 2)
        parts = F.pad(sure, (0, 0, 0, 0, 1, 0)).softmax(2)[:, :, :, None]
        between = own * parts[:, :, 0] + before * parts[:, :, 1] + after * parts[:, :, 2] + more[:, :, :3]
        return between.to(own)


def carry(
    pictures: Float[Tensor, "n 3 h w"], flows: Float[Tensor, "n k 2 h w"]
) -> tuple[Float[Tensor, "n k 3 h w"], Tensor]:
    """Resample each picture along flows, bilinear, float32.

    Convention:
        Pixel centres at + 0.5; a pixel shows what is at its place plus its flow (x, y); the picture's edge goes on.

    Args:
        pictures: What is carried.
        flows: Pixels, x first.

    Returns:
        The pictures, and where they show what lies inside.

    Example:
        >>> ramp = torch.arange(4.0).expand(1, 3, 2, 4)
        >>> seen, inside = carry(ramp, torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1).expand(1, 1, 2, 2, 4))
        >>> seen[0, 0, 0, 0].tolist(), inside[0, 0, 0].tolist()
        ([1.0, 2.0, 3.0, 3.0], [True, True, True, False])
    """
    k, _, h, w = flows.shape[1:]
    x = torch.arange(w, device=flows.device) + 0.5
    y = (torch.arange(h, device=flows.device) + 0.5)[:, None]
    grid = torch.stack([(x + flows[:, :, 0]) * (2 / w) - 1, (y + flows[:, :, 1]) * (2 / h) - 1], -1)
    seen = F.grid_sample(
        pictures.float().contiguous(), grid.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False
    )
    return seen.unflatten(2, (k, h)).transpose(1, 2), grid.abs().amax(-1) < 1
