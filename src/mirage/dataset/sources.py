"""What can be prepared: a place on the disk, or exact worlds, taken apart into footage. See docs/data.md."""

import itertools
import json
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mirage.camera.cameras import Cameras
from mirage.camera.content import Poses, in_order, open_content, read_text
from mirage.camera.files import load_trajectory
from mirage.camera.formats import FORMATS
from mirage.camera.trajectory import Trajectory
from mirage.dataset.footage import (
    PICTURES,
    VIDEOS,
    Filmed,
    Footage,
    Maps,
    Pictures,
    Rendered,
    RenderedBefore,
    Video,
    ordered,
)

FRAMES = ("rgb", "images", "color", "frames", "image", ".")  # folders of pictures, the first that has some counts
CAMERAS = (".txt", ".json", ".npz", ".npy")
NEAR = 0.02  # seconds between a picture and its pose or depth map, as the tools of TUM have it
SFM = ("realestate10k", "colmap", "cameractrl")  # poses whose unit nobody knows


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the user says of a source where its files do not.

    Attributes:
        videos: Folder of the videos of RealEstate10K lists.
        format: Of the camera files, a name of `FORMATS`.
        convention: Of the camera files, see `load_trajectory`.
        intrinsics: fx, fy, cx, cy in pixels of the frames (corner convention), where camera files have none.
        depth_scale: What one world unit is in the numbers of depth maps; that of `cameras.npz`, else 1000, if None.
        size: Height and width of the frames of exact worlds.
        frames: How many frames each exact world gets.
    """

    videos: str = ""
    format: str = "auto"
    convention: str | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    depth_scale: float | None = None
    size: tuple[int, int] = (128, 128)
    frames: int = 49


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where footage is: enough to open it again, here or on another machine that sees the same files.

    Attributes:
        kind: One of `KINDS`.
        name: Unique in the source.
        path: Of the footage itself.
        beside: A further file or folder that it needs.
        number: Seed or row.
    """

    kind: str
    name: str
    path: str = ""
    beside: str = ""
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All footage of a source, and what is none."""

    found: list[Found]
    skipped: list[dict[str, str]] = field(default_factory=list)


def survey(source: str, reading: Reading) -> Survey:
    """Take a source apart.

    Args:
        source: A folder, a camera file of RealEstate10K, or `worlds:COUNT` or `worlds:COUNT:FIRST_SEED`.
        reading: What its files do not say.

    Returns:
        Footage, in a fixed order, none of it opened yet.

    Raises:
        ValueError: If there is no such source, or nothing in it can be footage; the message says what was looked for.
    """
    if source.startswith("worlds:"):
        count, _, first = source.removeprefix("worlds:").partition(":")
        if not (count.isdecimal() and 0 < int(count) <= 10**7 and (first or "0").isdecimal() and len(first) < 10):
            raise ValueError(
                "source must be worlds:COUNT or worlds:COUNT:FIRST_SEED, with COUNT from 1 and seeds from 0 on, as "
                f"in worlds:64, got {source}"
            )
        seeds = range(int(first or 0), int(first or 0) + int(count))
        return Survey(found=[Found(kind="world", name=f"world-{seed:06}", number=seed) for seed in seeds])
    path = Path(source)
    if not path.exists():
        raise ValueError(f"source not found: {source}; give a folder, a RealEstate10K list, or worlds:COUNT")
    if path.is_file():
        if not _is_list(path):
            raise ValueError(f"source {source} is a file: give the folder that holds the video with its cameras")
        return _lists([path], reading)
    for look in (_rendered_before, _vipe, _lists_in, _flat):
        if survey := look(path, reading):
            return survey
    if (reason := _why_no_footage(path)) is None:
        return Survey(found=[Found(kind="folder", name=path.resolve().name, path=source)])
    return _folders(path, reason)


def open_footage(found: Found, reading: Reading) -> Footage:
    """Open footage that a survey found.

    Args:
        found: Where it is.
        reading: What its files do not say.

    Returns:
        The footage.

    Raises:
        ValueError: If a file is missing or damaged, or frames and poses are of different counts.
    """
    return KINDS[found.kind](found, reading)


def _rendered_before(path: Path, reading: Reading) -> Survey | None:
    files = sorted(path.glob("clips-*.safetensors"))
    found, skipped = [], []
    for file in files:
        try:
            rows = RenderedBefore.rows(file)
        except ValueError as error:
            skipped.append({"name": file.stem, "why": str(error)})
            continue
        found += [Found(kind="clip", name=f"{file.stem}-{row}", path=str(file), number=row) for row in range(rows)]
    return Survey(found=found, skipped=skipped) if files else None


def _vipe(path: Path, reading: Reading) -> Survey | None:
    """ViPE's results: `pose/NAME.npz` and `rgb/NAME.mp4`."""
    poses = ordered(path / "pose", (".npz",), in_order)
    if not poses or not ordered(path / "rgb", (".mp4",), in_order):
        return None
    return Survey(found=[Found(kind="vipe", name=pose.stem, path=str(path)) for pose in poses])


def _is_list(path: Path) -> bool:
    try:
        return path.suffix == ".txt" and FORMATS["realestate10k"].recognise(open_content(path))
    except (ValueError, OSError):
        return False


def _lists_in(path: Path, reading: Reading) -> Survey | None:
    """A folder of RealEstate10K's camera files; with its own parts in it, train and test, those."""
    for pattern in ("*.txt", "*/*.txt"):
        files = sorted(path.glob(pattern))
        if files and _is_list(files[0]) and not _why_no_camera(files[0].parent, files[0]):
            return _lists(files, reading)
    return None


def _why_no_camera(folder: Path, file: Path) -> bool:
    """Whether a camera file stands beside its own video or pictures, so that it is no list."""
    has = any(file.with_suffix(suffix).is_file() for suffix in VIDEOS)
    return has or _pictures_of(folder) is not None or len(ordered(folder, VIDEOS, in_order)) == 1


def _lists(files: list[Path], reading: Reading) -> Survey:
    if not reading.videos:
        raise ValueError(f"{files[0].parent} holds camera lists of RealEstate10K: give the folder of their --videos")
    videos = Path(reading.videos)
    if not videos.is_dir():
        raise ValueError(f"--videos must be a folder, got {videos}")
    found, skipped = [], []
    for file in files:
        name = file.stem if len({f.parent for f in files}) == 1 else f"{file.parent.name}-{file.stem}"
        if not _is_list(file):
            skipped.append({"name": name, "why": f"{file} is no camera list of RealEstate10K"})
            continue
        key = _youtube(file)
        places = [videos / file.stem, *(videos / (n + end) for n in (file.stem, key) if n for end in VIDEOS)]
        video = next((place for place in places if place.exists()), None)
        if video is None:
            wanted = f"{file.stem}.mp4, a folder {file.stem}" + (f" or {key}.mp4" if key else "")
            skipped.append({"name": name, "why": f"no video of it in {videos} ({wanted})"})
            continue
        found.append(Found(kind="list", name=name, path=str(video), beside=str(file)))
    return Survey(found=found, skipped=skipped)


def _youtube(file: Path) -> str:
    first = read_text(file).lstrip().partition("\n")[0]
    match = re.search(r"(?:v=|youtu\.be/|/embed/)([\w-]{6,})", first)
    return match[1] if match else ""


def _flat(path: Path, reading: Reading) -> Survey | None:
    """Videos with camera files of the same names beside them."""
    found, skipped = [], []
    videos = ordered(path, VIDEOS, in_order)
    for video in videos:
        beside = [file for end in CAMERAS if (file := video.with_suffix(end)).is_file() and _is_path(file, reading)]
        if not beside:
            skipped.append(
                {"name": video.stem, "why": f"no camera file {video.stem}.txt, .json, .npz or .npy beside it"}
            )
        else:
            found.append(Found(kind="video", name=video.stem, path=str(video), beside=str(beside[0])))
    return Survey(found=found, skipped=skipped) if found else None


def _is_path(file: Path, reading: Reading) -> bool:
    """Whether a file is meant as a camera path: that it is damaged is said when it is opened."""
    try:
        content = open_content(file)
    except (ValueError, OSError):
        return file.suffix in (".npz", ".npy")
    formats = FORMATS if reading.format == "auto" else {reading.format: FORMATS[reading.format]}
    return any(content.kind in f.kinds and f.recognise(content) for f in formats.values())


def _why_no_footage(path: Path) -> str | None:
    """Why a folder is not itself footage: a sentence; None if it is."""
    if _pictures_of(path) is not None or (path / "rgb.txt").is_file():
        return None
    videos = ordered(path, VIDEOS, in_order)
    if len(videos) == 1:
        return None
    if videos:
        return f"{path} has {len(videos)} videos but no camera files of their names"
    pictures = ordered(path, PICTURES, in_order)
    if len(pictures) == 1 or (pictures and len({p.stem for p in pictures} & {"img", "image", "mask"})):
        return f"{path} has a single picture and no video: frames are needed; mirage generate takes such a picture"
    return f"{path} has no video, no folder of frames (rgb, images, color, frames) and no pictures"


def _pictures_of(path: Path) -> list[Path] | None:
    """The frames of a folder as files, at least two."""
    for name in FRAMES:
        files = ordered(path / name, PICTURES, in_order)
        if len(files) > 1 and not {file.stem for file in files} & {"img", "mask"}:
            return files
    return None


def _folders(path: Path, reason: str) -> Survey:
    found, skipped = [], []
    for folder in sorted(
        (p for p in path.iterdir() if p.is_dir() and p.name[0] != "."), key=lambda p: in_order(p.name)
    ):
        if (why := _why_no_footage(folder)) is None:
            found.append(Found(kind="folder", name=folder.name, path=str(folder)))
        else:
            skipped.append({"name": folder.name, "why": why})
    if not found:
        inside = f", nor any of its {len(skipped)} folders ({skipped[0]['why']})" if skipped else ""
        raise ValueError(f"nothing to prepare in {path}: {reason}{inside}")
    return Survey(found=found, skipped=skipped)


def _open_world(found: Found, reading: Reading) -> Footage:
    return Rendered(found.number, reading.frames, *reading.size)


def _open_clip(found: Found, reading: Reading) -> Footage:
    return RenderedBefore(Path(found.path), found.number)


def _open_video(found: Found, reading: Reading) -> Footage:
    video, file = Video(Path(found.path)), Path(found.beside)
    path = _cameras(file, video.size, reading)
    caption = _caption(video.path.parent, video.path.stem, but=file) or _prompt(path)
    return Filmed(video, path.cameras, caption=caption, metric=path.format not in SFM)


def _open_list(found: Found, reading: Reading) -> Footage:
    """A clip of RealEstate10K: cut already (a file or folder of its name), or the whole video of the URL."""
    place, file = Path(found.path), Path(found.beside)
    pictures = Pictures(_some(place, ordered(place, PICTURES, in_order))) if place.is_dir() else Video(place)
    path = _cameras(file, pictures.size, reading, "realestate10k")
    caption = _caption(place.parent, place.stem, but=file) or _prompt(path)
    times = _poses(file, "realestate10k").times
    chosen = None
    whole_video = isinstance(pictures, Video) and place.stem != file.stem
    named = isinstance(pictures, Pictures) and all(p.stem.isdecimal() for p in pictures.files)
    if named and times and {int(p.stem) for p in pictures.files} >= {int(t) for t in times}:
        where = {int(p.stem): n for n, p in enumerate(pictures.files)}
        chosen = [where[int(t)] for t in times]
    elif whole_video or (isinstance(pictures, Video) and len(pictures) > len(path.cameras)):
        if times is None:
            raise ValueError(f"{file} has no times to find its frames by in {place}")
        seconds = np.array(times) / 1e6 - (0 if whole_video else times[0] / 1e6)
        chosen = _nearest(seconds, pictures.seconds, 1.0 / _rate(pictures), file, place)
    return Filmed(pictures, path.cameras, chosen, caption=caption, metric=False)


def _open_vipe(found: Found, reading: Reading) -> Footage:
    folder, name = Path(found.path), found.name
    video = Video(folder / "rgb" / f"{name}.mp4")
    if (kinds := folder / "intrinsics" / f"{name}_camera.txt").is_file():
        other = {line.partition(":")[2].strip() for line in read_text(kinds).splitlines() if ":" in line} - {"PINHOLE"}
        if other:
            raise ValueError(f"{kinds}: only PINHOLE cameras can be used, got {', '.join(sorted(other))}")
    file = folder / "pose" / f"{name}.npz"
    path = _cameras(file, video.size, reading, "vipe")
    chosen = [int(time) for time in _poses(file, "vipe").times or ()]
    if chosen and chosen[-1] >= len(video):
        raise ValueError(f"frames and poses differ: {file} has a pose of frame {chosen[-1]}, {video.path} {len(video)}")
    if [b for a, b in itertools.pairwise(chosen) if b != a + 1]:
        raise ValueError(f"{file} leaves frames out between {chosen[0]} and {chosen[-1]}: a clip needs each of them")
    depth, masks = (
        _packed(folder / kind / f"{name}.zip", chosen, end) for kind, end in (("depth", "exr"), ("mask", "png"))
    )
    return Filmed(video, path.cameras, chosen, depth=depth, masks=masks, caption=_caption(folder / "rgb", name))


def _packed(archive: Path, chosen: list[int], end: str) -> Maps | None:
    """Maps in a zip of ViPE, by the number of their frame."""
    if not archive.is_file():
        return None
    try:
        with zipfile.ZipFile(archive) as held:
            names = {int(n.split(".")[0]): n for n in held.namelist() if n.endswith(f".{end}") and n[0].isdecimal()}
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{archive} cannot be read: {error}") from error
    if lost := [i for i in chosen if i not in names]:
        raise ValueError(f"{archive} must have a picture of each frame with a pose, got none of frame {lost[0]}")
    return Maps(files=[names[i] for i in chosen], archive=archive)


def _open_folder(found: Found, reading: Reading) -> Footage:
    folder = Path(found.path)
    if (folder / "rgb.txt").is_file() and (folder / "groundtruth.txt").is_file():
        return _open_tum(folder, reading)
    files = _pictures_of(folder)
    pictures = Pictures(files) if files else Video(ordered(folder, VIDEOS, in_order)[0])
    file = _camera_file(folder, reading)
    path = _cameras(file, pictures.size, reading)
    usual = (held for pattern in FORMATS[path.format].files for held in sorted(folder.glob(pattern)))
    chosen = _by_name(next(usual) if file == folder else file, path.format, pictures)
    depth, masks = (_maps(folder / name, chosen) for name in ("depth", "movers"))
    if depth is not None:
        depth = Maps(files=depth.files, scale=reading.depth_scale or _depth_scale(folder))
    caption = _caption(folder, "", but=file) or _prompt(path)
    metric = path.format not in SFM or depth is not None
    return Filmed(pictures, path.cameras, chosen, depth=depth, masks=masks, caption=caption, metric=metric)


def _open_tum(folder: Path, reading: Reading) -> Footage:
    """TUM's own layout: pictures, depth maps and poses, each with their own times."""
    times, files = _timed(folder / "rgb.txt")
    held = _poses(folder / "groundtruth.txt", "tum").times or []
    at = np.array(held)[None] - np.array(times)[:, None]
    nearest = np.abs(at).argmin(1)
    good = np.abs(at).min(1) <= NEAR
    depth_files: list[Path] | None = None
    if (folder / "depth.txt").is_file():
        when, maps = _timed(folder / "depth.txt")
        gap = np.abs(np.array(when)[None] - np.array(times)[:, None])
        good &= gap.min(1) <= NEAR
        depth_files = [maps[i] for i in gap.argmin(1)]
    chosen = np.flatnonzero(good).tolist()
    pictures = Pictures(_some(folder, files))
    path = _cameras(folder / "groundtruth.txt", pictures.size, reading, "tum")
    cameras = path.cameras[nearest[chosen].tolist()]
    depth = depth_files and Maps(files=[str(depth_files[i]) for i in chosen], scale=reading.depth_scale or 5000.0)
    return Filmed(pictures, cameras, chosen, depth=depth or None, caption=_caption(folder, ""))


def _timed(file: Path) -> tuple[list[float], list[Path]]:
    rows = [line.split() for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]
    try:
        return [float(row[0]) for row in rows], [file.parent / row[1] for row in rows]
    except (ValueError, IndexError):
        raise ValueError(f"{file} must have a time and a file name in each line") from None


def _some(place: Path, files: list[Path]) -> list[Path]:
    if not files:
        raise ValueError(f"{place} holds no pictures")
    return files


def _camera_file(folder: Path, reading: Reading) -> Path:
    """The folder itself if it has a camera file under a usual name, else the only one that can be read."""
    usual = dict.fromkeys(pattern for format in FORMATS.values() for pattern in format.files if pattern != ".")
    if any(_is_path(file, reading) for pattern in usual for file in folder.glob(pattern) if file.is_file()):
        return folder
    if any((folder / name).is_dir() for name in ("pose", "poses")):
        return folder if (folder / "pose").is_dir() else folder / "poses"
    others = [file for end in CAMERAS for file in ordered(folder, (end,), in_order) if _is_path(file, reading)]
    if len(others) > 1:
        raise ValueError(f"{folder} holds more than one camera path: {', '.join(file.name for file in others[:4])}")
    if not others:
        raise ValueError(f"{folder} has frames but no camera file of a known format (docs/formats.md)")
    return others[0]


def _cameras(file: Path, size: tuple[int, int], reading: Reading, format: str = "") -> Trajectory:
    """The cameras of a file, in pixels of its frames; intrinsics are never guessed."""
    lens = None
    if reading.intrinsics is not None:
        fx, fy, cx, cy = reading.intrinsics
        k = torch.tensor([[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]])
        lens = Cameras(k, torch.eye(4)[None], *size)
    how = {"format": format or reading.format, "convention": reading.convention, "lens": lens}
    path = load_trajectory(file, *size, **how)
    if any("are assumed" in note for note in path.notes):
        raise ValueError(f"{file} has no intrinsics: give --intrinsics FX,FY,CX,CY in pixels of the frames")
    return path


def _poses(file: Path, format: str) -> Poses:
    return FORMATS[format].read(open_content(file))


def _nearest(wanted: np.ndarray, there: np.ndarray, most: float, file: Path, place: Path) -> list[int]:
    """The frame nearest to each time."""
    after = np.searchsorted(there, wanted).clip(1, max(1, len(there) - 1))
    near = np.where(np.abs(there[after - 1] - wanted) <= np.abs(there[after % len(there)] - wanted), after - 1, after)
    near = near.clip(0, len(there) - 1)
    if (far := np.abs(there[near] - wanted)).max() > most:
        bad = int(np.argmax(far > most))
        raise ValueError(
            f"{file} has a pose at {wanted[bad]:.3f} s, but {place} has no frame within {most:.3f} s of it (it has "
            f"{len(there)} frames, {there[0]:.3f} to {there[-1]:.3f} s)"
        )
    return near.tolist()


def _rate(video: Video) -> float:
    return (len(video) - 1) / max(float(video.seconds[-1]), 1e-6) if len(video) > 1 else 1.0


def _by_name(file: Path, format: str, pictures: Pictures | Video) -> list[int] | None:
    """The picture of each pose, where the camera file names pictures."""
    if not isinstance(pictures, Pictures):
        return None
    if format == "colmap":
        names = [place.removeprefix("image ") for place in _poses(file, format).places]
    elif format in ("nerfstudio", "blender", "vmem"):
        told = json.loads(read_text(file.with_name("transforms.json") if "train_test" in file.name else file))
        names = [str(frame.get("file_path") or "") for frame in told["frames"]]
        order = [int(place.removeprefix("frame ")) for place in _poses(file, format).places]
        names = [names[n] for n in order]
        if not all(names):
            return None
    else:
        return None
    where = {path.stem: n for n, path in enumerate(pictures.files)}
    if lost := [name for name in names if Path(name).stem not in where]:
        raise ValueError(f"{file} has a pose of {lost[0]}, but {pictures.files[0].parent} has no such picture")
    return [where[Path(name).stem] for name in names]


def _maps(folder: Path, chosen: list[int] | None) -> Maps | None:
    files = ordered(folder, (".png", ".npy"), in_order)
    if not files:
        return None
    if chosen is not None and max(chosen) < len(files):
        files = [files[i] for i in chosen]
    return Maps(files=[str(file) for file in files])


def _depth_scale(folder: Path) -> float:
    try:
        with np.load(folder / "cameras.npz", allow_pickle=False) as archive:
            return float(archive["depth_scale"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return 1000.0


def _caption(folder: Path, stem: str, but: Path | None = None) -> str:
    """The words beside a video: NAME.txt, NAME.json, NAME.caption.txt, or caption.txt and prompt.txt in its folder."""
    names = [f"{stem}.caption.txt", f"{stem}.txt", f"{stem}.json"] if stem else []
    names += [] if stem else ["caption.txt", "caption.json", "prompt.txt"]
    for file in (folder / name for name in names):
        if file == but or not file.is_file() or file.stat().st_size > 1 << 16:
            continue
        text = read_text(file).strip()
        if file.suffix == ".json":
            try:
                told = json.loads(text)
            except ValueError as error:
                raise ValueError(f"caption cannot be read: {file} is no JSON ({error})") from error
            text = told.get("caption", told.get("prompt", "")) if isinstance(told, dict) else told
            if not isinstance(text, str):
                raise ValueError(f"{file} must hold a text, or an object with a caption")
        elif _is_list(file):
            continue
        if text:
            return " ".join(text.split())
    return ""


def _prompt(path: Trajectory) -> str:
    return path.prompts[0][1] if path.prompts else ""


KINDS = {
    "world": _open_world,
    "clip": _open_clip,
    "video": _open_video,
    "list": _open_list,
    "vipe": _open_vipe,
    "folder": _open_folder,
}
