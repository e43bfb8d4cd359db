"""Preparation: exact geometry, the same bytes however it is run or interrupted, and nothing lost to what is broken."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_footage import write_clip, write_list, write_nerfstudio, write_pictures, write_rgbd

from mirage.camera import Cameras
from mirage.checkpoint.codecs import model_codec
from mirage.dataset import Shards
from mirage.dataset.check import check, overlay
from mirage.dataset.clips import Tools, coarse_depth, make_clip
from mirage.dataset.footage import Rendered
from mirage.dataset.prepare import Settings, prepare
from mirage.dataset.scale import fit_scale
from mirage.dataset.webdataset import export_webdataset, read_tar

TOY = Settings(size=(48, 64), frames=9, stride=8, per_shard=2)


@pytest.fixture(scope="module")
def room(tmp_path_factory, walk) -> Path:
    """An RGB-D folder and its shards, in `set`."""
    folder = tmp_path_factory.mktemp("room")
    prepare(str(write_rgbd(folder / "room", walk)), folder / "set", TOY)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_clips_lie_in_the_footage_as_they_should(room, walk):
    shards = Shards(room / "set")
    assert [clip.name for clip in shards] == ["room-00000", "room-00008", "room-00016"]
    assert shards.manifest["clips"] == 3 and [len(r.clips) for r in shards.records] == [2, 1]
    clip = shards[1]
    assert clip.video.shape == clip.image.shape == (3, 16, 6, 8) and clip.depth.shape == (3, 24, 32)
    truth = walk.cameras[[8, 12, 16]].fit(48, 64)[0]
    assert torch.allclose(clip.cameras.intrinsics, truth.intrinsics, atol=1e-3), "crop and resize move the lens exactly"
    assert torch.equal(clip.cameras.cam_from_world[0], torch.eye(4))
    moved = truth.cam_from_world @ truth.world_from_cam[:1]
    assert torch.allclose(clip.cameras.cam_from_world, moved, atol=1e-4)
    assert not torch.equal(clip.video[1:], clip.image[1:]), "a clip is no row of stills"
    assert torch.allclose(clip.video[0], clip.image[0], atol=5e-3)


def test_the_geometry_explains_the_pictures(room):
    report = check(room / "set")
    assert report.problems == [] and report.suspects == [] and report.clips == 3
    assert report.pixels < 1.0
    for clip in Shards(room / "set"):
        seen = overlay(clip)
        assert seen.agrees > 0.8 and seen.pixels < 0.5 * seen.still


def wrong_poses(clip):
    return replace(clip.cameras, cam_from_world=clip.cameras.world_from_cam.contiguous())


def wrong_axes(clip):
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    return replace(clip.cameras, cam_from_world=flip @ clip.cameras.cam_from_world @ flip)


def wrong_lens(clip):
    k = clip.cameras.intrinsics.clone()
    k[:, 0, 0] *= 1.6
    return replace(clip.cameras, intrinsics=k)


def test_a_wrong_convention_shows():
    tools = Tools(model=model_codec("nano"), estimator=None, segmenter=None, device="cpu")
    clip = make_clip(Rendered(5, 17, 64, 80), range(17), "there and back", (64, 80), "known", tools)
    right = overlay(clip)
    assert not right.suspect and right.pixels < 1
    for wrong in (wrong_poses, wrong_axes, wrong_lens):
        bad = overlay(replace(clip, cameras=wrong(clip)))
        assert bad is None or bad.suspect or bad.pixels > 3 * right.pixels, wrong.__name__


def test_killed_at_any_moment_the_result_is_the_same(tmp_path):
    program = Path(__file__).with_name("killed_often.py")
    done = subprocess.run([sys.executable, program, tmp_path, "3"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    calm, killed = files(tmp_path / "calm"), files(tmp_path / "killed")
    assert calm == killed and "killed 0 times" not in done.stdout
    names = [clip.name for clip in Shards(tmp_path / "killed")]
    assert names == [f"world-{seed:06}" for seed in range(40, 45)], "no duplicate and no gap"


def test_what_is_there_is_not_made_again_and_what_is_lost_is(room):
    before = files(room / "set")
    again = prepare(str(room / "room"), room / "set", TOY)
    assert (again.made, again.clips) == (0, 3) and files(room / "set") == before
    (room / "set" / "shard-00001.safetensors").unlink()
    (room / "set" / ".shard-00000.0123abcd.safetensors").write_bytes(b"left by a kill")
    again = prepare(str(room / "room"), room / "set", TOY)
    assert again.made == 1 and files(room / "set") == before


def test_other_settings_or_other_things_in_the_folder_are_refused(room, tmp_path):
    with pytest.raises(ValueError, match=r"was begun with stride 8, now it is 4"):
        prepare(str(room / "room"), room / "set", replace(TOY, stride=4))
    with pytest.raises(ValueError, match=r"must be a new folder, .* holds rgb|holds cameras"):
        prepare(str(room / "room"), room / "room", TOY)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        prepare(str(room / "room"), tmp_path / "file", TOY)


def test_broken_footage_is_named_and_the_rest_goes_on(tmp_path, walk):
    source = tmp_path / "source"
    write_rgbd(source / "a-good", walk, frames=9)
    write_rgbd(source / "b-short", walk, frames=5)
    torn = write_rgbd(source / "c-torn", walk, frames=17)
    (torn / "rgb" / "00012.png").write_bytes(b"no picture")
    write_clip(source / "d-film" / "film.mp4", walk.frames[:9])
    write_nerfstudio(source / "d-film" / "transforms.json", walk.cameras[:8])
    still = replace(walk.cameras, cam_from_world=walk.cameras.cam_from_world[:1].repeat(25, 1, 1))
    write_pictures(source / "e-still" / "images", walk.frames)
    write_nerfstudio(source / "e-still" / "transforms.json", still)
    done = prepare(str(source), tmp_path / "set", TOY)
    why = {one["name"]: one["why"] for one in done.skipped}
    assert [clip.name for clip in Shards(tmp_path / "set")] == ["a-good-00000", "c-torn-00000"]
    assert set(why) == {"b-short", "c-torn-00008", "d-film", "e-still"}
    assert "too short: it has 5 frames, a clip of 9 needs 9" in why["b-short"]
    assert "00012.png" in why["c-torn-00008"]
    assert "9 frames but 8 poses" in why["d-film"] and "stands still" in why["e-still"]
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["skipped"] == done.skipped


def test_nothing_that_comes_out_is_an_error_and_leaves_the_folder_to_another_try(tmp_path, walk):
    source = write_rgbd(tmp_path / "torn", walk, frames=9)
    kept = (source / "rgb" / "00004.png").read_bytes()
    (source / "rgb" / "00004.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"nothing could be prepared of .*torn-00000: .*00004\.png"):
        prepare(str(source), tmp_path / "set", TOY)
    (source / "rgb" / "00004.png").write_bytes(kept)
    assert prepare(str(source), tmp_path / "set", TOY).clips == 1
    with pytest.raises(ValueError, match=r"nothing to prepare in .*too short"):
        prepare(str(source), tmp_path / "other", replace(TOY, frames=13))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"depth_model": "no-such-depth"}, "depth model must be one of .*no-such-depth"),
        ({"movers": "no-such-movers"}, "movers model must be one of .*no-such-movers"),
        ({"size": (50, 64)}, "size must be multiples of 16 for nano, got 50 x 64"),
        ({"frames": 10}, "frames must be 1 \\+ a multiple of 4, got 10"),
        ({"frames": 1}, "at least two latent frames"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(tmp_path, room, change, said):
    with pytest.raises(ValueError, match=said):
        prepare(str(room / "room"), tmp_path / "set", replace(TOY, **change))
    assert not (tmp_path / "set").exists()


def test_depth_is_known_or_estimated_as_told(room, tmp_path, walk):
    write_clip(tmp_path / "film" / "film.mp4", walk.frames[:9])
    write_list(tmp_path / "film" / "cameras.txt", walk.cameras[:9])
    with pytest.raises(ValueError, match="its depth is not known"):
        prepare(str(tmp_path / "film"), tmp_path / "none", replace(TOY, depth="known"))
    prepare(str(tmp_path / "film"), tmp_path / "head", TOY)
    guess = Shards(tmp_path / "head")[0]
    assert (guess.depth > 0).all(), "an estimate is everywhere"
    folder = write_rgbd(tmp_path / "holes", walk, frames=9)
    for path in (folder / "depth").iterdir():
        path.unlink()
    maps = (walk.depth[:9] * 1000).round().astype(np.uint16)
    maps[:, :, 42:] = 0
    for i, one in enumerate(maps):
        np.save(folder / "depth" / f"{i:05}.npy", one)
    prepare(str(folder), tmp_path / "known", TOY)
    prepare(str(folder), tmp_path / "filled", replace(TOY, depth="filled"))
    known, filled = Shards(tmp_path / "known")[0].depth, Shards(tmp_path / "filled")[0].depth
    assert (known[..., 17:] == 0).all() and (known[..., :15] > 0).all()
    assert (filled > 0).all() and torch.equal(filled[..., :15], known[..., :15])


@pytest.mark.parametrize("unit", [0.03, 20.0])
def test_the_unit_of_a_path_is_found_by_depth(walk, unit):
    fine = walk.cameras[::4].fit(60, 84)[0]
    pose = fine.cam_from_world.clone()
    pose[:, :3, 3] *= unit
    pictures = torch.from_numpy(walk.frames[::4]).movedim(-1, 1)
    factor = fit_scale(pictures, torch.from_numpy(walk.depth[::4]), Cameras(fine.intrinsics, pose, 60, 84))
    assert abs(factor * unit - 1) < 0.08


def test_coarse_depth_is_a_depth_that_is_there():
    g = torch.Generator().manual_seed(1)
    depth = torch.rand(2, 9, 20, generator=g) * (torch.rand(2, 9, 20, generator=g) > 0.4)
    coarse = coarse_depth(depth, 3, 4)
    for t, y, x in np.ndindex(2, 3, 4):
        block = depth[t, 3 * y : 3 * y + 3, 5 * x : 5 * x + 5].flatten()
        known = block[block > 0].sort()[0]
        wanted = known[(len(known) - 1) // 2] if 2 * len(known) > 15 else 0.0
        assert coarse[t, y, x] == wanted


def test_tars_hold_the_same_clips_and_no_pickle(room, tmp_path):
    tars = export_webdataset(room / "set", tmp_path / "tars")
    shards = Shards(room / "set")
    back = [clip for tar in tars for clip in read_tar(tar)]
    assert [clip.name for clip in back] == [clip.name for clip in shards]
    for one, other in zip(back, shards, strict=True):
        assert torch.equal(one.video, other.video) and torch.equal(one.depth, other.depth)
        assert torch.equal(one.cameras.intrinsics, other.cameras.intrinsics)
    first = files(tmp_path / "tars")
    export_webdataset(room / "set", tmp_path / "tars")
    tars[0].write_bytes(tars[0].read_bytes()[:-600])
    export_webdataset(room / "set", tmp_path / "tars")
    assert files(tmp_path / "tars") == first, "a cut tar is written again, the same"
    assert not any(b"\x80\x04\x95" in data or b".pkl" in data or b".pyd" in data for data in first.values())


def test_rgbd_of_a_real_office_loop(shared, tmp_path):
    source = shared / "data" / "hololens_office_loop"
    prepare(str(source), tmp_path / "set", Settings(size=(96, 144), frames=17, stride=48))
    report = check(tmp_path / "set")
    assert report.clips == 2 and report.problems == [] and report.suspects == []
    assert report.pixels < 1.5
