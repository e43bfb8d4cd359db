"""Drive a world from a program: the explorer's API for agents and robots. Needs no torch; `Live` needs websockets."""

import io
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from mirage.explorer.wire import POINT_TYPE, View, unpack_view

Number = int | float
Pose = Sequence[Number]
KINDS = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


class Refused(Exception):
    """The server said no; the text is its reason.

    Args:
        status: Of HTTP.
        reason: What it said.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Explorer:
    """A server of the explorer.

    Args:
        address: As `mirage explore` printed it; a token in it is used.
        token: The token, if it is not in the address.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, address: str = "http://127.0.0.1:7860/", *, token: str | None = None, timeout: Number = 300.0):
        parts = urllib.parse.urlsplit(address)
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.token = token or urllib.parse.parse_qs(parts.query).get("token", [None])[0]
        self.timeout = timeout

    def about(self) -> dict:
        """What the server offers: bundled pictures, presets, limits."""
        return self.ask("GET", "/api")

    def begin(self, picture: str | Path, *, fov: Number = 60.0, seed: int = 0) -> "RemoteWorld":
        """Begin a walk.

        Args:
            picture: Name of a bundled picture, or a file of one's own.
            fov: Field of view across the longer side, in degrees.
            seed: Of the noise.

        Returns:
            The world.

        Raises:
            Refused: If the server does not take it.
        """
        path = Path(picture)
        if path.suffix.lower() in KINDS:
            query = urllib.parse.urlencode({"title": path.stem, "fov": fov, "seed": seed})
            kind = KINDS[path.suffix.lower()]
            return RemoteWorld(self, self.ask("POST", f"/api/pictures?{query}", path.read_bytes(), kind))
        return RemoteWorld(self, self.ask("POST", "/api/sessions", {"picture": str(picture), "fov": fov, "seed": seed}))

    def open(self, world: str | Path) -> "RemoteWorld":
        """Go on in a world: a zip that `RemoteWorld.save` wrote, or the name of a session.

        Args:
            world: The file, or the name.

        Returns:
            The world.

        Raises:
            Refused: If there is none, or it cannot be trusted.
        """
        path = Path(world)
        if path.suffix == ".zip":
            query = urllib.parse.urlencode({"title": path.stem})
            return RemoteWorld(self, self.ask("POST", f"/api/worlds?{query}", path.read_bytes(), "application/zip"))
        return RemoteWorld(self, self.ask("GET", f"/api/sessions/{world}"))

    def ask(self, method: str, path: str, body: dict | bytes | None = None, kind: str = "application/json") -> object:
        """One request.

        Args:
            method: Of HTTP.
            path: With its query.
            body: JSON, or bytes of `kind`.
            kind: Content type of the body.

        Returns:
            The parsed answer; bytes with their headers if it is not JSON.

        Raises:
            Refused: If the server says no.
        """
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"content-type": kind} if data is not None else {}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                content = answer.read()
                if not content:
                    return None
                if answer.headers.get_content_type() != "application/json":
                    return content, answer.headers
                return json.loads(content)
        except urllib.error.HTTPError as error:
            with error:
                content = error.read()
            try:
                reason = str(json.loads(content)["detail"])
            except (ValueError, KeyError, TypeError):
                reason = f"the server answered {error.code}"
            raise Refused(error.code, reason) from None


class RemoteWorld:
    """A world on a server, and somebody in it.

    Poses are the twelve numbers of the upper 3 x 4 of `cam_from_world`, row by row, in OpenCV axes.

    Example:
        >>> world = Explorer().begin("garden")  # doctest: +SKIP
        >>> world.move("forward 0.5, left 20deg")["known"]  # doctest: +SKIP
        0.61
        >>> world.generate()  # doctest: +SKIP
        >>> Image.fromarray(world.read()).save("here.png")  # doctest: +SKIP
    """

    def __init__(self, server: Explorer, state: dict):
        self.server = server
        self.name = state["id"]
        self.path = f"/api/sessions/{self.name}"

    @property
    def state(self) -> dict:
        """All there is to know but the pictures: chunks, path, memory, depth, drift."""
        return self.server.ask("GET", self.path)

    def move(self, to: str | Pose, *, scale: Number = 1.0) -> dict:
        """Go somewhere; the way counts as walked.

        Args:
            to: A pose, or words as in "forward 1, left 20deg".
            scale: Factor on the distances of words.

        Returns:
            `pose`, `known` (share of the view) and `blocked`.
        """
        where = {"words": to, "scale": scale} if isinstance(to, str) else {"pose": [float(x) for x in to]}
        return self.server.ask("POST", f"{self.path}/move", where)

    def generate(
        self,
        poses: Sequence[Pose] | None = None,
        *,
        prompt: str | None = None,
        seed: int | None = None,
        wait: bool = True,
    ) -> dict:
        """Imagine along the way walked since the last chunk, or along a path.

        Args:
            poses: The path.
            prompt: What to imagine, for a model that reads text.
            seed: Of the noise; that of the world if None.
            wait: Come back when it is done.

        Returns:
            `chunks` that were made, and how many are `waiting`.
        """
        way = None if poses is None else [[float(x) for x in pose] for pose in poses]
        body = {"poses": way, "prompt": prompt, "seed": seed, "wait": wait}
        return self.server.ask("POST", f"{self.path}/generate", body)

    def plan(self, words: str | None = None, *, keyframes: Sequence[Pose] | None = None, frames: int = 49) -> dict:
        """A path from here, before anything is imagined along it.

        Args:
            words: A preset or a command.
            keyframes: Poses that it goes through, in place of words.
            frames: Number of its poses.

        Returns:
            `poses`, how much of each is `known`, `warnings`, `suggested_scale`.
        """
        body = {"words": words, "keyframes": keyframes and [list(map(float, k)) for k in keyframes], "frames": frames}
        return self.server.ask("POST", f"{self.path}/path", body)

    def read(self, pose: Pose | None = None, *, shade: bool = False) -> UInt8[np.ndarray, "h w 3"]:
        """What the memory shows.

        Args:
            pose: From where; from where one is if None.
            shade: Hatch what is not known.

        Returns:
            Colour.
        """
        query = {"shade": str(shade).lower()}
        if pose is not None:
            query["pose"] = ",".join(f"{float(x):.9g}" for x in pose)
        content, _ = self.server.ask("GET", f"{self.path}/view.jpg?{urllib.parse.urlencode(query)}")
        return open_picture(content)

    def points(self) -> tuple[Float32[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
        """The memory as points: places in world units, colours, and whether they were given or imagined."""
        content, _ = self.server.ask("GET", f"{self.path}/points")
        points = np.frombuffer(content, POINT_TYPE)
        return points["place"].copy(), points["colour"].copy(), points["given"].astype(bool)

    def undo(self, chunks: int = 1) -> dict:
        """Take chunks back.

        Args:
            chunks: How many of the last.

        Returns:
            The state.
        """
        return self.server.ask("POST", f"{self.path}/undo", {"chunks": chunks})

    def branch(self, chunks: int) -> "RemoteWorld":
        """Another world that shares the beginning of this one; this one is kept.

        Args:
            chunks: How many chunks it has.

        Returns:
            The other world.
        """
        return RemoteWorld(self.server, self.server.ask("POST", f"{self.path}/branch", {"chunks": chunks}))

    def save(self, path: str | Path) -> None:
        """Write the whole world as one file.

        Args:
            path: The file, .zip.
        """
        Path(path).write_bytes(self.server.ask("GET", f"{self.path}/world.zip")[0])

    def video(self, path: str | Path, *, fps: int = 16) -> None:
        """Write all that was imagined as a video.

        Args:
            path: The file, .mp4.
            fps: Frames per second.
        """
        Path(path).write_bytes(self.server.ask("GET", f"{self.path}/video.mp4?fps={fps}")[0])

    def leave(self) -> None:
        """Free the place on the server; the world is kept there, and wakes when it is asked for."""
        self.server.ask("DELETE", self.path)

    def live(self) -> "Live":
        """A connection that answers each pose with a picture, for tens of them per second."""
        return Live(self)


class Live:
    """Poses in, pictures out. Use it in a `with` block.

    Args:
        world: Whose.
    """

    def __init__(self, world: RemoteWorld):
        self._world = world
        self.state: dict | None = None
        self._number = 0

    def __enter__(self) -> "Live":
        from websockets.sync.client import connect

        server = self._world.server
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
        address = f"{server.base.replace('http', 'ws', 1)}{self._world.path}/live"
        self._connection = connect(address, additional_headers=headers, compression=None, max_size=2**24)
        self.socket = self._connection.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)

    def look(self, pose: Pose, *, walk: bool = True, timeout: Number = 30.0) -> View:
        """Go to a pose, and see.

        Args:
            pose: Where.
            walk: Whether the way there counts as walked.
            timeout: Seconds to wait.

        Returns:
            What is seen; `state` holds the newest state that came in between.

        Raises:
            Refused: If the server does not understand the pose.
            TimeoutError: If no picture comes.
        """
        self._number += 1
        where = {"number": self._number, "pose": [float(x) for x in pose], "walk": walk}
        self.socket.send(json.dumps({"type": "look", **where}))
        while True:
            message = self.socket.recv(timeout)
            if isinstance(message, bytes):
                view = unpack_view(message)
                self.socket.send(json.dumps({"type": "shown", "number": view.number}))
                if view.number == self._number:
                    return view
                continue
            news = json.loads(message)
            if news["type"] == "error":
                raise Refused(400, news["message"])
            self.state = news


def open_picture(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a picture that the server sent.

    Args:
        data: The file.

    Returns:
        Colour.
    """
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))
