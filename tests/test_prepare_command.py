"""`mirage prepare` as a user meets it: what it prints, its exit codes, its sentences."""

import re
import sys
from pathlib import Path

import pytest

from mirage.cli import main
from mirage.dataset import Shards

sys.path.append(str(Path(__file__).parent / "dataset"))
from small_footage import make_walk, write_rgbd

TOY = ["--size", "48x64", "--frames", "9", "--workers", "1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A folder of footage: one good, one whose last frame is broken."""
    folder, walk = tmp_path_factory.mktemp("footage"), make_walk()
    write_rgbd(folder / "good", walk, frames=9)
    torn = write_rgbd(folder / "torn", walk, frames=9)
    (torn / "rgb" / "00008.png").write_bytes(b"no picture")
    return folder


def test_prepare_check_and_export(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", str(source), "--out", "shards", *TOY]) == 0
    said = capsys.readouterr().out
    assert "skipped torn-00000: " in said and "00008.png" in said
    assert re.search(r"shards: 1 clips in 1 shards, [\d.]+ MB", said)
    assert main(["prepare", str(source), "--out", "shards", *TOY]) == 0
    assert "all of it was there" in capsys.readouterr().out
    assert main(["prepare", "--check", "shards"]) == 0
    said = capsys.readouterr().out
    assert "shards is whole: 1 clips" in said and "0 clips suspect" in said
    assert Path("shards/check.png").stat().st_size > 5000
    assert len(Shards("shards")) == 1, "the sheet is no part of the set"
    assert main(["prepare", "--check", "shards", "--export", "webdataset", "tars"]) == 0
    assert Path("tars/shard-00000.tar").is_file() and Path("tars/manifest.json").is_file()


def test_a_flipped_byte_ends_the_check_with_2_and_a_sentence(source, tmp_path, capsys):
    assert main(["prepare", str(source), "--out", str(tmp_path / "set"), *TOY]) == 0
    path = tmp_path / "set" / "shard-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert main(["prepare", "--check", str(tmp_path / "set")]) == 2
    said = capsys.readouterr()
    assert "clip good-00000 in" in said.out and "damaged" in said.out
    assert re.fullmatch(r"mirage: error: shards .* are damaged in 2 places\n", said.err)


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "SOURCE and --out SHARDS are needed"),
        (["nowhere", "--out", "x"], "source not found: nowhere"),
        (["empty", "--out", "x"], "nothing to prepare in empty"),
        (["worlds:4"], "SOURCE and --out SHARDS are needed"),
        (["worlds:0", "--out", "x"], "worlds:COUNT"),
        (["worlds:4", "--out", "x", "--model", "no-such-model"], "no-such-model"),
        (["worlds:4", "--out", "x", "--depth-model", "no-such-depth"], "no-such-depth"),
        (["worlds:4", "--out", "x", "--frames", "10"], "frames must be 1 + a multiple of 4"),
        (["worlds:4", "--out", "x", "--export", "lmdb", "y"], "--export knows webdataset DIR"),
        (["worlds:4", "--check", "x"], "--check SHARDS takes no SOURCE"),
        (["--check", "empty"], "must be a folder with a manifest.json"),
        (["worlds:4", "--out", "photo.png"], "is a file"),
    ],
)
def test_mistakes_are_one_sentence(words, said, tmp_path, photo, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert main(["prepare", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mirage: error: ") and error.count("\n") == 1 and said in error
    assert not Path("x").exists() or not list(Path("x").iterdir())
