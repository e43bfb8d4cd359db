"""A world as one zip: written whole or not at all, unpacked as far as its manifest says, whatever a zip holds."""

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from mirage.video.io import atomic
from mirage.world import disk
from mirage.world.manifest import LARGEST, Manifest, read_manifest
from mirage.world.world import World

RATIO = 200  # a zip of a world is never this much smaller than the world
COUNT = 1 << 20  # entries


def pack(world: World, path: str | os.PathLike) -> None:
    """Write a world into one zip file. Its files go in as they are: they are compressed already.

    Args:
        world: The world.
        path: The file, .zip.

    Raises:
        ValueError: If a file of the world is damaged.
        OSError: In one sentence, if the zip cannot be written; an older one is then unchanged.
    """
    contents = world.manifest
    with atomic(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
        file.writestr("world.json", contents.to_json())
        for name, mark in contents.files.items():
            if name == "log.jsonl":
                file.writestr(name, world.log_bytes())
                continue
            source = disk.check_file(world.folder, name, mark.bytes)
            if disk.hash_file(source) != mark.sha256:
                raise ValueError(f"world {world.folder} is damaged: the checksum of {name} is not that of its content")
            file.write(source, name)


def unpack(path: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Make a folder of a zipped world; give it to `World.open`.

    Only the files that the manifest names are taken, each only as long as it says, and all must have its checksum. The
    world may lie in a folder of the zip, as file managers make it.

    Args:
        path: The zip.
        folder: Where the world shall live: no such folder yet.

    Raises:
        ValueError: If the file is no zip of a world, is damaged, or would unfold to far more than it is.
        OSError: In one sentence, if the folder cannot be written; it is not there then.
    """
    path, folder = Path(path), Path(folder)
    if folder.exists():
        raise ValueError(f"folder {folder} is there already: choose another name")
    try:
        with zipfile.ZipFile(path) as file:
            root, manifest = _contents(file, path)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with disk.new_folder(folder) as aside:
                for name, mark in {"world.json": None, **manifest.files}.items():
                    size = file.getinfo(root + name).file_size if mark is None else mark.bytes
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    with file.open(root + name) as source, open(aside / name, "xb") as target:
                        shutil.copyfileobj(_Most(source, size, f"{path}: {name}"), target, 1 << 20)
                        target.flush()
                        os.fsync(target.fileno())
                    if mark is not None and disk.hash_file(aside / name) != mark.sha256:
                        raise ValueError(f"world {path} is damaged: the checksum of {name} is not that of its content")
                for inner in sorted(p for p in aside.rglob("*") if p.is_dir()):
                    disk.sync(inner)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError, RuntimeError) as error:
        raise ValueError(f"world {path} is no readable zip of a world: {error}") from None
    except OSError as error:
        raise OSError(f"cannot unpack {path} to {folder}: {error.strerror or error}") from error


def _contents(file: zipfile.ZipFile, path: Path) -> tuple[str, Manifest]:
    """The folder of the zip that the world lies in, and its manifest, after a look at what the zip declares."""
    entries = {entry.filename: entry for entry in file.infolist()}
    if len(entries) != len(file.infolist()) or len(entries) > COUNT:
        raise ValueError(f"world {path} is refused: the zip has names twice, or more than {COUNT} of them")
    tops = sorted((name for name in entries if name.split("/")[-1] == "world.json"), key=len)
    root = tops[0].removesuffix("world.json") if tops else ""
    if not tops or root.count("/") > 1 or file.getinfo(tops[0]).file_size > LARGEST:
        raise ValueError(f"world {path} is no zip of a world: it must hold a world.json of at most {LARGEST} bytes")
    with file.open(tops[0]) as source:
        manifest = read_manifest(source.read(LARGEST + 1), str(path))
    for name, mark in manifest.files.items():
        entry = entries.get(root + name)
        if entry is None or entry.is_dir() or stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"world {path} is damaged: {name} is missing or no plain file")
        if entry.file_size != mark.bytes:
            raise ValueError(f"world {path} is damaged: {name} must have {mark.bytes} bytes, got {entry.file_size}")
    total, most = sum(mark.bytes for mark in manifest.files.values()), RATIO * path.stat().st_size
    if total > most:
        raise ValueError(f"world {path} is refused: it would unfold to {total} bytes, more than {RATIO} times the zip")
    return root, manifest


class _Most:
    """A file that may not be longer than it said."""

    def __init__(self, source: object, size: int, name: str):
        self.source, self.left, self.name = source, size, name

    def read(self, count: int) -> bytes:
        data = self.source.read(min(count, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"world {self.name} is refused: it is longer than the zip declares")
        return data
