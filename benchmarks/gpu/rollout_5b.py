"""The 5B model at full size on one GPU: seconds per frame and memory of a walk, phase by phase, for two memories.

    python benchmarks/gpu/rollout_5b.py            # 704 x 1280, five chunks, 40 steps, at most nine minutes a call
    python benchmarks/gpu/rollout_5b.py --small    # toy size on a CPU in a minute, to see that it runs

Weights are random (made on the device in bfloat16, the autoencoder in float32): speed and size do not depend on them.
The path is the real one: `MiragePipeline.begin` and `advance`, first with the latent memory, then with the baseline
that renders colours and encodes them at every read, on the same backbone. The depth source is a plane of known depth,
which costs nothing: a depth model's time comes on top. Each chunk has a prompt of its own, padded to 512 tokens,
through the text encoder at full size. Before each walk its first chunk is made twice with one step, to warm up.

Where the time does not suffice, chunks are made with fewer steps: the time of a step is then taken times the number
that was asked for, and the table says so. Results are kept in --out walk by walk; the same command goes on there.
Exits with 1 if an aim was missed on a card.
"""

import argparse
import gc
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from mirage.camera.cameras import Cameras
from mirage.camera.path import build_path
from mirage.denoise.transformer import MirageTransformer
from mirage.geometry.depth import DepthEstimator
from mirage.pipeline import MiragePipeline
from mirage.video.wan import TINY16, WAN22

BRANCHES = {"paper": (range(0, 30, 4), 49, "mask"), "authors": (range(0, 30, 2), 96, "constant")}
TOY = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 8, "freq_dim": 16, "ffn_dim": 32}
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
TOY_TEXT = {"vocab_size": 64, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
MEMORIES = ("latent", "colour")
PHASES = ("text", "read", "recall", "denoise", "decode", "encode", "depth", "write")
CONDITIONING = ("read", "recall")  # what a memory adds before the denoiser
AIMS = {
    "seconds per frame": (0.25, "at most", "the paper's on one H100"),
    "conditioning, share of the time": (0.01, "at most", "read and recall"),
    "conditioning, times faster than colour": (10.57, "at least", "the paper's"),
    "cache, times smaller than colour": (55.0, "at least", "the paper's against Spatia"),
}


class Plane(DepthEstimator):
    """A wall straight ahead, four units from the first camera: known, so that no depth model is needed."""

    distance = 4.0

    def estimate(self, frames, latents, cameras, prior=None):
        rows, columns = latents.shape[2:]
        grid = cameras.resize(rows, columns)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        pixels = torch.stack([x + 0.5, y + 0.5, torch.ones_like(x)], -1).float().to(latents.device)
        rays = torch.einsum("vij,yxj->vyxi", torch.linalg.inv(grid.intrinsics), pixels)
        forward = torch.einsum("vji,vyxj->vyxi", grid.cam_from_world[:, :3, :3], rays)[..., 2]
        return ((self.distance - grid.centers[:, None, None, 2]) / forward.clamp(min=1e-3)).clamp(0.5, 50.0)


def tokenizer() -> PreTrainedTokenizerFast:
    """Five words; every prompt is padded to 512 tokens, as with the real one."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(("<pad>", "<unk>", "room", "0", "1"))}, "<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu/rollout_5b.json"))
    parser.add_argument("--branch", choices=BRANCHES, default="paper")
    parser.add_argument("--chunks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--compile", action="store_true", help="compile the denoiser's blocks (minutes the first time)")
    parser.add_argument("--attention", help="attention backend of diffusers")
    options = parser.parse_args(argv)
    if not options.small and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --small runs on the CPU")
    start = time.monotonic()
    device = "cpu" if options.small else "cuda"
    height, width, steps = (64, 96, 3) if options.small else (704, 1280, options.steps)
    chunk_frames = 9 if options.small else 33
    hardware = platform.machine() if options.small else torch.cuda.get_device_name()
    asked = {"height": height, "width": width, "chunks": options.chunks, "steps": steps, "branch": options.branch}
    asked |= {"hardware": hardware, "torch": torch.__version__, "compile": options.compile}
    asked |= {"attention": options.attention or "native"}
    kept = load(options.out, asked)
    print(
        f"{hardware}; torch {torch.__version__}; {height} x {width}, {options.chunks} chunks, {steps} steps", flush=True
    )

    pipeline = build(device, options.branch, small=options.small, chunk_frames=chunk_frames, size=[height, width])
    if options.attention:
        pipeline.transformer.set_attention_backend(options.attention)
    if options.compile:
        pipeline.transformer.compile_repeated_blocks(dynamic=False)
    built = time.monotonic() - start
    print(f"built on the device in {built:.1f} s", flush=True)
    new = chunk_frames - 1
    view = Cameras.from_fov(1.2, height, width)
    path = build_path("there-and-back:truck:distance=1.2", 1 + options.chunks * new, view).cameras
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    end = start + 60 * options.minutes
    for i, memory in enumerate(MEMORIES):
        left = (end - time.monotonic()) / (len(MEMORIES) - i)
        rows = kept["rows"].setdefault(memory, [])
        if len(rows) < options.chunks:
            walk(pipeline, image, path, memory, rows, steps=steps, until=time.monotonic() + left, chunks=options.chunks)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(kept, indent=1))
    whole = all(len(kept["rows"][memory]) == options.chunks for memory in MEMORIES)
    print(report(kept, new))
    if not whole:
        print("\ntime was up before all chunks were made: the same command goes on")
    met = aims(kept, new)
    if options.small:
        print("\ntoy size on a CPU: the aims are for a card, they are shown to see that they are computed")
    for name, (limit, way, whence) in AIMS.items():
        if name in met:
            value, good = met[name]
            print(f"- {name}: {value:.4g}, aim {way} {limit:g} ({whence}): {'met' if good else '**missed**'}")
    return int(not options.small and not all(good for _, good in met.values()))


def load(path: Path, asked: dict) -> dict:
    """Results of an earlier call with the same settings, else a new table."""
    if path.is_file():
        held = json.loads(path.read_text())
        if held.get("settings") == asked:
            return held
    return {"settings": asked, "rows": {}}


def build(device: str, branch: str, *, small: bool, chunk_frames: int, size: list[int]) -> MiragePipeline:
    """The whole model with random weights, made where it will run."""
    layers, channels, layout = BRANCHES[branch]
    facts = {"vace_layers": tuple(layers), "vace_in_channels": channels, "memory_layout": layout}
    shapes, text, video = (TOY, TOY_TEXT, TINY16) if small else ({}, UMT5_XXL, WAN22)
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.float32 if small else torch.bfloat16

    def made(make, dtype: torch.dtype) -> torch.nn.Module:
        with torch.device("meta"):
            net = make()
        precise = getattr(net, "_keep_in_fp32_modules", None) or ()
        net.eval().requires_grad_(False)
        for name, weight in net.named_parameters():
            kind = torch.float32 if any(part in precise for part in name.split(".")) else dtype
            weight.data = weight.data.to(kind)
        net.to_empty(device=device)
        for name, weight in net.named_parameters():
            if name.endswith(
                ("norm.weight", "norm1.weight", "norm2.weight", "norm_q.weight", "norm_k.weight", "gamma")
            ):
                weight.fill_(1.0)
            else:
                weight.normal_(std=0.02, generator=generator)
        return net

    text_encoder = made(lambda: UMT5EncoderModel(UMT5Config(**text)), dtype)
    text_encoder.tie_weights()
    return MiragePipeline(
        transformer=made(lambda: MirageTransformer(**shapes, **facts), dtype),
        vae=made(lambda: AutoencoderKLWan(**video), torch.float32),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        text_encoder=text_encoder,
        tokenizer=tokenizer(),
        chunk_frames=chunk_frames,
        size=size,
    )


def walk(
    pipeline: MiragePipeline,
    image: np.ndarray,
    path: Cameras,
    memory: str,
    rows: list[dict],
    *,
    steps: int,
    until: float,
    chunks: int,
) -> None:
    """Make the chunks and note their figures. An interrupted walk begins anew: its chunks depend on each other."""
    rows.clear()
    cuda = pipeline.device.type == "cuda"
    new, wall = pipeline.config.chunk_frames - 1, Plane()
    gc.collect()
    with torch.no_grad():
        state = pipeline.begin(image, path[0], memory=memory, estimator=wall)
        ahead = lambda number: path[1 + number * new : 1 + (number + 1) * new]
        fresh = lambda: torch.Generator().manual_seed(7)
        for _ in range(2):
            warm: dict[str, float] = {}
            once = {"num_inference_steps": 1, "generator": fresh(), "seconds": warm}
            pipeline.advance(state, ahead(0), "warm", estimator=wall, **once)
        for number in range(chunks):
            one = rows[-1]["step"] if rows else warm["denoise"]
            rest = sum(value for key, value in (rows[-1]["seconds"] if rows else warm).items() if key != "denoise")
            share = (until - time.monotonic()) / (chunks - number)
            made = int(max(2, min(steps, (share - rest) / one)))
            if share < rest + 2 * one and rows:
                rows.clear()  # not enough time for the walk: nothing half is kept
                return
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            seconds: dict[str, float] = {}
            state, result = pipeline.advance(
                state,
                ahead(number),
                f"room {number}",
                estimator=wall,
                num_inference_steps=made,
                generator=fresh(),
                seconds=seconds,
            )
            known = result.known.visible.float().mean().item()
            rows.append(
                {
                    "seconds": seconds,
                    "steps made": made,
                    "steps": steps,
                    "step": seconds["denoise"] / made,
                    "peak bytes": torch.cuda.max_memory_allocated() if cuda else None,
                    "memory bytes": state.memory.nbytes,
                    "known": known,
                }
            )
            print(f"{memory}, chunk {number + 1}: {sum(seconds.values()):.2f} s with {made} steps", flush=True)


def totals(rows: list[dict]) -> dict[str, float]:
    """Seconds by phase of a walk; steps that were not made are taken to last as long as those that were."""
    found = dict.fromkeys(PHASES, 0.0)
    for row in rows:
        for phase, value in row["seconds"].items():
            found[phase] = found.get(phase, 0.0) + (row["step"] * row["steps"] if phase == "denoise" else value)
    return found


def aims(kept: dict, new: int) -> dict[str, tuple[float, bool]]:
    """What was reached of the aims."""
    latent, colour = (kept["rows"].get(memory, []) for memory in MEMORIES)
    found: dict[str, float] = {}
    if latent:
        ours = totals(latent)
        condition = sum(ours[phase] for phase in CONDITIONING)
        found["seconds per frame"] = sum(ours.values()) / (len(latent) * new)
        found["conditioning, share of the time"] = condition / sum(ours.values())
        if len(colour) == len(latent):
            theirs = totals(colour)
            found["conditioning, times faster than colour"] = sum(theirs[p] for p in CONDITIONING) / condition
            ratio = colour[-1]["memory bytes"] / latent[-1]["memory bytes"]
            found["cache, times smaller than colour"] = ratio
    return {
        name: (value, value <= AIMS[name][0] if AIMS[name][1] == "at most" else value >= AIMS[name][0])
        for name, value in found.items()
    }


def report(kept: dict, new: int) -> str:
    """The table, in Markdown."""
    lines = [
        "",
        "| memory | s/frame | " + " | ".join(f"{phase} s" for phase in PHASES) + " | step ms | peak GiB | cache MiB |",
        "|---|" + "--:|" * (len(PHASES) + 4),
    ]
    for memory, rows in kept["rows"].items():
        if not rows:
            continue
        spent = totals(rows)
        step = 1e3 * sum(row["step"] for row in rows) / len(rows)
        peak = max((row["peak bytes"] or 0) for row in rows) / 2**30
        cells = [f"{sum(spent.values()) / (len(rows) * new):.3f}", *(f"{spent[p] / len(rows):.3f}" for p in PHASES)]
        cells += [f"{step:.1f}", f"{peak:.1f}" if peak else "-", f"{rows[-1]['memory bytes'] / 2**20:.2f}"]
        lines.append(f"| {memory} | " + " | ".join(cells) + " |")
        if any(row["steps made"] < row["steps"] for row in rows):
            made = [row["steps made"] for row in rows]
            lines.append(f"| ({memory}: only {made} of {rows[0]['steps']} steps were made; the rest is extrapolated) |")
    return "\n".join([*lines, "", "Phases are seconds per chunk."])


if __name__ == "__main__":
    sys.exit(main())
