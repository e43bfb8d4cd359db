"""A model with a mover: kept beside the autoencoder, used by every latent memory that the model makes, and no other."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path
from mirage.memory import LatentMover
from mirage.pipeline import MiragePipeline
from mirage.training.clips import render_clips
from mirage.training.samples import make_samples
from mirage.world import World
from mirage.world.identity import model_mark

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
CAMERAS = build_path("forward 0.3 and left 10deg", 17, Cameras.from_fov(math.radians(60), 32, 48)).cameras


def new_mover(scale: float, channels: int = 16) -> LatentMover:
    """A small mover; it changes reads as soon as the scale of its last layer is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        mover = LatentMover(channels=channels, split=2, features=4, width=8)
        torch.nn.init.normal_(mover.contract[-1].weight, std=scale)
    return mover.eval().requires_grad_(False)


def load(folder: Path, **options) -> MiragePipeline:
    pipeline = MiragePipeline.from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def walk(pipeline: MiragePipeline, memory: str = "latent") -> np.ndarray:
    return pipeline(PICTURE, CAMERAS[::2], memory=memory, generator=torch.Generator().manual_seed(0)).frames


@pytest.fixture(scope="module")
def plain(tiny_model) -> MiragePipeline:
    return load(tiny_model)


@pytest.fixture(scope="module")
def moving(tiny_model) -> MiragePipeline:
    return load(tiny_model, mover=new_mover(0.3))


def test_without_one_there_is_none_and_a_new_one_changes_nothing(plain, tiny_model):
    assert plain.mover is None and plain.begin(PICTURE, CAMERAS[0]).memory.mover is None
    assert (walk(load(tiny_model, mover=new_mover(0.0))) == walk(plain)).all()


def test_a_trained_one_mends_latent_reads_alone(plain, moving):
    assert (walk(moving) != walk(plain)).any()
    for memory in ("colour", "none"):
        assert (walk(moving, memory) == walk(plain, memory)).all()
    memory = moving.begin(PICTURE, CAMERAS[0]).memory
    there = memory.read(CAMERAS[[0, 16]])
    features = memory.surfels.sample(memory.surfels.render(CAMERAS[[0, 16]].resize(4, 6)))
    assert torch.equal(there.features[0], features[0]) and not torch.equal(there.features[1], features[1])


def test_what_happens_between_latent_frames_reaches_the_video(tiny_model):
    """Two ways through the same latent frames are one to a mover of pictures, and two to one that reads groups."""
    between = CAMERAS[[0, 3, 3, 3, 4, 7, 7, 7, 8]]
    videos = []
    for scale in (0.0, 0.3):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            mover = LatentMover(
                channels=16, split=2, features=4, width=8, motion={"frames": 4, "width": 8, "blocks": 1}
            )
            torch.nn.init.normal_(mover.motion.leave.weight, std=scale)
        pipeline = load(tiny_model, mover=mover.eval().requires_grad_(False))
        noise = lambda: torch.Generator().manual_seed(0)
        videos.append([pipeline(PICTURE, way, generator=noise()).frames for way in (CAMERAS[:9], between)])
    assert (videos[0][0] == videos[0][1]).all() and (videos[1][0] != videos[1][1]).any()


def test_it_is_saved_beside_the_autoencoder_and_comes_back(moving, plain, tmp_path):
    moving.save_pretrained(tmp_path / "with")
    plain.save_pretrained(tmp_path / "without")
    assert (tmp_path / "with" / "mover").is_dir() and not (tmp_path / "without" / "mover").exists()
    assert (walk(load(tmp_path / "with")) == walk(moving)).all()
    assert load(tmp_path / "without").mover is None


def test_what_is_damaged_is_refused_by_name(moving, tmp_path):
    moving.save_pretrained(tmp_path)
    (tmp_path / "mover" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=f"model {tmp_path} cannot be loaded: .*mover"):
        load(tmp_path)
    with pytest.raises(ValueError, match="mover must be for 16 channels"):
        walk(load(moving.config._name_or_path, mover=new_mover(0.3, channels=4)))


def test_the_denoiser_learns_from_the_reads_that_it_will_see(plain, moving):
    clips = render_clips([5], 17, 32, 48, ["walk"])
    read = {
        name: make_samples(plain.codec, clips, 0, mover) for name, mover in (("gather", None), ("mover", moving.mover))
    }
    assert torch.equal(read["gather"].visible, read["mover"].visible)
    assert torch.equal(read["gather"].features[:, 0, 0], read["mover"].features[:, 0, 0])  # where it was stored
    assert not torch.equal(read["gather"].features, read["mover"].features)


def test_a_world_goes_on_with_it(moving, plain, tmp_path):
    assert model_mark(moving, 16).weights != model_mark(plain, 16).weights
    frames = []
    for name, stops in (("whole", (16,)), ("resumed", (8, 8))):
        with World.create(tmp_path / name, moving, PICTURE, CAMERAS[0], steps=1) as world:
            assert world.memory().mover is moving.mover
            world.plan(CAMERAS[1:])
        for stop in stops:
            with World.open(tmp_path / name, moving) as world:
                for _ in range(stop // 8):
                    next(world.walk())
        with World.open(tmp_path / name, write=False) as world:
            frames.append(world.frames())
            assert world.memory().mover is None  # nothing computes there
    assert len(frames[0]) == 17 and (frames[0] == frames[1]).all()
    with pytest.raises(ValueError, match=r"was made by model .* load the same weights"):
        World.open(tmp_path / "whole", plain)
