"""Checkpoints of foreign models with small random weights, of the same classes and in the same files as real ones."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    Dinov2Config,
    GLPNConfig,
    GLPNForDepthEstimation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Sam3Config,
    Sam3Model,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

STAGES = ["stage1", "stage2", "stage3", "stage4"]
LABELS = {0: "wall", 1: "sky-other-merged", 2: "person", 3: "car;auto;automobile"}
NAMES = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}


def save(model: torch.nn.Module, folder: Path, processor: dict | None = None) -> Path:
    """Write a model, lively enough that its answer depends on the picture, and what prepares pictures for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=1.5 / weight[0].numel() ** 0.5)
    model.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def depth_anything(folder: Path, kind: str = "metric") -> Path:
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=70,
        patch_size=14,
        out_features=STAGES,
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    sizes = {"reassemble_hidden_size": 32, "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8}
    config = DepthAnythingConfig(
        backbone_config=backbone, **sizes, head_hidden_size=8, depth_estimation_type=kind, max_depth=20
    )
    processor = {"size": {"height": 42, "width": 42}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
    processor |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_pad": False}
    return save(DepthAnythingForDepthEstimation(config), folder, processor)


def zoedepth(folder: Path) -> Path:
    backbone = {"model_type": "beit", "image_size": 32, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 4}
    backbone |= {"num_attention_heads": 2, "intermediate_size": 32, "out_features": STAGES}
    backbone |= {"reshape_hidden_states": False, "use_relative_position_bias": True}
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_relative_features=8,
        num_attractors=[4, 4, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
    )
    processor = {"size": {"height": 64, "width": 96}, "keep_aspect_ratio": True, "ensure_multiple_of": 32}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_pad": True}
    return save(ZoeDepthForDepthEstimation(config), folder, processor)


def depth_pro(folder: Path) -> Path:
    encoder = {"model_type": "dinov2", "num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 2}
    encoder |= {"patch_size": 4, "image_size": 16, "mlp_ratio": 2}
    config = DepthProConfig(
        patch_size=16,
        fusion_hidden_size=16,
        intermediate_hook_ids=[2, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.2],
        scaled_images_feature_dims=[8, 8],
        use_fov_model=False,
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
    )
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return save(DepthProForDepthEstimation(config), folder, processor)


def glpn(folder: Path) -> Path:
    config = GLPNConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8
    )
    return save(GLPNForDepthEstimation(config), folder, {"do_resize": True, "size_divisor": 32, "do_rescale": True})


def depth_anything_3(folder: Path, name: str = "da3-small") -> Path:
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY
    from safetensors.torch import save_model

    holder = torch.nn.Module()
    holder.model = create_object(load_config(MODEL_REGISTRY[name]))
    folder.mkdir()
    save_model(holder, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps({"model_name": name}))
    return folder


def segformer(folder: Path, labels: dict[int, str] = LABELS) -> Path:
    config = SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )
    processor = {"size": {"height": 64, "width": 64}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.2] * 3}
    return save(SegformerForSemanticSegmentation(config), folder, processor)


def mask2former(folder: Path) -> Path:
    swin = {"image_size": 32, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 4}
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**swin, out_features=STAGES),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        num_attention_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=6,
        **NAMES,
    )
    processor = {"size": {"shortest_edge": 64, "longest_edge": 128}, "size_divisor": 32, "do_pad": True}
    return save(Mask2FormerForUniversalSegmentation(config), folder, processor)


def byte_tokenizer(folder: Path, special: list[str], **roles: str) -> PreTrainedTokenizerFast:
    """A tokenizer that spells: one token per byte, and the special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)
    fast.save_pretrained(folder)
    return fast


def qwen3_vl(folder: Path) -> Path:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    special += ["<|video_pad|>"]
    fast = byte_tokenizer(folder, special, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    token = fast.convert_tokens_to_ids
    text = {"vocab_size": len(fast), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    text["rope_parameters"]["mrope_interleaved"] = True
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32}
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    save(Qwen3VLForConditionalGeneration(config), folder)
    size = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
    Qwen2VLImageProcessorPil(size=size, patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(
        folder
    )
    return folder


def sam3(folder: Path) -> Path:
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    fast = byte_tokenizer(folder, list(dict.fromkeys(ends.values())), **ends)
    layer = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vit = {"model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vit |= {"num_attention_heads": 2, "image_size": 112, "patch_size": 14, "window_size": 4}
    vit |= {"global_attn_indexes": [1], "pretrain_image_size": 56}
    vision = {"model_type": "sam3_vision_model", "backbone_config": vit, "fpn_hidden_size": 32}
    vision["backbone_feature_sizes"] = [[32, 32], [16, 16], [8, 8]]
    text = {"model_type": "clip_text_model", "vocab_size": len(fast), "hidden_size": 32, "intermediate_size": 64}
    text |= {"projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    text |= {"eos_token_id": fast.eos_token_id, "bos_token_id": fast.bos_token_id, "pad_token_id": fast.pad_token_id}
    config = Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config=layer,
        detr_encoder_config=layer,
        detr_decoder_config=layer | {"num_queries": 8},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2, "num_upsampling_stages": 3},
    )
    return save(Sam3Model(config), folder)
