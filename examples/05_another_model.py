"""The memory needs no model of ours: here it holds latents of FLUX.2's tiny autoencoder, of a real place.

python examples/05_another_model.py WEIGHTS RGBD OUT    WEIGHTS: taef2_*.pth of github.com/madebyollin/taesd (MIT);
                                                        RGBD: rgb/, depth/ and cameras.npz; OUT: a new folder
"""

import sys
from pathlib import Path

import numpy as np
import torch

from mirage.camera import load_trajectory
from mirage.export import export_ply
from mirage.inputs import fit_depth, read_depth
from mirage.memory import LatentMemory
from mirage.memory.holes import fill_holes
from mirage.video.codec import LatentCodec
from mirage.video.io import fit_image, images_to_tensor, read_image, tensor_to_images, write_image
from mirage.video.picture import contact_sheet, shade_unseen
from mirage.video.taef2 import TinyFlux2

EARLY, LATER, SIZE = 0, (2, 5, 108), (240, 360)  # at frame 108 the walk is back where it began


class MyCodec(LatentCodec):
    """Any autoencoder: frames (b f 3 h w) in [-1, 1] to latents (b t c h/stride w/stride) of about unit variance."""

    channels, stride, temporal_stride = 32, 8, 1

    def __init__(self, model: TinyFlux2):
        self.model = model

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        self.check(frames)
        return self.model.encode(frames.flatten(0, 1) / 2 + 0.5).unflatten(0, frames.shape[:2]) / 0.8

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        images = self.model.decode(latents.flatten(0, 1) * 0.8) * 2 - 1
        return images.clamp(-1, 1).unflatten(0, latents.shape[:2])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"Three folders are needed.\n\n{__doc__}")
    weights, sequence, out = map(Path, sys.argv[1:])
    codec = MyCodec(TinyFlux2.from_folder(weights))
    cameras = load_trajectory(sequence).cameras.fit(*SIZE)[0]
    photo = {i: fit_image(read_image(sequence / f"rgb/{i:05}.jpg"), *SIZE) for i in (EARLY, *LATER)}
    depth = torch.from_numpy(read_depth(sequence / f"depth/{EARLY:05}.png", 1000.0))  # millimetres
    latents = codec.encode(images_to_tensor(photo[EARLY])[None, None])[0]
    memory = LatentMemory.from_view(latents, fit_depth(depth, *SIZE)[None], cameras[EARLY])
    memory.save(out / "memory.safetensors")
    print(f"{export_ply(memory, codec, out / 'points.ply', pixels=True):,} points in {out / 'points.ply'}")
    memory = LatentMemory.load(out / "memory.safetensors", stride=codec.stride, channels=codec.channels)
    known = memory.read(cameras[LATER])
    read = tensor_to_images(codec.decode(fill_holes(known.features, known.visible)[:, None])[:, 0])
    rows = [(photo[i], r, shade_unseen(r, v)) for i, r, v in zip(LATER, read, known.visible.numpy(), strict=True)]
    title = f"Left: the true frames {LATER}. Middle: out of a memory of frame {EARLY}. Right: what it has not seen"
    write_image(out / "read.jpg", contact_sheet(np.concatenate(rows), columns=3, title=title))
