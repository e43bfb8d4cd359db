"""One walk through one world: what is known from here, what is imagined next, what is taken back."""

import math
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path
from mirage.explorer.messages import ChunkInfo, Drift, PathPlan, poses_of
from mirage.explorer.points import PointCloud
from mirage.explorer.trail import STEP, Trail, effort, even, smooth
from mirage.explorer.wire import jpeg
from mirage.inputs import model_size
from mirage.memory.holes import fill_holes
from mirage.pipeline import MiragePipeline
from mirage.preview import blocked, path_in_scene
from mirage.report import psnr
from mirage.video.io import VideoWriter, fit_image, tensor_to_images
from mirage.world import World
from mirage.world.archive import pack

CHUNK_EFFORT = 1.0  # how far one chunk goes at most: one unit, or a turn of 30 degrees
UNIT = 1 / 3  # of the median depth of the picture: the unit of efforts
MOST_AT_ONCE = 8  # chunks that one request makes


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What the memory shows from somewhere."""

    image: UInt8[np.ndarray, "h w 3"]
    visible: Bool[np.ndarray, "rows columns"]
    given: float
    """Share that the first picture explains."""


class Walk:
    """A world, somebody in it, and the way they went since the last chunk.

    Views may be looked at from any thread at any time: a state is a value. `extend` and `undo` belong to one thread.
    """

    def __init__(self, world: World):
        assert world.pipeline is not None
        self.world, self.pipeline = world, world.pipeline
        self.picture = world.image
        self.state = world.state
        self.camera = self.state.cameras[0]
        self.scene = path_in_scene(self.state.memory, self.camera)
        self.surface = self.state.memory.read(self.camera).depth[0].cpu()
        self.chunks = [self._info(i) for i in range(1, len(world.chunks))]
        self.cloud = PointCloud()
        self._thumbnails: dict[int, bytes] = {}
        self.pose = self.state.cameras.cam_from_world[-1].cpu()
        self._lock = threading.Lock()
        self._trail = Trail(self.pose, self.unit)
        self._first = self._start_now()
        self.drift = self._drift()

    @classmethod
    def begin(
        cls,
        folder: Path,
        pipeline: MiragePipeline,
        picture: UInt8[np.ndarray, "h w 3"],
        *,
        fov: float,
        seed: int,
        budget: int,
    ) -> "Walk":
        """A new world from a picture.

        Args:
            folder: Where it shall be kept.
            pipeline: The model.
            picture: Of any size; what does not suit the model's is cut off.
            fov: Field of view across the longer side, in radians.
            seed: Of the noise.
            budget: Most bytes of its memory.

        Returns:
            The walk, at its beginning.

        Raises:
            ValueError: If the picture cannot be used.
            OSError: If the folder cannot be written.
        """
        height, width = picture.shape[:2]
        step = pipeline.codec.stride * pipeline.transformer.config.patch_size[1]
        rows, columns = model_size(height, width, tuple(pipeline.config.size), step)
        camera, _ = Cameras.from_fov(fov, height, width).fit(rows, columns)
        image = fit_image(picture, rows, columns)
        return cls(World.create(folder, pipeline, image, camera, seed=seed, budget_bytes=budget))

    @property
    def unit(self) -> float:
        """The distance that is as far as a turn of 30 degrees, in world units."""
        return UNIT * self.scene.depth[50]

    @torch.no_grad()
    def look(self, camera: Cameras) -> View:
        """Read the memory and decode it; nothing is imagined.

        Args:
            camera: One camera, of the size of the walk.

        Returns:
            The view.
        """
        known = self.state.memory.read(camera)
        latents = fill_holes(known.features, known.visible)
        image = tensor_to_images(self.pipeline.codec.decode(latents[:, None])[:, 0])[0]
        return View(image=image, visible=known.visible[0].cpu().numpy(), given=float(known.observed.float().mean()))

    def go(self, pose: Float32[Tensor, "4 4"], *, walk: bool = True) -> None:
        """Be somewhere else.

        Args:
            pose: Where.
            walk: Whether the way there counts, to be imagined along it; a preview does not.
        """
        if walk:
            with self._lock:
                self.pose = pose
                self._trail.add(pose)

    @property
    def walked(self) -> float:
        """How far one went since the last chunk, in chunks."""
        return self._trail.length / CHUNK_EFFORT

    def is_blocked(self, camera: Cameras) -> bool:
        """Whether a place is in or behind what the picture shows.

        Args:
            camera: The place.

        Returns:
            True if it is.
        """
        return bool(blocked(camera.centers.cpu(), self.camera.to("cpu"), self.surface)[0])

    def count_chunks(self, poses: Float32[Tensor, "f 4 4"] | None = None) -> int:
        """How many chunks a way takes.

        Args:
            poses: As in `next_chunks`.

        Returns:
            Their number.

        Raises:
            ValueError: If one has not moved, or a given way is longer than is made at once.
        """
        length = self._trail.length if poses is None else float(effort(self._way(poses), self.unit).sum())
        if length < STEP:
            raise ValueError("you are where the last chunk ended: move or turn first")
        count = max(1, math.ceil(length / CHUNK_EFFORT - 1e-3))
        if count > MOST_AT_ONCE and poses is not None:
            raise ValueError(
                f"the path is {count} chunks long, at most {MOST_AT_ONCE} are made at once: make it shorter"
            )
        return min(count, MOST_AT_ONCE)

    def next_chunks(self, poses: Float32[Tensor, "f 4 4"] | None = None) -> list[Cameras]:
        """Cut the way into chunks of even steps. The way walked is used up by that.

        Args:
            poses: A way to go from the end of the last chunk; the way walked if None.

        Returns:
            Cameras of the chunks, one at least.

        Raises:
            ValueError: If one has not moved, or a given way is longer than is made at once.
        """
        with self._lock:
            count, way = self.count_chunks(poses), self._way(poses)
            self._trail = Trail(way[-1], self.unit)
            if poses is not None:
                self.pose = way[-1]
        frames = self.pipeline.config.chunk_frames - 1
        lens = self.camera.intrinsics.expand(len(way), 3, 3).clone()
        cameras = Cameras(lens, way.to(lens.device), self.camera.height, self.camera.width)
        cameras = even(cameras, self.unit, frames * count)
        return [cameras[i * frames : (i + 1) * frames] for i in range(count)]

    def _way(self, poses: Float32[Tensor, "f 4 4"] | None) -> Float32[Tensor, "g 4 4"]:
        return self._trail.way if poses is None else torch.cat([self._trail.poses[0][None], poses])

    def extend(self, cameras: Cameras, prompt: str | None, seed: int | None = None) -> ChunkInfo:
        """Imagine one more chunk, and keep it.

        Args:
            cameras: Its cameras.
            prompt: What to imagine, for a model that reads text.
            seed: Of the noise; that of the world if None.

        Returns:
            What came of it.
        """
        result = self.world.extend(cameras, prompt, seed=seed)
        self._thumbnails[len(self.world.chunks) - 1] = jpeg(tensor_to_images(result.frames[-1]))
        self.state = self.world.state
        info = self._info(len(self.world.chunks) - 1)
        self.chunks = [*self.chunks, info]
        self.drift = self._drift()
        return info

    def undo(self, chunks: int) -> None:
        """Take the last chunks back; one stays where one is.

        Args:
            chunks: How many.

        Raises:
            ValueError: If there are not so many.
        """
        if chunks > len(self.chunks):
            raise ValueError(f"chunks must be at most {len(self.chunks)}, that many there are, got {chunks}")
        for _ in range(chunks):
            self.world.undo()
        self.state = self.world.state
        self.chunks = self.chunks[: len(self.chunks) - chunks]
        self.cloud.forget(len(self.state.clean))
        self._thumbnails = {k: v for k, v in self._thumbnails.items() if k <= len(self.chunks)}
        self.drift = self._drift()
        with self._lock:
            self._trail = Trail(self.state.cameras.cam_from_world[-1].cpu(), self.unit)
            self._trail.add(self.pose)

    def branch(self, folder: Path, chunks: int) -> "Walk":
        """Another walk that shares the first chunks of this one.

        Args:
            folder: Where its world shall be kept.
            chunks: How many chunks it has.

        Returns:
            The other walk, where the last of them ends.

        Raises:
            ValueError: If there are not so many.
        """
        other = Walk(self.world.branch(folder, chunks))
        other._thumbnails = {number: image for number, image in self._thumbnails.items() if number <= chunks}
        return other

    def points(self) -> bytes:
        """The memory as points. See `PointCloud.pack`."""
        state = self.state
        return self.cloud.pack(state.memory, state.clean, self.pipeline.codec)

    def write_video(self, path: Path, *, fps: int) -> None:
        """All frames of the walk as a video.

        Args:
            path: The file, .mp4.
            fps: Frames per second.
        """
        with VideoWriter(path, fps=fps) as video:
            for chunk in range(len(self.world.chunks)):
                video.write(self.world.frames(chunk))

    def pack(self, path: Path) -> None:
        """The whole world as one file.

        Args:
            path: The file, .zip.
        """
        pack(self.world, path)

    def thumbnail(self, chunk: int) -> bytes:
        """The last frame of a chunk.

        Args:
            chunk: Its number; 0 is the first view.

        Returns:
            A JPEG.

        Raises:
            LookupError: If there is no such chunk.
        """
        if not 0 <= chunk < len(self.world.chunks):
            raise LookupError(f"there is no chunk {chunk}: there are {len(self.world.chunks)}")
        if chunk not in self._thumbnails:
            self._thumbnails[chunk] = jpeg(self.picture if chunk == 0 else self.world.frames(chunk)[-1])
        return self._thumbnails[chunk]

    def plan_path(self, cameras: Cameras) -> PathPlan:
        """What is known along a path, and whether it suits the scene.

        Args:
            cameras: The path.

        Returns:
            The plan.
        """
        state = self.state
        try:
            scene = path_in_scene(state.memory, cameras)
            warnings, factor = scene.warnings, scene.factor
        except ValueError:
            warnings, factor = ["nothing is known where the path begins"], 1.0
        known = [
            state.memory.read(cameras[part]).visible.float().mean((1, 2)).tolist()
            for part in torch.arange(len(cameras)).split(32)
        ]
        return PathPlan(
            poses=poses_of(cameras.cam_from_world),
            known=[share for part in known for share in part],
            warnings=warnings,
            suggested_scale=factor,
        )

    def camera_at(self, pose: Float32[Tensor, "4 4"]) -> Cameras:
        """The camera of the walk, somewhere.

        Args:
            pose: Where.

        Returns:
            One camera.
        """
        pose = pose[None].to(self.camera.cam_from_world)
        return Cameras(self.camera.intrinsics, pose, self.camera.height, self.camera.width)

    def path_in_words(self, words: str, frames: int, scale: float) -> Cameras:
        """A path from where one is, in words.

        Args:
            words: A preset or a command; files are not for the network.
            frames: Number of poses.
            scale: Factor on its distances.

        Returns:
            The path.

        Raises:
            ValueError: If the words are not understood.
        """
        if any(mark in words for mark in "/\\~"):
            raise ValueError("a path is a preset or a command in words, as in orbit:degrees=30 or 'forward 1'")
        return build_path(words, frames, self.camera_at(self.pose), scale=scale).cameras

    def path_through(self, keyframes: Cameras, frames: int) -> Cameras:
        """A smooth path from where one is through keyframes.

        Args:
            keyframes: Where it goes through.
            frames: Number of poses.

        Returns:
            The path, at even speed.
        """
        return smooth(Cameras.cat([self.camera_at(self.pose), keyframes]), self.unit, frames)

    def _start_now(self) -> UInt8[np.ndarray, "h w 3"]:
        return self.look(self.camera).image

    def _drift(self) -> Drift:
        now = self._start_now()
        return Drift(
            start=psnr(self._first, self.picture),
            now=psnr(now, self.picture),
            changed=float(np.abs(now.astype(int) - self._first).max()),
        )

    def _info(self, number: int) -> ChunkInfo:
        mark = self.world.chunks[number]
        views = (mark.stop - 1) // self.world.model.temporal_stride
        return ChunkInfo(
            number=number,
            frames=mark.stop,
            known=sum(mark.coverage) / len(mark.coverage),
            new=int(mark.update.get("new") or 0),
            seconds=sum(mark.seconds.values()),
            prompt=mark.prompt or None,
            pose=poses_of(self.state.cameras.cam_from_world[views : views + 1])[0],
        )
