"""Shards: prepared clips in safetensors files with one index, written whole, read at random from mapped memory.

A folder holds `manifest.json`, the index, and `shard-00000.safetensors` and so on. See docs/data.md.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.video.io import atomic, write_json
from mirage.world.disk import hash_file

FORMAT, VERSION = "mirage-shards", 1
MANIFEST = "manifest.json"
TENSORS = ("video", "image", "depth", "keep", "picture", "intrinsics", "cam_from_world")
HALF = 65504.0  # the largest number of half precision


class DamagedClip(ValueError):
    """A clip whose bytes are not those that were written: the others can still be read."""


@dataclass(frozen=True, kw_only=True)
class LatentClip:
    """A clip as training sees it: latents with the geometry of their frames.

    Convention:
        Latent frame i shows video frame `i * temporal_stride`. Depth is z, 0 = unknown; the world is that of the first
        camera, in its source's units.
    """

    name: str
    """Where it comes from: unique in a set."""
    caption: str
    """What it shows, in words; empty if nobody said."""
    video: Float[Tensor, "t c h w"]
    """Normalised latents of the whole clip: what the denoiser makes."""
    image: Float[Tensor, "t c h w"]
    """The picture of each latent frame encoded alone: what the memory holds."""
    depth: Float[Tensor, "t y x"]
    """z-depth at the latent frames, on a grid that is a whole multiple of the latents'."""
    keep: Bool[Tensor, "t y x"]
    """False where a mover is."""
    cameras: Cameras
    """Of the latent frames, in pixels of the video."""
    picture: UInt8[Tensor, "t 3 y x"]
    """What the latent frames show, on the grid of the depth: for people, and for the check of the geometry."""
    way: Cameras | None = None
    """Of all frames of the video, those of the latent frames among them; None in sets from before these were kept."""

    def __post_init__(self):
        if self.way is not None and (len(self.video) < 2 or (len(self.way) - 1) % (len(self.video) - 1)):
            raise ValueError(
                f"way must be of one frame and whole groups for {len(self.video)} latent frames, got {len(self.way)}"
            )


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What the index says of one clip."""

    name: str
    caption: str
    latent_frames: int
    height: int
    """Of the video, in pixels."""
    width: int
    crc32: int
    """Of all its tensors."""


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What the index says of one shard."""

    file: str
    """Its name; empty if none of its clips could be made."""
    bytes: int
    sha256: str
    clips: tuple[ClipRecord, ...]

    @classmethod
    def read(cls, told: dict) -> "ShardRecord":
        """A record of JSON."""
        clips = tuple(ClipRecord(**clip) for clip in told["clips"])
        return cls(file=told["file"], bytes=told["bytes"], sha256=told["sha256"], clips=clips)

    def told(self) -> dict:
        """The record as JSON says it."""
        return {**vars(self), "clips": [dict(vars(clip)) for clip in self.clips]}


def write_shard(folder: str | Path, number: int, clips: Sequence[LatentClip]) -> ShardRecord:
    """Write clips as one shard, whole or not at all; the same clips always make the same bytes.

    Args:
        folder: Of the set; made if missing.
        number: Of the shard.
        clips: What goes into it; none writes no file.

    Returns:
        What the index has to say of it.

    Raises:
        OSError: In one sentence, if the disk is full or the folder cannot be written.
    """
    if not clips:
        return ShardRecord(file="", bytes=0, sha256="", clips=())
    path = Path(folder) / f"shard-{number:05}.safetensors"
    tensors, records = {}, []
    for i, clip in enumerate(clips):
        own = packed(clip)
        tensors |= {f"{i:04}.{name}": tensor for name, tensor in own.items()}
        size = {"height": clip.cameras.height, "width": clip.cameras.width}
        about = {"name": clip.name, "caption": clip.caption, "latent_frames": len(clip.video), **size}
        records.append(ClipRecord(**about, crc32=_crc(own)))
    header = {"format": FORMAT, "version": VERSION, "clips": [vars(record) for record in records]}
    data = save(tensors, {"mirage": json.dumps(header)})
    with atomic(path) as aside:
        aside.write_bytes(data)
        digest = hash_file(aside)
    return ShardRecord(file=path.name, bytes=len(data), sha256=digest, clips=tuple(records))


def write_manifest(
    folder: str | Path, shards: Sequence[ShardRecord], *, codec: dict, settings: dict, source: str, skipped: list[dict]
) -> None:
    """Write the index of a set: with it, the set is whole.

    Args:
        folder: Of the set.
        shards: All of its shards, in order; empty ones are left out.
        codec: Name, fingerprint, channels, stride and temporal_stride of the autoencoder.
        settings: How the clips were made.
        source: Where they come from.
        skipped: Name and reason of what could not be used.

    Raises:
        OSError: As for a shard.
    """
    told = {
        "format": FORMAT,
        "version": VERSION,
        "codec": codec,
        "settings": settings,
        "source": source,
        "clips": sum(len(shard.clips) for shard in shards),
        "shards": [shard.told() for shard in shards if shard.file],
        "skipped": skipped,
    }
    write_json(Path(folder) / MANIFEST, told)


class Shards:
    """A set of prepared clips, each read when it is asked for; nothing but the index is held in memory.

    Args:
        folder: Of the set.
        fingerprint: Of the autoencoder that the latents must be of; any if empty.

    Raises:
        ValueError: If there is no finished set, it is of another version or another autoencoder, or a file of it is
            missing or cut.
    """

    def __init__(self, folder: str | Path, *, fingerprint: str = ""):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        """What was written about the set: codec, settings, source, counts."""
        codec = self.manifest["codec"]
        if fingerprint and codec["fingerprint"] != fingerprint:
            raise ValueError(
                f"shards {folder} hold latents of {codec['name']} ({codec['fingerprint']}), but the autoencoder at "
                f"hand is {fingerprint}: prepare them again with its model, or load that one"
            )
        self._take([ShardRecord.read(shard) for shard in self.manifest["shards"]])
        for record in self.records:
            check_size(self.folder, record)

    @classmethod
    def of(cls, folder: Path, *records: ShardRecord) -> "Shards":
        """Some shards of a folder, whatever its index says."""
        some = cls.__new__(cls)
        some.folder, some.manifest = folder, {}
        some._take(list(records))
        return some

    def _take(self, records: list[ShardRecord]) -> None:
        self.records = records
        self._places = [(n, i) for n, record in enumerate(records) for i in range(len(record.clips))]
        self._open: dict[int, safe_open] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[LatentClip]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict:
        return {**vars(self), "_open": {}}  # a mapped file does not travel to another process

    def record(self, index: int) -> ClipRecord:
        """What the index says of a clip, without reading it."""
        shard, place = self._places[index]
        return self.records[shard].clips[place]

    def shard_of(self, index: int) -> str:
        """The name of the file that holds a clip."""
        return self.records[self._places[index][0]].file

    def __getitem__(self, index: int) -> LatentClip:
        """A clip, its latents and depth in float32.

        Raises:
            IndexError: If there is no such clip.
            DamagedClip: If its bytes are not those that were written.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a set of {len(self)}")
        shard, place = self._places[index]
        path = self.folder / self.records[shard].file
        record = self.records[shard].clips[place]
        try:
            if shard not in self._open:
                self._open[shard] = safe_open(path, "pt")
            own = {name: self._open[shard].get_tensor(f"{place:04}.{name}") for name in TENSORS}
        except (SafetensorError, OSError):
            own = {}
        return unpacked(own, record, str(path))


def unpacked(own: dict[str, Tensor], record: ClipRecord, where: str) -> LatentClip:
    """A clip of its tensors on the disk.

    Args:
        own: The tensors; none if they cannot be read.
        record: What the index says of the clip.
        where: The file, for messages.

    Returns:
        The clip, latents and depth in float32.

    Raises:
        DamagedClip: If the bytes are not those that were written.
    """
    if not own or _crc(own) != record.crc32:
        raise DamagedClip(
            f"clip {record.name} in {where} is damaged: its checksum is not that of its content; remove the file and "
            "prepare the set again, which makes only this shard"
        )
    own = dict(own)
    cameras = Cameras(own.pop("intrinsics"), own.pop("cam_from_world"), record.height, record.width)
    own |= {name: own[name].float() for name in ("video", "image", "depth")}
    way, groups = None, len(own["video"]) - 1
    if len(cameras) > groups + 1 > 1:
        way, cameras = cameras, cameras[:: (len(cameras) - 1) // groups]
    return LatentClip(name=record.name, caption=record.caption, cameras=cameras, way=way, **own)


def read_manifest(folder: str | Path) -> dict:
    """The index of a finished set.

    Args:
        folder: Of the set.

    Returns:
        What it says.

    Raises:
        ValueError: If there is none, or it is of another version or damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        begun = "is not finished: the same mirage prepare goes on" if (Path(folder) / "plan.json").is_file() else ""
        raise ValueError(
            f"shards {folder} " + (begun or f"must be a folder with a {MANIFEST}, as mirage prepare makes")
        )
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']!r}")
        version = told["version"]
        if version == VERSION:
            [ShardRecord.read(shard) for shard in told["shards"]]
            told["codec"]["fingerprint"], told["settings"], told["clips"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"shards {folder} have a damaged index: {path.name} cannot be understood ({error!r})"
        ) from error
    if version != VERSION:
        raise ValueError(
            f"shards {folder} are of version {version}, but this Mirage reads {VERSION}: prepare them again"
        )
    return told


def check_size(folder: Path, record: ShardRecord) -> None:
    """Refuse a shard that is not there, or not as long as it was.

    Args:
        folder: Of the set.
        record: What the index says of the shard.

    Raises:
        ValueError: If it is so.
    """
    path = folder / record.file
    if not path.is_file():
        raise ValueError(
            f"shards {folder} are not whole: {record.file} is missing; prepare them again, only it is made"
        )
    if (found := path.stat().st_size) != record.bytes:
        raise ValueError(
            f"shards {folder} are damaged: {record.file} must have {record.bytes} bytes, got {found}; remove it and "
            "prepare them again, only it is made"
        )


def packed(clip: LatentClip) -> dict[str, Tensor]:
    """The tensors of a clip as they lie on the disk: latents and depth in half precision."""
    half = {name: getattr(clip, name).clamp(-HALF, HALF).half() for name in ("video", "image", "depth")}
    own = {**half, "keep": clip.keep, "picture": clip.picture}
    cameras = clip.cameras if clip.way is None else clip.way
    own |= {"intrinsics": cameras.intrinsics, "cam_from_world": cameras.cam_from_world}
    return {name: own[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in TENSORS}


def _crc(tensors: dict[str, Tensor]) -> int:
    total = 0
    for name in TENSORS:
        total = zlib.crc32(tensors[name].contiguous().numpy(), total)
    return total
