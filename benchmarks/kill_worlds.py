"""Kill the writer of a world at every step and at random moments: does the world open at its last complete state?

`python benchmarks/kill_worlds.py --random 200` prints two tables and ends with exit code 1 if a single world was lost.

Every step: a forked process does one thing to a world and ends without a word (`os._exit`) when it is about to open,
make, rename, link or remove the n-th path of it, for every n until the thing is done; and again with a disk that is
full from the n-th step on. Random: the process is killed with SIGKILL after a random time. Afterwards the world must
open, every byte of it must be right, each chunk must be bit for bit that of a world that nobody disturbed, it must be
as before or as after, nothing may be left over, and it must go on.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mirage.camera.cameras import Cameras
from mirage.pipeline import MiragePipeline
from mirage.world import World
from mirage.world.archive import pack, unpack

STEPS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"}
FILLING = {"os.mkdir", "os.rename", "os.link"}
CHUNKS = 4  # of the undisturbed world


class Fault:
    """An audit hook that strikes at the n-th step on a path inside a folder."""

    def __init__(self):
        self.place, self.left, self.strike = None, 0, lambda: None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.place is None or event not in STEPS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if not os.fsdecode(arguments[0]).startswith(self.place):
            return
        writes = event in FILLING or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if self.full and not writes:
            return
        self.left -= 1
        if self.left <= 0:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os._exit(77)

    def arm(self, place: Path, steps: int, *, full: bool) -> None:
        """Strike at that step; with `full`, from then on, as a disk does that is full."""
        self.left, self.full, self.place = steps, full, str(place)

    def disarm(self) -> None:
        """Let everything pass."""
        self.place = None


class Walks:
    """Things that are done to a world, and what it must be afterwards."""

    def __init__(self, model: str, folder: Path):
        self.folder = folder
        self.pipeline = MiragePipeline.from_pretrained(model)
        self.pipeline.set_progress_bar_config(disable=True)
        height, width = self.pipeline.config.size
        step = self.pipeline.codec.stride * self.pipeline.transformer.config.patch_size[1]
        height, width = min(height, 2 * step), min(width, 3 * step)
        y, x = np.mgrid[:height, :width]
        self.image = np.stack([x * 5 % 256, y * 7 % 256, (x + y) * 3 % 256], -1).astype(np.uint8)
        self.camera = Cameras.from_fov(1.0, height, width)
        self.whole = self.begin(folder / "whole")
        for _ in range(CHUNKS):
            self.whole.extend(self.path(self.whole))
        self.marks = [chunk.files for chunk in self.whole.chunks]
        self.whole.close()

    def begin(self, folder: Path) -> World:
        return World.create(folder, self.pipeline, self.image, self.camera, steps=1)

    def path(self, world: World) -> Cameras:
        count = self.pipeline.codec.temporal_stride
        pose = torch.eye(4).repeat(count, 1, 1)
        pose[:, 2, 3] = -0.01 * torch.arange(world.chunks[-1].stop, world.chunks[-1].stop + count)
        return Cameras(self.camera.intrinsics.repeat(count, 1, 1), pose, self.camera.height, self.camera.width)

    def copy(self, chunks: int) -> Path:
        """A fresh world of some chunks."""
        folder = self.folder / f"world-{time.monotonic_ns()}"
        with World.open(self.folder / "whole", write=False) as whole:
            whole.branch(folder, chunks).close()
        return folder

    def do(self, what: str, folder: Path) -> None:
        """One change of a world, by a process of its own."""
        if what == "create":
            return self.begin(folder).close()
        if what == "unpack":
            return unpack(self.folder / "whole.zip", folder)
        if what == "pack":
            with World.open(folder, write=False) as world:
                return pack(world, self.folder / "packed.zip")
        with World.open(folder, self.pipeline) as world:
            if what == "generate":
                world.extend(self.path(world))
            elif what == "plan":
                world.plan(self.path(world))
            elif what == "undo":
                world.undo()
            elif what == "branch":
                world.branch(folder.with_name(f"{folder.name}-branch")).close()
        return None

    def check(self, folder: Path, chunks: set[int], *, go_on: bool = True) -> int:
        """How many chunks a world has; an error if it is not whole, not as it must be, or leaves something behind."""
        with World.open(folder, self.pipeline if go_on else None) as world:
            report, count = world.verify(), len(world.chunks) - 1
            assert not report.problems and not report.strangers, report
            assert count in chunks, f"{count} chunks, expected {chunks}"
            assert all(
                chunk.files[name].sha256 == mark.sha256
                for chunk, marks in zip(world.chunks, self.marks, strict=False)
                for name, mark in marks.items()
                if name != "memory.safetensors"  # its header has no order; what it holds shows in the next chunk
            ), "a chunk is not that of the undisturbed world"
            if go_on and count < CHUNKS:
                world.extend(self.path(world))
                name = "frames.mp4"
                assert world.chunks[-1].files[name].sha256 == self.marks[count + 1][name].sha256, "it went on otherwise"
        return count


def every_step(walks: Walks, fault: Fault, what: str, *, full: bool, stride: int = 1) -> Counter:
    """Strike at the first, second, ... step of a change until it gets through; with a stride, at some of them."""
    results: Counter = Counter()
    for step in range(1, 1000, stride):
        new = what in ("create", "unpack")
        folder = walks.folder / f"world-{time.monotonic_ns()}" if new else walks.copy(2)
        place = folder.parent if new or what == "branch" else folder
        code = forked(lambda f=folder, p=place, s=step: (fault.arm(p, s, full=full), walks.do(what, f)))
        targets = [(folder, {"generate": {2, 3}, "undo": {1, 2}, "create": {0}, "unpack": {CHUNKS}}.get(what, {2}))]
        if what == "branch":
            targets.append((folder.with_name(f"{folder.name}-branch"), {2}))
        for target, chunks in targets:
            if not (target / "world.json").exists() and (target != folder or new):
                assert code != 0, "no world, and no error"
                assert not full or not target.exists(), f"{sorted(target.rglob('*'))} is left where there is no world"
                if what == "create":
                    walks.do(what, target)
                results["no world, and it can be begun"] += 1
                continue
            count = walks.check(target, chunks, go_on=step % 4 == 0)
            results["as after" if count != 2 or new or target != folder else "as before"] += 1
            shutil.rmtree(target)
        if code == 0:
            return results
        assert code == (28 if full else 77), f"ended with {code} at step {step}"
    raise AssertionError("no end")


def forked(run: Callable[[], object]) -> int:
    """The exit code of a process that does something; 28 if it says that the disk is full."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        run()
        os._exit(0)
    except OSError as error:
        os._exit(28 if "no space left" in str(error).lower() else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def random_moments(walks: Walks, count: int, seed: int) -> Counter:
    """Kill changes of one and the same world, again and again."""
    results: Counter = Counter()
    rng = random.Random(seed)
    took = {}
    for what in ("generate", "undo", "branch", "pack"):
        folder, start = walks.copy(2), time.perf_counter()
        forked(lambda w=what, f=folder: walks.do(w, f))
        took[what] = time.perf_counter() - start
        for left in walks.folder.glob(f"{folder.name}*"):
            shutil.rmtree(left)
    folder = walks.copy(2)
    for _ in range(count):
        with World.open(folder, write=False) as world:
            chunks = len(world.chunks) - 1
        what = rng.choice(["generate"] * 3 + ["undo"] * 2 + ["branch", "pack"])
        what = "undo" if what == "generate" and chunks == CHUNKS else "generate" if chunks < 2 else what
        child = os.fork()
        if not child:
            walks.do(what, folder)
            os._exit(0)
        time.sleep(rng.uniform(0, 2 * took[what]))
        os.kill(child, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        after = {"generate": chunks + 1, "undo": chunks - 1}.get(what, chunks)
        got = walks.check(folder, {chunks, after}, go_on=False)
        branch = folder.with_name(f"{folder.name}-branch")
        if (branch / "world.json").exists():
            walks.check(branch, {chunks}, go_on=False)
        shutil.rmtree(branch, ignore_errors=True)
        moment = "came too late" if ended == 0 else "as before" if got == chunks else "as after"
        results[f"{what}: {moment}"] += 1
    walks.check(folder, {0, 1, 2, 3, 4})
    return results


def main() -> None:
    """Run, print, fail if a world was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="nano, or the folder of a model")
    parser.add_argument("--random", type=int, default=200, metavar="N", help="kills at random moments")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
    parser.add_argument(
        "--every", nargs="*", default=["create", "generate", "plan", "undo", "branch", "unpack"], metavar="CHANGE"
    )
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="only each N-th step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no other thread
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        walks, fault = Walks(arguments.model, Path(folder)), Fault()
        with World.open(walks.folder / "whole", write=False) as whole:
            pack(whole, walks.folder / "whole.zip")
        for what in arguments.every:
            for full in (False, True):
                table[f"{what}, {'disk full from' if full else 'killed at'} each step"] = every_step(
                    walks, fault, what, full=full, stride=arguments.stride
                )
        if arguments.random:
            table["killed at random moments"] = random_moments(walks, arguments.random, arguments.seed)
    print(json.dumps(table, indent=1))
    print(f"{sum(sum(found.values()) for found in table.values())} worlds looked at, none lost")


if __name__ == "__main__":
    main()
