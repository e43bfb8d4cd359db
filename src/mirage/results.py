"""Results on disk: they appear together, or not at all."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def results(folder: str | Path) -> Iterator[Path]:
    """Files that appear in a folder together, when all of them are whole.

    That the place can be written is known before the block begins. If it fails or is interrupted nothing has changed.

    Args:
        folder: Where the files go; made, with its parents, if it is missing.

    Yields:
        An empty folder to write them into, on the same disk.

    Raises:
        OSError: In one sentence, if the place cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with results(Path(place) / "new") as aside:
        ...         _ = (aside / "a.txt").write_text("whole")
        ...     [path.name for path in Path(place).rglob("*")]
        ['new', 'a.txt']
    """
    folder = Path(folder)
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    aside = place / f".mirage-{secrets.token_hex(4)}"
    try:
        if not place.is_dir():
            raise NotADirectoryError(20, f"{place} is a file")
        aside.mkdir()
        (aside / "probe").write_bytes(bytes(1 << 12))
        (aside / "probe").unlink()
        yield aside
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(aside.iterdir()):
            file.replace(folder / file.name)
    except OSError as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or str(error)
        raise OSError(f"cannot write the results to {folder}: {reason[:1].lower()}{reason[1:]}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
