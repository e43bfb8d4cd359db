"""A small denoiser and conditions of odd sizes."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mirage.denoise import Conditioning, MirageTransformer


@pytest.fixture
def tiny() -> Callable[..., MirageTransformer]:
    """Make a model of width 24 whose weights are all random (a fresh one ends in zeros)."""

    def make(*, seed: int = 0, **config) -> MirageTransformer:
        torch.manual_seed(seed)
        size = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "text_dim": 6, "freq_dim": 16}
        size |= {"ffn_dim": 48, "num_layers": 3, "vace_layers": [0, 2], "vace_in_channels": 5}
        model = MirageTransformer(**(size | config)).eval()
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.3)
        return model

    return make


@pytest.fixture
def conditions(generator) -> Callable[..., Conditioning]:
    """Make random conditions on a 5 x 7 grid, 3 target frames."""

    def make(*batch: int, text: bool = True, **frames: int) -> Conditioning:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*batch, *shape, generator=generator)

        frames = {"preceding": 2, "reference": 1, "first": 1} | frames
        parts = {name: normal(count, 4, 5, 7) for name, count in frames.items() if count}
        visible = normal(3, 5, 7) > 0
        features = normal(3, 4, 5, 7) * visible.unsqueeze(-3)
        return Conditioning(features=features, visible=visible, context=normal(8, 6) if text else None, **parts)

    return make
