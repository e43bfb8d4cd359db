"""What all tasks share: their settings, the scenes that they are measured on, and how a run of one goes."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import UInt8

from mirage.evaluation.bench.tables import Table
from mirage.evaluation.page import Film, Picture, film, markdown, write_film, write_page
from mirage.evaluation.pose import match_scale
from mirage.evaluation.report import Panel, draw, hardware, summarise
from mirage.evaluation.rows import CONTROLS, MEMORIES, TITLES
from mirage.evaluation.sources import Cut, Kind, clips, cut_walk, kind_of
from mirage.evaluation.study import Study, fingerprint, load_model, run
from mirage.evaluation.worlds import HELD_OUT, Walk, make_walk
from mirage.pipeline import MiragePipeline
from mirage.video.io import write_json

Depth = Literal["known", "head"]
Place = int | Cut | Path  # the seed of a world, frames of a recording, a picture
FREE = ("sources", "videos", "worlds", "first_seed", "rows", "sheets", "model", "device")  # results may differ in these
Config = TypeVar("Config", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured. Results of other scenes or rows of the same settings can share a folder."""

    model: str = "nano"
    """A name or folder that `MiragePipeline.from_pretrained` takes."""
    sources: tuple[str, ...] = ()
    """Folders or files of real places; held-out exact worlds if there is none."""
    worlds: int = 100
    """Number of worlds, with consecutive seeds."""
    first_seed: int = HELD_OUT
    """Seed of the first world, far from those of training."""
    rows: tuple[str, ...] = tuple(MEMORIES)
    """Kinds of memory; the controls are measured in any case."""
    steps: int | None = None
    """Calls of the denoiser per chunk; the model's own number if None."""
    depth: Depth = "known"
    """Depth of the input picture: the true one, or what the model estimates. All later depth is estimated."""
    device: str = "cpu"
    """Where the model runs."""
    sheets: int = 4
    """Number of scenes that are shown as pictures and videos."""

    def __post_init__(self):
        unknown = [row for row in self.rows if row not in MEMORIES]
        if unknown or not self.rows:
            raise ValueError(f"rows must be among {', '.join(MEMORIES)}, got {', '.join(unknown) or 'none'}")
        for name, least in {"worlds": 1, "first_seed": 0, "sheets": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.depth not in get_args(Depth):
            raise ValueError(f"depth must be one of {', '.join(get_args(Depth))}, got {self.depth!r}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be positive, got {self.steps}")

    @property
    def seeds(self) -> range:
        """Seeds of the worlds."""
        return range(self.first_seed, self.first_seed + self.worlds)

    @property
    def all_rows(self) -> tuple[str, ...]:
        """Rows of the table, the controls last."""
        return (*self.rows, *CONTROLS)


@dataclass(frozen=True, kw_only=True)
class Clips(Settings):
    """Settings of tasks that hold a video to the truth along its path."""

    worlds: int = 50
    """Number of worlds, with consecutive seeds."""
    rows: tuple[str, ...] = ("latent", "none")
    """Kinds of memory; the controls are measured in any case."""
    frames: int = 49
    """Frames of a clip; a recording is cut into such clips."""
    stride: int = 1
    """Frames of a recording per frame of a clip."""
    videos: str = ""
    """Folder of the videos of RealEstate10K lists."""

    def __post_init__(self):
        super().__post_init__()
        if self.frames < 5 or self.frames % 4 != 1:
            below = max(5, self.frames - (self.frames - 1) % 4)
            raise ValueError(f"frames must be 1 + n * 4, at least 5, got {self.frames}; use {below} or {below + 4}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")

    @property
    def all_rows(self) -> tuple[str, ...]:
        """Rows of the table, the controls last."""
        return (*self.rows, *CONTROLS, "first-frame")


def begin(config: Config) -> tuple[Config, MiragePipeline]:
    """Load the model, so that one that cannot be is refused before all else, and settle the steps.

    Args:
        config: The settings.

    Returns:
        The settings with the model's own number of steps where none was chosen, and the model.
    """
    pipeline = load_model(config.model, config.device)
    return replace(config, steps=config.steps or pipeline.config.num_inference_steps), pipeline


def clip_places(config: Settings, kind: Kind, pipeline: MiragePipeline) -> dict[str, Place]:
    """The scenes of a task that holds videos to the truth.

    Args:
        config: The settings.
        kind: What the sources are.
        pipeline: The model.

    Returns:
        Scenes by name.
    """
    if kind == "worlds":
        return {f"world-{seed}": seed for seed in config.seeds}
    return dict(clips(config.sources, config.frames, config.stride, pipeline.codec.temporal_stride, config.videos))


def clip_walk(
    config: Clips, place: Place, number: int, pipeline: MiragePipeline
) -> tuple[Walk, dict[str, float | int]]:
    """The truth of one scene; without known depth its path is brought to the unit of the model's own depth.

    Args:
        config: The settings.
        place: Where.
        number: Which of the scenes it is.
        pipeline: The model.

    Returns:
        The walk; and, where it was brought to another unit, the factor and how many features told it.
    """
    if isinstance(place, int):
        return make_walk(place, config.frames, *pipeline.config.size, device=config.device, kind="walk"), {}
    walk = cut_walk(place, pipeline, HELD_OUT + number)
    if walk.depth is not None:
        return walk, {}
    depth = pipeline.begin(walk.colour[0], walk.cameras[0], memory="none").depth
    depth = torch.nn.functional.interpolate(depth[None, :1], walk.frames.shape[1:3], mode="nearest-exact")[0, 0]
    factor, told = match_scale(walk.frames, walk.cameras, depth)
    pose = walk.cameras.cam_from_world.clone()
    pose[:, :3, 3] *= factor
    walk = replace(walk, cameras=replace(walk.cameras, cam_from_world=pose))
    return walk, {"scale": factor, "scale_features": told}


def scaled(results: dict) -> str:
    """What a note says of paths that were brought to another unit.

    Args:
        results: What `results.json` holds.

    Returns:
        Words; none if no path was.
    """
    told = {r["scene"]: r["scale_features"] for r in results["records"] if "scale_features" in r}.values()
    if not told:
        return ""
    return (
        " Where depth is not known, that of the input is the model's own, and the path is brought to its unit by "
        "features of the input triangulated along the true clip (median ratio; "
        f"{sum(n > 0 for n in told)} of {len(told)} had enough, the others are taken as they are)."
    )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What tells one task from another; called with its settings, it is carried out."""

    name: str
    title: str
    """Of its page."""
    lead: Callable[[Settings], str]
    """What its page says first."""
    caption: str
    """Of its curves."""
    measure: Callable[..., list[dict]]
    """Called with settings, places, scene, rows and folder: one record per row."""
    tables: Callable[[dict], list[Table]]
    """Of its results."""
    panels: Callable[[dict], Sequence[Panel]]
    """Its curves, if it has any."""
    used: Callable[[], list[tuple[str, str, str]]]
    """What computes its figures."""
    differences: tuple[str, ...] = ()
    """Figures whose differences between rows are told."""
    kinds: tuple[Kind, ...] = ("worlds", "recordings")
    """Sources that it takes."""
    places: Callable[[Settings, Kind, MiragePipeline], dict[str, Place]] = clip_places
    """Its scenes, by name."""
    sheets: Callable[[Path, dict, Sequence[dict]], list[Picture]] = lambda out, results, records: []
    """Draws its own pictures, from folder, results and records."""
    below: Callable[[dict], str] = lambda record: ""
    """From a record of a scene, what stands below the scene's video."""

    def __call__(
        self,
        config: Settings,
        out: str | os.PathLike,
        *,
        processes: int = 2,
        on_scene: Callable[[int, int], None] | None = None,
        command: str = "",
    ) -> dict:
        """Measure all rows on all scenes, and write `results.json`, `table.md` and the page, `report.html`.

        It may be interrupted at any time, see `mirage.evaluation.study.run`.

        Args:
            config: What to measure.
            out: Folder of the results; made if missing.
            processes: Scenes that are measured at a time, with one thread each; 1 stays in this process.
            on_scene: Called with the numbers of scenes that are done and wanted, at the start and after each.
            command: What the page shall say that it was made by.

        Returns:
            What `results.json` holds.

        Raises:
            ValueError: If there is no such model or source, or the folder holds other results.
        """
        out, kind = Path(out), kind_of(config.sources, self.kinds)
        config, pipeline = begin(config)
        places = self.places(config, kind, pipeline)
        settings = {k: v for k, v in asdict(config).items() if k not in FREE}
        settings |= {"on": kind, "weights": fingerprint(config.model)}
        study = Study(
            task=self.name,
            settings=settings,
            scenes=tuple(places),
            rows=config.all_rows,
            measure=functools.partial(self.measure, config, places),
        )
        left_out: dict[str, str] = {}
        records = run(study, out, processes=processes, on_scene=on_scene, left_out=left_out)
        results = {
            "task": self.name,
            **settings,
            **asdict(config),
            "left_out": left_out,
            "hardware": hardware(),
            "command": command,
            "chunk_frames": pipeline.config.chunk_frames,
            "size": list(pipeline.config.size),
            **summarise(records, differences=[figure for figure in self.differences if figure in records[0]]),
            "records": [{k: v for k, v in r.items() if k != "curves"} for r in records] if kind != "worlds" else [],
        }
        write_json(out / "results.json", results)
        pictures = self.sheets(out, results, records)
        if panels := self.panels(results):
            draw(out / "curves.png", panels)
            pictures.insert(0, Picture(path="curves.png", caption=self.caption))
        of = {record["scene"]: record for record in records}
        write_page(
            out,
            title=self.title,
            lead=self.lead(config),
            tables=self.tables(results),
            command=command,
            hardware=results["hardware"],
            pictures=pictures,
            films=films(out, results, [place for place in places if place in of], lambda scene: self.below(of[scene])),
            settings=self.used(),
        )
        return results

    def format_table(self, results: dict) -> str:
        """The tables of some results in Markdown.

        Args:
            results: What a call returned, or `results.json` holds.

        Returns:
            Markdown.
        """
        return markdown(self.tables(results), self.used())


def show(out: Path, scene: str, row: str, video: UInt8[np.ndarray, "f h w 3"]) -> None:
    """Keep a video for the page.

    Args:
        out: Folder of the results.
        scene: Its scene.
        row: Its row.
        video: Colour, 0 to 255; a single frame is no video.
    """
    if len(video) > 1:
        write_film(out, f"{scene}-{row}", video)


def films(out: Path, results: dict, scenes: Sequence[str], note: Callable[[str], str] = lambda scene: "") -> list[Film]:
    """The videos of the scenes that are shown.

    Args:
        out: Folder of the results.
        results: What `results.json` holds.
        scenes: All scenes, in order.
        note: From a scene, what stands below its title.

    Returns:
        Those that are there.
    """
    labels = {row: TITLES.get(row, row) for row in ("truth", *results["rows"])}
    found = [film(out, scene, scene, labels, note(scene)) for scene in scenes[: results["sheets"]]]
    return [one for one in found if one is not None]


def where(results: dict) -> str:
    """The scenes of a table, in words.

    Args:
        results: What `results.json` holds.

    Returns:
        Words for a note.
    """
    number, frames = results["scenes"], results["frames"]
    if results["on"] == "worlds":
        return f"{number} held-out worlds (seeds from {results['first_seed']}), walks of {frames} frames"
    stride = f", every {results['stride']}th frame" if results["stride"] > 1 else ""
    return f"{number} clips of up to {frames} frames{stride}{left_out(results)}"


def left_out(results: dict) -> str:
    """What a note says of scenes that could not be measured.

    Args:
        results: What `results.json` holds.

    Returns:
        Words; none if all were measured.
    """
    told = "; ".join(f"{scene} ({why})" for scene, why in results["left_out"].items())
    return f"; **left out:** {told}" if told else ""
