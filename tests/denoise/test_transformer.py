"""The denoiser: one network for every size, with and without text, branch and references."""

import pytest
import torch

from mirage.denoise import MirageTransformer


def frames(generator, batch=2, count=6, height=5, width=7, channels=4):
    return torch.randn(batch, channels, count, height, width, generator=generator)


@pytest.fixture
def inputs(generator):
    """Latents of 1 reference, 3 target and 2 preceding frames, times, text and memory."""
    times = torch.tensor([[0.0, 0, 700, 700, 0, 0], [0, 0, 120, 120, 0, 0]])
    return frames(generator), times, torch.randn(2, 8, 6, generator=generator), frames(generator, count=5, channels=5)


def test_a_new_model_predicts_nothing_and_its_branch_changes_nothing(inputs, generator):
    model = MirageTransformer(
        num_attention_heads=1, attention_head_dim=12, in_channels=4, text_dim=6, freq_dim=8, ffn_dim=24,
        num_layers=1, vace_layers=[0], vace_in_channels=5,
    )  # fmt: skip
    assert not model(*inputs, num_reference=1).any()
    torch.nn.init.normal_(model.proj_out.weight)
    assert torch.equal(model(*inputs, num_reference=1), model(*inputs[:3], num_reference=1))


def test_batch_equals_one_by_one(tiny, inputs):
    model = tiny()
    with torch.no_grad():
        whole = model(*inputs, num_reference=1)
        parts = [model(*(x[i : i + 1] for x in inputs), num_reference=1) for i in range(2)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (4, 9), (6, 3)])
def test_any_grid_is_accepted(tiny, generator, height, width):
    x = frames(generator, count=2, height=height, width=width)
    assert tiny(text_dim=0)(x, torch.full((2, 2), 500.0)).shape == x.shape


def test_each_frame_has_its_own_time(tiny, inputs):
    model = tiny()
    latents, times, text, memory = inputs
    later = times.clone()
    later[:, 2] += 50
    with torch.no_grad():
        a, b = (model(latents, t, text, memory, num_reference=1) for t in (times, later))
    change = (a - b).abs().amax(dim=(0, 1, 3, 4))
    assert change[2] == change.max() > 1e-3


def test_the_branch_reads_memory_but_no_reference_frame(tiny, inputs):
    model = tiny()
    latents, times, text, memory = inputs
    hints = []
    model.vace_blocks[0].register_forward_hook(lambda _, __, output: hints.append(output[1]))
    with torch.no_grad():
        for reference in (latents[:, :, :1], torch.zeros_like(latents[:, :, :1])):
            changed = torch.cat([reference, latents[:, :, 1:]], dim=2)
            model(changed, times, text, memory, num_reference=1)
        moved = model(latents, times, text, memory + 1, num_reference=1)
        still = model(latents, times, text, memory, num_reference=1)
    assert torch.equal(hints[0], hints[1])
    assert (moved - still).abs().max() > 1e-3


def test_gradient_reaches_every_parameter(tiny, inputs):
    model = tiny()
    model(*inputs, num_reference=1).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradient_checkpointing_changes_no_gradient(tiny, inputs):
    gradients = []
    for checkpointing in (False, True):
        model = tiny().train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(*inputs, num_reference=1).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_without_text_there_is_no_cross_attention(tiny, inputs):
    model = tiny(text_dim=0)
    assert not [name for name in model.state_dict() if "attn2" in name or "text" in name]
    with pytest.raises(ValueError, match=r"context must be None .*text_dim=0"):
        model(*inputs, num_reference=1)
    with pytest.raises(ValueError, match="context must be given"):
        tiny()(inputs[0], inputs[1])


def test_without_branch_there_is_no_memory(tiny, inputs):
    model = tiny(vace_layers=[])
    assert not [name for name in model.state_dict() if "vace" in name]
    assert model(*inputs[:3], num_reference=1).shape == inputs[0].shape
    with pytest.raises(ValueError, match="memory must be None"):
        model(*inputs, num_reference=1)


def test_memory_of_another_length_is_refused(tiny, inputs):
    with pytest.raises(ValueError, match="6 - 2, got 5"):
        tiny()(*inputs, num_reference=2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vace_layers": [2, 0]}, "vace_layers must ascend"),
        ({"vace_layers": [0, 3]}, "below num_layers=3"),
        ({"vace_layers": [1]}, "ascend from 0"),
        ({"vace_in_channels": 3}, "at least in_channels=4"),
        ({"memory_layout": "constant"}, "that is 8, got 5"),
        ({"memory_layout": "both"}, "one of mask, constant, score, got 'both'"),
        ({"prediction": "noise"}, "one of velocity, residual"),
        ({"patch_size": (2, 2, 2)}, r"patch_size must be \(1, rows, columns\)"),
        ({"attention_head_dim": 11}, "even"),
    ],
)
def test_bad_settings_are_named(tiny, config, message):
    with pytest.raises(ValueError, match=message):
        tiny(**config)


def test_saved_and_loaded_is_the_same_model(tiny, inputs, tmp_path):
    model = tiny(prediction="residual")
    model.save_pretrained(tmp_path)
    again = MirageTransformer.from_pretrained(tmp_path)
    assert dict(again.config)["prediction"] == "residual"
    with torch.no_grad():
        assert torch.equal(again(*inputs, num_reference=1), model(*inputs, num_reference=1))


def test_half_precision_is_close(tiny, inputs, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    half = MirageTransformer.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    with torch.no_grad():
        exact = model(*inputs, num_reference=1)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(*inputs, num_reference=1)
        low = half(inputs[0].bfloat16(), inputs[1], inputs[2], inputs[3], num_reference=1)
    assert (mixed - exact).abs().max() < 0.03 * exact.abs().max()
    assert (low.float() - exact).abs().max() < 0.06 * exact.abs().max()
    assert mixed.dtype == torch.float32 and low.dtype == torch.bfloat16


def test_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = MirageTransformer()
    backbone = sum(p.numel() for name, p in model.named_parameters() if "vace" not in name)
    assert round(backbone / 1e9, 3) == 5.0
