"""`mirage explore`: the server of the explorer from the command line."""

import argparse
import os
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

PACKAGES = {"fastapi", "starlette", "uvicorn", "websockets", "pydantic"}


def explore(arguments: argparse.Namespace) -> None:
    """Serve the explorer until interrupted."""
    begin = None if arguments.begin is None else Path(arguments.begin)
    is_world = begin is not None and ((begin / "world.json").is_file() or begin.suffix == ".zip")
    if begin is not None and begin.is_dir() and not is_world:
        raise ValueError(f"{begin} is a folder without a world.json: give a picture, a world's folder or a zip of one")
    if begin is not None and not is_world:
        from mirage.cli import _check_picture

        _check_picture(arguments.begin)
    elif begin is not None and not begin.exists():
        raise ValueError(f"{begin} does not exist")
    try:
        from mirage.explorer.server import Limits, Serving, serve
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise ValueError(f"the explorer needs {package}: pip install 'mirage-world[explore]'") from error
    from mirage.cli import _load
    from mirage.pipeline import MiragePipeline

    limits = Limits(sessions=arguments.sessions, idle_minutes=arguments.idle_minutes, memory_mib=arguments.memory_mib)
    serving = Serving(host=arguments.host, port=arguments.port, token=arguments.token, limits=limits)
    pipeline = _load(MiragePipeline, arguments)
    pipeline.set_progress_bar_config(disable=True)

    def tell(address: str) -> None:
        print(f"open {address}", flush=True)
        print(f"worlds are kept in {Path(arguments.out).resolve()}; Ctrl-C saves all and ends", flush=True)
        screen = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
        if screen and sys.stdout.isatty() and not arguments.no_browser:
            webbrowser.open(address)

    serve(pipeline, Path(arguments.out), serving, model=arguments.model, begin=begin, tell=tell)


def add_command(
    commands: argparse._SubParsersAction,
    command: Callable[..., argparse.ArgumentParser],
    whole: Callable[..., Callable[[str], int]],
    number: Callable[..., Callable[[str], float]],
    add_model: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add `mirage explore` to the commands."""
    one = command(commands, "explore", explore, "walk through a world in the browser")
    one.set_defaults(left="every world is saved")
    one.add_argument("begin", nargs="?", metavar="IMAGE|WORLD", help="a picture, a world's folder or a zip of one")
    one.add_argument("--out", default="worlds", metavar="DIR", help="folder where worlds are kept (worlds)")
    one.add_argument("--host", default="127.0.0.1", metavar="NAME", help="address to answer at (this machine only)")
    one.add_argument("--port", type=whole(0, 65535), default=7860, metavar="N", help="0 for any free one (7860)")
    one.add_argument(
        "--token", metavar="WORD", help="what everybody has to show; made up if --host is not this machine only"
    )
    one.add_argument("--sessions", type=whole(1, 1000), default=8, metavar="N", help="walks in memory at once (8)")
    one.add_argument(
        "--idle-minutes", type=number(0.1, 1e5), default=30.0, metavar="N", help="a walk sleeps after so long (30)"
    )
    one.add_argument(
        "--memory-mib", type=number(0.25, 1e6), default=64.0, metavar="N", help="bound on the memory of a world (64)"
    )
    one.add_argument("--no-browser", action="store_true", help="only print the address")
    add_model(one)
