"""`mirage generate --world` and `mirage world ...`: worlds from the command line."""

import argparse
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from mirage.results import results

KINDS = ("video", "memory", "colmap", "nerfstudio", "realestate10k", "spatia")
USUAL = KINDS[:4]


def generate_world(arguments: argparse.Namespace) -> None:
    """Begin a world, or go on with one; the same command after an interruption goes on where it was."""
    from mirage.camera.trajectory import measure_motion
    from mirage.cli import _check_picture, _load, _print_speed
    from mirage.pipeline import MiragePipeline
    from mirage.video.io import write_image, write_json
    from mirage.world.export import export_video
    from mirage.world.show import drift, world_sheet

    folder = Path(arguments.world)
    out = arguments.out or arguments.world
    if arguments.memory != "latent":
        raise ValueError(f"a world holds the latent memory: --memory must be latent, got {arguments.memory}")
    if arguments.image:
        _check_picture(arguments.image)
    _check_continued(arguments, folder)
    arguments.segmenter, arguments.movers = arguments.movers, None  # by name: the world keeps it, the pipeline loads it
    pipeline = _load(MiragePipeline, arguments)
    with _begun(arguments, folder, pipeline) if arguments.image else _continued(arguments, folder, pipeline) as world:
        start, made, phases = time.perf_counter(), 0, {}
        last = 0 if (left := world.planned) is None else world.chunks[-1].stop + len(left)

        def tell_how_to_go_on() -> None:
            arguments.left = f"{folder} is complete up to frame {world.chunks[-1].stop - 1}, the same command goes on"

        tell_how_to_go_on()
        for _ in world.walk(steps=arguments.steps):
            tell_how_to_go_on()
            chunk = world.chunks[-1]
            made += len(chunk)
            for phase, value in chunk.seconds.items():
                phases[phase] = phases.get(phase, 0.0) + value
            known = sum(chunk.coverage) / len(chunk.coverage)
            print(
                f"chunk {len(world.chunks) - 1}: frames {chunk.start} to {chunk.stop - 1} of {last - 1}, {known:.0%} "
                f"known, {sum(chunk.seconds.values()):.1f} s",
                flush=True,
            )
        took = time.perf_counter() - start
        files = ("video.mp4", "contact.jpg", "report.json")
        with results(out, *files) as aside:
            export_video(world, aside / "video.mp4")
            write_image(aside / "contact.jpg", world_sheet(world))
            write_json(aside / "report.json", _report(arguments, world, pipeline, measure_motion(world.cameras)))
        print(drift(world))
        if made:
            _print_speed(phases, made, took)
        for name in files:
            print(Path(out, name))
        print(f"world: {folder}, {world.chunks[-1].stop} frames; see mirage world show {shlex.quote(str(folder))}")


def _check_continued(arguments: argparse.Namespace, folder: Path) -> None:
    """Refuse, before a model is loaded, what a world that goes on has no use for."""
    if arguments.image:
        if not arguments.path:
            raise ValueError("--path is needed to begin a world: where to go from the picture")
        return
    if not (folder / "world.json").exists():
        raise ValueError(f"no world at {folder}: give an IMAGE to begin one")
    for name in ("size", "fov", "intrinsics", "depth"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} belongs to the picture that a world begins with: leave it out to go on")


def _begun(arguments: argparse.Namespace, folder: Path, pipeline: object) -> object:
    """A world of this picture and path: a new one, or the one that an earlier run of the command left."""
    import numpy as np

    from mirage.cli import _inputs
    from mirage.model_command import said
    from mirage.world import World
    from mirage.world.content import begins

    models, movers, texts = {"estimator": arguments.estimator}, arguments.segmenter or "", said(arguments)
    prompts = texts.pop("prompt") or []
    old = World.open(folder, pipeline, **models) if (folder / "world.json").exists() else None
    try:
        inputs, scene, _ = _inputs(arguments, pipeline)
        for text in scene.warnings:
            print(f"warning: {text}; see mirage preview")
        cameras = inputs.cameras.to("cpu")
        if old is None:
            chosen = {"seed": arguments.seed, "steps": arguments.steps, "fps": arguments.fps, "movers": movers}
            chosen |= models | texts
            old = World.create(folder, pipeline, inputs.image, cameras[0], depth=inputs.depth, **chosen)
        elif (old.settings.seed, old.settings.movers) != (arguments.seed, movers) or not np.array_equal(
            old.image, inputs.image
        ):
            raise ValueError(
                f"world {folder} began with another picture, size, seed or --movers: choose another folder, or leave "
                "IMAGE out to go on from its last camera"
            )
        done = old.cameras
        walked, planned = (cameras, done) if len(done) <= len(cameras) else (done, cameras)
        if not begins(walked, planned):
            raise ValueError(
                f"world {folder} went another way: choose another folder, or leave IMAGE out to go on from its last "
                "camera"
            )
        if len(cameras) > len(done):
            left = prompts[len(old.chunks) - 1 :] or prompts[-1:]
            old.plan(cameras[len(done) :], left, words=arguments.path)
    except BaseException:
        if old is not None:
            old.close()
        raise
    return old


def _continued(arguments: argparse.Namespace, folder: Path, pipeline: object) -> object:
    """A world with a plan: the one that was not finished, or the path from its last camera."""
    import torch

    from mirage.camera.path import build_path
    from mirage.chunks import nearest_frames
    from mirage.inputs import FRAMES, _is_file
    from mirage.model_command import said
    from mirage.preview import path_in_scene
    from mirage.world import World

    world = World.open(folder, pipeline, estimator=arguments.estimator)
    try:
        own = vars(world.settings) | {"guidance": world.settings.guidance_scale}
        for name, usual in (("seed", 0), ("fps", 16), ("guidance", 1.0), ("negative_prompt", "")):
            if getattr(arguments, name) not in (usual, own[name]):
                said_so = f"--{name.replace('_', '-')} of world {folder} is {own[name]!r}"
                raise ValueError(f"{said_so}: leave it out to go on")
        if arguments.segmenter not in (None, world.settings.movers):
            raise ValueError(f"--movers of world {folder} is {world.settings.movers or 'none'}: leave it out to go on")
        frames, stride = arguments.frames, world.model.temporal_stride
        words = f"{arguments.path or ''} --frames {frames or 'all'} --scale {arguments.scale}"
        if (world.planned is not None and arguments.path in (None, "")) or words == world.plan_words:
            print(f"going on: {len(world.planned)} frames of {world.plan_words!r} are not made yet")
            return world
        if not arguments.path:
            raise ValueError(f"--path is needed: world {folder} has no unfinished path to go on with")
        if world.planned is not None:
            print(f"the unfinished path {world.plan_words!r} is dropped")
        if frames is None and not _is_file(arguments.path):
            frames = FRAMES
        if frames is not None and (frames < 1 + stride or frames % stride != 1):
            raise ValueError(f"--frames must be 1 + a multiple of {stride}, the last camera included, got {frames}")
        last = world.cameras[-1]
        scale = 1.0 if arguments.scale == "auto" else arguments.scale
        path = build_path(arguments.path, frames, last, scale=scale, keep_intrinsics=True)
        if arguments.scale == "auto":
            with torch.no_grad():
                scale = path_in_scene(world.state.memory, path.cameras.to(pipeline.device)).factor
            path = build_path(arguments.path, frames, last, scale=scale, keep_intrinsics=True)
        print(path)
        cameras = path.cameras[: nearest_frames(len(path.cameras), stride)[0]]
        world.plan(cameras[1:], said(arguments)["prompt"], words=words)
    except BaseException:
        world.close()
        raise
    return world


def _report(arguments: argparse.Namespace, world: object, pipeline: object, motion: object) -> dict:
    """What a report needs to say how a world came about."""
    from mirage.world.show import returns

    return {
        "command": shlex.join(["mirage", *arguments.words]),
        "world": str(world.folder),
        "model": world.model.name,
        "weights": world.model.weights,
        "settings": vars(world.settings),
        "device": str(pipeline.device),
        "frames": world.chunks[-1].stop,
        "path": {"length": motion.length, "rotation": motion.rotation, "end_distance": motion.end_distance},
        "coverage": [round(share, 4) for chunk in world.chunks for share in chunk.coverage],
        "memory_bytes": [chunk.memory_bytes for chunk in world.chunks],
        "updates": [chunk.update for chunk in world.chunks[1:]],
        "prompts": [chunk.prompt for chunk in world.chunks[1:]],
        "return_psnr": {str(frame): round(value, 3) for frame, value in returns(world).items()},
        "events": world.log,
    }


def show(arguments: argparse.Namespace) -> None:
    """A table of a world, and a page of pictures."""
    from mirage.video.io import write_image
    from mirage.world import World
    from mirage.world.show import describe, world_sheet

    with World.open(arguments.world, write=False) as world:
        print(describe(world).replace(str(world.folder), arguments.world, 1))
        sheet = Path(arguments.sheet or f"{Path(arguments.world).stem}.jpg")
        write_image(sheet, world_sheet(world))
    print(f"pictures: {sheet}")


def show_all(arguments: argparse.Namespace) -> None:
    """One line for each world in a folder."""
    from mirage.world.manifest import read_folder
    from mirage.world.show import size

    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise ValueError(f"no folder at {folder}")
    found = sorted(p.parent for p in [*folder.glob("world.json"), *folder.glob("*/world.json")])
    if not found:
        raise ValueError(f"no world in {folder}: none of its folders holds a world.json")
    for each in found:
        try:
            world = read_folder(each)
        except ValueError as error:
            print(error)
            continue
        kept = size(sum(mark.bytes for mark in world.files.values()))
        shape = f"{world.settings.height} x {world.settings.width}"
        unfinished = ", unfinished" if world.walk else ""
        print(
            f"{each}: {world.chunks[-1].stop} frames of {shape}, {len(world.chunks) - 1} chunks, {kept}, model "
            f"{world.model.name}, {world.chunks[-1].time[:19]}{unfinished}"
        )


def undo(arguments: argparse.Namespace) -> None:
    """Go back before the last chunk."""
    from mirage.world import World

    with World.open(arguments.world) as world:
        if arguments.chunks >= len(world.chunks):
            raise ValueError(
                f"--chunks must be at most {len(world.chunks) - 1}, what the world has, got {arguments.chunks}"
            )
        for _ in range(arguments.chunks):
            removed = world.undo()
            print(f"undone: frames {removed.start} to {removed.stop - 1}")
            arguments.left = f"{arguments.world} ends at frame {removed.start - 1}"
        print(f"{world.folder} ends at frame {world.chunks[-1].stop - 1}")


def branch(arguments: argparse.Namespace) -> None:
    """Begin another world that shares the past of one."""
    from mirage.world import World

    with World.open(arguments.world, write=False) as world, world.branch(arguments.to, arguments.chunk) as other:
        print(f"{other.folder}: {other.chunks[-1].stop} frames, {len(other.chunks) - 1} chunks")


def verify(arguments: argparse.Namespace) -> None:
    """Read every byte of a world."""
    from mirage.world import World
    from mirage.world.show import size

    with World.open(arguments.world, write=False) as world:
        report = world.verify()
    for name in report.strangers:
        print(f"no part of the world: {name}")
    for problem in report.problems:
        print(problem)
    if report.problems:
        raise ValueError(f"world {arguments.world} is damaged in {len(report.problems)} places")
    print(
        f"{arguments.world} is whole: {report.files} files, {size(report.bytes)}, every checksum and content as written"
    )


def export(arguments: argparse.Namespace) -> None:
    """What others can use of a world."""
    from mirage.cli import _load
    from mirage.pipeline import EMBEDDED, MiragePipeline
    from mirage.world import World
    from mirage.world.export import export_cameras, export_memory, export_video

    kinds = arguments.what or USUAL
    names = {"video": "video.mp4", "memory": "memory.ply"}
    pipeline = None
    if {"memory", "colmap"} & set(kinds):
        with World.open(arguments.world, write=False) as world:
            arguments.model = arguments.model or world.model.name
        if arguments.model not in EMBEDDED and not Path(arguments.model).is_dir():
            raise ValueError(f"--model must be the folder of model {arguments.model}, which decodes the colours")
        pipeline = _load(MiragePipeline, arguments)
    with (
        World.open(arguments.world, pipeline, write=False) as world,
        results(arguments.out, *(names.get(kind, kind) for kind in kinds)) as aside,
    ):
        for kind in kinds:
            print(f"{kind} ...", flush=True)
            if kind == "video":
                export_video(world, aside / names[kind])
            elif kind == "memory":
                print(f"{export_memory(world, aside / names[kind], pixels=arguments.dense)} points")
            else:
                print(export_cameras(world, aside / kind, kind).replace(str(aside), arguments.out))
    for kind in kinds:
        print(Path(arguments.out, names.get(kind, kind)))


def pack(arguments: argparse.Namespace) -> None:
    """Write a world into one zip."""
    from mirage.world import World
    from mirage.world.archive import pack
    from mirage.world.show import size

    if Path(arguments.zip).suffix != ".zip":
        raise ValueError(f"the packed world must be called .zip, got {arguments.zip}")
    with World.open(arguments.world, write=False) as world:
        pack(world, arguments.zip)
    print(f"{arguments.zip}: {size(Path(arguments.zip).stat().st_size)}")


def unpack(arguments: argparse.Namespace) -> None:
    """Make a folder of a packed world."""
    from mirage.world import World
    from mirage.world.archive import unpack

    unpack(arguments.zip, arguments.to)
    with World.open(arguments.to, write=False) as world:
        print(f"{world.folder}: {world.chunks[-1].stop} frames, {len(world.chunks) - 1} chunks")


def add_commands(
    commands: argparse._SubParsersAction, command: Callable, whole: Callable, add_device: Callable
) -> None:
    """Give the parser `mirage world ...`.

    Args:
        commands: Where it goes.
        command: Makes one command, as the others are made.
        whole: Makes the type of a whole number.
        add_device: Adds `--device`.
    """
    kinds = commands.add_parser("world", help="worlds that are kept: show, undo, branch, verify, export")
    kinds = kinds.add_subparsers(required=True, metavar="WHAT")

    def new(name: str, run: Callable, about: str, first: str = "world") -> argparse.ArgumentParser:
        one = command(kinds, name, run, about)
        one.add_argument(first, metavar="DIR" if first != "zip" else "ZIP", help="folder of the world, or a zip of it")
        return one

    one = new("show", show, "print chunks, coverage, bytes, drift; write a page of pictures")
    one.add_argument("--sheet", metavar="FILE", help="the page of pictures (NAME.jpg where you are)")
    one = command(kinds, "list", show_all, "one line for each world in a folder")
    one.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to look (here)")
    one = new("undo", undo, "go back before the last chunk")
    one.add_argument("--chunks", type=whole(1), default=1, metavar="N", help="how many (1)")
    one = new("branch", branch, "begin another world that shares the past of one; takes next to no space")
    one.add_argument("to", metavar="NEW", help="folder of the other world")
    one.add_argument("--chunk", type=whole(0), metavar="N", help="last chunk to keep; 0 is the picture (all)")
    new("verify", verify, "read every byte: checksums and contents")
    one = new("export", export, "video, memory as points, cameras with frames for 3D Gaussians")
    one.add_argument("--out", required=True, metavar="DIR", help="folder for what is written")
    one.add_argument(
        "--what", nargs="+", choices=KINDS, metavar="KIND", help=f"of {', '.join(KINDS)} ({' '.join(USUAL)})"
    )
    one.add_argument("--dense", action="store_true", help="one point of the memory for each pixel, not for each cell")
    one.add_argument("--model", metavar="NAME", help="folder of the model, if it is not embedded: it decodes colours")
    add_device(one)
    one = new("pack", pack, "write a world into one zip")
    one.add_argument("zip", metavar="ZIP", help="the file, .zip")
    one = new("unpack", unpack, "make a folder of a packed world", first="zip")
    one.add_argument("to", metavar="DIR", help="folder of the world, new")
