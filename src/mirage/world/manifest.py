"""What a world says of itself: `world.json`, the one small file whose replacement is the commit of every change."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT, VERSION = "mirage-world", 1
LARGEST = 64 << 20  # bytes of a manifest or a log
SIDE, FRAMES, TEXT, BYTES = 1 << 14, 1 << 24, 1 << 16, 1 << 40  # pixels, frames, characters, bytes: beyond is damage
CHUNK_FILES = ("latents.safetensors", "memory.safetensors", "frames.mp4")
PICTURE = "image.png"  # one file more of chunk 0


@dataclass(frozen=True, kw_only=True)
class FileMark:
    """How a file is recognised."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelMark:
    """The model that a world was made with."""

    name: str
    """As a person calls it; another name of the same weights is no obstacle."""
    weights: str
    """Names, shapes and samples of all weights, hashed; and what of the configuration the loop depends on."""
    stride: int
    temporal_stride: int
    channels: int
    chunk_frames: int
    preceding_frames: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for every chunk unless a chunk says otherwise."""

    height: int
    width: int
    seed: int = 0
    prompt: str = ""
    negative_prompt: str = ""
    guidance_scale: float = 1.0
    steps: int | None = None
    """Calls of the denoiser per chunk; the model's own number if None."""
    fps: int = 16
    movers: str = ""
    """Name of the segmenter of what is not remembered."""


@dataclass(frozen=True, kw_only=True)
class ChunkMark:
    """One chunk of a world; chunk 0 is the first view."""

    start: int
    """First new frame."""
    stop: int
    """One past the last."""
    prompt: str
    seed: int
    """Of the noise of this chunk."""
    steps: int | None
    coverage: list[float]
    """Share of each new latent frame that the memory knew before it was imagined."""
    update: dict[str, int | float | None]
    """What the memory took; see `UpdateReport`. Empty for chunk 0."""
    memory_bytes: int
    memory_elements: int
    seconds: dict[str, float]
    """Wall-clock time by phase."""
    time: str
    """When it was kept, UTC."""
    files: dict[str, FileMark]

    def __len__(self) -> int:
        """New frames."""
        return self.stop - self.start

    @property
    def bytes(self) -> int:
        """Bytes of its files."""
        return sum(mark.bytes for mark in self.files.values())


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A path that was asked for, and is not yet walked to its end."""

    words: str
    """How it was asked for."""
    start: int
    """Frame of its first camera."""
    stop: int
    """One past the frame of its last."""
    prompts: list[str]
    """One per chunk; the last serves the rest."""
    file: FileMark
    """Its cameras."""

    @property
    def name(self) -> str:
        """Of the file, in the folder of the world."""
        return f"walks/{self.file.sha256[:16]}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a world consists of. A value; a change of the world is another manifest in its place."""

    model: ModelMark
    settings: Settings
    chunks: list[ChunkMark]
    log: FileMark
    """The event log as far as it belongs to this state; what is beyond was never committed."""
    walk: Walk | None = None

    @property
    def files(self) -> dict[str, FileMark]:
        """Every file of the world but the manifest, by its path in the folder."""
        found = {f"{chunk_name(i)}/{n}": m for i, chunk in enumerate(self.chunks) for n, m in chunk.files.items()}
        return found | ({self.walk.name: self.walk.file} if self.walk else {}) | {"log.jsonl": self.log}

    def to_json(self) -> bytes:
        """The content of `world.json`."""
        value = {"format": FORMAT, "version": VERSION, **asdict(self)}
        text = json.dumps(value | {"sha256": _digest(value)}, indent=1, allow_nan=False, ensure_ascii=False)
        return (text + "\n").encode()


def chunk_name(index: int) -> str:
    """The folder of a chunk in that of the world."""
    return f"chunks/{index:04d}"


def read_folder(folder: Path) -> Manifest:
    """The manifest of a world's folder.

    Args:
        folder: The folder.

    Returns:
        What its `world.json` says; nothing else is looked at.

    Raises:
        ValueError: If there is no world or its manifest is damaged.
    """
    path = folder / "world.json"
    if not path.is_symlink() and not path.exists():
        raise ValueError(f"no world at {folder}: {'it holds no world.json' if folder.is_dir() else 'no such folder'}")
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"world {folder} is refused: world.json must be a plain file, no link and no folder")
    with open(path, "rb") as file:
        return read_manifest(file.read(LARGEST + 1), str(folder))


def read_manifest(data: bytes, where: str) -> Manifest:
    """What a `world.json` says, if every word of it makes sense.

    Args:
        data: Its content.
        where: What to call it in an error.

    Returns:
        The manifest.

    Raises:
        ValueError: If it is too large, no JSON, of another version, or says anything that no world says.
    """
    if len(data) > LARGEST:
        raise ValueError(f"world {where} is refused: world.json is larger than {LARGEST >> 20} MiB")
    value = load_json(data, where, "world.json")
    if value.get("format") != FORMAT:
        raise ValueError(f"world {where} is refused: world.json is not of a {FORMAT}, but {value.get('format')!r:.40}")
    if value.get("version") != VERSION:
        raise ValueError(
            f"world {where} is of version {value.get('version')!r:.20}, this program reads version {VERSION}: use the "
            "program that wrote it"
        )
    digest = value.pop("sha256", None)
    if digest != _digest(value):
        raise ValueError(f"world {where} is damaged: the checksum of world.json is not that of its content")
    value = {key: part for key, part in value.items() if key not in ("format", "version")}
    try:
        manifest = _manifest(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"world {where} is damaged: world.json: {error}") from None
    return manifest


def load_json(data: bytes, where: str, name: str) -> dict[str, Any]:
    """A JSON object; NaN, infinity, too deep nesting and other damage are refused."""
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"world {where} is damaged: {name} is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"world {where} is damaged: {name} must be an object, got {type(value).__name__}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _digest(value: dict) -> str:
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (ValueError, RecursionError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest(value: dict) -> Manifest:
    """From parsed JSON: every key and no other, every value of its type and in its range."""
    model = _build(
        ModelMark,
        value["model"],
        name=_text,
        weights=_sha,
        stride=_int(1, 1024),
        temporal_stride=_int(1, 1024),
        channels=_int(1, 1 << 16),
        chunk_frames=_int(2, 1 << 16),
        preceding_frames=_int(0, 1 << 16),
    )
    settings = _build(
        Settings,
        {"movers": "", **_dict(value["settings"])},  # worlds made before it was a setting have none
        height=_int(1, SIDE),
        width=_int(1, SIDE),
        seed=_int(0, 2**63 - 1),
        prompt=_text,
        negative_prompt=_text,
        guidance_scale=_number,
        steps=_or_none(_int(1, 1 << 20)),
        fps=_int(1, 240),
        movers=_text,
    )
    if settings.height % model.stride or settings.width % model.stride:
        raise ValueError(f"size must be multiples of the stride {model.stride}")
    chunks = [_chunk(i, each) for i, each in enumerate(_list(value["chunks"]))]
    ends = [0, *(chunk.stop for chunk in chunks)]
    if not chunks or any(chunk.start != end for chunk, end in zip(chunks, ends, strict=False)) or ends[1] != 1:
        raise ValueError("chunks must follow each other from frame 0, the first of one frame")
    for chunk in chunks[1:]:
        if len(chunk) % model.temporal_stride or not 0 < len(chunk) < model.chunk_frames:
            raise ValueError(f"a chunk of {len(chunk)} new frames is none of this model")
        if len(chunk.coverage) != len(chunk) // model.temporal_stride:
            raise ValueError("coverage must be of each new latent frame")
    walk = _or_none(_walk)(value["walk"])
    if walk and not walk.start <= ends[-1] < walk.stop:
        raise ValueError("walk must have a frame left")
    if set(value) != {"model", "settings", "chunks", "log", "walk"}:
        raise ValueError(f"must say model, settings, chunks, log and walk, got {sorted(value)!s:.200}")
    return Manifest(model=model, settings=settings, chunks=chunks, log=_file(value["log"]), walk=walk)


def _chunk(index: int, value: object) -> ChunkMark:
    chunk = _build(
        ChunkMark,
        value,
        start=_int(0, FRAMES),
        stop=_int(1, FRAMES),
        prompt=_text,
        seed=_int(0, 2**63 - 1),
        steps=_or_none(_int(1, 1 << 20)),
        coverage=lambda v: [_number(x) for x in _list(v)],
        update=lambda v: {_text(k): None if x is None else type(x)(_number(x)) for k, x in _dict(v).items()},
        memory_bytes=_int(0, BYTES),
        memory_elements=_int(0, BYTES),
        seconds=lambda v: {_text(k): _number(x) for k, x in _dict(v).items()},
        time=_text,
        files=lambda v: {k: _file(x) for k, x in _dict(v).items()},
    )
    if set(chunk.files) != {*CHUNK_FILES, *([PICTURE] if index == 0 else [])}:
        raise ValueError(f"chunk {index} must have the files of a chunk, got {sorted(chunk.files)!s:.200}")
    return chunk


def _walk(value: object) -> Walk:
    return _build(
        Walk,
        value,
        words=_text,
        start=_int(1, FRAMES),
        stop=_int(1, FRAMES),
        prompts=lambda v: [_text(x) for x in _list(v)],
        file=_file,
    )


def _file(value: object) -> FileMark:
    return _build(FileMark, value, bytes=_int(0, BYTES), sha256=_sha)


def _build(kind: type, value: object, **readers: Callable[[object], object]) -> Any:
    if set(_dict(value)) != set(readers):
        raise ValueError(f"{kind.__name__} must say {sorted(readers)}, got {sorted(value)!s:.200}")
    made = {}
    for key, read in readers.items():
        try:
            made[key] = read(value[key])
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    return kind(**made)


def _int(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, got {value!r:.40}")
        return value

    return read


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {value!r:.40}")
    return float(value)


def _text(value: object) -> str:
    if type(value) is not str or len(value) > TEXT:
        raise ValueError(f"must be a text of at most {TEXT} characters, got {value!r:.40}")
    return value


def _sha(value: object) -> str:
    if type(value) is not str or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"must be a SHA-256, got {value!r:.40}")
    return value


def _list(value: object) -> list:
    if type(value) is not list:
        raise ValueError(f"must be a list, got {type(value).__name__}")
    return value


def _dict(value: object) -> dict:
    if type(value) is not dict:
        raise ValueError(f"must be an object, got {type(value).__name__}")
    return value


def _or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else read(value)
