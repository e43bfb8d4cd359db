"""What goes wrong around a training: each in one sentence, and nothing is lost."""

import os
import re
import resource
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from toy_training import losses, recipe_of, write_shards

from mirage.cli import main
from mirage.config import write_config
from mirage.dataset.shards import Shards, write_manifest
from mirage.training.recipe import Stage
from mirage.training.state import Checkpoints
from mirage.training.train import _check_processes, train


@pytest.fixture(scope="module")
def shards(tiny_model, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", tiny_model, clips=2)


@pytest.fixture
def command(tiny_model, shards, tmp_path, capsys, unchecked):
    """Run `mirage train` on a short recipe; its exit code and what it said."""

    def run(*words: str, shards=shards) -> tuple[int, str]:
        path = tmp_path / "short.yaml"
        path.write_text(write_config(recipe_of(tiny_model, shards, {"train": "full", "steps": 2, "batch": 2})))
        out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
        code = main(["train", "--recipe", str(path), "--device", "cpu", *out, *words])
        return code, capsys.readouterr().err.strip().splitlines()[-1]

    return run


@contextmanager
def room(limit):
    """Files longer than this fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "words, told",
    [
        (["--set", "stages.0.stepz=3"], "short.yaml: stages.0.stepz is no setting; did you mean stages.0.steps?"),
        (["--set", "stages.0.batch=-1"], "stages.0.batch must be at least 1, got -1"),
        (["--set", "steps=3"], "steps is no setting; did you mean stages?"),
        (["--set", "lr"], "--set must be key=value"),
        (["--set", "data=[]"], "data must name a folder of shards"),
        (["--data", "nowhere"], "shards nowhere must be a folder with a manifest.json"),
        (["--set", "model.base=nano"], "holds latents of tiny (other weights), but the model is nano"),
        (["--out", "{file}/out"], "not a directory"),
        (["--recipe", "{file}.yaml"], "cannot be read as YAML: No such file"),
        (["--set", "model.memory=nowhere"], "memory must be"),
    ],
)
def test_mistakes_are_one_sentence(command, tmp_path, words, told):
    file = tmp_path / "file"
    file.write_text("not a folder")
    code, said = command(*(word.replace("{file}", str(file)) for word in words))
    assert code == 2 and told in said, said
    assert not (tmp_path / "out" / "model").exists()


def test_shards_of_another_stride_or_without_clips_are_refused(command, tiny_model, shards, tmp_path):
    whole = Shards(shards)
    codec = whole.manifest["codec"]
    for name, changes, told in (
        ("other", {"stride": 16}, "holds latents of tiny (stride 16, not 8), but the model is"),
        ("empty", {}, "holds no clip"),
    ):
        more = {"settings": {}, "source": "", "skipped": []}
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, [], codec=codec | changes, **more)
        code, said = command("--data", str(tmp_path / name))
        assert code == 2 and told in said, said
    short = write_shards(tmp_path / "short", tiny_model, clips=1, frames=5)
    code, said = command("--data", str(short))
    assert code == 2 and "clips of 3 latent frames, a chunk of the model, but" in said and "of at most 2" in said


def test_a_damaged_clip_is_named_and_left_out(tiny_model, tmp_path, caplog):
    folder = write_shards(tmp_path / "shards", tiny_model, clips=3)
    path = folder / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    train(recipe_of(tiny_model, folder, {"train": "full", "steps": 4}), tmp_path / "out", device="cpu")
    warned = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert len(warned) == 1 and "world 2" in warned[0] and "left out" in warned[0]
    assert len(losses(tmp_path / "out", "1-full")) == 4


def test_another_recipe_in_the_same_folder_is_refused_by_key(tiny_model, shards, tmp_path):
    recipe, out = recipe_of(tiny_model, shards, {"train": "full", "steps": 1}), tmp_path / "out"
    train(recipe, out, device="cpu")
    stage = replace(recipe.stages[0], lr=0.5)
    with pytest.raises(ValueError, match=r"another recipe \(stages.0.lr: 0.01, now 0.5\).*another --out"):
        train(replace(recipe, stages=(stage,)), out, device="cpu")
    train(replace(recipe, log=replace(recipe.log, every=7)), out, device="cpu")


def test_ctrl_c_saves_and_says_how_to_go_on(command, tmp_path):
    curve, state = tmp_path / "out" / "1-full" / "log.jsonl", tmp_path / "out" / "1-full" / "state"

    def interrupt() -> None:
        while not (curve.exists() and curve.read_text()):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt, daemon=True)
    watcher.start()
    code, said = command("--set", "stages.0.steps=5000", "--set", "log.save_every=5000")
    step = re.fullmatch(r"mirage: interrupted, step (\d+) of 5000 of 1-full is saved; the same command goes on", said)
    assert code == 130 and step, said
    assert [path.name for path in state.glob("*.json")] == [f"step-{int(step[1]):08}.json"]


def test_more_processes_than_samples_are_refused(tiny_model, shards):
    recipe = recipe_of(tiny_model, shards, {"train": "full", "batch": 2})
    with pytest.raises(ValueError, match=r"stages.0.batch must be a multiple of the 4 processes, got 2"):
        _check_processes(recipe, 4)
    with pytest.raises(ValueError, match=r"micro_batch must divide the 3 samples of a process, got 2"):
        _check_processes(replace(recipe, stages=(Stage(train="full", steps=1, lr=1.0, batch=6, micro_batch=2),)), 2)


def test_a_run_that_goes_astray_stops_and_is_not_saved(tiny_model, shards, tmp_path):
    recipe = recipe_of(tiny_model, shards, {"train": "full", "lr": 1e30, "warmup": 0})
    with pytest.raises(ValueError, match=r"the gradient is not finite at step \d of 1-full: a smaller lr"):
        train(recipe, tmp_path / "out", device="cpu")
    assert not list(tmp_path.rglob("*weights.safetensors"))


@pytest.fixture
def kept(tmp_path):
    """Three checkpoints, of which two are kept."""
    checkpoints = Checkpoints(tmp_path / "state", keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": torch.full((500,), float(step))}, {"pending": []})
    return checkpoints


def test_the_last_checkpoints_are_kept(kept):
    assert sorted(path.stem for path in kept.folder.glob("*.json")) == ["step-00000002", "step-00000003"]
    assert kept.latest().step == 3 and kept.latest().tensors["x"][0] == 3


@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(kept, harm, caplog):
    path = kept.folder / "step-00000003.safetensors"
    data = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(data[:300])
    elif harm == "flip":
        data[-9] ^= 4
        path.write_bytes(data)
    elif harm == "gone":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{")
    assert kept.latest().step == 2
    assert "step-00000003.safetensors is damaged" in caplog.text and "passed over" in caplog.text


def test_a_full_disk_in_the_middle_of_a_checkpoint_leaves_the_old_one(kept):
    before = {path.name: path.read_bytes() for path in kept.folder.iterdir()}
    with (
        room(1000),
        pytest.raises(OSError, match=r"cannot write the checkpoint .*step-00000004.*the one of step 3 stays"),
    ):
        kept.save(4, {"x": torch.zeros(500)}, {"pending": []})
    assert {path.name: path.read_bytes() for path in kept.folder.iterdir()} == before


def test_what_a_killed_run_left_is_swept_up(kept):
    (kept.folder / "step-00000009.safetensors.part").write_bytes(b"half")
    (kept.folder / "step-00000008.safetensors").write_bytes(b"without its checksum")
    assert kept.latest().step == 3
    kept.save(4, {"x": torch.zeros(5)}, {"pending": []})
    assert sorted(path.stem for path in kept.folder.glob("*")) == sorted(2 * ["step-00000003", "step-00000004"])
