"""Laws of the closed loop, with a tiny pipeline on two held-out worlds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mirage.evaluation import ClosedLoop, evaluate, format_table
from mirage.evaluation.closed_loop import measure
from mirage.evaluation.metrics import CAP, psnr
from mirage.evaluation.rows import CONTROLS, MEMORIES, roll_out
from mirage.evaluation.worlds import HELD_OUT, make_walk
from mirage.pipeline import MiragePipeline
from mirage.scenes import Worlds, render
from mirage.video.io import read_image, tensor_to_images


@pytest.fixture(scope="module")
def config(tiny):
    return ClosedLoop(model=str(tiny), worlds=2, frames=17, sheets=1)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """Everything measured in one go, in this process."""
    out = tmp_path_factory.mktemp("whole")
    return out, evaluate(config, out, processes=1)


@pytest.fixture(scope="module")
def walk():
    return make_walk(HELD_OUT, 17, 32, 48)


def records(out):
    """What was measured, without what a clock says."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()[1:]]
    clock = ("seconds", "frames_per_second")
    return {(r["scene"], r["row"]): {k: v for k, v in r.items() if k not in clock} for line in lines for r in line}


def test_visits_are_the_very_same_views(walk, config):
    a1, b1, a2, b2, a3 = config.visits
    pose = walk.cameras.cam_from_world
    assert torch.equal(pose[a1], pose[a2]) and torch.equal(pose[a1], pose[a3]) and torch.equal(pose[b1], pose[b2])
    assert np.array_equal(walk.frames[b1], walk.frames[b2]) and not np.array_equal(walk.frames[a1], walk.frames[b1])
    assert walk.seen[[a1, a2, a3]].all() and walk.seen[b1].mean() < 0.3
    assert all(visit % 4 == 0 for visit in config.visits)


def test_places_rendered_once_are_those_rendered_each_time(walk):
    full = render(Worlds.sample([HELD_OUT], movers=0), walk.cameras)
    assert np.array_equal(walk.frames, tensor_to_images(full.colour[0]))
    sky = full.sky[0]
    assert torch.equal(walk.depth[~sky], full.depth[0][~sky].clamp(max=100)) and (walk.depth > 0).all()


def test_the_truth_itself_is_perfect(walk, config):
    figures = measure(walk, walk.frames, config.visits)
    names = ("observed_psnr", "imagined_psnr", "all_psnr", "seen_psnr", "unseen_psnr")
    assert [figures[name] for name in names] == [CAP] * 5
    assert figures["observed_flow"] == figures["imagined_flow"] == 0
    assert figures["observed_ssim"] == figures["seen_detail"] == figures["unseen_detail"] == 1


def test_the_ceiling_is_what_the_autoencoder_does(whole, config, walk):
    codec = MiragePipeline.from_pretrained(config.model).codec
    with torch.no_grad():
        video = tensor_to_images(codec.decode(codec.encode(walk.colour[None]))[0])
    record = records(whole[0])[f"world-{HELD_OUT}", "autoencoder"]
    assert record["observed_psnr"] == pytest.approx(psnr(video[-1], walk.frames[0]), abs=1e-3)
    assert record["all_psnr"] == pytest.approx(psnr(video[1:], walk.frames[1:]), abs=1e-3)
    assert record["curves"]["all"][5] == pytest.approx(psnr(video[5], walk.frames[5]), abs=1e-3)


def test_the_first_view_of_the_memory_is_the_decoded_input(config, walk):
    pipeline = MiragePipeline.from_pretrained(config.model)
    video, sizes = roll_out(pipeline, walk, "memory-only", config)
    with torch.no_grad():
        first = pipeline.codec.decode(pipeline.codec.encode(walk.colour[:1][None]))[0, 0]
    assert np.abs(video[0].astype(int) - tensor_to_images(first)).max() <= 1
    assert sizes[-1] > 0


def test_rows_and_controls(whole):
    out, results = whole
    assert list(results["rows"]) == [*MEMORIES, *CONTROLS]
    assert results["rows"]["none"]["memory_bytes"]["mean"] == 0 < results["rows"]["latent"]["memory_bytes"]["mean"]
    assert all(row["observed_psnr"]["n"] == 2 for row in results["rows"].values())
    assert results["rows"]["memory-only"]["imagined_psnr"]["mean"] == CAP, "what imagines nothing comes back to nothing"
    table = format_table(results)
    assert (out / "table.md").read_text() == table == format_table(json.loads((out / "results.json").read_text()))
    assert table.count("\n| ") > len(results["rows"]) and "nan" not in table
    assert (out / "curves.png").stat().st_size > 0
    assert read_image(out / f"sheet-world-{HELD_OUT}.png").shape[1] > 5 * 48
    assert not (out / f"sheet-world-{HELD_OUT + 1}.png").exists()


def test_what_was_interrupted_goes_on(whole, config, tmp_path):
    first = evaluate(replace(config, worlds=1, rows=("none",)), tmp_path, processes=1)
    assert list(first["rows"]) == ["none", *CONTROLS] and first["scenes"] == 1
    with open(tmp_path / "results.jsonl", "ab") as file:
        file.write(b'[{"scene": "wor')  # the power went off here
    seen = []
    evaluate(config, tmp_path, processes=1, on_scene=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert records(tmp_path) == records(whole[0])
    evaluate(config, tmp_path, processes=1, on_scene=lambda done, total: seen.append((done, total)))
    assert seen[3:] == [(2, 2)]


def test_two_processes_measure_the_same(whole, config, tmp_path):
    evaluate(replace(config, rows=("latent",)), tmp_path, processes=2)
    assert len(records(tmp_path)) == 2 * 3
    for key, record in records(tmp_path).items():
        for name in ("observed_psnr", "imagined_psnr", "all_psnr"):
            assert record[name] == pytest.approx(records(whole[0])[key][name], abs=0.05), (key, name)


def test_results_of_other_settings_are_not_mixed(whole, config, tiny):
    out = whole[0]
    before = (out / "results.jsonl").read_bytes()
    with pytest.raises(ValueError, match="same settings"):
        evaluate(replace(config, depth="head"), out, processes=1)
    assert (out / "results.jsonl").read_bytes() == before


def test_an_unknown_model_writes_nothing(tmp_path, config):
    with pytest.raises(ValueError, match="model"):
        evaluate(replace(config, model="nonsense"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"rows": ("latent", "colours")}, "colours"),
        ({"rows": ()}, "none"),
        ({"frames": 60}, "use 49 or 65"),
        ({"frames": 5}, "use 17"),
        ({"worlds": 0}, "worlds"),
        ({"first_seed": -1}, "first_seed"),
        ({"sheets": -1}, "sheets"),
        ({"steps": 0}, "steps"),
        ({"depth": "guess"}, "known, head"),
    ],
)
def test_wrong_settings_are_refused(wrong, says, unchecked):
    with pytest.raises(ValueError, match=says):
        ClosedLoop(**wrong)
