"""`mirage doctor`, `--dry-run`, and the options that say which weights a large model has and how it fits a card."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

OURS = {"memory_weights": "memory", "lora": "lora", "memory_layout": "memory_layout"}


def add_model_options(one: argparse.ArgumentParser, number: Callable, *, imagines: bool) -> None:
    """Options of commands that run a model of any size.

    Args:
        one: The command's parser.
        number: Makes the type of a number between two bounds.
        imagines: Whether the command calls the denoiser, so that it has a use for texts.
    """
    more = one.add_argument_group("large models", "For Wan2.2-5B and its like; the embedded model needs none of these.")
    more.add_argument(
        "--memory-weights", metavar="PATH", help="of the memory branch: a file, a folder, a name on the hub"
    )
    more.add_argument(
        "--memory-layout", choices=("mask", "constant", "score"), help="what that branch reads, if unclear"
    )
    more.add_argument("--lora", metavar="PATH", help="weights of a low-rank adapter, likewise")
    more.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights (as saved; Wan bfloat16)"
    )
    more.add_argument(
        "--offload",
        choices=("none", "model", "group"),
        default="none",
        help="what is on the card: everything, one part at a time, or one block at a time (none)",
    )
    more.add_argument("--vae-tiling", action="store_true", help="encode and decode in tiles")
    more.add_argument(
        "--quantize", choices=("none", "fp8", "int8"), default="none", help="how the denoiser's weights are kept (none)"
    )
    more.add_argument("--attention", metavar="NAME", help="attention backend of diffusers: native, flash, sage, ...")
    more.add_argument("--compile", action="store_true", help="compile the denoiser's blocks, once per shape")
    if not imagines:
        return
    more.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="what to imagine; repeated, one for each chunk, the last serves the rest; or a file: a JSON list of texts "
        "or of objects with a caption, or one text per line",
    )
    more.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to guide away from")
    more.add_argument(
        "--guidance", type=number(1.0, 30.0), default=1.0, metavar="X", help="strength of that; 1 does without it (1)"
    )
    more.add_argument(
        "--dry-run", action="store_true", help="say what it would take in memory and time; nothing is loaded or written"
    )


def add_doctor(commands: argparse._SubParsersAction, command: Callable, number: Callable) -> None:
    """`mirage doctor`.

    Args:
        commands: Where commands are added.
        command: Adds one.
        number: Makes the type of a number between two bounds.
    """
    one = command(commands, "doctor", doctor, "what is installed, what the card can do, and which settings fit")
    one.add_argument("--json", action="store_true", help="the same as JSON")
    one.add_argument("--gib", type=number(1.0, 1e4), metavar="N", help="plan for a card of so many GiB")
    one.add_argument("--card", metavar="NAME", help="plan for such a card: H200, H100, A100, L40S, RTX 4090, ...")
    one.add_argument("--model", metavar="NAME", help="plan for this model: a folder, or nano (Wan2.2-TI2V-5B)")
    one.add_argument("--memory-weights", metavar="PATH", help="with this memory branch (the paper's)")


def doctor(arguments: argparse.Namespace) -> None:
    """What is here, and what fits."""
    from mirage.cost import CARDS, GIB
    from mirage.doctor import card_of, diagnose, model_of, told

    if arguments.card and card_of(arguments.card) is None:
        raise ValueError(f"--card must name one of {', '.join(CARDS)}, got {arguments.card}; or give --gib")
    model = model_of(arguments.model, arguments.memory_weights) if arguments.model else None
    found = diagnose(model, memory=arguments.gib and arguments.gib * GIB, name=arguments.card)
    if arguments.model:
        found["model"] = arguments.model
    print(json.dumps(found, indent=2) if arguments.json else told(found))


def weights_of(arguments: argparse.Namespace) -> dict[str, object]:
    """Arguments of `MiragePipeline.from_pretrained`.

    Args:
        arguments: Of the command; options that it lacks count as not given.

    Returns:
        Those that were given.
    """
    import torch

    given = {ours: getattr(arguments, name, None) for name, ours in OURS.items()}
    if getattr(arguments, "dtype", None):
        given["dtype"] = getattr(torch, arguments.dtype)
    return {name: value for name, value in given.items() if value is not None}


def settle(pipeline: object, arguments: argparse.Namespace, device: str) -> object:
    """Bring a pipeline to a device as the options say.

    Args:
        pipeline: As it was loaded.
        arguments: Of the command.
        device: The device.

    Returns:
        The same pipeline.

    Raises:
        ValueError: If a choice cannot be had here.
    """
    if not hasattr(arguments, "offload"):
        return pipeline.to(device)
    from mirage.fit import fit

    return fit(
        pipeline,
        device=device,
        offload=arguments.offload,
        vae_tiling=arguments.vae_tiling,
        quantize=arguments.quantize,
        attention=arguments.attention,
        compiled=arguments.compile,
    )


def said(arguments: argparse.Namespace) -> dict[str, object]:
    """Arguments of a call that have to do with text.

    Args:
        arguments: Of the command.

    Returns:
        Prompts, and what is guided away from.

    Raises:
        ValueError: If guidance or a negative prompt is given without the other, or a file of prompts is damaged.
    """
    if arguments.negative_prompt and arguments.guidance == 1.0:
        raise ValueError("--negative-prompt does nothing without --guidance: give --guidance 5, for instance")
    prompts = [text for given in arguments.prompt or () for text in _texts(given)]
    return {
        "prompt": prompts or None,
        "negative_prompt": arguments.negative_prompt,
        "guidance_scale": arguments.guidance,
    }


def dry_run(arguments: argparse.Namespace) -> None:
    """Memory and time of `mirage generate` before anything is loaded: from configurations and headers.

    Args:
        arguments: Of the command.

    Raises:
        ValueError: If picture, path, size, prompts or the files of the model are not what they must be.
    """
    import math

    from mirage.chunks import plan_chunks
    from mirage.cli import _device
    from mirage.cost import Settings
    from mirage.doctor import NOTE, fitting, forecast, model_of
    from mirage.inputs import Inputs

    if not arguments.image or not arguments.path:
        raise ValueError("--dry-run needs IMAGE and --path")
    device = _device(arguments.device)
    said(arguments)
    model = model_of(arguments.model, arguments.memory_weights, arguments.memory_layout)
    inputs = Inputs.load(
        arguments.image,
        arguments.path,
        size=arguments.size,
        frames=arguments.frames,
        fov=None if arguments.fov is None else math.radians(arguments.fov),
        intrinsics=arguments.intrinsics,
        depth=arguments.depth,
        depth_scale=arguments.depth_scale,
        like=model.size,
        step=model.stride * model.patch,
        temporal_stride=model.temporal_stride,
    )
    frames = len(inputs.cameras)
    chunks = plan_chunks(frames, model.chunk_frames, model.temporal_stride)
    settings = Settings(
        height=inputs.cameras.height,
        width=inputs.cameras.width,
        frames=len(chunks[0]),
        steps=arguments.steps or model.steps,
        guided=arguments.guidance != 1.0,
        dtype=arguments.dtype or ("bfloat16" if model.text else "float32"),
        offload=arguments.offload,
        quantize=arguments.quantize,
        tiling=arguments.vae_tiling,
    )
    found = forecast(model, settings, chunks=len(chunks), frames=frames, device=device)
    weights = ", ".join(f"{name} {count / 1e6:,.1f} million" for name, count in found["weights"].items() if count)
    phases = ", ".join(f"{phase} {value:.2f}" for phase, value in found["gigabytes"].items() if value)
    print(f"{inputs.path}\n\nnothing was loaded; {NOTE}")
    print(f"weights: {weights}" + ("" if model.autoencoder else "; the small autoencoder is not counted"))
    print(
        f"video: {frames} frames of {settings.height} x {settings.width} in {len(chunks)} chunks of "
        f"{settings.steps} steps"
    )
    print(f"run as: {settings}")
    print(f"memory: {found['peak_gigabytes']:.2f} GiB at the worst moment; GiB by phase: {phases}")
    print(f"time: about {found['seconds']:,.1f} s, {found['seconds'] / frames:.2f} s a frame, by {found['time_by']}")
    if found["fits"] is False:
        import torch

        have = torch.cuda.get_device_properties(device).total_memory
        print(f"warning: it does not fit; {fitting(model, have, height=settings.height, width=settings.width)}")


def too_small(error: BaseException, arguments: argparse.Namespace) -> str | None:
    """What to say when memory ran out.

    Args:
        error: What was raised.
        arguments: Of the command.

    Returns:
        One sentence; None if the error is something else.
    """
    words = str(error)
    on_card = type(error).__name__ == "OutOfMemoryError"
    if not on_card and not (
        isinstance(error, MemoryError) or "not enough memory" in words or "can't allocate" in words
    ):
        return None
    first = words.partition("\n")[0].partition(". GPU")[0].strip().removesuffix(".")[:200]
    if not on_card:
        return f"this computer has too little memory ({first}): choose a smaller --size"
    from mirage.cost import Model
    from mirage.doctor import SIZES, devices, fitting, model_of

    here = devices()
    if getattr(arguments, "model", "nano") == "nano":
        return f"the card is too small ({first}): choose a smaller --size"
    try:
        model = model_of(arguments.model, getattr(arguments, "memory_weights", None))
    except ValueError:
        model = Model()
    size = getattr(arguments, "size", None) or SIZES[-1]
    memory = float(here[0]["memory"]) if here else 0.0
    return f"the card is too small ({first}); {fitting(model, memory, height=size[0], width=size[1])}"


def _texts(given: str) -> list[str]:
    """The texts of one --prompt: itself, or those of a file."""
    path = Path(given)
    try:
        held = path.read_text() if len(given) < 1000 and path.is_file() else None
    except (OSError, ValueError) as error:
        raise ValueError(f"--prompt names a file that cannot be read: {path} ({error})") from error
    if held is None:
        return [given]
    if path.suffix != ".json":
        texts: object = [line.strip() for line in held.splitlines() if line.strip()]
    else:
        try:
            texts = json.loads(held)
        except ValueError as error:
            raise ValueError(f"--prompt names a file that is no JSON: {path} ({error})") from error
    texts = texts if isinstance(texts, list) else [texts]
    found = [text.get("caption", text.get("prompt")) if isinstance(text, dict) else text for text in texts]
    if not found or not all(isinstance(text, str) and text for text in found):
        raise ValueError(f"--prompt names {path}, which must hold a list of texts or of objects with a caption")
    return found
