"""Real places as walks: a folder made from an exact world is measured as that world is, and bad input is named."""

import json

import numpy as np
import pytest
import torch

from mirage.evaluation.closed_loop import loop_visits
from mirage.evaluation.sources import clips, cut_walk, kind_of, loops, picture_walk, seen_where_known
from mirage.evaluation.study import load_model
from mirage.evaluation.worlds import HELD_OUT, make_walk
from mirage.video.io import write_video

FRAMES = 22


@pytest.fixture(scope="module")
def walk():
    """Frames 0 and 16 are of one place."""
    return make_walk(HELD_OUT, 33, 32, 48)


@pytest.fixture
def folder(walk, recorded, tmp_path):
    place = recorded(tmp_path / "hall", walk)
    (place / "loops.json").write_text('{"loops": [[0, 16], [2, 15]]}')
    return place


def test_a_recording_is_the_world_that_it_was_made_from(folder, walk, tiny):
    pipeline = load_model(str(tiny), "cpu")
    cuts = clips([str(folder)], 13, 1, 4)
    assert list(cuts) == ["hall-0-12", "hall-13-25"] and cuts["hall-13-25"].frames == tuple(range(13, 26))
    got = cut_walk(cuts["hall-0-12"], pipeline, 7)
    assert got.seed == 7 and np.array_equal(got.frames, walk.frames[:13])
    assert torch.allclose(got.depth, walk.depth[:13], atol=2e-3)
    assert torch.allclose(got.cameras.intrinsics, walk.cameras.intrinsics[:13], atol=1e-3)
    far = np.abs(got.seen ^ walk.seen[:13]).mean()
    assert far < 0.02 and got.sure.mean() > 0.99, "5 % of the depth are allowed to a sensor, 2 % to a world"
    assert [len(cut.frames) for cut in clips([str(folder)], 49, 2, 4).values()] == [17]


def test_a_loop_is_gone_to_its_end_and_back(folder, tiny):
    cuts = loops([str(folder)], 4)
    assert list(cuts) == ["hall-0-16", "hall-2-15"]
    assert cuts["hall-0-16"].frames == (*range(17), *range(15, -1, -1))
    way = cuts["hall-2-15"].frames
    assert len(way) == 25 and way[0] == way[-1] == 2 and way[12] == 15 and way == way[::-1]
    walk = cut_walk(cuts["hall-0-16"], load_model(str(tiny), "cpu"), 0)
    pose = walk.cameras.cam_from_world
    assert torch.equal(pose[0], pose[-1]) and torch.equal(walk.colour[5], walk.colour[27])
    visits = loop_visits(walk, 4)
    assert visits[0] == 0 and visits[2] == 16 and visits[4] == 32 and visits[1] + visits[3] == 32
    assert visits[1] % 4 == 0 and walk.seen[visits[1]].mean() == min(walk.seen[i].mean() for i in range(4, 16, 4))


def test_pixels_without_depth_are_neither_seen_nor_unseen(walk):
    depth = walk.depth.clone()
    depth[0, 10:20, 20:30] = 0
    depth[4, :8] = 0
    seen, sure = seen_where_known(depth, walk.cameras)
    whole, all_sure = seen_where_known(walk.depth, walk.cameras)
    assert all_sure.all() and not sure[4, :8].any() and not seen[4, :8].any()
    assert not sure[0, 12:18, 22:28].any() and (seen <= whole).all()
    assert np.array_equal(seen[sure], whole[sure])


def test_a_picture_has_one_true_frame(photo, tiny):
    pipeline = load_model(str(tiny), "cpu")
    walk = picture_walk(photo, "there-and-back:right 20deg", 17, pipeline, 3)
    assert walk.colour.shape[0] == 1 and len(walk.cameras) == 17 and walk.depth is None and walk.seen is None
    with pytest.raises(ValueError, match=r"must end where it began.*there-and-back"):
        picture_walk(photo, "right 20deg", 17, pipeline, 3)


def test_video_and_cameras_are_a_recording_too(walk, tmp_path, tiny):
    """A list of RealEstate10K with its clip: no depth, a unit of its own."""
    k = walk.cameras.intrinsics[0]
    lens = [k[0, 0] / 48, k[1, 1] / 32, k[0, 2] / 48, k[1, 2] / 32]
    rows = [
        " ".join(str(float(v)) for v in (33000 * i, *lens, 0, 0, *(pose[:3] * 1.0).flatten()))
        for i, pose in enumerate(walk.cameras.cam_from_world[:FRAMES])
    ]
    (tmp_path / "clip.txt").write_text("\n".join(["https://www.youtube.com/watch?v=abcdefghijk", *rows]))
    write_video(tmp_path / "clip.mp4", walk.frames[:FRAMES])
    cuts = clips([str(tmp_path)], 21, 1, 4)
    got = cut_walk(cuts["clip-0-20"], load_model(str(tiny), "cpu"), 0)
    assert got.depth is None and got.seen is None and len(got.frames) == 21
    assert torch.allclose(got.cameras.intrinsics, walk.cameras.intrinsics[:21], atol=1e-3)
    assert np.abs(got.frames.astype(int) - walk.frames[:21]).mean() < 12


def test_kinds(folder, photo):
    assert kind_of([], ("worlds",)) == "worlds"
    assert kind_of([str(folder)], ("recordings",)) == "recordings"
    assert kind_of([str(photo)], ("pictures",)) == "pictures"


def remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    "harm, says",
    [
        (remove("loops.json"), r"loops.json is missing.*\[\[start, end\], ...\]"),
        (lambda f: (f / "loops.json").write_text('{"loops": 3}'), "loops.json must say"),
        (lambda f: (f / "loops.json").write_text('{"loops": [[0, 99]]}'), r"names frames \(0, 99\).*has 0 to 32"),
        (lambda f: (f / "loops.json").write_text('{"loops": [[0, 2]]}'), "loop 0 to 2 .* too short"),
        (remove("rgb/00007.png"), "one count"),
        (remove("depth/00031.png"), "one count|32 and 33|depth"),
        (remove("cameras.npz"), "camera"),
    ],
)
def test_what_is_wrong_with_a_recording_is_named(harm, says, folder):
    harm(folder)
    with pytest.raises(ValueError, match=says):
        loops([str(folder)], 4)


def test_a_damaged_frame_is_named(folder, tiny):
    (folder / "rgb/00003.png").write_bytes(b"no picture")
    cut = clips([str(folder)], 5, 1, 4)["hall-0-4"]
    with pytest.raises(ValueError, match=r"00003\.png"):
        cut_walk(cut, load_model(str(tiny), "cpu"), 0)


def test_what_is_no_source_is_named(folder, photo, tmp_path):
    (tmp_path / "empty").mkdir()
    for sources, says in (
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([folder, photo], "one kind"),
        ([photo], "measures on worlds or recordings, but .* is of pictures"),
    ):
        with pytest.raises(ValueError, match=says):
            kind_of([str(s) for s in sources], ("worlds", "recordings"))
    with pytest.raises(ValueError, match="empty has no video"):
        clips([str(tmp_path / "empty")], 5, 1, 4)
    with pytest.raises(ValueError, match="4 frames at stride 9"):
        clips([str(folder)], 5, 9, 4)
    (tmp_path / "other").mkdir()
    again = tmp_path / "other" / "hall"
    again.symlink_to(folder)
    with pytest.raises(ValueError, match="different names"):
        clips([str(folder), str(again)], 5, 1, 4)


def test_the_office_comes_back(shared):
    """The real loop of the office, as the closed loop goes it."""
    cuts = loops([str(shared / "data" / "hololens_office_loop")], 4)
    (cut,) = cuts.values()
    assert list(cuts) == ["hololens_office_loop-0-108"] and len(cut.frames) == 217
    assert json.loads((shared / "data/hololens_office_loop/loops.json").read_text())["loops"] == [[0, 108]]
