"""A world on disk: a change is durable when its call returns; a crash at any moment leaves the state before it."""

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.depth import DepthEstimator
from mirage.memory import LatentMemory
from mirage.pipeline import ChunkResult, MiragePipeline, RolloutState
from mirage.video.io import tensor_to_images
from mirage.world import disk
from mirage.world.content import (
    ChunkTensors,
    begins,
    decode_cameras,
    decode_frames,
    decode_picture,
    decode_tensors,
    encode_cameras,
    encode_frames,
    encode_picture,
    encode_tensors,
    load_memory,
)
from mirage.world.identity import model_mark, refuse_other_model
from mirage.world.manifest import (
    LARGEST,
    PICTURE,
    ChunkMark,
    FileMark,
    Manifest,
    ModelMark,
    Settings,
    Walk,
    chunk_name,
    read_folder,
)


class World:
    """A walk that is kept in a folder: picture, settings, chunks, memory, log.

    Chunk 0 is the first view, one frame; chunk k is the k-th that was imagined. Whoever opens a world to change it has
    it alone; any number may open it to read. Make one with `create` or `open`; not to be used by two threads at once.

    Example:
        >>> import tempfile
        >>> pipeline = MiragePipeline.from_pretrained("nano")
        >>> camera = Cameras.from_fov(1.0, 32, 48)
        >>> picture = np.full((32, 48, 3), 200, np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with World.create(f"{folder}/room", pipeline, picture, camera, steps=1) as world:
        ...         _ = world.extend(camera[[0] * 4])
        ...     with World.open(f"{folder}/room") as world:
        ...         removed = world.undo()
        ...         len(removed), len(world.chunks), world.frames().shape
        (4, 1, (1, 32, 48, 3))
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        pipeline: MiragePipeline | None,
        estimator: DepthEstimator | None,
        release: Callable[[], object] | None,
    ):
        self.folder, self.pipeline, self.estimator = folder, pipeline, estimator
        self.manifest, self._release, self._state, self._aside = manifest, release, None, None

    @classmethod
    @torch.no_grad()
    def create(
        cls,
        folder: str | os.PathLike,
        pipeline: MiragePipeline,
        image: UInt8[np.ndarray, "h w 3"],
        camera: Cameras,
        *,
        depth: Float32[Tensor, "h w"] | None = None,
        estimator: DepthEstimator | None = None,
        movers: str = "",
        seed: int = 0,
        prompt: str = "",
        negative_prompt: str = "",
        guidance_scale: float = 1.0,
        steps: int | None = None,
        fps: int = 16,
        budget_bytes: int | None = None,
    ) -> "World":
        """Begin a world with its first view.

        Args:
            folder: Where it shall live: no such folder yet, or an empty one.
            pipeline: The model.
            image: The first frame, of the size of its camera.
            camera: Its camera.
            depth: z-depth of the image if it is known, 0 = unknown.
            estimator: Depth where it is not known; the model's own depth head if None.
            movers: Name of the `segmenter` of what is never remembered, in any chunk; "" for none.
            seed: Of the world; the noise of each chunk follows from it and the chunk's number.
            prompt: What to imagine unless a chunk says otherwise, for a model that reads text.
            negative_prompt: What to guide away from.
            guidance_scale: Strength of that guidance; 1 does without it.
            steps: Calls of the denoiser per chunk; the model's own number if None.
            fps: Frames per second of its videos.
            budget_bytes: Bound on the size of the memory; None for no bound.

        Returns:
            The world, open to be changed.

        Raises:
            ValueError: If the folder holds something, or an argument does not fit the model.
            OSError: In one sentence, if the folder cannot be written; there is no world then.
        """
        folder = Path(folder)
        disk.refuse_taken(folder)
        settings = Settings(
            height=camera.height,
            width=camera.width,
            seed=seed,
            prompt=prompt,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            steps=steps,
            fps=fps,
            movers=movers,
        )
        seconds: dict[str, float] = {}
        memory = partial(LatentMemory.from_view, budget_bytes=budget_bytes, mover=pipeline.mover)
        models = {"estimator": estimator, "movers": movers or None}
        state = pipeline.begin(image, camera, memory=memory, depth=depth, seconds=seconds, **models)
        shown = tensor_to_images(pipeline.codec.decode(state.clean[None])[0].clamp(-1, 1))
        model = model_mark(pipeline, state.clean.shape[1])
        empty = FileMark(bytes=0, sha256=hashlib.sha256(b"").hexdigest())
        world = cls(folder, Manifest(model=model, settings=settings, chunks=[], log=empty), pipeline, estimator, None)
        tensors = ChunkTensors(
            latents=state.generated, clean=state.clean, depth=state.depth, cameras=state.cameras.to("cpu")
        )
        with world._founded():
            chunk = world._write_chunk(0, tensors, state, shown, {PICTURE: encode_picture(image)})
            chunk = replace(chunk, seconds=_rounded(seconds))
            world._commit("created", chunks=[chunk], size=[settings.height, settings.width], seed=seed)
        world._state = state
        return world

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike,
        pipeline: MiragePipeline | None = None,
        *,
        estimator: DepthEstimator | None = None,
        write: bool = True,
    ) -> "World":
        """Open a world at its last complete state.

        Args:
            folder: Its folder, or a zip of it, which is only read.
            pipeline: The model that made it, to continue; None to read, undo, branch or export.
            estimator: Depth of new frames; the model's own depth head if None.
            write: To change it, which nobody else may at the same time, and to remove what an interruption left.

        Returns:
            The world.

        Raises:
            ValueError: If there is no world, it is damaged or unsafe, or of another model; nothing has changed then.
            OSError: If somebody else has it open to change it.
        """
        folder = Path(folder)
        if folder.is_file():
            return cls._open_packed(folder, pipeline, estimator)
        world = cls(folder, read_folder(folder), pipeline, estimator, None)
        if write:
            world._release = disk.lock(folder, world)
        try:
            world.manifest = read_folder(folder)  # as it is now that nobody else can change it
            for name, mark in world.manifest.files.items():
                if name != "log.jsonl":
                    disk.check_file(folder, name, mark.bytes)
            world.log_bytes()
            if pipeline is not None:
                refuse_other_model(folder, world.manifest, pipeline)
                world._state = world._rebuild(world.manifest)
            if write:
                with world._said():
                    world._clean()
        except BaseException:
            world.close()
            raise
        return world

    @classmethod
    def _open_packed(cls, path: Path, pipeline: MiragePipeline | None, estimator: DepthEstimator | None) -> "World":
        from mirage.world.archive import unpack

        aside = tempfile.TemporaryDirectory(prefix="mirage-world-")
        try:
            unpack(path, Path(aside.name) / path.stem)
            world = cls.open(Path(aside.name) / path.stem, pipeline, estimator=estimator, write=False)
        except BaseException:
            aside.cleanup()
            raise
        world._aside = aside
        return world

    def close(self) -> None:
        """Let others change the world. Everything is on the disk already."""
        if self._release is not None:
            self._release()
            self._release = None
        if self._aside is not None:
            self._aside.cleanup()

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """What holds for every chunk."""
        return self.manifest.settings

    @property
    def model(self) -> ModelMark:
        """The model that it was made with."""
        return self.manifest.model

    @property
    def chunks(self) -> tuple[ChunkMark, ...]:
        """What is known of each chunk; the first is that of the first view."""
        return tuple(self.manifest.chunks)

    @property
    def state(self) -> RolloutState:
        """What the next chunk depends on; on the pipeline's device, or the CPU."""
        if self._state is None or self._state.frames != self.chunks[-1].stop:  # an interruption came between the two
            self._state = self._rebuild(self.manifest)
        return self._state

    @property
    def image(self) -> UInt8[np.ndarray, "h w 3"]:
        """The picture that it began with."""
        return self._parsed(f"{chunk_name(0)}/{PICTURE}", self.manifest.chunks[0].files[PICTURE], decode_picture)

    @property
    def cameras(self) -> Cameras:
        """Of all frames, on the CPU."""
        return Cameras.cat([self.tensors(i).cameras for i in range(len(self.chunks))])

    @property
    def log(self) -> list[dict]:
        """What happened to this world, in order."""
        return [json.loads(line) for line in self.log_bytes().splitlines()]

    @property
    def planned(self) -> Cameras | None:
        """Cameras of the frames that were asked for by `plan` and are not made yet."""
        walk = self.manifest.walk
        if walk is None:
            return None
        read = lambda data, settings: decode_cameras(data, walk.stop - walk.start, settings)
        return self._parsed(walk.name, walk.file, read)[self.chunks[-1].stop - walk.start :]

    @property
    def plan_words(self) -> str | None:
        """How the path that is not finished was asked for."""
        return self.manifest.walk and self.manifest.walk.words

    def tensors(self, chunk: int) -> ChunkTensors:
        """Latents, depth and cameras of one chunk, on the CPU.

        Args:
            chunk: Its number; 0 is the first view.

        Returns:
            The tensors, bit for bit as they were made.
        """
        mark = self.manifest.chunks[chunk]
        name = "latents.safetensors"
        read = lambda data, settings: decode_tensors(data, mark, self.model, settings)
        return self._parsed(f"{chunk_name(self._number(chunk))}/{name}", mark.files[name], read)

    def frames(self, chunk: int | None = None) -> UInt8[np.ndarray, "f h w 3"]:
        """The new frames of one chunk, or of all.

        Args:
            chunk: Its number; 0 is the first view as the model shows it. All frames of the walk if None.

        Returns:
            Colour, 0 to 255, bit for bit as it was made.
        """
        if chunk is None:
            return np.concatenate([self.frames(i) for i in range(len(self.chunks))])
        mark = self.manifest.chunks[chunk]
        read = lambda data, settings: decode_frames(data, len(mark), settings)
        return self._parsed(f"{chunk_name(self._number(chunk))}/frames.mp4", mark.files["frames.mp4"], read)

    def memory(self, chunk: int = -1) -> LatentMemory:
        """The memory as it was after a chunk, on the device of the pipeline or the CPU.

        Args:
            chunk: Its number; the last if -1.

        Returns:
            The memory.
        """
        name, mark = f"{chunk_name(self._number(chunk))}/memory.safetensors", self.manifest.chunks[chunk]
        return self._load_memory(name, mark)

    def extend(
        self,
        cameras: Cameras,
        prompt: str | None = None,
        *,
        seed: int | None = None,
        steps: int | None = None,
        callback_on_step_end: Callable | None = None,
    ) -> ChunkResult:
        """Make one more chunk and keep it; when this returns it is on the disk.

        A path that was given to `plan` and is not finished is dropped, unless these are its next cameras.

        Args:
            cameras: Of the new frames, as for `MiragePipeline.advance`.
            prompt: What to imagine in this chunk; the world's if None.
            seed: Of this chunk's noise; None for the one that follows from the world's seed and the chunk's number, so
                that a walk that was interrupted and resumed equals one that was not.
            steps: Calls of the denoiser; the world's if None.
            callback_on_step_end: As in `MiragePipeline`.

        Returns:
            The chunk.

        Raises:
            ValueError: If an argument does not fit, or the world was opened without a pipeline or only to be read.
            OSError: In one sentence, if it cannot be written; the world is then as it was before.
        """
        self._refuse_closed()
        if self.pipeline is None:
            raise ValueError("pipeline must be given to World.open to continue a world, got None")
        planned = self.planned
        number, seconds = len(self.chunks), {}
        seed = chunk_seed(self.settings.seed, number) if seed is None else seed
        steps = self.settings.steps if steps is None else steps
        prompt = self.settings.prompt if prompt is None else prompt
        state, result = self.pipeline.advance(
            self.state,
            cameras,
            prompt or None,
            estimator=self.estimator,
            movers=self.settings.movers or None,
            num_inference_steps=steps,
            negative_prompt=self.settings.negative_prompt,
            guidance_scale=self.settings.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=callback_on_step_end,
            seconds=seconds,
        )
        cameras = result.cameras.to("cpu")
        tensors = ChunkTensors(latents=result.latents, clean=result.clean, depth=result.depth, cameras=cameras)
        on_plan = planned is not None and begins(planned, cameras)
        walk = self.manifest.walk if on_plan and len(planned) > len(cameras) else None
        coverage = result.known.visible[1:].float().mean((1, 2)).tolist()
        with self._said():
            shown = tensor_to_images(result.frames[-len(cameras) :])
            chunk = self._write_chunk(number, tensors, state, shown)
            chunk = replace(
                chunk,
                prompt=prompt,
                seed=seed,
                steps=steps,
                coverage=coverage,
                update={k: v if math.isfinite(v) else None for k, v in asdict(result.update).items()},
                seconds=_rounded(seconds),
            )
            told = {"chunk": number, "frames": [chunk.start, chunk.stop], "prompt": prompt, "seed": seed}
            self._commit("extended", chunks=[*self.chunks, chunk], walk=walk, **told)
        self._state = state
        return result

    def plan(self, cameras: Cameras, prompt: str | Sequence[str] | None = None, *, words: str = "") -> None:
        """Note a path, so that it can be walked on after an interruption.

        Args:
            cameras: Of all new frames: a whole multiple of the temporal stride, any number of chunks.
            prompt: What to imagine, one text or one per chunk (the last serves the rest); the world's if None.
            words: How the path was asked for.

        Raises:
            ValueError: If the cameras do not fit the world.
            OSError: In one sentence, if it cannot be written; the world is then as it was before.
        """
        self._refuse_closed()
        stride, start = self.model.temporal_stride, self.chunks[-1].stop
        size = cameras.height, cameras.width
        if not len(cameras) or len(cameras) % stride or size != (self.settings.height, self.settings.width):
            raise ValueError(
                f"cameras must be of {self.settings.height} x {self.settings.width}, their number a multiple of "
                f"{stride}, got {len(cameras)} of {size[0]} x {size[1]}"
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or [])
        data = encode_cameras(cameras)
        mark = FileMark(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        walk = Walk(words=words, start=start, stop=start + len(cameras), prompts=prompts, file=mark)
        with self._said():
            with suppress(FileExistsError):
                (self.folder / "walks").mkdir()
            disk.replace_file(self.folder / walk.name, data)
            told = {"words": words, "frames": [walk.start, walk.stop], "prompts": prompts}
            self._commit("planned", walk=walk, **told)

    def walk(self, **options: object) -> Iterator[ChunkResult]:
        """Make the chunks of the planned path that are not made yet.

        Args:
            options: As for `extend`.

        Yields:
            Each chunk, when it is on the disk.
        """
        while (rest := self.planned) is not None:
            walk, step = self.manifest.walk, self.model.chunk_frames - 1
            turn = (self.chunks[-1].stop - walk.start) // step
            prompt = walk.prompts[min(turn, len(walk.prompts) - 1)] if walk.prompts else None
            yield self.extend(rest[:step], prompt, **options)

    def undo(self) -> ChunkMark:
        """Go back before the last chunk. Its files are deleted; the log keeps prompt and seed.

        Returns:
            What was known of the chunk.

        Raises:
            ValueError: If only the first view is left, or the world was opened only to be read.
            OSError: In one sentence, if it cannot be written; the world is then as it was before.
        """
        self._refuse_closed()
        if len(self.chunks) == 1:
            raise ValueError(f"world {self.folder} has only its first view, there is no chunk to undo")
        chunks = self.chunks[:-1]
        manifest = replace(self.manifest, chunks=list(chunks), walk=None)
        state = None if self._state is None else self._rebuild(manifest)
        removed = self.chunks[-1]
        with self._said():
            told = {"chunk": len(chunks), "frames": [removed.start, removed.stop]}
            self._commit("undone", chunks=list(chunks), walk=None, **told)
        self._state = state
        with suppress(OSError):  # what is left is removed when the world is opened
            self._clean()
        return removed

    def branch(self, folder: str | os.PathLike, chunk: int | None = None) -> "World":
        """Begin another world that shares this one's past. Files are shared on the disk where it can do that.

        Args:
            folder: Where it shall live: no such folder yet, or an empty one.
            chunk: The last chunk to keep; the last of all if None.

        Returns:
            The other world, open to be changed.

        Raises:
            ValueError: If there is no such chunk, the folder holds something or files of this world are damaged.
            OSError: In one sentence, if it cannot be written; there is no other world then.
        """
        folder, last = Path(folder), len(self.chunks) - 1
        if chunk is not None and not 0 <= chunk <= last:
            raise ValueError(f"chunk must be from 0 to {last}, got {chunk}")
        disk.refuse_taken(folder)
        kept = list(self.chunks[: (last if chunk is None else chunk) + 1])
        log = self.log_bytes()
        manifest = replace(self.manifest, chunks=kept, walk=None)
        other = type(self)(folder, manifest, self.pipeline, self.estimator, None)
        with other._founded():
            for number, mark in enumerate(kept):
                with disk.new_folder(folder / chunk_name(number)) as aside:
                    for name, file in mark.files.items():
                        source = disk.check_file(self.folder, f"{chunk_name(number)}/{name}", file.bytes)
                        disk.same_file(source, aside / name)
            disk.replace_file(folder / "log.jsonl", log)
            other._commit("branched", source=self.folder.name, chunk=len(kept) - 1)
        return other

    def verify(self) -> "Report":
        """Read every byte of the world: checksums, and whether each file holds what it must.

        Returns:
            What was found; damage is told, not raised.
        """
        from mirage.world.verify import verify

        return verify(self)

    def _number(self, chunk: int) -> int:
        """The number of a chunk that may be counted from the end."""
        return range(len(self.chunks))[chunk]

    def _refuse_closed(self) -> None:
        if self._release is None:
            raise ValueError(f"world {self.folder} is not open to be changed: open it with write=True")

    def _parsed(self, name: str, mark: FileMark, read: Callable) -> object:
        """What a file holds; damage is said of the file."""
        data = disk.read_file(self.folder, name, mark.bytes, mark.sha256)
        try:
            return read(data, self.settings)
        except ValueError as error:
            raise ValueError(f"world {self.folder} is damaged: {name}: {error}") from None

    def _load_memory(self, name: str, chunk: ChunkMark) -> LatentMemory:
        mark = chunk.files["memory.safetensors"]
        path = disk.check_file(self.folder, name, mark.bytes)
        if disk.hash_file(path) != mark.sha256:
            raise ValueError(f"world {self.folder} is damaged: the checksum of {name} is not that of its content")
        device, mover = (
            (self.pipeline._execution_device, self.pipeline.mover) if self.pipeline else (torch.device("cpu"), None)
        )
        return load_memory(path, self.model, device, mover)

    def log_bytes(self) -> bytes:
        """The log as it is in the file, as far as it was committed."""
        mark, path = self.manifest.log, self.folder / "log.jsonl"
        if path.is_symlink() or not path.is_file() or mark.bytes > LARGEST:
            raise ValueError(
                f"world {self.folder} is damaged: log.jsonl must be a plain file of at most {LARGEST} bytes"
            )
        with open(path, "rb") as file:
            data = file.read(mark.bytes)
        if hashlib.sha256(data).hexdigest() != mark.sha256:
            raise ValueError(f"world {self.folder} is damaged: log.jsonl is not what was written")
        return data

    def _rebuild(self, manifest: Manifest) -> RolloutState:
        """The state after the last chunk of a manifest, bit for bit as it was."""
        device = self.pipeline._execution_device if self.pipeline else torch.device("cpu")
        keep, stride = manifest.model.preceding_frames + 1, manifest.model.temporal_stride
        parts = [self.tensors(i) for i in range(len(manifest.chunks))]
        generated, depth = parts[0].latents, parts[0].depth
        for part in parts[1:]:
            generated = torch.cat([generated, part.latents[1:]])[-keep:]
            if depth.shape[1:] != part.depth.shape[1:]:
                depth = torch.nn.functional.interpolate(depth[None], part.depth.shape[1:], mode="nearest-exact")[0]
            depth = torch.cat([depth, part.depth])
        written = [parts[0].cameras, *(part.cameras[stride - 1 :: stride] for part in parts[1:])]
        number = len(parts) - 1
        return RolloutState(
            memory=self._load_memory(f"{chunk_name(number)}/memory.safetensors", manifest.chunks[number]),
            frames=manifest.chunks[-1].stop,
            clean=torch.cat([part.clean for part in parts]).to(device),
            generated=generated.to(device),
            depth=depth.to(device),
            cameras=Cameras.cat(written).to(device),
        )

    def _write_chunk(
        self,
        number: int,
        tensors: ChunkTensors,
        state: RolloutState,
        shown: UInt8[np.ndarray, "f h w 3"],
        more: dict[str, bytes] | None = None,
    ) -> ChunkMark:
        """The files of a chunk, under their names and on the disk; nothing refers to them yet."""
        with disk.new_folder(self.folder / chunk_name(number)) as aside:
            disk.write_file(aside / "latents.safetensors", encode_tensors(tensors))
            disk.write_file(aside / "frames.mp4", encode_frames(shown, self.settings.fps))
            for name, data in (more or {}).items():
                disk.write_file(aside / name, data)
            state.memory.save(aside / "memory.safetensors")
            files = {
                f.name: FileMark(bytes=f.stat().st_size, sha256=disk.hash_file(f)) for f in sorted(aside.iterdir())
            }
        return ChunkMark(
            start=state.frames - len(shown),
            stop=state.frames,
            prompt="",
            seed=self.settings.seed,
            steps=self.settings.steps,
            coverage=[],
            update={},
            memory_bytes=state.memory.nbytes,
            memory_elements=len(state.memory),
            seconds={},
            time=_now(),
            files=files,
        )

    def _commit(self, event: str, *, chunks: list[ChunkMark] | None = None, walk: Walk | None = None, **told: object):
        """Make a change the state of the world: the log grows by a line, then the manifest is replaced."""
        log = self.log_bytes() if self.manifest.log.bytes else b""
        line = (json.dumps({"time": _now(), "event": event, **told}, allow_nan=False) + "\n").encode()
        with open(self.folder / "log.jsonl", "r+b" if log else "wb") as file:
            file.truncate(len(log))
            file.seek(len(log))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        mark = FileMark(bytes=len(log) + len(line), sha256=hashlib.sha256(log + line).hexdigest())
        chunks = self.manifest.chunks if chunks is None else chunks
        manifest = replace(self.manifest, chunks=chunks, walk=walk, log=mark)
        path, data = self.folder / "world.json", manifest.to_json()
        try:
            disk.replace_file(path, data)
        finally:  # whatever came in between: what is on the disk is what counts
            if path.is_file() and path.read_bytes() == data:
                self.manifest = manifest

    @contextmanager
    def _founded(self) -> Iterator[None]:
        """A folder that becomes a world in the block, and is as it was before if that fails."""
        folder, made = self.folder, not self.folder.exists()
        with self._said():
            folder.mkdir(parents=True, exist_ok=True)
        self._release = disk.lock(folder, self)
        try:
            disk.refuse_taken(folder)  # nobody else can take it from here on
            with self._said():
                self._clean(all=True)
                (folder / "chunks").mkdir(exist_ok=True)
                disk.sync(folder)
                yield
                disk.sync(folder.absolute().parent)
        except BaseException:
            if not (folder / "world.json").exists():
                with suppress(OSError):
                    self._clean(all=True)
                for path in (folder / "chunks", folder) if made else (folder / "chunks",):
                    with suppress(OSError):
                        path.rmdir()
            self.close()
            raise

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Errors of the disk in one sentence."""
        try:
            yield
        except OSError as error:
            reason = getattr(error.__cause__ or error, "strerror", None) or str(error)
            raise OSError(
                f"cannot write world {self.folder}: {reason[:1].lower()}{reason[1:]}; its last complete state is kept"
            ) from error

    def _clean(self, *, all: bool = False) -> None:
        """Remove what an interruption left: what has a name of ours and belongs to no complete state."""
        kept = set() if all else {Path(name).parts[1] for name in self.manifest.files if "/" in name}
        for room, named in (("chunks", r"(\.new-)?\d{4,}"), ("walks", r"(\.new-)?[0-9a-f]{16}\.safetensors")):
            for path in (self.folder / room).glob("*") if not (self.folder / room).is_symlink() else ():
                if re.fullmatch(named, path.name) and path.name not in kept:
                    disk.remove(path)
        for name in (".new-world.json", ".new-log.jsonl", *(["log.jsonl"] if all else [])):
            disk.remove(self.folder / name)


def chunk_seed(seed: int, number: int) -> int:
    """The seed of a chunk's noise: it depends on nothing but the world's seed and the chunk's number.

    Args:
        seed: Of the world.
        number: Of the chunk.

    Returns:
        From 0 to 2^63 - 1.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:8], "big") >> 1


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {phase: round(value, 4) for phase, value in seconds.items()}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
