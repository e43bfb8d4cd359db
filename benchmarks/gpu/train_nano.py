"""Train the embedded model on one GPU, at most nine minutes a call, each call continuing the last.

    python benchmarks/gpu/train_nano.py --out runs/nano-gpu                 # every stage in turn, nine minutes in all
    python benchmarks/gpu/train_nano.py --out runs/nano-gpu --stage denoiser

Clips and samples are made anew where they are missing (seconds to a minute), so that only checkpoints and curves need
to be kept between calls: `autoencoder.*`, `denoiser.*` and `depth.*` in --out. Prints hardware, sizes, and a table of
what each stage reached. The recipe is the laptop's with a wider transformer and batches that fill the device.
"""

import argparse
import json
import logging
import os
import time
from pathlib import Path

import torch

from mirage.training.nano import STAGES, NanoRecipe, train_nano

RECIPE = dict(
    shards=400,
    autoencoder_steps=20_000,
    denoiser_steps=30_000,
    depth_steps=6_000,
    heads=6,
    layers=10,
    batch=4,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/nano-gpu"))
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: all")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a few steps of everything, to see that it runs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores"
    print(f"hardware: {name}; torch {torch.__version__}")
    recipe = dict(RECIPE, workers=max(1, (os.cpu_count() or 2) - 1))
    if options.small:
        recipe |= dict(shards=2, autoencoder_steps=4, denoiser_steps=4, depth_steps=4, batch=1, workers=1)
    print(f"recipe: {recipe}")
    end = time.monotonic() + 60 * options.minutes
    for stage in options.stage or STAGES:
        left = end - time.monotonic()
        if left < 20:
            print("time is up; the same command goes on from here")
            break
        done = train_nano(
            options.out, NanoRecipe(**recipe, stop_after=left - 10), stages=(stage,), device=options.device
        )
        print(f"{stage}: {'complete' if done else 'to be continued'}")
        if not done:
            break
    for curve in sorted(options.out.glob("*.curve.jsonl")):
        print(curve.name, json.loads(curve.read_text().splitlines()[-1]))


if __name__ == "__main__":
    main()
