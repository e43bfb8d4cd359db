"""What is said about rows and scenes: means with intervals, paired differences, tables, curves."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from mirage.evaluation.bench.tables import Table
from mirage.evaluation.metrics import bootstrap
from mirage.evaluation.rows import CONTROLS, TITLES
from mirage.video.io import atomic

INTERVALS = "Means over scenes with 95 % percentile bootstrap intervals over scenes (2000 resamples, seed 0)."
Columns = Sequence[tuple[str, str]]  # heading, figure


def summarise(records: Sequence[dict], *, differences: Sequence[str] = (), curves: bool = True) -> dict:
    """Means with intervals of every row and figure, and of the differences between the first row and each other.

    Args:
        records: One per scene and row, all rows of the same scenes.
        differences: Figures whose differences are wanted.
        curves: Whether to average the records' `curves` too, place by place.

    Returns:
        `scenes` (their number), `rows` (row -> figure -> mean, low, high, n), `differences` likewise, paired by scene,
        and `curves` (row -> name -> means and intervals).
    """
    rows = {row: [r for r in records if r["row"] == row] for row in dict.fromkeys(r["row"] for r in records)}
    column = lambda row, key: np.array([r[key] for r in rows[row]], float)  # None becomes NaN
    first, *others = rows
    result = {
        "scenes": len(rows[first]),
        "rows": {row: {key: bootstrap(column(row, key)) for key in _figures(of)} for row, of in rows.items()},
        "differences": {
            f"{first} - {row}": {key: bootstrap(column(first, key) - column(row, key)) for key in differences}
            for row in others
        },
        "curves": {},
    }
    for row, of in rows.items() if curves else ():
        result["curves"][row] = {}
        for name in of[0]["curves"]:
            longest = max(len(r["curves"][name]) for r in of)
            padded = [r["curves"][name] + [None] * (longest - len(r["curves"][name])) for r in of]
            points = [bootstrap(place, resamples=500) for place in np.array(padded, float).T]
            result["curves"][row][name] = {key: [p[key] for p in points] for key in ("mean", "low", "high")}
    return result


def _figures(records: Sequence[dict]) -> list[str]:
    """Names of what is a number, or a number that could not be had."""
    kept = (int, float, type(None))
    return [k for k, v in records[0].items() if k != "seed" and isinstance(v, kept) and not isinstance(v, bool)]


def cell(figure: Mapping[str, float | None], sign: str = "", digits: int = 2) -> str:
    """A mean with its interval, as a table shows it.

    Args:
        figure: What `bootstrap` returned.
        sign: "+" to show the sign always.
        digits: Behind the point.

    Returns:
        For example "30.42 (29.97, 30.88)"; "-" without a value; without an interval if there is none.
    """
    if figure["mean"] is None:
        return "-"
    mean, low, high = (f"{figure[k]:{sign}.{digits}f}" for k in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low}, {high})"


def rows_table(
    summary: dict, columns: Columns, title: str, *, head: str = "memory", note: str = "", titles: Mapping | None = None
) -> Table:
    """One row per row, one column per figure that any row has.

    Args:
        summary: What `summarise` returned.
        columns: Headings and figures; a figure without any value is left out.
        title: Of the table.
        head: Of the first column.
        note: Below the table.
        titles: What rows are called.

    Returns:
        The table.
    """
    rows = summary["rows"]
    there = [(h, f) for h, f in columns if any(r.get(f, {}).get("mean") is not None for r in rows.values())]
    nothing = {"mean": None}
    named = TITLES | dict(titles or {})
    return Table(
        title=title,
        columns=[head, *(h for h, _ in there)],
        rows=[[named.get(row, row), *(cell(r.get(f, nothing)) for _, f in there)] for row, r in rows.items()],
        note=note,
    )


def differences_table(summary: dict, columns: Columns, title: str) -> Table:
    """The differences between the first row and the others.

    Args:
        summary: What `summarise` returned.
        columns: Headings and figures.
        title: Of the table.

    Returns:
        The table.
    """
    found = summary["differences"]
    there = [(h, f) for h, f in columns if any(r[f]["mean"] is not None for r in found.values())]
    return Table(
        title=title,
        columns=["difference", *(h for h, _ in there)],
        rows=[[name, *(cell(figures[f], "+") for _, f in there)] for name, figures in found.items()],
    )


def scenes_table(records: Sequence[dict], columns: Columns, title: str) -> Table:
    """Every record by itself, for a few scenes that are not alike.

    Args:
        records: One per scene and row.
        columns: Headings and figures; a figure without any value is left out.
        title: Of the table.

    Returns:
        The table.
    """
    there = [(h, f) for h, f in columns if any(r.get(f) is not None for r in records)]
    shown = lambda value: "-" if value is None else f"{value:.2f}"
    return Table(
        title=title,
        columns=["scene", "memory", *(h for h, _ in there)],
        rows=[[r["scene"], TITLES.get(r["row"], r["row"]), *(shown(r.get(f)) for _, f in there)] for r in records],
    )


def hardware() -> str:
    """What the figures of speed hold for."""
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves over one axis, each with its interval."""

    title: str
    x: str
    y: str
    series: dict[str, tuple[Sequence[int], dict[str, Sequence[float | None]]]]
    """Row -> places and means with intervals, as `summarise` has them."""
    ticks: dict[int, str] = field(default_factory=dict)
    log: bool = False


def draw(path: Path, panels: Sequence[Panel], columns: int = 3) -> None:
    """All panels in one picture.

    Args:
        path: The file.
        panels: What to draw.
        columns: Panels in a row.
    """
    down, across = -(-len(panels) // columns), min(columns, len(panels))
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure((4 * across, 3.6 * down), layout="constrained")
        for place, panel in enumerate(panels, 1):
            axes = figure.add_subplot(down, across, place)
            for i, (row, (x, points)) in enumerate(panel.series.items()):
                mean, low, high = (np.array(points[k], float) for k in ("mean", "low", "high"))
                style = "--" if row in (*CONTROLS, "first-frame", "truth") else "-"
                mark = "o" if len(x) < 12 else None
                axes.plot(x, mean, style, color=f"C{i}", label=row, linewidth=1.4, marker=mark, markersize=3)
                axes.fill_between(x, low, high, color=f"C{i}", alpha=0.15, linewidth=0)
            if panel.log:
                axes.set_xscale("log", base=2)
            if panel.ticks:
                axes.set_xticks(list(panel.ticks), list(panel.ticks.values()))
                axes.minorticks_off()
            axes.set_title(panel.title)
            axes.set_xlabel(panel.x)
            axes.set_ylabel(panel.y)
            axes.grid(alpha=0.3)
        if panels:
            figure.axes[0].legend(fontsize=8)
        with atomic(path) as aside:
            figure.savefig(aside, dpi=120)
