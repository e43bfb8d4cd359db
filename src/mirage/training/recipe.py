"""A recipe: all that decides what a training makes. Written as YAML, read strictly, kept beside the result."""

import math
from dataclasses import dataclass, field
from typing import Literal

LORA_LAYERS = ("q", "k", "v", "o", "ffn")


@dataclass(frozen=True, kw_only=True)
class NewTransformer:
    """A denoiser with new weights in place of the base's; channels and text width are the base's."""

    num_attention_heads: int = 4
    attention_head_dim: int = 40
    num_layers: int = 6
    ffn_dim: int = 640
    freq_dim: int = 128
    branch_every: int = 2
    """Every so many blocks one receives hints of the memory branch."""
    prediction: Literal["velocity", "residual"] = "velocity"

    def __post_init__(self) -> None:
        for name in ("num_attention_heads", "num_layers", "ffn_dim", "freq_dim", "branch_every"):
            _least(name, getattr(self, name), 1)
        if self.attention_head_dim < 6 or self.attention_head_dim % 2:
            raise ValueError(f"attention_head_dim must be even and at least 6, got {self.attention_head_dim}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    base: str = "nano"
    """"nano", a folder (ours or Wan's) or a name on the hub: codec, text encoder and backbone."""
    memory: str | None = None
    """Weights of a memory branch to begin with; without them a base that has none gets copies of its own blocks."""
    lora: str | None = None
    """Weights of a low-rank adapter that is merged before training begins."""
    branch_every: int = 4
    """For such copies: every so many blocks one receives hints (the paper's 4)."""
    new: NewTransformer | None = None
    """Throw the base's denoiser away and begin with a new one."""

    def __post_init__(self) -> None:
        _least("branch_every", self.branch_every, 1)


@dataclass(frozen=True, kw_only=True)
class Store:
    """The memory that the reads come from."""

    kind: Literal["latent", "colour", "none"] = "latent"
    read: Literal["gather", "nearest", "nearest-corner"] = "gather"
    """Of the latent memory."""
    movers: bool = False
    """Whether movers and sky are remembered too (the paper's row without a filter)."""
    budget_kib: int | None = None
    """Bound on its size."""

    def __post_init__(self) -> None:
        if self.budget_kib is not None:
            _least("budget_kib", self.budget_kib, 1)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How imperfect the conditions are, as in the loop. Sizes of noise are the largest; each draw is uniform."""

    variants: int = 2
    """How many differently imperfect memories there are of each clip."""
    first_depth_exact: float = 0.7
    """Share of memories whose first view has its depth as given; the others have it as wrong as an estimate."""
    first_depth_error: float = 0.08
    """Size of that error, as a smooth factor."""
    depth_error: float = 0.04
    """The same for all later views."""
    reencoded: float = 0.5
    """Share of memories whose later views are decoded from noisy video latents and encoded again, as the loop does."""
    written_noise: float = 0.1
    """Noise on video latents before they are decoded, or on what is remembered where nothing is decoded."""
    read_noise: float = 0.25
    """Noise on what is read of later views."""
    first_noise: float = 0.1
    """Noise on the clean first frame of all chunks but the first."""
    preceding_noise: float = 0.1
    """Noise on preceding frames (others use up to 0.05 against drift)."""
    reference_noise: float = 0.1
    """Noise on reference frames."""
    holes: float = 0.33
    """Share of samples in which a rectangle of the memory is missing."""
    fewer: float = 0.1
    """Share of steps with fewer preceding frames than there are."""
    prompt_dropout: float = 0.2
    """Share of samples without their caption, for a model that reads text."""

    def __post_init__(self) -> None:
        _least("variants", self.variants, 1)
        for name in ("first_depth_exact", "reencoded", "holes", "fewer", "prompt_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share, 0 to 1, got {getattr(self, name)}")
        for name in ("first_depth_error", "depth_error", "written_noise", "read_noise"):
            _least(name, getattr(self, name), 0)
        for name in ("first_noise", "preceding_noise", "reference_noise"):
            _least(name, getattr(self, name), 0)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Which noise levels are trained: one per sample, for all its target frames."""

    shift: float = 5.0
    """Of the schedule: sigma = shift u / (1 + (shift - 1) u) with u uniform."""
    pure: float = 0.0
    """Share of samples that start from pure noise, which is all that a single step ever sees."""

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise ValueError(f"shift must be positive, got {self.shift}")
        if not 0 <= self.pure <= 1:
            raise ValueError(f"pure must be a share, 0 to 1, got {self.pure}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training."""

    train: Literal["branch", "lora", "joint", "full"]
    """The memory branch alone; a low-rank adapter with all else frozen; both at once; or all weights."""
    steps: int
    """Steps of the optimiser."""
    lr: float
    """Learning rate after the warm-up."""
    batch: int = 64
    """Samples per step, over all processes."""
    micro_batch: int | None = None
    """Samples that a process takes at once, the rest of its share one after another; its whole share if None."""
    warmup: int = 100
    """Steps over which the rate rises from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up; a cosine ends at a fiftieth."""
    betas: tuple[float, float] = (0.0, 0.999)
    """Of AdamW."""
    weight_decay: float = 1e-3
    clip: float = 1.0
    """Greatest norm of the gradient."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that are used; 0 for none."""
    rank: int = 32
    """Of the adapter."""
    alpha: float = 32.0
    """Its scale is alpha / rank."""
    lora_on: tuple[Literal["q", "k", "v", "o", "ffn"], ...] = LORA_LAYERS
    """Layers of the backbone's blocks that it adapts."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "rank"):
            _least(name, getattr(self, name), 1)
        for name in ("lr", "clip", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay"):
            _least(name, getattr(self, name), 0)
        if self.micro_batch is not None:
            _least("micro_batch", self.micro_batch, 1)
            if self.batch % self.micro_batch:
                raise ValueError(f"micro_batch must divide batch {self.batch}, got {self.micro_batch}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {list(self.betas)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        if not self.lora_on:
            raise ValueError(f"lora_on must name layers of {', '.join(LORA_LAYERS)}, got none")

    def rate(self, step: int) -> float:
        """Learning rate of one step: linear warm-up, then as the schedule says."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How it is computed."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic; weights in training are float32. "auto": bfloat16 where the hardware is quick with it."""
    gradient_checkpointing: bool = False
    """Compute activations anew in the backward pass: a third more time, far less memory."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Over several processes: whole copies of the model, or parts of it (FSDP2)."""
    cache_gib: float = 2.0
    """Memory for reads that come again."""

    def __post_init__(self) -> None:
        _least("cache_gib", self.cache_gib, 0)


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is told and kept. These may change when a training is resumed."""

    every: int = 20
    """Steps between lines."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints that are kept."""
    sample_every: int = 0
    """Steps between sample videos; 0 for none."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"

    def __post_init__(self) -> None:
        for name in ("every", "save_every", "keep"):
            _least(name, getattr(self, name), 1)
        _least("sample_every", self.sample_every, 0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what a training makes."""

    stages: tuple[Stage, ...]
    about: str = ""
    """What it is for."""
    seed: int = 0
    """Of new weights, batches and noise."""
    data: tuple[str, ...] = ()
    """Folders of shards (`mirage prepare`)."""
    model: Model = field(default_factory=Model)
    store: Store = field(default_factory=Store)
    conditions: Conditions = field(default_factory=Conditions)
    noise: Noise = field(default_factory=Noise)
    compute: Compute = field(default_factory=Compute)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must hold at least one stage, got none")
        kinds = [stage.train for stage in self.stages]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"stages must train different things, got {', '.join(kinds)}")
        if any(kind in ("lora", "joint") for kind in kinds[:-1]):
            raise ValueError(f"stages must end with the one that trains an adapter, got {', '.join(kinds)}")
        _least("seed", self.seed, 0)


def _least(name: str, value: int | float, least: int | float) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
