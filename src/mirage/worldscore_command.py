"""`mirage evaluate worldscore`: what WorldScore's harness wants, written, checked, or installed into its checkout."""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mirage.model_command import add_model_options

SHOWN = 20  # faults that are printed; all are in check.json


def worldscore(arguments: argparse.Namespace) -> None:
    """Write, check or install."""
    from mirage.evaluation.worldscore import WorldScore, check, install, read_items, write
    from mirage.evaluation.worldscore.write import SETTINGS
    from mirage.video.io import write_json

    out = arguments.out and Path(arguments.out)
    named = ("frames", "fps", "camera_speed", "scale", "lens", "model", "estimator", "steps", "guidance")
    given = {name: getattr(arguments, name) for name in (*named, "negative_prompt", "seed")}
    given["movers"] = arguments.segmenter
    if arguments.install:
        config = WorldScore(size=arguments.size or tuple(_model(arguments).config.size), **given)
        for path in install(arguments.install, config):
            print(path)
        _say_lens(config)
        return
    for name, value in (("--dataset", arguments.dataset), ("--out", out)):
        if not value:
            raise ValueError(f"{name} is needed, unless --install names a checkout of WorldScore; see --help")
    items = read_items(arguments.dataset, tuple(arguments.split), list_name=arguments.list)
    part, parts = arguments.shard
    items = items[part::parts][: arguments.limit]
    if not arguments.check:
        pipeline = _model(arguments)
        config = WorldScore(size=arguments.size or tuple(pipeline.config.size), **given)
        _say_lens(config)
        pipeline.set_progress_bar_config(disable=True)
        tell = lambda done, total, word: print(f"{done} of {total}: {word}", flush=True)
        failed = write(config, items, out, pipeline, on_item=tell)
        if failed:
            raise ValueError(f"{len(failed)} of {len(items)} items could not be made, the others are there: {failed}")
        print(f"results: {out}; mirage evaluate worldscore --check looks at them")
        return
    if (out / SETTINGS).is_file():
        kept = json.loads((out / SETTINGS).read_text(encoding="utf-8"))["settings"]
        config = WorldScore(**kept | {"size": tuple(kept["size"])})
    elif arguments.size:
        config = WorldScore(size=arguments.size, **given)
    else:
        raise ValueError(f"{out} has no {SETTINGS}: say --size, --frames and --camera-speed as the harness has them")
    faults = check(config, items, out)
    write_json(out / "check.json", [vars(fault) for fault in faults])
    for fault in faults[:SHOWN]:
        print(f"{fault.folder}: {fault.name}: {fault.text}")
    if faults:
        kinds = ", ".join(f"{count} {name}" for name, count in Counter(f.name for f in faults).most_common())
        raise ValueError(f"{len(faults)} faults ({kinds}), all in {out / 'check.json'}")
    frames = sum(item.count(config.frames) for item in items)
    print(f"{len(items)} items with {frames} frames are as the harness wants them")
    _say_lens(config)


def _say_lens(config: object) -> None:
    report = config.lens_report()
    words = lambda lens: ", ".join(f"{value:g}" for value in lens.values())
    print(f"intrinsics of the videos: {words(report['videos'])}, {report['field_of_view_degrees']} degrees")
    right = report["stock_evaluation_is_right"]
    off = "the same" if right else f"the principal point is off by {report['principal_point_off_by']} pixels"
    print(f"intrinsics of the stock evaluation: {words(report['stock_evaluation'])}, {off}")


def _model(arguments: argparse.Namespace) -> object:
    from mirage.cli import _load
    from mirage.pipeline import MiragePipeline

    return _load(MiragePipeline, arguments)


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"must be part/parts, counted from 0, as in 0/8, got {text}")
    return int(part), int(parts)


def add_worldscore(
    kinds: argparse._SubParsersAction,
    command: Callable[..., argparse.ArgumentParser],
    whole: Callable[..., Callable[[str], int]],
    number: Callable[..., Callable[[str], float]],
    add_model: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add `mirage evaluate worldscore`.

    Args:
        kinds: Where commands are added.
        command: Adds one.
        whole: Makes the type of a whole number.
        number: Makes the type of a number between two bounds.
        add_model: Adds the choice of the model.
    """
    from mirage.cli import _size

    one = command(kinds, "worldscore", worldscore, "write what the WorldScore harness evaluates, or check it")
    one.set_defaults(left="items that were done are kept, the same command goes on")
    one.add_argument("--dataset", metavar="DIR", help="local copy of WorldScore-Dataset")
    one.add_argument("--out", metavar="DIR", help="the harness's runs_root; results go into worldscore_output below it")
    one.add_argument("--check", action="store_true", help="read all that is there and name each fault")
    one.add_argument(
        "--install",
        metavar="DIR",
        help="write configuration, adapter, loader and loop for the harness into its checkout, or any folder",
    )
    one.add_argument("--split", nargs="+", default=("static", "dynamic"), choices=("static", "dynamic"), help="(both)")
    one.add_argument("--list", default="", metavar="NAME", help="another list than static.json and dynamic.json")
    one.add_argument("--limit", type=whole(1), metavar="N", help="only the first items")
    one.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N", help="every N-th item from the I-th (0/1)")
    one.add_argument("--size", type=_size, metavar="HxW", help="of the videos in pixels (the model's own)")
    one.add_argument(
        "--frames", type=whole(2, 1000), default=65, metavar="N", help="per scene: 1 + a multiple of 32 is best (65)"
    )
    one.add_argument("--fps", type=whole(1, 240), default=10, metavar="N", help="of the mp4, which is not scored (10)")
    one.add_argument(
        "--camera-speed", type=number(1e-6, 1e6), default=1.0, metavar="X", help="as the harness has it (1)"
    )
    one.add_argument(
        "--scale", type=number(1e-6, 1e6), default=1.0, metavar="X", help="world units of the model per unit there (1)"
    )
    one.add_argument(
        "--lens",
        choices=("correct", "stock"),
        default="correct",
        help="principal point in the middle, or at 256, 256 where its evaluation takes it to be (correct)",
    )
    one.add_argument("--depth-model", dest="estimator", metavar="NAME", help="in place of the model's own depth head")
    one.add_argument("--movers", metavar="NAME", dest="segmenter", help="what finds movers, which are not remembered")
    one.add_argument("--steps", type=whole(1), metavar="N", help="calls of the denoiser per chunk (the model's own)")
    one.add_argument("--guidance", type=number(1.0, 30.0), default=1.0, metavar="X", help="1 does without it (1)")
    one.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to guide away from")
    one.add_argument("--seed", type=whole(0, 2**62), default=0, metavar="N", help="of the noise (0)")
    add_model(one)
    add_model_options(one, number, imagines=False)
