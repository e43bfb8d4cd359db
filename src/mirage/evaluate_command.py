"""`mirage evaluate TASK`: how well a world stays put, on exact worlds and on real places."""

import argparse
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mirage.ablation_command import add_ablation
from mirage.worldscore_command import add_worldscore

ROWS = ("latent", "latent-nearest", "colour", "none")
PACKAGES = ("cv2", "matplotlib", "skimage")


def add_evaluate(
    commands: argparse._SubParsersAction, command: Callable, whole: Callable, number: Callable, add_model: Callable
) -> None:
    """The command and its tasks.

    Args:
        commands: Where commands are added.
        command: Adds one.
        whole: Makes the type of a whole number.
        number: Makes the type of a number between two bounds.
        add_model: Adds the options that choose a model.
    """
    kinds = commands.add_parser(
        "evaluate", help="measure a model", description="Measure a model; each task writes a page, report.html."
    ).add_subparsers(required=True, metavar="TASK")

    one = _task(
        kinds, command, "closed-loop", closed_loop, "are places still there on return, seen ones and imagined ones?"
    )
    _add_sources(one, "recordings with depth and loops.json, or pictures")
    _add_worlds(one, whole, 100)
    _add_rows(one, ROWS)
    _add_frames(one, whole, 65, "1 + a multiple of 16")
    one.add_argument("--path", metavar="WORDS", help="the way from a picture, there and back")
    _add_run(one, whole, add_model)

    one = _task(kinds, command, "novel-view", novel_view, "the first frame and the true path against the true video")
    _add_sources(one, "recordings with cameras, anything that mirage prepare takes (docs/data.md)")
    _add_clips(one, whole, add_model)

    one = _task(kinds, command, "camera", camera, "does the video follow the path? By flow and by estimated poses")
    _add_sources(one, "recordings with cameras, best with depth")
    _add_clips(one, whole, add_model)

    one = _task(kinds, command, "drift", drift, "quality and geometry against the number of chunks, on exact worlds")
    one.set_defaults(sources=())
    one.add_argument("--chunks", type=whole(1, 1024), default=32, metavar="N", help="of the longest walk (32)")
    one.add_argument("--path", choices=("loop", "walk"), default="loop", help="to and fro, or on and on (loop)")
    _add_worlds(one, whole, 8)
    _add_rows(one, ("latent", "none"))
    _add_run(one, whole, add_model)
    add_worldscore(kinds, command, whole, number, add_model)
    add_ablation(kinds, command, whole, add_model)


def _task(kinds: argparse._SubParsersAction, command: Callable, name: str, run: object, about: str) -> object:
    one = command(kinds, name, run, about)
    one.set_defaults(left="what was measured is kept, the same command goes on")
    one.add_argument("--out", required=True, metavar="DIR", help="folder of the results, resumed if it holds some")
    return one


def _add_sources(one: argparse.ArgumentParser, what: str) -> None:
    one.add_argument("sources", nargs="*", metavar="SOURCE", help=f"{what}; exact worlds if there is none")


def _add_worlds(one: argparse.ArgumentParser, whole: Callable, usual: int) -> None:
    one.add_argument("--worlds", type=whole(1), default=usual, metavar="N", help=f"number of held-out worlds ({usual})")
    one.add_argument(
        "--first-seed", type=whole(0, 2**63 - 1), default=1_000_000, metavar="N", help="of the first world (1000000)"
    )


def _add_rows(one: argparse.ArgumentParser, usual: tuple[str, ...]) -> None:
    told = "all" if usual == ROWS else " ".join(usual)
    one.add_argument("--rows", nargs="+", default=usual, choices=ROWS, help=f"kinds of memory ({told})")


def _add_frames(one: argparse.ArgumentParser, whole: Callable, usual: int, what: str) -> None:
    one.add_argument("--frames", type=whole(1, 10_001), default=usual, metavar="N", help=f"{what} ({usual})")


def _add_clips(one: argparse.ArgumentParser, whole: Callable, add_model: Callable) -> None:
    _add_worlds(one, whole, 50)
    _add_rows(one, ("latent", "none"))
    _add_frames(one, whole, 49, "of a clip, 1 + a multiple of 4")
    one.add_argument("--stride", type=whole(1), default=1, metavar="N", help="frames of a recording per frame (1)")
    one.add_argument("--videos", default="", metavar="DIR", help="folder of the videos of RealEstate10K lists")
    _add_run(one, whole, add_model)


def _add_run(one: argparse.ArgumentParser, whole: Callable, add_model: Callable) -> None:
    one.add_argument("--steps", type=whole(1), metavar="N", help="calls of the denoiser per chunk")
    one.add_argument("--depth", choices=("known", "head"), default="known", help="depth of the input picture (known)")
    one.add_argument("--sheets", type=whole(0), default=4, metavar="N", help="scenes shown as pictures and videos (4)")
    one.add_argument("--processes", type=whole(1), default=os.cpu_count() or 1, metavar="N", help="scenes at a time")
    add_model(one)


def closed_loop(arguments: argparse.Namespace) -> None:
    """Leave and return."""
    with evaluation_packages():
        from mirage.evaluation.closed_loop import PATH, ClosedLoop, evaluate, format_table

    config = ClosedLoop(**_given(arguments), path=arguments.path or PATH, frames=arguments.frames)
    _finish(arguments, evaluate, format_table, config)


def _clips(arguments: argparse.Namespace) -> dict[str, object]:
    names = ("frames", "stride", "videos")
    return _given(arguments) | {name: getattr(arguments, name) for name in names}


def novel_view(arguments: argparse.Namespace) -> None:
    """Held to the true video."""
    with evaluation_packages():
        from mirage.evaluation.novel_view import NovelView, evaluate, format_table

    config = NovelView(**_clips(arguments))
    _finish(arguments, evaluate, format_table, config)


def camera(arguments: argparse.Namespace) -> None:
    """Held to the path."""
    with evaluation_packages():
        from mirage.evaluation.camera_control import CameraControl, evaluate, format_table

    config = CameraControl(
        **_given(arguments), frames=arguments.frames, stride=arguments.stride, videos=arguments.videos
    )
    _finish(arguments, evaluate, format_table, config)


def drift(arguments: argparse.Namespace) -> None:
    """Chunk after chunk."""
    with evaluation_packages():
        from mirage.evaluation.drift import Drift, evaluate, format_table

    config = Drift(**_given(arguments), chunks=arguments.chunks, path=arguments.path)
    _finish(arguments, evaluate, format_table, config)


def _given(arguments: argparse.Namespace) -> dict[str, object]:
    """What all tasks are told."""
    from mirage.cli import _device

    names = ("model", "worlds", "first_seed", "steps", "depth", "sheets")
    return {
        "device": _device(arguments.device),
        "sources": tuple(arguments.sources),
        "rows": tuple(arguments.rows),
        **{name: getattr(arguments, name) for name in names},
    }


def _finish(arguments: argparse.Namespace, evaluate: Callable, format_table: Callable, config: object) -> None:
    words = shlex.join(["mirage", *map(str, arguments.words)])
    print(format_table(evaluate(config, arguments.out, processes=arguments.processes, command=words)))
    print(f"results: {arguments.out}\npage: {os.path.join(arguments.out, 'report.html')}")


@contextmanager
def evaluation_packages() -> Iterator[None]:
    """A package that only evaluation needs and that is not there is said in one sentence.

    Raises:
        ValueError: If one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise ValueError(f"evaluation needs {package}: pip install 'mirage-world[evaluate]'") from error
