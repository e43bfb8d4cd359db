"""What a person wants to know of a world: a table of its chunks, how well it holds together, a page of pictures."""

import numpy as np
from jaxtyping import UInt8

from mirage.camera.rigid import rotation_angle
from mirage.camera.trajectory import measure_motion
from mirage.report import psnr
from mirage.video.picture import contact_sheet
from mirage.world.world import World

PICTURES = 15  # on a sheet


def describe(world: World) -> str:
    """A world in words and figures.

    Args:
        world: The world.

    Returns:
        Several lines.
    """
    chunks, settings = world.chunks, world.settings
    kept = sum(mark.bytes for mark in world.manifest.files.values())
    steps = settings.steps or "the model's"
    lines = [
        f"{world.folder}: {chunks[-1].stop} frames of {settings.height} x {settings.width}, {len(chunks) - 1} chunks, "
        f"{size(kept)} on disk",
        f"  model {world.model.name} ({world.model.weights[:8]}), seed {settings.seed}, {steps} steps, "
        f"{settings.fps} frames per second",
        f"  begun {chunks[0].time[:19]}, last chunk {chunks[-1].time[:19]} UTC",
        f"  {measure_motion(world.cameras)}",
    ]
    if (walk := world.manifest.walk) is not None:
        left = walk.stop - chunks[-1].stop
        lines.append(f"  unfinished: {left} of {walk.stop - walk.start} frames of {walk.words!r} are not made yet")
    lines += ["", "chunk      frames  known   new cells     memory  depth scale  disagreement  prompt"]
    for number, chunk in enumerate(chunks):
        known = f"{np.mean(chunk.coverage):.0%}" if chunk.coverage else "-"
        told = {key: chunk.update.get(key) for key in ("new", "scale", "residual")}
        new = "-" if told["new"] is None else str(told["new"])
        scale = "-" if told["scale"] is None else f"{told['scale']:.3f}"
        residual = "-" if told["residual"] is None else f"{told['residual']:.1%}"
        frames, memory = f"{chunk.start}-{chunk.stop - 1}", size(chunk.memory_bytes)
        frames, memory = f"{chunk.start}-{chunk.stop - 1}", size(chunk.memory_bytes)
        lines.append(
            f"{number:>5}  {frames:>10}  {known:>5}  {new:>10}  {memory:>9}  {scale:>11}  {residual:>12}  "
            f"{chunk.prompt or '-'}"
        )
    return "\n".join([*lines, "", drift(world)])


def drift(world: World) -> str:
    """How well a world holds together.

    The depth of each new chunk is fitted to the memory before it is kept; how far it had to be scaled, and what
    disagreement is left, is what the model drifted from one chunk to the next. Where the walk comes back to its first
    camera, the frame is compared with the first.

    Args:
        world: The world.

    Returns:
        One or two lines.
    """
    updates = [chunk.update for chunk in world.chunks[1:]]
    scales = [abs(u["scale"] - 1) for u in updates if u.get("scale") is not None]
    left = [u["residual"] for u in updates if u.get("residual") is not None]
    if not scales:
        return "drift: nothing was imagined yet"
    said = [f"drift: depth of new chunks off by {max(scales):.1%} at most"]
    said += [f"{max(left):.1%} disagreement left after the fit"] if left else []
    lines = [", ".join(said)]
    if back := returns(world):
        shown = ", ".join(f"frame {n}: {value:.1f} dB" for n, value in list(back.items())[-5:])
        lines.append(f"back at its start, against the first frame: {shown}")
    return "\n".join(lines)


def returns(world: World) -> dict[int, float]:
    """How like the first frame those are at which the walk came back to the first camera.

    Args:
        world: The world.

    Returns:
        PSNR in dB by frame: of each stay there, after the first, the last frame.
    """
    cameras = world.cameras
    away = (cameras.centers - cameras.centers[0]).norm(dim=-1)
    turned = rotation_angle(cameras.cam_from_world[:1, :3, :3].double().mT @ cameras.cam_from_world[:, :3, :3].double())
    there = ((away <= 1e-3 * max(float(away.max()), 1e-9)) & (turned < 1e-3)).tolist()
    if all(there):
        return {}
    left = there.index(False)
    stays = [n for n in range(left, len(there)) if there[n] and (n + 1 == len(there) or not there[n + 1])]
    first = world.frames(0)[0]
    found = {}
    for number, chunk in enumerate(world.chunks):
        if here := [n for n in stays if chunk.start <= n < chunk.stop]:
            frames = world.frames(number)
            found |= {n: psnr(frames[n - chunk.start], first) for n in here}
    return found


def world_sheet(world: World) -> UInt8[np.ndarray, "y x 3"]:
    """Frames of the whole walk on one page, each with its chunk and what the memory knew of it.

    Args:
        world: The world.

    Returns:
        The page.
    """
    chosen = np.unique(np.linspace(0, world.chunks[-1].stop - 1, PICTURES).round().astype(int))
    cells, labels, stride = [], [], world.model.temporal_stride
    for number, chunk in enumerate(world.chunks):
        here = chosen[(chosen >= chunk.start) & (chosen < chunk.stop)]
        if not len(here):
            continue
        frames = world.frames(number)
        for n in here:
            cells.append(frames[n - chunk.start])
            known = f" · {chunk.coverage[(n - chunk.start) // stride]:.0%} known" if chunk.coverage else ""
            labels.append(f"frame {n} · chunk {number}{known}")
    title = f"{world.folder.name}: {world.chunks[-1].stop} frames, {len(world.chunks) - 1} chunks"
    return contact_sheet(cells, labels, columns=5, zoom=-(-224 // world.settings.width), title=title)


def size(count: int) -> str:
    """A number of bytes in words.

    Args:
        count: The number.

    Returns:
        It in B, KiB, MiB or GiB.

    Example:
        >>> size(999), size(2048), size(5 << 20)
        ('999 B', '2.0 KiB', '5.0 MiB')
    """
    number, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"
