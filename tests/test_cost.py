"""The paper count agrees with PyTorch's, operation by operation, at full size and at odd ones: on the meta device."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch.utils.flop_counter import FlopCounterMode
from transformers import UMT5Config, UMT5EncoderModel

from mirage.cost import (
    CARDS,
    GIB,
    Autoencoder,
    Denoiser,
    Model,
    Settings,
    TextEncoder,
    chunk_operations,
    estimate,
    table,
)
from mirage.denoise.transformer import MirageTransformer
from mirage.video.wan import WAN22

BRANCHES = {
    "paper": (8, 49, "mask"),
    "authors": (15, 96, "constant"),
    "spatia": (8, 96, "score"),
    "none": (0, 96, "mask"),
}
TOY = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 48, "text_dim": 8, "freq_dim": 16}
TOY |= {"ffn_dim": 32, "num_layers": 30}


def transformer(blocks: int, channels: int, layout: str, **size) -> MirageTransformer:
    layers = tuple(range(0, 30, 30 // blocks + (30 % blocks > 0))) if blocks else ()
    with torch.device("meta"):
        return MirageTransformer(**size, vace_layers=layers, vace_in_channels=channels, memory_layout=layout)


def counted(run) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", BRANCHES)
def test_denoiser_of_five_billion(kind):
    blocks, channels, layout = BRANCHES[kind]
    net, ours = transformer(blocks, channels, layout), Denoiser(branch=blocks, branch_channels=channels)
    assert ours.parameters() == sum(p.numel() for p in net.parameters())
    frames = {"targets": 9, "preceding": 2, "reference": 4}
    noisy, context = torch.empty(1, 48, 15, 44, 80, device="meta"), torch.empty(1, 512, 4096, device="meta")
    memory = torch.empty(1, channels, 11, 44, 80, device="meta") if blocks else None
    run = lambda: net(noisy, torch.empty(1, 15, device="meta"), context, memory, num_reference=4)
    assert counted(run) == sum(ours.operations(cells=22 * 40, **frames).values())


def test_denoiser_of_odd_size_without_text():
    net = transformer(5, 51, "mask", **(TOY | {"text_dim": 0}))
    ours = Denoiser(width=24, feed=32, layers=30, text_width=0, time_width=16, branch=5, branch_channels=51)
    assert ours.parameters() == sum(p.numel() for p in net.parameters())
    noisy, memory = torch.empty(1, 48, 4, 5, 7, device="meta"), torch.empty(1, 51, 3, 5, 7, device="meta")
    run = lambda: net(noisy, torch.empty(1, 4, device="meta"), None, memory, num_reference=1)
    assert counted(run) == sum(ours.operations(targets=2, preceding=1, reference=1, cells=3 * 4).values())


@pytest.mark.parametrize("frames, height, width", [(1, 64, 96), (5, 96, 32), (13, 32, 64)])
@pytest.mark.parametrize("toy", [True, False])
def test_autoencoder(toy, frames, height, width):
    small = {"base_dim": 8, "decoder_base_dim": 12, "num_res_blocks": 1} if toy else {}
    with torch.device("meta"):
        net = AutoencoderKLWan(**(WAN22 | small)).eval()
    ours = Autoencoder(base=8, decoder_base=12, blocks=1) if toy else Autoencoder()
    assert ours.parameters() == sum(p.numel() for p in net.parameters())
    video = torch.empty(1, 3, frames, height, width, device="meta")
    latents = torch.empty(1, 48, 1 + (frames - 1) // 4, height // 16, width // 16, device="meta")
    assert counted(lambda: net.encode(video)) == ours.operations("encode", frames, height, width)
    assert counted(lambda: net.decode(latents)) == ours.operations("decode", frames, height, width)


def test_text_encoder():
    config = dict(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    with torch.device("meta"):
        net = UMT5EncoderModel(UMT5Config(**config)).eval()
    assert TextEncoder().parameters() == sum(p.numel() for p in net.parameters())
    words = torch.empty(1, 512, device="meta", dtype=torch.int64)
    assert counted(lambda: net(words)) == TextEncoder().operations()


def test_estimates_are_in_order():
    """What saves memory saves it, what is larger takes more, and what moves weights takes longer."""
    rows = table(Model(), [(704, 1280)], frames=33, steps=40)
    peaks = [found.peak for _, found in rows]
    assert peaks == sorted(peaks, reverse=True) and peaks[-1] < peaks[0]
    weights = 2 * (Denoiser().parameters() + TextEncoder().parameters()) + 4 * Autoencoder().parameters()
    assert peaks[0] > weights > peaks[1]
    card = CARDS["H200"]
    by = {offload: estimate(Model(), Settings(offload=offload)) for offload in ("none", "model", "group")}
    assert by["none"].seconds(card) < by["model"].seconds(card) < by["group"].seconds(card)
    small = Settings(height=352, width=640)
    assert estimate(Model(), small).peak < by["none"].peak
    assert chunk_operations(Model(), Settings(guided=True))["denoise"] == 2 * by["none"].operations["denoise"]


def test_the_page_tells_what_is_counted():
    """Every figure of operations in docs/performance.md is that of the functions."""
    page = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()
    later, first = {"preceding": 2, "reference": 4}, {}
    sizes, codec, peak = (704, 1280), Autoencoder(), CARDS["H200"].operations
    decode, encode = codec.operations("decode", 33, *sizes), 8 * codec.operations("encode", 1, *sizes)
    rest = 2 * (decode + encode) + TextEncoder().operations()
    for start, blocks, channels, frames in [
        ("| none |", 0, 49, later),
        ("| 8 blocks", 8, 49, later),
        ("| 15 blocks", 15, 96, later),
        ("| 8 blocks, first chunk |", 8, 49, first),
    ]:
        ours = Denoiser(branch=blocks, branch_channels=channels)
        parts = ours.operations(targets=9, cells=880, **frames)
        call = sum(parts.values())
        cells = [f"{ours.parameters() / 1e9:.3f} G", *(f"{part / 1e12:.1f}" for part in parts.values())]
        assert f"| {' | '.join([*cells, f'{call / 1e12:.1f}', f'{40 * call / 1e12:.0f}'])} |" in page
        alone, whole = 40 * call / peak / 32, (40 * call + rest) / peak / 32
        assert re.search(rf"^{re.escape(start)}.* {alone:.3f} \| {whole:.3f} \|$", page, re.M), (start, alone, whole)
    for value in (decode, encode, TextEncoder().operations(), 9 * codec.operations("encode", 1, *sizes)):
        assert f" {value / 1e12:.1f} |" in page
    settings = Settings()
    held = {
        "denoiser": 2 * Denoiser().parameters(),
        "text": 2 * TextEncoder().parameters(),
        "codec": 4 * codec.parameters(),
    }
    active = Denoiser().activations(tokens=13200, seen=9680)
    for value in (*held.values(), active, codec.memory("decode", 33, *sizes), codec.memory("decode", 33, 512, 512)):
        assert f"| {value / GIB:.1f} |" in page, value / GIB
    assert f"expect\n{estimate(Model(), settings).seconds(CARDS['H200']) / 32:.2f} s per frame" in page
