"""Shards: what is written comes back, damage is found where it is, nothing is ever half there."""

import json
import pickle
import resource
from dataclasses import replace

import pytest
import torch

from mirage.camera import Cameras
from mirage.dataset import DamagedClip, LatentClip, Shards, write_manifest, write_shard
from mirage.dataset.check import check

CODEC = {"name": "toy", "fingerprint": "0123456789abcdef", "channels": 3, "stride": 8, "temporal_stride": 4}


def clip(name: str, t: int = 3, h: int = 3, w: int = 5) -> LatentClip:
    g = torch.Generator().manual_seed(len(name) + t + h + w)
    cameras = Cameras.from_fov(1.1, 8 * h, 8 * w, frames=t)
    cameras.cam_from_world[:, 0, 3] = torch.arange(t) * -0.1
    return LatentClip(
        name=name,
        caption=f"words of {name}",
        video=torch.randn(t, 3, h, w, generator=g),
        image=torch.randn(t, 3, h, w, generator=g),
        depth=1 + 3 * torch.rand(t, 4 * h, 4 * w, generator=g),
        keep=torch.rand(t, 4 * h, 4 * w, generator=g) > 0.1,
        cameras=cameras,
        picture=torch.randint(256, (t, 3, 4 * h, 4 * w), generator=g).byte(),
    )


@pytest.fixture
def clips():
    """Three clips of different lengths and shapes."""
    return [clip("a"), clip("bb", t=2, h=2, w=3), clip("ccc", t=4, h=5, w=3)]


@pytest.fixture
def folder(tmp_path, clips):
    records = [write_shard(tmp_path / "set", 0, clips[:2]), write_shard(tmp_path / "set", 1, clips[2:])]
    write_manifest(tmp_path / "set", records, codec=CODEC, settings={}, source="toys", skipped=[])
    return tmp_path / "set"


def test_clips_come_back_in_any_order(folder, clips):
    shards = Shards(folder, fingerprint=CODEC["fingerprint"])
    assert len(shards) == 3 and [one.name for one in shards] == ["a", "bb", "ccc"]
    for index in (2, 0, 1, -1):
        got, put = shards[index], clips[index]
        assert (got.name, got.caption) == (put.name, put.caption)
        for name in ("video", "image", "depth"):
            assert torch.equal(getattr(got, name), getattr(put, name).half().float())
        assert torch.equal(got.keep, put.keep) and torch.equal(got.picture, put.picture)
        assert torch.equal(got.cameras.cam_from_world, put.cameras.cam_from_world)
        assert torch.equal(got.cameras.intrinsics, put.cameras.intrinsics)
        assert (got.cameras.height, got.cameras.width) == (put.cameras.height, put.cameras.width)
        record = shards.record(index)
        assert (record.latent_frames, record.height) == (len(put.video), put.cameras.height)
    with pytest.raises(IndexError):
        shards[3]


def test_the_cameras_of_all_frames_come_back_and_older_sets_have_none(tmp_path, clips):
    way = Cameras.from_fov(1.1, 24, 40, frames=9)
    way.cam_from_world[:, 0, 3] = torch.arange(9) ** 2 * -0.1
    one = replace(clips[0], cameras=way[::4], way=way)
    record = write_shard(tmp_path, 0, [one, clips[0]])
    new, old = Shards.of(tmp_path, record)
    assert torch.equal(new.way.cam_from_world, way.cam_from_world) and old.way is None
    assert torch.equal(new.cameras.cam_from_world, way.cam_from_world[::4]) and len(old.cameras) == 3
    with pytest.raises(ValueError, match="way must be of one frame and whole groups for 3 latent frames, got 8"):
        replace(clips[0], way=way[:8])


def test_a_set_travels_to_another_process_open_or_not(folder):
    shards = Shards(folder)
    first = shards[0]
    assert torch.equal(pickle.loads(pickle.dumps(shards))[0].video, first.video)


def test_the_same_clips_make_the_same_bytes(tmp_path, clips):
    for place in ("one", "two"):
        write_shard(tmp_path / place, 7, clips)
    one, two = ((tmp_path / place / "shard-00007.safetensors").read_bytes() for place in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9])
def test_a_flipped_byte_is_named_and_the_rest_goes_on(folder, place):
    path = folder / "shard-00000.safetensors"
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin + int(place * (len(data) - begin - 1))] ^= 4
    path.write_bytes(data)
    shards, broken = Shards(folder), []
    for index in range(3):
        try:
            shards[index]
        except DamagedClip as error:
            broken.append(str(error))
    assert len(broken) == 1 and "shard-00000" in broken[0] and "damaged" in broken[0]
    report = check(folder)
    assert len(report.problems) == 2, "the shard and the clip in it"
    assert all("shard-00000" in problem for problem in report.problems)


def test_what_is_no_set_is_refused_in_a_sentence(folder, tmp_path):
    with pytest.raises(ValueError, match=r"must be a folder with a manifest\.json"):
        Shards(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="is not finished"):
        Shards(tmp_path)
    with pytest.raises(ValueError, match=r"hold latents of toy .* at hand is other"):
        Shards(folder, fingerprint="other")
    told = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(told | {"version": 9}))
    with pytest.raises(ValueError, match="are of version 9"):
        Shards(folder)
    (folder / "manifest.json").write_text('{"format": "mirage-shards", "vers')
    with pytest.raises(ValueError, match="damaged index"):
        Shards(folder)


def test_a_missing_or_cut_shard_is_said_when_the_set_is_opened(folder):
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors must have"):
        Shards(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is missing"):
        Shards(folder)
    assert any("missing" in problem for problem in check(folder).problems)


def test_numbers_that_cannot_be_are_found_by_the_check(tmp_path):
    bad = clip("bad")
    bad.video[1, 0, 0, 0] = torch.nan
    bent = clip("bent")
    bent = replace(bent, cameras=bent.cameras.resize(8, 8))
    records = [write_shard(tmp_path, 0, [bad, clip("good"), bent])]
    write_manifest(tmp_path, records, codec=CODEC, settings={}, source="", skipped=[])
    problems = check(tmp_path).problems
    assert len(problems) == 2
    assert "bad" in problems[0] and "not finite" in problems[0]
    assert "bent" in problems[1] and "size" in problems[1]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, clips):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*shard-00000"):
            write_shard(tmp_path / "full", 0, clips)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "full").iterdir()) == []
