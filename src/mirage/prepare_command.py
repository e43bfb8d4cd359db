"""`mirage prepare`: footage into shards that training reads, their check, and their export."""

import argparse
import os
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

SHOWN = 8  # reasons that are printed
SHEET = "check.png"


def add_command(
    commands: argparse._SubParsersAction, command: Callable, whole: Callable, number: Callable, more: dict
) -> None:
    """Give the parser `mirage prepare`.

    Args:
        commands: Where it goes.
        command: Makes one command, as the others are made.
        whole: Makes the type of a whole number.
        number: Makes the type of a number between two bounds.
        more: `size` and `four`, types of a size and of intrinsics; `device`, what adds that option.
    """
    one = command(commands, "prepare", prepare, "make shards of clips for training; check and export them")
    one.set_defaults(left="shards that are done are kept, the same command goes on")
    one.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a folder of frames or of a video with cameras, or of such folders; ViPE's results; RealEstate10K's "
        "camera lists (with --videos); shards of mirage train nano; or worlds:COUNT (docs/data.md)",
    )
    one.add_argument("--out", metavar="SHARDS", help="folder of the shards, new or begun by the same command")
    one.add_argument("--check", metavar="SHARDS", help=f"verify shards and write a contact sheet ({SHEET} beside them)")
    one.add_argument("--sheet", metavar="FILE", help="another place for that sheet")
    one.add_argument(
        "--export", nargs=2, metavar=("webdataset", "DIR"), help="write the shards of --check or --out as tars"
    )
    clips = one.add_argument_group("clips")
    clips.add_argument(
        "--frames", type=whole(1, 10_001), default=0, metavar="N", help="of a clip (3 chunks of the model)"
    )
    clips.add_argument("--stride", type=whole(1), default=0, metavar="N", help="frames from clip to clip (a chunk)")
    clips.add_argument("--step", type=whole(1), default=1, metavar="N", help="take every Nth frame (1)")
    clips.add_argument(
        "--size", type=more["size"], metavar="HxW", help="in pixels (area of the model, shape of the source)"
    )
    clips.add_argument(
        "--min-motion", type=number(0.0, 1e6), default=0.05, metavar="X", help="least way plus radians of a clip (0.05)"
    )
    clips.add_argument("--per-shard", type=whole(1, 9999), default=8, metavar="N", help="clips of a shard (8)")
    made = one.add_argument_group("what is made of them")
    made.add_argument(
        "--model", default="nano", metavar="NAME", help="whose autoencoder encodes: nano, a folder, a name"
    )
    made.add_argument(
        "--depth",
        choices=("auto", "known", "filled", "estimated"),
        default="auto",
        help="known where the source has it, else estimated; known or left out; known, holes filled; estimated (auto)",
    )
    made.add_argument("--depth-model", default="", metavar="NAME", help="what estimates it (the model's own head)")
    made.add_argument("--movers", default="", metavar="NAME", help="what finds movers (nothing)")
    read = one.add_argument_group("how the source is read")
    read.add_argument("--videos", default="", metavar="DIR", help="videos of RealEstate10K's lists")
    read.add_argument("--format", default="auto", metavar="NAME", help="of camera files that can be read in two ways")
    read.add_argument("--convention", metavar="WORDS", help="of camera files, as for mirage cameras")
    read.add_argument(
        "--intrinsics", type=more["four"], metavar="FX,FY,CX,CY", help="in pixels of the frames, where files have none"
    )
    read.add_argument(
        "--depth-scale",
        type=number(1e-6, 1e6),
        metavar="X",
        help="what one unit is in depth maps (of the source, or 1000)",
    )
    add_workers(one, whole)
    more["device"](one)


def add_workers(one: argparse.ArgumentParser, whole: Callable) -> None:
    """Options of commands that do many jobs.

    Args:
        one: The command's parser.
        whole: Makes the type of a whole number.
    """
    work = one.add_argument_group("many jobs")
    work.add_argument(
        "--workers", type=whole(1, 4096), metavar="N", help="processes at a time (one per core; one on a card)"
    )
    work.add_argument(
        "--cluster", default="", metavar="ADDRESS", help="work on this Ray cluster; auto, or local for one of --workers"
    )


def runner(arguments: argparse.Namespace, device: str) -> Callable:
    """How jobs are run, as the options say.

    Args:
        arguments: Of the command.
        device: Where models compute.

    Returns:
        What `mirage.dataset.prepare.prepare` takes as `run`.
    """
    from mirage.cluster import run

    on_card = device.startswith("cuda")
    workers = arguments.workers or (1 if on_card else os.cpu_count() or 1)
    gpus = 1.0 if on_card else 0.0
    return partial(run, workers=workers, address=arguments.cluster, gpus=gpus)


def prepare(arguments: argparse.Namespace) -> None:
    """Shards of a source, or the check of some."""
    if arguments.export and arguments.export[0] != "webdataset":
        raise ValueError(f"--export knows webdataset DIR, got {arguments.export[0]}")
    if arguments.check and arguments.source:
        raise ValueError("--check SHARDS takes no SOURCE: prepare first, then check")
    if not arguments.check and not (arguments.source and arguments.out):
        raise ValueError("SOURCE and --out SHARDS are needed, or --check SHARDS; see mirage prepare --help")
    if arguments.source:
        _prepare(arguments)
    if arguments.check:
        _check(arguments)
    if arguments.export:
        from mirage.dataset.webdataset import export_webdataset

        for tar in export_webdataset(arguments.out or arguments.check, arguments.export[1]):
            print(tar)


def _prepare(arguments: argparse.Namespace) -> None:
    from mirage.cli import _device
    from mirage.dataset.prepare import Settings, prepare
    from mirage.dataset.sources import Reading

    device = _device(arguments.device)
    names = ("videos", "format", "convention", "intrinsics", "depth_scale")
    reading = Reading(**{name: getattr(arguments, name) for name in names})
    names = ("model", "size", "frames", "step", "stride", "min_motion", "depth", "depth_model", "movers", "per_shard")
    settings = Settings(**{name: getattr(arguments, name) for name in names}, reading=reading)
    said = lambda text: print(text, flush=True)
    done = prepare(arguments.source, arguments.out, settings, run=runner(arguments, device), device=device, tell=said)
    for one in done.skipped[:SHOWN]:
        print(f"skipped {one['name']}: {one['why']}")
    if len(done.skipped) > SHOWN:
        print(f"and {len(done.skipped) - SHOWN} more, all in {Path(arguments.out, 'manifest.json')}")
    kept = "" if done.made else ", all of it was there"
    print(f"{arguments.out}: {done.clips} clips in {done.shards} shards, {done.bytes / 1e6:.1f} MB{kept}")
    print(f"look at them: mirage prepare --check {shlex.quote(arguments.out)}")


def _check(arguments: argparse.Namespace) -> None:
    from mirage.dataset.check import check
    from mirage.video.io import write_image

    report = check(arguments.check, tell=lambda text: print(text, flush=True))
    if report.sheet is not None:
        sheet = Path(arguments.sheet or Path(arguments.check) / SHEET)
        write_image(sheet, report.sheet)
        print(f"pictures: {sheet}")
    for text in report.suspects:
        print(f"suspect, look at its pictures: {text}")
    for text in report.problems:
        print(text)
    if report.problems:
        raise ValueError(f"shards {arguments.check} are damaged in {len(report.problems)} places")
    print(
        f"{arguments.check} is whole: {report.clips} clips, {report.bytes / 1e6:.1f} MB, every checksum, shape and "
        f"number; reprojection off by {report.pixels:.2f} px in the middle, {len(report.suspects)} clips suspect"
    )
