"""Real places to measure on: RGB-D folders, RealEstate10K lists with their clips, and single pictures, as walks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.files import load_trajectory
from mirage.evaluation.metrics import seen_from
from mirage.evaluation.real_loops import AGREE, IMAGES, Rgbd
from mirage.evaluation.worlds import Walk
from mirage.inputs import Inputs, model_size
from mirage.pipeline import MiragePipeline
from mirage.video.io import fit_image, images_to_tensor, read_image, read_video

Kind = Literal["worlds", "rgbd", "realestate10k", "picture"]
VIDEOS = (".mp4", ".mkv", ".webm", ".mov")
RETURN = 1e-3  # how far from its start a path may end that comes back, in world units and in entries of the rotation


@dataclass(frozen=True)
class Cut:
    """Some frames of one recording, in the order in which they are gone through."""

    source: Path
    frames: tuple[int, ...]


def kind_of(sources: Sequence[str | Path], allowed: Sequence[Kind]) -> Kind:
    """What some sources are; exact worlds without any.

    Args:
        sources: Folders and files, all of one kind.
        allowed: Kinds that can be measured on.

    Returns:
        Their kind.

    Raises:
        ValueError: If a source is missing, of no known kind, or the kinds differ or cannot be used.
    """
    kinds = {str(source): _kind(Path(source)) for source in sources}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{source} is {NAMES[kind]}" for source, kind in kinds.items())
        raise ValueError(f"sources must be of one kind, since one table averages over them: {told}")
    kind = next(iter(kinds.values()), "worlds")
    if kind not in allowed:
        raise ValueError(
            f"this task measures on {', '.join(NAMES[k] for k in allowed)}, but {sources[0]} is {NAMES[kind]}"
        )
    return kind


NAMES = {
    "worlds": "exact worlds (no source)",
    "rgbd": "an RGB-D folder",
    "realestate10k": "a folder of RealEstate10K lists",
    "picture": "a picture",
}


def _kind(source: Path) -> Kind:
    if not source.exists():
        raise ValueError(f"source not found: {source} does not exist")
    if source.is_file() and source.suffix != ".txt":
        read_image(source)  # says what is wrong with it
        return "picture"
    if source.is_dir() and any((source / name).exists() for name in ("rgb", "depth", "cameras.npz")):
        return "rgbd"
    if source.is_file() or any(source.glob("*.txt")):
        return "realestate10k"
    raise ValueError(
        f"source not understood: {source} must be a folder with rgb/, depth/ and cameras.npz, a folder of "
        "RealEstate10K lists (*.txt, each with a clip or a folder of frames of its name), or a picture"
    )


def clips(sources: Sequence[str | Path], frames: int, stride: int, temporal_stride: int) -> dict[str, Cut]:
    """Recordings cut into clips, one after the other.

    Args:
        sources: RGB-D folders, or lists of RealEstate10K or folders of them.
        frames: Frames of a clip; one of a shorter recording has as many as a video can have.
        stride: Frames of the recording per frame of the clip.
        temporal_stride: Frames per latent frame of the model.

    Returns:
        Clips by name.

    Raises:
        ValueError: If a recording is too short for a video or its parts do not fit together.
    """
    found: dict[str, Cut] = {}
    for source in _recordings(sources):
        whole = range(0, _length(source), stride)
        most = min(frames, 1 + (len(whole) - 1) // temporal_stride * temporal_stride)
        if most < 1 + temporal_stride:
            raise ValueError(
                f"{source} has {len(whole)} frames at stride {stride}, a video needs at least {1 + temporal_stride}"
            )
        for start in range(0, len(whole) - most + 1, most):
            part = whole[start : start + most]
            _add(found, f"{source.stem}-{part[0]}-{part[-1]}", Cut(source, tuple(part)))
    return found


def loops(sources: Sequence[str | Path], temporal_stride: int, most: int | None = None) -> dict[str, Cut]:
    """The walks of RGB-D folders that leave a place and come back, as their `loops.json` tells.

    A loop is gone to its end and back again, so that it comes to its first camera exactly and to all others twice.

    Args:
        sources: RGB-D folders.
        temporal_stride: Frames per latent frame of the model.
        most: Most frames of one way; some frames of the recording are left out then.

    Returns:
        Walks by name.

    Raises:
        ValueError: If a folder tells of no loop.
    """
    found: dict[str, Cut] = {}
    for source in _recordings(sources):
        rgbd = Rgbd.open(source, width=64, step=1)
        if not rgbd.loops:
            raise ValueError(f'{source} has no loops.json that says {{"loops": [[start, end], ...]}}')
        for start, end in rgbd.loops:
            legs = min(end - start, (most or 10**9) - 1) // temporal_stride * temporal_stride
            if legs < temporal_stride:
                raise ValueError(f"loop {start} to {end} of {source} is too short for a video")
            way = np.linspace(start, end, legs + 1).round().astype(int).tolist()
            _add(found, f"{source.stem}-{start}-{end}", Cut(source, (*way, *way[-2::-1])))
    return found


def _add(found: dict[str, Cut], name: str, cut: Cut) -> None:
    if name in found:
        raise ValueError(f"sources must have different names, {found[name].source} and {cut.source} are both {name}")
    found[name] = cut


def _recordings(sources: Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    for source in map(Path, sources):
        source = source.resolve()
        lists = sorted(source.glob("*.txt")) if source.is_dir() and _kind(source) == "realestate10k" else []
        found += lists or [source]
    return found


def _length(source: Path) -> int:
    return len(Rgbd.open(source, width=64, step=1).pictures) if source.is_dir() else _listed(source)[1]


def _listed(source: Path) -> tuple[Path, int]:
    """The clip of a RealEstate10K list, and how many frames it has; as many as there are poses."""
    folder = source.with_suffix("")
    clip = next((f for suffix in VIDEOS if (f := source.with_suffix(suffix)).is_file()), folder)
    if not clip.exists():
        raise ValueError(f"{source} has no clip: {folder}.mp4 or a folder of frames {folder} must be beside it")
    poses = len(load_trajectory(source, 256, 256, lens=Cameras.from_fov(1.0, 256, 256)).cameras)
    frames = len(_frame_files(clip)) if clip.is_dir() else len(read_video(clip))
    if frames != poses:
        raise ValueError(f"frames and poses must be as many, {clip} has {frames} and {source} has {poses}")
    return clip, frames


def _frame_files(folder: Path) -> list[Path]:
    files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGES]
    return sorted(files, key=lambda f: (len(f.stem), f.stem))  # names are times: numbers of different lengths


def cut_walk(cut: Cut, pipeline: MiragePipeline, seed: int) -> Walk:
    """The walk along some frames of a recording, at a size that suits the model.

    Args:
        cut: Which frames.
        pipeline: The model.
        seed: Of the noise.

    Returns:
        The walk: with depth from an RGB-D folder, without it from a list.
    """
    step = pipeline.codec.stride * pipeline.transformer.config.patch_size[1]
    frames = list(cut.frames)
    if cut.source.is_dir():
        native = load_trajectory(cut.source).cameras
        width = model_size(native.height, native.width, tuple(pipeline.config.size), step)[1]
        rgbd = Rgbd.open(cut.source, width=width, step=step)
        views = rgbd.views(frames)
        depth, cameras = views.depth, views.cameras
        seen, sure = seen_where_known(depth, cameras)
        return _on(pipeline, Walk(seed, cameras, views.colour, depth, seen, sure))
    clip, _ = _listed(cut.source)
    if clip.is_dir():
        files = _frame_files(clip)
        pictures = [read_image(files[i]) for i in frames]
    else:
        pictures = list(read_video(clip)[frames])
    if len({p.shape for p in pictures}) > 1:
        raise ValueError(f"frames must all be of one size, those of {clip} are not")
    rows, columns = pictures[0].shape[:2]
    height, width = model_size(rows, columns, tuple(pipeline.config.size), step)
    cameras = load_trajectory(cut.source, rows, columns).cameras.fit(height, width)[0][frames]
    colour = images_to_tensor(np.stack([fit_image(p, height, width) for p in pictures]))
    return _on(pipeline, Walk(seed, cameras, colour, None, None))


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
    step = pipeline.codec.stride * pipeline.transformer.config.patch_size[1]
    inputs = Inputs.load(
        image,
        path,
        like=tuple(pipeline.config.size),
        step=step,
        frames=frames,
        temporal_stride=pipeline.codec.temporal_stride,
    )
    pose = inputs.cameras.cam_from_world
    if float((pose[-1] - pose[0]).abs().max()) > RETURN:
        raise ValueError(f"path must end where it began, {path!r} does not; put there-and-back: before it")
    return _on(pipeline, Walk(seed, inputs.cameras, images_to_tensor(inputs.image)[None], None, None))


def _on(pipeline: MiragePipeline, walk: Walk) -> Walk:
    device = pipeline.device
    depth = None if walk.depth is None else walk.depth.to(device)
    return Walk(walk.seed, walk.cameras.to(device), walk.colour.to(device), depth, walk.seen, walk.sure)


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
