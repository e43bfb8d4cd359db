"""Views for the training of movers: exact worlds with rich textures and posed RGB-D, encoded once and kept on disk.

A group is a handful of views of one place, each with its picture, its latents as an image of its own, depth and camera.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.files import load_trajectory
from mirage.geometry.nano import FAR
from mirage.inputs import fit_depth, read_depth
from mirage.scenes import Worlds, render, sample_path
from mirage.scenes import textures as paint
from mirage.training.clips import read_shard, to_bytes, to_floats
from mirage.training.fit import generator, save_atomic
from mirage.video.codec import LatentCodec
from mirage.video.io import fit_image, images_to_tensor, read_image

logger = logging.getLogger(__name__)
WORLDS = "worlds"  # the source that needs no folder
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
VIEWS = 6  # of one world
RUN = 8  # frames of a sequence that make a group
KINDS = ("walk", "orbit", "truck", "walk", "pan")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Views of one place."""

    colour: UInt8[Tensor, "n 3 H W"]
    latents: Float[Tensor, "n c h w"]
    depth: Float32[Tensor, "n H W"]
    intrinsics: Float32[Tensor, "n 3 3"]
    cam_from_world: Float32[Tensor, "n 4 4"]

    @property
    def cameras(self) -> Cameras:
        """Of image size."""
        return Cameras(self.intrinsics, self.cam_from_world, *self.colour.shape[2:])


@dataclass(frozen=True, kw_only=True)
class Found:
    """What `--data` named."""

    worlds: bool
    sequences: tuple[Path, ...]
    pictures: tuple[Path, ...]


def find(sources: Sequence[str | Path]) -> Found:
    """Tell what training data these are.

    Args:
        sources: "worlds" for exact worlds; folders of posed RGB-D (`rgb/`, `depth/`, `cameras.npz`); folders of
            photographs, which become textures of exact worlds.

    Returns:
        The sequences and the pictures.

    Raises:
        ValueError: If a source is none of these.
    """
    worlds, sequences, pictures = False, [], []
    for source in sources:
        folder = Path(source)
        if str(source) == WORLDS:
            worlds = True
        elif (folder / "cameras.npz").is_file():
            sequences.append(folder)
        elif folder.is_dir():
            found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURES)
            if not found:
                raise ValueError(
                    f"data: {folder} holds neither cameras.npz (posed RGB-D) nor pictures ({' '.join(PICTURES)})"
                )
            worlds = True
            pictures += found
        else:
            raise ValueError(f'data must be "{WORLDS}" or a folder, but there is no {folder}')
    if not (worlds or sequences):
        raise ValueError(f'data must name at least one source: "{WORLDS}" or a folder')
    return Found(worlds=worlds, sequences=tuple(sequences), pictures=tuple(pictures))


def prepare(
    folder: Path,
    codec: LatentCodec,
    found: Found,
    *,
    worlds: int,
    size: int,
    width: int,
    seed: int = 0,
    told: dict[str, object] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Make the groups that are not there yet.

    Args:
        folder: Where they are kept; made if missing.
        codec: The autoencoder whose latents are moved.
        found: The sources.
        worlds: Exact worlds, if there are any.
        size: Side of their pictures, a multiple of the stride.
        width: Columns of the frames of sequences, a multiple of the stride.
        seed: Fixes the worlds.
        told: What tells the autoencoder from others.
        tell: Called with what is under way.

    Returns:
        The files of all groups.

    Raises:
        ValueError: If the folder holds groups of another codec or of other data.
    """
    about = {"codec": told, "channels": codec.channels, "stride": codec.stride, "size": size, "width": width}
    about |= {"seed": seed, "sequences": [path.name for path in found.sequences], "pictures": len(found.pictures)}
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "groups.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != about:
        raise ValueError(f"out: {folder} holds groups of other data or of another codec; train into another folder")
    note.write_text(json.dumps(about), encoding="utf-8")
    files = []
    for sequence in found.sequences:
        for name, make in _runs(sequence, width, codec.stride):
            path = folder / f"{sequence.name}-{name}.safetensors"
            if not path.exists():
                tell(f"{sequence.name}, {name}")
                _keep(path, codec, *make())
            files.append(path)
    photos = _Photos(found.pictures)
    for number in range(worlds if found.worlds else 0):
        path = folder / f"world-{seed}-{number:05}.safetensors"
        if not path.exists():
            if number % 20 == 0:
                tell(f"exact world {number} of {worlds}")
            _keep(path, codec, *exact_views(seed, number, size, photos))
        files.append(path)
    return files


def clip_groups(folder: Path, codec: LatentCodec, clips: Path, *, seed: int = 0) -> list[Path]:
    """Groups out of rendered clips, one of each: views one to seven frames apart; nothing is known of movers.

    Args:
        folder: Where they are kept; made if missing. What is there already stays.
        codec: The autoencoder whose latents are moved.
        clips: Folder of `clips-*.safetensors`.
        seed: Fixes which frames are taken.

    Returns:
        The files of all groups.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for shard in sorted(clips.glob("clips-*.safetensors")):
        with safe_open(shard, "pt") as file:
            count = file.get_slice("frames").get_shape()[0]
        names = [folder / f"{shard.stem}-{i}.safetensors" for i in range(count)]
        files += names
        if all(path.exists() for path in names):
            continue
        whole = read_shard(shard)
        for i, path in enumerate(names):
            g = generator(seed, int(shard.stem.split("-")[1]), i)
            steps = torch.randint(1, 8, (VIEWS,), generator=g).cumsum(0)
            last = whole.frames.shape[1] - int(steps[-1])
            if last < 1:
                raise ValueError(
                    f"clips must have more than {7 * VIEWS} frames, got {whole.frames.shape[1]} in {shard}"
                )
            some = (steps + torch.randint(last, (), generator=g)).tolist()
            depth = whole.depth[i, some].float()
            depth = torch.where(depth > 0, depth.clamp(max=FAR), FAR).masked_fill(whole.movers[i, some], 0.0)
            size = whole.frames.shape[-2:]
            cameras = Cameras(whole.intrinsics[i, some], whole.cam_from_world[i, some], *size)
            _keep(path, codec, whole.frames[i, some], depth, cameras)
    return files


def read_group(path: Path) -> Group:
    """A group that `prepare` made."""
    try:
        return Group(**load_file(path))
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to make it anew") from error


def _keep(path: Path, codec: LatentCodec, colour: UInt8[Tensor, "n 3 H W"], depth: Tensor, cameras: Cameras) -> None:
    with torch.no_grad():
        latents = torch.cat([codec.encode(to_floats(frame)[None, None])[0] for frame in colour])
    group = {"colour": colour, "latents": latents.half(), "depth": depth.float()}
    group |= {"intrinsics": cameras.intrinsics.float(), "cam_from_world": cameras.cam_from_world.float()}
    save_atomic({key: value.contiguous() for key, value in group.items()}, path)


def _runs(folder: Path, width: int, stride: int) -> Iterator[tuple[str, Callable[[], tuple[Tensor, Tensor, Cameras]]]]:
    """Runs of frames of an RGB-D sequence, each read when it is asked for."""
    cameras = load_trajectory(folder).cameras
    height = max(1, cameras.height * width // (cameras.width * stride)) * stride
    cameras = cameras.fit(height, width)[0]
    with np.load(folder / "cameras.npz") as archive:
        scale = float(archive["depth_scale"])
    pictures, maps = sorted((folder / "rgb").iterdir()), sorted((folder / "depth").iterdir())
    if not len(pictures) == len(maps) == len(cameras):
        raise ValueError(f"data: {folder} has {len(pictures)} pictures, {len(maps)} depth maps, {len(cameras)} cameras")

    def read(start: int) -> tuple[Tensor, Tensor, Cameras]:
        some = range(start, min(start + RUN, len(cameras)))
        frames = images_to_tensor(np.stack([fit_image(read_image(pictures[i]), height, width) for i in some]))
        depth = [fit_depth(torch.from_numpy(read_depth(maps[i], scale)), height, width) for i in some]
        return to_bytes(frames), torch.stack(depth), cameras[list(some)]

    for start in range(0, len(cameras) - 1, RUN // 2):
        yield f"{start:05}", lambda start=start: read(start)


class _Photos:
    """Pictures whose parts become textures; read when they are needed, the last few kept."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        self.known: dict[Path, UInt8[np.ndarray, "h w 3"]] = {}

    def tile(self, rng: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
        """A part of a picture, turned, mirrored and tinted at random."""
        path = self.paths[rng.integers(len(self.paths))]
        if path not in self.known:
            if len(self.known) > 32:
                self.known.pop(next(iter(self.known)))
            image = read_image(path)
            side = min(1024, *image.shape[:2])
            scale = side / min(image.shape[:2])
            self.known[path] = fit_image(image, side, max(side, round(image.shape[1] * scale)))
        image = self.known[path]
        side = int(rng.uniform(min(paint.SIZE, *image.shape[:2]), min(image.shape[:2]) + 1))
        y, x = (int(rng.integers(n - side + 1)) for n in image.shape[:2])
        part = fit_image(image[y : y + side, x : x + side], paint.SIZE, paint.SIZE).astype(np.float64) / 255
        part = np.rot90(part, rng.integers(4))[:: rng.choice([-1, 1])]
        return _tinted(part, rng)


def _tinted(image: Float[np.ndarray, "s s 3"], rng: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
    image = image[..., rng.permutation(3)] if rng.random() < 0.3 else image
    return np.clip(image, 0.01, 1) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.2)


def _drawn(rng: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
    """A texture with much to see at all scales: noise of many octaves, overlapping shapes, strokes like writing."""
    kind = rng.integers(4)
    if kind == 0:
        image = paint.leaves(rng, int(rng.integers(60, 200)))
    elif kind == 1:
        image = paint.paint(rng, paint.colour(rng), rng.uniform(0.2, 0.6), rng.uniform(0.9, 1.8), 0.6)
    else:
        image = paint.paint(rng, paint.colour(rng, 0.6, (0.6, 0.95)), rng.uniform(0.03, 0.2), 1.8)
        y, x = np.mgrid[: paint.SIZE, : paint.SIZE]
        pitch = rng.integers(8, 22)
        for row in range(0, paint.SIZE, pitch) if kind == 2 else rng.integers(0, paint.SIZE, 14):
            for column in range(0, paint.SIZE, int(rng.integers(4, 12))) if kind == 2 else rng.integers(0, 128, 2):
                if rng.random() < 0.3:
                    continue
                angle, long, thick = rng.uniform(0, np.pi), rng.uniform(2, 0.5 * pitch), rng.uniform(0.5, 1.6)
                if kind == 3:
                    long *= 8
                wrap = lambda d: (d + paint.SIZE / 2) % paint.SIZE - paint.SIZE / 2
                dy, dx = wrap(y - row), wrap(x - column)
                along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
                ink = paint.smooth(np.minimum(long - np.abs(along), thick - np.abs(across)), 0.4)[..., None]
                image = image * (1 - ink) + paint.colour(rng, 1.0, (0.02, 0.9)) * ink
    return _tinted(np.clip(image, 0, 1), rng)


def exact_views(
    seed: int, number: int, size: int, photos: _Photos | None = None
) -> tuple[UInt8[Tensor, "n 3 s s"], Float32[Tensor, "n s s"], Cameras]:
    """Views of one exact world whose textures are drawn, or parts of photographs."""
    rng = np.random.default_rng([seed, number, 4])
    world = Worlds.sample([int(rng.integers(1_000_000))], "room" if rng.random() < 0.7 else "open", movers=0)
    textures, material = world.textures.clone(), world.material.clone()
    for k in range(textures.shape[1]):
        if rng.random() < 0.85:
            image = photos.tile(rng) if photos is not None and photos.paths and rng.random() < 0.7 else _drawn(rng)
            textures[0, k] = torch.from_numpy(paint.mip_chain(image))
    material[..., 1:3] *= float(rng.uniform(0.7, 2.0))
    world = Worlds(**{**vars(world), "textures": textures, "material": material})
    kind, speed = KINDS[rng.integers(len(KINDS))], float(rng.choice([0.3, 0.7, 1.0]))
    path = sample_path(world, int(rng.integers(2**31)), 24, kind=kind, height=size, width=size, speed=speed)
    steps = rng.integers(1, 4, VIEWS).cumsum()
    cameras = path[(steps + rng.integers(0, 24 - steps[-1])).tolist()]
    seen = render(world, cameras)
    return to_bytes(seen.colour[0]), seen.depth[0], cameras
