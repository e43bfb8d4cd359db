"""Files of a world on disk: synced before they get their name, read only if they are what was said of them."""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_file(path: Path, data: bytes) -> None:
    """Write a new file, and wait until it is on the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new content in one step: before and after any crash it is the old one or the new one, whole."""
    aside = path.with_name(f".new-{path.name}")
    try:
        aside.unlink(missing_ok=True)
        write_file(aside, data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled; when the block ends well it is synced and gets its name, else it is removed."""
    aside = path.parent / f".new-{path.name}"
    remove(aside)
    aside.mkdir()
    try:
        yield aside
        for file in aside.iterdir():
            sync(file)
        sync(aside)
        remove(path)
        os.rename(aside, path)
        sync(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def same_file(source: Path, target: Path) -> None:
    """A file under a second name: the same bytes on the disk if it can do that, else a copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        shutil.copyfile(source, target, follow_symlinks=False)


def refuse_taken(folder: Path) -> None:
    """Refuse a place for a new world that holds something else than what an interrupted beginning left."""
    if (folder / "world.json").is_file():
        raise ValueError(f"folder {folder} holds a world already: open it to continue it, or choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder {folder} is a file: choose another name")
    left = {".new-world.json", ".new-log.jsonl", "log.jsonl", "chunks", "walks"}
    strange = [path.name for path in folder.glob("*") if path.name not in left]
    strange += [path.name for path in (folder / "chunks").glob("*") if not re.fullmatch(r"(\.new-)?\d{4,}", path.name)]
    if strange:
        raise ValueError(f"folder {folder} must be empty or new, it holds {sorted(strange)[0]}: choose another")


def lock(folder: Path, owner: object) -> weakref.finalize:
    """Keep a folder to one object, until the result is called or the object or the process is gone.

    Nothing is written: the lock is on the folder itself, and the system lets go of it however the process ends.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OSError(f"world {folder} is in use by another process or session: close it there, or branch") from None
    except OSError as error:
        os.close(handle)
        raise OSError(f"world {folder} cannot be locked, so two writers could mix: {error.strerror}") from error
    return weakref.finalize(owner, os.close, handle)


def check_file(folder: Path, name: str, size: int) -> Path:
    """The path of a file of a world, if it is a plain file of that size inside the folder."""
    path = folder
    for part in Path(name).parts:
        path = path / part
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            raise ValueError(f"world {folder} is damaged: {name} is missing") from None
        if path != folder / name and not stat.S_ISDIR(found.st_mode):
            raise ValueError(f"world {folder} is refused: {path.relative_to(folder)} must be a folder, no link")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"world {folder} is refused: {name} must be a plain file, no link and no folder")
    if found.st_size != size:
        raise ValueError(f"world {folder} is damaged: {name} must have {size} bytes, got {found.st_size}")
    return path


def read_file(folder: Path, name: str, size: int, sha256: str) -> bytes:
    """The content of a file of a world, if it is what was written."""
    data = check_file(folder, name, size).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"world {folder} is damaged: the checksum of {name} is not that of its content")
    return data


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)


def _hash(file: object) -> str:
    total = hashlib.sha256()
    while block := file.read(1 << 20):
        total.update(block)
    return total.hexdigest()
