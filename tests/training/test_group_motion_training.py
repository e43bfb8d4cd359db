"""The training of reads of groups: it is the loop's walk, the loss falls, runs go on, mistakes are named."""

from dataclasses import replace

import pytest
import torch
from toy_training import write_shards

from mirage.checkpoint.codecs import model_codec
from mirage.cli import main
from mirage.dataset import Shards
from mirage.memory import LatentMemory, LatentMover
from mirage.training.clips import render_clips, to_floats
from mirage.training.fit import generator, save_atomic
from mirage.training.motion import MotionRecipe, RenderedClips, chunk_error, train_motion, walk
from mirage.training.reads import all_cameras

RECIPE = MotionRecipe(width=8, blocks=1, steps=8, batch=1, lr=5e-3)
EXACT = replace(RECIPE, depth_error=0.0)


def new_mover() -> LatentMover:
    torch.manual_seed(0)
    return LatentMover(channels=16, split=2, features=3, width=8)


@pytest.fixture(scope="module")
def codec(tiny_model):
    return model_codec(tiny_model).codec


@pytest.fixture(scope="module")
def clips(tiny_model, tmp_path_factory):
    return Shards(write_shards(tmp_path_factory.mktemp("motion") / "shards", tiny_model, clips=2, frames=21))


def test_a_walk_reads_every_frame_of_every_chunk_as_the_loop_does(codec, clips):
    clip = clips[1]
    chunks = walk(clip, codec, new_mover(), EXACT, generator(0))
    assert [len(chunk.reads) for chunk in chunks] == [17, 5] and [len(chunk.video) for chunk in chunks] == [5, 2]
    memory = LatentMemory.from_view(clip.image[:1], clip.depth[:1], clip.cameras[0], keep=clip.keep[:1])
    for chunk, frames, later in zip(chunks, (slice(17), slice(16, 21)), (slice(1, 5), slice(5, 6)), strict=True):
        known = memory.read(clip.way[frames])
        torch.testing.assert_close(chunk.reads, known.features.half())
        assert torch.equal(chunk.visible, known.visible) and not bool((chunk.counts & ~known.visible).any())
        memory.update(clip.image[later], clip.depth[later], clip.cameras[later], keep=clip.keep[later])
    assert chunks[0].counts.any() and float(chunks[0].plain) > 0


def test_the_error_is_that_of_what_is_known_alone(codec, clips):
    chunk = walk(clips[0], codec, new_mover(), EXACT, generator(0))[0]
    assert float(chunk_error(codec, replace(chunk, first=chunk.video[:1]), chunk.video)) == 0
    assert float(chunk_error(codec, replace(chunk, counts=chunk.counts & False), chunk.video + 1)) == 0
    wrong = torch.where(chunk.visible[::4, None], chunk.video, chunk.video + 9)  # unseen: the truth stands in
    torch.testing.assert_close(chunk_error(codec, chunk, wrong), chunk_error(codec, chunk, chunk.video))
    assert float(chunk_error(codec, chunk, chunk.video + 1)) > float(chunk_error(codec, chunk, chunk.video))


def test_a_run_goes_on_and_leaves_a_mover_that_reads_better(codec, clips, tmp_path):
    assert not train_motion(tmp_path / "cut", codec, new_mover(), clips, replace(RECIPE, stop_after=0.0))
    for name in ("cut", "whole"):
        assert train_motion(tmp_path / name, codec, new_mover(), clips, RECIPE)
    cut, whole = (LatentMover.from_pretrained(tmp_path / name / "mover") for name in ("cut", "whole"))
    assert all(torch.equal(a, b) for a, b in zip(cut.parameters(), whole.parameters(), strict=True))
    chunks = [chunk for clip in clips for chunk in walk(clip, codec, new_mover(), EXACT, generator(0))]
    error = lambda c: float(chunk_error(codec, c, whole.motion(c.reads.float(), c.visible, c.unmoved)))
    assert sum(error(chunk) for chunk in chunks) < sum(float(chunk.plain) for chunk in chunks)


def test_cameras_between_latent_frames_are_kept_or_on_the_way(clips):
    clip = clips[0]
    assert all_cameras(clip, 4) is clip.way
    older = all_cameras(replace(clip, way=None), 4)
    assert len(older) == 21 and torch.equal(older.cam_from_world[::4], clip.cameras.cam_from_world)


def test_rendered_clips_are_prepared_ones(codec, tmp_path):
    for number, seeds in enumerate(([0], [4, 3])):
        clips = render_clips(seeds, 5, 32, 48, ["walk"] * len(seeds))
        save_atomic(vars(clips), tmp_path / f"clips-{number:05}.safetensors")
    assert len(RenderedClips(codec, tmp_path)) == 3
    clips = RenderedClips(codec, tmp_path, 1)
    clip = clips[1]
    assert len(clips) == 2 and clip.video.shape == (2, 16, 4, 6) and len(clip.way) == 5
    assert torch.equal(clip.cameras.cam_from_world, clip.way.cam_from_world[::4])
    torch.testing.assert_close(clip.image[1:], codec.encode(to_floats(clip.picture)[1:, None])[:, 0])
    assert (clip.depth > 0).all()
    assert len(walk(clip, codec, new_mover(), RECIPE, generator(0))) == 1


def test_the_command_trains_it_for_a_mover_that_is_there(clips, tiny_model, tmp_path, capsys):
    new_mover().save_pretrained(tmp_path / "mover")
    command = [
        "train",
        "motion",
        "--codec",
        str(tiny_model),
        "--data",
        str(clips.folder),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--mover", str(tmp_path / "mover"), "--steps", "1", "--batch", "1"]) == 0
    assert "complete" in capsys.readouterr().out
    made = LatentMover.from_pretrained(tmp_path / "out" / "mover")
    assert made.motion.frames == 4 and torch.equal(made.expand[0].weight, new_mover().expand[0].weight)
    assert main([*command, "--mover", str(tmp_path / "none")]) != 0
    assert "holds no mover" in capsys.readouterr().err


def test_mistakes_are_named(codec, clips, tmp_path):
    with pytest.raises(ValueError, match="clips must be at least one, got none"):
        train_motion(tmp_path, codec, new_mover(), [], RECIPE)
    clip = clips[0]
    names = ("video", "image", "depth", "keep", "cameras", "picture")
    short = replace(clip, way=None, **{name: getattr(clip, name)[:1] for name in names})
    with pytest.raises(ValueError, match="clips must have a group after their first frame, got 1 latent frames"):
        train_motion(tmp_path, codec, new_mover(), [short], RECIPE)

    class Pictures(type(codec)):
        temporal_stride = 1

    with pytest.raises(ValueError, match="codec must have several frames per latent, got temporal_stride 1"):
        train_motion(tmp_path, Pictures(codec.autoencoder), new_mover(), clips, RECIPE)
