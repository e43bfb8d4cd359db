"""A Wan model at toy size: its branch begins as copies that say nothing, and what is trained is loaded beside it."""

import sys
from pathlib import Path

import pytest
import torch
from toy_training import recipe_of, write_shards

from mirage.pipeline import MiragePipeline
from mirage.training.model import load_model
from mirage.training.recipe import Model
from mirage.training.train import train

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
from published import write_as_wan


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return write_as_wan(tmp_path_factory.mktemp("wan") / "toy")


def inputs():
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float32)
    return draw(1, 48, 3, 2, 4), torch.tensor([[0.0, 500.0, 500.0]]), draw(1, 5, 8), draw(1, 49, 3, 2, 4)


def test_a_new_branch_says_nothing_and_reads_as_the_backbone_does(wan):
    latents, times, words, memory = inputs()
    plain = MiragePipeline.from_pretrained(wan, dtype=torch.float32).transformer
    pipeline = load_model(Model(base=str(wan)), seed=0)
    grown = pipeline.transformer
    assert list(grown.config.vace_layers) == list(range(0, 30, 4)) and grown.config.vace_in_channels == 49
    with torch.no_grad():
        said = grown.float()(latents, times, words, memory)
        assert torch.allclose(said, plain.to(torch.bfloat16).float()(latents, times, words), atol=2e-2)
        assert torch.equal(said, grown(latents, times, words))
    branch, blocks = grown.vace_blocks[2].state_dict(), grown.blocks[8].state_dict()
    assert all(torch.equal(branch[key], weight) for key, weight in blocks.items())
    assert not grown.vace_blocks[0].proj_in.weight.any() and not grown.vace_blocks[7].proj_out.weight.any()


def test_what_is_trained_comes_back_beside_the_base(wan, tmp_path):
    shards = write_shards(tmp_path / "shards", wan, clips=1, frames=33)
    stages = {"train": "branch", "steps": 2, "batch": 2, "lr": 1e-3}, {"train": "lora", "steps": 1, "batch": 2}
    compute = {"precision": "bfloat16", "gradient_checkpointing": True}
    recipe = recipe_of(wan, shards, *(one | {"rank": 2, "alpha": 4.0} for one in stages), compute=compute)
    made = train(recipe, tmp_path / "run", device="cpu")
    assert sorted(path.name for path in made.iterdir()) == ["lora.safetensors", "memory.safetensors"]
    net = MiragePipeline.from_pretrained(wan, memory=made, lora=made).transformer
    assert net.config.vace_in_channels == 49 and net.vace_blocks[0].proj_out.weight.any()
    adapted = [name for name, _ in net.named_parameters() if "lora_B" in name]
    assert len(adapted) == 30 * (4 + 4 + 2) and not [name for name in adapted if name.startswith("vace_")]
    latents, times, words, memory = inputs()
    with torch.no_grad():
        whole = net(latents, times, words, memory)
        net.disable_adapters()
        assert not torch.equal(net(latents, times, words, memory), whole)
