"""Whether a folder is what WorldScore's evaluation wants; each fault has a name."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mirage.evaluation.worldscore.items import Item, crop_input
from mirage.evaluation.worldscore.paths import camera_data
from mirage.evaluation.worldscore.settings import WorldScore

NAMES = ("input_image.png", "image_data.json", "frames", "videos", "time.txt")
CLOSE = 1e-4  # of poses: the harness computes in float32
FAULTS = {
    "missing": "a file or folder is not there",
    "count": "not exactly scenes * (frames - 1) + 1 frames",
    "names": "frames that are not called 000.png, 001.png, ...",
    "size": "a picture of another size than the settings say",
    "unreadable": "a picture or JSON that cannot be read",
    "record": "image_data.json is not the item with its counts",
    "anchors": "anchor frames are not the multiples of frames - 1",
    "cameras": "camera_data.json is not what the harness writes for the path, or is there for a dynamic item",
    "input": "input_image.png is not the item's picture, cropped and resized",
    "stranger": "a folder that no item of the dataset leads to",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    folder: str
    """The item, under `worldscore_output`."""
    name: str
    """One of `FAULTS`."""
    text: str
    """What is wrong, in words."""


def check(
    config: WorldScore,
    items: Sequence[Item],
    out: str | Path,
    *,
    on_item: Callable[[int, int], None] | None = None,
) -> list[Fault]:
    """Every fault of the results of some items; every picture is read.

    Args:
        config: How they were made.
        items: Items that shall be there. Folders of the same movements beyond them are strangers.
        out: The harness's `runs_root`.
        on_item: Called with the number of items done, and of all.

    Returns:
        The faults, none if the harness can evaluate the folder.
    """
    root, faults = Path(out) / "worldscore_output", []
    for n, item in enumerate(items):
        faults += find_faults(item, root / item.folder, config)
        if on_item is not None:
            on_item(n + 1, len(items))
    known = {str(item.folder) for item in items}
    for movement, depth in {"static": 4, "dynamic": 3}.items():
        if any(item.movement == movement for item in items):
            for place in sorted((root / movement).glob("/".join("*" * depth))):
                folder = place.relative_to(root).as_posix()
                if place.is_dir() and folder not in known:
                    faults.append(Fault(folder, "stranger", "no item of the list leads here; it would be evaluated"))
    return faults


def find_faults(item: Item, place: Path, config: WorldScore, *, quick: bool = False) -> list[Fault]:
    """Every fault of one item.

    Args:
        item: The item.
        place: Its folder.
        config: How it was made.
        quick: Believe what cannot be seen from names and counts.

    Returns:
        The faults.
    """
    found = []
    wrong = lambda name, text: found.append(Fault(str(item.folder), name, text))
    wanted = [*NAMES, *(["camera_data.json"] if item.movement == "static" else [])]
    missing = [name for name in wanted if not (place / name).exists()]
    if missing:
        wrong("missing", ", ".join(missing))
    frames = sorted(path.name for path in (place / "frames").glob("*") if path.suffix in (".png", ".jpg"))
    count = item.count(config.frames)
    if "frames" not in missing and len(frames) != count:
        wrong("count", f"{len(frames)} frames, expected {count}")
    odd = [name for name, right in zip(frames, (f"{n:03d}.png" for n in range(count)), strict=False) if name != right]
    if odd:
        wrong("names", f"{odd[0]} is out of order")
    if (place / "videos").exists() and not (place / "videos" / "output.mp4").is_file():
        wrong("missing", "videos/output.mp4")
    if item.movement == "dynamic" and (place / "camera_data.json").exists():
        wrong("cameras", "camera_data.json is there, a dynamic item has none")
    if quick or "missing" in {fault.name for fault in found}:
        return found
    _check_record(item, place, config, wrong)
    if item.movement == "static":
        _check_cameras(item, place, config, wrong)
    _check_pictures(item, place, config, frames, wrong)
    return found


def _check_record(item: Item, place: Path, config: WorldScore, wrong: Callable) -> None:
    record = _read(place / "image_data.json", wrong)
    if record is None:
        return
    right = item.image_data(config.frames)
    if record.get("anchor_frame_idx") != right.get("anchor_frame_idx"):
        wrong("anchors", f"{record.get('anchor_frame_idx')}, expected {right.get('anchor_frame_idx')}")
    other = [key for key, value in right.items() if record.get(key) != value and key != "anchor_frame_idx"]
    if other:
        wrong("record", f"{other[0]} is {record.get(other[0])!r}, expected {right[other[0]]!r}")


def _check_cameras(item: Item, place: Path, config: WorldScore, wrong: Callable) -> None:
    data = _read(place / "camera_data.json", wrong)
    if data is None:
        return
    right = camera_data(item.moves, config.frames, config.camera_speed)
    for key in ("focal_length", "scale"):
        if data.get(key) != right[key]:
            wrong("cameras", f"{key} is {data.get(key)!r}, expected {right[key]!r}")
    for key in ("cameras", "cameras_interp"):
        try:
            there, here = np.array(data[key], float), np.array(right[key], float)
        except (KeyError, TypeError, ValueError):
            wrong("cameras", f"{key} is not a list of 4 x 4 matrices")
            continue
        if there.shape != here.shape:
            wrong("cameras", f"{key} has shape {there.shape}, expected {here.shape}")
        elif not (off := float(np.abs(there - here).max())) <= CLOSE:
            wrong("cameras", f"{key} differs from the path {', '.join(item.moves)} by up to {off:.3g}")


def _check_pictures(item: Item, place: Path, config: WorldScore, frames: list[str], wrong: Callable) -> None:
    height, width = config.size
    for name in ("input_image.png", *(f"frames/{frame}" for frame in frames)):
        try:
            with Image.open(place / name) as picture:
                picture.load()
                if picture.size != (width, height):
                    wrong("size", f"{name} is {picture.height} x {picture.width}, expected {height} x {width}")
                elif name == "input_image.png":
                    there = np.asarray(picture.convert("RGB"), float)
                    here = np.asarray(crop_input(item.image, height, width).convert("RGB"), float)
                    if np.abs(there - here).mean() > 1:
                        wrong("input", f"it is not {item.image.name}, cropped and resized")
        except (OSError, SyntaxError, ValueError) as error:
            wrong("unreadable", f"{name}: {error}")


def _read(file: Path, wrong: Callable) -> dict | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        wrong("unreadable", f"{file.name}: {error}")
        return None
    if not isinstance(value, dict):
        wrong("unreadable", f"{file.name} is not an object: {type(value).__name__}")
        return None
    return value
