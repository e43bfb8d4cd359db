"""`mirage train mover` and `motion`: correctors of latent reads for any frozen autoencoder."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

NUMBERS = {
    "steps": "optimiser steps",
    "decoded": "more steps after these, whose loss looks through the decoder: slower each, and better",
    "batch": "places per step",
    "worlds": "exact worlds to make, where the data has any",
    "seed": "of worlds, weights and samples",
}
OF_MOTION = {"steps": "optimiser steps", "batch": "chunks per step", "seed": "of weights and samples"}


def add_mover(
    kinds: argparse._SubParsersAction, command: Callable, whole: Callable, number: Callable, device: Callable
):
    """Give `mirage train` its mover, and the mover its reads of groups of frames.

    Args:
        kinds: Where it goes.
        command: Makes one command, as the others are made.
        whole: Makes the type of a whole number.
        number: Makes the type of a number between two bounds.
        device: Adds the option of that name.
    """
    one = command(kinds, "mover", train, "train what mends latent reads at other poses; resumes where it stopped")
    one.set_defaults(left="the same command goes on from the last checkpoint")
    one.add_argument(
        "--codec", default="nano", metavar="MODEL", help="whose latents: nano, a folder or owner/name of a model"
    )
    one.add_argument(
        "--data", nargs="+", default=["worlds"], metavar="FOLDER",
        help="worlds, folders of posed RGB-D (rgb/, depth/, cameras.npz), folders of photographs",
    )  # fmt: skip
    one.add_argument("--out", required=True, metavar="DIR", help="folder of data, checkpoints, curve and mover/")
    one.add_argument("--minutes", type=number(0.0, 1e6), metavar="N", help="save and stop after so long, to be resumed")
    for name, about in NUMBERS.items():
        one.add_argument(f"--{name}", type=whole(0 if name == "seed" else 1), metavar="N", help=about)
    device(one)

    one = command(kinds, "motion", train_groups, "train what a mover makes of reads at all frames of a latent; resumes")
    one.set_defaults(left="the same command goes on from the last checkpoint")
    one.add_argument("--codec", default="nano", metavar="MODEL", help="whose latents: nano, or a folder of a model")
    one.add_argument("--mover", metavar="FOLDER", help="the mover that reads (mover/ of the model)")
    one.add_argument("--data", required=True, metavar="SHARDS", help="folder of mirage prepare")
    one.add_argument("--out", required=True, metavar="DIR", help="folder of checkpoints, curve and mover/")
    one.add_argument("--minutes", type=number(0.0, 1e6), metavar="N", help="save and stop after so long, to be resumed")
    for name, about in OF_MOTION.items():
        one.add_argument(f"--{name}", type=whole(0 if name == "seed" else 1), metavar="N", help=about)
    device(one)


def train(arguments: argparse.Namespace) -> None:
    """A mover for one autoencoder."""
    from mirage.checkpoint.codecs import model_codec
    from mirage.training.mover import MoverRecipe, train_mover
    from mirage.training.mover_data import find

    find(arguments.data)  # before anything is loaded
    given, device = _asked(arguments, NUMBERS)
    model = model_codec(arguments.codec)
    out = Path(arguments.out)
    tell = lambda text: print(text, flush=True)
    whole = train_mover(
        out, model.codec, arguments.data, MoverRecipe(**given), told=model.told(), device=device, tell=tell
    )
    print(f"{'complete' if whole else 'stopped, the same command goes on'}: {out / 'mover'}")


def train_groups(arguments: argparse.Namespace) -> None:
    """What a mover makes of the reads at all frames of a latent, for one autoencoder."""
    from mirage.checkpoint.codecs import NANO, model_codec
    from mirage.dataset import Shards
    from mirage.memory import LatentMover
    from mirage.training.motion import MotionRecipe, train_motion

    given, device = _asked(arguments, OF_MOTION)
    model = model_codec(arguments.codec).to(device)
    mover = LatentMover.from_pretrained(
        arguments.mover or (NANO if arguments.codec == "nano" else Path(arguments.codec)) / "mover"
    )
    clips = Shards(arguments.data, fingerprint=model.told()["fingerprint"])
    out = Path(arguments.out)
    whole = train_motion(out, model.codec, mover, clips, MotionRecipe(**given), device=device)
    print(f"{'complete' if whole else 'stopped, the same command goes on'}: {out / 'mover'}")


def _asked(arguments: argparse.Namespace, names: Iterable[str]) -> tuple[dict[str, int | float], str]:
    """The settings that were given, and the device to compute on."""
    import torch

    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.minutes is not None:
        given["stop_after"] = 60 * arguments.minutes
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return given, auto if arguments.device == "auto" else arguments.device
