"""Shards as tars for object stores, as webdataset reads them: each clip a safetensors blob and a JSON, no pickle."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.torch import load, save

from mirage.dataset.shards import TENSORS, ClipRecord, LatentClip, Shards, packed, unpacked
from mirage.video.io import atomic, write_json
from mirage.world.disk import hash_file


def export_webdataset(
    folder: str | Path, out: str | Path, *, tell: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Write one tar for each shard: `KEY.clip.safetensors` and `KEY.json` for each clip, in the order of the set.

    A tar that is there with its checksum is not written again. Times and owners are left out, so the same set always
    makes the same bytes.

    Args:
        folder: Of the set.
        out: Folder of the tars; made if missing.
        tell: Called with what is done.

    Returns:
        The tars; `manifest.json` beside them says what they hold.

    Raises:
        ValueError: If the set is not finished, or a clip of it is damaged.
        OSError: If the disk is full.
    """
    shards, out = Shards(folder), Path(out)
    tars, start = [], 0
    for record in shards.records:
        path = out / record.file.replace(".safetensors", ".tar")
        done = path.with_suffix(".tar.json")
        if not _is_done(path, done, record.sha256):
            with atomic(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
                for index, about in enumerate(record.clips):
                    clip = shards[start + index]
                    key = f"{path.stem}-{index:04}"
                    _add(tar, f"{key}.clip.safetensors", save(packed(clip)))
                    _add(tar, f"{key}.json", json.dumps(vars(about)).encode())
            write_json(done, {"of": record.sha256, "sha256": hash_file(path), "bytes": path.stat().st_size})
            tell(f"{path.name}: {len(record.clips)} clips")
        start += len(record.clips)
        tars.append(path)
    kept = {key: value for key, value in shards.manifest.items() if key != "shards"}
    files = [{"file": path.name} | json.loads(path.with_suffix(".tar.json").read_text()) for path in tars]
    write_json(out / "manifest.json", kept | {"tars": files})
    return tars


def read_tar(path: str | Path) -> Iterator[LatentClip]:
    """The clips of one tar, in order: what a reader of webdataset does with them.

    Args:
        path: The tar.

    Yields:
        Clips as `Shards` gives them.

    Raises:
        ValueError: If a clip is damaged.
    """
    with tarfile.open(path) as tar:
        for member in tar:
            data = tar.extractfile(member)
            assert data is not None
            if member.name.endswith(".clip.safetensors"):
                tensors = load(data.read())
            else:
                yield unpacked({name: tensors[name] for name in TENSORS}, ClipRecord(**json.load(data)), str(path))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def _is_done(path: Path, done: Path, of: str) -> bool:
    try:
        told = json.loads(done.read_text())
        return told["of"] == of and path.stat().st_size == told["bytes"] and hash_file(path) == told["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
