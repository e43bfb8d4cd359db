"""Mirage as a model of WorldScore's harness: the files for its checkout, and the line in its list of models."""

import re
from pathlib import Path

from mirage.evaluation.worldscore.settings import WorldScore
from mirage.results import results

NAME = "mirage"
TYPES = Path("worldscore/benchmark/utils/modeltype.py")
CONFIG = """\
# Mirage, a video model that follows cameras.
model: {name}
runs_root: ${{oc.env:MODEL_PATH}}/{name}
resolution: [{width}, {height}]  # width, height
generate_type: i2v
frames: {frames}  # per scene; anchors are ends of chunks if frames - 1 is a multiple of a chunk's new frames
fps: {fps}
camera_speed: {camera_speed}
{name}:  # how the videos are made; see mirage.evaluation.worldscore.WorldScore
  model: {model}
  scale: {scale}  # world units of the model per unit of camera_data.json
  lens: {lens}  # correct: principal point in the middle; stock: where the evaluation takes it to be
  steps: {steps}
  guidance: {guidance}
  estimator: {estimator}
  movers: {movers}
  seed: {seed}
"""
ADAPTER = '''\
"""What Mirage gets of an item: the cropped picture, one text per scene, and the cameras, also for dynamic items."""

from worldscore.benchmark.utils.utils import center_crop, generate_prompt_from_list


def adapter_mirage(config, data, helper):
    """(image path, prompts, key cameras, cameras of all frames); writes image_data.json and input_image.png."""
    static = data["image_data"]["visual_movement"] == "static"
    prompts = generate_prompt_from_list(data["inpainting_prompt_list"], data["camera_path"], static=static)
    helper.prepare_data(data["output_dir"], data)
    image_path = center_crop(data["image_path"], config["resolution"], data["output_dir"])
    return image_path, prompts, data["cameras"], data["cameras_interp"]
'''
LOOP = '''\
"""Generate all that WorldScore wants of Mirage: python world_generators/run_mirage_worldscore.py

The loader of video models drops the cameras, that of 3D models has no dynamic items: this one passes both.
"""

import hashlib
import json

import torch
from mirage.evaluation.worldscore import WorldScore, imagine
from mirage.pipeline import MiragePipeline
from mirage.video.io import read_image
from PIL import Image
from worldscore.benchmark.helpers import GetHelpers
from worldscore.benchmark.helpers.adapters.threedgen.adapter_mirage import adapter_mirage
from worldscore.benchmark.helpers.dataloader import DataLoader
from worldscore.benchmark.utils.utils import create_cameras

MODEL = "mirage"


class MirageLoader(DataLoader):
    """Items with their cameras; a dynamic item holds the first camera, and gets no camera_data.json."""

    def __init__(self, config):
        super().__init__(config)
        with open(config["json_path"], encoding="utf-8") as file:
            records = json.load(file)
        for record in records:
            self.camera_path = record["camera_path"]
            self.set_interpframe_num()  # the harness forgets to when it regenerates
            data, *cameras, ignore = self.load_data(record, config["regenerate"])
            if ignore:
                continue
            if cameras:
                data["cameras"], data["cameras_interp"] = map(create_cameras, cameras)
            else:
                first = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
                data["cameras"], data["cameras_interp"] = first[None], first.repeat(config["frames"], 1, 1)
            self.data.append(data)


def main():
    pipeline = None
    for movement in ("static", "dynamic"):
        _, helper = GetHelpers(MODEL, movement)
        helper.adapter = adapter_mirage
        config = helper.config
        width, height = config["resolution"]
        own = {key: config[key] for key in ("frames", "fps", "camera_speed")}
        settings = WorldScore(size=(height, width), **own, **config[MODEL])
        if pipeline is None:
            pipeline = MiragePipeline.from_pretrained(settings.model)
            pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
            pipeline.set_progress_bar_config(disable=True)
        for data in MirageLoader(config).data:
            image, prompts, _, cameras = helper.adapt(data)
            assert len(cameras) == data["total_frames"], "one camera per frame"
            seed = int(hashlib.sha256(f"{settings.seed}/{data['output_dir']}".encode()).hexdigest()[:12], 16)
            video = imagine(pipeline, settings, read_image(image), cameras.double(), prompts, seed)
            helper.save([Image.fromarray(frame) for frame in video])


if __name__ == "__main__":
    main()
'''
INTRINSICS = '''\
"""Give the evaluation the intrinsics of the videos, or its own again: mirage_intrinsics.py corrected | stock

It takes [500, 500, 256, 256] for every image, which is right at 512 x 512 only. Run it in the root of the checkout.
"""

import re
import sys
from pathlib import Path

FILES = ("camera_error_metrics.py", "reprojection_error_metrics.py")
VALUES = {{"stock": "500, 500, 256, 256", "corrected": "{corrected}"}}

if sys.argv[1:] not in (["corrected"], ["stock"]):
    raise SystemExit(__doc__)
old, new = (VALUES[k] for k in (("stock", "corrected") if sys.argv[1] == "corrected" else ("corrected", "stock")))
for name in FILES:
    found = list(Path("worldscore").rglob(name))
    if len(found) != 1:
        raise SystemExit(f"expected one {{name}} under worldscore/, found {{len(found)}}: is this the checkout's root?")
    text = found[0].read_text()
    pattern = r",\\s*".join(rf"{{re.escape(v)}}(?:\\.0*)?(?![0-9.])" for v in old.split(", "))
    if new != old and not re.search(pattern, text) and new in text:
        print(f"{{found[0]}} has {{new}} already")
        continue
    changed, count = re.subn(pattern, new, text)
    if count != 1:
        raise SystemExit(f"{{found[0]}}: expected [{{old}}] once, found {{count}} times; set it by hand to [{{new}}]")
    found[0].write_text(changed)
    print(f"{{found[0]}}: [{{old}}] -> [{{new}}]")
'''


def install(folder: str | Path, config: WorldScore) -> list[Path]:
    """Write the files that make Mirage a model of the harness.

    In a checkout of WorldScore the name is also added to its list of video models: their static and dynamic items are
    both evaluated, those of 3D models only static. Elsewhere the files are laid out as they go into a checkout.

    Args:
        folder: A checkout, or any folder.
        config: The settings that go into the configuration.

    Returns:
        The files that were written.

    Raises:
        ValueError: If the list of models in the checkout is not as expected; nothing has then changed.
        OSError: If a file cannot be written.
    """
    folder = Path(folder)
    none = lambda value: "null" if value is None else value
    values = {key: none(getattr(config, key)) for key in config.__dataclass_fields__}
    cx, cy = (f"{value:g}" for value in config.intrinsics[2:])
    files = {
        f"config/model_configs/{NAME}.yaml": CONFIG.format(
            name=NAME, height=config.size[0], width=config.size[1], **values
        ),
        f"worldscore/benchmark/helpers/adapters/threedgen/adapter_{NAME}.py": ADAPTER,
        f"world_generators/run_{NAME}_worldscore.py": LOOP,
        f"world_generators/{NAME}_intrinsics.py": INTRINSICS.format(corrected=f"500, 500, {cx}, {cy}"),
    }
    listed = folder / TYPES
    if listed.is_file():
        text = listed.read_text(encoding="utf-8")
        if not re.search(rf'"{NAME}"', text):
            text, count = re.subn(r'("videogen"\s*:\s*\[)', rf'\1\n        "{NAME}",', text)
            if count != 1:
                raise ValueError(
                    f'{listed} must have one list "videogen", found {count}: add "{NAME}" to it by hand, and write the '
                    "files into an empty folder"
                )
        files[str(TYPES)] = text
    for name, text in files.items():
        path = Path(name)
        with results(folder / path.parent, path.name) as aside:
            (aside / path.name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]
