"""Leave a place and come back, with each kind of memory: is it still there?

python examples/04_there_and_back.py IMAGE
"""

import sys

import torch

from mirage import Inputs, MiragePipeline
from mirage.report import psnr
from mirage.video.io import write_image
from mirage.video.picture import return_panel

pipeline = MiragePipeline.from_pretrained("nano")
inputs = Inputs.load(sys.argv[1], "there-and-back:forward 0.5 and right 25deg", frames=33)

returned = {}
for memory in ("latent", "colour", "none"):
    noise = torch.Generator().manual_seed(0)
    output = pipeline(inputs.image, inputs.cameras, memory=memory, generator=noise)
    returned[memory] = output.frames[-1]
    print(f"{memory:>6}: {psnr(returned[memory], inputs.image):.1f} dB, {output.memory.nbytes / 1024:.0f} KiB")

notes = {memory: f"{psnr(frame, inputs.image):.1f} dB" for memory, frame in returned.items()}
write_image("return.png", return_panel(inputs.image, returned, notes))
