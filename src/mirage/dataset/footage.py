"""Footage: frames with a camera each, and depth and movers where they are known; read when they are asked for."""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from safetensors import SafetensorError, safe_open

from mirage.camera.cameras import Cameras
from mirage.inputs import read_depth
from mirage.scenes import Worlds, render, sample_path
from mirage.video.io import read_image

FAR = 100.0  # world units: the sky of exact worlds, as the embedded model remembers it
PATHS = ("walk", "there-and-back", "orbit", "walk", "abab", "pan", "walk", "there-and-back")  # worlds take turns
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


class Footage(ABC):
    """Frames that belong together, in the order in which they were taken.

    Attributes:
        cameras: One per frame, in pixels of the frames.
        caption: What it shows; empty if nobody said.
        metric: Whether distances of the cameras are in the unit of the depth; else their scale is arbitrary.
        has_depth: Whether its depth is known.
    """

    cameras: Cameras
    caption: str = ""
    metric: bool = True
    has_depth: bool = False

    def __len__(self) -> int:
        return len(self.cameras)

    @abstractmethod
    def frames(self, wanted: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """Some frames, 0 to 255.

        Args:
            wanted: Their numbers, in order.

        Returns:
            Colour, all of the size of the cameras.

        Raises:
            ValueError: If one cannot be read; the message names it.
        """

    def depth(self, wanted: Sequence[int]) -> list[Float32[np.ndarray, "_ _"]]:
        """Known z-depth of some frames, 0 = unknown; only where `has_depth`."""
        raise NotImplementedError

    def movers(self, wanted: Sequence[int]) -> list[Bool[np.ndarray, "_ _"]] | None:
        """What is known to move in some frames, if anything is known."""
        return None


class Rendered(Footage):
    """A walk through an exact world: all is known.

    Args:
        seed: Of world, path and movers; three worlds in four are static.
        frames: How many.
        height: Pixels.
        width: Pixels.
    """

    has_depth = True

    def __init__(self, seed: int, frames: int, height: int, width: int):
        self.world = Worlds.sample([seed], movers=1 + seed % 2 if seed % 4 == 3 else 0)
        kind = PATHS[seed % len(PATHS)]
        self.cameras = sample_path(self.world[0], seed, frames, kind=kind, height=height, width=width)
        self._seen = None

    def frames(self, wanted: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        colour = ((self._rendered().colour[0, list(wanted)].clamp(-1, 1) + 1) * 127.5).round().byte()
        return colour.permute(0, 2, 3, 1).numpy()

    def depth(self, wanted: Sequence[int]) -> list[Float32[np.ndarray, "_ _"]]:
        return list(_far(self._rendered().depth[0, list(wanted)].float()).numpy())

    def movers(self, wanted: Sequence[int]) -> list[Bool[np.ndarray, "_ _"]] | None:
        return list(self._rendered().movers[0, list(wanted)].numpy())

    def _rendered(self) -> object:
        if self._seen is None:
            self._seen = render(self.world, self.cameras)
        return self._seen


class RenderedBefore(Footage):
    """A clip of the shards that `mirage train nano` renders.

    Args:
        path: Of the shard, `clips-*.safetensors`.
        row: Which of its clips.
    """

    has_depth = True

    def __init__(self, path: Path, row: int):
        self.path, self.row = path, row
        intrinsics, pose = (self._read(name)[:] for name in ("intrinsics", "cam_from_world"))
        with self._file() as file:
            size = file.get_slice("depth").get_shape()[-2:]
        self.cameras = Cameras(intrinsics, pose, *size)

    @staticmethod
    def rows(path: Path) -> int:
        """How many clips a shard holds."""
        try:
            with safe_open(path, "pt") as file:
                return file.get_slice("frames").get_shape()[0]
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is no shard of rendered clips: {error}") from error

    def frames(self, wanted: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        return self._read("frames")[list(wanted)].permute(0, 2, 3, 1).numpy()

    def depth(self, wanted: Sequence[int]) -> list[Float32[np.ndarray, "_ _"]]:
        return list(_far(self._read("depth")[list(wanted)].float()).numpy())

    def movers(self, wanted: Sequence[int]) -> list[Bool[np.ndarray, "_ _"]] | None:
        return list(self._read("movers")[list(wanted)].numpy())

    def _file(self) -> safe_open:
        try:
            return safe_open(self.path, "pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.path} cannot be read: {error}") from error

    def _read(self, name: str) -> torch.Tensor:
        with self._file() as file:
            return file.get_slice(name)[self.row : self.row + 1][0]


def _far(depth: Float32[torch.Tensor, "n h w"]) -> Float32[torch.Tensor, "n h w"]:
    return torch.where(depth > 0, depth.clamp(max=FAR), FAR)


class Pictures:
    """Frames as files.

    Args:
        files: In order.
    """

    def __init__(self, files: Sequence[Path]):
        self.files = list(files)
        height, width = read_image(self.files[0]).shape[:2]
        self.size = height, width

    def __len__(self) -> int:
        return len(self.files)

    def read(self, wanted: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """See `Footage.frames`."""
        frames = [read_image(self.files[i]) for i in wanted]
        for i, frame in zip(wanted, frames, strict=True):
            if frame.shape[:2] != self.size:
                (h, w), (rows, columns) = self.size, frame.shape[:2]
                raise ValueError(f"frames must be of one size, {self.files[i]} is {rows} x {columns}, not {h} x {w}")
        return np.stack(frames)


class Video:
    """Frames of a video file, found by their time: nothing before the wanted ones is decoded but the last key frame.

    Args:
        path: The file.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._opened() as container:
            stream = container.streams.video[0]
            self.size = stream.height, stream.width
            self.unit = float(stream.time_base)
            times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
            if not times:
                raise ValueError(f"video cannot be read: {path} holds no frame")
        self.pts = times

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> np.ndarray:
        """When each frame is shown, from the first on."""
        return (np.array(self.pts) - self.pts[0]) * self.unit

    def read(self, wanted: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """See `Footage.frames`."""
        goal = {self.pts[i]: n for n, i in enumerate(wanted)}
        found: dict[int, np.ndarray] = {}
        with self._opened() as container:
            stream = container.streams.video[0]
            container.seek(min(goal), stream=stream)
            for frame in container.decode(stream):
                if frame.pts in goal:
                    found[goal[frame.pts]] = frame.to_ndarray(format="rgb24")
                if len(found) == len(goal) or (frame.pts or 0) > max(goal):
                    break
        if len(found) < len(goal):
            lost = next(i for n, i in enumerate(wanted) if n not in found)
            raise ValueError(f"video is damaged: {self.path} has no readable frame {lost}")
        return np.stack([found[n] for n in range(len(wanted))])

    def _opened(self) -> "_Named":
        return _Named(self.path)


class _Named:
    """An open video whose errors name the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> av.container.InputContainer:
        if not self.path.is_file():
            raise ValueError(f"video not found: {self.path}")
        try:
            self.container = av.open(str(self.path))
        except (av.FFmpegError, OSError) as error:
            raise self._said(error) from error
        if not self.container.streams.video:
            self.container.close()
            raise ValueError(f"video cannot be read: {self.path} holds no video")
        return self.container

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.container.close()
        if isinstance(error, av.FFmpegError):
            raise self._said(error) from error

    def _said(self, error: BaseException) -> ValueError:
        return ValueError(f"video cannot be read: {self.path} is damaged or holds no video ({error})")


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Depth maps or masks, one per frame.

    Attributes:
        files: PNG or NumPy files; or names in `archive`.
        scale: What one world unit is in their numbers.
        archive: A zip that holds them, of ViPE.
    """

    files: list[str]
    scale: float = 1.0
    archive: Path | None = None

    def __len__(self) -> int:
        return len(self.files)

    def depth(self, i: int) -> Float32[np.ndarray, "h w"]:
        """One depth map, in world units."""
        if self.archive is None:
            return read_depth(self.files[i], self.scale)
        from mirage.dataset.exr import read_exr

        return read_exr(self._bytes(i), f"{self.archive}, {self.files[i]}")

    def mask(self, i: int) -> Bool[np.ndarray, "h w"]:
        """One mask: what is not 0."""
        import io

        from PIL import Image

        try:
            with Image.open(io.BytesIO(self._bytes(i))) as image:
                picture = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"mask cannot be read: {self.files[i]} ({error})") from error
        return picture != 0 if picture.ndim == 2 else (picture[..., :3] != 0).any(-1)

    def _bytes(self, i: int) -> bytes:
        try:
            if self.archive is None:
                return Path(self.files[i]).read_bytes()
            with zipfile.ZipFile(self.archive) as archive:
                return archive.read(self.files[i])
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.archive or self.files[i]} cannot be read: {error}") from error


class Filmed(Footage):
    """Frames of files with cameras.

    Args:
        pictures: All frames there are.
        cameras: A camera for each chosen frame.
        chosen: Numbers of the frames that have a camera; all if None.
        depth: Depth maps of the chosen frames.
        masks: Masks of movers of the chosen frames.
        caption: What it shows.
        metric: See `Footage`.
    """

    def __init__(
        self,
        pictures: Pictures | Video,
        cameras: Cameras,
        chosen: Sequence[int] | None = None,
        *,
        depth: Maps | None = None,
        masks: Maps | None = None,
        caption: str = "",
        metric: bool = True,
    ):
        self.pictures, self.cameras, self.caption, self.metric = pictures, cameras, caption, metric
        self.chosen = list(range(len(pictures)) if chosen is None else chosen)
        self.maps, self.masks, self.has_depth = depth, masks, depth is not None
        counts = {"frames": len(self.chosen), "poses": len(cameras)}
        counts |= {name: len(m) for name, m in (("depth maps", depth), ("masks", masks)) if m is not None}
        if len(set(counts.values())) > 1:
            said = " but ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"frames and poses must be of one count, got {said}")

    def frames(self, wanted: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        return self.pictures.read([self.chosen[i] for i in wanted])

    def depth(self, wanted: Sequence[int]) -> list[Float32[np.ndarray, "_ _"]]:
        return [self.maps.depth(i) for i in wanted]

    def movers(self, wanted: Sequence[int]) -> list[Bool[np.ndarray, "_ _"]] | None:
        return None if self.masks is None else [self.masks.mask(i) for i in wanted]


def ordered(folder: Path, suffixes: Sequence[str], key: Callable[[str], object]) -> list[Path]:
    """The files of some kinds in a folder, in order; none if there is no folder."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(found, key=lambda path: key(path.name))
