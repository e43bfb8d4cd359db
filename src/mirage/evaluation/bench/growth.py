"""Growth of cost: time and bytes against the number of elements and of views, and the slopes in log-log."""

import math
import statistics
from collections.abc import Callable, Sequence

import torch

from mirage.camera.cameras import Cameras
from mirage.evaluation.bench.clock import cpu_backends, timed
from mirage.evaluation.bench.tables import Aim, Curves, Part, Table
from mirage.evaluation.bench.video import Scale, Video
from mirage.kernels.backend import use
from mirage.memory import LatentMemory
from mirage.memory.store import Surfels
from mirage.scenes.halls import walk

STEEP = 1.1  # slope that still counts as proportional
CHANNELS = 4  # features are not what grows
SLOW = 3_000_000  # elements x views from which the specification is left out: minutes, and no other slope


def measure(
    scale: Scale, *, elements: Sequence[int], views: Sequence[int], rounds: int, tell: Callable[[str], None]
) -> Part:
    """Time one read while elements, then views, grow.

    Args:
        scale: Of the views.
        elements: Numbers of elements.
        views: Numbers of views of one read.
        rounds: Calls of each.
        tell: Called with what is under way.

    Returns:
        Tables, aims and curves.
    """
    video = Video.make(Scale(**{**vars(scale), "channels": CHANNELS, "chunks": 2}))
    *_, memory = video.remembered(read="nearest")
    fixed = elements[len(elements) // 2 - 1]
    part, backends = Part(), cpu_backends()
    for title, sizes, grow in (
        (
            "elements",
            elements,
            lambda count: (tiled(memory.surfels, count), video.cameras[[scale.new_views]]),
        ),
        (
            "views",
            views,
            lambda count: (tiled(memory.surfels, fixed), _views(count, scale)),
        ),
    ):
        names = [f"{read}, {backend}" for backend in backends for read in ("nearest", "gather")]
        series: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
        rows = []
        for count in sizes:
            tell(f"{count:,} {title}")
            surfels, cameras = grow(count)
            row: list[float | int | None] = [count, surfels.nbytes / 2**20]
            for backend in backends:
                for read in ("nearest", "gather"):
                    if backend == "reference" and surfels.plane.shape[0] * len(cameras) > SLOW and len(backends) > 1:
                        row.append(None)
                        continue
                    with use(backend):
                        target = LatentMemory(surfels, scale.stride, read=read)
                        target.read(cameras)
                        taken = statistics.median(timed(lambda t=target, c=cameras: t.read(c)) for _ in range(rounds))
                    series[f"{read}, {backend}"].append((count, 1e3 * taken))
                    row.append(1e3 * taken)
            rows.append(row)
        series = {name: points for name, points in series.items() if len(points) > 1}
        slopes = {name: slope(upper(points)) for name, points in series.items()}
        size = [(row[0], row[1]) for row in rows]
        last = ["slope", slope(upper(size)) if title == "elements" else None, *(slopes.get(name) for name in names)]
        note = f"one view of {scale.height} x {scale.width}" if title == "elements" else f"{fixed:,} elements"
        part.tables.append(
            Table(
                title=f"Growth with the number of {title}",
                columns=[title, "MiB", *(f"{name}, ms" for name in names)],
                rows=[*rows, last],
                note=f"A read of {note}; {CHANNELS} channels; the elements are those of a few views again and again "
                "under other names, so that as large a share of them is in sight at every size. Slope: of the "
                "straight line through the upper half of the points in log-log; 1 is proportional, less is better.",
            )
        )
        part.curves.append(Curves(title=f"Read, by {title}", x=title, y="ms", series=series, log=True))
        worst = max(slopes, key=lambda name: slopes[name])
        part.aims.append(
            Aim(
                wish=f"time of a read grows no faster than the number of {title} (slope of at most {STEEP})",
                found=f"steepest slope {slopes[worst]:.2f} ({worst})",
                met=slopes[worst] <= STEEP,
            )
        )
    return part


def slope(points: Sequence[tuple[float | int, float | int]]) -> float:
    """Exponent of the power law through some points, by least squares in log-log.

    Args:
        points: (x, y), positive.

    Returns:
        The slope.

    Example:
        >>> round(slope([(1.0, 3.0), (10.0, 300.0), (100.0, 30000.0)]), 6)
        2.0
    """
    x, y = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    return statistics.linear_regression(x, y).slope


def upper(points: Sequence[tuple[float | int, float | int]]) -> Sequence[tuple[float | int, float | int]]:
    """The upper half of the points, two of them at least: where fixed costs no longer count."""
    return points[max(0, len(points) // 2 - 1) :]


def tiled(surfels: Surfels, count: int) -> Surfels:
    """As many elements as are asked for: the same views again and again under other names."""
    copies, views = -(-count // len(surfels)), len(surfels.name)
    out = {key: tensor.repeat(copies, *[1] * (tensor.ndim - 1)) for key, tensor in surfels.tensors.items()}
    nth_of_element = torch.arange(copies, dtype=torch.int32).repeat_interleave(len(surfels))
    nth_of_view = torch.arange(copies, dtype=torch.int32).repeat_interleave(views)
    out["source"] = out["source"] + nth_of_element * views
    out["name"] = out["name"] + nth_of_view * (int(surfels.name.max()) + 1)
    return Surfels(**out, grid=surfels.grid).take(torch.arange(count))


def _views(count: int, scale: Scale) -> Cameras:
    return walk(count, scale.height, scale.width, pace=1.6 / count)
