"""Bytes: on a path that explores, on one that returns, on a walk without end; and of the whole process."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from mirage.camera.cameras import Cameras
from mirage.evaluation.bench.rivals import ReleasedMemory
from mirage.evaluation.bench.tables import Aim, Curves, Part, Table
from mirage.evaluation.bench.video import Scale, Video
from mirage.memory import LatentMemory
from mirage.scenes.halls import hall, walk

MIB = 2**20
PAPER = 0.45  # MiB per chunk that the paper plots: 2.25 after five
FLAT = 0.02  # growth on the way back that still counts as none


def measure(scale: Scale, *, frames: int, budget: int, kinds: Sequence[str], tell: Callable[[str], None]) -> Part:
    """Weigh what is remembered.

    Args:
        scale: Of the two paths.
        frames: Of the walk without end.
        budget: Its bytes.
        kinds: Of memory, "gather" and "released rule", whose whole process is weighed.
        tell: Called with what is under way.

    Returns:
        Tables, aims and curves.
    """
    tell("a path that explores")
    video = Video.make(scale)
    explores, room = _chunks(video), _room(video)
    tell("a path that returns")
    returns = _chunks(Video.make(scale, path="returns"))
    released, keyframe = explores["released rule"], scale.height * scale.width * 24 / MIB
    chunks = range(1, scale.chunks + 1)
    paper = [PAPER * chunk for chunk in chunks]
    columns = {
        "released rule": released,
        "colours, a keyframe a chunk": [keyframe * chunk for chunk in chunks],
        "paper's figure": paper,
        "nearest, exploring": explores["nearest"],
        "gather, exploring": explores["gather"],
        "gather, returning": returns["gather"],
        "elements, exploring": explores["elements"],
    }
    tell(f"{frames:,} frames within {budget / MIB:g} MiB")
    endless, curve = _endless(scale, frames, budget)
    turn = returns["gather"][scale.chunks // 2]
    growth = returns["gather"][-1] / turn - 1
    below = [ours < its for ours, its in zip(explores["gather"], paper, strict=True)]
    tell("whole process")
    process = _process(scale, kinds)
    return Part(
        tables=[
            Table(
                title="MiB after each chunk",
                columns=["after chunk", *columns],
                rows=[[n, *(values[n - 1] for values in columns.values())] for n in chunks],
                note=(
                    "Everything that is kept: latents and geometry; a table of the source views' cells is made while "
                    "a call runs and not counted here, but in the peak of the process. The paper's figure is "
                    f"{PAPER} MiB a chunk, read from its plot, whatever the size here. The path that returns turns "
                    f"back in the middle and retraces its steps, 3 cm to the side. {room} Colours: 24 bytes a "
                    f"pixel, {keyframe:.1f} MiB a keyframe. The released rule appends every cell in float32, "
                    "frame 0 twice."
                ),
            ),
            endless,
            process,
        ],
        aims=[
            Aim(
                wish="below the paper's curve on a path that explores",
                found=f"{sum(below)} of {len(below)} chunks; at the end {explores['gather'][-1]:.2f} MiB against "
                f"{paper[-1]:.2f}",
                met=all(below),
            ),
            Aim(
                wish=f"flat (within {FLAT:.0%}) on a path that returns",
                found=f"{growth:+.1%} after the turn",
                met=growth <= FLAT,
            ),
            Aim(
                wish=f"never above the budget in {frames:,} frames",
                found=f"at most {endless.rows[0][4]:.3f} of {budget / MIB:g} MiB",
                met=endless.rows[0][4] <= budget / MIB,
            ),
        ],
        curves=[
            Curves(
                title="What is remembered",
                x="chunks",
                y="MiB",
                series={
                    name: list(zip(chunks, columns[name], strict=True))
                    for name in ("released rule", "paper's figure", "gather, exploring", "gather, returning")
                },
            ),
            Curves(title=f"A walk of {frames:,} frames", x="frames", y="MiB", series=curve),
        ],
    )


def _chunks(video: Video) -> dict[str, list[float]]:
    """MiB after each chunk, by kind of memory."""
    released = ReleasedMemory(video.scale.channels, video.scale.stride)
    released.update(*video.given(slice(0, 1)))
    appended = []
    for chunk in range(video.scale.chunks):
        released.update(*video.given(video.views(chunk, shared=chunk == 0)))
        appended.append(released.nbytes / MIB)
    gather = [(memory.nbytes / MIB, len(memory)) for memory in video.remembered()][1:]
    nearest = [memory.nbytes / MIB for memory in video.remembered(read="nearest")][1:]
    return {
        "released rule": appended,
        "nearest": nearest,
        "gather": [size for size, _ in gather],
        "elements": [count for _, count in gather],
    }


def _room(video: Video) -> str:
    """What the paper's figure leaves for the first chunk, and what it needs."""
    memory = LatentMemory.from_view(*video.given(slice(0, 1)))
    first, count, each = memory.nbytes, len(memory), memory.surfels.element_bytes
    room = max(0, int(PAPER * MIB - first) // each)
    new = memory.update(*video.given(video.views(0))).new
    return (
        f"The first view takes {first / MIB:.2f} MiB, {count:,} cells of {each} bytes: the paper leaves room for "
        f"{room:,} more in the first chunk, which shows {new:,} that the first view does not."
    )


def _endless(scale: Scale, frames: int, budget: int) -> tuple[Table, dict[str, list[tuple[int, float]]]]:
    """A walk that never comes back, on a small grid of cells, under a budget."""
    stride, height, width = scale.stride, 10 * scale.stride, 16 * scale.stride
    latent_frames = 1 + (frames - 1) // 4
    path = walk(frames, height, width)[range(0, frames, 4)]
    world = hall(float(path.centers[:, 2].max()))
    memory, free, sizes, over, evicted = None, None, [], 0, 0
    for start in range(0, latent_frames, scale.new_views):
        which = slice(start, min(start + scale.new_views, latent_frames))
        views = _views(world, path[which], scale.channels, stride)
        if memory is None:
            first = tuple(part[:1] for part in views)
            memory = LatentMemory.from_view(*first, budget_bytes=budget)
            free = LatentMemory.from_view(*first)
            given = memory.surfels.features[memory.surfels.observed].clone()
            views = tuple(part[1:] for part in views)
        evicted += memory.update(*views).evicted
        if start < latent_frames // 8:
            free.update(*views)
            unbounded = (4 * which.stop, free.nbytes / MIB)
        over += memory.nbytes > budget
        sizes.append((4 * which.stop, memory.nbytes / MIB))
    kept = memory.surfels.features[memory.surfels.observed]
    table = Table(
        title=f"A walk of {frames:,} frames that never comes back",
        columns=["cells", "updates", "updates over the budget", "budget, MiB", "most, MiB", "at the end, MiB",
                 "elements evicted", "first view kept", "without budget, MiB"],
        rows=[[
            f"{height // stride} x {width // stride}", len(sizes), int(over), budget / MIB, max(s for _, s in sizes),
            sizes[-1][1], evicted, "yes" if kept.equal(given) else "NO",
            f"{unbounded[1]:.2f} after {unbounded[0]:,} frames",
        ]],
        note=f"{scale.channels} channels in float16; a small grid, so that the walk takes seconds. The size is looked "
        "at after every update.",
    )  # fmt: skip
    return table, {"within the budget": sizes[:: max(1, len(sizes) // 200)]}


def _views(world: object, cameras: Cameras, channels: int, stride: int) -> tuple:
    depth = world.depth(cameras, cameras.height, cameras.width)
    shape = (len(cameras), channels, cameras.height // stride, cameras.width // stride)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).half(), depth, cameras


def peak_memory() -> int:
    """Most bytes that this process ever had in memory.

    The kernel's high-water mark of the address space where there is one: `ru_maxrss` of a young process also counts
    the process that started it.
    """
    status = Path("/proc/self/status")
    marks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    if marks:
        return 1024 * int(marks[0].split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _process(scale: Scale, kinds: Sequence[str]) -> Table:
    """Peak of a fresh process that walks the path that explores."""
    rows = []
    for kind in kinds:
        code = f"from mirage.evaluation.bench import sizes, video; sizes.walk_and_say_peak({kind!r}, video.{scale!r})"
        said = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
        idle, peak = json.loads(said)
        rows.append([kind, idle / MIB, peak / MIB, (peak - idle) / MIB])
    return Table(
        title="Peak of the whole process, MiB",
        columns=["memory", "after the imports", "peak", "difference"],
        rows=rows,
        note="A fresh process that makes the depth of one chunk at a time, updates with it and reads its views.",
    )


def walk_and_say_peak(kind: str, scale: Scale) -> None:
    """Print the peak of this process after the imports and at the end of the walk, in bytes."""
    idle = peak_memory()
    frames = 4 * scale.new_views * scale.chunks + 1
    path = walk(frames, scale.height, scale.width)[range(0, frames, 4)]
    world = hall(float(path.centers[:, 2].max()))
    first = _views(world, path[:1], scale.channels, scale.stride)
    if kind == "gather":
        memory = LatentMemory.from_view(*first)
    else:
        memory = ReleasedMemory(scale.channels, scale.stride)
        memory.update(*first)
    for start in range(1, len(path), scale.new_views):
        cameras = path[start : start + scale.new_views]
        memory.read(cameras)
        memory.update(*_views(world, cameras, scale.channels, scale.stride))
    print(json.dumps([idle, peak_memory()]))
