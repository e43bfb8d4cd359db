"""Stage 2: the transformer learns to turn what the memory reads, and noise, into the true next latents."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mirage.denoise.conditioning import Conditioning
from mirage.denoise.flow import add_noise, prior_of, to_clean
from mirage.denoise.sampler import run_transformer
from mirage.denoise.transformer import MirageTransformer
from mirage.training.fit import generator
from mirage.training.samples import CHUNK, Samples, read_samples

PRECEDING = 2


class SampleShards:
    """Shards of samples, kept in memory once read; the shard of a step depends on the step alone."""

    def __init__(self, folder: Path, seed: int = 0, *, device: torch.device | str = "cpu"):
        self.paths = sorted(folder.glob("samples-*.safetensors"))
        if not self.paths:
            raise ValueError(f"no samples in {folder}; encode some clips first")
        self.seed, self.device = seed, device
        self._read: dict[Path, Samples] = {}

    def draw(self, step: int, count: int = 1) -> tuple[Samples, torch.Generator]:
        """Clips of `count` shards of one size, and a generator for what else is random in the step (on the device)."""
        choice = generator(self.seed, step)
        pick = lambda paths: paths[int(torch.randint(len(paths), (), generator=choice))]
        chosen = [self._load(pick(self.paths))]
        size = chosen[0].video.shape[-2:]
        while len(chosen) < count:
            more = self._load(pick(self.paths))
            chosen += [more] if more.video.shape[-2:] == size else []
        names = Samples.__dataclass_fields__
        joined = chosen[0] if count == 1 else Samples(**{n: torch.cat([getattr(c, n) for c in chosen]) for n in names})
        return joined, generator(self.seed + 1, step, device=self.device)

    def _load(self, path: Path) -> Samples:
        if path not in self._read:
            self._read[path] = Samples(**{k: v.to(self.device) for k, v in vars(read_samples(path)).items()})
        return self._read[path]


def chunk_batch(samples: Samples, g: torch.Generator, choice: torch.Generator) -> tuple[Tensor, Conditioning]:
    """The same chunk of every clip, under the conditions of inference, imperfect as they are there.

    What was imagined before comes back with errors: remembered latents that are not observed, preceding and reference
    frames and the shared frame get noise of a random size; now and then a part of the memory is missing.

    Args:
        samples: Clips and their reads.
        g: Source of noise, on the device of the samples.
        choice: Source of choices, on the CPU.

    Returns:
        The true video latents of the chunk's frames ("b n c h w"), and its conditions.
    """
    pick = lambda n: int(torch.randint(n, (), generator=choice))
    rough = lambda x, size: x + size * _per_clip(x, g) * torch.randn(x.shape, generator=g, device=x.device)
    chunks = samples.features.shape[1]
    k = pick(chunks)
    start = k * (CHUNK - 1)
    target = samples.video[:, start : start + CHUNK].float()
    features, visible = samples.features[:, k].float(), samples.visible[:, k]
    features = torch.where(samples.observed[:, k, :, None], features, rough(features, 0.25))
    if pick(3) == 0:
        visible = visible & ~_rectangle(visible, g)
    first = samples.image[:, start : start + 1].float()
    conditions = {"features": features * visible[:, :, None], "visible": visible, "first": first}
    if k:
        conditions["first"] = rough(first, 0.1)
        conditions["preceding"] = rough(samples.video[:, start - PRECEDING : start].float(), 0.1)
        count = (0, 1, 2, 2)[pick(4)]
        if count:
            index = samples.recalled[:, k, :count].clamp(min=0)
            rows = torch.arange(len(index), device=index.device)[:, None]
            conditions["reference"] = rough(samples.image[rows, index].float(), 0.1)
    return target, Conditioning(**conditions)


def denoiser_loss(
    model: MirageTransformer, target: Float[Tensor, "b n c h w"], conditions: Conditioning, g: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of the clean latents, one noise level per sample, the first frame outside the loss.

    Four samples of five start from pure noise, which is all that a single step ever sees.

    Args:
        model: The denoiser.
        target: True video latents.
        conditions: Of the same chunk.
        g: Source of noise.

    Returns:
        The loss, and figures: the error where the memory sees and where it does not, and that of the memory alone.
    """
    b = len(target)
    u = torch.rand(b, generator=g, device=target.device)
    sigma = torch.where(torch.rand(b, generator=g, device=target.device) < 0.8, 1.0, 3 * u / (1 + 2 * u))
    noise = torch.randn(target.shape, generator=g, device=target.device)
    noisy = add_noise(target, noise, sigma)
    prior = prior_of(conditions.features, conditions.visible)
    output = run_transformer(model, noisy, 1000 * sigma, conditions)
    clean = to_clean(output.float(), noisy, sigma, prior, prediction=model.config.prediction)
    error = (clean - target)[:, 1:].square().mean(2)
    with torch.no_grad():
        seen = conditions.visible[:, 1:].float()
        known = (prior - target)[:, 1:].square().mean(2)
        mean = lambda x, mask: (x * mask).sum() / mask.sum().clamp(min=1)
        figures = {"seen": mean(error, seen), "unseen": mean(error, 1 - seen), "memory": mean(known, seen)}
    return error.mean(), figures


def _per_clip(x: Tensor, g: torch.Generator) -> Tensor:
    return torch.rand(len(x), *[1] * (x.ndim - 1), generator=g, device=x.device)


def _rectangle(visible: Tensor, g: torch.Generator) -> Tensor:
    """A random rectangle of each clip's cells, the same in all its frames but the first."""
    b, n, h, w = visible.shape
    low, high = torch.rand(2, b, 2, generator=g, device=visible.device).sort(0)[0]
    y = (torch.arange(h, device=visible.device) + 0.5) / h
    x = (torch.arange(w, device=visible.device) + 0.5) / w
    rows = (y > low[:, :1]) & (y < high[:, :1])
    cols = (x > low[:, 1:]) & (x < high[:, 1:])
    block = (rows[:, None, :, None] & cols[:, None, None, :]).expand(b, n, h, w).clone()
    block[:, 0] = False
    return block
