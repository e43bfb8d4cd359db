"""`mirage train`: by a recipe on any data, or the embedded model from nothing."""

import argparse
from collections.abc import Callable
from pathlib import Path

from mirage.mover_command import add_mover

OF_NANO = {
    "shards": "shards of eight clips of exact worlds",
    "autoencoder_steps": "steps of the autoencoder",
    "equivariance": "how its latents are moved meanwhile: none, affine (default) or homography",
    "decoder_steps": "steps of the motion between latents, and of the decoder with it; none if left out",
    "fine_shards": "shards of 192 x 192 for them (19)",
    "mover_steps": "steps of a mover, which mends what the memory reads; none if left out",
    "motion_steps": "steps of its reads of groups of frames; none if left out",
    "denoiser_steps": "steps of the denoiser",
    "depth_steps": "steps of the depth head",
    "batch": "shards per step",
    "workers": "processes that make the samples",
    "seed": "of weights and batches",
}
GOES_ON = "the same command goes on from the last checkpoint"


def add_commands(
    commands: argparse._SubParsersAction, command: Callable, whole: Callable, number: Callable, device: Callable
) -> None:
    """Give the parser `mirage train`.

    Args:
        commands: Where it goes.
        command: Makes one command, as the others are made.
        whole: Makes the type of a whole number.
        number: Makes the type of a number between two bounds.
        device: Adds the option of that name.
    """
    one = command(commands, "train", train_recipe, "train a model by a recipe, or the embedded one from nothing")
    one.set_defaults(left=GOES_ON)
    one.add_argument("--recipe", metavar="FILE", help="recipes/toy.yaml, ...: what to train (docs/training.md)")
    one.add_argument(
        "--out", metavar="DIR", help="folder of checkpoints, curves, samples and the result (runs/ and its name)"
    )
    one.add_argument(
        "--data", nargs="+", metavar="SHARDS", help="folders of mirage prepare, in place of the recipe's data"
    )
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another setting, as in stages.0.lr=1e-4"
    )
    one.add_argument("--minutes", type=number(0.0, 1e6), metavar="N", help="save and stop after so long")
    device(one)
    kinds = one.add_subparsers(metavar="WHAT")

    one = command(kinds, "nano", train_nano, "train the embedded model from nothing; resumes where it stopped")
    one.set_defaults(left=GOES_ON)
    one.add_argument("--out", required=True, metavar="DIR", help="folder of clips, checkpoints, curves and the model")
    one.add_argument("--stage", action="append", metavar="NAME", help="only this stage; may be repeated")
    one.add_argument(
        "--minutes", type=number(0.0, 1e6), metavar="N", help="stop each stage after so long, to be resumed"
    )
    for name, about in OF_NANO.items():
        kind = {"seed": whole(0), "equivariance": str}.get(name, whole(1))
        one.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="KIND" if kind is str else "N", help=about)
    device(one)
    add_mover(kinds, command, whole, number, device)


def train_recipe(arguments: argparse.Namespace) -> None:
    """Any model, by a recipe."""
    if not arguments.recipe:
        raise ValueError("--recipe FILE is needed, or what to train: mirage train nano; see mirage train --help")
    import torch

    from mirage.config import read_config
    from mirage.training.recipe import Recipe
    from mirage.training.train import train

    changes = list(arguments.set)
    if arguments.data:
        changes.append("data=[" + ", ".join(repr(folder) for folder in arguments.data) + "]")
    recipe = read_config(Recipe, arguments.recipe, changes)
    out = Path(arguments.out or Path("runs") / Path(arguments.recipe).stem)
    stop_after = None if arguments.minutes is None else 60 * arguments.minutes
    try:
        made = train(recipe, out, device=arguments.device, stop_after=stop_after)
    except KeyboardInterrupt as stopped:
        arguments.left = str(stopped) or GOES_ON
        raise
    if torch.distributed.is_initialized():
        first = torch.distributed.get_rank() == 0
        torch.distributed.destroy_process_group()
        if not first:
            return
    print(f"stopped, the same command goes on: {out}" if made is None else f"trained: {made}")


def train_nano(arguments: argparse.Namespace) -> None:
    """The embedded model, from nothing."""
    import torch

    from mirage.training.nano import STAGES, NanoRecipe, train_nano

    given = {name: getattr(arguments, name) for name in OF_NANO if getattr(arguments, name) is not None}
    if arguments.minutes is not None:
        given["stop_after"] = 60 * arguments.minutes
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    whole = train_nano(Path(arguments.out), NanoRecipe(**given), stages=tuple(arguments.stage or STAGES), device=device)
    print(f"{'complete' if whole else 'stopped, the same command goes on'}: {arguments.out}")
