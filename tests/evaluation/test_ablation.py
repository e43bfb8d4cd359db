"""Laws of the ablation: each row differs from the method in what it says, and in nothing else."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mirage.ablation_command import GIVEN, make_base, make_recipe
from mirage.ablation_command import TRAINED as TRAINED_BY_COMMAND
from mirage.camera.cameras import Cameras
from mirage.evaluation.ablation import (
    ROWS,
    Ablation,
    camera_error,
    evaluate,
    format_table,
    make_moving,
    make_video,
    moving_seeds,
    read_first,
    returns,
)
from mirage.evaluation.ablation_rows import (
    MOVING,
    STILL,
    TRAINED,
    NoisyDepth,
    OtherMask,
    PixelLatents,
    Pooled,
    TrueDepth,
    TrueMovers,
    pool_depth,
    punch,
)
from mirage.evaluation.worlds import HELD_OUT, make_walk
from mirage.geometry.depth import KnownDepth
from mirage.memory import LatentMemory
from mirage.pipeline import MiragePipeline

FAST = ("full", "none", "holes-ours", "holes-token-median", "filtered", "unfiltered")


@pytest.fixture(scope="module")
def config(tiny_model):
    return Ablation(model=str(tiny_model), rows=FAST, scenes=2, frames=17, size=(32, 48), sheets=1)


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    pipeline = MiragePipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def walk():
    return make_walk(HELD_OUT, 17, 32, 48)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation")
    return out, evaluate(config, out)


@pytest.fixture
def view(generator):
    """One view of 2 x 3 cells of 8 pixels, and its camera."""
    camera = Cameras.from_fov(1.0, 16, 24)
    return torch.randn(1, 4, 2, 3, generator=generator), torch.rand(1, 16, 24, generator=generator) + 2, camera


@pytest.mark.parametrize("pool", ["bilinear", "nearest", "area", "median"])
def test_pooling_keeps_a_wall_and_blends_what_is_unknown(pool):
    wall = torch.full((2, 12, 18), 3.0)
    assert torch.equal(pool_depth(wall, 2, 3, pool), torch.full((2, 2, 3), 3.0))
    wall[:, :6, :3] = 0.0  # half of the first cell is unknown
    first = pool_depth(wall, 2, 3, pool)[0, 0, 0].item()
    assert first == {"bilinear": 1.5, "nearest": 3.0, "area": 1.5, "median": 0.0}[pool], "1.5 is a phantom"


@pytest.mark.parametrize("known", [True, False])
def test_a_mask_that_says_nothing(view, known):
    latents, depth, camera = view
    memory = OtherMask.from_view(latents, depth, camera, known=known)
    plain = LatentMemory.from_view(latents, depth, camera)
    other, same = memory.read(camera), plain.read(camera)
    assert bool((other.visible == known).all()) and torch.equal(other.features, same.features)
    assert memory.nbytes == plain.nbytes and len(memory) == len(plain)


def test_pixels_hold_what_the_cells_held(view):
    latents, depth, camera = view
    memory = PixelLatents.from_view(latents, depth, camera)
    read = memory.read(camera)
    assert torch.allclose(read.features, latents, atol=1e-5) and bool(read.visible.all())
    assert len(memory) == 16 * 24 and memory.nbytes > 20 * LatentMemory.from_view(latents, depth, camera).nbytes


@pytest.mark.parametrize("name", ["pixels", "holes-bilinear", "mask-ones"])
def test_what_stands_around_a_memory_leaves_kept_states_alone(name, view):
    latents, depth, camera = view
    away = torch.eye(4)[None]
    away[0, 0, 3] = -2.0
    memory = ROWS[name].memory(latents, depth, camera)
    later = copy.copy(memory)
    later.update(latents + 1, depth, Cameras(camera.intrinsics, away, 16, 24))
    assert len(later) > len(memory) == len(ROWS[name].memory(latents, depth, camera))


def test_pooled_depth_is_what_is_remembered(view):
    latents, depth, camera = view
    pooled = Pooled.from_view(latents, depth, camera, pool="median", read="nearest")
    direct = LatentMemory.from_view(latents, pool_depth(depth, 2, 3, "median"), camera, read="nearest")
    assert torch.equal(pooled.read(camera).depth, direct.read(camera).depth)


def seen(walk, frames):
    """What an estimator is given of some frames."""
    return walk.colour[frames], torch.zeros(len(frames), 16, 4, 6), walk.cameras[frames]


def test_true_depth_knows_the_view_by_its_pose(walk):
    picked = [8, 4]
    depth = TrueDepth(walk.cameras, walk.depth).estimate(*seen(walk, picked))
    assert torch.equal(depth, walk.depth[picked])


def test_noise_is_smooth_centred_and_repeats(walk):
    depth = walk.depth[:4]
    views = seen(walk, [0, 1, 2, 3])
    noisy = lambda size, seed: NoisyDepth(KnownDepth(depth), size, seed).estimate(*views)
    assert torch.equal(noisy(0.0, 1), depth) and torch.equal(noisy(0.2, 1), noisy(0.2, 1))
    factor = (noisy(0.2, 1) / depth).log()
    assert not torch.equal(noisy(0.2, 1), noisy(0.2, 2)) and 0.05 < factor.std() < 0.4
    assert (factor[:, :, 1:] - factor[:, :, :-1]).abs().max() < 0.2 * 1.0


def test_true_masks_come_in_the_order_of_a_roll_out():
    masks = torch.arange(5).view(5, 1, 1) > 2
    movers = TrueMovers(masks)
    parts = [movers.keep(torch.zeros(n, 3, 1, 1)) for n in (1, 2, 2)]
    assert torch.equal(torch.cat(parts), ~masks)


def test_things_move_away_in_the_worlds_that_are_chosen(config):
    seeds = moving_seeds(HELD_OUT, 2, 17, 32, 48)
    assert len(seeds) == 2 and seeds[0] < seeds[1]
    moving = make_moving(seeds[0], 17, 32, 48)
    a1, _, a2, _, a3 = config.visits
    assert (moving.movers[a1] & ~moving.movers[[a2, a3]]).any()
    assert not (moving.walk.seen & moving.movers).any() and not (moving.walk.unseen & moving.movers).any()
    assert torch.equal(moving.walk.cameras.cam_from_world[a1], moving.walk.cameras.cam_from_world[a3])


def test_the_truth_itself_has_no_error(walk, config):
    assert camera_error(walk, walk.frames)["camera_px"] == 0
    figures = returns(walk, walk.frames, config.visits)
    assert figures["observed_psnr"] == figures["imagined_psnr"] == figures["seen_psnr"] == 60


def test_holes_are_counted_where_the_input_shows_the_cell(pipeline, walk):
    still = replace(walk, cameras=walk.cameras[[0] * 17], seen=np.ones_like(walk.seen), depth=walk.depth[[0] * 17])
    holes = lambda name, of: read_first(pipeline, of, ROWS[name])[1]
    assert holes("full", still)["empty"] == holes("colour", still)["empty"] == 0
    assert holes("mask-zeros", still)["empty"] == 100 and holes("none", walk) == {}


def test_unknown_depth_is_no_depth(pipeline):
    """Pooled like a picture, holes become points that are too near; ours leaves them out."""
    walk = make_walk(HELD_OUT, 33, 64, 96)
    misplaced = {
        n: read_first(pipeline, walk, ROWS[f"holes-{n}"])[1]["misplaced"] for n in ("ours", "bilinear", "area")
    }
    assert misplaced["ours"] < 1 < 5 < misplaced["bilinear"] < misplaced["area"]


def test_holes_are_as_large_as_they_are_said_to_be(walk):
    punched = punch(walk.depth[0], 0.15, 3)
    assert (punched == 0).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(punched[punched > 0], walk.depth[0][punched > 0])
    assert torch.equal(punched, punch(walk.depth[0], 0.15, 3))


def test_rows_differ_from_the_method(pipeline):
    """On a walk with latent frames between the visits, so that views overlap."""
    longer = make_walk(HELD_OUT, 33, 32, 48)
    first, about = make_video(pipeline, longer, ROWS["full"])
    assert 0 < about["covered"] < 100
    for name in ("colour", "pixels", "none", "nearest-corner", "mask-ones", "mask-zeros", "memory-only", "autoencoder"):
        video, about = make_video(pipeline, longer, ROWS[name])
        assert video.shape == first.shape and not np.array_equal(video, first), name
        assert np.isnan(about["memory_kib"]) == (name in ("none", "autoencoder"))


def test_a_budget_is_kept_by_its_row(pipeline):
    wide = make_walk(HELD_OUT, 17, 128, 128)
    kept = {name: make_video(pipeline, wide, ROWS[name])[1]["memory_kib"] for name in ("full", "budget-28")}
    assert kept["budget-28"] <= 28 < kept["full"]


def test_tables_have_all_rows_and_their_differences(whole):
    out, results = whole
    assert list(results["groups"]) == ["memory", "pool", "movers"]
    memory, pool = results["groups"]["memory"], results["groups"]["pool"]
    assert list(memory["rows"]) == ["full", "none"] and memory["reference"] == "full"
    assert list(pool["rows"]) == ["holes-ours", "holes-token-median"] and pool["reference"] == "holes-ours"
    assert pool["rows"]["holes-ours"]["imagined_psnr"]["mean"] is None, "reads imagine nothing"
    records = [json.loads(line) for line in (out / "still" / "results.jsonl").read_text().splitlines()[1:]]
    by = {(r["scene"], r["row"]): r for part in records for r in part}
    scenes = sorted({scene for scene, _ in by})
    each = [by[s, "none"]["seen_psnr"] - by[s, "full"]["seen_psnr"] for s in scenes]
    assert memory["differences"]["none"]["seen_psnr"]["mean"] == pytest.approx(np.mean(each))
    assert memory["rows"]["none"]["memory_kib"]["mean"] is None
    table = format_table(results)
    assert all(ROWS[row].title in table for row in FAST) and "nan" not in table
    assert (out / "table.md").is_file() and (out / "report.html").is_file()
    assert len(list(out.glob("sheet-*.png"))) == 2


def test_more_rows_are_added_to_what_is_there(whole, config, tmp_path):
    before = (whole[0] / "still" / "results.jsonl").read_text()
    told = []
    again = evaluate(replace(config, rows=("full", "none")), whole[0], on_scene=lambda *n: told.append(n))
    assert told == [(2, 2)] and (whole[0] / "still" / "results.jsonl").read_text() == before
    assert again["groups"]["memory"] == whole[1]["groups"]["memory"]


def test_trainings_of_a_row_are_averaged_scene_by_scene(config, tiny_model, tmp_path):
    """Two trainings that came to the same weights are the method itself."""
    given = replace(config, rows=("full", "two-stage"), scenes=1, trained={"two-stage": (str(tiny_model),) * 2})
    groups = evaluate(given, tmp_path)["groups"]
    full, trained = groups["memory"]["rows"]["full"], groups["training"]["rows"]["two-stage"]
    assert trained == full
    lines = (tmp_path / "still" / "results.jsonl").read_text().splitlines()
    assert [r["row"].partition("-")[0] for r in json.loads(lines[1])] == ["full", "two", "two"]


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"rows": ("ful",)}, "ful"),
        ({"rows": ()}, "none"),
        ({"rows": ("joint",)}, "trained must name a model of joint"),
        ({"scenes": 0}, "scenes"),
        ({"frames": 50}, "frames"),
    ],
)
def test_wrong_settings_are_refused(wrong, says, unchecked):
    with pytest.raises(ValueError, match=says):
        Ablation(**wrong)


def test_the_command_knows_all_rows():
    assert set(GIVEN) == set(STILL) | set(MOVING) and tuple(TRAINED) == TRAINED_BY_COMMAND


def test_trained_rows_begin_alike_and_have_as_many_steps(tiny_model, tmp_path):
    base = make_base(tmp_path / "base", str(tiny_model))
    bare, own = (MiragePipeline.from_pretrained(name).transformer for name in (base, tiny_model))
    assert not bare.config.vace_layers and own.config.vace_layers
    assert all(torch.equal(weight, own.state_dict()[key]) for key, weight in bare.state_dict().items())
    recipes = {row: make_recipe(row, 0, 10, "shards", base) for row in TRAINED}
    assert {sum(stage.steps for stage in r.stages) for r in recipes.values()} == {10}
    assert [stage.train for stage in recipes["joint"].stages] == ["joint"]
    assert [stage.train for stage in recipes["two-stage"].stages] == ["branch", "lora"]
    assert recipes["quiet"].stages == recipes["two-stage"].stages
    assert recipes["quiet"].conditions.preceding_noise == 0 < recipes["two-stage"].conditions.preceding_noise
