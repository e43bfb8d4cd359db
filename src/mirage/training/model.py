"""What is trained of a model: the memory branch, a low-rank adapter or all of it; and how it becomes a model again."""

import contextlib
import logging
import shutil
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from mirage.checkpoint.files import saved_dtype
from mirage.checkpoint.hub import fetch
from mirage.checkpoint.wan import published_layout
from mirage.denoise.transformer import MirageTransformer
from mirage.pipeline import EMBEDDED, MiragePipeline
from mirage.training.recipe import Model, Recipe, Stage

logger = logging.getLogger(__name__)
ADAPTER = "camera"
LAYERS = {
    "q": r"attn[12]\.to_q",
    "k": r"attn[12]\.to_k",
    "v": r"attn[12]\.to_v",
    "o": r"attn[12]\.to_out\.0",
    "ffn": r"ffn\.net\.(0\.proj|2)",
}


def load_model(model: Model, seed: int) -> MiragePipeline:
    """Load what a recipe begins with, with a memory branch in any case.

    Args:
        model: What the recipe says of it.
        seed: Of new weights.

    Returns:
        The pipeline, on the CPU; a given adapter is merged.

    Raises:
        ValueError: If something is not there or does not fit.
    """
    pipeline = MiragePipeline.from_pretrained(model.base, memory=model.memory, lora=model.lora)
    if model.lora is not None:
        pipeline.transformer.fuse_lora()
        pipeline.transformer.unload_lora()
    old, new = pipeline.transformer, model.new
    if new is None and old.config.vace_layers:
        return pipeline
    size = {key: old.config[key] for key in ("patch_size", "in_channels", "text_dim", "eps")}
    blocks = new or old.config
    size |= {key: getattr(blocks, key) for key in ("num_attention_heads", "attention_head_dim", "num_layers")}
    size |= {key: getattr(blocks, key) for key in ("ffn_dim", "freq_dim", "prediction")}
    every = model.branch_every if new is None else new.branch_every
    branch = list(range(0, size["num_layers"], every))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta") if new is None else contextlib.nullcontext():
            transformer = MirageTransformer(**size, vace_layers=branch, vace_in_channels=size["in_channels"] + 1)
    if new is None:
        begin_branch(transformer, old)
    parts = {name: part for name, part in pipeline.components.items() if name != "transformer"}
    held = pipeline.config.items()
    settings = {key: value for key, value in held if key not in pipeline.components and key[0] != "_"}
    return MiragePipeline(transformer.eval(), **parts, **settings, mover=pipeline.mover)


@torch.no_grad()
def begin_branch(transformer: MirageTransformer, backbone: MirageTransformer) -> None:
    """Give a model the weights of a backbone, and a branch of copies of its blocks that says nothing yet.

    The branch reads latents as the backbone does, and the visibility with zero weight. What joins it to the main tokens
    and what it hints are zero, as in VACE: at first it computes what the backbone does, and changes nothing.

    Args:
        transformer: A model of the backbone's size with a branch; changed.
        backbone: The same without.
    """
    weights = backbone.state_dict()
    for i, layer in enumerate(transformer.config.vace_layers):
        block = backbone.blocks[layer].state_dict()
        weights |= {f"vace_blocks.{i}.{key}": weight.clone() for key, weight in block.items()}
    fresh, reads = transformer.state_dict(), weights["patch_embedding.weight"]
    empty = lambda key: torch.zeros(fresh[key].shape, dtype=reads.dtype)
    read = empty("vace_patch_embedding.weight")
    read[:, : backbone.config.in_channels] = reads
    weights["vace_patch_embedding.weight"] = read
    weights["vace_patch_embedding.bias"] = weights["patch_embedding.bias"].clone()
    for key in fresh.keys() - weights.keys():  # proj_in of the first block, proj_out of all
        weights[key] = empty(key)
    transformer.load_state_dict(weights, assign=True)


def open_stage(transformer: MirageTransformer, stage: Stage, seed: int) -> dict[str, nn.Parameter]:
    """Make the weights of a stage trainable, in float32, and freeze all others.

    Args:
        transformer: The model; gets an adapter where the stage trains one.
        stage: The stage.
        seed: Of the adapter's weights.

    Returns:
        The trainable weights by name.
    """
    transformer.requires_grad_(False)
    if stage.train in ("lora", "joint"):
        layers = "|".join(LAYERS[layer] for layer in stage.lora_on)
        settings = LoraConfig(
            r=stage.rank, lora_alpha=stage.alpha, target_modules=rf"blocks\.\d+\.({layers})", lora_dropout=0.0
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformer.add_adapter(settings, adapter_name=ADAPTER)
    branch, adapter = stage.train in ("branch", "joint"), stage.train in ("lora", "joint")
    chosen = {}
    for name, weight in transformer.named_parameters():
        lora = ".lora_" in name
        if stage.train == "full" or (branch and name.startswith("vace_")) or (adapter and lora):
            weight.data = weight.data.float()
            chosen[name] = weight.requires_grad_(True)
    return chosen


def export(recipe: Recipe, pipeline: MiragePipeline, folder: Path) -> None:
    """Write the result of a training: a whole model if the base is of our own kind or all weights were trained, else
    what was added to the base, `memory.safetensors` and `lora.safetensors`. The folder appears when it is whole.

    Args:
        recipe: What was trained.
        pipeline: The trained model; an adapter is merged where a whole model is written.
        folder: The result.
    """
    base, net = EMBEDDED.get(recipe.model.base) or fetch(recipe.model.base, "model"), pipeline.transformer
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    if published_layout(base) == "mirage" or any(stage.train == "full" for stage in recipe.stages):
        if getattr(net, "peft_config", None):
            net.fuse_lora()
            net.unload_lora()
        saved = saved_dtype(base / "transformer", "blocks.0.attn1.to_q.weight")
        if saved == torch.float16:  # half is for the disk alone
            net.half()
        pipeline.to("cpu").save_pretrained(aside)
    else:
        aside.mkdir(parents=True)
        held = {name: weight.detach().cpu().contiguous() for name, weight in net.named_parameters()}
        branch = {name: weight for name, weight in held.items() if name.startswith("vace_") and ".lora_" not in name}
        save_file(branch, aside / "memory.safetensors")
        if pairs := low_rank_pairs(held, recipe.stages[-1]):
            save_file(pairs, aside / "lora.safetensors")
    aside.replace(folder)


def low_rank_pairs(weights: dict[str, Tensor], stage: Stage) -> dict[str, Tensor]:
    """The adapter among weights, under the names and with the scale 1 that `load_lora` reads.

    Args:
        weights: Weights by name.
        stage: What trained them.

    Returns:
        Pairs by name.
    """
    pairs = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            scale = stage.alpha / stage.rank if ".lora_B." in name else 1.0
            pairs[name.replace(f".{ADAPTER}.", ".")] = (weight * scale).contiguous()
    return pairs
