"""Whatever makes a model fit changes what it says not at all, or by no more than its rounding: on the CPU, toy size."""

import importlib.util
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.hooks import UserCpuOffloadHook

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path
from mirage.fit import fit
from mirage.geometry.depth import DepthEstimator
from mirage.geometry.movers import Segmenter
from mirage.pipeline import MiragePipeline

sys.path.insert(0, str(Path(__file__).parent / "checkpoint"))
import published


class Wall(DepthEstimator):
    """Everything is two units away."""

    def estimate(self, frames, latents, cameras, prior=None):
        return torch.full((len(frames), 2, 4), 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two blocks of the branch beside six of the backbone: what is tested here is the same in each of thirty."""
    root = tmp_path_factory.mktemp("wan")
    with pytest.MonkeyPatch.context() as small:
        small.setitem(published.TOY, "num_layers", 6)
        small.setitem(published.BRANCHES, "paper", (range(0, 6, 3), 49, "mask"))
        published.write_branch(root / "paper.safetensors", "paper")
        published.write_as_diffusers(root / "model")
    return root


@pytest.fixture
def load(folder):
    def load(dtype=torch.float32) -> MiragePipeline:
        pipeline = MiragePipeline.from_pretrained(
            folder / "model", memory=folder / "paper.safetensors", dtype=dtype, chunk_frames=5
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


def walk(pipeline: MiragePipeline, prompt="red room", frames: int = 9, **options) -> torch.Tensor:
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    path = build_path("truck:distance=0.3", frames, Cameras.from_fov(math.radians(60), 32, 64)).cameras
    options = {"num_inference_steps": 2, "estimator": Wall(), "output_type": "pt"} | options
    return pipeline(image, path, prompt, generator=torch.Generator().manual_seed(0), **options).frames


@pytest.fixture(scope="module")
def plain(folder):
    pipeline = MiragePipeline.from_pretrained(
        folder / "model", memory=folder / "paper.safetensors", dtype=torch.float32, chunk_frames=5
    )
    pipeline.set_progress_bar_config(disable=True)
    return walk(pipeline)


@pytest.mark.parametrize("offload", ["none", "model", "group"])
def test_offload_changes_nothing(load, plain, offload):
    pipeline = fit(load(), device="cpu", offload=offload)
    assert torch.equal(walk(pipeline), plain)
    assert torch.equal(walk(pipeline), plain), "and a second time"


def test_model_offload_hooks_every_part(load):
    pipeline = fit(load(), device="cpu", offload="model")
    parts = (pipeline.text_encoder, pipeline.transformer, pipeline.vae)
    assert all(hasattr(part, "_hf_hook") for part in parts)
    fit(whole := load(), device="cpu")
    assert not hasattr(whole.transformer, "_hf_hook")


def test_group_offload_brings_blocks_one_by_one(load):
    """Every block of the transformer is a group of its own."""
    pipeline = fit(load(), device="cpu", offload="group")
    registries = [block._diffusers_hook.hooks for block in pipeline.transformer.blocks]
    groups = {id(hooks["group_offloading"].group) for hooks in registries}
    assert len(groups) == len(pipeline.transformer.blocks)


def test_tiles_cover_the_picture(load):
    pipeline = fit(load(), vae_tiling=True)
    pipeline.vae.enable_tiling(32, 32, 16, 16)
    tiled = pipeline.codec.decode(torch.zeros(1, 2, 48, 3, 5))
    pipeline.vae.disable_tiling()
    assert tiled.shape == pipeline.codec.decode(torch.zeros(1, 2, 48, 3, 5)).shape == (1, 5, 3, 48, 80)


def denoised(pipeline: MiragePipeline) -> torch.Tensor:
    """The denoiser alone, away from the ends that are rounded to pixels."""
    noise = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=noise)
    with torch.no_grad():
        return pipeline.transformer(
            draw(1, 48, 3, 4, 6), torch.full((1, 3), 500.0), draw(1, 4, 8), draw(1, 49, 2, 4, 6), num_reference=1
        )


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


@pytest.mark.parametrize(("dtype", "quantize", "bound"), [("bfloat16", "none", 2**-6), ("float32", "fp8", 2**-3)])
def test_small_weights_are_near(load, dtype, quantize, bound):
    """bfloat16 keeps 8 bits of a number, fp8 (e4m3) 4: through 6 blocks of random weights, a few of those steps."""
    pipeline = fit(load(getattr(torch, dtype)), quantize=quantize)
    error = relative(denoised(pipeline), denoised(load()))
    assert 0 < error < bound
    assert walk(pipeline).isfinite().all()
    if quantize == "fp8":
        assert pipeline.transformer.blocks[3].ffn.net[2].weight.dtype == torch.float8_e4m3fn
        assert pipeline.transformer.patch_embedding.weight.dtype == torch.float32


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.filterwarnings("ignore")
def test_int8_weights_are_near(load):
    pipeline = fit(load(), quantize="int8")
    assert 0 < relative(denoised(pipeline), denoised(load())) < 2**-5


@pytest.mark.skipif(importlib.util.find_spec("torchao") is not None, reason="torchao is installed")
def test_int8_says_what_it_needs(load):
    with pytest.raises(ValueError, match=r"int8.*pip install torchao, or choose fp8"):
        fit(load(), quantize="int8")


def test_attention_backends(load):
    whole = denoised(load())
    pipeline = fit(load(), attention="_native_math")
    assert 0 < relative(denoised(pipeline), whole) < 1e-5
    assert torch.equal(denoised(load()), whole), "another model is left alone"
    pipeline.transformer.reset_attention_backend()
    assert torch.equal(denoised(pipeline), whole)
    for wrong in ("sage", "warp"):
        with pytest.raises(ValueError, match=f"attention '{wrong}' cannot be had here"):
            fit(load(), attention=wrong)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiler_is_given_the_blocks(load):
    """Compiling itself takes a minute on a CPU; that the blocks are handed over is seen on them."""
    pipeline = fit(load(), compiled=True)
    assert all(block._compiled_call_impl is not None for block in pipeline.transformer.blocks)


def test_wrong_choices(load, unchecked):
    for wrong in ({"offload": "disk"}, {"quantize": "int4"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one of none, "):
            fit(load(), **wrong)


def test_nothing_is_done_twice(load):
    """Counted on the parts themselves: two chunks, three prompts of which two are equal, guidance."""
    pipeline, calls = load(), Counter()
    pipeline.text_encoder.register_forward_hook(lambda _, __, out: calls.update(texts=len(out.last_hidden_state)))
    images, videos = [], []
    encode, decode = pipeline.vae.encode, pipeline.vae.decode

    def seen_encode(frames, *more):
        images.append(tuple(frames.shape))
        return encode(frames, *more)

    def seen_decode(latents, *more):
        videos.append(tuple(latents.shape))
        return decode(latents, *more)

    pipeline.vae.encode, pipeline.vae.decode = seen_encode, seen_decode
    prompts = ["red room", "blue room", "red room"]
    walk(pipeline, prompts, frames=13, negative_prompt="blue room", guidance_scale=2.0)
    assert images == [(1, 3, 1, 32, 64)] * 4, "the picture, and the one frame of each chunk whose latents are written"
    assert videos == [(1, 48, 2, 2, 4)] * 3, "each chunk decoded once"
    assert calls["texts"] == 2, "each distinct prompt once"
    walk(pipeline, "red room", frames=5)
    assert calls["texts"] == 2, "and not again in the next walk"


class Moved(Wall, Segmenter):
    """A wall that tells where it was brought."""

    def __init__(self):
        self.log = []

    def to(self, device):
        self.log.append(torch.device(device).type)
        return self

    def keep(self, frames):
        return torch.ones(len(frames), *frames.shape[2:], dtype=torch.bool)


@pytest.mark.parametrize("offload", ["none", "model", "group"])
def test_depth_model_and_segmenter_leave_when_idle(load, offload):
    """They come for their work and go after it: on a CPU both places have one name, but each move is seen."""
    pipeline, depth, movers = fit(load(), device="cpu", offload=offload), Moved(), Moved()
    walk(pipeline, estimator=depth, movers=movers)
    there_and_back = ["cpu", "cpu"] * 3  # the first view and two chunks
    assert depth.log == movers.log == (there_and_back if offload != "none" else [])


def test_one_part_at_a_time_is_on_the_card(load):
    """Under model offload, whatever is called next, every other part was sent away before."""
    pipeline, log = fit(load(), device="cpu", offload="model"), []

    class Seen(UserCpuOffloadHook):
        def offload(self):
            log.append(f"-{type(self.model).__name__}")
            super().offload()

    pipeline._all_hooks = [Seen(hook.model, hook.hook) for hook in pipeline._all_hooks]
    for part in (pipeline.text_encoder, pipeline.transformer):
        part.register_forward_pre_hook(lambda part, _: log.append(type(part).__name__))
    walk(pipeline)
    for name in ("UMT5EncoderModel", "MirageTransformer"):
        for index in [i for i, what in enumerate(log) if what == name and log[i - 1] != name]:
            assert set(log[index - 3 : index]) == {"-UMT5EncoderModel", "-MirageTransformer", "-AutoencoderKLWan"}
    assert log.count("MirageTransformer") == 4
