"""Make a video from a picture and a path, and look at each chunk as soon as it is made.

python examples/03_generate.py IMAGE
"""

import sys

import torch

from mirage import Inputs, MiragePipeline, write_video
from mirage.pipeline import ChunkResult

pipeline = MiragePipeline.from_pretrained("nano")
inputs = Inputs.load(sys.argv[1], "forward 0.5, left 20deg", frames=33)


def tell(chunk: ChunkResult) -> None:
    known, new = chunk.known.visible.float().mean(), chunk.update.new
    print(f"frames {chunk.chunk.start} to {chunk.chunk.stop - 1}: {known:.0%} known before, {new} cells were new")


output = pipeline(inputs.image, inputs.cameras, generator=torch.Generator().manual_seed(0), callback_on_chunk_end=tell)
print(f"{output.memory_bytes[-1] / 1024:.0f} KiB are remembered; seconds: {output.seconds}")
write_video("video.mp4", output.frames)
