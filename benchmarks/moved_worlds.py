"""What a read at another pose is worth, on held-out exact worlds: nearest, gather, mover, warps in colour, ceiling.

python benchmarks/moved_worlds.py --out results/moved [--model nano] [--mover DIR] [--size 128] [--worlds 100]
python benchmarks/moved_worlds.py --out results/moved --against results/other

`--model` is a name or folder of a pipeline, or a folder of `mirage train nano` that has an autoencoder.
"""

import argparse
from functools import partial
from pathlib import Path

from mirage import MiragePipeline
from mirage.evaluation.moved_worlds import MovedWorlds, compare, evaluate, format_tables
from mirage.memory import LatentMemory, LatentMover
from mirage.training.nano import trained_codec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--mover", help="folder of a mover; the model's own if it has one and this is left out")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--against", help="folder of another run: only compare them, world by world")
    options = parser.parse_args()
    if options.against:
        return print(compare(options.out, options.against))
    reads = {"nearest": partial(LatentMemory.from_view, read="nearest"), "gather": LatentMemory.from_view}
    if (Path(options.model) / "autoencoder.safetensors").exists():
        codec, mover = trained_codec(Path(options.model)), None
    else:
        pipeline = MiragePipeline.from_pretrained(options.model)
        codec, mover = pipeline.codec, pipeline.mover
    if options.mover:
        mover = LatentMover.from_pretrained(options.mover)
    if mover is not None:
        reads["mover"] = partial(LatentMemory.from_view, mover=mover)
    config = MovedWorlds(worlds=options.worlds, size=(options.size, options.size), model=options.model)
    told = lambda done, total: print(f"\r{done} of {total} worlds", end="", flush=True)
    results = evaluate(codec, reads, config, options.out, on_world=told)
    text = format_tables(results)
    (Path(options.out) / "tables.md").write_text(text)
    print("\n" + text)


if __name__ == "__main__":
    main()
