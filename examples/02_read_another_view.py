"""Read the memory of a picture along a path: no network but the decoder, nothing is imagined.

python examples/02_read_another_view.py IMAGE
"""

import sys

from mirage import Inputs, MiragePipeline, write_video
from mirage.preview import preview

pipeline = MiragePipeline.from_pretrained("nano")
inputs = Inputs.load(sys.argv[1], "orbit:radius=3,degrees=40", frames=33)
print(inputs.path)

seen = preview(pipeline, inputs.image, inputs.cameras)
print(seen.scene)
for frame in range(0, 33, 8):
    print(f"frame {frame:2}: {seen.coverage[frame]:4.0%} known")
write_video("read.mp4", seen.frames)  # what is not known is hatched
