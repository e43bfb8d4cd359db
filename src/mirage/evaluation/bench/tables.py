"""What a measurement says: tables, aims and curves, as JSON, Markdown and one picture."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mirage.video.io import atomic

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of figures; None is shown as a dash."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def markdown(self) -> str:
        """The table with its title and note."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("|---" + "|--:" * (len(self.columns) - 1) + "|")
        lines += ["| " + " | ".join(map(_shown, row)) + " |" for row in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What was wished, what was found, and whether that is it; None if it was not measured."""

    wish: str
    found: str
    met: bool | None


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves over one axis."""

    title: str
    x: str
    y: str
    series: dict[str, Sequence[Sequence[float | int]]]
    """Points (x, y) by name; of bars, one each, (value, 0)."""
    log: bool = False
    bars: bool = False


@dataclass(kw_only=True)
class Part:
    """All that one part of the measurement says."""

    tables: list[Table] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)

    def to_json(self) -> dict:
        """The same as plain values; NaN and infinity become None."""
        return _plain(asdict(self))

    @classmethod
    def from_json(cls, value: dict) -> "Part":
        """The inverse of `to_json`."""
        return cls(
            tables=[Table(**table) for table in value["tables"]],
            aims=[Aim(**aim) for aim in value["aims"]],
            curves=[Curves(**curves) for curves in value["curves"]],
        )


def aims_table(aims: Sequence[Aim]) -> Table:
    """The aims with their verdict, as a table."""
    said = {True: "met", False: "**missed**", None: "not measured"}
    return Table(
        title="Aims", columns=["aim", "found", ""], rows=[[aim.wish, aim.found, said[aim.met]] for aim in aims]
    )


def draw(path: Path, plots: Sequence[Curves]) -> None:
    """All curves in one picture, two to a row."""
    down = math.ceil(len(plots) / 2)
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(11, 3.6 * down), layout="constrained")
        for place, plot in enumerate(plots, 1):
            axes = figure.add_subplot(down, 2, place)
            if plot.bars:
                bars = axes.barh(list(plot.series), [points[0][0] for points in plot.series.values()], height=0.6)
                axes.bar_label(bars, fmt="%.3g", padding=3)
                axes.set_xscale("log")
                axes.margins(x=0.2)
                axes.invert_yaxis()
            for name, points in ({} if plot.bars else plot.series).items():
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=name)
            if plot.log:
                axes.set_xscale("log")
                axes.set_yscale("log")
            elif not plot.bars:
                axes.set_ylim(bottom=0)
            axes.set_title(textwrap.fill(plot.title, 40))
            axes.set_xlabel(plot.x)
            axes.set_ylabel(plot.y)
            axes.grid(alpha=0.3)
            if not plot.bars:
                axes.legend(fontsize=7)
        with atomic(path) as aside:
            figure.savefig(aside, dpi=110)


def _shown(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
