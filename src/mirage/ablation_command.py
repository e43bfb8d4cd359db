"""`mirage evaluate ablation`: every row by one command, those whose model is trained included."""

import argparse
import os
import shlex
from collections.abc import Callable
from pathlib import Path

GIVEN = ("full", "colour", "pixels", "none", "mover", "memory-only", "autoencoder", "nearest-token", "nearest-corner")
GIVEN += ("mask-ones", "mask-zeros", "exact", "head", "noisy-0.05", "noisy-0.2")
GIVEN += tuple(
    f"holes-{read}{how}" for read in ("", "token-") for how in ("ours", "bilinear", "nearest", "area", "median")
)
GIVEN += ("budget-28", "budget-40", "filtered", "unfiltered", "filtered-nearest", "unfiltered-nearest")
TRAINED = ("two-stage", "joint", "quiet")
SIZE = 128  # pixels along a side, as the embedded model was trained
FRAMES = 49


def ablation(arguments: argparse.Namespace) -> None:
    """Train what has to be trained, and measure all rows."""
    from mirage.cli import _device
    from mirage.evaluate_command import evaluation_packages

    with evaluation_packages():
        from mirage.evaluation.ablation import Ablation, evaluate, format_table

    rows, out = tuple(arguments.rows), Path(arguments.out)
    trained = {row: train_row(row, arguments, out) for row in rows if row in TRAINED}
    config = Ablation(
        model=arguments.model,
        rows=rows,
        scenes=arguments.scenes,
        first_seed=arguments.first_seed,
        trained=trained,
        device=_device(arguments.device),
        sheets=arguments.sheets,
    )
    words = shlex.join(["mirage", *map(str, arguments.words)])
    print(format_table(evaluate(config, out, processes=arguments.processes, command=words)))
    print(f"results: {out}\npage: {out / 'report.html'}")


def train_row(row: str, arguments: argparse.Namespace, out: Path) -> tuple[str, ...]:
    """The models of a row, one per seed; trained if they are not there.

    All begin with the same backbone, that of the model without its branch, and a branch of copies of its blocks.

    Args:
        row: One of `TRAINED`.
        arguments: Of the command.
        out: Folder of the results.

    Returns:
        Their folders.
    """
    from mirage.training.train import train

    data = arguments.data or str(make_clips(out / "clips", arguments))
    base = make_base(out / "base", arguments.model)
    folders = []
    for seed in range(arguments.seeds):
        recipe = make_recipe(row, seed, arguments.train_steps, data, base)
        folders.append(str(train(recipe, out / "trained" / f"{row}-{seed}", device=arguments.device)))
    return tuple(folders)


def make_clips(folder: Path, arguments: argparse.Namespace) -> Path:
    """Clips of exact worlds to train on, none of them held out.

    Args:
        folder: Where they go, or are.
        arguments: Of the command.

    Returns:
        The folder.
    """
    from mirage.dataset.prepare import Settings, prepare

    settings = Settings(model=arguments.model, frames=FRAMES, size=(SIZE, SIZE))
    prepare(f"worlds:{arguments.clips}", folder, settings, tell=lambda text: print(text, flush=True))
    return folder


def make_base(folder: Path, model: str) -> str:
    """A model without its memory branch.

    Args:
        folder: Where it goes, or is.
        model: Its name.

    Returns:
        The folder.
    """
    if not (folder / "model_index.json").is_file():
        from mirage.denoise.transformer import MirageTransformer
        from mirage.pipeline import MiragePipeline

        pipeline = MiragePipeline.from_pretrained(model)
        whole = pipeline.transformer
        bare = MirageTransformer.from_config(whole.config, vace_layers=[])
        bare.load_state_dict({key: whole.state_dict()[key] for key in bare.state_dict()})
        pipeline.register_modules(transformer=bare.to(whole.dtype).eval())
        pipeline.save_pretrained(folder)
    return str(folder)


def make_recipe(row: str, seed: int, steps: int, data: str, base: str) -> object:
    """How a row is trained; all rows with as many steps.

    Args:
        row: One of `TRAINED`.
        seed: Of weights, batches and noise.
        steps: In all.
        data: Folder of clips.
        base: Folder of the model to begin with.

    Returns:
        The recipe.
    """
    from mirage.training.recipe import Conditions, Log, Model, Noise, Recipe, Stage

    half = {"lr": 1e-3, "batch": 8, "warmup": 20, "schedule": "cosine", "ema": 0.98, "rank": 16, "alpha": 16.0}
    if row == "joint":
        stages = (Stage(train="joint", steps=steps, **half),)
    else:
        first = steps // 2
        stages = (Stage(train="branch", steps=first, **half), Stage(train="lora", steps=steps - first, **half))
    return Recipe(
        about=f"ablation, row {row}",
        seed=seed,
        data=(data,),
        model=Model(base=base, branch_every=2),
        conditions=Conditions(variants=1, preceding_noise=0.0) if row == "quiet" else Conditions(variants=1),
        noise=Noise(shift=3.0, pure=0.8),
        stages=stages,
        log=Log(tracker="none", save_every=100),
    )


def add_ablation(
    kinds: argparse._SubParsersAction,
    command: Callable[..., argparse.ArgumentParser],
    whole: Callable[..., Callable[[str], int]],
    add_model: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add `mirage evaluate ablation`.

    Args:
        kinds: Where commands are added.
        command: Adds one.
        whole: Makes the type of a whole number.
        add_model: Adds the choice of the model.
    """
    one = command(kinds, "ablation", ablation, "the method with one thing otherwise, row by row, on exact worlds")
    one.set_defaults(left="what was measured or trained is kept, the same command goes on")
    one.add_argument("--out", required=True, metavar="DIR", help="folder of the results, resumed if it holds some")
    one.add_argument(
        "--rows",
        nargs="+",
        default=GIVEN,
        choices=(*GIVEN, *TRAINED),
        metavar="ROW",
        help=f"{', '.join(GIVEN)} (these); trained first: {', '.join(TRAINED)}",
    )
    one.add_argument("--scenes", type=whole(1), default=50, metavar="N", help="worlds of each kind (50)")
    one.add_argument(
        "--first-seed", type=whole(0, 2**62), default=1_000_000, metavar="N", help="of the first world (1000000)"
    )
    one.add_argument("--seeds", type=whole(1, 100), default=1, metavar="N", help="trainings of each trained row (1)")
    one.add_argument("--train-steps", type=whole(2), default=400, metavar="N", help="of each training, in all (400)")
    one.add_argument("--data", metavar="SHARDS", help="clips to train on; made if there are none")
    one.add_argument("--clips", type=whole(8), default=96, metavar="N", help="how many are made (96)")
    one.add_argument("--sheets", type=whole(0), default=2, metavar="N", help="worlds that are shown as pictures (2)")
    one.add_argument("--processes", type=whole(1), default=os.cpu_count() or 1, metavar="N", help="scenes at a time")
    add_model(one)
