"""Real places to measure on: recordings with cameras, as `mirage prepare` reads them, and single pictures, as walks."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.dataset.footage import PICTURES, Footage
from mirage.dataset.sources import Found, Reading, open_footage, survey
from mirage.evaluation.metrics import seen_from
from mirage.evaluation.worlds import Walk
from mirage.inputs import Inputs, fit_depth, model_size
from mirage.pipeline import MiragePipeline
from mirage.video.io import fit_image, images_to_tensor, read_image

Kind = Literal["worlds", "recordings", "pictures"]
AGREE = 0.05  # relative difference of depth that is still the same surface, sensors and poses being what they are
RETURN = 1e-3  # how far from its start a path may end that comes back, in world units and in entries of the rotation
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cut:
    """Some frames of one recording, in the order in which they are gone through."""

    found: Found
    videos: str
    frames: tuple[int, ...]

    def open(self) -> Footage:
        """The recording."""
        return open_footage(self.found, Reading(videos=self.videos))


def kind_of(sources: Sequence[str], allowed: Sequence[Kind]) -> Kind:
    """What some sources are; exact worlds without any.

    Args:
        sources: Folders and files, all of one kind.
        allowed: Kinds that can be measured on.

    Returns:
        Their kind.

    Raises:
        ValueError: If a source is missing, a picture cannot be read, or the kinds differ or cannot be used.
    """
    kinds: dict[str, Kind] = {}
    for source in sources:
        if not Path(source).exists():
            raise ValueError(f"source not found: {source} does not exist")
        picture = Path(source).suffix.lower() in PICTURES
        if picture:
            read_image(source)  # says what is wrong with it
        kinds[source] = "pictures" if picture else "recordings"
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{source} is of {kind}" for source, kind in kinds.items())
        raise ValueError(f"sources must be of one kind, since one table averages over them: {told}")
    kind = next(iter(kinds.values()), "worlds")
    if kind not in allowed:
        raise ValueError(f"this task measures on {' or '.join(allowed)}, but {sources[0]} is of {kind}")
    return kind


def recordings(sources: Sequence[str], videos: str = "") -> list[Cut]:
    """All recordings of some sources, whole.

    Args:
        sources: Folders or lists, as `mirage prepare` takes them.
        videos: Folder of the videos of RealEstate10K lists.

    Returns:
        The recordings; what is none is said and left out.

    Raises:
        ValueError: If a source holds none, or one cannot be used: its frames and poses are of different counts, a file
            is damaged.
    """
    whole = []
    for source in sources:
        seen = survey(str(Path(source).resolve()), Reading(videos=videos))
        for skipped in seen.skipped:
            log.warning("%s is left out: %s", skipped["name"], skipped["why"])
        if not seen.found:
            raise ValueError(f"{source} has no recording that can be used: {seen.skipped[0]['why']}")
        for found in seen.found:
            cut = Cut(found, videos, ())
            whole.append(Cut(found, videos, tuple(range(len(cut.open())))))
    return whole


def clips(sources: Sequence[str], frames: int, stride: int, temporal_stride: int, videos: str = "") -> dict[str, Cut]:
    """Recordings cut into clips, one after the other.

    Args:
        sources: As in `recordings`.
        frames: Frames of a clip; one of a shorter recording has as many as a video can have.
        stride: Frames of the recording per frame of the clip.
        temporal_stride: Frames per latent frame of the model.
        videos: As in `recordings`.

    Returns:
        Clips by name.

    Raises:
        ValueError: See `recordings`; and if one is too short for a video, or two have the same name.
    """
    cuts: dict[str, Cut] = {}
    for one in recordings(sources, videos):
        whole = one.frames[::stride]
        most = min(frames, 1 + (len(whole) - 1) // temporal_stride * temporal_stride)
        if most < 1 + temporal_stride:
            raise ValueError(
                f"{one.found.path} has {len(whole)} frames at stride {stride}, a video needs {1 + temporal_stride}"
            )
        for start in range(0, len(whole) - most + 1, most):
            _add(cuts, one, whole[start : start + most])
    return cuts


def loops(sources: Sequence[str], temporal_stride: int) -> dict[str, Cut]:
    """The walks of recordings that leave a place and come back, as their `loops.json` tells.

    A loop is gone to its end and back again, so that it comes to its first camera exactly and to all others twice.

    Args:
        sources: As in `recordings`.
        temporal_stride: Frames per latent frame of the model.

    Returns:
        Walks by name.

    Raises:
        ValueError: See `recordings`; and if one tells of no loop, has no depth, or a loop is too short for a video.
    """
    cuts: dict[str, Cut] = {}
    for one in recordings(sources):
        place = Path(one.found.path)
        if not one.open().has_depth:
            raise ValueError(f"{place} has no depth, which tells what of its end was seen at its beginning")
        for start, end in _loops(place / "loops.json", len(one.frames)):
            legs = (end - start) // temporal_stride * temporal_stride
            if legs < temporal_stride:
                raise ValueError(f"loop {start} to {end} of {place} is too short for a video")
            way = np.linspace(start, end, legs + 1).round().astype(int).tolist()
            _add(cuts, one, (*way, *way[-2::-1]), end)
    return cuts


def _loops(file: Path, frames: int) -> list[tuple[int, int]]:
    if not file.is_file():
        raise ValueError(f'{file} is missing: it must say {{"loops": [[start, end], ...]}}, frames of one place')
    try:
        found = [(int(start), int(end)) for start, end in json.loads(file.read_text(encoding="utf-8"))["loops"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file} must say {{"loops": [[start, end], ...]}}: {error!r}') from None
    if wrong := [loop for loop in found if not 0 <= loop[0] < loop[1] < frames]:
        raise ValueError(f"{file} names frames {wrong[0]}, the recording has 0 to {frames - 1}")
    return found


def _add(cuts: dict[str, Cut], one: Cut, frames: Sequence[int], last: int | None = None) -> None:
    name = f"{one.found.name}-{frames[0]}-{frames[-1] if last is None else last}"
    if name in cuts:
        raise ValueError(f"sources must have different names: {cuts[name].found.path} and {one.found.path} have one")
    cuts[name] = Cut(one.found, one.videos, tuple(frames))


def cut_walk(cut: Cut, pipeline: MiragePipeline, seed: int) -> Walk:
    """The walk along some frames of a recording, at a size that suits the model.

    Args:
        cut: Which frames.
        pipeline: The model.
        seed: Of the noise.

    Returns:
        The walk; with depth if it is known and in the unit of the cameras.
    """
    footage, frames, device = cut.open(), list(cut.frames), pipeline.device
    height, width = model_size(
        footage.cameras.height, footage.cameras.width, tuple(pipeline.config.size), _step(pipeline)
    )
    cameras = footage.cameras.fit(height, width)[0][frames]
    once = sorted(set(frames))  # a way back shows the same again
    index = [once.index(i) for i in frames]
    colour = images_to_tensor(np.stack([fit_image(p, height, width) for p in footage.frames(once)]))[index]
    if not (footage.has_depth and footage.metric):
        return Walk(seed, cameras.to(device), colour.to(device), None, None)
    depth = torch.stack([fit_depth(torch.from_numpy(d), height, width) for d in footage.depth(once)])[index]
    seen, sure = seen_where_known(depth, cameras)
    return Walk(seed, cameras.to(device), colour.to(device), depth.to(device), seen, sure)


def picture_walk(image: Path, path: str, frames: int, pipeline: MiragePipeline, seed: int) -> Walk:
    """A walk from a picture that comes back to it; nothing else is true of it.

    Args:
        image: The picture.
        path: Words of a path that ends where it began.
        frames: Frames of the walk.
        pipeline: The model.
        seed: Of the noise.

    Returns:
        The walk, with one true frame.

    Raises:
        ValueError: If the path does not come back.
    """
    inputs = Inputs.load(
        image,
        path,
        like=tuple(pipeline.config.size),
        step=_step(pipeline),
        frames=frames,
        temporal_stride=pipeline.codec.temporal_stride,
    )
    pose = inputs.cameras.cam_from_world
    if float((pose[-1] - pose[0]).abs().max()) > RETURN:
        raise ValueError(f"path must end where it began, {path!r} does not; put there-and-back: before it")
    device = pipeline.device
    return Walk(seed, inputs.cameras.to(device), images_to_tensor(inputs.image)[None].to(device), None, None)


def _step(pipeline: MiragePipeline) -> int:
    return pipeline.codec.stride * pipeline.transformer.config.patch_size[1]


def seen_where_known(
    depth: Float32[Tensor, "f h w"], cameras: Cameras
) -> tuple[Bool[np.ndarray, "f h w"], Bool[np.ndarray, "f h w"]]:
    """Which pixels the first view shows too, by a sensor that does not see everything.

    Args:
        depth: z-depth, 0 = unknown.
        cameras: Of the views.

    Returns:
        Pixels that were seen, and those of which it is known: their depth is, and so is that of the first view around
        where they lie in it.
    """
    first = depth[0]
    seen = seen_from(depth, cameras, first.masked_fill(first == 0, torch.nan), cameras[0], tolerance=AGREE)
    hole = torch.nn.functional.max_pool2d((first == 0).float()[None], 3, 1, 1)[0].bool()
    xy, z = cameras[0].project(cameras.unproject(depth).reshape(-1, 3))
    x, y = xy[0].unbind(-1)
    inside = (z[0] > 0) & (x >= 0) & (x < first.shape[1]) & (y >= 0) & (y < first.shape[0])
    x, y = (torch.where(inside, v, 0.0).long() for v in (x, y))
    unsure = (inside & hole[y, x]).view(depth.shape) & ~seen
    known = depth > 0
    return (seen & known).numpy(), (known & ~unsure).numpy()
