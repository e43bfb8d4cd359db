"""What the embedded model makes of photographs: contact sheets and figures for docs/photographs.md.

python benchmarks/photographs.py DATA [--model nano] [--out docs/images]

DATA holds spatia_test_cases/ (three photographs with camera paths) and hololens_office_loop/ (a real RGB-D walk).
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch

from mirage import Inputs, MiragePipeline, fit_image, read_image
from mirage.preview import path_in_scene, preview
from mirage.report import decoded_reads, psnr, returns, video_sheet
from mirage.video.io import images_to_tensor, tensor_to_images, write_image

RETURN = "there-and-back:forward 0.5 and right 20deg"


def cases(data: Path) -> dict[str, tuple[Path, str, dict]]:
    """Name -> picture, path and options."""
    spatia, office = data / "spatia_test_cases", data / "hololens_office_loop"
    known = {"depth": office / "depth/00000.png", "depth_scale": 1000.0}
    found = {f"case-{i}": (spatia / f"case_{i}/img.jpg", str(spatia / f"case_{i}"), {}) for i in (1, 2, 3)}
    found |= {f"return-{i}": (spatia / f"case_{i}/img.jpg", RETURN, {}) for i in (1, 2, 3)}
    found["office-return"] = (office / "rgb/00000.jpg", RETURN, known)
    found["office-walk"] = (office / "rgb/00000.jpg", str(office), known)
    return found


def load(pipeline: MiragePipeline, image: Path, path: str, options: dict) -> Inputs:
    """The inputs; a path in a unit of its own is brought into the scene, as by `--scale auto`."""
    size = {"like": tuple(pipeline.config.size)}
    inputs = Inputs.load(image, path, **size, **options)
    scene = path_in_scene(pipeline.begin(inputs.image, inputs.cameras[0], depth=inputs.depth).memory, inputs.cameras)
    return inputs if "depth" in options else Inputs.load(image, path, scale=scene.factor, **size)


def measure(pipeline: MiragePipeline, name: str, inputs: Inputs, out: Path, truth: np.ndarray | None) -> str:
    """Make one video and its sheet, and a line of the table."""
    chunks, noise = [], torch.Generator().manual_seed(0)
    start = time.perf_counter()
    output = pipeline(
        inputs.image, inputs.cameras, depth=inputs.depth, generator=noise, callback_on_chunk_end=chunks.append
    )
    speed = len(output.frames) / (time.perf_counter() - start)
    known = [picture for chunk in chunks for picture in decoded_reads(pipeline, chunk)]
    sheet = video_sheet(output.frames, known, output.coverage, pipeline.codec.temporal_stride, truth=truth)
    write_image(out / f"photo-{name}.jpg", sheet)
    picture = images_to_tensor(inputs.image)[None, None]
    ceiling = psnr(tensor_to_images(pipeline.codec.decode(pipeline.codec.encode(picture)))[0, 0], inputs.image)
    end = truth[-1] if truth is not None else inputs.image if returns(inputs.path) else None
    back = control = "-"
    if end is not None:
        alone = preview(pipeline, inputs.image, inputs.cameras[[0, -1]], depth=inputs.depth)
        back, control = f"{psnr(output.frames[-1], end):.1f}", f"{psnr(alone.reads[-1], end):.1f}"
    return (
        f"| {name} | {len(output.frames)} | {inputs.cameras.height} x {inputs.cameras.width} | "
        f"{np.mean(output.coverage):.0%} | {ceiling:.1f} | {back} | {control} | {speed:.1f} |"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    pipeline = MiragePipeline.from_pretrained(arguments.model)
    pipeline.set_progress_bar_config(disable=True)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| video | frames | pixels | known | autoencoder, dB | return, dB | memory alone, dB | frames per second |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, (image, path, options) in cases(arguments.data).items():
        inputs = load(pipeline, image, path, options)
        truth = None
        if name == "office-walk":
            real = sorted((arguments.data / "hololens_office_loop/rgb").glob("*.jpg"))[: len(inputs.cameras)]
            truth = np.stack([fit_image(read_image(file), *inputs.image.shape[:2]) for file in real])
        print(measure(pipeline, name, inputs, arguments.out, truth), flush=True)


if __name__ == "__main__":
    main()
