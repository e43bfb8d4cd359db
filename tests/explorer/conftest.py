"""A real server of the explorer, with the embedded model, on a port of its own."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the explorer needs fastapi: pip install 'mirage-world[explore]'")

from mirage.explorer.client import Explorer
from mirage.explorer.server import Limits, Serving, address, make_server
from mirage.explorer.sessions import Sessions
from mirage.pipeline import MiragePipeline


@pytest.fixture(scope="session")
def pipeline() -> MiragePipeline:
    loaded = MiragePipeline.from_pretrained("nano")
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="session")
def serve(pipeline, tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Start servers; each call gives the address of one more."""
    running = []

    def start(folder: Path | None = None, *, token: str | None = None, **limits: float) -> str:
        serving = Serving(port=0, token=token, limits=Limits(**limits))
        sessions = Sessions(pipeline, folder or tmp_path_factory.mktemp("worlds"), serving.limits)
        sessions.warm_up()
        server = make_server(sessions, serving)
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        thread.start()
        running.append((server, thread, listener))
        return address(serving, listener.getsockname()[1])

    yield start
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.fixture(scope="session")
def server(serve) -> Explorer:
    """The server that most tests share; there is room for all of them."""
    return Explorer(serve(sessions=400))


@pytest.fixture
def world(server):
    """A world that nobody else uses, nothing imagined in it yet."""
    return server.begin("garden")
