"""Official names of weights and ours: Wan's transformer with memory branch and LoRA, autoencoder, text encoder."""

import re

PREFIX = re.compile(r"^(module\.|model\.|pipe\.dit\.|pipe\.vace\.|vace\.(?!\d)|diffusion_model\.)+")
TRANSFORMER = [
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.(attn[12])\.([qkv])\.", r".\1.to_\2."),
    (r"\.(attn[12])\.o\.", r".\1.to_out.0."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
    (r"\.norm3\.", ".norm2."),
    (r"\.before_proj\.", ".proj_in."),
    (r"\.after_proj\.", ".proj_out."),
]
AUTOENCODER = [
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"^(encoder|decoder)\.head\.0\.", r"\1.norm_out."),
    (r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (
        r"^encoder\.downsamples\.(\d+)\.downsamples\.\d+\.(resample|time_conv)\.",
        r"encoder.down_blocks.\1.downsampler.\2.",
    ),
    (r"^decoder\.upsamples\.(\d+)\.upsamples\.\d+\.(resample|time_conv)\.", r"decoder.up_blocks.\1.upsampler.\2."),
    (r"^encoder\.downsamples\.(\d+)\.downsamples\.", r"encoder.down_blocks.\1.resnets."),
    (r"^decoder\.upsamples\.(\d+)\.upsamples\.", r"decoder.up_blocks.\1.resnets."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
]
TEXT_ENCODER = [
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (
        r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
]


def our_name(official: str) -> str:
    """Translate one official name of a weight (Wan, VACE, LoRA) to the name it has in `MirageTransformer`.

    Args:
        official: Key of a released file, with or without the prefixes of the trainers.

    Returns:
        Our key; a name without translation comes back as it is.

    Example:
        >>> our_name("pipe.dit.blocks.3.self_attn.q.lora_A.weight")
        'blocks.3.attn1.to_q.lora_A.weight'
    """
    return _translated(PREFIX.sub("", official), TRANSFORMER)


def autoencoder_name(official: str) -> str:
    """Translate a name of `Wan2.2_VAE.pth` to the name it has in diffusers' `AutoencoderKLWan`.

    Args:
        official: Key of the released file.

    Returns:
        The key of diffusers; a name without translation comes back as it is.

    Example:
        >>> autoencoder_name("decoder.upsamples.1.upsamples.3.time_conv.bias")
        'decoder.up_blocks.1.upsampler.time_conv.bias'
    """
    return _translated(official, AUTOENCODER)


def text_encoder_name(official: str) -> str:
    """Translate a name of `models_t5_umt5-xxl-enc-bf16.pth` to the name it has in transformers' `UMT5EncoderModel`.

    Args:
        official: Key of the released file.

    Returns:
        The key of transformers; a name without translation comes back as it is.

    Example:
        >>> text_encoder_name("blocks.3.ffn.gate.0.weight")
        'encoder.block.3.layer.1.DenseReluDense.wi_0.weight'
    """
    return _translated(official, TEXT_ENCODER)


def _translated(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
