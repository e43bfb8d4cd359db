"""A memory on disk: what is saved is loaded, what is damaged is refused."""

import re
from pathlib import Path

import plane_worlds as worlds
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mirage.memory import LatentMemory
from mirage.memory.files import load_surfels, save_surfels


def equal(a: LatentMemory, b: LatentMemory) -> bool:
    mine, other = a.surfels.tensors, b.surfels.tensors
    alike = all(mine[key].dtype == other[key].dtype and torch.equal(mine[key], other[key]) for key in mine)
    return alike and {**vars(a), "surfels": 0} == {**vars(b), "surfels": 0}


@pytest.fixture
def memory() -> LatentMemory:
    source = worlds.cameras(torch.stack([worlds.pose(), worlds.pose(yaw=20)]), 40, 56)
    features, depth = worlds.view(source, worlds.ROOM, 8)
    memory = LatentMemory.from_view(features[:1], depth[:1], source[0], dtype=torch.float16, budget_bytes=10**6)
    memory.update(features[1:], depth[1:], source[1])
    return memory


def test_loaded_equals_saved_and_goes_on_alike(memory, tmp_path):
    memory.save(tmp_path / "memory.safetensors")
    loaded = LatentMemory.load(tmp_path / "memory.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["memory.safetensors"]
    views = worlds.cameras(torch.stack([worlds.pose(yaw=10), worlds.pose(yaw=35)]), 40, 56)
    for step in range(2):
        for a, b in zip(vars(memory.read(views)).values(), vars(loaded.read(views)).values(), strict=True):
            assert (a == b).all() and a.dtype == b.dtype
        assert loaded.nbytes == memory.nbytes and loaded.budget_bytes == 10**6
        if step == 0:
            features, depth = worlds.view(views, worlds.ROOM, 8)
            assert memory.update(features, depth, views) == loaded.update(features, depth, views)


def test_a_file_that_is_no_memory_is_refused(memory, tmp_path):
    path = tmp_path / "memory.safetensors"
    path.write_bytes(b"not a tensor in sight")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        LatentMemory.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="must hold a mirage-latent-memory of version 4"):
        LatentMemory.load(path)


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("features", lambda t: t[:-1], "plane must be"),
        ("plane", lambda t: t * torch.nan, "plane must be finite"),
        ("cell", lambda t: t + 10_000, "out of range"),
        ("source", lambda t: t - 1, "out of range"),
        ("cell", lambda t: t * 0, "cell must be unique"),
        ("plane", lambda t: -t, "out of range"),
        ("name", lambda t: t.float(), "name must be"),
        ("reach", None, "must hold"),
        ("name", lambda t: t * 0, "name must be unique"),
        ("cam_from_world", lambda t: t * 2, "must hold rotations"),
        ("intrinsics", lambda t: t * 0, "focal lengths"),
        ("features", lambda t: t.to(torch.float8_e4m3fn), "features must be"),
        ("features", lambda t: t.float(), "checksum"),
        ("features", lambda t: t + 1, "checksum"),
    ],
)
def test_a_damaged_memory_is_refused(memory, tmp_path, name, damage, message):
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    old = tensors.pop(name)
    if damage is not None:
        tensors[name] = damage(old).contiguous()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=message):
        LatentMemory.load(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[LatentMemory, Path, bytes]:
    """A small memory, a file to damage, and its bytes."""
    source = worlds.cameras(worlds.pose()[None], 24, 40)
    memory = LatentMemory.from_view(*worlds.view(source, worlds.ROOM, 8), source, dtype=torch.bfloat16)
    path = tmp_path_factory.mktemp("damaged") / "memory.safetensors"
    memory.save(path)
    return memory, path, path.read_bytes()


def equal_or_refused(memory: LatentMemory, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        loaded = LatentMemory.load(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert equal(memory, loaded)


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_change_nothing_or_are_refused(written, flips):
    memory, path, content = written
    damaged = bytearray(content)
    for place, change in flips:
        damaged[place % len(content)] ^= change
    equal_or_refused(memory, path, bytes(damaged))


@FUZZ
@given(st.integers(0, 2000), st.integers(1, 255))
def test_flipped_bytes_of_the_header(written, place, change):
    memory, path, content = written
    header = 8 + int.from_bytes(content[:8], "little")
    damaged = bytearray(content)
    damaged[place % header] ^= change
    equal_or_refused(memory, path, bytes(damaged))


@FUZZ
@example(cut=0, tail=b"")
@example(cut=7, tail=b"")
@example(cut=10**6, tail=b"x")
@given(st.integers(0, 10**6), st.binary(max_size=20))
def test_cut_files_are_refused(written, cut, tail):
    memory, path, content = written
    equal_or_refused(memory, path, content[:cut] + tail)


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 0},
        {"stride": 8.0},
        {"stride": True},
        {"read": "best"},
        {"read": ["gather"]},
        {"budget_bytes": "much"},
        {"budget_bytes": -1},
        {"next_name": 0},
        {"more": 1},
    ],
)
def test_settings_that_no_memory_has_are_refused(memory, tmp_path, change):
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    surfels, about = load_surfels(path)
    save_surfels(surfels, path, about | change)
    with pytest.raises(ValueError, match="settings that no memory has"):
        LatentMemory.load(path)


@pytest.mark.parametrize("key, value", [("settings", "[8]"), ("checksum", "null"), ("version", "1"), ("format", "{")])
def test_metadata_of_the_wrong_kind_are_refused(memory, tmp_path, key, value):
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata=metadata | {key: value})
    with pytest.raises(ValueError, match=re.escape(str(path))):
        LatentMemory.load(path)
    del metadata[key]
    save_file(memory.surfels.tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        LatentMemory.load(path)


def test_what_is_no_file_or_a_pickle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        LatentMemory.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a folder"):
        LatentMemory.load(tmp_path)
    torch.save({"features": torch.zeros(3)}, tmp_path / "memory.pt")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        LatentMemory.load(tmp_path / "memory.pt")


def test_a_world_of_another_stride_or_channel_count_is_refused_by_name(memory, tmp_path):
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    channels = memory.surfels.features.shape[1]
    assert equal(memory, LatentMemory.load(path, stride=8, channels=channels))
    with pytest.raises(ValueError, match=f"stride 8 and {channels} channels, but stride 16 and 48 channels are asked"):
        LatentMemory.load(path, stride=16, channels=48)
    with pytest.raises(ValueError, match=f"but stride 8 and {channels + 1} channels"):
        LatentMemory.load(path, channels=channels + 1)
    with pytest.raises(ValueError, match=f"but stride 0 and {channels} channels"):
        LatentMemory.load(path, stride=0)
    for device in ("nowhere", "cuda:99"):
        with pytest.raises(ValueError, match="device must be one that PyTorch finds here"):
            LatentMemory.load(path, device=device)
    with pytest.raises(ValueError, match="device must be one that holds values"):
        LatentMemory.load(path, device="meta")


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_path_is_refused(memory):
    for wrong in (None, 3, b"memory", "a\0b"):
        for use in (LatentMemory.load, memory.save):
            with pytest.raises(ValueError, match="path must be the path of a file"):
                use(wrong)


def test_an_empty_memory_is_saved_and_loaded(tmp_path):
    camera = worlds.cameras(worlds.pose()[None], 24, 40)
    memory = LatentMemory.from_view(torch.zeros(1, 4, 3, 5), torch.zeros(1, 24, 40), camera)
    memory.save(tmp_path / "new" / "memory.safetensors")
    loaded = LatentMemory.load(tmp_path / "new" / "memory.safetensors")
    assert len(loaded) == 0 and equal(memory, loaded)
    (tmp_path / "other").touch()
    assert (tmp_path / "new" / "memory.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failed_save_leaves_the_old_file(memory, tmp_path, monkeypatch):
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    old = path.read_bytes()
    (tmp_path / "file").write_text("")
    for nowhere in (tmp_path / "file" / "memory.safetensors", ""):
        with pytest.raises(OSError, match="cannot write"):
            memory.save(nowhere)
    memory._next_name = object()  # JSON cannot say it
    with pytest.raises(TypeError):
        memory.save(path)
    assert path.read_bytes() == old and len(list(tmp_path.iterdir())) == 2


def test_a_mapped_memory_outlives_the_file_that_replaces_it(memory, tmp_path):
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    first = LatentMemory.load(path)
    source = worlds.cameras(torch.stack([worlds.pose(yaw=70)]), 40, 56)
    memory.update(*worlds.view(source, worlds.ROOM, 8), source)
    kept = {key: tensor.clone() for key, tensor in first.surfels.tensors.items()}
    memory.save(path)
    assert all(torch.equal(kept[key], tensor) for key, tensor in first.surfels.tensors.items())
    second = LatentMemory.load(path)
    assert equal(memory, second) and not equal(first, second)
    second.save(path)  # onto the very file that it is mapped from
    assert equal(memory, second) and equal(memory, LatentMemory.load(path))
    before = path.read_bytes()
    loaded = LatentMemory.load(path)
    loaded.surfels.features.add_(1)  # its own pages, not those of the file
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="mappings are read from /proc")
def test_tensors_are_pages_of_the_file(memory, tmp_path):
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    loaded = LatentMemory.load(path)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    spans = [[int(end, 16) for end in line[0].split("-")] for line in lines]
    inside = lambda t: any(low <= t.data_ptr() and t.data_ptr() + t.nbytes <= high for low, high in spans)
    assert all(inside(tensor) for tensor in loaded.surfels.tensors.values())
    assert not inside(loaded.surfels.features.clone())
