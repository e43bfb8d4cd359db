"""Prompts: each row ends where its own prompt ends."""

import logging

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from mirage.denoise import encode_prompts


@pytest.fixture
def tokenizer():
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "red": 3, "room": 4}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    size = {"vocab_size": 8, "d_model": 12, "d_kv": 6, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return UMT5EncoderModel(UMT5Config(**size)).eval()


def test_rows_are_zero_after_their_own_end(tokenizer, encoder):
    context = encode_prompts(tokenizer, encoder, ["a  red\nroom", "room"], length=5)
    assert context.shape == (2, 5, 12)
    assert context.any(dim=-1).tolist() == [[True, True, True, False, False], [True, False, False, False, False]]


def test_a_row_does_not_depend_on_its_neighbours(tokenizer, encoder):
    both = encode_prompts(tokenizer, encoder, ["a red room", "room"], length=5)
    alone = encode_prompts(tokenizer, encoder, ["room"], length=5)
    assert torch.allclose(both[1:], alone, atol=1e-6)


def test_a_cut_prompt_is_reported(tokenizer, encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encode_prompts(tokenizer, encoder, ["a red room"], length=2)
    assert "3 tokens, only the first 2" in caplog.text
