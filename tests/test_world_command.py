"""`mirage generate --world` and `mirage world`: resumed bit for bit, and every mistake in one sentence."""

import pytest

from mirage.cli import main
from mirage.world import World

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def run(tiny_model, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(words: str, code: int = 0) -> str:
        assert main(words.replace("PHOTO", str(photo)).replace("MODEL", f"--model {tiny_model}").split()) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


WALK = "generate PHOTO --path there-and-back: --frames 25 MODEL"


def test_interrupted_and_resumed_gives_the_same_video(run, tmp_path, monkeypatch):
    assert "frames 17 to 24 of 24" in run(f"{WALK} --world whole")
    extend, made = World.extend, []

    def interrupted(self, *args, **options):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(1)
        return extend(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(World, "extend", interrupted)
        said = run(f"{WALK} --world broken", code=130)
    assert "interrupted, broken is complete up to frame 8, the same command goes on" in said
    assert "unfinished: 16 of 24 frames" in run("world show broken")
    assert "chunk 1:" not in run(f"{WALK} --world broken")
    assert (tmp_path / "broken/video.mp4").read_bytes() == (tmp_path / "whole/video.mp4").read_bytes()
    assert (tmp_path / "broken.jpg").stat().st_size > 1000


def test_go_on_undo_branch_pack_verify_export(run, tmp_path):
    run("generate PHOTO --path still --frames 9 MODEL --world a")
    run("generate --world a --path left:10deg --frames 9 MODEL".replace("left:10deg", "orbit:degrees=5"))
    assert "17 frames" in run("world list")
    assert "a2: 9 frames, 1 chunks" in run("world branch a a2 --chunk 1")
    assert "a ends at frame 8" in run("world undo a")
    assert "every checksum and content as written" in run("world verify a")
    run("world pack a a.zip")
    assert "b: 9 frames" in run("world unpack a.zip b")
    assert run("world show a.zip").startswith("a.zip: 9 frames of")
    run("world export a --out out MODEL")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"video.mp4", "memory.ply", "colmap", "nerfstudio"}
    path = tmp_path / "b/chunks/0001/frames.mp4"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "world b is damaged in 1 places" in run("world verify b", code=2)


@pytest.mark.parametrize(
    "words, said",
    [
        ("generate PHOTO --path still MODEL", "--out is needed, unless --world names a world"),
        ("generate --world a --path still MODEL", "no world at a: give an IMAGE to begin one"),
        ("generate PHOTO --world a MODEL", "--path is needed to begin a world"),
        ("generate PHOTO --path still --world a --memory colour MODEL", "--memory must be latent, got colour"),
        ("world show a", "no world at a: no such folder"),
        ("world list a", "no folder at a"),
        ("world unpack a.zip b", "cannot unpack a.zip to b"),
    ],
)
def test_mistakes(run, words, said):
    assert said in run(words, code=2)


def test_what_an_existing_world_refuses(run):
    run("generate PHOTO --path still --frames 9 MODEL --world a")
    for words, said in [
        ("generate PHOTO --path orbit --frames 9 MODEL --world a", "world a went another way"),
        ("generate PHOTO --path still --frames 9 --seed 3 MODEL --world a", "another picture, size, seed or --movers"),
        ("generate --world a MODEL", "no unfinished path to go on with"),
        ("generate --world a --path still --frames 8 MODEL", "--frames must be 1 + a multiple of 4"),
        ("generate --world a --path still --size 32x48 MODEL", "--size belongs to the picture"),
        ("generate --world a --path still --fps 8 MODEL", "--fps of world a is 16"),
        ("generate --world a --path still", "was made by model tiny with"),
        ("world undo a --chunks 2", "--chunks must be at most 1"),
        ("world pack a a.tar", "must be called .zip"),
    ]:
        assert said in run(words, code=2), words
