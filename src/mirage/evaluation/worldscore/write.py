"""Write what WorldScore's harness evaluates: item by item, each whole or not at all, resumed where it stopped."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.evaluation.study import fingerprint
from mirage.evaluation.worldscore.check import find_faults
from mirage.evaluation.worldscore.items import MOST, Item, crop_input
from mirage.evaluation.worldscore.paths import camera_data, held, to_cameras
from mirage.evaluation.worldscore.settings import WorldScore
from mirage.pipeline import MiragePipeline
from mirage.video.io import read_image, write_json, write_video

logger = logging.getLogger(__name__)
SETTINGS = "mirage.json"
OUTPUT = "worldscore_output"


def imagine(
    pipeline: MiragePipeline,
    config: WorldScore,
    image: UInt8[np.ndarray, "h w 3"],
    matrices: Float64[Tensor, "f 4 4"],
    prompts: Sequence[str],
    seed: int,
) -> UInt8[np.ndarray, "f h w 3"]:
    """The video of one item.

    Args:
        pipeline: The model.
        config: How.
        image: The input picture, of the size of the settings.
        matrices: `cameras_interp`, one per frame.
        prompts: One per scene; not looked at by a model that reads no text.
        seed: Of the noise.

    Returns:
        One frame per matrix.
    """
    cameras: Cameras = to_cameras(matrices, config.intrinsics, *config.size, scale=config.scale)
    step, scene = pipeline.config.chunk_frames - 1, config.frames - 1
    texts = [prompts[min(start // scene, len(prompts) - 1)] for start in range(0, len(cameras) - 1, step)]
    output = pipeline(
        image,
        cameras,
        texts if pipeline.transformer.config.text_dim else None,
        estimator=config.estimator,
        movers=config.movers,
        num_inference_steps=config.steps,
        guidance_scale=config.guidance,
        negative_prompt=config.negative_prompt,
        generator=torch.Generator().manual_seed(seed),
    )
    return output.frames


def write(
    config: WorldScore,
    items: Sequence[Item],
    out: str | os.PathLike,
    pipeline: MiragePipeline,
    *,
    on_item: Callable[[int, int, str], None] | None = None,
) -> dict[str, str]:
    """Write the results of all items that are not whole yet; one that cannot be made does not stop the others.

    Args:
        config: How they are made.
        items: The items.
        out: The harness's `runs_root`: results go into `worldscore_output` below it, settings into `mirage.json`.
        pipeline: The model.
        on_item: Called with the number of items done, of all, and what was done last.

    Returns:
        Folder -> why, of the items that could not be made.

    Raises:
        ValueError: If the settings do not fit the model, the folder holds results of others, or an item would have
            more frames than the harness can order.
        OSError: If the folder cannot be written.
    """
    out = Path(out)
    fits(config, items, pipeline)
    keep_settings(out, config)
    told = on_item or (lambda done, total, word: logger.info("%d of %d: %s", done, total, word))
    failed = {}
    for n, item in enumerate(items):
        place = out / OUTPUT / item.folder
        if not find_faults(item, place, config, quick=True):
            told(n + 1, len(items), f"{item.folder} is there")
            continue
        try:
            seconds = _write_item(config, item, place, pipeline)
            told(n + 1, len(items), f"{item.folder}: {item.count(config.frames)} frames in {seconds:.1f} s")
        except ValueError as error:
            failed[str(item.folder)] = str(error)
            told(n + 1, len(items), f"{item.folder}: {error}")
    return failed


def fits(config: WorldScore, items: Sequence[Item], pipeline: MiragePipeline) -> None:
    """Refuse settings that cannot be kept, before anything is made.

    Args:
        config: The settings.
        items: The items.
        pipeline: The model.

    Raises:
        ValueError: If frames or size do not fit the model, or an item would have more than 1000 frames.
    """
    stride = pipeline.codec.temporal_stride
    if (config.frames - 1) % stride:
        below = (config.frames - 1) // stride * stride + 1
        choice = f"{below} or {below + stride}" if below > 1 else f"{below + stride}"
        raise ValueError(f"frames must be 1 + n * {stride} for this model, got {config.frames}: use {choice}")
    if (config.frames - 1) % (pipeline.config.chunk_frames - 1):
        logger.warning(
            "anchor frames are not ends of chunks: with frames 1 + n * %d they would be",
            pipeline.config.chunk_frames - 1,
        )
    long = max(items, key=lambda item: item.count(config.frames), default=None)
    if long is not None and long.count(config.frames) > MOST:
        raise ValueError(
            f"frames must leave every item at most {MOST} frames, {long.folder} would have "
            f"{long.count(config.frames)}: the harness names them %03d.png and sorts the names, so 1000.png would come "
            f"before 101.png; use frames up to {(MOST - 1) // len(long.moves) + 1}"
        )


def keep_settings(out: Path, config: WorldScore) -> None:
    """Write `mirage.json`, or refuse a folder that was made otherwise.

    Args:
        out: The folder.
        config: The settings.

    Raises:
        ValueError: If the folder was made with other settings or weights.
    """
    settings = json.loads(json.dumps(asdict(config)))
    file, weights = out / SETTINGS, fingerprint(config.model)
    if file.exists():
        there = json.loads(file.read_text(encoding="utf-8"))
        if there["weights"] != weights:
            raise ValueError(f"out must be a new folder, {out} was made with other weights of {config.model}")
        there = there["settings"]
        other = {key: (there.get(key), value) for key, value in settings.items() if there.get(key) != value}
        if other:
            words = ", ".join(f"{key} {a!r} and not {b!r}" for key, (a, b) in other.items())
            raise ValueError(f"out must be a new folder or one made alike, {out} was made with {words}")
        return
    write_json(file, {"settings": settings, "weights": weights, "intrinsics": config.lens_report()})


def _write_item(config: WorldScore, item: Item, place: Path, pipeline: MiragePipeline) -> float:
    """Make one item: everything aside, then into place, the frames last."""
    start = time.perf_counter()
    picture = crop_input(item.image, *config.size)
    place.mkdir(parents=True, exist_ok=True)
    for rest in place.glob(".mirage-*"):  # of a run that was killed
        shutil.rmtree(rest)
    aside = place / f".mirage-{os.getpid()}"
    try:
        (aside / "frames").mkdir(parents=True)
        picture.save(aside / "input_image.png")
        matrices = _matrices(config, item, place, aside)
        digest = hashlib.sha256(f"{config.seed}/{item.folder}".encode()).digest()
        seed = int.from_bytes(digest[:6], "big")
        video = imagine(pipeline, config, read_image(aside / "input_image.png"), matrices, item.prompts, seed)
        assert len(video) == item.count(config.frames), "one frame per camera"
        for n, frame in enumerate(video):
            Image.fromarray(frame).save(aside / "frames" / f"{n:03d}.png")
        write_video(aside / "videos" / "output.mp4", video, fps=config.fps)
        write_json(aside / "image_data.json", item.image_data(config.frames))
        seconds = time.perf_counter() - start
        (aside / "time.txt").write_text(f"generate_time: {seconds:.4f}\n")
        for name in ("camera_data.json", "image_data.json", "input_image.png", "time.txt", "videos", "frames"):
            if not (aside / name).exists():
                continue
            if (place / name).is_dir():
                shutil.rmtree(place / name)
            os.replace(aside / name, place / name)
        return seconds
    except OSError as error:
        raise OSError(f"cannot write {place}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _matrices(config: WorldScore, item: Item, place: Path, aside: Path) -> Float64[Tensor, "f 4 4"]:
    """The cameras of an item: those that the harness's loader has written, else ours, which are the same."""
    count = item.count(config.frames)
    if item.movement == "dynamic":
        return held(count)
    file = place / "camera_data.json"
    if not file.exists():
        write_json(aside / file.name, camera_data(item.moves, config.frames, config.camera_speed))
        file = aside / file.name
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))["cameras_interp"]
        matrices = torch.tensor(listed, dtype=torch.float64)
        right = tuple(matrices.shape) == (count, 4, 4)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"camera_data.json is damaged ({error}): remove it, it is written anew") from error
    if not right:
        raise ValueError(
            f"camera_data.json must hold {count} cameras of 4 x 4, got {tuple(matrices.shape)}: the harness was set to "
            "other frames; set its `frames` alike, or remove the file"
        )
    return matrices
