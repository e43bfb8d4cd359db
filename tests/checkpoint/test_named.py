"""Depth models and segmenters by name: found, or refused in one sentence; and a pipeline that uses them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "geometry"))
import small_checkpoints

from mirage.camera import Cameras
from mirage.checkpoint.named import DEPTH_MODELS, MOVERS_MODELS, depth_estimator, segmenter
from mirage.geometry import depth_anything_3, map_anything
from mirage.geometry.metric import MetricDepth
from mirage.geometry.movers import ClassMovers, Segmenter
from mirage.geometry.named_movers import NamedMovers
from mirage.pipeline import MiragePipeline
from mirage.preview import preview


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("named")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kinds = ("glpn", "segformer", "qwen3_vl", "sam3")
        return {kind: getattr(small_checkpoints, kind)(root / kind) for kind in kinds}


class OnlyTheLeft(Segmenter):
    """The right half of each picture moves."""

    def keep(self, frames):
        keep = torch.ones(len(frames), *frames.shape[2:], dtype=torch.bool)
        keep[..., frames.shape[3] // 2 :] = False
        return keep


def test_a_folder_tells_what_it_holds(folders):
    assert isinstance(depth_estimator(folders["glpn"], device="cpu"), MetricDepth)
    assert isinstance(segmenter(str(folders["segformer"])), ClassMovers)
    assert isinstance(segmenter(f"{folders['qwen3_vl']}+{folders['sam3']}"), NamedMovers)


@pytest.mark.parametrize("load, known", [(depth_estimator, DEPTH_MODELS), (segmenter, MOVERS_MODELS)])
def test_unknown_names_are_refused(load, known):
    with pytest.raises(ValueError, match=r"must be one of .*, a folder, or OWNER/NAME on the hub, got nonsense"):
        load("nonsense")
    with pytest.raises(ValueError, match=r"nobody/at-all is not here and cannot be fetched .* give a folder"):
        load("nobody/at-all", local_files_only=True)
    with pytest.raises(ValueError, match="cannot be fetched"):
        load(list(known)[-1] if load is segmenter else "zoedepth", local_files_only=True)


@pytest.mark.parametrize("name, package", [("depth-anything-3", depth_anything_3), ("map-anything", map_anything)])
def test_a_missing_package_is_said_before_anything_is_fetched(name, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError) as said:
        depth_estimator(name)
    assert package.INSTALL in str(said.value) and "\n" not in str(said.value)


def test_a_pipeline_takes_names_and_loads_each_once(tiny_model, folders, generator):
    pipeline = MiragePipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.register_modules(depth_head=None)
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    cameras = Cameras.from_fov(1.0, 32, 48, frames=9)
    named = {"estimator": str(folders["glpn"]), "movers": str(folders["segformer"])}
    output = pipeline(image, cameras, generator=generator, **named)
    loaded = {"estimator": depth_estimator(folders["glpn"]), "movers": segmenter(folders["segformer"])}
    again = pipeline(image, cameras, generator=torch.Generator().manual_seed(0), **loaded)
    assert np.array_equal(output.frames, again.frames) and "movers" in output.seconds
    assert pipeline._estimator(named["estimator"]) is pipeline._estimator(named["estimator"])
    assert preview(pipeline, image, cameras, **named).coverage[0] == output.coverage[0] or len(output.memory) == 0


def test_movers_are_not_remembered(tiny_model):
    pipeline = MiragePipeline.from_pretrained(tiny_model)
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    cameras = Cameras.from_fov(1.0, 32, 48, frames=5)
    for kind in ("latent", "colour"):
        state = pipeline.begin(image, cameras[0], memory=kind, movers=OnlyTheLeft())
        known = state.memory.read(cameras[0]).visible[0]
        assert known[:, :2].all() and not known[:, 4:].any()
        after, result = pipeline.advance(state, cameras[1:], movers=OnlyTheLeft())
        assert (
            result.update.invalid >= known[:, 3:].numel() and not after.memory.read(cameras[0]).visible[0, :, 4:].any()
        )
        free, _ = pipeline.advance(state, cameras[1:])
        assert free.memory.read(cameras[0]).visible[0, :, 4:].any()
