"""The verbs, through the client and a real server: what they do, and that what was seen stays."""

import io
import threading
import time
import urllib.request

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mirage.explorer.client import Explorer, Refused
from mirage.explorer.pictures import decode_upload
from mirage.video.io import read_video

HERE = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]


def test_a_walk_from_beginning_to_end(world, tmp_path):
    start = world.state
    assert start["frames"] == 1 and start["chunks"] == [] and start["drift"]["changed"] == 0
    first = world.read()
    moved = world.move("left 25deg")
    assert 0.1 < moved["known"] < 0.9 and not moved["blocked"]
    before = world.read()
    made = world.generate()
    assert [chunk["number"] for chunk in made["chunks"]] == [1] and made["waiting"] == 0
    state = world.state
    assert state["frames"] == 17 and len(state["path"]) == 5 and state["memory_bytes"] > start["memory_bytes"]
    np.testing.assert_allclose(state["chunks"][0]["pose"], moved["pose"], atol=1e-5)
    assert world.move(moved["pose"])["known"] > moved["known"] + 0.1
    assert np.abs(world.read().astype(int) - before).max() > 20
    assert np.array_equal(world.read(HERE), first), "what was given stays"

    world.video(tmp_path / "walk.mp4")
    assert read_video(tmp_path / "walk.mp4").shape == (17, 192, 192, 3)
    places, colours, given_ = world.points()
    assert len(places) == len(colours) > 5000 and np.isfinite(places).all() and 0 < given_.mean() < 1


def test_undo_takes_back_what_was_imagined_and_nothing_else(world):
    world.move("right 20deg")
    before = world.read()
    world.generate()
    imagined = world.read()
    state = world.undo()
    assert state["frames"] == 1 and state["chunks"] == []
    assert np.array_equal(world.read(), before)
    world.generate()
    assert np.array_equal(world.read(), imagined), "the same walk gives the same chunk"
    world.undo()
    world.generate(seed=5)
    assert not np.array_equal(world.read(), imagined), "another seed gives another one"
    with pytest.raises(Refused, match="at most 1"):
        world.undo(2)


def test_a_branch_shares_the_past_and_not_the_future(world):
    world.move("left 15deg")
    world.generate()
    other = world.branch(1)
    kept = world.read()
    assert other.name != world.name and other.state["branch_of"] == world.name
    assert np.array_equal(other.read(world.state["pose"]), kept)
    other.move("left 20deg")
    other.generate()
    assert (len(other.state["chunks"]), len(world.state["chunks"])) == (2, 1)
    assert np.array_equal(world.read(), kept)
    assert world.branch(0).state["chunks"] == []


def test_a_saved_world_opens_as_it_was(world, server, tmp_path):
    world.move("forward 0.4 and right 12deg")
    world.generate()
    world.save(tmp_path / "kept.zip")
    again = server.open(tmp_path / "kept.zip")
    assert again.name != world.name and again.state["title"] == "kept"
    assert np.array_equal(again.read(), world.read())
    assert again.state["chunks"] == world.state["chunks"]
    again.move("right 10deg")
    assert again.generate()["chunks"][0]["number"] == 2


def test_a_session_sleeps_and_wakes(serve, tmp_path):
    server = Explorer(serve(tmp_path, sessions=1))
    first = server.begin("bedroom")
    first.move("left 10deg")
    first.generate()
    seen = first.read()
    second = server.begin("garden")  # the first goes to sleep
    assert second.state["frames"] == 1
    assert server.open(first.name).state["frames"] == 17, "it wakes, and the second sleeps"
    assert np.array_equal(first.read(), seen)
    with first.live() as live:
        live.look(HERE, walk=False)
        with pytest.raises(Refused, match="a window still shows it"):
            first.leave()
    deadline = time.monotonic() + 20
    while True:  # until the server has noticed that the window is closed
        try:
            first.leave()
            break
        except Refused:
            assert time.monotonic() < deadline
    other = Explorer(serve(tmp_path))  # another process would see the same
    assert np.array_equal(other.open(first.name).read(), seen)


def test_a_full_server_says_so(serve, tmp_path):
    server = Explorer(serve(tmp_path, sessions=1))
    with server.begin("garden").live() as live:
        live.look(HERE)
        with pytest.raises(Refused, match="as many as this server takes") as refused:
            server.begin("garden")
        assert refused.value.status == 503


def test_a_path_is_planned_before_it_is_walked(world):
    plan = world.plan("orbit:degrees=25", frames=33)
    assert len(plan["poses"]) == len(plan["known"]) == 33 and plan["known"][0] == 1 > plan["known"][-1]
    far = world.plan("forward 500", frames=9)
    assert any("median depth" in warning for warning in far["warnings"]) and far["suggested_scale"] < 0.1
    keyed = world.plan(keyframes=[plan["poses"][10], plan["poses"][32]], frames=21)
    np.testing.assert_allclose(keyed["poses"][-1], plan["poses"][32], atol=1e-6)
    assert world.state["frames"] == 1, "nothing is imagined by a plan"
    made = world.generate(plan["poses"][1:])
    assert world.state["frames"] == 1 + 16 * len(made["chunks"])
    np.testing.assert_allclose(world.state["pose"], plan["poses"][-1], atol=1e-6)


def test_chunks_of_many_walks_take_turns(server):
    worlds = [server.begin("parlour") for _ in range(3)]
    for world in worlds:
        world.move("left 15deg")
    threads = [threading.Thread(target=world.generate) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    reads = [world.read() for world in worlds]
    assert all(len(world.state["chunks"]) == 1 for world in worlds)
    assert all(np.array_equal(read, reads[0]) for read in reads), "the same seed, picture and walk"


@pytest.mark.parametrize(
    "verb, body, said",
    [
        ("move", {"words": "sideways 3"}, "did not understand"),
        ("move", {"words": "/etc/passwd"}, "preset or a command"),
        ("move", {"words": "forward 1000000"}, "at most"),
        ("move", {}, "either pose or words"),
        ("move", {"pose": [2.0, *HERE[1:]]}, "rotation"),
        ("move", {"pose": HERE[:-1]}, "12 items"),
        ("move", {"pose": [float("1e30")] * 12}, "less than or equal"),
        ("move", {"pose": HERE, "force": True}, "Extra inputs"),
        ("generate", {}, "move or turn first"),
        ("generate", {"prompt": "a castle"}, "reads no text"),
        ("path", {"words": "orbit:wobble=3"}, "not an option"),
        ("path", {"words": "spiral", "frames": 10**6}, "513"),
        ("undo", {}, "at most 0"),
        ("branch", {"chunks": 9}, "from 0 to 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(world, verb, body, said):
    with pytest.raises(Refused, match=said) as refused:
        world.server.ask("POST", f"{world.path}/{verb}", body)
    assert refused.value.status in (400, 422) and "\n" not in str(refused.value)
    assert world.state["frames"] == 1


def test_unknown_names_are_unknown(server, world):
    for path in ("/api/sessions/nobody-here-1", "/api/sessions/..%2f..%2fetc", f"{world.path}/chunks/7.jpg"):
        with pytest.raises(Refused) as refused:
            server.ask("GET", path)
        assert refused.value.status in (404, 422)
    with pytest.raises(Refused, match="there is no picture"):
        server.begin("cellar")


def encoded(kind: str, size: tuple[int, int] = (90, 60), **options) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_of_ones_own(server, tmp_path, kind):
    path = tmp_path / f"mine.{kind.lower()}"
    path.write_bytes(encoded(kind))
    state = server.begin(path, fov=50).state
    assert state["title"] == "mine" and state["width"] > state["height"]


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "JPEG, PNG, WEBP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "JPEG, PNG, WEBP"),
        (encoded("GIF"), "JPEG, PNG, WEBP"),
        (encoded("JPEG")[:400], "damaged"),
        (encoded("PNG", (8, 8)), "at least 16"),
        (encoded("PNG", (9000, 9000)), "megapixels"),
        (encoded("PNG", (3000, 20)), "no stripe"),
    ],
    ids=["empty", "svg", "gif", "cut", "tiny", "bomb", "stripe"],
)
def test_what_is_no_picture_is_refused(server, data, said):
    with pytest.raises(Refused, match=said) as refused:
        server.ask("POST", "/api/pictures", data, "image/png")
    assert refused.value.status == 400


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2000), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_damaged_pictures_are_decoded_or_refused(noise, place, kind):
    good = encoded(kind)
    place %= len(good)
    try:
        image = decode_upload(good[:place] + noise + good[place + len(noise) :])
    except ValueError:
        return
    assert image.dtype == np.uint8 and image.shape[2] == 3


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + bytes(18), b"not a zip at all"])
def test_what_is_no_world_is_refused_and_leaves_nothing(serve, tmp_path, data):
    server = Explorer(serve(tmp_path))
    with pytest.raises(Refused) as refused:
        server.ask("POST", "/api/worlds", data, "application/zip")
    assert refused.value.status == 400 and list(tmp_path.iterdir()) == []


def test_hosts_origins_and_sizes(server):
    def status(path: str = "/api", data: bytes | None = None, **headers: str) -> int:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(server.base + path, data, names)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    own = server.base.removeprefix("http://")
    begin = b'{"picture": "no-such"}'
    assert status() == 200 and status(host=f"localhost:{own.split(':')[1]}") == 200
    assert status(host="evil.example") == 421, "DNS rebinding"
    kind = {"content_type": "application/json"}
    assert status("/api/sessions", begin, origin=f"http://{own}", **kind) == 404
    for origin in ("http://evil.example", "null", "http://localhost:1", f"https://{own}.evil.example"):
        assert status("/api/sessions", begin, origin=origin, **kind) == 403
    assert status("/api/sessions", b" " * (2**20 + 1), **kind) == 413
    assert status("/api/sessions", b" " * 2**24, **kind) == 413, "told, not cut off while it sends"
    assert status("/api/sessions", b"{", **kind) == 422
    assert status("/static/../server.py") == 404 and status("/static/%2e%2e/server.py") == 404


def test_a_token_opens_the_door_and_nothing_else_does(serve):
    address = serve(token="k7PqX2mZ9wLr")
    base = address.split("?")[0]
    for bad in (base, f"{base}?token=k7PqX2mZ9wLs", f"{base}?token="):
        with pytest.raises(Refused, match="token is needed") as refused:
            Explorer(bad).about()
        assert refused.value.status == 401
    assert Explorer(address).about()["model"] == "nano"
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(address, timeout=30) as page:
        assert "token" not in page.url and b"Mirage" in page.read()
    with opener.open(f"{base}api", timeout=30) as answer:
        assert answer.status == 200, "the cookie is enough"
    with Explorer(address).begin("garden").live() as live:
        assert live.look(HERE).known == 1.0
