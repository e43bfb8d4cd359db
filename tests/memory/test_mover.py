"""Laws of the mover: nothing changes at its start, at the source pose and where nothing is known; files keep it."""

import json
from dataclasses import replace

import plane_worlds as world
import pytest
import torch

from mirage.memory import LatentMemory, LatentMover

STRIDE, H, W = 4, 7, 10


def one_view(channels: int = 3, planes=world.ROOM):
    cams = world.cameras(world.pose()[None], H * STRIDE, W * STRIDE)
    latents, depth = world.view(cams, planes, STRIDE)
    return torch.cat([latents, latents], 1)[:, :channels], depth, cams


def elsewhere(*steps: float):
    poses = torch.stack([world.pose(x=step, yaw=5 * step) for step in steps])
    return world.cameras(poses, H * STRIDE, W * STRIDE)


def alive(split: int = 2, channels: int = 3) -> LatentMover:
    """A mover that does something."""
    torch.manual_seed(1)
    mover = LatentMover(channels=channels, split=split, features=3, width=8)
    torch.nn.init.normal_(mover.contract[-1].weight)
    torch.nn.init.ones_(mover.contract[-1].bias)
    return mover


@pytest.mark.parametrize("split", [1, 2, 3])
def test_at_its_start_it_is_the_gather(split):
    view, cams = one_view(), elsewhere(0.1, 0.7)
    mover = LatentMover(channels=3, split=split, features=3, width=8)
    plain, moved = LatentMemory.from_view(*view).read(cams), LatentMemory.from_view(*view, mover=mover).read(cams)
    assert all(torch.equal(getattr(plain, key), getattr(moved, key)) for key in vars(plain))


def test_the_source_pose_is_untouched_and_other_poses_are_not():
    view = one_view()
    memory, plain = LatentMemory.from_view(*view, mover=alive()), LatentMemory.from_view(*view)
    assert torch.equal(memory.read(view[2]).features, plain.read(view[2]).features)
    cams = elsewhere(0.3)
    moved, still = memory.read(cams), plain.read(cams)
    mended = (moved.features != still.features).all(1)
    assert mended.any() and torch.equal(mended, still.visible & ~still.unmoved)


def test_a_memory_without_a_mover_is_as_it_was():
    view, cams = one_view(), elsewhere(0.3)
    memory = LatentMemory.from_view(*view, mover=alive())
    memory.update(view[0], view[1], elsewhere(0.2))
    plain = LatentMemory.from_view(*view)
    plain.update(view[0], view[1], elsewhere(0.2))
    assert all(torch.equal(memory.surfels.tensors[key], value) for key, value in plain.surfels.tensors.items())
    memory.mover = None
    assert torch.equal(memory.read(cams).features, plain.read(cams).features)


def test_only_what_was_carried_decides():
    """Latents far from what a pose shows do not change what is read there."""
    cams = world.cameras(world.pose()[None], H * STRIDE, 24 * STRIDE)
    latents, depth = world.view(cams, world.WALL, STRIDE)
    there = world.cameras(world.pose(yaw=35)[None], H * STRIDE, 24 * STRIDE)
    memory = LatentMemory.from_view(latents, depth, cams, mover=alive())
    hits = memory.surfels.render(there.resize(H, 24))
    first = int(memory.surfels.center[hits.index[hits.index >= 0], 0].amin())
    changed = latents.clone()
    changed[..., : first - 5] += 9  # two convolutions look two cells far, and bilinear sampling one
    other = LatentMemory.from_view(changed, depth, cams, mover=memory.mover)
    assert first > 5 and torch.equal(other.read(there).features, memory.read(there).features)
    changed[..., first + 1 :] += 9
    other = LatentMemory.from_view(changed, depth, cams, mover=memory.mover)
    assert not torch.equal(other.read(there).features, memory.read(there).features)


def test_nothing_known_is_zero_and_an_empty_view_is_read():
    latents, depth, cams = one_view()
    depth[:, :, : W * STRIDE // 2] = 0
    memory = LatentMemory.from_view(latents, depth, cams, mover=alive())
    away = world.cameras(world.pose(yaw=180)[None], H * STRIDE, W * STRIDE)
    read = memory.read(away)
    assert not read.visible.any() and not read.features.any()
    assert memory.read(away[:0]).features.shape == (0, 3, H, W)
    read = memory.read(elsewhere(0.3))
    assert not read.features.movedim(1, -1)[~read.visible].any() and read.features.isfinite().all()


def test_several_sources_and_half_precision():
    latents, depth, cams = one_view()
    memory = LatentMemory.from_view(latents, depth, cams, mover=alive(), dtype=torch.float16)
    side = world.cameras(world.pose(x=0.8, yaw=25)[None], H * STRIDE, W * STRIDE)
    features, far = world.view(side, world.ROOM, STRIDE)
    memory.update(features, far, side)
    read = memory.read(elsewhere(0.4, 0.9))
    assert len(memory.surfels.name) == 2
    assert read.features.dtype == torch.float16 and read.features.isfinite().all()


def test_gradients_reach_all_of_it():
    view = one_view()
    mover = alive()
    LatentMemory.from_view(*view, mover=mover).read(elsewhere(0.3)).features.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mover.parameters())


def test_files_keep_it(tmp_path):
    mover = alive()
    mover.save_pretrained(tmp_path / "mover")
    again = LatentMover.from_pretrained(tmp_path / "mover")
    view, cams = one_view(), elsewhere(0.3)
    read = lambda m: LatentMemory.from_view(*view, mover=m).read(cams).features
    assert torch.equal(read(mover), read(again)) and not any(p.requires_grad for p in again.parameters())
    memory = LatentMemory.from_view(*view, mover=mover)
    memory.save(tmp_path / "memory.safetensors")
    assert LatentMemory.load(tmp_path / "memory.safetensors").mover is None
    loaded = LatentMemory.load(tmp_path / "memory.safetensors", mover=again)
    assert torch.equal(loaded.read(cams).features, memory.read(cams).features)


@pytest.mark.parametrize("damage", ["missing", "format", "key", "weights"])
def test_damaged_files_are_named(tmp_path, damage):
    alive().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    held = json.loads(config.read_text())
    if damage == "missing":
        config.unlink()
    elif damage == "format":
        config.write_text(json.dumps(held | {"format": "another"}))
    elif damage == "key":
        config.write_text(json.dumps(held | {"split": 3}))
    else:
        (tmp_path / "mover.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no mover"):
        LatentMover.from_pretrained(tmp_path)


def test_bad_movers_are_named(unchecked):
    view = one_view()
    with pytest.raises(ValueError, match="mover must be for 3 channels, those of the latents, got 4"):
        LatentMemory.from_view(*view, mover=alive(channels=4))
    with pytest.raises(ValueError, match='mover mends the read "gather" alone'):
        LatentMemory.from_view(*view, mover=alive(), read="nearest")
    with pytest.raises(ValueError, match="mover must be a LatentMover or None, got str"):
        LatentMemory.from_view(*view, mover="mover")
    with pytest.raises(ValueError, match="must be positive"):
        LatentMover(channels=3, split=0)
    with pytest.raises(ValueError, match="must be positive whole numbers, got channels='3'"):
        LatentMover(channels="3")
    with pytest.raises(ValueError, match="motion must be a dict"):
        LatentMover(channels=3, motion=4)
    with pytest.raises(ValueError, match="folder must be the path of a folder, got None"):
        LatentMover.from_pretrained(None)


def test_any_place_in_the_world_is_the_same():
    """The whole world moved far away gives the same reads."""
    latents, depth, cams = one_view()
    mover, cam = alive(), elsewhere(0.3)
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor([3.0, -2.0, 8.0])
    far = lambda c: replace(c, cam_from_world=c.cam_from_world @ shift)
    here = LatentMemory.from_view(latents, depth, cams, mover=mover).read(cam).features
    there = LatentMemory.from_view(latents, depth, far(cams), mover=mover).read(far(cam)).features
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)
