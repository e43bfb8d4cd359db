"""The closed loop: walk A-B-A-B-A through held-out exact worlds, and measure whether A and B are still there.

A is in the input picture, B is not: a return to A asks whether what was *observed* is kept, a return to B whether what
was *imagined* is. Every table has two controls, because a return alone is won by a model that imagines nothing.
"""

import functools
import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.evaluation import metrics
from mirage.evaluation.report import write_report
from mirage.geometry.nano import FAR
from mirage.memory import LatentMemory
from mirage.pipeline import EMBEDDED, MiragePipeline
from mirage.scenes import Worlds, render, sample_path
from mirage.video.io import tensor_to_images, write_image

logger = logging.getLogger(__name__)
HELD_OUT = 1_000_000  # training uses seeds from 0 on
MEMORIES = {  # row -> what `MiragePipeline` takes as memory
    "latent": "latent",
    "latent-nearest": functools.partial(LatentMemory.from_view, read="nearest-corner"),
    "colour": "colour",
    "none": "none",
}
CONTROLS = ("memory-only", "autoencoder")
Depth = Literal["known", "head"]


@dataclass(frozen=True, kw_only=True)
class ClosedLoop:
    """What is measured. Results of other worlds or rows of the same settings can share a folder."""

    model: str = "nano"
    """A name or folder that `MiragePipeline.from_pretrained` takes."""
    worlds: int = 100
    """Number of worlds, with consecutive seeds."""
    first_seed: int = HELD_OUT
    """Seed of the first world, far from those of training."""
    rows: tuple[str, ...] = tuple(MEMORIES)
    """Kinds of memory; the controls are measured in any case."""
    frames: int = 65
    """Frames of a walk with four legs."""
    steps: int | None = None
    """Calls of the denoiser per chunk; the model's own number if None."""
    depth: Depth = "known"
    """Depth of the input picture: the true one, or what the model estimates. All later depth is estimated."""
    device: str = "cpu"
    """Where the model runs."""
    sheets: int = 4
    """Number of worlds that are shown as pictures."""

    def __post_init__(self):
        unknown = [row for row in self.rows if row not in MEMORIES]
        if unknown or not self.rows:
            raise ValueError(f"rows must be among {', '.join(MEMORIES)}, got {', '.join(unknown) or 'none'}")
        for name, least in {"worlds": 1, "first_seed": 0, "sheets": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.frames < 17 or self.frames % 16 != 1:
            below = max(17, self.frames - (self.frames - 1) % 16)
            raise ValueError(
                f"frames must be 1 + n * 16, so that visits are latent frames, got {self.frames}; "
                f"use {below} or {below + 16}"
            )
        if self.depth not in get_args(Depth):
            raise ValueError(f"depth must be one of {', '.join(get_args(Depth))}, got {self.depth!r}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be positive, got {self.steps}")

    @property
    def visits(self) -> tuple[int, ...]:
        """Frames at A, B, A, B and A."""
        return tuple(range(0, self.frames, (self.frames - 1) // 4))

    @property
    def seeds(self) -> range:
        """Seeds of the worlds."""
        return range(self.first_seed, self.first_seed + self.worlds)

    @property
    def all_rows(self) -> tuple[str, ...]:
        """Rows of the table, the controls last."""
        return (*self.rows, *CONTROLS)


@dataclass(frozen=True)
class Walk:
    """One held-out world with its walk and all that is true of it."""

    seed: int
    cameras: Cameras
    colour: Float32[Tensor, "f 3 h w"]
    depth: Float32[Tensor, "f h w"]
    seen: Bool[np.ndarray, "f h w"]

    @functools.cached_property
    def frames(self) -> UInt8[np.ndarray, "f h w 3"]:
        """The true frames, as they are shown."""
        return tensor_to_images(self.colour)


def make_walk(seed: int, frames: int, height: int, width: int, device: str = "cpu") -> Walk:
    """A static world and a walk A-B-A-B-A in it; places that are visited twice are rendered once.

    Args:
        seed: Fixes both.
        frames: Frames of the walk.
        height: Pixels.
        width: Pixels.
        device: Where to render.

    Returns:
        The walk, on `device`; the sky at depth `FAR`, where the model remembers it.
    """
    world = Worlds.sample([seed], movers=0)
    cameras = sample_path(world, seed, frames, kind="abab", height=height, width=width)
    poses, index = torch.unique(cameras.cam_from_world, dim=0, return_inverse=True)
    places = Cameras(cameras.intrinsics[: len(poses)], poses, height, width)
    view = render(world.to(device), places.to(device))
    cameras, index = cameras.to(device), index.to(device)
    depth = torch.where(view.sky, FAR, view.depth.clamp(max=FAR))[0, index]
    seen = metrics.seen_from(depth, cameras, depth[0], cameras[0])
    colour = tensor_to_images(view.colour[0, index])  # what the model gets is what a file would hold
    colour = torch.from_numpy(colour).to(device).movedim(-1, 1).float() / 127.5 - 1
    return Walk(seed, cameras, colour, depth, seen.cpu().numpy())


@torch.no_grad()
def roll_out(
    pipeline: MiragePipeline, walk: Walk, row: str, config: ClosedLoop
) -> tuple[UInt8[np.ndarray, "f h w 3"], int]:
    """The video of one row, and the size of its memory in bytes.

    Args:
        pipeline: The model.
        walk: Where to go.
        row: A kind of memory, or a control.
        config: Steps and depth.

    Returns:
        The frames, and the bytes at the end.
    """
    depth = walk.depth[0] if config.depth == "known" else None
    if row in MEMORIES:
        output = pipeline(
            walk.colour[0],
            walk.cameras,
            memory=MEMORIES[row],
            depth=depth,
            num_inference_steps=config.steps,
            generator=torch.Generator().manual_seed(walk.seed),  # the same noise for every row
        )
        return output.frames, output.memory_bytes[-1]
    codec = pipeline.codec
    if row == "autoencoder":
        return tensor_to_images(codec.decode(codec.encode(walk.colour[None]))[0]), 0
    memory = pipeline.begin(walk.colour[0], walk.cameras[0], memory="latent", depth=depth).memory
    known = memory.read(walk.cameras[:: codec.temporal_stride])
    return tensor_to_images(codec.decode(known.features[None])[0]), memory.nbytes


def measure(walk: Walk, video: UInt8[np.ndarray, "f h w 3"], visits: tuple[int, ...]) -> dict:
    """All figures of one video.

    Args:
        walk: The truth.
        video: What was made of it.
        visits: Frames at A, B, A, B and A.

    Returns:
        `observed` (last A against the input), `imagined` (second B against the first, on pixels that the input does
        not show), `all`, `seen` and `unseen` (frames 1 and on against the truth), and `curves` over frames.
    """
    _, b1, _, b2, a3 = visits
    truth, seen = walk.frames, walk.seen
    unseen, later = ~seen, slice(1, None)
    new = unseen[b1]
    result = {
        "observed_psnr": metrics.psnr(video[a3], truth[0]),
        "observed_ssim": metrics.ssim(video[a3], truth[0]),
        **_moved("observed", metrics.flow(truth[0], video[a3]), np.ones_like(new)),
        "imagined_psnr": metrics.psnr(video[b2], video[b1], new),
        "imagined_ssim": metrics.ssim(video[b2], video[b1], new),
        **_moved("imagined", metrics.flow(video[b1], video[b2]), new),
        "imagined_share": float(new.mean()),
        "all_psnr": metrics.psnr(video[later], truth[later]),
        "seen_psnr": metrics.psnr(video[later], truth[later], seen[later]),
        "unseen_psnr": metrics.psnr(video[later], truth[later], unseen[later]),
        "seen_detail": metrics.detail(video[later], truth[later], seen[later]),
        "unseen_detail": metrics.detail(video[later], truth[later], unseen[later]),
    }
    enough = 0.01 * new.size  # pixels without which a frame has no point on a curve
    curve = lambda masks: [
        metrics.psnr(v, t, m if m.sum() >= enough else m & False) for v, t, m in zip(video, truth, masks, strict=True)
    ]
    result["curves"] = {"all": curve(seen | True), "seen": curve(seen), "unseen": curve(unseen)}
    return result


def _moved(name: str, flow: Float32[np.ndarray, "h w 2"], mask: Bool[np.ndarray, "h w"]) -> dict[str, float]:
    size = np.linalg.norm(flow, axis=-1)[mask]
    median, mean = (float(np.median(size)), float(size.mean())) if size.size else (float("nan"), float("nan"))
    return {f"{name}_flow": median, f"{name}_flow_mean": mean}


@functools.lru_cache(maxsize=1)
def _load(model: str, device: str) -> MiragePipeline:
    pipeline = MiragePipeline.from_pretrained(model).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def measure_world(config: ClosedLoop, seed: int, rows: tuple[str, ...], out: Path) -> list[dict]:
    """Measure some rows of one world; also writes the pictures of its visits if it is one of those that are shown.

    Args:
        config: The settings.
        seed: The world.
        rows: Rows that are not measured yet.
        out: Folder of the results.

    Returns:
        One record per row.
    """
    pipeline = _load(config.model, config.device)
    walk = make_walk(seed, config.frames, *pipeline.config.size, device=config.device)
    shown = seed in config.seeds[: config.sheets]
    strip = lambda video: np.concatenate([video[i] for i in config.visits], 1)
    if shown:
        write_image(out / "visits" / f"{seed}-truth.png", strip(walk.frames))
    records = []
    for row in rows:
        start = time.perf_counter()
        video, size = roll_out(pipeline, walk, row, config)
        seconds = time.perf_counter() - start
        if shown:
            write_image(out / "visits" / f"{seed}-{row}.png", strip(video))
        figures = measure(walk, video, config.visits) | {"seconds": seconds, "memory_bytes": size}
        records.append({"seed": seed, "row": row, **_rounded(figures)})
    return records


def _rounded(value: object) -> object:
    """Floats as the file holds them: seven digits, None for NaN."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    return value


def evaluate(
    config: ClosedLoop,
    out: str | os.PathLike,
    *,
    processes: int = 2,
    on_world: Callable[[int, int], None] | None = None,
) -> dict:
    """Measure all rows on all worlds, and write `results.json`, `table.md`, curves and contact sheets.

    Each world is appended to `results.jsonl` as soon as it is measured; what is there already is not measured again,
    so a run that was interrupted, or that shall have more worlds or rows, goes on where it was.

    Args:
        config: What to measure.
        out: Folder of the results; made if missing.
        processes: Worlds that are measured at a time, with one thread each; 1 stays in this process.
        on_world: Called with the numbers of worlds that are done and wanted, at the start and after each.

    Returns:
        What `results.json` holds; `format_table` makes a table of it.

    Raises:
        ValueError: If there is no such model, or the folder holds results of other settings or of another model.
    """
    out = Path(out)
    model = _load(config.model, config.device).config  # a model that cannot be loaded is refused before all else
    config = replace(config, steps=config.steps or model.num_inference_steps)
    journal = _Journal(out / "results.jsonl", config)
    todo = {s: tuple(r for r in config.all_rows if (s, r) not in journal.records) for s in config.seeds}
    todo = {seed: rows for seed, rows in todo.items() if rows}
    done = config.worlds - len(todo)
    report = on_world or (lambda done, total: logger.info("measured %d of %d worlds", done, total))
    report(done, config.worlds)
    for records in _measured(config, todo, out, processes):
        journal.append(records)
        done += 1
        report(done, config.worlds)
    wanted = [journal.records[s, r] for s in config.seeds for r in config.all_rows]
    return write_report(out, asdict(config) | {"size": list(model.size)} | journal.model, config.visits, wanted)


def _measured(config: ClosedLoop, todo: dict[int, tuple[str, ...]], out: Path, processes: int) -> Iterator[list[dict]]:
    """The records of each world, in the order in which they are ready."""
    if processes == 1 or len(todo) < 2:
        for seed, rows in todo.items():
            yield measure_world(config, seed, rows, out)
        return
    workers = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        jobs = [workers.submit(measure_world, config, seed, rows, out) for seed, rows in todo.items()]
        for job in as_completed(jobs):
            yield job.result()
    finally:
        workers.shutdown(cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # the parent says what there is to say


class _Journal:
    """Records in a file with one line per world: appended whole, and read back up to the last whole line."""

    def __init__(self, path: Path, config: ClosedLoop):
        self.path = path
        self.model = {"weights": _fingerprint(config.model)}
        free = ("worlds", "first_seed", "rows", "sheets", "model", "device")
        settings = {k: v for k, v in asdict(config).items() if k not in free} | self.model
        self.records: dict[tuple[int, str], dict] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole and json.loads(whole[0]) != settings:
            raise ValueError(
                f"out must be a new folder or hold results of the same settings {settings}, "
                f"{path} has {json.loads(whole[0])}: choose another folder or remove that file"
            )
        for line in whole[1:]:
            self.records |= {(r["seed"], r["row"]): r for r in json.loads(line)}
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(whole) < len(lines):  # a write was cut off
            os.truncate(path, sum(map(len, whole)))
        if not whole:
            self._write(settings)

    def append(self, records: list[dict]) -> None:
        self.records |= {(r["seed"], r["row"]): r for r in records}
        self._write(records)

    def _write(self, value: object) -> None:
        with open(self.path, "ab") as file:
            file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _fingerprint(model: str) -> str:
    """Tells other weights of the same name; a model on the hub is known by its name."""
    folder = EMBEDDED.get(model, Path(model))
    digest = hashlib.sha256()
    files = sorted(f for f in folder.rglob("*") if f.suffix in (".safetensors", ".json")) if folder.is_dir() else []
    for file in files:
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16] if files else model
