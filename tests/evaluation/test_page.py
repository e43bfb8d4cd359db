"""The page of a measurement: what it says, and that its videos play in step in a browser, from disk."""

import shutil

import numpy as np
import pytest

from mirage.evaluation.bench.tables import Table
from mirage.evaluation.page import FPS, Film, write_film, write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FRAMES = 25


@pytest.fixture
def page(tmp_path):
    """Two videos whose brightness tells the frame."""
    for name in ("scene-truth", "scene-latent"):
        write_film(tmp_path, name, np.arange(FRAMES, dtype=np.uint8).repeat(32 * 48 * 3).reshape(-1, 32, 48, 3) * 10)
    videos = {"the truth": "films/scene-truth.mp4", "*ours* & <theirs>": "films/scene-latent.mp4"}
    table = Table(title="Figures", columns=["row", "dB"], rows=[["*control:* a", "1.50 (1.00, 2.00)"]], note="`x` < y")
    settings = [("PSNR", "library 1.0", "data_range=255")]
    films = [Film(title="scene", videos=videos)]
    write_page(
        tmp_path, title="A < B", lead="**Lead.**", tables=[table], films=films, settings=settings, command="a & b"
    )
    return tmp_path


def test_what_is_written_is_shown_as_it_is_meant(page):
    text = (page / "report.html").read_text()
    for part in (
        "<title>A &lt; B</title>", "<strong>Lead.</strong>", "<em>ours</em> &amp; &lt;theirs&gt;",
        "<td>1.50<small>(1.00, 2.00)</small></td>", "<tr class=control>", "<code>x</code> &lt; y",
        "<code>a &amp; b</code>", "<td class=word>data_range=255</td>",
    ):  # fmt: skip
        assert part in text, part
    assert "library 1.0" in (page / "table.md").read_text() and "http" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_videos_play_in_step(page):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'mirage-world[test]'")
    with playwright.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab, faults = opened.new_page(), []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto((page / "report.html").as_uri())
        playwright.expect(tab.locator("output")).to_have_text(f"0 / {FRAMES - 1}", timeout=30_000)
        times = "[...document.querySelectorAll('video')].map(v => v.currentTime)"
        tab.locator("input").evaluate("range => { range.value = 12; range.oninput(); }")
        assert tab.evaluate(times) == pytest.approx([12.5 / FPS] * 2), "a frame that is chosen is shown in all"
        tab.locator("button").click()
        tab.wait_for_function("+document.querySelector('input').value > 15", timeout=30_000)
        tab.locator("button").click()
        first, second = tab.evaluate(times)
        assert first == pytest.approx(second)
        assert faults == []
        opened.close()
