"""What a training sees: the loop's own reads, imperfect by the recipe, the same whatever process makes them."""

from dataclasses import fields, replace

import pytest
import torch
from toy_training import recipe_of, write_shards

from mirage.dataset.shards import Shards
from mirage.denoise.conditioning import Conditioning
from mirage.memory import LatentMemory, recall
from mirage.pipeline import MiragePipeline
from mirage.training.batches import Batches
from mirage.training.fit import generator
from mirage.training.reads import Cache, Reader, Reads
from mirage.training.recipe import Conditions, Noise, Store

PERFECT = {"first_depth_exact": 1.0, "depth_error": 0.0, "reencoded": 0.0, "written_noise": 0.0, "read_noise": 0.0}
PERFECT |= {"first_noise": 0.0, "preceding_noise": 0.0, "reference_noise": 0.0, "holes": 0.0, "fewer": 0.0}


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return MiragePipeline.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def shards(tiny_model, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", tiny_model, clips=3)


def batches_of(pipeline, shards, conditions=None, store=None, embed=None, **more) -> Batches:
    recipe = recipe_of("tiny", shards, **more)
    recipe = replace(recipe, conditions=conditions or Conditions(), store=store or Store())
    reader = Reader(
        pipeline.codec, pipeline.conditions, chunk=3, references=2, store=recipe.store, conditions=recipe.conditions
    )
    return Batches([Shards(shards)], reader, recipe, embed)


def test_perfect_conditions_are_what_the_memory_reads(pipeline, shards):
    clip = Shards(shards)[0]
    reads = batches_of(pipeline, shards, Conditions(**PERFECT)).reader.read(clip, generator(0))
    memory = LatentMemory.from_view(clip.image[:1], clip.depth[:1], clip.cameras[0], keep=clip.keep[:1])
    for k, start in enumerate((0, 2)):
        targets, later = clip.cameras[start : start + 3], slice(start + 1, start + 3)
        known = memory.read(targets)
        assert torch.equal(reads.features[k], known.features.half()) and torch.equal(reads.visible[k], known.visible)
        assert torch.equal(reads.observed[k], known.observed)
        if start:
            points = targets.unproject(known.depth)[known.visible]
            found = recall(points, clip.cameras[:3], clip.depth[:3], k=2)[0]
            assert len(found) and torch.equal(reads.recalled[k][: len(found)], found)
        memory.update(clip.image[later], clip.depth[later], clip.cameras[later], keep=clip.keep[later])
    assert torch.equal(reads.held, clip.image.half()) and (reads.recalled[0] == -1).all()


def test_reencoded_frames_are_those_of_the_loop(pipeline, shards):
    clip = Shards(shards)[1]
    reads = batches_of(pipeline, shards, Conditions(**PERFECT | {"reencoded": 1.0})).reader.read(clip, generator(0))
    with torch.no_grad():
        frames = pipeline.codec.decode(torch.cat([clip.image[:1], clip.video[1:3]])[None])[0].clamp(-1, 1)
        again = pipeline.codec.encode(frames[4::4][:, None])[:, 0]
    assert torch.equal(reads.held[1:3], again.half()) and torch.equal(reads.held[:1], clip.image[:1].half())


def test_a_step_is_the_same_however_it_is_shared(pipeline, shards):
    batches = batches_of(pipeline, shards)
    for step in range(6):
        whole, halves = batches.draw(0, step, 0, 4), [batches.draw(0, step, n, n + 2) for n in (0, 2)]
        for name in ("target", "noise", "sigma"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(half, name) for half in halves]))
        for f in fields(Conditioning):
            value = getattr(whole.conditions, f.name)
            if value is not None:
                assert torch.equal(value, torch.cat([getattr(half.conditions, f.name) for half in halves]))
    assert not torch.equal(batches.draw(0, 0, 0, 1).noise, batches.draw(0, 1, 0, 1).noise)
    assert not torch.equal(batches.draw(0, 0, 0, 1).noise, batches.draw(1, 0, 0, 1).noise)


def test_every_number_of_preceding_and_reference_frames_comes(pipeline, shards):
    batches, seen, first = batches_of(pipeline, shards, Conditions(fewer=0.5, variants=1)), set(), []
    for step in range(80):
        c = batches.draw(0, step, 0, 1).conditions
        count = lambda frames: 0 if frames is None else frames.shape[1]
        seen.add((count(c.preceding), count(c.reference)))
        assert (c.features * ~c.visible[:, :, None] == 0).all()
        if c.preceding is None and c.reference is None:
            first.append(c.first)
    assert seen == {(p, r) for p in range(3) for r in range(3)}
    clean = [clip.image[0] for clip in Shards(shards)]
    exact = [any(torch.equal(one[0, 0], picture) for picture in clean) for one in first]
    assert any(exact), "the first view is given: it is never noisy"


def test_noise_levels_are_one_per_sample_and_follow_the_shift(pipeline, shards):
    def many(noise: dict) -> torch.Tensor:
        batches = batches_of(pipeline, shards, Conditions(**PERFECT), noise=noise)
        return torch.cat([batches.draw(0, step, 0, 8).sigma for step in range(12)])

    assert (many({"shift": 3.0, "pure": 1.0}) == 1).all()
    even, shifted = many({"shift": 1.0}), many({"shift": 5.0})
    assert torch.allclose(shifted, 5 * even / (1 + 4 * even)) and 0.35 < even.mean() < 0.65
    assert Noise().shift == 5.0


def test_captions_are_embedded_and_dropped(pipeline, shards):
    told = []

    def embed(caption: str) -> torch.Tensor:
        told.append(caption)
        return torch.full((1 + len(caption) // 4, 3), float(len(caption)))

    batch = batches_of(pipeline, shards, Conditions(prompt_dropout=0.5), embed=embed).draw(0, 0, 0, 16)
    assert set(told) == {"", "a room"} and batch.conditions.context.shape == (16, 2, 3)
    assert (batch.conditions.context[:, 1].abs().sum(1) > 0).tolist() == [caption != "" for caption in told]


@pytest.mark.parametrize(
    "store", [Store(kind="colour"), Store(kind="none"), Store(read="nearest"), Store(movers=True, budget_kib=64)]
)
def test_every_kind_of_memory_can_be_trained_with(pipeline, shards, store):
    batch = batches_of(pipeline, shards, Conditions(variants=1), store=store).draw(0, 1, 0, 2)
    assert batch.conditions.visible.any() == (store.kind != "none")


def test_the_cache_keeps_its_bound():
    def reads(size: int) -> Reads:
        x = torch.zeros(1, 1, 1, 1, size)
        none = torch.zeros(1, 1, 1, size, dtype=torch.bool)
        frames = {"video": x[0], "held": x[0], "caption": "", "recalled": torch.zeros(1, 0, dtype=torch.int64)}
        return Reads(**frames, features=x, visible=none, observed=none, second=(None,))

    made = []
    cache = Cache(3.5 * reads(100).nbytes)
    for key in (0, 1, 2, 0, 3, 1, 0):
        cache.get(key, lambda key=key: made.append(key) or reads(100))
        assert cache.held <= cache.limit
    assert made == [0, 1, 2, 3, 1]
