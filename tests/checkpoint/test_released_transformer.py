"""Released weights: the released model's outputs are reproduced, and nothing is loaded half."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mirage.checkpoint import load_lora, load_official, our_name, read_weights
from mirage.denoise import MirageTransformer


def model(folder, **changes):
    """The golden model of a folder, not loaded yet."""
    config = json.loads((folder / "config.json").read_text())
    size = {
        "num_attention_heads": config["num_heads"], "attention_head_dim": config["dim"] // config["num_heads"],
        "in_channels": config["in_dim"], "text_dim": config["text_dim"], "freq_dim": config["freq_dim"],
        "ffn_dim": config["ffn_dim"], "num_layers": config["num_layers"], "eps": config["eps"],
        "vace_layers": config["vace_layers"], "vace_in_channels": config["vace_in_dim"], "memory_layout": "constant",
    }  # fmt: skip
    return MirageTransformer(**(size | changes)).eval(), config["num_reference"]


@pytest.fixture(params=["model_tiny", "model_noref"])
def golden(request, shared):
    return shared / "golden" / request.param


@pytest.fixture
def folder(shared):
    return shared / "golden" / "model_noref"


@torch.no_grad()
def run(net, folder, references, *, branch=True):
    io = load_file(folder / "io.safetensors")
    memory = io["vace_context"] if branch else None
    return net(io["latents"], io["timestep"][None], io["text_context"], memory, num_reference=references), io


def close(output, expected):
    return (output - expected).abs().max() < 2e-4


def test_released_model_is_reproduced(golden):
    net, references = model(golden)
    load_official(net, golden / "dit.safetensors", golden / "vace.safetensors")
    output, io = run(net, golden, references)
    assert close(output, io["output"])
    output, _ = run(net, golden, references, branch=False)
    assert close(output, io["output_without_memory"])


def test_released_lora_is_reproduced(golden):
    net, references = model(golden)
    load_official(net, golden / "dit.safetensors", golden / "vace.safetensors")
    assert load_lora(net, golden / "lora.safetensors") == 40
    output, io = run(net, golden, references)
    assert close(output, io["output_with_lora"]) and not close(output, io["output"])
    net.disable_lora()
    assert close(run(net, golden, references)[0], io["output"])
    net.enable_lora()
    net.fuse_lora()
    assert close(run(net, golden, references)[0], io["output_with_lora"])


def test_backbone_alone_fills_a_model_without_branch(golden):
    net, references = model(golden, vace_layers=[])
    load_official(net, golden / "dit.safetensors")
    output, io = run(net, golden, references, branch=False)
    assert close(output, io["output_without_memory"])


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("module.model.time_projection.1.weight", "condition_embedder.time_proj.weight"),
        ("pipe.vace.vace_blocks.3.after_proj.bias", "vace_blocks.3.proj_out.bias"),
        ("vace.vace_patch_embedding.weight", "vace_patch_embedding.weight"),
        ("vace_blocks.0.before_proj.weight", "vace_blocks.0.proj_in.weight"),
        ("head.modulation", "scale_shift_table"),
        ("blocks.2.cross_attn.norm_k.weight", "blocks.2.attn2.norm_k.weight"),
        ("pipe.dit.blocks.1.ffn.2.lora_B.weight", "blocks.1.ffn.net.2.lora_B.weight"),
        ("blocks.1.attn1.to_q.weight", "blocks.1.attn1.to_q.weight"),
    ],
)
def test_names(official, ours):
    assert our_name(official) == ours


def test_everything_that_does_not_fit_is_named_and_nothing_is_loaded(folder, tmp_path):
    weights = load_file(folder / "dit.safetensors")
    del weights["blocks.1.ffn.0.bias"]
    weights["head.head.bias"] = torch.zeros(3)
    weights["blocks.9.ffn.0.bias"] = torch.zeros(3)
    save_file(weights, tmp_path / "dit.safetensors")
    net, _ = model(folder, vace_layers=[])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_official(net, tmp_path)
    text = str(error.value)
    assert "1 missing: blocks.1.ffn.net.0.proj.bias" in text
    assert "1 not in the model: blocks.9.ffn.net.0.proj.bias" in text
    assert "1 of another shape: proj_out.bias: the model has (64,), the file (3,)" in text
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_missing_branch_is_an_error(folder):
    with pytest.raises(ValueError, match=r"62 missing: vace_blocks.0"):
        load_official(model(folder)[0], folder / "dit.safetensors")


def test_shards_are_joined_and_repeats_refused(folder, tmp_path):
    weights = load_file(folder / "dit.safetensors")
    names = sorted(weights)
    save_file({name: weights[name] for name in names[:50]}, tmp_path / "1.safetensors")
    save_file({name: weights[name] for name in names[50:]}, tmp_path / "2.safetensors")
    assert read_weights(tmp_path).keys() == weights.keys()
    save_file({names[0]: weights[names[0]]}, tmp_path / "3.safetensors")
    with pytest.raises(ValueError, match=f"3.safetensors repeats {names[0]}"):
        read_weights(tmp_path)


def test_lora_that_would_load_nothing_is_refused(folder, tmp_path):
    net, _ = model(folder)
    with pytest.raises(ValueError, match="not in the model"):
        load_lora(net, folder / "dit.safetensors")
    lora = load_file(folder / "lora.safetensors")
    save_file({f"other.{name}": value for name, value in lora.items()}, tmp_path / "prefix.safetensors")
    with pytest.raises(ValueError, match=r"not in the model: other.pipe"):
        load_lora(net, tmp_path / "prefix.safetensors")
    half = {name: value for name, value in lora.items() if "blocks.0.self_attn.q.lora_A" not in name}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match=r"1 missing: blocks.0.attn1.to_q.lora_A.weight"):
        load_lora(net, tmp_path / "half.safetensors")
    cut = lora | {name: value[:, :8].contiguous() for name, value in lora.items() if "ffn.2.lora_A" in name}
    save_file(cut, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"4 of another shape: blocks.0.ffn.net.2"):
        load_lora(net, tmp_path / "cut.safetensors")
