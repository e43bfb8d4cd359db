"""The explorer's server: pages, the HTTP API that OpenAPI describes, the WebSocket, and a shutdown that saves all."""

import asyncio
import contextlib
import ipaddress
import logging
import math
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import torch
import uvicorn
from fastapi import FastAPI, Query, Request, Response, WebSocket
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, TypeAdapter
from starlette.background import BackgroundTask

from mirage.explorer.guard import LOOPBACK, Guard
from mirage.explorer.live import LONGEST, Live
from mirage.explorer.messages import (
    FROM_CLIENT,
    Begin,
    Branch,
    ChunkInfo,
    Generate,
    Made,
    Move,
    Moved,
    PathPlan,
    PathRequest,
    Pictures,
    SessionState,
    Trouble,
    Undo,
    cameras_of,
    poses_of,
)
from mirage.explorer.pictures import decode_upload
from mirage.explorer.sessions import Full, Limits, Session, Sessions, Unknown
from mirage.explorer.wire import jpeg
from mirage.explorer.worker import Crowded
from mirage.inputs import FOV
from mirage.pipeline import MiragePipeline
from mirage.video.io import read_image
from mirage.video.picture import shade_unseen

log = logging.getLogger(__name__)
UPLOADS = 4  # that are taken at once: each may be large
STATIC = Path(__file__).parent / "static"
ASSETS = Path(__file__).parents[1] / "assets"
PRESETS = (
    "orbit:degrees=30",
    "dolly:distance=1",
    "pan:degrees=40",
    "truck:distance=0.6",
    "spiral",
    "random-walk",
    "there-and-back:forward 0.8 and right 25deg",
)
Name = Annotated[str, InPath(pattern=r"^[A-Za-z0-9_-]{8,64}$", description="Of the session, as `begin` gave it")]


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str = Field(description="What was expected, what came, and the way out")


STATUS = {
    400: "The request cannot be carried out",
    401: "A token is needed",
    403: "The request comes from another site's page",
    404: "There is no such session or picture",
    411: "Content-Length is needed",
    413: "Too large",
    421: "The server does not answer to this name",
    422: "The request is malformed",
    429: "Too much is waiting already",
    503: "The server is full or shutting down",
}
ERRORS = {status: {"model": Problem, "description": about} for status, about in STATUS.items()}
FAULTS = {ValueError: 400, Unknown: 404, LookupError: 404, Crowded: 429, Full: 503, OSError: 503}
IMAGE = {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "JPEG"}}


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Where and how the server answers."""

    host: str = "127.0.0.1"
    """Address to bind to; anything but the loopback needs a token."""
    port: int = 7860
    """0 for any free one."""
    token: str | None = None
    """What everybody has to show; made up where it is needed and missing."""
    limits: Limits = field(default_factory=Limits)
    """What is spent on guests."""

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must be 0 to 65535, got {self.port}")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isalnum()):
            raise ValueError("token must be at least 8 letters and digits; leave it out to have one made")
        if self.token is None and not is_loopback(self.host):
            object.__setattr__(self, "token", secrets.token_hex(16))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Args:
        host: A name or a number.

    Returns:
        True for the loopback.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_app(sessions: Sessions, serving: Serving, *, model: str = "nano") -> Callable[..., Awaitable[None]]:
    """The application: an ASGI callable behind its guard.

    Args:
        sessions: Who is walking.
        serving: How it answers; host and port are for `serve`.
        model: Name that is shown.

    Returns:
        The application; its `app` is the FastAPI one.
    """
    limits = serving.limits

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def tidy() -> None:
            while True:
                await asyncio.sleep(15)
                sessions.sleep_idle()

        task = asyncio.create_task(tidy())
        yield
        task.cancel()
        await asyncio.to_thread(sessions.stop)

    app = FastAPI(
        title="Mirage explorer",
        version=_version(),
        summary="Walk through a world that is imagined as one goes, and stays.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
        responses=ERRORS,
    )
    for kind, status in FAULTS.items():
        app.add_exception_handler(kind, partial(_problem, status))
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(Exception, _fault)
    _add_openings(app, sessions, model, limits)
    _add_verbs(app, sessions)
    _add_files(app, sessions)

    @app.websocket("/api/sessions/{name}/live")
    async def live(socket: WebSocket, name: str) -> None:
        await socket.accept()
        try:
            session = await sessions.get(name)
        except (Unknown, Full, ValueError) as error:
            await socket.send_text(Trouble(message=str(error)).model_dump_json())
            return await socket.close(4004, "no such session")
        if len(session.watchers) >= limits.sockets:
            await socket.send_text(Trouble(message="too many windows show this walk: close one").model_dump_json())
            return await socket.close(4008, "too many windows")
        await Live(socket, session, sessions).run()

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC))
    app.mount("/pictures", StaticFiles(directory=ASSETS))
    app.openapi = partial(_openapi, app, app.openapi)
    sizes = {
        "": 2**20,
        "/api/pictures": int(limits.picture_mib * 2**20),
        "/api/worlds": int(limits.world_mib * 2**20),
    }
    return Guard(app, token=serving.token, limits=sizes)


def serve(
    pipeline: MiragePipeline,
    folder: Path,
    serving: Serving,
    *,
    model: str = "nano",
    begin: Path | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve until interrupted; then finish what is being done, and leave every world complete on the disk.

    Args:
        pipeline: The model.
        folder: Where worlds are kept.
        serving: Where and how to answer.
        model: Name that is shown.
        begin: A picture, a world's folder or a zip of one to begin with; a page to choose one if None.
        tell: Takes the address, when it can be opened.

    Raises:
        ValueError: If `begin` cannot be used.
        OSError: If the address or the folder is taken or not to be had.
    """
    try:
        listener = socket.create_server((serving.host, serving.port), family=_family(serving.host))
    except OSError as error:
        raise OSError(
            f"cannot answer at {serving.host}:{serving.port}: {(error.strerror or str(error)).lower()}"
        ) from error
    sessions = Sessions(pipeline, folder, serving.limits)
    server = make_server(sessions, serving, model=model)

    async def run() -> None:
        await asyncio.to_thread(sessions.warm_up)
        name = None if begin is None else (await _first(sessions, begin)).name
        tell(address(serving, listener.getsockname()[1], name))
        await server.serve(sockets=[listener])

    with listener:
        try:
            asyncio.run(run())
        finally:
            sessions.stop()


def make_server(sessions: Sessions, serving: Serving, *, model: str = "nano") -> uvicorn.Server:
    """The application in its HTTP server; give it a listening socket.

    Args:
        sessions: Who is walking.
        serving: How it answers.
        model: Name that is shown.

    Returns:
        The server.
    """
    config = uvicorn.Config(
        make_app(sessions, serving, model=model),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=4 * LONGEST,
        ws_max_queue=8,
        ws_ping_interval=15,
        ws_ping_timeout=20,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=500,
        backlog=128,
    )
    return uvicorn.Server(config)


def address(serving: Serving, port: int, session: str | None = None) -> str:
    """What to open in a browser.

    Args:
        serving: How the server answers.
        port: Where it listens.
        session: The walk to show.

    Returns:
        The address.
    """
    host = "127.0.0.1" if serving.host in ("0.0.0.0", "::") else serving.host
    host = f"[{host}]" if ":" in host else host
    query = "" if serving.token is None else f"?token={serving.token}"
    return f"http://{host}:{port}/{query}" + (f"#{session}" if session else "")


async def _first(sessions: Sessions, begin: Path) -> Session:
    if (begin / "world.json").is_file():
        return await sessions.open(begin)
    if begin.suffix == ".zip":
        return await sessions.take_in(begin, title=begin.stem)
    return await sessions.begin(read_image(begin), fov=FOV, seed=0, title=begin.stem)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _add_openings(app: FastAPI, sessions: Sessions, model: str, limits: Limits) -> None:
    """What begins a walk."""
    bundled = {path.stem: path for path in sorted(ASSETS.glob("*.jpg"))}
    config = sessions.pipeline.config
    uploads = asyncio.Semaphore(UPLOADS)

    @app.get("/api", operation_id="about")
    async def about() -> Pictures:
        """What this server offers."""
        return Pictures(
            version=_version(),
            model=model,
            pictures=list(bundled),
            presets=list(PRESETS),
            prompt=bool(sessions.pipeline.transformer.config.text_dim),
            chunk_frames=config.chunk_frames,
            limits=dict(vars(limits)),
        )

    @app.post("/api/sessions", operation_id="begin", status_code=201)
    async def begin(request: Begin) -> SessionState:
        """Begin a walk from a bundled picture."""
        if request.picture not in bundled:
            raise Unknown(f"there is no picture {request.picture!r}: there are {', '.join(bundled)}")
        picture = await asyncio.to_thread(read_image, bundled[request.picture])
        session = await sessions.begin(picture, fov=math.radians(request.fov), seed=request.seed, title=request.picture)
        return sessions.state(session)

    @app.post(
        "/api/pictures",
        operation_id="begin_from_picture",
        status_code=201,
        openapi_extra=_body("image/jpeg", "image/png", "image/webp"),
    )
    async def begin_from_picture(
        request: Request,
        title: Annotated[str, Query(max_length=120)] = "picture",
        fov: Annotated[float, Query(ge=5, le=160, description="Across the longer side, degrees")] = 60.0,
        seed: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    ) -> SessionState:
        """Begin a walk from a picture of one's own: the body is the file."""
        async with uploads:
            data = await request.body()
            picture = await asyncio.wrap_future(sessions.files.submit("pictures", partial(decode_upload, data)))
        session = await sessions.begin(picture, fov=math.radians(fov), seed=seed, title=title)
        return sessions.state(session)

    @app.post("/api/worlds", operation_id="open", status_code=201, openapi_extra=_body("application/zip"))
    async def open_world(request: Request, title: Annotated[str, Query(max_length=120)] = "world") -> SessionState:
        """Go on in a world that was saved: the body is the zip."""
        async with uploads:
            with tempfile.TemporaryDirectory(prefix="mirage-") as aside:
                packed = Path(aside, "world.zip")
                with packed.open("wb") as file:
                    async for part in request.stream():
                        file.write(part)
                return sessions.state(await sessions.take_in(packed, title=title))


def _add_verbs(app: FastAPI, sessions: Sessions) -> None:
    """What one does in a world."""
    route = "/api/sessions/{name}"

    @app.get(route, operation_id="state")
    async def state(name: Name) -> SessionState:
        """All there is to know of a walk but its pictures."""
        return sessions.state(await sessions.get(name))

    @app.delete(route, operation_id="leave", status_code=204)
    async def leave(name: Name) -> None:
        """Leave: the walk is put to sleep and its place is free. Its world is kept, and wakes when it is asked for."""
        sessions.leave(await sessions.get(name))

    @app.post(f"{route}/move", operation_id="move")
    async def move(name: Name, request: Move) -> Moved:
        """Go to a pose, or as words say; the way counts as walked."""
        session = await sessions.get(name)
        walk = session.walk
        if (request.pose is None) == (request.words is None):
            raise ValueError("give either pose or words")
        if request.pose is not None:
            cameras = cameras_of([request.pose], walk.camera)
        else:
            cameras = walk.path_in_words(request.words, 33, request.scale)
        for pose in cameras.cam_from_world.cpu():
            walk.go(pose)
        session.tell()
        here = cameras[-1]
        view = await _see(sessions, session, walk.pose)
        return Moved(
            pose=poses_of(here.cam_from_world)[0], known=float(view.visible.mean()), blocked=walk.is_blocked(here)
        )

    @app.post(f"{route}/generate", operation_id="generate")
    async def generate(name: Name, request: Generate) -> Made:
        """Imagine along the way walked since the last chunk, or along a path."""
        session = await sessions.get(name)
        if request.prompt and not sessions.pipeline.transformer.config.text_dim:
            raise ValueError("prompt must be left out: this model reads no text")
        poses = None
        if request.poses is not None:
            poses = cameras_of(request.poses, session.walk.camera.to("cpu")).cam_from_world
        sessions.room_for(session, session.walk.count_chunks(poses))
        futures = sessions.generate(
            session, session.walk.next_chunks(poses), request.prompt or session.prompt or None, request.seed
        )
        made: list[ChunkInfo] = []
        if request.wait:
            try:
                made = list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
            except asyncio.CancelledError:
                raise ValueError("the chunk was taken back before it was made") from None
        return Made(chunks=made, waiting=session.working)

    @app.post(f"{route}/path", operation_id="plan_path")
    async def plan_path(name: Name, request: PathRequest) -> PathPlan:
        """A path before anything is imagined along it: its poses, what is known of it, and what speaks against it."""
        session = await sessions.get(name)
        walk = session.walk
        if (request.words is None) == (request.keyframes is None):
            raise ValueError("give either words or keyframes")
        if request.words is not None:
            cameras = walk.path_in_words(request.words, request.frames, request.scale)
        else:
            cameras = walk.path_through(cameras_of(request.keyframes, walk.camera), request.frames)
        return await asyncio.wrap_future(sessions.views.submit(("http", name), partial(walk.plan_path, cameras)))

    @app.post(f"{route}/undo", operation_id="undo")
    async def undo(name: Name, request: Undo) -> SessionState:
        """Take the last chunks back, and those that wait to be made."""
        session = await sessions.get(name)
        await sessions.undo(session, request.chunks)
        return sessions.state(session)

    @app.post(f"{route}/branch", operation_id="branch", status_code=201)
    async def branch(name: Name, request: Branch) -> SessionState:
        """Begin another walk that shares the first chunks of this one; this one is kept."""
        session = await sessions.get(name)
        return sessions.state(await sessions.branch(session, request.chunks))


def _add_files(app: FastAPI, sessions: Sessions) -> None:
    """What one takes away."""
    route = "/api/sessions/{name}"

    @app.get(f"{route}/view.jpg", operation_id="read", response_class=Response, responses=IMAGE)
    async def read(
        name: Name,
        pose: Annotated[
            str | None, Query(max_length=400, description="Twelve numbers with commas; where one is if missing")
        ] = None,
        shade: Annotated[bool, Query(description="Hatch what is not known")] = True,
    ) -> Response:
        """What the memory shows: the share that is known is in the header `x-mirage-known`."""
        session = await sessions.get(name)
        where = session.walk.pose
        if pose is not None:
            try:
                where = cameras_of([Move(pose=[float(n) for n in pose.split(",")]).pose], session.walk.camera)
            except ValueError:
                raise ValueError("pose must be twelve numbers with commas, a rigid transform row by row") from None
            where = where.cam_from_world[0]
        view = await _see(sessions, session, where)
        image = shade_unseen(view.image, view.visible) if shade else view.image
        headers = {"x-mirage-known": f"{view.visible.mean():.4f}", "cache-control": "no-store"}
        return Response(jpeg(image), media_type="image/jpeg", headers=headers)

    @app.get(f"{route}/points", operation_id="points", response_class=Response, responses=_binary())
    async def points(name: Name) -> Response:
        """The memory as points: x y z as float32, red green blue, and 1 if given or 0 if imagined; little-endian."""
        session = await sessions.get(name)
        packed = await asyncio.wrap_future(sessions.files.submit(("points", name), session.walk.points))
        return Response(packed, media_type="application/octet-stream", headers={"cache-control": "no-store"})

    @app.get(f"{route}/chunks/{{index}}.jpg", operation_id="thumbnail", response_class=Response, responses=IMAGE)
    async def thumbnail(name: Name, index: Annotated[int, InPath(ge=0, le=100_000)]) -> Response:
        """The last frame of a chunk; 0 is the picture."""
        session = await sessions.get(name)
        file = await asyncio.wrap_future(
            sessions.files.submit(("thumbnail", name), partial(session.walk.thumbnail, index))
        )
        return Response(file, media_type="image/jpeg", headers={"cache-control": "no-store"})

    @app.get(f"{route}/world.zip", operation_id="save", response_class=Response, responses=_binary("application/zip"))
    async def save(name: Name) -> FileResponse:
        """The whole world as one file, to be opened again here or by `mirage generate --world`."""
        session = await sessions.get(name)
        return await _file(sessions, session, "application/zip", ".zip", session.walk.pack)

    @app.get(f"{route}/video.mp4", operation_id="video", response_class=Response, responses=_binary("video/mp4"))
    async def video(
        name: Name, fps: Annotated[int, Query(ge=1, le=60, description="Frames per second")] = 16
    ) -> FileResponse:
        """All that was imagined, as a video."""
        session = await sessions.get(name)
        return await _file(sessions, session, "video/mp4", ".mp4", partial(session.walk.write_video, fps=fps))


async def _see(sessions: Sessions, session: Session, pose: torch.Tensor) -> object:
    walk = session.walk
    return await asyncio.wrap_future(
        sessions.views.submit(("http", session.name), lambda: walk.look(walk.camera_at(pose)))
    )


async def _file(
    sessions: Sessions, session: Session, kind: str, suffix: str, write: Callable[[Path], object]
) -> FileResponse:
    """A file that is made, sent and removed."""
    folder = tempfile.TemporaryDirectory(prefix="mirage-")
    path = Path(folder.name, f"mirage-{session.title[:40] or 'world'}{suffix}".replace("/", "-"))
    try:
        await asyncio.wrap_future(sessions.files.submit(("files", session.name), partial(write, path)))
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(path, media_type=kind, filename=path.name, background=BackgroundTask(folder.cleanup))


def _binary(kind: str = "application/octet-stream") -> dict:
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}, "description": "The file"}}


def _body(*kinds: str) -> dict:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


async def _problem(status: int, _: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": " ".join(str(error).split())}, status)


async def _fault(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"detail": "something went wrong in the server; its log says what"}, 500)


async def _malformed(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return JSONResponse({"detail": f"{place}: {first['msg']}" if place else str(first["msg"])}, 422)


def _openapi(app: FastAPI, made: Callable[[], dict]) -> dict:
    """The schema, with the WebSocket beside it, for which OpenAPI has no word."""
    schema = made()
    template = "#/components/schemas/{model}"
    for kind in (TypeAdapter(Trouble), FROM_CLIENT):
        definitions = kind.json_schema(ref_template=template)
        parts = definitions.pop("$defs", {})
        schema["components"]["schemas"] |= parts | ({} if parts else {definitions["title"]: definitions})
    refer = lambda *names: [{"$ref": template.format(model=name)} for name in names]
    schema["x-websocket"] = {
        "/api/sessions/{name}/live": {
            "send": {"oneOf": refer("Look", "Shown", "Auto", "Prompted")},
            "receive": {"oneOf": refer("SessionState", "Trouble"), "binary": "a view, see docs/explorer.md"},
            "maxMessageBytes": LONGEST,
        }
    }
    return schema


def _version() -> str:
    try:
        return version("mirage-world")
    except PackageNotFoundError:
        return "unknown"
