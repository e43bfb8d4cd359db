"""`mirage train --recipe`: stage after stage, on one device or many, resumed where it stopped bit for bit."""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available, is_wandb_available
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mirage.checkpoint.codecs import fingerprint
from mirage.config import differences, read_config, write_config
from mirage.dataset.shards import Shards
from mirage.denoise.text import encode_prompts, null_context
from mirage.denoise.transformer import MirageBlock, MirageTransformer
from mirage.pipeline import MiragePipeline
from mirage.training import model as models
from mirage.training.batches import Batches
from mirage.training.begun import begun_threads, on_threads
from mirage.training.fit import save_atomic, stop_politely
from mirage.training.loss import flow_loss
from mirage.training.reads import Reader
from mirage.training.recipe import Recipe
from mirage.training.show import show
from mirage.training.state import Checkpoints
from mirage.video.io import atomic

logger = logging.getLogger(__name__)
MODEL, RECIPE, BEGUN = "model", "recipe.yaml", "begun.json"


def train(recipe: Recipe, out: str | Path, *, device: str = "auto", stop_after: float | None = None) -> Path | None:
    """Train what a recipe says, or go on with it.

    Args:
        recipe: What to train, and on what.
        out: Folder of checkpoints, curves, samples and the result; what is there already is gone on with.
        device: "cpu", or "auto" for what accelerate finds.
        stop_after: Seconds after which it saves and returns, to be resumed; None never does.

    Returns:
        The folder of the result. With a base of our own kind it is a whole model for `MiragePipeline.from_pretrained`;
        with a Wan model it holds `memory.safetensors` and `lora.safetensors`, and is given as `memory=` and `lora=`.
        None if `stop_after` came first.

    Raises:
        ValueError: If the recipe does not fit the data, the model, the number of processes, or what `out` holds.
        OSError: If `out` cannot be written.
        KeyboardInterrupt: After Ctrl-C, when all is saved.
    """
    out, start = Path(out), time.monotonic()
    accelerator = _accelerator(recipe, out, device)
    if not accelerator.is_main_process:
        logging.getLogger("mirage").setLevel(logging.ERROR)
    _check_processes(recipe, accelerator.num_processes)
    if not recipe.data:
        raise ValueError("data must name a folder of shards, as mirage prepare makes them (--data), got none")
    _refuse_another(recipe, out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / MODEL).is_dir():
        logger.info("%s is done already: %s", out, out / MODEL)
        return out / MODEL
    left = lambda: None if stop_after is None else stop_after - (time.monotonic() - start)
    with accelerator.main_process_first():
        threads = begun_threads(out / BEGUN) if accelerator.device.type == "cpu" else torch.get_num_threads()
    with on_threads(threads):
        return _train(recipe, out, accelerator, left)


def _train(recipe: Recipe, out: Path, accelerator: Accelerator, left: Callable[[], float | None]) -> Path | None:
    pipeline = models.load_model(recipe.model, recipe.seed)
    sets = _shards(recipe, pipeline)
    for part in ("vae", "text_encoder", "depth_head"):
        if getattr(pipeline, part) is not None:
            getattr(pipeline, part).to(accelerator.device).requires_grad_(False).eval()
    batches = _batches(recipe, pipeline, sets, accelerator.device)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with atomic(out / RECIPE) as aside:
            aside.write_text(write_config(recipe), encoding="utf-8")
    if recipe.log.tracker != "none":
        accelerator.init_trackers("mirage", init_kwargs={"wandb": {"dir": str(out)}})
    for number in range(len(recipe.stages)):
        run = _Run(recipe, number, out, pipeline, batches, accelerator)
        if not run.go(left()):
            return None
    if accelerator.is_main_process:
        models.export(recipe, pipeline, out / MODEL)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    return out / MODEL


class Trained(nn.Module):
    """The denoiser as DDP and FSDP wrap it: what is computed with it comes in from outside.

    Args:
        transformer: The denoiser.
        precision: Of the arithmetic, as in a recipe.
    """

    def __init__(self, transformer: MirageTransformer, precision: str):
        super().__init__()
        self.transformer, self.precision = transformer, precision

    def forward(self, compute: Callable[[MirageTransformer], object]) -> object:
        """What `compute` makes of the denoiser, in the precision of the recipe."""
        device = next(self.transformer.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=is_mixed(self.precision, device)):
            return compute(self.transformer)


def is_mixed(precision: str, device: str) -> bool:
    """Whether products are computed in bfloat16."""
    quick = device == "cuda" or (device == "cpu" and torch.cpu._is_avx512_bf16_supported())
    return precision == "bfloat16" or (precision == "auto" and quick)


@dataclass
class _State:
    """What changes from step to step."""

    step: int
    weights: dict[str, nn.Parameter]
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    pending: list[dict[str, Tensor | float]]
    """Figures of the steps since the last line of the curve."""


class _Run:
    """One stage of a training."""

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        out: Path,
        pipeline: MiragePipeline,
        batches: Batches,
        accelerator: Accelerator,
    ):
        self.recipe, self.number, self.stage = recipe, number, recipe.stages[number]
        self.folder, self.samples = out / f"{number + 1}-{self.stage.train}", out / "samples"
        self.pipeline, self.batches, self.accelerator = pipeline, batches, accelerator
        self.checkpoints = Checkpoints(self.folder / "state", recipe.log.keep)
        self.curve = self.folder / "log.jsonl"
        share = self.stage.batch // accelerator.num_processes
        self.first = accelerator.process_index * share
        self.micro = min(self.stage.micro_batch or share, share)
        self.groups = share // self.micro
        self.cut = recipe.compute.parallel == "fsdp" and accelerator.num_processes > 1

    def go(self, stop_after: float | None) -> bool:
        """Train the stage, or take its result if it is done; False if it was stopped by the clock."""
        net = self.pipeline.transformer
        kinds = {name: weight.dtype for name, weight in net.named_parameters()}
        weights = models.open_stage(net, self.stage, self.recipe.seed)
        done = self.folder / "weights.safetensors"
        whole = True
        if not done.is_file():
            whole = self._train(net, list(weights), stop_after)
        net = self.pipeline.transformer  # whole again, if it was spread over processes
        if whole:
            trained = load_file(done)
            with torch.no_grad():
                for name, weight in net.named_parameters():
                    if name in trained:
                        weight.data = trained[name].to(weight.device, kinds.get(name, torch.float32))
        net.requires_grad_(False).eval()
        return whole

    def _train(self, net: MirageTransformer, names: list[str], stop_after: float | None) -> bool:
        if self.recipe.compute.gradient_checkpointing:
            net.enable_gradient_checkpointing()
        net.train()
        model = self._spread(Trained(net, self.recipe.compute.precision))
        state = self._begin(net, names)
        steps, log, begun, first = self.stage.steps, self.recipe.log, time.monotonic(), state.step
        logger.info(
            "%s: %.2f of %.2f M weights, %d clips, %d processes, step %d of %d",
            self.folder.name,
            sum(p.numel() for p in state.weights.values()) / 1e6,
            sum(p.numel() for p in net.parameters()) / 1e6,
            len(self.batches),
            self.accelerator.num_processes,
            state.step,
            steps,
        )
        stopped = late = False
        with stop_politely() as asked:
            while state.step < steps and not (stopped or late):
                state.pending.append(self._step(model, state))
                if state.step % log.every == 0 or state.step == steps:
                    self._tell(state, (time.monotonic() - begun) / (state.step - first))
                late = stop_after is not None and time.monotonic() - begun > stop_after
                stopped, late = self._agree(bool(asked), late)
                if state.step % log.save_every == 0 or state.step == steps or stopped or late:
                    self._save(state)
                if log.sample_every and (state.step % log.sample_every == 0 or state.step == steps):
                    self._show(model, state)
        if stopped:
            where = f"step {state.step} of {steps} of {self.folder.name} is saved"
            raise KeyboardInterrupt(f"{where}; the same command goes on")
        if state.step < steps:
            return False
        average = {name: _whole(tensor) for name, tensor in state.average.items()}
        if self.accelerator.is_main_process:
            save_atomic({name: tensor.cpu().contiguous() for name, tensor in average.items()}, self._done)
            self.checkpoints.clear()
        self.accelerator.wait_for_everyone()
        if self.cut:
            self._gather(net)
        return True

    @property
    def _done(self) -> Path:
        return self.folder / "weights.safetensors"

    def _spread(self, model: Trained) -> nn.Module:
        """The model over the processes."""
        if not self.cut:
            return self.accelerator.prepare_model(model)
        model.to(self.accelerator.device)
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        for part in model.modules():
            if isinstance(part, MirageBlock):
                fully_shard(part, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    def _gather(self, net: MirageTransformer) -> None:
        """Whole weights in place of parts, for what comes after."""
        whole = {name: _whole(weight).cpu() for name, weight in net.named_parameters()}
        with torch.device("meta"):
            fresh = MirageTransformer.from_config(net.config)
        models.open_stage(fresh, self.stage, self.recipe.seed)
        fresh.load_state_dict(whole, assign=True)
        self.pipeline.register_modules(transformer=fresh)

    def _begin(self, net: MirageTransformer, names: list[str]) -> _State:
        """New, or from the last whole checkpoint."""
        everything = dict(net.named_parameters())
        weights = {name: everything[name] for name in names}
        stage = self.stage
        optimizer = torch.optim.AdamW(
            weights.values(),
            lr=stage.lr,
            betas=stage.betas,
            weight_decay=stage.weight_decay,
            fused=next(iter(weights.values())).is_cuda,
        )
        average = {name: weight.detach().clone() for name, weight in weights.items()}
        state = _State(0, weights, average, optimizer, [])
        found = self.checkpoints.latest()
        if found is not None:
            state.step, state.pending = found.step, found.about["pending"]
            _restore(state, found.tensors)
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            lines = self.curve.read_text().splitlines() if self.curve.exists() else []
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= state.step]
            with atomic(self.curve) as aside:
                aside.write_text("".join(line + "\n" for line in kept))
        return state

    def _step(self, model: nn.Module, state: _State) -> dict[str, Tensor]:
        """One step of the optimiser; its figures, the same on all processes."""
        device, sums = self.accelerator.device, {}
        for group in state.optimizer.param_groups:
            group["lr"] = self.stage.rate(state.step)
        state.optimizer.zero_grad(set_to_none=True)
        for i in range(self.groups):
            first = self.first + i * self.micro
            batch = self.batches.draw(self.number, state.step, first, first + self.micro, device=device)
            with self._quiet(model, quiet=i < self.groups - 1):
                loss, figures = model(lambda net, batch=batch: flow_loss(net, batch))
                (loss / self.groups).backward()
            for key, value in {"loss": loss.detach(), **figures}.items():
                sums[key] = sums.get(key, 0) + value.float() / self.groups
        norm = nn.utils.clip_grad_norm_(state.weights.values(), self.stage.clip)
        state.optimizer.step()
        state.step += 1
        decay = min(self.stage.ema, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            local = lambda tensors: [_local(x.detach()) for x in tensors.values()]
            torch._foreach_lerp_(local(state.average), local(state.weights), 1 - decay)
        sums["norm"] = _whole(norm)
        if self.accelerator.num_processes > 1:
            joined = self.accelerator.reduce(torch.stack(list(sums.values())), "mean")
            sums = dict(zip(sums, joined, strict=True))
        return sums

    @contextlib.contextmanager
    def _quiet(self, model: nn.Module, *, quiet: bool) -> Iterator[None]:
        """Gradients stay at home until the last group of a step."""
        if self.cut:
            model.set_requires_gradient_sync(not quiet)
            yield
        else:
            with self.accelerator.no_sync(model) if quiet else contextlib.nullcontext():
                yield

    def _tell(self, state: _State, seconds: float) -> None:
        self._check(state)
        figures = [{k: float(v) for k, v in step.items()} for step in state.pending]
        means = {key: sum(step[key] for step in figures) / len(figures) for key in figures[0]}
        for key, share in (("seen", means["known"]), ("unseen", 1 - means["known"])):
            part = means.pop(key)
            if share > 1e-6:
                means[key] = part / share
        state.pending.clear()
        if not self.accelerator.is_main_process:
            return
        line = {"step": state.step, "lr": self.stage.rate(state.step - 1), **means, "s_per_step": round(seconds, 4)}
        with self.curve.open("a") as file:
            file.write(json.dumps(line) + "\n")
        told = ", ".join(f"{key} {value:.4g}" for key, value in means.items())
        left = _clock(seconds * (self.stage.steps - state.step))
        logger.info(
            "%s step %d of %d: %s; lr %.3g, %.3g s a step, %s left",
            self.folder.name,
            state.step,
            self.stage.steps,
            told,
            line["lr"],
            seconds,
            left,
        )
        before = sum(stage.steps for stage in self.recipe.stages[: self.number])  # wandb drops steps that go back
        figures = {f"{self.folder.name}/{k}": v for k, v in line.items() if k != "step"}
        self.accelerator.log(figures, step=before + state.step)

    def _check(self, state: _State) -> None:
        """A run that has gone astray is not saved."""
        if not all(math.isfinite(float(step["norm"])) for step in state.pending):
            raise ValueError(
                f"the gradient is not finite at step {state.step} of {self.folder.name}: a smaller lr may help; the "
                "last checkpoint is from before"
            )

    def _agree(self, *flags: bool) -> list[bool]:
        """What any process wants, all do."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        asked = torch.tensor([float(flag) for flag in flags], device=self.accelerator.device)
        return [bool(x) for x in self.accelerator.reduce(asked, "sum") > 0]

    def _save(self, state: _State) -> None:
        tensors = {}
        self._check(state)
        for name, weight in state.weights.items():
            slot = state.optimizer.state[weight]
            parts = {"weight": weight, "average": state.average[name]}
            parts |= {part: slot[part] for part in ("exp_avg", "exp_avg_sq")}
            for part, tensor in parts.items():
                whole = _whole(tensor.detach())
                if self.accelerator.is_main_process:
                    tensors[f"{part}/{name}"] = whole.cpu().contiguous()
        if self.accelerator.is_main_process:
            pending = [{k: float(v) for k, v in step.items()} for step in state.pending]
            self.checkpoints.save(state.step, tensors, {"pending": pending})
        self.accelerator.wait_for_everyone()

    def _show(self, model: nn.Module, state: _State) -> None:
        """A chunk under the averaged weights, as picture and video."""
        batch = self.batches.draw(len(self.recipe.stages), 0, 0, 1, device=self.accelerator.device)
        kept = {name: weight.detach().clone() for name, weight in state.weights.items()}
        with torch.no_grad():
            for name, weight in state.weights.items():
                weight.copy_(state.average[name])
            model.eval()
            path = self.samples / f"{self.folder.name}-{state.step:08}" if self.accelerator.is_main_process else None
            show(model, self.pipeline, batch, path, seed=self.recipe.seed)
            model.train()
            for name, weight in state.weights.items():
                weight.copy_(kept[name])
        self.accelerator.wait_for_everyone()


def _accelerator(recipe: Recipe, out: Path, device: str) -> Accelerator:
    tracker = recipe.log.tracker
    if tracker == "wandb" and not is_wandb_available():
        raise ValueError("log.tracker wandb needs the package wandb: pip install wandb, or take tensorboard")
    if tracker == "tensorboard" and not is_tensorboard_available():
        raise ValueError("log.tracker tensorboard needs its package: pip install tensorboard, or say none")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or auto, got {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda is asked for, but PyTorch finds no such card here: take auto or cpu")
    where = {} if tracker == "none" else {"log_with": tracker, "project_dir": str(out)}
    cpu = device == "cpu" or not torch.accelerator.is_available()  # accelerate joins no group on a CPU unless told
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", **where)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise ValueError(
            f"{started} processes were started (WORLD_SIZE), but on {accelerator.device} each would train alone: start "
            "one, or take --device cpu"
        )
    return accelerator


def _check_processes(recipe: Recipe, processes: int) -> None:
    for i, stage in enumerate(recipe.stages):
        if stage.batch % processes:
            raise ValueError(
                f"stages.{i}.batch must be a multiple of the {processes} processes, got {stage.batch}: start fewer, or "
                "take a larger batch"
            )
        share = stage.batch // processes
        if stage.micro_batch is not None and share % min(stage.micro_batch, share):
            raise ValueError(
                f"stages.{i}.micro_batch must divide the {share} samples of a process, got {stage.micro_batch}"
            )


def _refuse_another(recipe: Recipe, out: Path) -> None:
    """A folder that was begun with another recipe is not gone on with."""
    path = out / RECIPE
    if path.is_file():
        changed = [line for line in differences(read_config(Recipe, path), recipe) if line[:4] not in ("log.", "abou")]
        if changed:
            raise ValueError(
                f"{out} was begun with another recipe ({changed[0]}): take another --out, or the settings of {path}"
            )


def _batches(recipe: Recipe, pipeline: MiragePipeline, sets: list[Shards], device: torch.device) -> Batches:
    reader = Reader(
        pipeline.codec,
        pipeline.conditions,
        chunk=pipeline.codec.latent_frames(pipeline.config["chunk_frames"]),
        references=pipeline.config["reference_frames"],
        store=recipe.store,
        mover=pipeline.mover,
        conditions=recipe.conditions,
        device=device,
    )
    return Batches(sets, reader, recipe, _embedder(pipeline))


def _shards(recipe: Recipe, pipeline: MiragePipeline) -> list[Shards]:
    """The data, if its latents are those of the model's autoencoder."""
    codec = pipeline.codec
    mine = {name: getattr(codec, name) for name in ("channels", "stride", "temporal_stride")}
    mark, sets = fingerprint(pipeline.vae), []
    for folder in recipe.data:
        one = Shards(folder)
        theirs = one.manifest["codec"]
        wrong = [f"{name} {theirs[name]}, not {value}" for name, value in mine.items() if theirs.get(name) != value]
        if wrong or theirs["fingerprint"] != mark:
            what = ", ".join(wrong) or "other weights"
            raise ValueError(
                f"data {folder} holds latents of {theirs['name']} ({what}), but the model is {recipe.model.base}: "
                f"prepare it again with --model {recipe.model.base}, or train that model"
            )
        if not len(one):
            raise ValueError(f"data {folder} holds no clip: prepare it from a source that has some")
        sets.append(one)
    return sets


def _embedder(pipeline: MiragePipeline) -> Callable[[str], Tensor] | None:
    """Captions as the transformer reads them, the latest kept."""
    dim = pipeline.transformer.config.text_dim
    if not dim:
        return None
    kept: dict[str, Tensor] = {}

    def embed(caption: str) -> Tensor:
        if pipeline.text_encoder is None:
            return null_context(1, dim)[0]
        if caption not in kept:
            kept[caption] = encode_prompts(pipeline.tokenizer, pipeline.text_encoder, [caption])[0]
            if len(kept) > 256:
                kept.pop(next(iter(kept)))
        return kept[caption]

    return embed


def _restore(state: _State, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in state.weights.items():
            like = lambda part, name=name, weight=weight: _spread_like(tensors[f"{part}/{name}"], weight)
            weight.copy_(like("weight"))
            state.average[name].copy_(like("average"))
            slot = {part: like(part) for part in ("exp_avg", "exp_avg_sq")}
            done = torch.tensor(float(state.step), device=weight.device if weight.is_cuda else "cpu")
            state.optimizer.state[weight] = {"step": done, **slot}


def _spread_like(tensor: Tensor, weight: Tensor) -> Tensor:
    tensor = tensor.to(weight.device)
    if isinstance(weight, DTensor):
        return distribute_tensor(tensor, weight.device_mesh, weight.placements)
    return tensor


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
