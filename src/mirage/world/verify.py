"""Whether every byte of a world is what was written, and whether it makes sense."""

from dataclasses import dataclass

from mirage.world import disk
from mirage.world.manifest import PICTURE, chunk_name
from mirage.world.world import World


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a look at every file of a world found."""

    files: int
    """Files that were read."""
    bytes: int
    """Their size."""
    problems: tuple[str, ...]
    """What is damaged, one sentence each; none for a sound world."""
    strangers: tuple[str, ...]
    """Names in the folder that are no part of the world: notes, videos, what an interruption left."""


def verify(world: World) -> Report:
    """Read every byte of a world: checksums, and whether each file holds what it must.

    Args:
        world: The world, open in any way.

    Returns:
        What was found; damage is told, not raised.
    """
    problems, marks = [], world.manifest.files
    for name, mark in marks.items():
        try:
            if name != "log.jsonl":
                disk.read_file(world.folder, name, mark.bytes, mark.sha256)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    looks = {"log.jsonl": lambda: world.log, f"{chunk_name(0)}/{PICTURE}": lambda: world.image}
    if world.plan_words is not None:
        looks["the plan"] = lambda: world.planned
    for number in range(len(world.chunks)):
        for look in (world.tensors, world.frames, world.memory):
            looks[f"{look.__name__} of chunk {number}"] = lambda look=look, number=number: look(number)
    for look in looks.values() if not problems else ():
        try:
            look()
        except (ValueError, OSError) as error:
            problems.append(str(error))
    found = {str(p.relative_to(world.folder)) for p in world.folder.rglob("*") if not p.is_dir()}
    return Report(
        files=len(marks) + 1,
        bytes=sum(mark.bytes for mark in marks.values()),
        problems=tuple(problems),
        strangers=tuple(sorted(found - set(marks) - {"world.json"})),
    )
