"""nano's mover learns from nano's own clips: what is cut out of them, and that a stage of its training does it."""

import pytest
import torch

from mirage.geometry.nano import FAR
from mirage.memory import LatentMover
from mirage.training.clips import read_shard, render_clips, to_floats
from mirage.training.fit import save_atomic
from mirage.training.mover_data import VIEWS, clip_groups, read_group
from mirage.training.nano import NanoRecipe, train_nano
from mirage.video.nano import NanoAutoencoder, NanoCodec


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """Two clips, the second with movers."""
    path = tmp_path_factory.mktemp("clips") / "clips-00003.safetensors"
    save_atomic(vars(render_clips([2, 3], 49, 32, 48, ["walk", "orbit"])), path)
    return path


def test_groups_are_views_of_one_clip_each(shard, tmp_path):
    torch.manual_seed(0)
    codec = NanoCodec(NanoAutoencoder(latent_channels=4, widths=(4, 8, 16), blocks=(1, 1, 1)).eval())
    files, clips = clip_groups(tmp_path, codec, shard.parent), read_shard(shard)
    assert len(files) == 2
    for i, file in enumerate(files):
        group = read_group(file)
        poses = [(clips.cam_from_world[i] == pose).all((1, 2)).nonzero()[:, 0] for pose in group.cam_from_world]
        frames = torch.stack([where[0] for where in poses])
        assert len(frames) == VIEWS and (frames.diff() > 0).all() and (frames.diff() <= 7).all()
        assert torch.equal(group.colour, clips.frames[i, frames])
        again = codec.encode(to_floats(group.colour)[:, None])[:, 0]
        assert (group.latents - again).abs().max() < 2e-3 * again.abs().max()
        moving, sky = clips.movers[i, frames], clips.depth[i, frames] == 0
        assert torch.equal(group.depth == 0, moving) and (group.depth[sky & ~moving] == FAR).all()
    assert clips.movers.any() and not clips.movers[0].any()
    before = [file.stat().st_mtime_ns for file in files]
    assert clip_groups(tmp_path, codec, shard.parent) == files
    assert [file.stat().st_mtime_ns for file in files] == before


def test_clips_that_are_too_short_are_refused(tmp_path):
    save_atomic(vars(render_clips([2], 17, 32, 48, ["walk"])), tmp_path / "clips-00000.safetensors")
    with pytest.raises(ValueError, match="clips must have more than 42 frames, got 17"):
        clip_groups(tmp_path / "groups", NanoCodec(NanoAutoencoder().eval()), tmp_path)


def test_it_is_a_stage_of_the_training_of_nano(shard, tmp_path):
    (tmp_path / "clips").symlink_to(shard.parent)
    save_atomic(dict(NanoAutoencoder().named_parameters()), tmp_path / "autoencoder.safetensors")
    assert train_nano(tmp_path, NanoRecipe(), stages=("mover",)) and not (tmp_path / "mover").exists()
    assert train_nano(tmp_path, NanoRecipe(mover_steps=1), stages=("mover",))
    assert LatentMover.from_pretrained(tmp_path / "mover" / "mover").channels == 16
