"""Who is walking: sessions with their worlds, limited in number, memory and idle time; the threads that serve them."""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mirage.camera.cameras import Cameras
from mirage.explorer.messages import SessionState, poses_of
from mirage.explorer.walk import MOST_AT_ONCE, Walk
from mirage.explorer.worker import Crowded, FairWorker
from mirage.pipeline import MiragePipeline
from mirage.video.io import write_json
from mirage.world import World
from mirage.world.archive import unpack

log = logging.getLogger(__name__)
NOTE = "explorer.json"  # beside the world: what only the explorer knows of it
UNKNOWN = "there is no such session here: begin one, or open its world"
NAME = re.compile(r"[A-Za-z0-9_-]{8,64}")


class Full(Exception):
    """The server has as many sessions as it may have."""


class Unknown(Exception):
    """There is no such session."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server spends on its guests."""

    sessions: int = 8
    """Walks in memory at once."""
    sockets: int = 4
    """Connections to one session."""
    idle_minutes: int | float = 30.0
    """After so long without anybody a walk goes to sleep: its world is on the disk, and wakes when it is asked for."""
    memory_mib: int | float = 64.0
    """Most that the memory of one world takes; the oldest imagined places are forgotten first."""
    chunks: int = 500
    """Chunks of one world."""
    picture_mib: int | float = 20.0
    """Size of a picture that is sent."""
    world_mib: int | float = 512.0
    """Size of a world that is sent."""
    messages_per_second: int | float = 200.0
    """WebSocket messages of one connection; a faster one is read no faster, and dropped if it goes on."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")


class Session:
    """One walk and those who watch it. All but its walk belongs to the event loop."""

    def __init__(self, name: str, title: str, walk: Walk, *, branch_of: str | None = None):
        self.name = name
        self.title = title
        self.walk = walk
        self.branch_of = branch_of
        self.auto = True
        self.prompt = ""
        self.working = 0
        self.used = time.monotonic()
        self.watchers: set[Callable[[str | None], None]] = set()
        self.stirred = 0.0

    def tell(self, trouble: str | None = None) -> None:
        """Let everybody know that something changed.

        Args:
            trouble: What went wrong, if it did.
        """
        for watcher in list(self.watchers):
            watcher(trouble)


class Sessions:
    """The sessions of a server.

    One thread imagines, one (of many cores several) looks, one reads and writes files, each for all sessions in turn.
    So a view never waits for a chunk, and a chunk never for a file.

    Args:
        pipeline: The model.
        folder: Where worlds are kept.
        limits: What is spent on guests.
    """

    def __init__(self, pipeline: MiragePipeline, folder: Path, limits: Limits):
        self.pipeline, self.folder, self.limits = pipeline, folder, limits
        self.model = FairWorker("mirage-model", most=2 * MOST_AT_ONCE, nice=2)
        self.views = FairWorker("mirage-views", most=4, threads=max(1, min(4, (os.cpu_count() or 1) // 2)))
        self.files = FairWorker("mirage-files", most=64, nice=10)
        self._live: dict[str, Session] = {}
        self._coming = 0  # places that are kept for walks that begin
        self._elsewhere: dict[str, Path] = {}  # worlds that are not in the folder
        self._waking: dict[str, asyncio.Lock] = {}

    def __len__(self) -> int:
        return len(self._live)

    def warm_up(self) -> None:
        """Run everything once on a tiny picture: what is compiled or loaded at first use is ready then."""
        pipeline = self.pipeline
        side = 2 * pipeline.codec.stride * pipeline.transformer.config.patch_size[1]
        camera = Cameras.from_fov(1.0, side, side)

        def walk() -> None:
            state = pipeline.begin(np.full((side, side, 3), 128, np.uint8), camera)
            way = camera[[0] * pipeline.codec.temporal_stride]
            memory = pipeline.advance(state, way, num_inference_steps=1)[0].memory
            pipeline.codec.decode(memory.read(state.cameras).features[:, None])

        self.model.submit("warm up", walk).result()

    async def begin(self, picture: UInt8[np.ndarray, "h w 3"], *, fov: float, seed: int, title: str) -> Session:
        """A new world from a picture.

        Args:
            picture: Of any size.
            fov: Field of view across the longer side, in radians.
            seed: Of the noise.
            title: What people call it.

        Returns:
            The session.

        Raises:
            Full: If there are too many.
            ValueError: If the picture cannot be used.
        """
        name = secrets.token_urlsafe(12)
        make = partial(Walk.begin, self.folder / name, self.pipeline, picture, fov=fov, seed=seed, budget=self._budget)
        with self._room():
            walk = await asyncio.wrap_future(self.model.submit(("begin", name), make))
            return await self._add(Session(name, title, walk))

    async def open(self, folder: Path, *, name: str | None = None, title: str | None = None) -> Session:
        """A world that is there.

        Args:
            folder: Its folder.
            name: Of the session; made up if None.
            title: What people call it; what they called it before if None.

        Returns:
            The session.

        Raises:
            Full: If there are too many.
            ValueError: If there is no world, it is damaged, or of another model.
            OSError: If somebody else has it open.
        """
        name = name or secrets.token_urlsafe(12)
        make = lambda: Walk(World.open(folder, self.pipeline))
        with self._room():
            walk = await asyncio.wrap_future(self.model.submit(("open", name), make))
            kept = read_note(folder)
            return await self._add(Session(name, title or kept["title"], walk, branch_of=kept["branch_of"]))

    async def take_in(self, packed: Path, *, title: str) -> Session:
        """A world that somebody sent.

        Args:
            packed: A zip of its folder.
            title: What people call it.

        Returns:
            The session.

        Raises:
            Full: If there are too many.
            ValueError: If it is no world, or unsafe.
        """
        folder = self.folder / secrets.token_urlsafe(12)
        await asyncio.wrap_future(self.files.submit("worlds", partial(unpack, packed, folder)))
        try:
            return await self.open(folder, name=folder.name, title=title)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def get(self, name: str) -> Session:
        """The session of a name, woken up if it sleeps.

        Args:
            name: Its name.

        Returns:
            The session.

        Raises:
            Unknown: If there is none.
        """
        if name not in self._live:
            async with self._waking.setdefault(name, asyncio.Lock()):
                if name not in self._live:
                    if not NAME.fullmatch(name):
                        raise Unknown(UNKNOWN)
                    folder = self._elsewhere.get(name, self.folder / name)
                    if not (folder / "world.json").is_file():
                        raise Unknown(UNKNOWN)
                    await self.open(folder, name=name)
            self._waking.pop(name, None)
        session = self._live[name]
        session.used = time.monotonic()
        return session

    def generate(
        self, session: Session, ways: list[Cameras], prompt: str | None, seed: int | None = None
    ) -> list[Future]:
        """Put chunks in line to be made.

        Args:
            session: Whose.
            ways: Cameras of each chunk.
            prompt: What to imagine, for a model that reads text.
            seed: Of the noise of the first; those of the world if None.

        Returns:
            What will come of them.

        Raises:
            Crowded: If too many are waiting already.
        """
        loop = asyncio.get_running_loop()
        seeds = [seed, *[None] * (len(ways) - 1)]
        futures = [
            self.model.submit(session.name, partial(session.walk.extend, way, prompt, seed))
            for way, seed in zip(ways, seeds, strict=True)
        ]
        for future in futures:
            session.working += 1
            future.add_done_callback(lambda done: _from_thread(loop, self._made, session, done))
        session.tell()
        return futures

    def room_for(self, session: Session, chunks: int) -> None:
        """Refuse chunks that would not be made.

        Args:
            session: Whose.
            chunks: How many.

        Raises:
            Crowded: If too many are waiting already.
            ValueError: If the world would get too long.
        """
        if session.working + chunks > self.model.most:
            raise Crowded(f"{session.working} chunks are waiting already: wait for them first")
        if len(session.walk.chunks) + session.working + chunks > self.limits.chunks:
            raise ValueError(f"a world has at most {self.limits.chunks} chunks here: undo some, or branch")

    def _made(self, session: Session, done: Future) -> None:
        session.working -= 1
        error = None if done.cancelled() else done.exception()
        if error is not None:
            log.error("a chunk failed", exc_info=error)
        session.tell(None if error is None else f"the chunk could not be made: {error}")

    async def undo(self, session: Session, chunks: int) -> None:
        """Take chunks back, and those that wait.

        Args:
            session: Whose.
            chunks: How many.

        Raises:
            ValueError: If there are not so many.
        """
        self.model.cancel(session.name)
        await asyncio.wrap_future(self.model.submit(session.name, partial(session.walk.undo, chunks)))
        session.tell()

    async def branch(self, session: Session, chunks: int) -> Session:
        """Another world that shares the beginning of this one.

        Args:
            session: What is branched from; it is kept.
            chunks: How many chunks the new one has.

        Returns:
            The new session.

        Raises:
            Full: If there are too many.
            ValueError: If the session has not so many chunks.
        """
        name = secrets.token_urlsafe(12)
        make = partial(session.walk.branch, self.folder / name, chunks)
        with self._room(but=session):
            walk = await asyncio.wrap_future(self.model.submit(session.name, make))
            other = Session(name, session.title, walk, branch_of=session.name)
            other.auto, other.prompt = session.auto, session.prompt
            return await self._add(other)

    def state(self, session: Session) -> SessionState:
        """All there is to know of a session.

        Args:
            session: Which.

        Returns:
            What is sent.
        """
        walk = session.walk
        state = walk.state
        k = walk.camera.intrinsics[0].tolist()
        return SessionState(
            id=session.name,
            title=session.title,
            height=walk.camera.height,
            width=walk.camera.width,
            focal=[k[0][0], k[1][1], k[0][2], k[1][2]],
            frames=state.frames,
            chunks=walk.chunks,
            start=poses_of(walk.camera.cam_from_world)[0],
            pose=poses_of(walk.pose[None])[0],
            path=poses_of(state.cameras.cam_from_world),
            working=session.working,
            auto=session.auto,
            prompt=bool(self.pipeline.transformer.config.text_dim),
            memory_bytes=state.memory.nbytes,
            memory_budget=self._budget,
            elements=len(state.memory),
            depth=walk.scene.depth,
            drift=walk.drift,
            chunk_limit=self.limits.chunks,
            branch_of=session.branch_of,
        )

    @property
    def _budget(self) -> int:
        return int(self.limits.memory_mib * 2**20)

    async def _add(self, session: Session) -> Session:
        note = {"title": session.title, "branch_of": session.branch_of}
        await asyncio.to_thread(write_json, session.walk.world.folder / NOTE, note)
        if session.walk.world.folder != self.folder / session.name:
            self._elsewhere[session.name] = session.walk.world.folder
        self._live[session.name] = session
        return session

    @contextlib.contextmanager
    def _room(self, but: Session | None = None) -> Iterator[None]:
        """Keep a place free for one more; the walk that was longest without anybody goes to sleep if there is none."""
        if len(self._live) + self._coming >= self.limits.sessions:
            alone = [s for s in self._live.values() if not s.watchers and not s.working and s is not but]
            if not alone:
                raise Full(f"{len(self._live)} people walk here, which is as many as this server takes: try later")
            self.sleep(min(alone, key=lambda s: s.used))
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def leave(self, session: Session) -> None:
        """Let a session sleep that nobody needs any more.

        Args:
            session: Which.

        Raises:
            ValueError: If somebody still watches it, or a chunk is being made.
        """
        if session.watchers or session.working:
            held = "a chunk is being made" if session.working else "a window still shows it"
            raise ValueError(f"the walk cannot be left now: {held}")
        self.sleep(session)

    def sleep(self, session: Session) -> None:
        """Take a session out of memory; its world is on the disk.

        Args:
            session: Which.
        """
        self._live.pop(session.name, None)
        session.walk.world.close()

    def sleep_idle(self) -> None:
        """Send walks to sleep that nobody has used for long."""
        now = time.monotonic()
        for session in list(self._live.values()):
            if not session.watchers and not session.working and now - session.used > 60 * self.limits.idle_minutes:
                self.sleep(session)

    def stop(self) -> None:
        """Finish what is being done; what waits is dropped, and every world is left complete on the disk."""
        for worker in (self.model, self.views, self.files):
            worker.stop()
        for session in list(self._live.values()):
            self.sleep(session)


def read_note(folder: Path) -> dict[str, str | None]:
    """What the explorer wrote beside a world: its title, and what it was branched from.

    Args:
        folder: Of the world.

    Returns:
        Both; the name of the folder where nothing is known.
    """
    note: object = None
    with contextlib.suppress(OSError, ValueError):
        note = json.loads((folder / NOTE).read_bytes()[:4096])
    found = note if isinstance(note, dict) else {}
    text = lambda key: found[key][:120] if isinstance(found.get(key), str) else None
    return {"title": text("title") or folder.name, "branch_of": text("branch_of")}


def _from_thread(loop: asyncio.AbstractEventLoop, call: Callable, *arguments: object) -> None:
    """Call something on the event loop, unless that has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)
