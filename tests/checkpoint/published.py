"""Wan's published layouts at toy size: the official names, listed by module, and folders that hold them."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from mirage.checkpoint.names import autoencoder_name, our_name, text_encoder_name
from mirage.denoise import MirageTransformer
from mirage.video.wan import WAN22

TOY = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 48, "text_dim": 8, "freq_dim": 16}
TOY |= {"ffn_dim": 32, "num_layers": 30}
TOY_VAE = WAN22 | {"base_dim": 8, "decoder_base_dim": 8, "num_res_blocks": 1}
BRANCHES = {  # blocks, channels, layout
    "authors": (range(0, 30, 2), 96, "constant"),
    "paper": (range(0, 30, 4), 49, "mask"),
    "spatia": (range(0, 30, 4), 96, "score"),
}


def both(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def block_names(prefix: str) -> list[str]:
    """A block of WanModel."""
    attention = [f"{a}_attn.{part}" for a in ("self", "cross") for part in "qkvo"]
    norms = [f"{a}_attn.norm_{part}.weight" for a in ("self", "cross") for part in "qk"]
    return [prefix + name for name in [*both(*attention, "ffn.0", "ffn.2", "norm3"), *norms, "modulation"]]


def transformer_names(layers: int) -> list[str]:
    """Keys of diffusion_pytorch_model*.safetensors of WanModel."""
    ends = both("patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2")
    ends += [*both("time_projection.1", "head.head"), "head.modulation"]
    return ends + [name for i in range(layers) for name in block_names(f"blocks.{i}.")]


def branch_names(blocks: int) -> list[str]:
    """Keys of vace.safetensors."""
    names = both("vace_patch_embedding", "vace_blocks.0.before_proj")
    return names + [
        name
        for i in range(blocks)
        for name in [*block_names(f"vace_blocks.{i}."), *both(f"vace_blocks.{i}.after_proj")]
    ]


def autoencoder_names(res_blocks: int) -> list[str]:
    """Keys of Wan2.2_VAE.pth: WanVAE_ with Encoder3d, Down_ResidualBlock, Decoder3d, Up_ResidualBlock."""

    def residual(at: str, shortcut: bool) -> list[str]:
        names = [f"{at}.residual.0.gamma", f"{at}.residual.3.gamma", *both(f"{at}.residual.2", f"{at}.residual.6")]
        return names + (both(f"{at}.shortcut") if shortcut else [])

    def middle(side: str) -> list[str]:
        attention = [f"{side}.middle.1.norm.gamma", *both(f"{side}.middle.1.to_qkv", f"{side}.middle.1.proj")]
        return residual(f"{side}.middle.0", False) + attention + residual(f"{side}.middle.2", False)

    names = both("conv1", "conv2")
    for side in ("encoder", "decoder"):
        names += [*both(f"{side}.conv1", f"{side}.head.2"), f"{side}.head.0.gamma", *middle(side)]
    widens, shrinks = (False, True, True, False), (False, False, True, True)  # dim_mult 1 2 4 4, and back
    for i in range(4):
        at = f"encoder.downsamples.{i}.downsamples"
        for j in range(res_blocks):
            names += residual(f"{at}.{j}", widens[i] and j == 0)
        names += both(f"{at}.{res_blocks}.resample.1") if i < 3 else []
        names += both(f"{at}.{res_blocks}.time_conv") if i in (1, 2) else []
        at = f"decoder.upsamples.{i}.upsamples"
        for j in range(res_blocks + 1):
            names += residual(f"{at}.{j}", shrinks[i] and j == 0)
        names += both(f"{at}.{res_blocks + 1}.resample.1") if i < 3 else []
        names += both(f"{at}.{res_blocks + 1}.time_conv") if i in (0, 1) else []
    return names


def text_encoder_names(layers: int) -> list[str]:
    """Keys of models_t5_umt5-xxl-enc-bf16.pth: T5Encoder with a position embedding per block."""
    parts = [f"attn.{part}" for part in "qkvo"] + ["norm1", "norm2", "pos_embedding.embedding"]
    parts += ["ffn.gate.0", "ffn.fc1", "ffn.fc2"]
    return ["token_embedding.weight", "norm.weight"] + [f"blocks.{i}.{x}.weight" for i in range(layers) for x in parts]


def official(names: list[str], rename, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of ours under official names."""
    return {name: weights[rename(name)].contiguous().clone() for name in names}


def fill(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return module.eval()


def toy_transformer(branch: str | None = None) -> MirageTransformer:
    layers, channels, layout = BRANCHES[branch] if branch else ((), 96, "mask")
    return fill(
        MirageTransformer(**TOY, vace_layers=tuple(layers), vace_in_channels=channels, memory_layout=layout), seed=0
    )


def toy_text_encoder() -> UMT5EncoderModel:
    return fill(
        UMT5EncoderModel(UMT5Config(vocab_size=5, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)), seed=1
    )


def toy_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1, "red": 2, "blue": 3, "room": 4}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")


def write_branch(path: Path, branch: str) -> Path:
    """A memory branch in the authors' key format."""
    net = toy_transformer(branch)
    names = branch_names(len(BRANCHES[branch][0]))
    save_file({f"vace.{k}": v for k, v in official(names, our_name, net.state_dict()).items()}, path)
    return path


def write_lora(path: Path, seed: int = 3) -> Path:
    """A low-rank adapter in the authors' key format."""
    generator, own = torch.Generator().manual_seed(seed), toy_transformer().state_dict()
    weights = {}
    for name in [name for i in range(30) for name in block_names(f"blocks.{i}.")]:
        if ".norm" in name or not name.endswith("weight"):
            continue
        out, into = own[our_name(name)].shape
        stem = "pipe.dit." + name.removesuffix("weight")
        weights[stem + "lora_A.weight"] = torch.randn(4, into, generator=generator) * 0.1
        weights[stem + "lora_B.weight"] = torch.randn(out, 4, generator=generator) * 0.1
    save_file(weights, path)
    return path


def write_as_wan(folder: Path) -> Path:
    """A model as Wan publishes it: two shards, pickled autoencoder and text encoder, tokenizer in google/umt5-xxl."""
    folder.mkdir(parents=True)
    net = toy_transformer()
    weights = official(transformer_names(TOY["num_layers"]), our_name, net.state_dict())
    shards = {key: f"diffusion_pytorch_model-0000{1 + (i % 2)}-of-00002.safetensors" for i, key in enumerate(weights)}
    for shard in sorted(set(shards.values())):
        save_file({key: weights[key] for key in weights if shards[key] == shard}, folder / shard)
    index = {"metadata": {}, "weight_map": shards}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    config = {"_class_name": "WanModel", "dim": 24, "ffn_dim": 32, "freq_dim": 16, "in_dim": 48, "out_dim": 48}
    config |= {"num_heads": 2, "num_layers": 30, "text_dim": 8, "text_len": 512, "model_type": "ti2v", "eps": 1e-6}
    (folder / "config.json").write_text(json.dumps(config))
    vae = fill(AutoencoderKLWan(**TOY_VAE), seed=2)
    torch.save(official(autoencoder_names(1), autoencoder_name, vae.state_dict()), folder / "Wan2.2_VAE.pth")
    text = official(text_encoder_names(2), text_encoder_name, toy_text_encoder().state_dict())
    torch.save(text, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    toy_tokenizer().save_pretrained(folder / "google" / "umt5-xxl")
    return folder


def write_as_diffusers(folder: Path) -> Path:
    """The same model as a Wan pipeline of diffusers."""
    toy_transformer().save_pretrained(folder / "transformer")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    ours = ("vace_layers", "vace_in_channels", "memory_layout", "prediction")
    config = {key: value for key, value in config.items() if key not in ours} | {"_class_name": "WanTransformer3DModel"}
    config |= {"out_channels": 48, "image_dim": None, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads"}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    fill(AutoencoderKLWan(**TOY_VAE), seed=2).save_pretrained(folder / "vae")
    toy_text_encoder().save_pretrained(folder / "text_encoder")
    toy_tokenizer().save_pretrained(folder / "tokenizer")
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0).save_pretrained(
        folder / "scheduler"
    )
    parts = {"transformer": "WanTransformer3DModel", "vae": "AutoencoderKLWan", "scheduler": "UniPCMultistepScheduler"}
    index = {"_class_name": "WanPipeline"} | {part: ["diffusers", name] for part, name in parts.items()}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
