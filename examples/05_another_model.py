"""The memory needs no model of ours: here it holds and reads latents of the tiny autoencoder of FLUX.2.

python examples/05_another_model.py WEIGHTS RGBD OUT    folders: taef2_*.pth of github.com/madebyollin/taesd (MIT),
                                                        and an RGB-D sequence with rgb/, depth/ and cameras.npz
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mirage.camera import load_trajectory
from mirage.inputs import fit_depth, read_depth
from mirage.memory import LatentMemory
from mirage.video.io import fit_image, images_to_tensor, read_image, tensor_to_images, write_image
from mirage.video.picture import contact_sheet, shade_unseen


class Block(nn.Module):
    def __init__(self, pool: bool = False):
        super().__init__()
        self.conv = nn.Sequential(conv(64, 64), nn.ReLU(), conv(64, 64), nn.ReLU(), conv(64, 64))
        wide = [nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(), nn.Conv2d(256, 64, 1, bias=False)]
        self.pool = nn.Sequential(*wide) if pool else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return (self.conv(x) + x).relu()


def conv(inner: int, outer: int, **options) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, padding=1, **options)


def load(folder: Path) -> tuple[nn.Module, nn.Module]:
    encoder, decoder = [conv(3, 64), Block()], [nn.Identity(), conv(32, 64), nn.ReLU()]
    for deep in (False, False, True):
        encoder += [conv(64, 64, bias=False, stride=2), *(Block(deep) for _ in range(3))]
    for deep in (True, False, False):
        decoder += [*(Block(deep) for _ in range(3)), nn.Upsample(scale_factor=2), conv(64, 64, bias=False)]
    both = nn.Sequential(*encoder, conv(64, 32)), nn.Sequential(*decoder, Block(), conv(64, 3))
    for name, part in zip(("encoder", "decoder"), both, strict=True):
        part.load_state_dict(torch.load(folder / f"taef2_{name}.pth", weights_only=True))
    return both


if __name__ == "__main__":
    weights, sequence, out = map(Path, sys.argv[1:])
    encoder, decoder = load(weights)
    cameras = load_trajectory(sequence).cameras.fit(240, 360)[0]
    pictures = [fit_image(read_image(sequence / f"rgb/{i:05}.jpg"), 240, 360) for i in (0, 1, 2, 108)]
    depth = fit_depth(torch.from_numpy(read_depth(sequence / "depth/00000.png", 1000.0)), 240, 360)
    with torch.no_grad():
        latents = encoder((images_to_tensor(pictures[0])[None] + 1) / 2)
        known = LatentMemory.from_view(latents, depth[None], cameras[0]).read(cameras[[0, 1, 2, 108]])
        read = tensor_to_images(decoder((known.features / 3).tanh() * 3) * 2 - 1)
    read = [shade_unseen(picture, seen) for picture, seen in zip(read, known.visible.numpy(), strict=True)]
    write_image(out / "read.jpg", contact_sheet(np.array(pictures + read), columns=4, title="Real frames; read from 0"))
