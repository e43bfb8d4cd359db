"""Real shards at toy size for the tests of training, and runs of it in processes of their own."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from mirage.camera.cameras import Cameras
from mirage.checkpoint.codecs import model_codec
from mirage.config import from_plain, to_plain
from mirage.dataset.shards import LatentClip, write_manifest, write_shard
from mirage.training.clips import render_clips, to_floats
from mirage.training.recipe import Recipe
from mirage.training.train import train

FINE = 4  # depth per latent cell along each axis


def write_shards(folder: Path, model: Path, *, clips: int = 4, frames: int = 17, caption: str = "a room") -> Path:
    """Clips of exact worlds of 32 x 48 pixels in the latents of a model, two in a shard."""
    coder = model_codec(model)
    codec, made = coder.codec, []
    kinds = ["there-and-back", "walk"] * clips
    for seed in range(clips):
        seen = render_clips([seed], frames, 32, 48, [kinds[seed]])
        stride = codec.temporal_stride
        with torch.no_grad():
            pictures = to_floats(seen.frames)
            video, image = codec.encode(pictures)[0], codec.encode(pictures[0, ::stride, None])[:, 0]
        step = codec.stride // FINE
        made.append(
            LatentClip(
                name=f"world {seed}",
                caption=caption,
                video=video,
                image=image,
                depth=seen.depth[0, ::stride, ::step, ::step].float(),
                keep=~seen.movers[0, ::stride, ::step, ::step],
                cameras=Cameras(seen.intrinsics[0, ::stride], seen.cam_from_world[0, ::stride], 32, 48),
                picture=seen.frames[0, ::stride, :, ::step, ::step],
                way=Cameras(seen.intrinsics[0], seen.cam_from_world[0], 32, 48),
            )
        )
    records = [write_shard(folder, n, made[2 * n : 2 * n + 2]) for n in range((clips + 1) // 2)]
    write_manifest(folder, records, codec=coder.told(), settings={}, source="exact worlds", skipped=[])
    return folder


def recipe_of(model: Path, shards: Path, *stages: dict, **more: object) -> Recipe:
    """A quick recipe: everything float32, a line and a checkpoint for every step unless told otherwise."""
    stage = {"steps": 6, "lr": 1e-2, "batch": 4, "warmup": 2, "betas": [0.9, 0.99], "ema": 0.5}
    plain = {
        "data": [str(shards)],
        "model": {"base": str(model)},
        "stages": [stage | one for one in stages] or [stage | {"train": "full"}],
        "compute": {"precision": "float32"},
        "log": {"every": 1, "save_every": 2, "tracker": "none"},
    }
    return from_plain(Recipe, plain | more)


def losses(out: Path, stage: str) -> list[tuple[int, float]]:
    """The curve of a stage."""
    lines = [json.loads(line) for line in (out / stage / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def start(recipe: Recipe, out: Path, *more: Recipe, processes: int = 1, last: int = 0) -> subprocess.CompletedProcess:
    """Train in another process, or in a group of several; each further recipe in OUT-1, OUT-2, ...

    With `last`, a process is killed as soon as the line of that step is written.
    """
    jobs = json.dumps([to_plain(r) for r in (recipe, *more)])
    command = [sys.executable, __file__, jobs, str(out), str(processes), str(last)]
    env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True)


class Killer(logging.Handler):
    """Kills this process when it tells of a step."""

    def __init__(self, step: int):
        super().__init__()
        self.word = f" step {step} of "

    def emit(self, record: logging.LogRecord) -> None:
        if self.word in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)


def work(jobs: str, out: str, last: int) -> None:
    if last:
        logging.getLogger("mirage").setLevel(logging.INFO)
        logging.getLogger("mirage").addHandler(Killer(last))
    for i, told in enumerate(json.loads(jobs)):
        train(from_plain(Recipe, told), out + (f"-{i}" if i else ""), device="cpu")


def lead(processes: int, jobs: str, out: str, last: int) -> int:
    """Fork the processes of a group: all was imported, nothing was computed yet. The first that fails ends all."""
    os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000)}
    group = set()
    for rank in range(processes):
        if (child := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            work(jobs, out, last)
            sys.exit()
        group.add(child)
    worst = 0
    while group:
        child, status = os.wait()
        group.discard(child)
        if status:
            worst = 1
            for other in group:
                os.kill(other, signal.SIGKILL)
    return worst


if __name__ == "__main__":
    _, jobs, out, processes, last = sys.argv
    if int(processes) > 1:
        sys.exit(lead(int(processes), jobs, out, int(last)))
    work(jobs, out, int(last))
