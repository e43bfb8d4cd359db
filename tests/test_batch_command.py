"""`mirage generate --batch`: all jobs of a file are done once, bad lines are named, what is there stays."""

import json
from pathlib import Path

import pytest

import mirage.pipeline
from mirage.batch_command import FILES, MARK
from mirage.cli import main


@pytest.fixture
def place(tiny_model, photo, tmp_path, monkeypatch) -> Path:
    """A folder with a picture to work in, where "nano" is a tiny model."""
    monkeypatch.setitem(mirage.pipeline.EMBEDDED, "nano", tiny_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*lines: dict | str) -> None:
    Path("jobs.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))


def batch(*more: str) -> int:
    return main(["generate", "--batch", "jobs.jsonl", "--out", "out", "--workers", "1", "--frames", "9", *more])


def test_jobs_are_done_and_bad_lines_named(place, capsys):
    write(
        {"image": "photo.png", "path": "dolly", "seed": 1, "name": "one"},
        "",
        {"image": "gone.png", "path": "orbit"},
        {"image": "photo.png", "path": "orbit", "speed": 3},
        '{"image": "photo.png"',
        {"image": "photo.png", "path": "nowhere at all"},
        {"image": "photo.png", "path": "pan", "out": "elsewhere"},
        {"image": "photo.png"},
        {"image": "photo.png", "path": "dolly", "seed": 2, "frames": 5, "depth_scale": 2.0},
        {"image": "photo.png", "path": "dolly", "name": "one"},
        {"image": "photo.png", "path": "dolly", "name": "../up"},
    )
    assert batch() == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["00009", "one"]
    for name in ("00009", "one"):
        assert {path.name for path in Path("out", name).iterdir()} == {*FILES, MARK}
    assert json.loads(Path("out/00009/report.json").read_text())["frames"] == 5, "a line's own option wins"
    assert json.loads(Path("out/one/report.json").read_text())["frames"] == 9
    assert "line 3 of jobs.jsonl: image not found: gone.png" in said
    assert "line 5 of jobs.jsonl: it is no JSON" in said
    assert "line 7 of jobs.jsonl: out is for all lines" in said
    assert "line 8 of jobs.jsonl: path is missing" in said
    assert "line 10 of jobs.jsonl: name one is taken" in said
    assert "line 4 of jobs.jsonl" in said and "speed" in said and "line 6 of" in said and "line 11 of" in said
    assert "2 videos in out, 8 lines could not be done" in said
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    assert batch() == 0
    assert "2 jobs are done already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before


def test_a_job_that_was_killed_half_way_is_done_again_alike(place, capsys):
    write({"image": "photo.png", "path": "dolly", "name": "a"}, {"image": "photo.png", "path": "pan", "name": "b"})
    assert batch() == 0
    video = Path("out/a/video.mp4").read_bytes()
    (Path("out/a") / MARK).unlink()
    Path("out/a/video.mp4").unlink()
    Path("out/.mirage-0123abcd/new").mkdir(parents=True)
    assert batch() == 0
    assert "1 jobs are done already" in capsys.readouterr().out
    assert Path("out/a/video.mp4").read_bytes() == video and not Path("out/.mirage-0123abcd").exists()
    write({"image": "photo.png", "path": "orbit", "name": "a"})
    assert batch() == 2, "another video of the name is not overwritten"
    assert "holds the video of another line" in capsys.readouterr().err
    assert Path("out/a/video.mp4").read_bytes() == video


@pytest.mark.parametrize(
    "words, said",
    [
        (["photo.png", "--path", "pan", "--batch", "jobs.jsonl", "--out", "out"], "--batch takes its pictures from"),
        (["--batch", "jobs.jsonl"], "--out is needed"),
        (["--batch", "gone.jsonl", "--out", "out"], "--batch cannot be read: gone.jsonl"),
        (["--batch", "empty.jsonl", "--out", "out"], "--batch is empty"),
        (["--batch", "jobs.jsonl", "--out", "out"], "none of 1 jobs could be done; line 1: path is missing"),
        (["--batch", "other.jsonl", "--out", "out"], "line 1: sed is no option of mirage generate; did you mean seed?"),
    ],
)
def test_mistakes_are_one_sentence(words, said, place, capsys):
    write({"image": "photo.png"})
    Path("empty.jsonl").write_text("\n\n")
    Path("other.jsonl").write_text('{"image": "photo.png", "path": "pan", "sed": 3}\n')
    assert main(["generate", *words]) == 2
    assert said in capsys.readouterr().err
