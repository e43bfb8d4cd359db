"""The closed loop: leave a place, come back, and measure whether it is still there.

On held-out exact worlds the walk is A-B-A-B-A: A is in the input picture, B is not, so a return to A asks whether what
was *observed* is kept, a return to B whether what was *imagined* is. In an RGB-D folder the walk is a recorded loop, to
its end and back again. From any picture it is a path there and back. Every table has two controls, because a return
alone is won by a model that imagines nothing.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from mirage.evaluation import metrics
from mirage.evaluation.bench.tables import Table
from mirage.evaluation.page import Picture
from mirage.evaluation.report import INTERVALS, Panel, differences_table, rows_table, scenes_table
from mirage.evaluation.rows import roll_out
from mirage.evaluation.sources import Cut, Kind, cut_walk, loops, picture_walk
from mirage.evaluation.study import load_model
from mirage.evaluation.task import Place, Settings, Task, left_out, show
from mirage.evaluation.worlds import HELD_OUT, Walk, make_walk
from mirage.pipeline import MiragePipeline
from mirage.video.io import read_image, write_image
from mirage.video.picture import contact_sheet

USED = ("psnr", "ssim", "lpips", "flow", "detail")
WAY = ("the picture", "going", "far", "coming", "back")
PATH = "there-and-back:forward 0.8 and right 25deg"
COLUMNS = (  # heading, figure
    ("return to observed, dB", "observed_psnr"),
    ("SSIM", "observed_ssim"),
    ("LPIPS", "observed_lpips"),
    ("flow, px", "observed_flow"),
    ("end of the loop, dB", "end_psnr"),
    ("return to imagined, dB", "imagined_psnr"),
    ("flow, px", "imagined_flow"),
    ("all frames, dB", "all_psnr"),
    ("seen, dB", "seen_psnr"),
    ("unseen, dB", "unseen_psnr"),
    ("unseen detail", "unseen_detail"),
    ("frames/s", "frames_per_second"),
    ("memory, KiB", "memory_kib"),
)
DIFFERENCES = (
    ("observed", "observed_psnr"),
    ("imagined", "imagined_psnr"),
    ("all", "all_psnr"),
    ("seen", "seen_psnr"),
    ("unseen", "unseen_psnr"),
)
MEANING = f"""{INTERVALS} PSNR on 8-bit colour. *Return to observed*: the last frame, back at the first camera, \
against the input picture. *Return to imagined*: the second visit of B against the first visit as it was generated, \
on the pixels that the input does not show. *flow*: median length of the optical flow between the two. *all, seen, \
unseen*: all frames but the input against the truth; a pixel is seen if its true surface point is in the input \
picture. *unseen detail*: mean gradient of the unseen pixels over that of the truth; 0 is a blank wall. The controls \
imagine nothing: *memory only* decodes what the input picture tells of each view and zeros elsewhere, so it comes \
back to the same blank; *autoencoder* encodes and decodes the true frames: the ceiling. Frames per second: whole \
roll-out in one thread, as many side by side as there were processes."""
OF_LOOPS = """ *End of the loop*: the frame where the recording itself came back, against the true one, on the pixels \
whose surface the input shows by the sensor's depth (5 %); pixels of unknown depth count as neither seen nor unseen. \
B is the frame that shares least with the input. Depth is given for the first frame alone."""
OF_PICTURES = """ Of a picture nothing is true but itself: only the return to it is scored, and the ceiling is the \
picture encoded and decoded."""


def _visits(frames: int) -> tuple[int, ...]:
    return tuple(range(0, frames, (frames - 1) // 4))


@dataclass(frozen=True, kw_only=True)
class ClosedLoop(Settings):
    """What is measured."""

    frames: int = 65
    """Frames of a walk with four legs in a world, or from a picture; a recorded loop has as many as it has."""
    path: str = PATH
    """The way from a picture; it must come back."""

    def __post_init__(self):
        super().__post_init__()
        if self.frames < 17 or self.frames % 16 != 1:
            below = max(17, self.frames - (self.frames - 1) % 16)
            raise ValueError(
                f"frames must be 1 + n * 16, so that visits are latent frames, got {self.frames}; "
                f"use {below} or {below + 16}"
            )

    @property
    def visits(self) -> tuple[int, ...]:
        """Frames at A, B, A, B and A of the walk in a world."""
        return _visits(self.frames)


def measure(walk: Walk, video: UInt8[np.ndarray, "f h w 3"], visits: tuple[int, ...]) -> dict:
    """All figures of one video; those that the truth does not reach are left out.

    Args:
        walk: The truth.
        video: What was made of it.
        visits: Frames at A, B, A, B and A.

    Returns:
        `observed` (last A against the input), `imagined` (second B against the first, on pixels that the input does
        not show), `all`, `seen` and `unseen` (frames 1 and on against the truth), and `curves` over frames.
    """
    _, b1, a2, b2, a3 = visits
    truth = walk.frames
    back = video[-1] if len(truth) == 1 else video[a3]
    everywhere = np.ones(truth.shape[1:3], bool)
    result = {
        "observed_psnr": metrics.psnr(back, truth[0]),
        "observed_ssim": metrics.ssim(back, truth[0]),
        "observed_lpips": metrics.lpips(back[None], truth[:1]),
        **_moved("observed", metrics.flow(truth[0], back), everywhere),
    }
    if walk.seen is None:
        return result | {"curves": {}}
    seen, unseen, later = walk.seen, walk.unseen, slice(1, None)
    new = unseen[b1]
    if walk.sure is not None:
        result["end_psnr"] = metrics.psnr(video[a2], truth[a2], seen[a2])
    result |= {
        "imagined_psnr": metrics.psnr(video[b2], video[b1], new),
        "imagined_ssim": metrics.ssim(video[b2], video[b1], new),
        **_moved("imagined", metrics.flow(video[b1], video[b2]), new),
        "imagined_share": float(new.mean()),
        "all_psnr": metrics.psnr(video[later], truth[later]),
        "all_lpips": metrics.lpips(video[later], truth[later]),
        "seen_psnr": metrics.psnr(video[later], truth[later], seen[later]),
        "unseen_psnr": metrics.psnr(video[later], truth[later], unseen[later]),
        "seen_detail": metrics.detail(video[later], truth[later], seen[later]),
        "unseen_detail": metrics.detail(video[later], truth[later], unseen[later]),
    }
    result["curves"] = curves(video, truth, {"all": seen | True, "seen": seen, "unseen": unseen})
    return result


def curves(
    video: UInt8[np.ndarray, "f h w 3"], truth: UInt8[np.ndarray, "f h w 3"], regions: dict[str, np.ndarray]
) -> dict[str, list[float]]:
    """PSNR of every frame.

    Args:
        video: What was made.
        truth: What it should be.
        regions: Name to the pixels that count.

    Returns:
        Name to values; NaN where less than a hundredth of the pixels count.
    """
    enough = 0.01 * truth[0, ..., 0].size
    each = lambda v, t, m: metrics.psnr(v, t, m if m.sum() >= enough else m & False)
    return {name: [each(*one) for one in zip(video, truth, masks, strict=True)] for name, masks in regions.items()}


def _moved(name: str, flow: Float32[np.ndarray, "h w 2"], mask: Bool[np.ndarray, "h w"]) -> dict[str, float]:
    size = np.linalg.norm(flow, axis=-1)[mask]
    median, mean = (float(np.median(size)), float(size.mean())) if size.size else (float("nan"), float("nan"))
    return {f"{name}_flow": median, f"{name}_flow_mean": mean}


def measure_scene(
    config: ClosedLoop, places: dict[str, Place], scene: str, rows: tuple[str, ...], out: Path
) -> list[dict]:
    """Measure some rows of one scene; also writes the pictures of its visits if it is one of those that are shown.

    Args:
        config: The settings.
        places: Scenes by name: the seed of a world, frames of a recording, or a picture.
        scene: Which.
        rows: Rows that are not measured yet.
        out: Folder of the results.

    Returns:
        One record per row.
    """
    pipeline, place, number = load_model(config.model, config.device), places[scene], list(places).index(scene)
    visits = config.visits
    if isinstance(place, int):
        walk = make_walk(place, config.frames, *pipeline.config.size, device=config.device)
    elif isinstance(place, Cut):
        walk = cut_walk(place, pipeline, HELD_OUT + number)
        visits = loop_visits(walk, pipeline.codec.temporal_stride)
    else:
        walk = picture_walk(place, config.path, config.frames, pipeline, HELD_OUT + number)
    shown = number < config.sheets
    strip = lambda video: np.concatenate([video[min(i, len(video) - 1)] for i in visits], 1)
    if shown:
        write_image(out / "visits" / f"{scene}-truth.png", strip(walk.frames))
        show(out, scene, "truth", walk.frames)
    records = []
    for row in rows:
        start = time.perf_counter()
        video, sizes = roll_out(pipeline, walk, row, config)
        seconds = time.perf_counter() - start
        if shown:
            write_image(out / "visits" / f"{scene}-{row}.png", strip(video))
            show(out, scene, row, video)
        figures = measure(walk, video, visits) | {"seconds": seconds, "frames_per_second": len(video) / seconds}
        figures |= {"memory_bytes": sizes[-1], "memory_kib": sizes[-1] / 1024 if sizes[-1] else float("nan")}
        records.append({"scene": scene, "row": row, "visits": list(visits), **figures})
    return records


def loop_visits(walk: Walk, temporal_stride: int) -> tuple[int, ...]:
    """A, B, A, B and A of a recorded loop that is gone to its end and back: B shares least with the first view.

    Args:
        walk: The walk.
        temporal_stride: Frames per latent frame, so that visits are latent frames.

    Returns:
        Five frames.
    """
    end = (len(walk.cameras) - 1) // 2
    between = range(temporal_stride, end, temporal_stride)
    share = lambda i: walk.seen[i].sum() / max(1, (walk.seen[i] | walk.unseen[i]).sum())
    away = min(between, key=share, default=end)
    return (0, away, end, 2 * end - away, 2 * end)


def _places(config: ClosedLoop, kind: Kind, pipeline: MiragePipeline) -> dict[str, Place]:
    if kind == "worlds":
        return {f"world-{seed}": seed for seed in config.seeds}
    if kind == "recordings":
        return loops(config.sources, pipeline.codec.temporal_stride)
    picture_walk(Path(config.sources[0]), config.path, config.frames, pipeline, 0)  # a wrong path is refused
    return {Path(source).stem: Path(source) for source in config.sources}


def tables(results: dict) -> list[Table]:
    """The tables of some results.

    Args:
        results: What a call returned, or `results.json` holds.

    Returns:
        Rows, differences between them, and single scenes where they are not alike.
    """
    kind, share = results["on"], next(iter(results["rows"].values())).get("imagined_share")
    what = {
        "worlds": f"{results['scenes']} held-out worlds (seeds from {results['first_seed']}), walks A-B-A-B-A of "
        f"{results['frames']} frames",
        "recordings": f"{results['scenes']} recorded loops, to their end and back",
        "pictures": f"{results['scenes']} pictures, {results['path']}, {results['frames']} frames",
    }[kind]
    note = (
        f"{what}; depth of the input {results['depth'] if kind != 'picture' else 'head'}, {results['steps']} steps of "
    )
    note += "the denoiser" + (f"; {share['mean']:.2f} of B is not in the input" if share and share["mean"] else "")
    note += left_out(results)
    meaning = {"worlds": MEANING, "recordings": MEANING + OF_LOOPS, "pictures": MEANING + OF_PICTURES}[kind]
    found = [rows_table(results, COLUMNS, "Closed loop", note=f"{note}. {results['hardware']}.\n\n{meaning}")]
    if results["differences"] and next(iter(results["differences"].values())):
        named = [
            (head, figure) for head, figure in DIFFERENCES if figure in next(iter(results["differences"].values()))
        ]
        found.append(differences_table(results, named, "Differences between rows, paired by scene, in dB"))
    if results["records"]:
        found.append(scenes_table(results["records"], COLUMNS, "Scene by scene"))
    return found


def _sheets(out: Path, results: dict, records: Sequence[dict]) -> list[Picture]:
    """The visits of the scenes that are shown."""
    pictures, names = [], WAY if results["on"] == "pictures" else tuple("ABABA")
    for scene in list(dict.fromkeys(r["scene"] for r in records))[: results["sheets"]]:
        rows = {r["row"]: r for r in records if r["scene"] == scene}
        if _sheet(out, scene, rows, names):
            pictures.append(Picture(path=f"sheet-{scene}.png", caption=f"{scene}: the visits, row by row"))
    return pictures


def _sheet(out: Path, scene: str, rows: dict[str, dict], places: tuple[str, ...]) -> bool:
    """The visits of one scene: the truth on top, then row by row, and how far each return is from the visit before."""
    strips = {row: out / "visits" / f"{scene}-{row}.png" for row in ("truth", *rows)}
    if not all(path.exists() for path in strips.values()):
        return False  # it was measured without pictures
    visits = next(iter(rows.values()))["visits"]
    frames, labels = [], []
    for row, path in strips.items():
        frames += np.split(read_image(path), len(visits), 1)
        labels += [f"{row} · {place} {i}" for place, i in zip(places, visits, strict=True)]
        if row != "truth":
            labels[-2] += f" · {_db(rows[row].get('imagined_psnr'))}"
            labels[-1] += f" · {_db(rows[row]['observed_psnr'])}"
    sheet = contact_sheet(frames, labels, columns=len(visits), title=f"{scene}: {', '.join(places)}")
    write_image(out / f"sheet-{scene}.png", sheet)
    return True


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"


def _panels(results: dict) -> list[Panel]:
    if results["on"] != "worlds":
        return []
    titles = {"all": "all pixels", "seen": "seen in the input", "unseen": "not in the input"}
    ticks = {i: f"{place}\n{i}" for place, i in zip("ABABA", _visits(results["frames"]), strict=True)}
    return [
        Panel(
            title=titles[region],
            x="frame",
            y="PSNR against the truth, dB",
            series={row: (range(len(of[region]["mean"])), of[region]) for row, of in results["curves"].items()},
            ticks=ticks,
        )
        for region in titles
    ]


evaluate = Task(
    name="closed-loop",
    title="Closed loop: is the place still there?",
    lead=lambda config: (
        "The camera leaves a place and comes back. What the input picture shows must be there again, and so must "
        "what was imagined on the way. A model that imagines nothing wins the return alone: hence two controls."
    ),
    caption="PSNR against the truth, frame by frame",
    measure=measure_scene,
    tables=tables,
    panels=_panels,
    used=functools.partial(metrics.used, *USED),
    differences=tuple(figure for _, figure in DIFFERENCES),
    kinds=("worlds", "recordings", "pictures"),
    places=_places,
    sheets=_sheets,
    below=lambda record: f"visits at frames {', '.join(map(str, record['visits']))}",
)
format_table = evaluate.format_table
