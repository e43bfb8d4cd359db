"""Batches from shards: a sample depends on (seed, stage, step, its number) alone, whatever process makes it."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mirage.dataset.shards import DamagedClip, Shards
from mirage.denoise.conditioning import Conditioning
from mirage.training.fit import generator
from mirage.training.loss import Batch
from mirage.training.reads import Cache, Reader, Reads
from mirage.training.recipe import Recipe

logger = logging.getLogger(__name__)


class Batches:
    """The samples of every step.

    All samples of a step are of one size, one chunk and as many frames of each kind, so that they are one tensor and do
    not depend on how many processes share them.

    Args:
        shards: Where clips come from.
        reader: Makes the memory's reads.
        recipe: What goes wrong, how often; and the noise.
        embed: Gives the embedding of a caption; None for a model without text.

    Raises:
        ValueError: If no clip is as long as a chunk.
    """

    def __init__(
        self,
        shards: Sequence[Shards],
        reader: Reader,
        recipe: Recipe,
        embed: Callable[[str], Float[Tensor, "l d"]] | None = None,
    ):
        self.shards, self.reader, self.recipe, self.embed = list(shards), reader, recipe, embed
        self._cache = Cache(recipe.compute.cache_gib * 2.0**30)
        self._clips = [(s, i) for s, one in enumerate(self.shards) for i in range(len(one))]
        sizes: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for n, (s, i) in enumerate(self._clips):
            record = self.shards[s].record(i)
            sizes[record.latent_frames, record.height, record.width].append(n)
        self._alike = {size: clips for size, clips in sizes.items() if size[0] >= reader.chunk}
        self._usable = [n for clips in self._alike.values() for n in clips]
        self._size = {n: size for size, clips in self._alike.items() for n in clips}
        if not self._usable:
            longest, held = (
                max((size[0] for size in sizes), default=0),
                ", ".join(str(one.folder) for one in self.shards),
            )
            raise ValueError(
                f"data must hold clips of {reader.chunk} latent frames, a chunk of the model, but "
                f"{held} holds {len(self._clips)} clips of at most {longest}"
            )
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self._usable)

    def draw(self, stage: int, step: int, first: int, last: int, *, device: torch.device | str = "cpu") -> Batch:
        """Some of the samples of a step.

        Args:
            stage: Number of the stage.
            step: Number of the step in it.
            first: Number of the first sample.
            last: One past the last.
            device: Where they shall be.

        Returns:
            The samples.
        """
        seed, c = self.recipe.seed, self.recipe.conditions
        choice = generator(seed, stage, step)
        pick = lambda n: int(torch.randint(n, (), generator=choice))
        size = self._size[self._usable[pick(len(self._usable))]]
        starts = self.reader.starts(size[0])
        k = pick(len(starts))
        preceding = min(starts[k], self.reader.branch.preceding)
        if preceding and bool(torch.rand((), generator=choice) < c.fewer):
            preceding = pick(preceding)
        most = self.reader.references if k else 0
        references = min(pick(most + 2), most) if most else 0  # as many as there are twice as often
        samples = []
        for i in range(first, last):
            g = generator(seed + 1, stage, step, i)
            samples.append(self._imperfect(self._sample(size, g), k, preceding, references, g))
        join = lambda name: torch.stack([s[name] for s in samples]).to(device)
        there = [name for name in samples[0] if name not in ("target", "noise", "sigma", "caption")]
        given = {name: join(name) for name in there}
        if self.embed is not None:
            texts = [self.embed(s["caption"]) for s in samples]
            longest = max(len(text) for text in texts)
            pad = lambda text: torch.cat([text, text.new_zeros(longest - len(text), text.shape[1])])
            given["context"] = torch.stack([pad(text) for text in texts]).to(device)
        return Batch(target=join("target"), noise=join("noise"), sigma=join("sigma"), conditions=Conditioning(**given))

    def _sample(self, size: tuple[int, int, int], g: torch.Generator) -> Reads:
        """The reads of a clip of a size; a damaged one is told of once, and another taken."""
        clips, c = self._alike[size], self.recipe.conditions
        while True:
            number = clips[int(torch.randint(len(clips), (), generator=g))]
            variant = int(torch.randint(c.variants, (), generator=g))
            try:
                return self._read(number, variant)
            except DamagedClip as error:
                if number not in self._damaged:
                    logger.warning("%s; it is left out", error)
                    self._damaged.add(number)
                if self._damaged.issuperset(clips):
                    raise ValueError(f"all clips of one size are damaged: {error}") from error

    def _read(self, number: int, variant: int) -> Reads:
        shard, place = self._clips[number]
        make = lambda: self.reader.read(self.shards[shard][place], generator(self.recipe.seed + 2, number, variant))
        return self._cache.get((number, variant), make)

    def _imperfect(
        self, reads: Reads, k: int, preceding: int, references: int, g: torch.Generator
    ) -> dict[str, Tensor]:
        """One sample: a chunk under conditions as imperfect as the loop's."""
        c = self.recipe.conditions
        start = self.reader.starts(len(reads.video))[k]
        uniform = lambda: float(torch.rand((), generator=g))
        rough = lambda x, size: x + size * uniform() * torch.randn(x.shape, generator=g).to(x)
        target = reads.video[start : start + self.reader.chunk].float()
        features, visible = reads.features[k].float(), reads.visible[k]
        features = torch.where(reads.observed[k, :, None], features, rough(features, c.read_noise))
        if uniform() < c.holes:
            visible = visible & ~rectangle(visible, g)
        first = reads.held[start : start + 1].float()
        sample = {
            "target": target,
            "features": features * visible[:, None],
            "visible": visible,
            "first": rough(first, c.first_noise) if k else first,
        }
        if preceding:
            past = reads.video[start - preceding : start].float()
            sample["preceding"] = rough(past, c.preceding_noise)
        if references:
            best = [int(i) for i in reads.recalled[k] if i >= 0] or [0]
            sample["reference"] = rough(
                reads.held[[best[i % len(best)] for i in range(references)]].float(), c.reference_noise
            )
        if reads.second[k] is not None:
            sample["second"] = reads.second[k][: len(target) + preceding].float()
        noise, u = self.recipe.noise, uniform()
        pure = uniform() < noise.pure
        sample["sigma"] = torch.tensor(1.0 if pure else noise.shift * u / (1 + (noise.shift - 1) * u))
        sample["noise"] = torch.randn(target.shape, generator=g)
        sample["caption"] = "" if uniform() < c.prompt_dropout else reads.caption
        return sample


def rectangle(visible: Bool[Tensor, "n h w"], g: torch.Generator) -> Bool[Tensor, "n h w"]:
    """A random rectangle of cells, the same in all frames but the first.

    Args:
        visible: Cells, of which only the shape matters.
        g: Source of it, on the CPU.

    Returns:
        True inside.

    Example:
        >>> hole = rectangle(torch.ones(3, 4, 6, dtype=torch.bool), torch.Generator().manual_seed(0))
        >>> bool(hole[0].any()), bool((hole[1] == hole[2]).all())
        (False, True)
    """
    n, h, w = visible.shape
    low, high = torch.rand(2, 2, generator=g).sort(0)[0]
    y, x = (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w
    block = ((y > low[0]) & (y < high[0]))[:, None] & ((x > low[1]) & (x < high[1]))
    block = block.expand(n, h, w).clone()
    block[0] = False
    return block.to(visible.device)
