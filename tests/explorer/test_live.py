"""The WebSocket under good and bad clients: newest pose wins, nobody's trouble is another's, no frame goes astray."""

import json
import socket
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from explorer_clients import answers, listen
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from mirage.explorer.messages import FROM_CLIENT
from mirage.explorer.wire import unpack_view

HERE = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]


def look(number: int, aside: float = 0.0, **more: object) -> str:
    pose = [*HERE[:3], -aside, *HERE[4:]]
    return json.dumps({"type": "look", "number": number, "pose": pose, "walk": False, **more})


def view(connection, timeout: float = 20.0):
    while True:
        message = connection.recv(timeout)
        if isinstance(message, bytes):
            return unpack_view(message)


def test_a_pose_is_answered_by_its_picture(world):
    with world.live() as live:
        seen = live.look(HERE)
        assert seen.known == 1.0 and seen.given == 1.0 and seen.image.shape == (192, 192, 3)
        assert np.array_equal(seen.image, world.read()), "both doors show the same"
        beside = live.look([*HERE[:3], -0.5, *HERE[4:]], walk=False)
        assert beside.known < 1 and beside.visible.mean() == pytest.approx(beside.known)
        assert world.state["pose"] == HERE, "a look that is no walk moves nobody"
        assert live.state["frames"] == 1


def test_the_newest_pose_wins_and_one_picture_is_under_way(world):
    with listen(world) as connection:
        connection.send(look(1))
        first = view(connection)
        for number in range(2, 60):
            connection.send(look(number, aside=0.01 * number))
        with pytest.raises(TimeoutError):
            view(connection, 0.7)  # the first has not been acknowledged
        connection.send(json.dumps({"type": "shown", "number": first.number}))
        last = view(connection)
        assert (first.number, last.number) == (1, 59), "those between were never made"
        expected = world.read([*HERE[:3], -0.59, *HERE[4:]])
        assert np.array_equal(last.image, expected)


def test_it_imagines_by_itself_where_one_walks_into_the_unknown(world):
    with world.live() as live:
        for step in range(1, 9):
            turn = np.radians(4 * step)
            c, s = float(np.cos(turn)), float(np.sin(turn))
            live.look([c, 0, s, 0, 0, 1, 0, 0, -s, 0, c, 0])
        deadline = time.monotonic() + 60
        while not (live.state and live.state["chunks"]) and time.monotonic() < deadline:
            live.look([c, 0, s, 0, 0, 1, 0, 0, -s, 0, c, 0])
            time.sleep(0.2)
        assert live.state["chunks"], "nobody pressed a key"


def test_it_does_not_imagine_when_told_not_to(world):
    with world.live() as live:
        live.socket.send(json.dumps({"type": "auto", "on": False}))
        c, s = float(np.cos(0.5)), float(np.sin(0.5))
        for _ in range(4):
            live.look([c, 0, s, 0, 0, 1, 0, 0, -s, 0, c, 0])
            time.sleep(0.2)
        assert world.state["working"] == 0 and world.state["chunks"] == [] and not world.state["auto"]


GARBAGE = [
    "",
    "{}",
    "null",
    "[" * 2000,
    "\x00",
    '{"type": "look"}',
    '{"type": "walk"}',
    '{"type": "look", "number": 1e300, "pose": [], "walk": true}',
    look(3, pose=[0.0] * 12),
    look(3, pose=["1"] * 12),
    look(3, pose=[float("nan")] * 12),
    look(-1),
    look(3, extra=1),
    '{"type": "auto", "on": "yes"}',
    "x" * 5000,
]


@pytest.fixture(scope="module")
def patient(server):
    """A connection that garbage is thrown at."""
    with listen(server.begin("garden")) as connection:
        yield connection


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.text(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.sampled_from(["look", "shown", "auto"]),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "pose", "number"]), inner)
            ),
            max_leaves=12,
        ).map(json.dumps),
    )
)
@example(GARBAGE[0])
@example(GARBAGE[3])
@example(GARBAGE[8])
@example(GARBAGE[10])
@example(GARBAGE[14])
def test_garbage_gets_a_clear_answer_and_the_connection_goes_on(patient, text):
    try:
        FROM_CLIENT.validate_json(text)
    except ValueError:
        patient.send(text)
        said = answers(patient, "error")["message"]
        assert said and len(said) < 400 and "Traceback" not in said


@pytest.mark.parametrize("text", GARBAGE)
def test_each_known_kind_of_garbage_is_refused(patient, text):
    patient.send(text)
    assert answers(patient, "error")["message"]


def test_bytes_and_giants(world):
    with listen(world) as connection:
        connection.send(b"\xff" * 100)
        assert "JSON" in answers(connection, "error")["message"]
        connection.send("x" * 200_000)
        with pytest.raises(ConnectionClosed) as closed:
            answers(connection, "never")
        assert closed.value.rcvd.code == 1009


def test_an_unknown_session_and_too_many_windows(world):
    ghost = type("Ghost", (), {"server": world.server, "path": "/api/sessions/nobody-is-here"})
    with listen(ghost) as connection, pytest.raises(ConnectionClosed) as closed:
        answers(connection, "state")
    assert closed.value.rcvd.code == 4004
    with ExitStack() as windows:
        for _ in range(4):
            answers(windows.enter_context(listen(world)), "state")
        with listen(world) as connection, pytest.raises(ConnectionClosed) as closed:
            assert "close one" in answers(connection, "error")["message"]
            answers(connection, "state")
        assert closed.value.rcvd.code == 4008


def test_other_sites_cannot_connect(world):
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as refused, listen(world, origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


def test_bad_neighbours_are_not_noticed(server):
    """One never reads, one floods, one leaves in the middle of a chunk: the good one gets every picture, its own."""
    good, silent, flood, leaver = (server.begin(name) for name in ("bedroom", "garden", "garden", "parlour"))
    expected = good.read()

    never = socket.create_connection(("127.0.0.1", int(server.base.rpartition(":")[2])))
    host = server.base.removeprefix("http://")
    never.sendall(
        f"GET {silent.path}/live HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    stop = threading.Event()

    def pour() -> None:
        with listen(flood) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    connection.send(look(number))
                except ConnectionClosed:
                    return

    thread = threading.Thread(target=pour)
    thread.start()
    leaver.move("left 20deg")
    with listen(leaver):
        leaver.generate(wait=False)
    with good.live() as live:
        for _ in range(6):
            assert np.array_equal(live.look(HERE, walk=False).image, expected)
    stop.set()
    thread.join(30)
    never.close()
    deadline = time.monotonic() + 60
    while leaver.state["working"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(leaver.state["chunks"]) == 1, "the chunk was finished and kept"
    assert server.about()["model"] == "nano"


def test_a_flood_is_slowed_and_then_dropped(serve, monkeypatch):
    from mirage.explorer import live as module
    from mirage.explorer.client import Explorer

    monkeypatch.setattr(module, "THROTTLED", 0.5)
    world = Explorer(serve(messages_per_second=100)).begin("garden")
    with listen(world) as connection, pytest.raises(ConnectionClosed) as closed:
        for number in range(100_000):
            connection.send(json.dumps({"type": "shown", "number": number}))
    assert closed.value.rcvd.code == 1008 and "too many messages" in closed.value.rcvd.reason


def test_no_frame_of_one_session_reaches_another(server):
    worlds = [server.begin(name) for name in ("bedroom", "garden", "parlour", "garden")]
    expected = [[world.read([*HERE[:3], -aside, *HERE[4:]]) for aside in (0.0, 0.2)] for world in worlds]
    wrong = []

    def watch(index: int) -> None:
        with worlds[index].live() as live:
            for turn in range(6):
                aside = (0.0, 0.2)[turn % 2]
                seen = live.look([*HERE[:3], -aside, *HERE[4:]], walk=False)
                if not np.array_equal(seen.image, expected[index][turn % 2]):
                    wrong.append((index, turn))

    threads = [threading.Thread(target=watch, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)
