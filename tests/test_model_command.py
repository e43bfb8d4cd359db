"""Large models by command, at toy size: every option is obeyed or refused in one sentence."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage.cli import main
from mirage.cost import CARDS, GIB, Model
from mirage.doctor import NEEDED, branch_shapes, diagnose, fitting, headers, model_of
from mirage.model_command import too_small
from mirage.pipeline import MiragePipeline
from mirage.video.io import read_video

sys.path.insert(0, str(Path(__file__).parent / "checkpoint"))
sys.path.insert(0, str(Path(__file__).parent / "geometry"))
import published
from small_checkpoints import depth_anything as published_depth


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> Path:
    """A Wan model with text, the paper's branch and a depth head, small and in our own layout; and its parts."""
    from mirage.geometry.nano import LatentDepthHead

    root = tmp_path_factory.mktemp("wan")
    branch = published.write_branch(root / "paper.safetensors", "paper")
    parts = MiragePipeline.from_pretrained(
        published.write_as_diffusers(root / "parts"), memory=branch, dtype=torch.float32
    ).components
    for block in parts["transformer"].blocks:
        block.attn2.to_out[0].weight.mul_(100)  # what the text says is to be seen in a picture
    parts["depth_head"] = LatentDepthHead(latent_channels=48, width=8)
    MiragePipeline(**parts, chunk_frames=5, num_inference_steps=1, size=[64, 96]).save_pretrained(root / "whole")
    return root


@pytest.fixture
def mirage(wan, capsys, photo):
    def run(*words, model="whole", path="pan") -> tuple[int, str, str]:
        words = [str(word) for word in words]
        if words[0] in ("generate", "preview"):
            words += [str(photo), "--path", path, "--model", str(wan / model), "--device", "cpu", "--frames", "9"]
            words += ["--size", "32x64"] * ("--size" not in words)
        code = main(words)
        return code, *capsys.readouterr()

    return run


def test_prompts_guidance_and_a_way_to_fit(mirage, tmp_path):
    texts = tmp_path / "captions.json"
    texts.write_text(json.dumps([{"caption": "red room"}, "blue room"]))
    made = {}
    for name, words in {
        "plain": ["--prompt", "red room"],
        "two": ["--prompt", "red room", "--prompt", "blue room"],
        "file": ["--prompt", texts, "--offload", "model"],
        "guided": ["--prompt", "red room", "--negative-prompt", "blue", "--guidance", 4, "--offload", "group"],
    }.items():
        code, _, err = mirage("generate", *words, "--out", tmp_path / name)
        assert code == 0, err
        made[name] = read_video(tmp_path / name / "video.mp4")
    assert (made["two"] == made["file"]).all()
    assert (made["two"][:5] == made["plain"][:5]).all() and (made["two"][5:] != made["plain"][5:]).any()
    assert (made["guided"] != made["plain"]).any()


def test_branch_adapter_and_dtype_are_loaded(mirage, wan, tmp_path):
    lora, depth = published.write_lora(wan / "lora.safetensors"), tmp_path / "depth.npy"
    np.save(depth, np.full((60, 90), 2.0, np.float32))
    words = ["--memory-weights", wan / "paper.safetensors", "--lora", lora, "--dtype", "float32", "--vae-tiling"]
    code, _, err = mirage("preview", *words, "--depth", depth, "--out", tmp_path / "out", model="parts")
    assert code == 2 and "no depth head" in err, "everything was loaded, and then depth was asked for"


def test_a_backbone_alone_runs_only_where_the_path_may_be_ignored(mirage, tmp_path):
    depth = published_depth(tmp_path / "depth")
    words = [
        "--steps",
        1,
        "--dtype",
        "float32",
        "--depth-model",
        depth,
        "--offload",
        "model",
        "--out",
        tmp_path / "out",
    ]
    code, _, err = mirage("generate", *words, model="parts")
    assert code == 2 and "the path would be ignored: load branch weights, or ask for memory='none'" in err
    code, _, err = mirage("generate", *words, "--memory", "none", model="parts")
    assert code == 0 and len(read_video(tmp_path / "out" / "video.mp4")) == 9, err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--attention", "warp"], "attention 'warp' cannot be had here"),
        (["--negative-prompt", "blue"], "--negative-prompt does nothing without --guidance"),
        (["--prompt", "broken.json"], "--prompt names a file that is no JSON"),
        (["--prompt", "empty.txt"], "must hold a list of texts"),
        (["--guidance", "0.5"], "must be a number from 1 to 30"),
        (["--size", "33x64"], "size must be multiples of 32"),
        (["--memory-weights", "nowhere.safetensors"], "must be a file, a folder or OWNER/NAME"),
    ],
)
def test_wrong_words(mirage, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("[")
    Path("empty.txt").write_text("\n\n")
    code, _, err = mirage("generate", *words, "--out", "out")
    assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1 and not Path("out").exists()


def test_dry_run_loads_and_writes_nothing(mirage, wan, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(MiragePipeline, "from_pretrained", refuse)
    code, said, err = mirage("generate", "--dry-run", "--out", tmp_path / "out", "--steps", 7, "--offload", "group")
    assert code == 0, err
    assert "9 frames of 32 x 64 in 2 chunks of 7 steps" in said and "offload group" in said
    assert "nothing was loaded; estimated" in said and " GiB at the worst moment" in said
    assert not (tmp_path / "out").exists()
    assert main(["generate", "--dry-run", "--world", str(tmp_path / "world")]) == 2
    assert main(["preview", "photo.png", "--path", "pan", "--dry-run"]) == 2
    code, _, err = mirage("generate", "--dry-run", "--size", "40x64")
    assert code == 2 and "multiples of 32" in err


def test_models_are_told_from_their_headers(wan):
    """What is counted from configurations is what the loaded model has."""
    ours, parts = model_of(wan / "whole"), model_of(wan / "parts", wan / "paper.safetensors")
    pipeline = MiragePipeline.from_pretrained(wan / "whole")
    for found in (ours, parts):
        for part, name in ((found.denoiser, "transformer"), (found.autoencoder, "vae"), (found.text, "text_encoder")):
            assert part.parameters() == sum(p.numel() for p in getattr(pipeline, name).parameters())
    assert (ours.chunk_frames, ours.steps, ours.size, ours.stride) == (5, 1, (64, 96), 16)
    assert (parts.chunk_frames, parts.steps, parts.size) == (33, 40, (704, 1280))
    nano = model_of("nano")
    own = MiragePipeline.from_pretrained("nano").transformer
    assert nano.denoiser.parameters() == sum(p.numel() for p in own.parameters()) and nano.stride == 8
    official = published.write_as_wan(wan / "official")
    assert model_of(official).denoiser.branch == 0


def test_damage_is_found_in_headers(wan, tmp_path):
    whole = (wan / "paper.safetensors").read_bytes()
    for name, content in {
        "cut": whole[:-9],
        "header": whole[:40],
        "empty": b"",
        "text": b"\x05\0\0\0\0\0\0\0hello",
    }.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"intact \.safetensors file"):
            headers(file)
    with pytest.raises(ValueError, match=r"memory must be \.safetensors to be looked at"):
        branch_shapes(tmp_path / "branch.pth")


def test_doctor_tells_what_is_here_and_what_fits(mirage):
    code, said, _ = mirage("doctor")
    assert code == 0 and all(name in said for name in NEEDED) and "MISSING" not in said and "estimated" in said
    code, said, _ = mirage("doctor", "--json", "--gib", 24)
    rows = json.loads(said)["settings"]
    assert code == 0 and {row["fits"] for row in rows} == {True, False}
    assert all(row["fits"] == (row["gigabytes"] <= 24) and row["basis"] == "estimated" for row in rows)
    assert all(row["seconds_per_frame"] is None for row in rows), "of an unknown card no time is told"
    _, said, _ = mirage("doctor", "--json", "--card", "NVIDIA H200")
    assert all(row["fits"] and row["seconds_per_frame"] > 0 for row in json.loads(said)["settings"])
    code, _, err = mirage("doctor", "--card", "Voodoo 2")
    assert code == 2 and "--card must name one of" in err


def test_out_of_memory_is_one_sentence_with_a_way_out():
    words = argparse.Namespace(model="nowhere/model", size=(704, 1280), memory_weights=None)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert "this computer has too little memory" in too_small(caught.value, words)
    assert too_small(RuntimeError("shapes do not match"), words) is None
    card = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")
    told = too_small(card, words)
    assert "the card is too small (CUDA out of memory. Tried to allocate 2.00 GiB)" in told and "smaller --size" in told


def test_what_fits_is_said_in_options():
    told = {gib: fitting(Model(), gib * GIB, height=704, width=1280) for gib in (80, 24, 10, 1)}
    assert "--offload model (" in told[80] and "--size" not in told[24]
    assert "--offload group --vae-tiling" in told[10] and "nothing fits" in told[1]
    assert diagnose(name="NVIDIA RTX 4090")["planned_for"]["gigabytes"] == CARDS["RTX 4090"].memory / GIB
