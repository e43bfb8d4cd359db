"""The training loop: one loss function, one seeded batch per step, checkpoints that resume where they stopped."""

import contextlib
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirage.training.begun import begun_threads, on_threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps of the whole run; the learning rate ends at a fiftieth of its peak.
        lr: Peak learning rate of AdamW.
        warmup: Steps over which the rate rises from zero.
        weight_decay: Decoupled weight decay.
        ema: Decay of the averaged weights, which are the ones that are used.
        clip: Greatest norm of the gradient.
        save_every: Steps between checkpoints.
        log_every: Steps between lines of the curve.
    """

    steps: int
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 1e-3
    ema: float = 0.999
    clip: float = 1.0
    save_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or not 0 <= self.ema < 1:
            raise ValueError(f"steps and lr must be positive and ema in [0, 1), got {self}")

    def rate(self, step: int) -> float:
        """Learning rate of one step: linear warm-up, then a cosine."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[nn.Module, int], tuple[Tensor, dict[str, Tensor]]],
    schedule: Schedule,
    folder: Path,
    stop_after: float | None = None,
) -> bool:
    """Train `model` in place up to `schedule.steps`, resuming from `folder` if it holds a checkpoint.

    The batch of a step is a function of the step's number alone (`loss` draws it from a generator seeded by it), so a
    run that was killed continues with the very numbers it would have had.

    Args:
        name: What is trained; names the files `NAME.safetensors` (averaged weights), `NAME.state.safetensors` and
            `NAME.curve.jsonl` in `folder`; `NAME.begun.json` says with how many threads it goes on.
        model: Its parameters that need a gradient are trained in place and hold the *averaged* weights on return.
        loss: Maps (model, step) to the loss and to figures for the curve.
        schedule: Length, rate and checkpoints.
        folder: Where checkpoints go; made if missing.
        stop_after: Seconds after which the run saves and returns early, to be resumed; None never does.

    Returns:
        True when all steps are done, False when `stop_after` came first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_path, curve = folder / f"{name}.state.safetensors", folder / f"{name}.curve.jsonl"
    begun = folder / f"{name}.begun.json"
    params = {k: p for k, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        params.values(),
        lr=schedule.lr,
        betas=(0.9, 0.99),
        weight_decay=schedule.weight_decay,
        fused=next(iter(params.values())).is_cuda,
    )
    average = {k: p.detach().clone() for k, p in params.items()}
    step = _resume(state_path, params, average, optimizer)
    started, first, sums = time.monotonic(), step, {}
    logger.info(
        "%s: %.2f M parameters, step %d of %d",
        name,
        sum(p.numel() for p in params.values()) / 1e6,
        step,
        schedule.steps,
    )
    model.train()
    threads = torch.get_num_threads() if next(iter(params.values())).is_cuda else begun_threads(begun)
    with on_threads(threads), stop_politely() as stopped:
        while step < schedule.steps:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            value, figures = loss(model, step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            norm = nn.utils.clip_grad_norm_(params.values(), schedule.clip)
            optimizer.step()
            step += 1
            decay = min(schedule.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), [p.detach() for p in params.values()], 1 - decay)
            for key, figure in {"loss": value.detach(), "norm": norm, **figures}.items():
                sums.setdefault(key, []).append(figure.detach())
            if step % schedule.log_every == 0 or step == schedule.steps:
                means = {k: round(torch.stack(v).mean().item(), 5) for k, v in sums.items()}
                sums = {}
                seconds = (time.monotonic() - started) / (step - first)
                line = {"step": step, "lr": schedule.rate(step - 1), "s_per_step": round(seconds, 4), **means}
                with curve.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                logger.info("%s %s, %.0f s left", name, line, seconds * (schedule.steps - step))
            late = stop_after is not None and time.monotonic() - started > stop_after
            if step % schedule.save_every == 0 or step == schedule.steps or late or stopped:
                _save(state_path, step, params, average, optimizer)
                save_atomic({k: v.contiguous() for k, v in average.items()}, folder / f"{name}.safetensors")
            if late or stopped:
                break
    with torch.no_grad():
        for key, p in params.items():
            p.copy_(average[key])
    model.eval()
    if stopped:
        raise KeyboardInterrupt(f"{name} stopped at step {step}; the same command continues it")
    return step >= schedule.steps


def mixed(device: torch.device | str) -> torch.autocast:
    """bf16 where the hardware multiplies it faster than float32, else nothing."""
    kind = torch.device(device).type
    quick = kind == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(kind, torch.bfloat16, enabled=quick)


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on the numbers of `key` alone, such as (seed, step)."""
    seed = 0
    for k in key:
        seed = (seed * 1_000_003 + k + 1) % (2**62)
    return torch.Generator(device).manual_seed(seed)


def save_atomic(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file aside and rename it, so that a crash leaves the old one."""
    aside = path.with_suffix(path.suffix + ".part")
    save_file(tensors, aside, metadata)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)


def _save(path: Path, step: int, params: dict, average: dict, optimizer: torch.optim.Optimizer) -> None:
    tensors = {"step": torch.tensor(step)}
    for key, p in params.items():
        slot = optimizer.state[p]
        tensors |= {f"param/{key}": p.detach().contiguous(), f"average/{key}": average[key].contiguous()}
        tensors |= {f"{part}/{key}": slot[part].detach().contiguous() for part in ("exp_avg", "exp_avg_sq")}
    save_atomic(tensors, path)


def _resume(path: Path, params: dict, average: dict, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to start this stage anew") from error
    wrong = [k for k, p in params.items() if f"param/{k}" not in tensors or tensors[f"param/{k}"].shape != p.shape]
    if wrong:
        raise ValueError(f"{path} is of another model: {wrong[0]} does not fit; train into another folder")
    step = int(tensors["step"])
    with torch.no_grad():
        for key, p in params.items():
            p.copy_(tensors[f"param/{key}"])
            average[key].copy_(tensors[f"average/{key}"])
            slot = {part: tensors[f"{part}/{key}"].to(p) for part in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = {"step": torch.tensor(float(step), device=p.device if p.is_cuda else "cpu"), **slot}
    return step


@contextlib.contextmanager
def stop_politely() -> Iterator[list[int]]:
    """Turn Ctrl-C or a polite kill into a request that the loop honours after the step in hand; a second one is obeyed.

    Yields:
        A list that is no longer empty once it was asked.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {}
    try:
        before = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: no handler, no polite stop
        yield asked
        return
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
