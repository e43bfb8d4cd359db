"""The command `mirage`: it parses, calls and prints; every mistake of a user is one sentence and exit code 2."""

import argparse
import difflib
import io
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import NoReturn

from mirage.batch_command import add_batch, generate_batch
from mirage.evaluate_command import add_evaluate, evaluation_packages
from mirage.explore_command import add_command as add_explore_command
from mirage.model_command import add_doctor, add_model_options, dry_run, said, settle, too_small, weights_of
from mirage.prepare_command import add_command as add_prepare_command
from mirage.results import results
from mirage.train_command import add_commands as add_train_commands
from mirage.world_command import add_commands as add_world_commands

ASSETS = Path(__file__).parent / "assets"
PATH_HELP = (
    "where to go: a preset (orbit, dolly, pan, truck, spiral, random-walk, still; with options as in "
    'orbit:radius=2,degrees=30), a text command as in "forward 2, left 30deg, back 2", a camera file or its folder '
    "(Spatia, RealEstate10K, COLMAP, nerfstudio, TUM, ...: mirage cameras FILE shows what is understood), or "
    "there-and-back: or a-b-a-b: before any of these"
)
LARGEST = 4096  # pixels along a side of a video
DEMO = ("garden", "there-and-back:forward 0.8 and right 25deg")
BENCH_PARTS = "speed,bytes,exactness,loops,growth"
log = logging.getLogger("mirage")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Words after `mirage`; those of the process if None.

    Returns:
        Exit code: 0, 2 after a mistake of the user, 130 after an interruption.
    """
    arguments = argparse.Namespace(words=sys.argv[1:] if argv is None else list(argv), verbose=False)
    arguments.left = "nothing was written"
    try:
        arguments = _parser().parse_args(arguments.words, arguments)
        _prepare_logging(arguments.verbose)
        with _terminable():
            arguments.run(arguments)
        return 0
    except KeyboardInterrupt:
        print(f"\nmirage: interrupted, {arguments.left}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if arguments.verbose:
            log.exception("here:")
        known = isinstance(error, OSError) and error.strerror and error.filename
        told = f"{error.filename}: {error.strerror.lower()}" if known else str(error)
        print(f"mirage: error: {' '.join(told.split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if (told := too_small(error, arguments)) is None:
            raise
        print(f"mirage: error: {' '.join(told.split())}; {arguments.left}", file=sys.stderr)
        return 2


def generate(arguments: argparse.Namespace) -> None:
    """One picture and a path in, a video out."""
    if arguments.batch:
        return generate_batch(arguments, lambda words: _parser().parse_args(words))
    if arguments.dry_run:
        return dry_run(arguments)
    if arguments.world:
        from mirage.world_command import generate_world

        return generate_world(arguments)
    for name, given in (("IMAGE", arguments.image), ("--path", arguments.path), ("--out", arguments.out)):
        if not given:
            raise ValueError(f"{name} is needed, unless --world names a world to go on with; see --help")
    files, texts = ("video.mp4", "contact.jpg", "report.json"), said(arguments)
    with results(arguments.out, *files) as aside:
        _check_picture(arguments.image)
        import torch

        from mirage.pipeline import MiragePipeline
        from mirage.report import decoded_reads, output_figures, path_figures, psnr, returns, video_sheet
        from mirage.video.io import write_image, write_json, write_video

        pipeline = _load(MiragePipeline, arguments)
        inputs, scene, scale = _inputs(arguments, pipeline)
        for text in scene.warnings:
            print(f"warning: {text}; see mirage preview")
        start, chunks = time.perf_counter(), []
        output = pipeline(
            inputs.image,
            inputs.cameras,
            memory=arguments.memory,
            **texts,
            depth=inputs.depth,
            estimator=arguments.estimator,
            movers=arguments.segmenter,
            num_inference_steps=arguments.steps,
            generator=torch.Generator().manual_seed(arguments.seed),
            callback_on_chunk_end=chunks.append,
        )
        made = time.perf_counter()
        write_video(aside / "video.mp4", output.frames, fps=arguments.fps)
        shown = time.perf_counter()
        known = [picture for chunk in chunks for picture in decoded_reads(pipeline, chunk)]
        write_image(
            aside / "contact.jpg",
            video_sheet(output.frames, known, output.coverage, pipeline.codec.temporal_stride),
        )
        seconds = output.seconds | {"video file": shown - made, "contact sheet": time.perf_counter() - shown}
        speed = len(output.frames) / (shown - start)
        report = _settings(arguments, pipeline, inputs) | {
            "path": path_figures(inputs.path, scale),
            "scene_depth_percentiles": {p: round(value, 5) for p, value in scene.depth.items()},
            **output_figures(output),
            "seconds": {phase: round(value, 4) for phase, value in seconds.items()},
            "frames_per_second": round(speed, 3),
        }
        if returns(inputs.path):
            report["return_psnr"] = round(psnr(output.frames[-1], inputs.image), 3)
        write_json(aside / "report.json", report)
    if "return_psnr" in report:
        print(f"back at its start: {report['return_psnr']:.1f} dB against the picture")
    _print_speed(seconds, len(output.frames), shown - start)
    print(
        f"known before it was imagined: {sum(output.coverage) / len(output.coverage):.0%} on average, "
        f"{min(output.coverage):.0%} at least; memory {output.memory_bytes[-1] / 1024:.0f} KiB"
    )
    _print_files(arguments.out, *files)


def preview(arguments: argparse.Namespace) -> None:
    """What the memory will know along a path."""
    files = ("preview.mp4", "preview.jpg")
    with results(arguments.out, *files) as aside:
        _check_picture(arguments.image)
        from mirage.pipeline import MiragePipeline
        from mirage.preview import RULE
        from mirage.preview import preview as look
        from mirage.video.io import write_image, write_video
        from mirage.video.picture import contact_sheet

        pipeline = _load(MiragePipeline, arguments)
        inputs, scene, scale = _inputs(arguments, pipeline)
        models = {"estimator": arguments.estimator, "movers": arguments.segmenter}
        seen = look(pipeline, inputs.image, inputs.cameras, depth=inputs.depth, **models)
        frames, last = seen.frames, len(inputs.cameras) - 1
        chosen = sorted({round(last * i / 9) for i in range(10)})
        labels = [f"frame {i} · {seen.coverage[i]:.0%} known" for i in chosen]
        write_image(aside / "preview.jpg", contact_sheet(frames[chosen], labels, title="What the memory will know"))
        write_video(aside / "preview.mp4", frames, fps=arguments.fps)
    print("\nframe" + "".join(f"{i:>6}" for i in chosen))
    print("known" + "".join(f"{seen.coverage[i]:>6.0%}" for i in chosen))
    print(f"on average {sum(seen.coverage) / len(frames):.0%}, at least {min(seen.coverage):.0%}\n")
    for text in seen.warnings:
        print(f"warning: {text}")
    if arguments.depth:
        print("the depth is known: --scale is 1 if the path is in the same unit")
    else:
        print(f"suggested --scale {scale * scene.factor:.2g} ({RULE})")
    _print_files(arguments.out, *files)


def demo(arguments: argparse.Namespace) -> None:
    """A walk there and back, with and without memory."""
    files = ("demo.mp4", "walk.jpg", "return.png", "report.json")
    with results(arguments.out, *files) as aside:
        if arguments.image:
            _check_picture(arguments.image)
        from mirage.demo import WITH, there_and_back
        from mirage.inputs import Inputs
        from mirage.pipeline import MiragePipeline
        from mirage.report import output_figures, path_figures
        from mirage.video.io import write_image, write_json, write_video

        pipeline = _load(MiragePipeline, arguments)
        image = arguments.image or ASSETS / f"{DEMO[0]}.jpg"
        inputs = Inputs.load(image, arguments.path, frames=arguments.frames, **_model_needs(pipeline))
        print(inputs.path)
        done = there_and_back(
            pipeline, inputs, seed=arguments.seed, steps=arguments.steps, fps=arguments.fps, tell=print
        )
        start = time.perf_counter()
        write_video(aside / "demo.mp4", done.video, fps=arguments.fps)
        write_image(aside / "walk.jpg", done.sheet)
        write_image(aside / "return.png", done.panel)
        writing = time.perf_counter() - start
        walk = done.walks[WITH]
        seconds = walk.seconds | {"video file": writing}
        report = _settings(arguments, pipeline, inputs) | {
            "image": str(image),
            "path": path_figures(inputs.path, 1.0),
            "return_psnr": {title: round(value, 3) for title, value in done.kept.items()},
            **{title: output_figures(output) for title, output in done.walks.items()},
            "seconds": {phase: round(value, 4) for phase, value in seconds.items()},
            "frames_per_second": round(len(walk.frames) / done.seconds[WITH], 3),
        }
        write_json(aside / "report.json", report)
    print("\nThe last frame, back where the walk began, against the picture:")
    for title, value in done.kept.items():
        print(f"  {value:5.1f} dB  {title}")
    print()
    _print_speed(walk.seconds, len(walk.frames), done.seconds[WITH])
    _print_files(arguments.out, *files)


def cameras(arguments: argparse.Namespace) -> None:
    """What a camera file means, and the same in another format."""
    from mirage.camera import Cameras, build_path, draw_map, load_trajectory, save_trajectory
    from mirage.camera.files import nominal_size

    told = {"format": arguments.format, "convention": arguments.convention, "center": arguments.center}
    if Path(arguments.path).exists():
        size = arguments.size or nominal_size(arguments.path, **told)
        path = load_trajectory(arguments.path, *size, scale=arguments.scale, **told)
    else:
        view = Cameras.from_fov(math.radians(60), *(arguments.size or (480, 854)))
        path = build_path(arguments.path, arguments.frames, view, scale=arguments.scale, center=arguments.center or 1.0)
    print(f"{path}\n\n{draw_map(path.cameras)}")
    if arguments.to:
        print(f"\n{save_trajectory(arguments.to[1], path.file_cameras, arguments.to[0])}")


def bench_memory(arguments: argparse.Namespace) -> None:
    """The memory measured."""
    with evaluation_packages():
        from mirage.evaluation.bench import MemoryBench, run

    shared = arguments.data or os.environ.get("MIRAGE_SHARED")
    if arguments.data and not (Path(shared) / "data").is_dir():
        raise ValueError(f"--data must name a folder that holds data/, got {shared}")
    config = MemoryBench(
        parts=tuple(arguments.parts.split(",")),
        quick=arguments.quick,
        budget_minutes=arguments.budget_minutes,
        threads=arguments.threads,
        shared=Path(shared) if shared else None,
    )
    words = shlex.join(["mirage", *arguments.words])
    print(run(config, arguments.out, command=words, tell=lambda text: print(text, flush=True)))
    _print_files(arguments.out, "memory.md", "memory.json", "memory.png")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are those of all the command."""

    def error(self, message: str) -> NoReturn:
        if wrong := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            near = difflib.get_close_matches(wrong[1], re.findall(r"[\w-]+", wrong[2]), 1, 0.4)
            message += f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mirage", description="One image and a camera path in, a video of a world that stays put out."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _command(commands, "generate", generate, "make a video from a picture and a path")
    _add_inputs(one, needed=False)
    one.add_argument("--out", metavar="DIR", help="folder for video.mp4, contact.jpg and report.json")
    one.add_argument(
        "--world",
        metavar="DIR",
        help="keep the world in this folder, chunk by chunk: begin it, go on after an interruption, or, without IMAGE, "
        "go on from its last camera",
    )
    one.add_argument("--memory", choices=("latent", "colour", "none"), default="latent", help="kind of memory")
    _add_sampling(one)
    add_batch(one, _whole)

    one = _command(commands, "preview", preview, "show in seconds what the memory will know along a path")
    _add_inputs(one)
    one.add_argument("--out", default="preview", metavar="DIR", help="folder for preview.mp4 and preview.jpg")
    one.add_argument("--fps", type=_fps, default=16, metavar="N", help="frames per second (16)")

    one = _command(commands, "cameras", cameras, "show what a camera file means, and write it in another format")
    one.add_argument("path", metavar="PATH", help="a camera file or its folder, or words as for --path of generate")
    one.add_argument("--format", default="auto", metavar="NAME", help="what it is, where it can be read in two ways")
    one.add_argument(
        "--convention",
        metavar="WORDS",
        help="what it means, where its format does not say or it differs: w2c or c2w, opencv or opengl, and corner or "
        'center for pixels, as in "c2w opengl"',
    )
    one.add_argument("--size", type=_size, metavar="HxW", help="of the picture, where the file does not say (480 rows)")
    one.add_argument("--frames", type=_frames, default=65, metavar="N", help="of a path in words (65)")
    one.add_argument("--scale", type=_number(1e-6, 1e6), default=1.0, metavar="X", help="factor on all distances (1)")
    one.add_argument(
        "--center",
        type=_number(1e-6, 1e6),
        metavar="X",
        help="distance of the point that a ViewCrafter path turns about",
    )
    one.add_argument(
        "--to",
        nargs=2,
        metavar=("NAME", "OUT"),
        help="write it as spatia, realestate10k, nerfstudio or colmap, in the world of the file",
    )

    one = _command(commands, "demo", demo, "walk there and back, with and without memory side by side")
    one.add_argument("--out", default="demo", metavar="DIR", help="folder for the video and its pictures")
    one.add_argument("--image", metavar="FILE", help="another picture than the bundled one")
    one.add_argument("--path", default=DEMO[1], metavar="WORDS", help=f"another path than {DEMO[1]!r}")
    one.add_argument("--frames", type=_frames, default=65, metavar="N", help="1 + a multiple of 4 (65)")
    _add_model(one)
    _add_sampling(one)

    add_world_commands(commands, _command, _whole, _add_device)

    add_explore_command(commands, _command, _whole, _number, _add_model)

    add_evaluate(commands, _command, _whole, _number, _add_model)

    add_prepare_command(commands, _command, _whole, _number, {"size": _size, "four": _four, "device": _add_device})

    add_doctor(commands, _command, _number)

    kinds = commands.add_parser("bench", help="measure a part").add_subparsers(required=True, metavar="WHAT")
    one = _command(kinds, "memory", bench_memory, "measure the memory: speed, bytes, exactness, real loops, growth")
    one.set_defaults(left="the parts that were done are kept, another run can add the others")
    one.add_argument("--out", required=True, metavar="DIR", help="folder for memory.md, memory.json and memory.png")
    one.add_argument("--parts", default=BENCH_PARTS, metavar="A,B", help=f"some of {BENCH_PARTS} (all)")
    one.add_argument("--quick", action="store_true", help="toy sizes in seconds, to see that all of it runs")
    one.add_argument(
        "--budget-minutes", type=_number(0.0, 1e3), default=3.0, metavar="N", help="for encoding colours (3)"
    )
    one.add_argument("--threads", type=_positive, metavar="N", help="of all that is measured (as torch has them)")
    one.add_argument("--data", metavar="DIR", help="folder with data/ of the real sequences (MIRAGE_SHARED)")

    add_train_commands(commands, _command, _whole, _number, _add_device)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, run: object, about: str) -> argparse.ArgumentParser:
    one = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    one.set_defaults(run=run, left="nothing was written")
    one.add_argument("-v", "--verbose", action="store_true", help="tell more, and where an error comes from")
    return one


def _add_inputs(one: argparse.ArgumentParser, *, needed: bool = True) -> None:
    one.add_argument("image", nargs=None if needed else "?", metavar="IMAGE", help="the picture to start from")
    one.add_argument("--path", required=needed, metavar="WORDS", help=PATH_HELP)
    one.add_argument("--frames", type=_frames, metavar="N", help="1 + a multiple of 4 (all of a camera file, or 65)")
    one.add_argument("--size", type=_size, metavar="HxW", help="of the video in pixels (suits model and picture)")
    one.add_argument(
        "--fov",
        type=_number(5.0, 160.0),
        metavar="DEG",
        help="field of view across the longer side, in place of the camera file's (that of the file, or 60)",
    )
    one.add_argument(
        "--intrinsics", type=_four, metavar="FX,FY,CX,CY", help="in pixels of the picture, in place of --fov"
    )
    one.add_argument(
        "--scale",
        type=_number(1e-4, 1e4, also="auto"),
        default=1.0,
        metavar="X",
        help="factor on all distances, or auto (1)",
    )
    one.add_argument("--depth", metavar="FILE", help="known z-depth of the picture, PNG or npy, 0 = unknown")
    one.add_argument(
        "--depth-scale",
        type=_number(1e-6, 1e6),
        default=1.0,
        metavar="X",
        help="what 1 unit is in that file: 1000 for millimetres",
    )
    one.add_argument(
        "--depth-model",
        metavar="NAME",
        help="what estimates depth in place of the model's own head: depth-anything-3, depth-pro, ..., a folder or a "
        "name on the hub (docs/depth.md)",
    )
    one.add_argument(
        "--movers",
        metavar="NAME",
        help="what finds movers and sky, which are then not remembered: mask2former, segformer, qwen3-vl+sam3, a "
        "folder or a name on the hub (docs/depth.md)",
    )
    one.set_defaults(estimator=None, segmenter=None)
    _add_model(one)
    add_model_options(one, _number, imagines=not needed)


def _add_model(one: argparse.ArgumentParser) -> None:
    one.add_argument("--model", default="nano", metavar="NAME", help="nano (embedded), a folder, or a name on the hub")
    _add_device(one)


def _add_device(one: argparse.ArgumentParser) -> None:
    one.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, or auto")


def _add_sampling(one: argparse.ArgumentParser) -> None:
    one.add_argument("--steps", type=_positive, metavar="N", help="calls of the denoiser per chunk (the model's own)")
    one.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the noise (0)")
    one.add_argument("--fps", type=_fps, default=16, metavar="N", help="frames per second (16)")


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an argument that is a whole number."""

    def read(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) < 20 else -1
        if number < least or (most is not None and number > most):
            end = "on" if most is None else f"to {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} {end}, got {text}")
        return number

    return read


_positive, _frames, _fps, _seed = _whole(1), _whole(1, 10_001), _whole(1, 240), _whole(0, 2**63 - 1)


def _number(least: float, most: float, also: str = "") -> Callable[[str], float | str]:
    """The type of an argument that is a number, or one word."""

    def read(text: str) -> float | str:
        if also and text == also:
            return text
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            word = f" or {also}" if also else ""
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}{word}, got {text}")
        return number

    return read


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    good = all(side.isdecimal() and len(side) < 9 and 1 <= int(side) <= LARGEST for side in (height, width))
    if not good:
        raise argparse.ArgumentTypeError(
            f"must be height x width in pixels as in 128x192, at most {LARGEST} each, got {text}"
        )
    return int(height), int(width)


def _four(text: str) -> tuple[float, float, float, float]:
    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be four numbers fx,fy,cx,cy, got {text}") from None
    return fx, fy, cx, cy


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"mirage {version('mirage-world')}"
    except PackageNotFoundError:
        return "mirage (not installed)"


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return name


def _check_picture(image: str) -> None:
    """Refuse what is no picture at once: loading the model takes seconds."""
    from mirage.video.io import read_image

    read_image(image)


def _load(kind: type, arguments: argparse.Namespace) -> object:
    if (ready := getattr(arguments, "pipeline", None)) is not None:
        return ready  # kept from another job of a batch
    device = _device(arguments.device)  # a wrong one is refused before anything is loaded
    if getattr(arguments, "depth_model", None) or getattr(arguments, "movers", None):
        from mirage.checkpoint.named import depth_estimator, segmenter

        at = device if getattr(arguments, "offload", "none") == "none" else "cpu"  # till it is needed
        for option, into, kind_of in (
            ("depth_model", "estimator", depth_estimator),
            ("movers", "segmenter", segmenter),
        ):
            if name := getattr(arguments, option):
                with _quietly(name):
                    setattr(arguments, into, kind_of(name, device=at))
    with _quietly(arguments.model):
        pipeline = settle(kind.from_pretrained(arguments.model, **weights_of(arguments)), arguments, device)
    pipeline.set_progress_bar_config(unit="frame", leave=False, disable=not sys.stderr.isatty() or None)
    return pipeline


def _quietly(name: str) -> AbstractContextManager:
    """No bar for what takes a moment: what is not fetched from the hub."""
    on_hub = name != "nano" and not Path(name).exists()
    return nullcontext() if on_hub else redirect_stderr(io.StringIO())


def _model_needs(pipeline: object) -> dict:
    return {
        "like": tuple(pipeline.config.size),
        "step": pipeline.codec.stride * pipeline.transformer.config.patch_size[1],
        "temporal_stride": pipeline.codec.temporal_stride,
    }


def _inputs(arguments: argparse.Namespace, pipeline: object) -> tuple:
    """The inputs, how their path lies in the scene, and its scale."""
    from mirage.inputs import Inputs
    from mirage.memory import LatentMemory
    from mirage.preview import path_in_scene

    def load(scale: float) -> Inputs:
        return Inputs.load(
            arguments.image,
            arguments.path,
            size=arguments.size,
            frames=arguments.frames,
            fov=None if arguments.fov is None else math.radians(arguments.fov),
            intrinsics=arguments.intrinsics,
            scale=scale,
            depth=arguments.depth,
            depth_scale=arguments.depth_scale,
            **_model_needs(pipeline),
        )

    scale = 1.0 if arguments.scale == "auto" else arguments.scale
    inputs = load(scale)
    models = {"estimator": arguments.estimator, "movers": arguments.segmenter}
    shown = LatentMemory.from_view  # a model without a branch has a scene too
    memory = pipeline.begin(inputs.image, inputs.cameras[0], memory=shown, depth=inputs.depth, **models).memory
    scene = path_in_scene(memory, inputs.cameras.to(pipeline.device))
    if arguments.scale == "auto" and scene.factor != 1:
        scale = scene.factor
        inputs = load(scale)
        scene = path_in_scene(memory, inputs.cameras.to(pipeline.device))
    print(inputs.path)
    print(scene)
    return inputs, scene, scale


def _settings(arguments: argparse.Namespace, pipeline: object, inputs: object) -> dict:
    """What a report needs to say how a result came about."""
    import torch

    kept = ("image", "model", "memory", "seed", "fps", "depth", "depth_scale", "depth_model", "movers", "fov")
    kept += ("memory_weights", "lora", "dtype", "offload", "quantize", "prompt", "negative_prompt", "guidance")
    return {
        "version": _version(),
        "command": shlex.join(["mirage", *arguments.words]),
        **{name: getattr(arguments, name) for name in kept if hasattr(arguments, name)},
        "steps": arguments.steps or pipeline.config.num_inference_steps,
        "frames": len(inputs.cameras),
        "size": [inputs.cameras.height, inputs.cameras.width],
        "device": str(pipeline.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _print_speed(seconds: dict[str, float], frames: int, total: float) -> None:
    phases = ", ".join(f"{phase} {value:.2f}" for phase, value in seconds.items())
    print(f"{frames} frames in {total:.1f} s, {frames / total:.1f} frames per second; seconds by phase: {phases}")


def _print_files(folder: str, *names: str) -> None:
    for name in names:
        print(f"{Path(folder, name)}")


def _prepare_logging(verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@contextmanager
def _terminable() -> Iterator[None]:
    """Let a polite kill clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
