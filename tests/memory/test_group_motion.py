"""Laws of the reads of groups: nothing changes at their start nor where the camera stands; files keep them."""

import json

import plane_worlds as world
import pytest
import torch

from mirage.memory import ColourMemory, GroupMotion, LatentMemory, LatentMover, NoMemory

STRIDE, H, W, N = 4, 7, 10, 3


def one_view():
    cams = world.cameras(world.pose()[None], H * STRIDE, W * STRIDE)
    return (*world.view(cams, world.ROOM, STRIDE), cams)


def moving(groups: int = 2):
    poses = torch.stack([world.pose(x=0.1 * i, yaw=1.5 * i) for i in range(1 + groups * N)])
    return world.cameras(poses, H * STRIDE, W * STRIDE)


def mover(scale: float = 0.5, frames: int = N) -> LatentMover:
    """A mover of groups; with a scale its last layers do something."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        motion = {"frames": frames, "width": 6, "blocks": 1}
        mover = LatentMover(channels=3, split=2, features=3, width=8, motion=motion)
        if scale:
            for layer in (mover.contract[-1], mover.motion.leave, mover.motion.blocks[0][-1]):
                torch.nn.init.normal_(layer.weight, std=scale)
    return mover


def same(a, b, *names: str) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names or vars(a))


def test_at_its_start_it_is_the_read_of_latent_frames():
    memory, cams = LatentMemory.from_view(*one_view(), mover=mover(0)), moving()
    assert same(memory.read_video(cams, N), memory.read(cams[::N]))


def test_it_changes_features_of_seen_cells_that_move_and_nothing_else():
    memory, cams = LatentMemory.from_view(*one_view(), mover=mover()), moving()
    video, plain = memory.read_video(cams, N), memory.read(cams[::N])
    assert same(video, plain, "visible", "depth", "observed", "unmoved")
    assert torch.equal(video.features[0], plain.features[0])
    changed = (video.features != plain.features).any(1)
    assert torch.equal(changed[1:], plain.visible[1:]) and not video.visible.all()


def test_a_camera_that_stands_still_reads_what_was_stored():
    view = one_view()
    memory = LatentMemory.from_view(*view, mover=mover())
    still = world.cameras(world.pose().repeat(1 + N, 1, 1), H * STRIDE, W * STRIDE)
    read = memory.read_video(still, N)
    assert read.unmoved.any() and torch.equal(read.features[1], memory.read(view[2]).features[0])


def test_what_happens_between_latent_frames_is_in_it():
    """Two videos of the same latent frames; and a group knows nothing of the next."""
    memory, cams = LatentMemory.from_view(*one_view(), mover=mover()), moving()
    other = world.cameras(cams.cam_from_world.clone(), H * STRIDE, W * STRIDE)
    other.cam_from_world[N + 1] = world.pose(x=-0.4, yaw=-8)
    a, b = memory.read_video(cams, N).features, memory.read_video(other, N).features
    assert torch.equal(a[:2], b[:2]) and not torch.equal(a[2], b[2])


def test_chunks_of_any_number_of_groups_agree():
    memory, cams = LatentMemory.from_view(*one_view(), mover=mover()), moving(3)
    whole, part = memory.read_video(cams, N), memory.read_video(cams[N : 2 * N + 1], N)
    torch.testing.assert_close(whole.features[2], part.features[1])
    assert memory.read_video(cams[:1], N).features.shape == (1, 3, H, W)


@pytest.mark.parametrize("temporal_stride", [1, 2])
def test_another_stride_is_read_as_before(temporal_stride):
    memory, cams = LatentMemory.from_view(*one_view(), mover=mover()), moving()
    assert same(memory.read_video(cams, temporal_stride), memory.read(cams[::temporal_stride]))


def test_other_memories_read_their_latent_frames():
    latents, depth, cams = one_view()
    for memory in (
        LatentMemory.from_view(latents, depth, cams),
        LatentMemory.from_view(latents, depth, cams, read="nearest"),
        NoMemory.from_view(latents, depth, cams),
    ):
        assert same(memory.read_video(moving(), N), memory.read(moving()[::N]))
    assert ColourMemory.read_video is NoMemory.read_video


def test_what_is_written_does_not_depend_on_it():
    view, cams = one_view(), moving()
    memories = [LatentMemory.from_view(*view, mover=m) for m in (mover(), None)]
    for memory in memories:
        memory.read_video(cams, N)
        memory.update(*world.view(cams[::N], world.ROOM, STRIDE), cams[::N])
    left, right = (memory.surfels.tensors for memory in memories)
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_gradients_reach_all_of_it():
    motion = mover().motion
    reads = torch.randn(1 + 2 * N, 3, 5, 4)
    seen = torch.ones(1 + 2 * N, 5, 4, dtype=torch.bool)
    motion(reads, seen, ~seen).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in motion.parameters())


def test_files_keep_it_and_a_mover_without_it_stays_without(tmp_path):
    one, cams = mover(), moving()
    one.save_pretrained(tmp_path / "with")
    again = LatentMover.from_pretrained(tmp_path / "with")
    read = lambda m: LatentMemory.from_view(*one_view(), mover=m).read_video(cams, N)
    assert same(read(one), read(again)) and again.motion.config == {"frames": N, "width": 6, "blocks": 1}
    plain = LatentMover(channels=3, split=2, features=3, width=8)
    plain.save_pretrained(tmp_path / "without")
    assert "motion" not in json.loads((tmp_path / "without" / "config.json").read_text())
    assert LatentMover.from_pretrained(tmp_path / "without").motion is None


@pytest.mark.parametrize("motion", ["half", {"frames": 1}, {"frames": 4, "speed": 2}])
def test_damaged_files_are_named(tmp_path, motion):
    mover().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"motion": motion}))
    with pytest.raises(ValueError, match="holds no mover"):
        LatentMover.from_pretrained(tmp_path)


def test_bad_input_is_named(unchecked):
    with pytest.raises(ValueError, match="frames at least 2, got channels=3, frames=1"):
        GroupMotion(channels=3, frames=1)
    memory = LatentMemory.from_view(*one_view(), mover=mover())
    for count in (0, 2 * N):
        with pytest.raises(ValueError, match=rf"one and whole groups, got {count}"):
            memory.read_video(moving()[:count], N)
    with pytest.raises(ValueError, match="cameras must be mirage's Cameras"):
        memory.read_video(torch.eye(4)[None], N)
