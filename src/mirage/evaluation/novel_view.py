"""Novel views: the first frame and the true path go in, the video is held to the true one, pixel by pixel.

What the first frame shows can be known and is graded by nearness to the truth; what it does not show can only be
imagined, and is a matter of taste. So all figures are given for both apart, where depth tells them apart.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mirage.evaluation import metrics
from mirage.evaluation.bench.tables import Table
from mirage.evaluation.closed_loop import curves
from mirage.evaluation.report import (
    INTERVALS,
    Panel,
    differences_table,
    rows_table,
    scenes_table,
)
from mirage.evaluation.rows import roll_out
from mirage.evaluation.study import load_model
from mirage.evaluation.task import (
    Clips,
    Place,
    Task,
    clip_walk,
    scaled,
    show,
    where,
)
from mirage.evaluation.worlds import Walk

USED = ("psnr", "ssim", "lpips", "detail")
COLUMNS = (
    ("all, dB", "all_psnr"),
    ("SSIM", "all_ssim"),
    ("LPIPS", "all_lpips"),
    ("seen, dB", "seen_psnr"),
    ("SSIM", "seen_ssim"),
    ("unseen, dB", "unseen_psnr"),
    ("SSIM", "unseen_ssim"),
    ("seen detail", "seen_detail"),
    ("unseen detail", "unseen_detail"),
    ("frames/s", "frames_per_second"),
)
DIFFERENCES = (("all", "all_psnr"), ("seen", "seen_psnr"), ("unseen", "unseen_psnr"))
MEANING = f"""{INTERVALS} All frames but the input, against the truth, at the model's size (a centred crop and one \
resize of the recording). A pixel is *seen* if its true surface point is in the input picture; without depth there is \
no telling. SSIM is averaged over frames. *detail*: mean gradient over that of the truth; 0 is a blank wall, and a \
blank wall often has the better PSNR. The controls: *memory only* decodes what the input tells of each view, \
*autoencoder* the true frames (the ceiling), and the *input standing still* ignores the path."""


@dataclass(frozen=True, kw_only=True)
class NovelView(Clips):
    """What is measured."""


def measure(walk: Walk, video: UInt8[np.ndarray, "f h w 3"]) -> dict:
    """All figures of one video.

    Args:
        walk: The truth.
        video: What was made of it.

    Returns:
        `all`, `seen` and `unseen`, frames 1 and on against the truth, and `curves` over frames.
    """
    truth, later = walk.frames, slice(1, None)
    regions = {"all": np.ones(truth.shape[:3], bool)}
    if walk.seen is not None:
        regions |= {"seen": walk.seen, "unseen": walk.unseen}
    result: dict = {"all_lpips": metrics.lpips(video[later], truth[later])}
    maps = [metrics.ssim_map(v, t) for v, t in zip(video[later], truth[later], strict=True)]
    for name, mask in regions.items():
        each = [float(m[k].mean()) for m, k in zip(maps, mask[later], strict=True) if k.any()]
        result |= {
            f"{name}_psnr": metrics.psnr(video[later], truth[later], mask[later]),
            f"{name}_ssim": float(np.mean(each)) if each else float("nan"),
            f"{name}_detail": metrics.detail(video[later], truth[later], mask[later]),
            f"{name}_share": float(mask[later].mean()),
        }
    return result | {"curves": curves(video, truth, regions)}


def measure_scene(
    config: NovelView, places: dict[str, Place], scene: str, rows: tuple[str, ...], out: Path
) -> list[dict]:
    """Measure some rows of one scene; also writes its videos if it is one of those that are shown.

    Args:
        config: The settings.
        places: Scenes by name.
        scene: Which.
        rows: Rows that are not measured yet.
        out: Folder of the results.

    Returns:
        One record per row.
    """
    pipeline, number = load_model(config.model, config.device), list(places).index(scene)
    walk, scale = clip_walk(config, places[scene], number, pipeline)
    shown = number < config.sheets
    if shown:
        show(out, scene, "truth", walk.frames)
    records = []
    for row in rows:
        start = time.perf_counter()
        video, _ = roll_out(pipeline, walk, row, config)
        seconds = time.perf_counter() - start
        if shown:
            show(out, scene, row, video)
        speed = {} if row == "first-frame" else {"frames_per_second": len(video) / seconds}
        records.append({"scene": scene, "row": row, **measure(walk, video), **speed, **scale})
    return records


def tables(results: dict) -> list[Table]:
    """The tables of some results.

    Args:
        results: What `evaluate` returned, or `results.json` holds.

    Returns:
        Rows, differences between them, and single scenes where they are not alike.
    """
    note = f"{where(results)}; depth of the input {results['depth']}, {results['steps']} steps of the denoiser. "
    note += f"{results['hardware']}.\n\n{MEANING}"
    note += scaled(results)
    found = [rows_table(results, COLUMNS, "Novel views", note=note)]
    there = next(iter(results["differences"].values()), {})
    if named := [(head, figure) for head, figure in DIFFERENCES if figure in there]:
        found.append(differences_table(results, named, "Differences between rows, paired by scene, in dB"))
    if results["records"]:
        found.append(scenes_table(results["records"], COLUMNS, "Scene by scene"))
    return found


def _panels(results: dict) -> Sequence[Panel]:
    titles = {"all": "all pixels", "seen": "seen in the input", "unseen": "not in the input"}
    regions = [name for name in titles if name in next(iter(results["curves"].values()))]
    return [
        Panel(
            title=titles[region],
            x="frame",
            y="PSNR against the truth, dB",
            series={
                row: (range(1, len(of[region]["mean"])), {k: v[1:] for k, v in of[region].items()})
                for row, of in results["curves"].items()
            },
        )
        for region in regions
    ]


evaluate = Task(
    name="novel-view",
    title="Novel views: how near to the truth?",
    lead=lambda config: (
        "The first frame and the true path go in; the video is held to the true one. What the first frame shows can be "
        "known, what it does not show can only be imagined."
    ),
    caption="PSNR against the truth, frame by frame",
    measure=measure_scene,
    tables=tables,
    panels=_panels,
    used=functools.partial(metrics.used, *USED),
    differences=tuple(figure for _, figure in DIFFERENCES),
)
format_table = evaluate.format_table
