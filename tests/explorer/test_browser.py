"""The page in a real browser: load, drop a picture, walk, imagine, undo, save, reload, reopen; two at once; a phone."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'mirage-world[test]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
WAIT = 90_000  # milliseconds: a busy machine is no failure


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        opened = play.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, server):
    """Pages of people who do not know each other; an error in a page fails the test."""
    contexts, errors = [], []

    def open_one(**options):
        context = browser.new_context(**{"viewport": {"width": 1180, "height": 760}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(server.base)
        return page

    open_one.errors = errors
    yield open_one
    for context in contexts:
        context.close()
    assert not errors


def begin(page, picture: str = "garden") -> str:
    """Walk into a bundled picture; gives the session's name."""
    page.click(f"[data-picture={picture}]")
    page.wait_for_selector("#known:not(:empty)")
    return page.url.rpartition("#")[2]


def pixels(page) -> np.ndarray:
    """What the view shows, small."""
    values = page.locator("#view").evaluate(
        """canvas => { const small = document.createElement("canvas"); small.width = small.height = 24;
        const c = small.getContext("2d"); c.drawImage(canvas, 0, 0, 24, 24);
        return [...c.getImageData(0, 0, 24, 24).data]; }"""
    )
    return np.array(values).reshape(24, 24, 4)[..., :3].astype(int)


def known(page) -> int:
    return int(re.match(r"\d+", page.inner_text("#known"))[0])


def chunks(page, count: int):
    """Wait until the timeline shows so many chunks, none under way."""
    expect = playwright.expect
    expect(page.locator("#strip li:not(.wait)")).to_have_count(1 + count, timeout=WAIT)
    expect(page.locator("#busy")).to_be_hidden(timeout=WAIT)


def hold(page, key: str, until) -> None:
    """Hold a key until something is so."""
    page.keyboard.down(key)
    for _ in range(400):
        page.wait_for_timeout(50)
        if until():
            break
    page.keyboard.up(key)
    assert until()


def test_a_walk_with_everything(open_page, server, tmp_path):
    page = open_page()
    assert page.locator("#start").is_visible()
    path = tmp_path / "My place.png"
    y, x = np.mgrid[:90, :120]
    Image.fromarray(np.stack([x * 2, y * 2, 255 - x - y], -1).astype(np.uint8)).save(path)
    page.set_input_files("#file", path)
    page.wait_for_selector("#known:not(:empty)")
    assert page.inner_text("#title") == "My place" and known(page) == 100
    name = page.url.rpartition("#")[2]

    page.locator("#auto").uncheck()
    first = pixels(page)
    hold(page, "KeyL", lambda: known(page) < 75)
    assert np.abs(pixels(page) - first).mean() > 10, "the view changes with the keys"
    unknown = known(page)
    page.keyboard.press("KeyR")
    chunks(page, 1)
    more = "least => parseInt(document.querySelector('#known').innerText) > least"
    page.wait_for_function(more, arg=unknown, timeout=WAIT)  # what was imagined is seen

    with page.expect_download() as download:
        page.keyboard.press("KeyX")
    download.value.save_as(tmp_path / "kept.zip")
    there = pixels(page)
    page.keyboard.press("KeyZ")
    chunks(page, 0)
    page.reload()
    page.wait_for_selector("#known:not(:empty)")
    assert page.url.endswith(name) and page.inner_text("#title") == "My place"
    chunks(page, 0)

    page.set_input_files("#file", tmp_path / "kept.zip")
    playwright.expect(page.locator("#title")).to_have_text("kept", timeout=WAIT)
    chunks(page, 1)
    page.wait_for_timeout(600)
    assert np.abs(pixels(page) - there).mean() < 6, "the world that was saved is the world that opens"
    state = server.open(page.url.rpartition("#")[2]).state
    assert state["id"] != name and state["frames"] == 17


def test_dropping_a_file(open_page, photo):
    page = open_page()
    data = list(photo.read_bytes())
    transfer = page.evaluate_handle(
        """data => { const t = new DataTransfer();
        t.items.add(new File([new Uint8Array(data)], "dropped.png", { type: "image/png" })); return t; }""",
        data,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    assert page.locator("#dropping").is_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#known:not(:empty)")
    assert page.inner_text("#title") == "dropped"


def test_paths_branches_and_the_way_back(open_page, server):
    page = open_page()
    begin(page, "parlour")
    page.select_option("#preset", "truck:distance=0.6")
    page.wait_for_selector("#plan:not([hidden])")
    assert "is known" in page.inner_text("#plan-said")
    page.click("[data-do=follow]")
    chunks(page, 1)
    first = page.url
    page.keyboard.press("KeyB")
    page.wait_for_url(lambda url: url != first)
    chunks(page, 1)
    page.keyboard.press("KeyV")
    world = server.open(page.url.rpartition("#")[2])
    for _ in range(300):
        page.wait_for_timeout(100)
        if np.allclose(world.state["pose"], world.state["start"], atol=1e-4):
            break
    assert np.allclose(world.state["pose"], world.state["start"], atol=1e-4), "back at the start"
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.click("#brand")
    assert page.locator("#walks li").count() == 2, "both walks are there to go on with"


def test_two_people_at_once(open_page):
    one, two = open_page(), open_page()
    names = begin(one, "bedroom"), begin(two, "garden")
    assert names[0] != names[1]
    before = pixels(one)
    two.locator("#auto").uncheck()
    hold(two, "ArrowLeft", lambda: known(two) < 90)
    assert np.array_equal(pixels(one), before) and known(one) == 100
    assert two.locator("#walks li").count() == 0 and one.inner_text("#title") == "bedroom"


def test_on_a_phone(open_page):
    page = open_page(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.tap("[data-picture=bedroom]")
    page.wait_for_selector("#known:not(:empty)")
    page.wait_for_selector("#stick-look", state="visible")
    box = page.locator("#stick-look").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.locator("#auto").uncheck()
    page.evaluate("scrollTo(0, 0)")
    for kind, x in (("pointerdown", middle[0]), ("pointermove", middle[0] + 40)):
        page.dispatch_event(
            "#stick-look", kind, {"pointerId": 1, "pointerType": "touch", "clientX": x, "clientY": middle[1]}
        )
    for _ in range(300):
        page.wait_for_timeout(50)
        if known(page) < 90:
            break
    assert known(page) < 90, "the stick looks around"
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "nothing sticks out sideways"


def test_a_walk_that_is_gone_says_so(open_page, server):
    page = open_page()
    page.goto(f"{server.base}/#nobody-is-here")
    page.reload()
    page.wait_for_selector("#toasts div")
    assert "no such session" in page.inner_text("#toasts") and page.locator("#start").is_visible()
    assert all("404" in error for error in open_page.errors)
    open_page.errors.clear()
