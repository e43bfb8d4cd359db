"""What is written about a closed loop: means with intervals, the table, curves over frames, contact sheets."""

import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from mirage.evaluation.metrics import CAP, bootstrap
from mirage.video.io import atomic, read_image, write_image, write_json
from mirage.video.picture import contact_sheet

logger = logging.getLogger(__name__)
TITLES = {
    "latent": "latent, gather (ours)",
    "latent-nearest": "latent, nearest, corner",
    "colour": "colour",
    "none": "none",
    "memory-only": "*control:* memory only",
    "autoencoder": "*control:* autoencoder",
}
COLUMNS = (  # heading, figure
    ("return to observed, dB", "observed_psnr"),
    ("flow, px", "observed_flow"),
    ("return to imagined, dB", "imagined_psnr"),
    ("flow, px", "imagined_flow"),
    ("all frames, dB", "all_psnr"),
    ("seen, dB", "seen_psnr"),
    ("unseen, dB", "unseen_psnr"),
    ("unseen detail", "unseen_detail"),
)
DIFFERENCES = ("observed_psnr", "imagined_psnr", "all_psnr", "seen_psnr", "unseen_psnr")
MEANING = f"""\
Means over worlds with 95 % percentile bootstrap intervals over worlds (2000 resamples, seed 0). PSNR in dB on 8-bit
colour, squared errors pooled over pixels and frames, {CAP:.0f} for identical frames. *Return to observed*: the last
frame, back at A, against the input picture. *Return to imagined*: the second visit of B against the first visit as it
was generated, on the pixels that the input does not show. *flow*: median length of the optical flow (DIS) between the
two. *all, seen, unseen*: all frames but the input against the truth; a pixel is seen if its true surface point is in
the input picture. *unseen detail*: mean gradient of the unseen pixels over that of the truth; 0 is a blank wall. The
controls imagine nothing: *memory only* decodes what the input picture tells of each view and zeros elsewhere, so it
comes back to the same blank; *autoencoder* encodes and decodes the true frames. Frames per second: whole roll-out in
one thread, as many side by side as there were processes."""


def summarise(records: Sequence[dict]) -> dict:
    """Means with intervals of every row and figure, and of the differences between the first row and each other.

    Args:
        records: One per world and row, all rows of the same worlds.

    Returns:
        `rows` (row -> figure -> mean, low, high, n), `differences` likewise, paired by world, and `curves` (row ->
        region -> mean and interval per frame).
    """
    rows = {row: [r for r in records if r["row"] == row] for row in dict.fromkeys(r["row"] for r in records)}
    column = lambda row, key: np.array([r[key] for r in rows[row]], float)  # None becomes NaN
    first, *others = rows
    figures = [key for key, value in rows[first][0].items() if key not in ("seed", "row", "curves")]
    curves = {}
    for row, worlds in rows.items():
        curves[row] = {}
        for region in ("all", "seen", "unseen"):
            frames = np.array([r["curves"][region] for r in worlds], float).T
            points = [bootstrap(f, resamples=500) for f in frames]
            curves[row][region] = {key: [p[key] for p in points] for key in ("mean", "low", "high")}
    return {
        "worlds": len(rows[first]),
        "rows": {row: {key: bootstrap(column(row, key)) for key in figures} for row in rows},
        "differences": {
            f"{first} - {row}": {key: bootstrap(column(first, key) - column(row, key)) for key in DIFFERENCES}
            for row in others
        },
        "curves": curves,
    }


def format_table(results: dict) -> str:
    """The table in Markdown, with the differences and the meaning of each column.

    Args:
        results: What `evaluate` returned, or `results.json` holds.

    Returns:
        Markdown.
    """
    heads = ["memory", *(head for head, _ in COLUMNS), "frames/s", "memory, KiB"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for row, figures in results["rows"].items():
        cells = [TITLES[row], *(_cell(figures[key]) for _, key in COLUMNS)]
        cells.append(f"{results['frames'] / figures['seconds']['mean']:.1f}")
        cells.append(f"{figures['memory_bytes']['mean'] / 1024:.0f}" if figures["memory_bytes"]["mean"] else "-")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Differences between rows, paired by world, in dB:", ""]
    names = [key.removesuffix("_psnr") for key in DIFFERENCES]
    lines += ["| difference | " + " | ".join(names) + " |", "|---" + "|--:" * len(names) + "|"]
    for name, figures in results["differences"].items():
        lines.append(f"| {name} | " + " | ".join(_cell(figures[key], "+") for key in DIFFERENCES) + " |")
    share = results["rows"][next(iter(results["rows"]))]["imagined_share"]
    lines += [
        "",
        f"{results['worlds']} held-out worlds (seeds from {results['first_seed']}), walks A-B-A-B-A of "
        f"{results['frames']} frames, depth of the input {results['depth']}, "
        f"{results['steps']} steps of the denoiser; {_cell(share)} of B is not in the input. "
        f"{results['hardware']}.",
        "",
        MEANING,
    ]
    return "\n".join(lines) + "\n"


def _cell(figure: dict, sign: str = "") -> str:
    if figure["mean"] is None:
        return "-"
    low, high = (f"{figure[k]:{sign}.2f}" for k in ("low", "high"))
    return f"{figure['mean']:{sign}.2f} ({low}, {high})"


def write_report(out: Path, config: dict, visits: tuple[int, ...], records: Sequence[dict]) -> dict:
    """Write `results.json`, `table.md`, `curves.png` and one contact sheet per world that is shown.

    Args:
        out: The folder.
        config: The settings.
        visits: Frames at A, B, A, B and A.
        records: One per world and row.

    Returns:
        What `results.json` holds.
    """
    hardware = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    results = {**config, "visits": list(visits), "hardware": hardware, **summarise(records)}
    write_json(out / "results.json", results)
    with atomic(out / "table.md") as aside:
        aside.write_text(format_table(results), encoding="utf-8")
    with atomic(out / "curves.png") as aside:
        _curves(results).savefig(aside, dpi=120)
    for seed in range(config["first_seed"], config["first_seed"] + min(config["sheets"], config["worlds"])):
        _sheet(out, seed, visits, {r["row"]: r for r in records if r["seed"] == seed})
    return results


def _sheet(out: Path, seed: int, visits: tuple[int, ...], rows: dict[str, dict]) -> None:
    """The visits of one world: the truth on top, then row by row, and how far each return is from the visit before."""
    strips = {row: out / "visits" / f"{seed}-{row}.png" for row in ("truth", *rows)}
    if not all(path.exists() for path in strips.values()):
        logger.warning("world %d was measured without pictures, and gets no contact sheet", seed)
        return
    frames, labels = [], []
    for row, path in strips.items():
        frames += np.split(read_image(path), len(visits), 1)
        labels += [f"{row} · {place} {i}" for place, i in zip("ABABA", visits, strict=True)]
        if row != "truth":
            labels[-2] += f" · {_db(rows[row]['imagined_psnr'])}"
            labels[-1] += f" · {_db(rows[row]['observed_psnr'])}"
    title = f"World {seed}: A, B, A, B and A again"
    write_image(out / f"sheet-{seed}.png", contact_sheet(frames, labels, columns=len(visits), title=title))


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"


def _curves(results: dict) -> Figure:
    """PSNR over frames of every row, for all pixels, those seen in the input and the others."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure((12, 3.8), layout="constrained")
        for axes, region in zip(figure.subplots(1, 3, sharey=True), ("all", "seen", "unseen"), strict=True):
            for i, (row, curves) in enumerate(results["curves"].items()):
                mean, low, high = (np.array(curves[region][k], float) for k in ("mean", "low", "high"))
                frame = np.arange(len(mean))
                dashes = "--" if row in ("memory-only", "autoencoder") else "-"
                axes.plot(frame, mean, dashes, color=f"C{i}", label=row, linewidth=1.4)
                axes.fill_between(frame, low, high, color=f"C{i}", alpha=0.15, linewidth=0)
            axes.set_title({"all": "all pixels", "seen": "seen in the input", "unseen": "not in the input"}[region])
            axes.set_xticks(results["visits"], [f"{p}\n{i}" for p, i in zip("ABABA", results["visits"], strict=True)])
            axes.grid(alpha=0.3)
        figure.axes[0].set_ylabel("PSNR against the truth, dB")
        figure.axes[0].legend(fontsize=8)
        return figure
