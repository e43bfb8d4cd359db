"""The items of a local copy of WorldScore's dataset, and where the harness looks for what was made of them."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from mirage.evaluation.worldscore.paths import MOVES, movement

MOVEMENTS = ("static", "dynamic")
MOST = 1000  # frames with names of three digits
KEYS = {  # what is read of an item, beside what the harness's own evaluation reads
    "static": {"visual_style": str, "scene_type": str, "image": str, "camera_path": list, "style": str}
    | {"prompt_list": list},
    "dynamic": {"visual_style": str, "motion_type": str, "image": str, "camera_path": list, "style": str}
    | {"prompt": str},
}
WORDS = {name: name.replace("_", " ") for name in (*MOVES, "fixed")}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of the dataset."""

    movement: str
    """"static" or "dynamic"."""
    folder: PurePosixPath
    """Where its results go, under `worldscore_output`."""
    image: Path
    """The input picture."""
    moves: tuple[str, ...]
    """One movement per scene; "fixed" for a dynamic item."""
    prompts: tuple[str, ...]
    """One text per scene, as the harness words it for a video model."""
    record: dict
    """The item as the dataset has it; the harness wants it back in `image_data.json`."""

    def count(self, frames: int) -> int:
        """Frames of the item.

        Args:
            frames: Frames per scene, the first and the last included.

        Returns:
            One more than scenes times `frames - 1`.
        """
        return len(self.moves) * (frames - 1) + 1

    def anchors(self, frames: int) -> list[int]:
        """Frames at which a scene ends and the next begins.

        Args:
            frames: Frames per scene.

        Returns:
            One more than there are scenes.
        """
        return list(range(0, self.count(frames), frames - 1))

    def image_data(self, frames: int) -> dict:
        """What the harness wants in `image_data.json`.

        Args:
            frames: Frames per scene.

        Returns:
            The item with `num_scenes` and `total_frames`; a static one with `anchor_frame_idx`.
        """
        counts = {"num_scenes": len(self.moves), "total_frames": self.count(frames)}
        anchors = {"anchor_frame_idx": self.anchors(frames)} if self.movement == "static" else {}
        return self.record | counts | anchors


def read_items(dataset: str | Path, movements: tuple[str, ...] = MOVEMENTS, *, list_name: str = "") -> list[Item]:
    """Read the items of a local copy of the dataset.

    Args:
        dataset: `WorldScore-Dataset`, or the folder that holds it.
        movements: "static", "dynamic" or both.
        list_name: Another list of `static/` and `dynamic/` than `static.json` and `dynamic.json`: photorealistic.json.

    Returns:
        The items, in the order of the lists.

    Raises:
        ValueError: If there is no such dataset, or an item is not as the harness reads it.
    """
    root = Path(dataset)
    root = root / "WorldScore-Dataset" if (root / "WorldScore-Dataset").is_dir() else root
    items, taken = [], {}
    for kind in movements:
        if kind not in MOVEMENTS:
            raise ValueError(f"movements must be among {', '.join(MOVEMENTS)}, got {kind!r}")
        file = root / kind / (list_name or f"{kind}.json")
        if not file.is_file():
            raise ValueError(
                f"dataset must hold {kind}/{file.name}, got {root}: download Howieeeee/WorldScore and unpack it there"
            )
        try:
            records = json.loads(file.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
        if not isinstance(records, list):
            raise ValueError(f"{file} must be a list of items, got {type(records).__name__}")
        for n, record in enumerate(records):
            item = _item(root, kind, record, f"{file}, item {n}")
            if item.folder in taken:
                raise ValueError(f"{file}, item {n}: its folder {item.folder} is that of item {taken[item.folder]}")
            taken[item.folder] = n
            items.append(item)
    return items


def _item(root: Path, kind: str, record: object, where: str) -> Item:
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object, got {type(record).__name__}")
    for key, wanted in KEYS[kind].items():
        if not isinstance(record.get(key), wanted):
            raise ValueError(f"{where} must have {key} ({wanted.__name__}), got {record.get(key)!r}")
    if record.get("visual_movement", kind) != kind:
        raise ValueError(f"{where} must have visual_movement {kind!r}, got {record['visual_movement']!r}")
    moves, parts = tuple(record["camera_path"]), PurePosixPath(record["image"]).parts
    stem = PurePosixPath(record["image"]).stem
    if kind == "static":
        names = (record["visual_style"], record["scene_type"], parts[-2] if len(parts) > 1 else "", stem)
        scenes = record["prompt_list"]
        if not moves:
            raise ValueError(f"{where}: camera_path is empty")
        for name in moves:
            try:
                movement(name if isinstance(name, str) else repr(name))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        if len(scenes) < len(moves) + 1 or not all(isinstance(text, str) for text in scenes):
            raise ValueError(f"{where}: prompt_list must hold {len(moves) + 1} texts for {len(moves)} movements")
        prompts = tuple(
            f"Camera {WORDS[name]}. {styled(text, record['style'])}. Everything in the scene remains completely "
            "motionless."
            for name, text in zip(moves, scenes[1:], strict=False)
        )
    else:
        names = (record["visual_style"], record["motion_type"], stem)
        if moves != ("fixed",):
            raise ValueError(f"{where}: camera_path of a dynamic item must be ['fixed'], got {list(moves)}")
        prompts = (f"Camera fixed. {styled(record['prompt'], record['style'])}",)
    if not all(name and name not in (".", "..") and not set(name) & set("/\\\0") for name in names):
        raise ValueError(f"{where} must lead to a folder of plain names, got {names}")
    if ".." in parts or PurePosixPath(record["image"]).is_absolute():
        raise ValueError(f"{where}: image must lie in the dataset, got {record['image']!r}")
    folder = PurePosixPath(kind, *names)
    image = root / record["image"]
    return Item(movement=kind, folder=folder, image=image, moves=moves, prompts=prompts, record=record)


def styled(prompt: str, style: str) -> str:
    """A text with its style, as the harness joins them.

    Args:
        prompt: The text.
        style: The style.

    Returns:
        Both, with one full stop between.

    Example:
        >>> styled("A kitchen", "oil painting"), styled("A kitchen.", "oil painting")
        ('A kitchen. oil painting', 'A kitchen. oil painting')
    """
    return f"{prompt} {style}" if prompt.endswith(".") else f"{prompt}. {style}"


def crop_input(path: Path, height: int, width: int) -> Image.Image:
    """The input picture as the harness crops and resizes it: the middle of the target's shape, Pillow's own filter.

    Args:
        path: The picture.
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        The picture, in the mode of the file.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with Image.open(path) as image:
            ratio = width / height
            across, down = image.size
            wide = across / down > ratio
            columns, rows = (int(down * ratio), down) if wide else (across, int(across / ratio))
            left, top = (across - columns) // 2, (down - rows) // 2
            return image.crop((left, top, left + columns, top + rows)).resize((width, height))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "does not exist" if not path.is_file() else f"cannot be read ({error})"
        raise ValueError(f"image {path} {reason}") from error
