"""A memory on disk: what is saved is loaded, what is damaged is refused."""

import plane_worlds as worlds
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mirage.memory import LatentMemory


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
    with pytest.raises(ValueError, match="must hold a mirage-latent-memory of version 2"):
        LatentMemory.load(path)


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("features", lambda t: t[:-1], "plane must be"),
        ("plane", lambda t: t * torch.nan, "plane must be finite"),
        ("cell", lambda t: t + 10_000, "out of range"),
        ("source", lambda t: t - 1, "out of range"),
        ("lookup", lambda t: t.roll(1), "lookup does not fit"),
        ("plane", lambda t: -t, "out of range"),
        ("name", lambda t: t.float(), "name must be"),
        ("reach", None, "must hold"),
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
