"""Prompts as the denoiser reads them: embeddings of a text encoder of transformers, or nothing."""

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@torch.no_grad()
def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel, prompts: Sequence[str], *, length: int = 512
) -> Float[Tensor, "b {length} d"]:
    """Embed prompts as Wan does: padded to one length, zero after the end of each prompt.

    Every row is cut at its own end. (The released code cuts all rows at the end of the shortest.)

    Args:
        tokenizer: Of the encoder.
        encoder: UMT5 encoder, in evaluation mode.
        prompts: One text per sample; runs of white space count as one space.
        length: Tokens per prompt; longer prompts are cut, with a warning in the log.

    Returns:
        The embeddings, dtype and device of the encoder.
    """
    texts = [" ".join(prompt.split()) for prompt in prompts]
    for text in texts:
        if (count := len(tokenizer(text).input_ids)) > length:
            log.warning("prompt has %d tokens, only the first %d are used: %.60s...", count, length, text)
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    tokens = {name: tokens[name].to(encoder.device) for name in ("input_ids", "attention_mask")}
    return encoder(**tokens).last_hidden_state.masked_fill(tokens["attention_mask"][..., None] == 0, 0)


def null_context(batch: int, text_dim: int) -> Float[Tensor, "{batch} 1 {text_dim}"] | None:
    """Give the context that says nothing: one zero token, or None for a model without text.

    Args:
        batch: Number of samples.
        text_dim: `transformer.config.text_dim`.

    Returns:
        The context.

    Example:
        >>> null_context(2, 32).shape, null_context(2, 0)
        (torch.Size([2, 1, 32]), None)
    """
    return torch.zeros(batch, 1, text_dim) if text_dim else None
