"""`mirage generate --batch`: many videos of one file of jobs, resumed where it stopped, in parallel or on a cluster."""

import argparse
import contextlib
import difflib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from mirage.prepare_command import add_workers, runner
from mirage.results import alone_in

FILES = ("video.mp4", "contact.jpg", "report.json")
MARK = "job.json"  # beside them, when all of them are there: the line that they are of
OWN = ("out", "world", "batch", "workers", "cluster", "dry_run", "verbose", "device")  # of the command, not of a line
LOADED = (
    *("model", "device", "depth_model", "movers", "memory_weights", "memory_layout", "lora", "dtype", "offload"),
    *("vae_tiling", "quantize", "attention", "compile"),
)
_last: dict[tuple, tuple] = {}  # the models of a process, kept from job to job


def add_batch(one: argparse.ArgumentParser, whole: Callable) -> None:
    """Options of `mirage generate` for many jobs.

    Args:
        one: The command's parser.
        whole: Makes the type of a whole number.
    """
    one.add_argument(
        "--batch",
        metavar="FILE",
        help='many videos: a JSON object per line, as in {"image": "a.png", "path": "orbit", "seed": 3, "name": "a"}, '
        "with any of these options; each goes into a folder of its name, or number, in --out; options given here are "
        "for all of them",
    )
    add_workers(one, whole)


def generate_batch(arguments: argparse.Namespace, parse: Callable) -> None:
    """All jobs of a file; one that cannot be done is named, the rest goes on.

    Args:
        arguments: Of the command.
        parse: Parses the words of one job as those of the command.

    Raises:
        ValueError: If the file cannot be read or none of its jobs could be done.
    """
    from mirage.cli import _device

    if arguments.image or arguments.world or arguments.dry_run:
        raise ValueError("--batch takes its pictures from its lines: leave IMAGE, --world and --dry-run out")
    if not arguments.out:
        raise ValueError("--out is needed: the folder of all results")
    arguments.left = "what is done is kept, the same command goes on"
    file = Path(arguments.batch)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"--batch cannot be read: {file} ({getattr(error, 'strerror', None) or error})") from error
    arguments.device = _device(arguments.device)
    jobs, wrong, done = [], {}, 0
    with alone_in(arguments.out) as out:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                name, told, own = _job(line, number, arguments, parse, {job[0] for job in jobs})
                if _is_done(out / name, told):
                    done += 1
                else:
                    jobs.append((name, told, own, number))
            except ValueError as error:
                wrong[number] = str(error)
                print(f"line {number} of {file}: {error}")
        if not jobs and not done and not wrong:
            raise ValueError(f"--batch is empty: {file} has no job")
        if done:
            print(f"{done} jobs are done already")
        threads = max(1, (os.cpu_count() or 1) // (arguments.workers or os.cpu_count() or 1))
        run = runner(arguments, arguments.device)
        for index, error in run(make_video, [(str(out), *job[:3], threads) for job in jobs]):
            name, _, _, number = jobs[index]
            if error:
                wrong[number] = error
                print(f"line {number} of {file}: {error}", flush=True)
            else:
                done += 1
                print(f"{out / name}", flush=True)
    print(f"{done} videos in {arguments.out}" + (f", {len(wrong)} lines could not be done" if wrong else ""))
    if not done:
        first = min(wrong)
        raise ValueError(f"none of {len(wrong)} jobs could be done; line {first}: {wrong[first]}")


def _job(
    line: str, number: int, arguments: argparse.Namespace, parse: Callable, taken: set[str]
) -> tuple[str, dict, dict]:
    """The name of a job, its line, and its arguments."""
    try:
        told = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from None
    if not isinstance(told, dict):
        raise ValueError('it must be a JSON object, as in {"image": "a.png", "path": "orbit"}')
    name = str(told.get("name", f"{number:05}"))
    if not re.fullmatch(r"[\w.,+=@ -]{1,120}", name) or name.strip(". ") != name:
        raise ValueError(f"name must be a plain name of a folder, got {name!r}")
    if name in taken:
        raise ValueError(f"name {name} is taken by an earlier line")
    words, given, options = ["generate"], [], vars(arguments).keys() - {"run", "words", "left"}
    for key, value in told.items():
        option = key.replace("_", "-")
        if key == "name":
            continue
        if key.replace("-", "_") not in options:
            near = difflib.get_close_matches(key.replace("-", "_"), options, n=1)
            way = f"did you mean {near[0]}?" if near else "see mirage generate --help"
            raise ValueError(f"{key} is no option of mirage generate; {way}")
        if key.replace("-", "_") in OWN:
            raise ValueError(f"{key} is for all lines: give it on the command line")
        values = value if isinstance(value, list) and key == "prompt" else [value]
        for one in values:
            if one is True:
                words.append(f"--{option}")
            elif one is not False and one is not None:
                text = ",".join(map(str, one)) if isinstance(one, list) else str(one)
                words += [text] if key == "image" else [f"--{option}={text}"]
        given.append(key.replace("-", "_"))
    for key in ("image", "path"):
        if not told.get(key):
            raise ValueError(f"{key} is missing")
    parsed = vars(parse(words))
    own = {k: v for k, v in vars(arguments).items() if k not in ("run", "batch", "workers", "cluster")}
    return name, told, own | {key: parsed[key] for key in given}


def _is_done(folder: Path, told: dict) -> bool:
    if not (folder / MARK).is_file():
        return False
    try:
        before = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if before != told:
        raise ValueError(f"{folder} holds the video of another line: give it a name of its own, or remove that folder")
    return all((folder / name).is_file() for name in FILES)


def make_video(out: str, name: str, told: dict, own: dict, threads: int) -> str:
    """One job, done by a worker.

    Args:
        out: Folder of all results.
        name: Of the job.
        told: Its line.
        own: Its arguments.
        threads: That it may use.

    Returns:
        Why it could not be done; empty if it is done.
    """
    import torch

    from mirage.cli import _load, generate
    from mirage.pipeline import MiragePipeline
    from mirage.video.io import write_json

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    arguments = argparse.Namespace(**own)
    arguments.out, arguments.batch, arguments.world = str(Path(out) / name), None, None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            key = tuple(getattr(arguments, part, None) for part in LOADED)
            if key not in _last:
                _last.clear()
                pipeline = _load(MiragePipeline, arguments)
                _last[key] = pipeline, arguments.estimator, arguments.segmenter
            arguments.pipeline, arguments.estimator, arguments.segmenter = _last[key]
            (Path(arguments.out) / MARK).unlink(missing_ok=True)
            generate(arguments)
        write_json(Path(arguments.out) / MARK, told)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    finally:
        torch.set_num_threads(before)
    return ""
