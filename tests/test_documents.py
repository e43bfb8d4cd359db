"""Documentation runs: the examples, and the Python of the README."""

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import mirage.pipeline
from mirage.cli import _parser

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = sorted((REPOSITORY / "examples").glob("0*.py"))


@pytest.fixture
def place(tiny_model, photo, tmp_path, monkeypatch) -> Path:
    """A folder to work in, where "nano" is a tiny model, so that a test takes seconds."""
    monkeypatch.setitem(mirage.pipeline.EMBEDDED, "nano", tiny_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", [p for p in EXAMPLES if "another_model" not in p.name], ids=lambda p: p.stem)
def test_example(path, place, photo, monkeypatch, capsys):
    before = set(place.iterdir())
    monkeypatch.setattr(sys, "argv", [str(path), str(photo)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    assert set(place.iterdir()) > before


def test_another_model(shared, tmp_path, monkeypatch):
    path = next(p for p in EXAMPLES if "another_model" in p.name)
    data = shared / "data"
    monkeypatch.setattr(
        sys, "argv", [str(path), str(data / "weights_taef2_flux2"), str(data / "hololens_office_loop"), str(tmp_path)]
    )
    runpy.run_path(str(path), run_name="__main__")
    assert (tmp_path / "read.jpg").stat().st_size > 10_000
    assert (tmp_path / "points.ply").stat().st_size > 10**6
    monkeypatch.setattr(sys, "argv", [str(path)])
    with pytest.raises(SystemExit, match="Three folders are needed"):
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) <= 60


def test_python_of_the_readme(place, photo):
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    shutil.copy(photo, place / "photo.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(code, {})
    assert (place / "walk.mp4").exists()


def test_python_of_the_page_on_plugging_in(tmp_path, monkeypatch, capsys):
    """Block after block, as a reader would."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "plug-in.md").read_text(), re.S)
    assert len(blocks) > 7
    names: dict = {}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    assert "of the cells are known" in said and "stride 16 and 48 channels are asked for" in said
    assert (tmp_path / "points.ply").stat().st_size > 27 * names["points"]


def test_commands_of_the_pages_are_understood():
    """Lines of code blocks, and all that stands in backticks and has options."""
    pages = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("benchmarks/**/*.md")]
    text = "\n".join(page.read_text() for page in pages)
    lines = re.findall(r"^ *(mirage .*)$", text, re.M)
    lines += re.findall(r"`(?:timeout \d+ )?(mirage [^`\n]* --[^`]*)`", text)
    assert len(lines) > 9
    for line in lines:
        assert _parser().parse_args(shlex.split(line, comments=True)[1:]).run


def test_links_lead_somewhere():
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_names_in_the_method_page_exist():
    """docs/method.md maps equations to `file.py:name`; both must be there."""
    text = (REPOSITORY / "docs" / "method.md").read_text()
    places = re.findall(r"`([\w/]+\.py):([\w.]+)`", text)
    assert len(places) > 20
    for file, name in places:
        source = (REPOSITORY / "src" / "mirage" / file).read_text()
        for part in name.split("."):
            assert re.search(rf"(def|class) {part}\b|^ *{part}\b\s*[:=]", source, re.M), f"{file} has no {name}"
