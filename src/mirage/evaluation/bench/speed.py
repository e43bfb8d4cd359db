"""Speed at the paper's scale: against the released algorithm, a cloud of colours, and what the machine allows."""

import copy
import statistics
import time
from collections.abc import Callable

from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.evaluation.bench.clock import Contender, Machine, Times, cpu_backends, interleaved, timed
from mirage.evaluation.bench.rivals import ColourCloud, ReleasedMemory
from mirage.evaluation.bench.tables import Aim, Cell, Curves, Part, Table
from mirage.evaluation.bench.video import Scale, Video
from mirage.kernels import ops
from mirage.kernels.backend import use
from mirage.memory import LatentMemory, recall
from mirage.scenes.halls import hall, walk
from mirage.video.codec import LatentCodec

RELEASED = "released algorithm (a)"
FLOPS_PER_POINT = 30.0  # into the camera 18, into the image 6, bounds and cell 6
FLOPS_PER_PATCH = 150.0  # homography, box, and the rays of some two cells


def measure(
    videos: dict[str, Callable[[], Video]],
    codec: LatentCodec,
    *,
    minutes: float,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> Part:
    """Time reads of the last chunk's views after all chunks before, on each path; on the first all else, too.

    Args:
        videos: By path, what makes one chunk more than shall be in the memory.
        codec: The encoder of the colour memory.
        minutes: Budget of rendering and encoding colours.
        rounds: Calls of each contender.
        seconds: Least time for all rounds together.
        tell: Called with what is under way.

    Returns:
        Tables and aims.
    """
    part, machine = Part(), Machine.measure()
    reads: dict[str, dict[str, Times]] = {}
    rows, notes, others, colours = [], [], [], None
    for path, make in videos.items():
        tell(f"a path that {path}")
        video = make()
        last = video.scale.chunks - 1
        targets, new = video.cameras[video.views(last, shared=True)], video.given(video.views(last))
        released, memories = _filled(video.first(last))
        elements = {RELEASED: len(released), **{name: len(memory) for name, memory in memories.items()}}

        tell(f"reads, in turn, on a path that {path}")
        contenders: dict[str, Contender] = {RELEASED: lambda a=released, b=targets: lambda: a.read(b)}
        contenders |= {
            f"{name}, {backend}": _reads(memory, targets, backend)
            for backend in cpu_backends()
            for name, memory in memories.items()
        }
        reads[path] = interleaved(contenders, rounds=rounds, seconds=seconds)
        shares = {name: share_in_view(memory, targets) for name, memory in memories.items()}
        shares[RELEASED] = shares["nearest"]  # the same cells, half a cell off
        rows += _rows_of_reads(path, reads[path], elements, shares, machine, video.scale, len(targets))
        wrong, covered = wrong_cells(released, targets)
        notes.append(f"{wrong:.1%} of {covered:,} on the path that {path}")
        if others:
            continue

        tell("updates, in turn")
        updates: dict[str, Contender] = {RELEASED: lambda a=released, b=new: _call(copy.deepcopy(a).update, *b)}
        updates |= {
            f"{name}, {backend}": _updates(memory, new, backend)
            for backend in cpu_backends()
            for name, memory in memories.items()
            if name != "gather, all cells"
        }
        others.append(_table_of_updates(interleaved(updates, rounds=rounds, seconds=seconds), elements, len(new[0])))
        tell("recall")
        others.append(_recall(video, rounds))
        table, colours = _colours(video, codec, targets, minutes, tell)
        others.append(table)

    fewest = min(len(times[RELEASED].rounds) for times in reads.values())
    title = f"Read of the {len(targets)} latent views of a chunk"
    part.tables = [_table_of_reads(title, rows, notes, machine, fewest), *others]
    part.aims = _aims(reads, colours)
    for path, times in reads.items():
        taken = {name: 1e3 * t.median for name, t in times.items()} | (
            {"colours (b)": 1e3 * colours} if colours else {}
        )
        bars = {name: [(value, 0.0)] for name, value in taken.items()}
        part.curves.append(Curves(title=f"{title}, on a path that {path}", x="ms", y="", series=bars, bars=True))
    return part


def _filled(video: Video) -> tuple[ReleasedMemory, dict[str, LatentMemory]]:
    """The contenders, after all chunks of the video."""
    released = ReleasedMemory(video.scale.channels, video.scale.stride)
    released.update(*video.given(slice(0, 1)))
    for chunk in range(video.scale.chunks):
        released.update(*video.given(video.views(chunk, shared=chunk == 0)))
    merged = _last(video.remembered())
    nearest = _last(video.remembered(read="nearest"))
    everything = LatentMemory(nearest.surfels, nearest.stride, read="gather")
    return released, {"nearest": nearest, "gather, all cells": everything, "gather, merged": merged}


def _last(memories: object) -> LatentMemory:
    for memory in memories:  # noqa: B007
        pass
    return memory


def _call(function: Callable, *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def _reads(memory: LatentMemory, targets: Cameras, backend: str) -> Contender:
    def run() -> None:
        with use(backend):
            memory.read(targets)

    return lambda: run


def _updates(memory: LatentMemory, new: tuple[Tensor, Tensor, Cameras], backend: str) -> Contender:
    def prepare() -> Callable[[], None]:
        fresh = copy.deepcopy(memory)

        def run() -> None:
            with use(backend):
                fresh.update(*new)

        return run

    return prepare


def share_in_view(memory: LatentMemory, targets: Cameras) -> float:
    """Share of the pairs of an element and a view in which the element's centre falls into the picture."""
    points, inside = memory.surfels.points, 0
    for view in range(len(targets)):
        place, z = targets[view].project(points)
        within = (place > 0).all(-1) & (place[..., 0] < targets.width) & (place[..., 1] < targets.height)
        inside += int((within & (z > 0)).sum())
    return inside / max(1, len(targets) * len(points))


def _rows_of_reads(
    path: str,
    times: dict[str, Times],
    elements: dict[str, int],
    shares: dict[str, float],
    machine: Machine,
    scale: Scale,
    views: int,
) -> list[list[Cell]]:
    out = views * scale.cells * scale.channels * 2.0
    rows = []
    for name, taken in times.items():
        kind = name.rpartition(", ")[0] or name
        n, share = elements[kind], shares[kind]
        if name.startswith("gather"):  # plane, place and source once; a patch's arithmetic where it may be seen
            limit = machine.least(
                nbytes=n * 20.0 + 5 * out,
                flops=views * n * (FLOPS_PER_POINT + share * FLOPS_PER_PATCH),
                lookups=3 * views * n * share,
            )
        else:  # points once, features of the winners; one look into the z-buffer per point that falls inside
            limit = machine.least(
                nbytes=n * 12.0 + 2 * out, flops=views * n * FLOPS_PER_POINT, lookups=views * n * share
            )
        shown = "-" if name == RELEASED else f"{1e3 * limit[0]:.2g} to {1e3 * limit[1]:.2g}"
        in_view, ratio = f"{share:.0%}", times[RELEASED].over(taken)
        rows.append([path, name, n, in_view, 1e3 * taken.median, 1e3 * taken.cold, ratio, shown])
    return rows


def _table_of_reads(title: str, rows: list[list[Cell]], wrong: list[str], machine: Machine, rounds: int) -> Table:
    columns = ["path", "memory and backend", "elements", "in view", "ms", "cold ms", "times faster than (a)"]
    return Table(
        title=title,
        columns=[*columns, "limit, ms"],
        rows=rows,
        note=(
            f"Medians of {rounds} rounds in turn, in each the second of two calls; ratios are medians of the rounds' "
            f"ratios. Cold is the first call, compilation included. "
            "*All cells* holds every cell of every view, *merged* what its own rule keeps. Who "
            "explores walks down a hall and looks about; who stays paces about one place of it, so that nearly all "
            "elements are in view: (a) sorts those that are. *In view*: share of the elements, mean of the views. The "
            "limit is what arithmetic, memory traffic and z-buffer look-ups must take on this machine, all "
            f"overlapped to none overlapped: {machine}. Of the cells that (a) fills in this run, {' and '.join(wrong)} "
            "show another than the nearest point."
        ),
    )


def wrong_cells(released: ReleasedMemory, targets: Cameras) -> tuple[float, int]:
    """Share of the filled cells that show another than the nearest point, and how many are filled."""
    image, mask = released.read(targets)
    height, width = mask.shape[1:]
    k = targets.resize(height, width).intrinsics.clone()
    k[:, :2, 2] += 0.5  # rounding, as floor
    with use("reference"):
        exact, index = ops.splat_nearest(
            released.points, released.features, k, targets.cam_from_world, height, width, near=1e-6
        )
    both = mask & (index >= 0)
    wrong = (image != exact).any(1) & both
    return int(wrong.sum()) / max(1, int(both.sum())), int(both.sum())


def _table_of_updates(times: dict[str, Times], elements: dict[str, int], views: int) -> Table:
    rows = [
        [name, elements[name.rpartition(", ")[0] or name], 1e3 * t.median, 1e3 * t.cold, times[RELEASED].over(t)]
        for name, t in times.items()
    ]
    return Table(
        title=f"Update with the {views} new views of a chunk",
        columns=["memory and backend", "elements before", "ms", "cold ms", "times faster than (a)"],
        rows=rows,
        note="(a) pools depth bilinearly and appends. Ours looks at every pixel of depth, fits a plane to each cell, "
        "aligns the chunk to the memory, and (merged) compares each view with what is known.",
    )


def _recall(video: Video, rounds: int) -> Table:
    """Past frames that saw the target views, out of 256."""
    scale, frames = video.scale, 256
    height, width = scale.height // scale.stride, scale.width // scale.stride
    past = walk(4 * frames, scale.height, scale.width)[range(0, 4 * frames, 4)]
    world = hall(float(past.centers[:, 2].max()))
    depth = world.depth(past, height, width)
    shown = past[frames // 2 : frames // 2 + scale.new_views + 1]
    points = shown.unproject(depth[frames // 2 : frames // 2 + len(shown)]).reshape(-1, 3)
    rows = []
    for asked in (points, past.unproject(depth).reshape(-1, 3)):
        cold = timed(lambda asked=asked: recall(asked, past, depth))
        taken = [timed(lambda asked=asked: recall(asked, past, depth)) for _ in range(min(rounds, 9))]
        rows.append([frames, frames * height * width, len(asked), 1e3 * statistics.median(taken), 1e3 * cold])
    return Table(
        title="Recall: which past frames saw these points",
        columns=["past frames", "their cells", "points", "ms", "cold ms"],
        rows=rows,
        note="The points of a chunk's views, then those of all cells of all frames. With occlusion: a frame has seen a "
        "point only if its own depth there agrees.",
    )


def _colours(
    video: Video, codec: LatentCodec, targets: Cameras, minutes: float, tell: Callable[[str], None]
) -> tuple[Table, float | None]:
    """The colour memory of the same scene, a keyframe per chunk; and its seconds for all views, None if unmeasured."""
    cloud = ColourCloud(codec)
    for chunk in range(video.scale.chunks - 1):
        key = chunk * video.scale.new_views
        shade = (1 / video.depth[key].clamp(min=0.5)).expand(3, -1, -1)
        cloud.update(shade, video.depth[key], video.cameras[key])
    splat: list[float] = []
    encode: list[float] = []
    end = time.perf_counter() + 60 * minutes
    for view in range(len(targets)):
        if time.perf_counter() + (splat[-1] + encode[-1] if encode else 0) > end:
            break
        tell(f"colours: view {view + 1} of {len(targets)}")
        start = time.perf_counter()
        frame = cloud.render(targets[view])
        splat.append(time.perf_counter() - start)
        encode.append(timed(lambda frame=frame: cloud.encode(frame)))
    each = [statistics.median(splat), statistics.median(encode)] if encode else [None, None]
    total = sum(each) * len(targets) if encode else None
    left = len(targets) - len(encode)
    table = Table(
        title=f"The colour memory (b): {len(targets)} views",
        columns=["points", "MiB", "splat, s a view", "encode, s a view", "views measured", "s for all views"],
        rows=[[len(cloud), cloud.nbytes / 2**20, *each, len(encode), total]],
        note=(
            "A z-buffer of all pixels of one keyframe per chunk, then the encoder, a view at a time as a single image "
            "(less than the clip of four times as many frames that a video encoder would be given). Encoder: "
            f"{sum(p.numel() for p in codec.vae.encoder.parameters()) / 1e6:.0f} million random weights, float32. "
            + (f"{left} of {len(targets)} views are extrapolated from the median." if left else "All views measured.")
        ),
    )
    return table, total


def _aims(reads: dict[str, dict[str, Times]], colours: float | None) -> list[Aim]:
    aims, slowest = [], 0.0
    for path, times in reads.items():
        for wish, kind, aim in (
            ("nearest read >= 25 x (a), as many elements", "nearest, ", 25),
            ("gathering read >= 10 x (a), as many elements", "gather, all", 10),
            ("gathering read >= 10 x (a), after as many frames", "gather, merged", 10),
        ):
            name = min((n for n in times if n.startswith(kind)), key=lambda n, times=times: times[n].median)
            ratio = times[RELEASED].over(times[name])
            found = f"{ratio:.1f} x ({name}: {1e3 * times[name].median:.1f} ms)"
            aims.append(Aim(wish=f"{wish}, on a path that {path}", found=found, met=ratio >= aim))
            slowest = max(slowest, times[name].median)
    if colours is None:
        return [*aims, Aim(wish="every read >= 1,000 x (b)", found="no time was given to it", met=None)]
    found = f"{colours / slowest:,.0f} x ({colours:,.0f} s against {1e3 * slowest:.1f} ms at most)"
    return [*aims, Aim(wish="every read >= 1,000 x (b)", found=found, met=colours / slowest >= 1000)]
