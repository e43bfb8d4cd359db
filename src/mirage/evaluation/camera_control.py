"""Does the video follow the path? Held to true frames along it by optical flow, and to the path by estimated poses.

The measure is measured first: the true frames themselves are put through the same estimator, and what it makes of them
stands in every table as the noise floor. A video that stands still stands beside it: what a wrong path looks like.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from mirage.camera.cameras import Cameras
from mirage.camera.trajectory import measure_motion
from mirage.evaluation import metrics, pose
from mirage.evaluation.bench.tables import Table
from mirage.evaluation.report import INTERVALS, Panel, rows_table, scenes_table
from mirage.evaluation.rows import roll_out
from mirage.evaluation.study import load_model
from mirage.evaluation.task import Clips, Place, Task, clip_walk, scaled, show, where
from mirage.evaluation.worlds import Walk

EVERY = 3  # frames between those that are looked at: those between latent frames too
GAP = 15  # frames between two whose motion is estimated: the shorter the way, the less it tells
ENOUGH = 0.25  # share of a frame that the input must show for it to be found by what it shares
COLUMNS = (
    ("flow, px", "flow"),
    ("flow, degrees", "flow_degrees"),
    ("turn by flow, degrees", "flow_turn"),
    ("place by flow, cm", "flow_place"),
    ("located", "located"),
    ("turn, degrees", "turn"),
    ("place, cm", "place"),
    ("place, % of the way", "place_share"),
    (f"turn over {GAP}, degrees", "step_turn"),
    (f"heading over {GAP}, degrees", "step_heading"),
    ("compared", "compared"),
)
TITLES = {"truth": "*floor:* the true frames"}
MEANING = f"""{INTERVALS} *flow*: median length of the optical flow between each frame and the true frame of the \
commanded path, on the pixels that the input shows, in pixels and as an angle between the rays; every third frame. \
*By flow*: the pose that this flow tells by the true depth of the true frame, against the commanded one. *turn*, \
*place*: the pose of the frame, estimated from the features that it shares with the input and the input's true depth, \
against the commanded one: angle, distance (hundredths of a unit), and distance over the way gone so far (frames \
before a tenth of the scene's depth is gone do not count there); medians over the frames that were *located*, which \
are those of which the input shows at least {ENOUGH:.0%} and where at least {pose.LEAST} features agree on a pose. \
*over {GAP}*: the motion between two frames {GAP} apart from the features they share, imagined ones included: angle \
between the turns, and between the directions of the way where it is longer than {pose.BASELINE:.0%} of the depth; \
medians over the pairs that could be *compared*. The *floor* is the same estimate on the true frames: no figure below \
it means anything. The *input standing still* is a video that ignores the path. A video in which few features can be \
matched has few figures: read *located* and *compared* with them."""


@dataclass(frozen=True, kw_only=True)
class CameraControl(Clips):
    """What is measured."""

    @property
    def all_rows(self) -> tuple[str, ...]:
        """Rows of the table, the controls and the floor last."""
        return (*super().all_rows, "truth")


def measure(walk: Walk, video: UInt8[np.ndarray, "f h w 3"]) -> dict:
    """All figures of one video.

    Args:
        walk: The truth.
        video: What was made of it.

    Returns:
        Errors of the flow, of the poses by the first frame, and of the motion between frames; `curves` over frames.
    """
    looked = range(EVERY, len(video), EVERY)
    by_flow = np.array([_flow_error(walk, video, i) for i in looked])
    found = [pose.features(frame) for frame in video[::EVERY]]
    poses = _pose_errors(walk, found)
    steps = _step_errors(walk, found)
    middle = lambda values: float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")
    shared = np.isfinite(poses[:, 3])
    return {
        "flow": middle(by_flow[:, 0]),
        "flow_degrees": middle(by_flow[:, 1]),
        "flow_turn": middle(by_flow[:, 2]),
        "flow_place": 100 * middle(by_flow[:, 3]),
        "located": float(np.isfinite(poses[shared, 0]).mean()) if shared.any() else float("nan"),
        "turn": middle(poses[:, 0]),
        "place": 100 * middle(poses[:, 1]),
        "place_share": 100 * middle(poses[:, 2]),
        "step_turn": middle(steps[:, 0]),
        "step_heading": middle(steps[:, 1]),
        "compared": float(np.isfinite(steps[:, 0]).mean()) if len(steps) else float("nan"),
        "curves": {
            "flow": by_flow[:, 0].tolist(),
            "turn": poses[:, 0].tolist(),
            "place": (100 * poses[:, 1]).tolist(),
        },
    }


def _flow_error(walk: Walk, video: UInt8[np.ndarray, "f h w 3"], i: int) -> tuple[float, float, float, float]:
    """How far a frame is from the true one on what the input shows: pixels, degrees, and turn and place by them."""
    mask = np.ones(video.shape[1:3], bool) if walk.seen is None else walk.seen[i]
    flow, nothing = metrics.flow(walk.frames[i], video[i]), float("nan")
    if mask.mean() < 0.01:
        return nothing, nothing, nothing, nothing
    at = None if walk.depth is None else pose.locate_by_flow(flow, mask, walk.depth[i], walk.cameras[i])
    moved = (nothing, nothing) if at is None else pose.pose_error(at, walk.cameras.cam_from_world[i])
    angle = ray_angles(flow, walk.cameras[i])
    return float(np.median(np.linalg.norm(flow, axis=-1)[mask])), float(np.median(angle[mask])), *moved


def ray_angles(flow: Float32[np.ndarray, "h w 2"], camera: Cameras) -> Float32[np.ndarray, "h w"]:
    """The angle between the ray of each pixel and that of where the flow takes it.

    Args:
        flow: Displacement (x, y) in pixels.
        camera: Of the picture.

    Returns:
        Degrees.
    """
    h, w = flow.shape[:2]
    k = camera.intrinsics[0].cpu().numpy()
    y, x = np.mgrid[:h, :w].astype(np.float32) + 0.5
    ray = lambda x, y: np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1)
    a, b = ray(x, y), ray(x + flow[..., 0], y + flow[..., 1])
    sine, cosine = np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)
    return np.degrees(np.arctan2(sine, cosine)).astype(np.float32)


def _pose_errors(walk: Walk, found: Sequence[pose.Features]) -> np.ndarray:
    """Of each frame that is looked at: turn, place, place over the way, and 0 if the input shows enough of it."""
    errors = np.full((len(found) - 1, 4), np.nan)
    if walk.depth is None:
        return errors
    key, depth = pose.features(walk.frames[0]), walk.depth[0]
    typical = float(depth[depth > 0].median())
    for n in range(1, len(found)):
        i = n * EVERY
        if walk.seen is not None and walk.seen[i].mean() < ENOUGH:
            continue
        errors[n - 1, 3] = 0.0
        at = pose.locate(found[n], key, depth, walk.cameras[0], walk.cameras[i])
        if at is not None:
            errors[n - 1, :2] = pose.pose_error(at, walk.cameras.cam_from_world[i])
            way = measure_motion(walk.cameras[: i + 1]).length
            errors[n - 1, 2] = errors[n - 1, 1] / way if way > 0.1 * typical else np.nan
    return errors


def _step_errors(walk: Walk, found: Sequence[pose.Features]) -> np.ndarray:
    """Of each pair of frames `GAP` apart: turn and heading."""
    apart, errors = GAP // EVERY, []
    depth = 1.0 if walk.depth is None else float(walk.depth[0][walk.depth[0] > 0].median())
    for n in range(apart, len(found)):
        a, b = walk.cameras[(n - apart) * EVERY], walk.cameras[n * EVERY]
        moved = pose.between(found[n - apart], found[n], a, b)
        true = b.cam_from_world[0].double() @ torch.linalg.inv(a.cam_from_world[0].double())
        errors.append((np.nan, np.nan) if moved is None else pose.motion_error(moved, true, depth))
    return np.array(errors).reshape(-1, 2)


def measure_scene(
    config: CameraControl, places: dict[str, Place], scene: str, rows: tuple[str, ...], out: Path
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
    records = []
    for row in rows:
        video = walk.frames if row == "truth" else roll_out(pipeline, walk, row, config)[0]
        if number < config.sheets:
            show(out, scene, row, video)
        records.append({"scene": scene, "row": row, **measure(walk, video), **scale})
    return records


def used() -> list[tuple[str, str, str]]:
    """What computes the figures, for a report."""
    said = (
        f"SIFT of OpenCV, ratio {pose.RATIO} and mutual; poses by absolute pose and by essential matrix with RANSAC "
        f"(seed 0) at {pose.AGREE:.0%} and {pose.AGREE / 3:.1%} of the diagonal, at least 1 and 0.33 pixels, refined"
    )
    return [*metrics.used("flow"), ("turn, place, heading", pose.estimator(), said)]


def tables(results: dict) -> list[Table]:
    """The tables of some results.

    Args:
        results: What `evaluate` returned, or `results.json` holds.

    Returns:
        Rows, and single scenes where they are not alike.
    """
    note = f"{where(results)}; depth of the input {results['depth']}, {results['steps']} steps of the denoiser. "
    note += f"{results['hardware']}.\n\n{MEANING}{scaled(results)}"
    found = [rows_table(results, COLUMNS, "Camera control", note=note, titles=TITLES)]
    if results["records"]:
        found.append(scenes_table(results["records"], COLUMNS, "Scene by scene"))
    return found


def _panels(results: dict) -> list[Panel]:
    titles = {"flow": "flow, px", "turn": "turn, degrees", "place": "place, hundredths of a unit"}
    place = lambda of: [EVERY * (i + 1) for i in range(len(of["mean"]))]
    return [
        Panel(
            title=title,
            x="frame",
            y=title,
            series={row: (place(of[name]), of[name]) for row, of in results["curves"].items()},
        )
        for name, title in titles.items()
    ]


evaluate = Task(
    name="camera",
    title="Camera control: does the video follow the path?",
    lead=lambda config: (
        "The video is held to the true frames of the commanded path by optical flow, and to the path itself by the "
        "pose that is estimated from each frame. The floor is what the same measure makes of the true frames."
    ),
    caption="Errors along the path",
    measure=measure_scene,
    tables=tables,
    panels=_panels,
    used=used,
)
format_table = evaluate.format_table
