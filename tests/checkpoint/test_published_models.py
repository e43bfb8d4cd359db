"""Published models: each layout is found out, loaded strictly, runs, and is written and read again."""

import json
import logging
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from transformers import UMT5Config, UMT5EncoderModel

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path
from mirage.checkpoint.names import autoencoder_name, our_name, text_encoder_name
from mirage.checkpoint.wan import branch_of, load_autoencoder
from mirage.denoise import MirageTransformer
from mirage.geometry.depth import KnownDepth
from mirage.pipeline import MiragePipeline
from mirage.video.wan import WAN22

sys.path.insert(0, str(Path(__file__).parent))
import published

SIZE = {"num_attention_heads": 24, "attention_head_dim": 128, "in_channels": 48, "text_dim": 4096, "freq_dim": 256}
SIZE |= {"ffn_dim": 14336, "num_layers": 30}  # Wan2.2-TI2V-5B


class Wall(KnownDepth):
    """Everything is two units away."""

    def __init__(self):
        super().__init__(torch.full((1, 2, 4), 2.0))

    def estimate(self, frames, latents, cameras, prior=None):
        return self.depth.expand(len(frames), -1, -1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    found = {"wan": published.write_as_wan(root / "wan"), "diffusers": published.write_as_diffusers(root / "diffusers")}
    for branch in published.BRANCHES:
        found[branch] = published.write_branch(root / f"{branch}.safetensors", branch)
    return found | {"lora": published.write_lora(root / "lora.safetensors")}


def load(folder, **options) -> MiragePipeline:
    pipeline = MiragePipeline.from_pretrained(folder, dtype=torch.float32, chunk_frames=5, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: MiragePipeline, **options) -> torch.Tensor:
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    path = build_path(
        "truck:distance=0.3", options.pop("frames", 5), Cameras.from_fov(math.radians(60), 32, 64)
    ).cameras
    noise = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "estimator": Wall(), "output_type": "pt"} | options
    return pipeline(image, path, generator=noise, **options).frames


@pytest.mark.parametrize("branch", published.BRANCHES)
def test_full_size_names_and_shapes_are_the_published_ones(branch):
    """Wan2.2-TI2V-5B with each branch, on the meta device: every official key has its place, and none is left."""
    layers, channels, layout = published.BRANCHES[branch]
    with torch.device("meta"):
        net = MirageTransformer(**SIZE, vace_layers=tuple(layers), vace_in_channels=channels, memory_layout=layout)
    own = net.state_dict()
    names = published.transformer_names(30), published.branch_names(len(layers))
    assert {our_name(name) for name in names[0] + names[1]} == own.keys() and len(names[0] + names[1]) == len(own)
    assert own["patch_embedding.weight"].shape == (3072, 48, 1, 2, 2) and own["proj_out.weight"].shape == (192, 3072)
    assert own["vace_patch_embedding.weight"].shape == (3072, channels, 1, 2, 2)
    backbone = sum(own[our_name(name)].numel() for name in names[0])
    assert round(backbone / 1e9, 2) == 5.0
    found = branch_of({our_name(name): own[our_name(name)] for name in names[1]}, 30, 48)
    assert (found.layers, found.channels, found.layout) == (tuple(layers), channels, layout)


def test_full_size_autoencoder_and_text_encoder_have_the_published_names():
    with torch.device("meta"):
        vae, text = AutoencoderKLWan(**WAN22), UMT5EncoderModel(UMT5Config(**UMT5_XXL))
    names = published.autoencoder_names(2)
    assert {autoencoder_name(name) for name in names} == vae.state_dict().keys() and len(names) == 196
    names = published.text_encoder_names(24)
    assert {text_encoder_name(name) for name in names} | {"encoder.embed_tokens.weight"} == text.state_dict().keys()
    assert len(names) == 242 and text.state_dict()["shared.weight"].shape == (256384, 4096)


UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}


def test_both_layouts_of_the_backbone_are_one_model(folders):
    wan, diffusers = (load(folders[layout], memory=folders["paper"]) for layout in ("wan", "diffusers"))
    want = published.toy_transformer("paper").state_dict()
    for pipeline in (wan, diffusers):
        own = pipeline.transformer.state_dict()
        assert own.keys() == want.keys() and all(torch.equal(own[key], want[key]) for key in want)
    for part in ("vae", "text_encoder"):
        one, two = (getattr(pipeline, part).state_dict() for pipeline in (wan, diffusers))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    a, b = (generate(pipeline, prompt="red room") for pipeline in (wan, diffusers))
    assert torch.equal(a, b) and a.shape == (5, 3, 32, 64) and bool(a.isfinite().all())
    assert not torch.equal(a, generate(wan, prompt="blue room"))


@pytest.mark.parametrize(("branch", "memory"), [("authors", "latent"), ("spatia", "latent"), ("spatia", "colour")])
def test_every_published_branch_runs_and_is_obeyed(folders, branch, memory):
    pipeline = load(folders["wan"], memory=folders[branch])
    assert pipeline.transformer.config.memory_layout == published.BRANCHES[branch][2]
    video = generate(pipeline, memory=memory, frames=9)
    assert video.shape == (9, 3, 32, 64) and bool(video.isfinite().all())
    assert not torch.equal(video, generate(pipeline, memory="none", frames=9))


def test_spatia_reads_the_encoded_rendering_and_score(folders):
    """The branch is given the encoding of the rendered frames with black holes, and that of what is seen."""
    pipeline = load(folders["wan"], memory=folders["spatia"])
    given = []
    pipeline.transformer.vace_patch_embedding.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    path = build_path("pan:degrees=40", 5, Cameras.from_fov(math.radians(60), 32, 64)).cameras
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    start = pipeline.begin(image, path[0], memory="colour", estimator=Wall())
    pipeline.advance(start, path[1:], estimator=Wall(), num_inference_steps=1)
    pixels = start.memory.render(path)[1]
    assert 0.3 < pixels.visible.float().mean() < 0.9
    seen = pixels.visible[:, None].expand(-1, 3, -1, -1)
    rendering = pipeline.codec.encode(torch.where(seen, pixels.features, -1.0)[None])[0]
    score = pipeline.codec.encode(torch.where(seen, 1.0, -1.0)[None])[0]
    read = given[0][0].transpose(0, 1)
    assert read.shape == (2, 96, 2, 4)
    assert (read[:, :48] - rendering).abs().max() < 1e-5 and (read[:, 48:] - score).abs().max() < 1e-5


def test_the_constant_of_the_released_code_is_encoded_once(folders, monkeypatch):
    pipeline = load(folders["wan"], memory=folders["authors"])
    encoded = []
    monkeypatch.setattr(pipeline.codec, "encode", lambda x, f=pipeline.codec.encode: encoded.append(x) or f(x))
    generate(pipeline, frames=13)
    assert sum(bool((x == 1).all()) for x in encoded) == 1


def test_without_a_branch_it_says_so_and_stops(folders, caplog):
    with caplog.at_level(logging.WARNING, logger="mirage"):
        pipeline = load(folders["diffusers"])
    assert "no memory branch: a camera path will be ignored" in caplog.text
    with pytest.raises(ValueError, match="no memory branch, so the path would be ignored"):
        generate(pipeline)
    assert generate(pipeline, memory="none").shape == (5, 3, 32, 64)


def test_lora_and_round_trip(folders, tmp_path):
    plain = generate(load(folders["wan"], memory=folders["paper"]))
    pipeline = load(folders["wan"], memory=folders["paper"], lora=folders["lora"])
    adapted = generate(pipeline)
    assert not torch.equal(plain, adapted)
    with pytest.raises(ValueError, match=r"no adapter when it is saved, got camera: call transformer.fuse_lora"):
        pipeline.save_pretrained(tmp_path / "adapted")
    pipeline.transformer.fuse_lora()
    pipeline.transformer.unload_lora()
    fused = generate(pipeline)
    assert (fused - adapted).abs().max() < 1e-3
    pipeline.save_pretrained(tmp_path / "fused")
    again = MiragePipeline.from_pretrained(tmp_path / "fused")
    again.set_progress_bar_config(disable=True)
    own, want = again.transformer.state_dict(), pipeline.transformer.state_dict()
    assert own.keys() == want.keys() and all(torch.equal(own[key], want[key]) for key in want)
    assert (generate(again) - fused).abs().max() < 1e-4  # mapped weights may be multiplied in another order
    with pytest.raises(ValueError, match="memory must be left out"):
        MiragePipeline.from_pretrained(tmp_path / "fused", memory=folders["paper"])


def test_bfloat16_and_offload_run_on_a_cpu(folders):
    pipeline = MiragePipeline.from_pretrained(folders["wan"], memory=folders["paper"], chunk_frames=5)
    kinds = {
        key.split(".")[-2]: value.dtype for key, value in pipeline.transformer.condition_embedder.state_dict().items()
    }
    kinds |= {
        key.split(".")[-2]: value.dtype for key, value in pipeline.transformer.blocks[0].attn1.state_dict().items()
    }
    assert kinds["to_q"] == torch.bfloat16 and kinds["norm_q"] == torch.bfloat16
    assert {value.dtype for value in pipeline.vae.state_dict().values()} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    whole = generate(pipeline, prompt="red room")
    assert bool(whole.isfinite().all())
    pipeline.enable_model_cpu_offload(device="cpu")
    assert torch.equal(generate(pipeline, prompt="red room"), whole)


@pytest.mark.parametrize("asked", [None, torch.float32, torch.bfloat16])
def test_what_was_saved_in_bfloat16_does_not_come_back_twice_as_large(folders, tmp_path, asked):
    wan = MiragePipeline.from_pretrained(folders["wan"], memory=folders["paper"])
    wan.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    again = MiragePipeline.from_pretrained(tmp_path, dtype=asked)
    for part in ("transformer", "text_encoder", "vae"):
        own, want = (getattr(pipeline, part).state_dict() for pipeline in (again, wan))
        kinds = {key: asked if asked and part != "vae" else value.dtype for key, value in want.items()}
        precise = [key for key in want if part == "transformer" and want[key].dtype == torch.float32]
        assert {key: value.dtype for key, value in own.items()} == kinds | dict.fromkeys(precise, torch.float32)


def broken(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "Wan2.2_VAE.pth").unlink(), r"a file \*VAE\*"),
        (lambda f: (f / "config.json").write_text("{"), "readable config.json"),
        (lambda f: (f / "config.json").write_text('{"dim": 24}'), "must say its size"),
        (lambda f: shutil.rmtree(f / "google"), "google/umt5-xxl"),
        (lambda f: next(f.glob("*2-of*")).unlink(), "is not whole"),
        (lambda f: next(f.glob("*2-of*")).write_bytes(b"\x01" * 50), "intact"),
        (lambda f: torch.save({"a": torch.zeros(1)}, f / "Wan2.2_VAE.pth"), "Wan 2.2's autoencoder"),
        (lambda f: torch.save({"a": torch.zeros(1)}, f / "models_t5_umt5-xxl-enc-bf16.pth"), "text encoder"),
    ],
)
def test_every_defect_of_a_folder_is_one_sentence(folders, tmp_path, harm, words):
    folder = broken(folders["wan"], tmp_path / "wan")
    harm(folder)
    with pytest.raises(ValueError, match=words) as error:
        MiragePipeline.from_pretrained(folder, memory=folders["paper"])
    assert "\n" not in str(error.value)


def test_weights_of_another_model_are_refused_with_their_names(folders, tmp_path):
    folder = broken(folders["wan"], tmp_path / "wan")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_layers": 28}))
    with pytest.raises(ValueError, match=r"not in the model: blocks.28"):
        MiragePipeline.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | {"in_dim": 36}))
    with pytest.raises(ValueError, match="as many channels as it gives"):
        MiragePipeline.from_pretrained(folder)
    weights = load_file(folders["paper"])
    weights.pop("vace.vace_blocks.3.self_attn.q.weight")
    save_file(weights | {"vace.vace_blocks.0.surplus": torch.zeros(1)}, tmp_path / "changed.safetensors")
    with pytest.raises(
        ValueError, match=r"(?s)missing: vace_blocks.3.attn1.to_q.*not in the model: vace_blocks.0.surplus"
    ):
        MiragePipeline.from_pretrained(folders["wan"], memory=tmp_path / "changed.safetensors")
    with pytest.raises(ValueError, match="must hold the weights of a memory branch"):
        MiragePipeline.from_pretrained(folders["wan"], memory=folders["lora"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match="must be of Mirage or Wan, got the pipeline 'FluxPipeline'"):
        MiragePipeline.from_pretrained(tmp_path / "other")


def test_one_file_may_hold_branch_adapter_and_backbone(folders, tmp_path, caplog):
    """What stands beside a branch is never dropped without a word, and can be had."""
    branch, lora = load_file(folders["paper"]), load_file(folders["lora"])
    save_file(branch | lora, tmp_path / "both.safetensors")
    with pytest.raises(ValueError, match=r"600 low-rank weights too \(.*\): give the same path as lora"):
        load(folders["wan"], memory=tmp_path / "both.safetensors")
    both = load(folders["wan"], memory=tmp_path / "both.safetensors", lora=tmp_path / "both.safetensors")
    apart = load(folders["wan"], memory=folders["paper"], lora=folders["lora"])
    own, want = both.transformer.state_dict(), apart.transformer.state_dict()
    assert own.keys() == want.keys() and all(torch.equal(own[key], want[key]) for key in want)
    assert any("lora_A" in key for key in own)
    tuned = {key: value + 1 for key, value in published.toy_transformer().state_dict().items()}
    save_file(branch | tuned, tmp_path / "tuned.safetensors")
    other = load(folders["wan"], memory=tmp_path / "tuned.safetensors").transformer.state_dict()
    assert "takes the place of that in" in caplog.text
    assert all(torch.equal(other[key], tuned[key]) for key in tuned)
    tuned.pop("blocks.3.attn1.to_q.weight")
    save_file(branch | tuned, tmp_path / "tuned.safetensors")
    with pytest.raises(ValueError, match=r"1 missing: blocks.3.attn1.to_q.weight"):
        load(folders["wan"], memory=tmp_path / "tuned.safetensors")


@pytest.mark.parametrize("prefix", ["pipe.vace.", "vace.", "module.model.", ""])
def test_a_branch_in_older_files_with_wrappers_and_prefixes(folders, tmp_path, prefix):
    """As trainers leave it: pickled, in dictionaries, two files in a folder."""
    bare = {key.removeprefix("vace."): value for key, value in load_file(folders["authors"]).items()}
    named = list({prefix + key: value for key, value in bare.items()}.items())
    torch.save({"generator": {"vace": dict(named[:100])}, "step": 3}, tmp_path / "1.pth")
    torch.save({"state_dict": dict(named[100:])}, tmp_path / "2.pth")
    own = load(folders["wan"], memory=tmp_path).transformer.state_dict()
    assert all(torch.equal(own[our_name(key)], value) for key, value in bare.items())


def test_a_branch_that_is_no_known_kind_must_be_explained():
    weights = {"vace_patch_embedding.weight": torch.zeros(4, 96, 1, 2, 2)}
    weights |= {f"vace_blocks.{i}.proj_out.weight": torch.zeros(4, 4) for i in range(10)}
    with pytest.raises(ValueError, match=r"49 channels .* or 96 .* got 96 in 10 blocks; .* say memory_layout"):
        branch_of(weights, 30, 48)
    assert branch_of(weights, 30, 48, layout="score").layers == tuple(range(0, 30, 3))
    weights["vace_blocks.12.proj_out.weight"] = torch.zeros(4, 4)
    with pytest.raises(ValueError, match="spread evenly over the 30"):
        branch_of(weights, 30, 48)


def test_a_hub_that_cannot_be_reached_says_how_to_do_without(tmp_path):
    with pytest.raises(ValueError, match=r"model nobody/nothing is not here .* without a network, give a folder"):
        MiragePipeline.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"memory nobody/nothing is not here"):
        MiragePipeline.from_pretrained("nano", memory="nobody/nothing", local_files_only=True, cache_dir=tmp_path)


def test_autoencoder_of_another_model_is_refused(tmp_path):
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, num_res_blocks=1)
    save_file(vae.state_dict(), tmp_path / "vae.safetensors")
    with pytest.raises(ValueError, match=r"Wan 2\.2"):
        load_autoencoder(tmp_path / "vae.safetensors")
