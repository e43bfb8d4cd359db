"""One WebSocket: poses come in, pictures go out; one picture under way at most, the newest pose wins."""

import asyncio
import contextlib
import time
from collections import deque
from functools import partial

import torch
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mirage.explorer.messages import FROM_CLIENT, Auto, Look, Prompted, Shown, Trouble, cameras_of
from mirage.explorer.sessions import Session, Sessions
from mirage.explorer.wire import pack_view
from mirage.explorer.worker import Crowded

LONGEST = 4096  # bytes of a message from a client
PATIENCE = 20.0  # seconds: a client that takes no message for so long is dropped
THROTTLED = 10.0  # seconds of being too fast before a client is dropped
ENOUGH = 0.97  # share of a view that is known: no need to imagine
STILL = 0.3  # seconds without a step: standing still
TROUBLES = 8  # that wait for a client; older ones are dropped


class Live:
    """A connection to a session."""

    def __init__(self, socket: WebSocket, session: Session, sessions: Sessions):
        self.socket, self.session, self.sessions = socket, session, sessions
        self._look: Look | None = None
        self._under_way: int | None = None
        self._sent = 0.0
        self._state_due = True
        self._troubles: deque[str] = deque(maxlen=TROUBLES)
        self._wake = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve until the client goes, or has to."""
        self.session.watchers.add(self._changed)
        self._wake.set()  # the state is the first thing that is sent
        tasks = [asyncio.create_task(part()) for part in (self._read, self._write)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.session.watchers.discard(self._changed)
            self.session.used = time.monotonic()
            if self._later is not None:
                self._later.cancel()
            for task in tasks:
                task.cancel()
            for done in await asyncio.gather(*tasks, return_exceptions=True):
                gone = (asyncio.CancelledError, WebSocketDisconnect, TimeoutError, OSError, RuntimeError)
                if isinstance(done, BaseException) and not isinstance(done, gone):
                    raise done
            if self.socket.application_state is WebSocketState.CONNECTED:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(self.socket.close(1001), 1.0)

    def _changed(self, trouble: str | None) -> None:
        self._state_due = True
        if trouble is not None:
            self._troubles.append(trouble)
        self._wake.set()

    async def _read(self) -> None:
        """Take messages no faster than the limit; a flood waits in the client's own socket."""
        rate = self.sessions.limits.messages_per_second
        tokens, last, throttled = rate, time.monotonic(), 0.0
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            now = time.monotonic()
            tokens, last = min(rate, tokens + (now - last) * rate), now
            tokens -= 1
            if tokens < 0:
                throttled += 1 / rate
                if throttled > THROTTLED:
                    return await self.socket.close(1008, "too many messages")
                await asyncio.sleep(-tokens / rate)
            elif tokens > rate / 2:
                throttled = 0.0
            self._take(message.get("text"))
            self._wake.set()

    def _take(self, text: str | None) -> None:
        """Do what one message says; a bad one is answered, and does nothing."""
        if text is None or len(text) > LONGEST:
            self._troubles.append(f"messages are JSON texts of at most {LONGEST} characters")
            return
        try:
            message = FROM_CLIENT.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "message"
            self._troubles.append(f"message not understood: {place}: {first['msg']}")
            return
        session = self.session
        session.used = time.monotonic()
        if isinstance(message, Look):
            self._look = message
            session.walk.go(torch.tensor([*message.pose, 0, 0, 0, 1]).view(4, 4), walk=message.walk)
            if message.walk:
                session.stirred = time.monotonic()
        elif isinstance(message, Shown):
            if message.number == self._under_way:
                self._under_way = None
        elif isinstance(message, Auto):
            session.auto = message.on
            session.tell()
        elif isinstance(message, Prompted):
            session.prompt = message.prompt

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._state_due:
                self._state_due = False
                await self._send(self.sessions.state(self.session).model_dump_json())
            while self._troubles:
                await self._send(Trouble(message=self._troubles.popleft()).model_dump_json())
            if self._look is not None and self._under_way is None:
                look, self._look = self._look, None
                self._under_way = look.number
                try:
                    picture = await asyncio.wrap_future(self.sessions.views.submit(id(self), partial(self._see, look)))
                except Crowded:
                    self._look, self._under_way = self._look or look, None
                    await asyncio.sleep(0.05)
                    self._wake.set()
                    continue
                await self._send(picture[0])
                if look.walk:
                    self._consider(picture[1])

    def _consider(self, known: float) -> None:
        """Imagine if that is needed, now or when they have stood still for a moment."""
        if self._later is not None:
            self._later.cancel()
        imagine_if_needed(self.sessions, self.session, known)
        again = partial(imagine_if_needed, self.sessions, self.session, known)
        self._later = asyncio.get_running_loop().call_later(1.2 * STILL, again)

    def _see(self, look: Look) -> tuple[bytes, float]:
        walk = self.session.walk
        view = walk.look(cameras_of([look.pose], walk.camera))
        return pack_view(look.number, view.image, view.visible, view.given), float(view.visible.mean())

    async def _send(self, message: str | bytes) -> None:
        send = self.socket.send_text if isinstance(message, str) else self.socket.send_bytes
        await asyncio.wait_for(send(message), PATIENCE)


def imagine_if_needed(sessions: Sessions, session: Session, known: float) -> None:
    """Begin a chunk where somebody walks into the unknown, unless one is being made or they do not want it.

    Args:
        sessions: All sessions.
        session: Whose walk.
        known: Share of the view that is known.
    """
    walk = session.walk
    if not session.auto or session.working or known > ENOUGH or len(walk.chunks) >= sessions.limits.chunks:
        return
    still = time.monotonic() - session.stirred > STILL
    if walk.walked < (0.05 if still else 0.6):
        return
    with contextlib.suppress(Crowded, ValueError):
        sessions.room_for(session, 1)
        sessions.generate(session, walk.next_chunks(), session.prompt or None)
