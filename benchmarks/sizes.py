"""What a larger picture gains: the same held-out walks at several sizes, all compared at the smallest.

python benchmarks/sizes.py [--model nano] [--worlds 8]

Seen: pixels whose true surface point is in the input picture. Depth of the input is known.
"""

import argparse
import os
import platform
import time

import numpy as np
import torch
import torch.nn.functional as F

from mirage import MiragePipeline
from mirage.evaluation import metrics
from mirage.geometry.nano import FAR
from mirage.scenes import Worlds, render, sample_path

SIZES, FRAMES, FIRST_SEED = (128, 192, 256), 33, 1_000_200


def decibels(error: torch.Tensor, mask: torch.Tensor) -> float:
    """PSNR over the masked pixels; NaN if there are none."""
    return -10 * error[mask].mean().log10().item()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--worlds", type=int, default=8)
    options = parser.parse_args()
    pipeline = MiragePipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    small = lambda x: F.interpolate(x, (SIZES[0], SIZES[0]), mode="area")
    rows: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    for seed in range(FIRST_SEED, FIRST_SEED + options.worlds):
        world = Worlds.sample([seed], movers=0)
        for size in SIZES:
            kind = "walk" if seed % 2 else "orbit"
            cameras = sample_path(world, seed, FRAMES, kind=kind, height=size, width=size)
            view = render(world, cameras)
            truth, depth = view.colour[0], torch.where(view.sky, FAR, view.depth)[0]
            seen = torch.as_tensor(metrics.seen_from(depth, cameras, depth[0], cameras[0]))
            noise, start = torch.Generator().manual_seed(0), time.perf_counter()
            made = pipeline(truth[0], cameras, depth=depth[0], generator=noise, output_type="pt").frames
            speed = FRAMES / (time.perf_counter() - start)
            coded = pipeline.codec.decode(pipeline.codec.encode(truth[None]))[0].clamp(-1, 1)
            inside = small(seen[:, None].float())[1:, 0] > 0.5
            error, limit = (((small(x) - small(truth)) / 2).square().mean(1)[1:] for x in (made, coded))
            everywhere = torch.ones_like(inside)
            rows[size].append([decibels(error, inside), decibels(error, ~inside), decibels(limit, everywhere), speed])
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; {options.worlds} walks of {FRAMES}"
    )
    print("| size | seen, dB | unseen, dB | autoencoder, dB | frames/s |\n|---|--:|--:|--:|--:|")
    for size, values in rows.items():
        means = np.nanmean(values, 0)
        print(f"| {size} x {size} | " + " | ".join(f"{v:.1f}" for v in means) + " |")


if __name__ == "__main__":
    main()
