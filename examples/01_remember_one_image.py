"""Remember a picture: one latent per cell of 8 x 8 pixels, put where the cell's surface is.

python examples/01_remember_one_image.py IMAGE
"""

import math
import sys

from mirage import Cameras, LatentMemory, MiragePipeline, fit_image, read_image
from mirage.geometry.nano import LatentDepth
from mirage.video.io import images_to_tensor

pipeline = MiragePipeline.from_pretrained("nano")
image = images_to_tensor(fit_image(read_image(sys.argv[1]), 96, 160))[None]
camera = Cameras.from_fov(math.radians(60), 96, 160)

latents = pipeline.codec.encode(image[:, None])[:, 0].detach()
depth = LatentDepth(pipeline.depth_head).estimate(image, latents, camera)
memory = LatentMemory.from_view(latents, depth, camera)

print(f"{len(memory)} elements of {latents.shape[1]} channels, {memory.nbytes / 1024:.1f} KiB")
print(f"the picture itself has {image.numel() / 1024:.1f} KiB in 8 bits per colour")
known = memory.read(camera)
print(f"read where it was taken: {'the same latents' if (known.features == latents).all() else 'other latents'}")
memory.save("memory.safetensors")
