"""Results on disk: they appear together, or not at all."""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def results(folder: str | Path, *names: str) -> Iterator[Path]:
    """Files that appear in a folder together, when all of them are whole.

    That the place can be written is known before the block begins. If it fails or is interrupted nothing has changed.

    Args:
        folder: Where the files go; made, with its parents, if it is missing.
        names: What they will be called; a folder of such a name is refused before the block begins.

    Yields:
        An empty folder to write them into, on the same disk.

    Raises:
        OSError: In one sentence, if the place cannot be written. Errors of the block that are about other files pass.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with results(Path(place) / "new") as aside:
        ...         _ = (aside / "a.txt").write_text("whole")
        ...     [path.name for path in Path(place).rglob("*")]
        ['new', 'a.txt']
    """
    folder = Path(folder)
    with ExitStack() as cleanup:
        with _said_of(folder):
            place = folder.absolute()
            while not place.exists():
                place = place.parent
            if not place.is_dir():
                raise NotADirectoryError(20, f"{place} is a file")
            for name in names:
                _refuse_folder(folder / name)
            aside = place / f".mirage-{secrets.token_hex(4)}"
            cleanup.callback(shutil.rmtree, aside, ignore_errors=True)
            (aside / "older").mkdir(parents=True)
            (aside / "new").mkdir()
            for part in folder.absolute().relative_to(place).parts:  # the disk says what it thinks of such a name
                (aside / "older" / part).mkdir(exist_ok=True)
            (aside / "probe").write_bytes(bytes(1 << 12))
        with _said_of(folder, only=aside.name):
            yield aside / "new"
        with _said_of(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _move(aside / "new", folder, aside / "older")


@contextmanager
def alone_in(folder: str | Path) -> Iterator[Path]:
    """Keep a folder of results to one process, and take away what an earlier one that was killed left half made.

    Nothing is written for it: the lock is on the folder itself, and ends with the process however that ends.

    Args:
        folder: Of the results; made if missing.

    Yields:
        The folder.

    Raises:
        OSError: If another process is at work in it, or it cannot be made.
    """
    folder = Path(folder)
    new = not folder.exists()
    with _said_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{folder} is in use by another process: wait for it, or give another folder") from None
        except OSError:
            pass  # a disk without locks
        for left in [*folder.glob(".*"), *folder.glob("*/.mirage-*")]:
            if re.fullmatch(r"\.mirage-[0-9a-f]{8}|\..+\.[0-9a-f]{8}\.[a-z]+", left.name):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        yield folder
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()  # nothing came of it
        os.close(handle)


def _move(new: Path, folder: Path, older: Path) -> None:
    """Give files their place; if one of them cannot have it, or at an interruption, all is as it was."""
    with ExitStack() as undo:
        for file in sorted(new.iterdir()):
            target, kept = folder / file.name, older / file.name
            _refuse_folder(target)
            if target.exists():
                target.replace(kept)
                undo.callback(kept.replace, target)
            undo.callback(target.unlink, missing_ok=True)
            file.replace(target)
        undo.pop_all()


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(21, f"{path} is a folder")


@contextmanager
def _said_of(folder: Path, only: str = "") -> Iterator[None]:
    """Errors of a disk as one sentence; those that do not speak of `only` pass."""
    try:
        yield
    except OSError as error:
        if only not in str(error):
            raise
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or str(error)
        raise OSError(f"cannot write the results to {folder}: {reason[:1].lower()}{reason[1:]}") from error
