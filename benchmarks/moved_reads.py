"""What movers are worth on real sequences, round trips through the memory, and what a moved read costs.

python benchmarks/moved_reads.py --data DATA --out DIR --mover NAME=FOLDER ... [--pairs 2] [--gaps 1 3 8]

DATA holds the RGB-D sequences and weights_taef2_flux2; FOLDER is what `mirage train mover` leaves in OUT/mover.
"""

import argparse
from pathlib import Path

from mirage.evaluation.moved_reads import TRIPS, cost, measure, tables, there_and_back, write
from mirage.evaluation.real_loops import SEQUENCES, WEIGHTS, Rgbd
from mirage.memory import LatentMover
from mirage.video.taef2 import TinyFlux2, TinyFlux2Codec

PLACES = (("icl_livingroom1", 0, 3), ("icl_livingroom1", 40, 42), ("hololens_office_loop", 0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mover", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--sequences", nargs="+", default=list(SEQUENCES))
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--gaps", type=int, nargs="+", default=[1, 3, 8])
    options = parser.parse_args()
    codec = TinyFlux2Codec(TinyFlux2.from_folder(options.data / WEIGHTS))
    movers = {name: LatentMover.from_pretrained(folder) for name, folder in (m.split("=", 1) for m in options.mover)}
    opened = lambda name: Rgbd.open(options.data / name, width=320, step=codec.stride)
    tell = lambda text: print(text, flush=True)
    sequences = [opened(name) for name in options.sequences]
    rows = measure(codec, sequences, movers, pairs=options.pairs, gaps=options.gaps, out=options.out, tell=tell)
    write(options.out, rows)
    print(tables(rows))
    for name, a, b in PLACES:
        worn = there_and_back(codec, opened(name).views([a, b]), movers)
        print(name, a, b, "dB after", TRIPS, "trips:", {way: [round(x, 1) for x in v] for way, v in worn.items()})
    print("milliseconds at 704 x 1280, stride 16, 9 views:", {way: round(x) for way, x in cost().items()})


if __name__ == "__main__":
    main()
