"""Segmenters of movers and sky: loading, conservative masks, robust names, and what is refused."""

import json
import shutil

import pytest
import small_checkpoints
import torch
from safetensors.torch import load_file, save_file
from transformers import SegformerForSemanticSegmentation

from mirage.geometry.movers import ClassMovers
from mirage.geometry.named_movers import NamedMovers, parse_names


@pytest.mark.parametrize("kind", ["segformer", "mask2former"])
def test_classes_give_a_mask_that_is_the_same_each_time(checkpoint, kind, frames):
    movers = ClassMovers.load(checkpoint(kind)).to("cpu")
    keep = movers.keep(frames)
    assert keep.shape == (2, 40, 56) and not movers.model.training
    assert torch.equal(keep, movers.keep(frames)) and torch.equal(keep[1:], movers.keep(frames[1:]))
    assert movers.out.tolist() == [False, True, True, True]
    staying = ClassMovers.load(checkpoint(kind), sky=False)
    assert staying.out.tolist() == [False, False, True, True]
    coarse = ClassMovers.load(checkpoint(kind), dtype=torch.bfloat16).keep(frames)
    assert (coarse == keep).float().mean() > 0.8


def test_a_mask_is_that_of_the_model(checkpoint, frames):
    movers = ClassMovers.load(checkpoint("segformer"))
    model = SegformerForSemanticSegmentation.from_pretrained(checkpoint("segformer")).eval()
    with torch.no_grad():
        logits = model(pixel_values=movers.preparation.pixels(frames)).logits
    best = torch.nn.functional.interpolate(logits, (40, 56), mode="bilinear").argmax(1)
    keep = movers.keep(frames)
    assert not keep[best > 0].float().mean() > 0.05  # what is best a mover is out, but for blends at borders
    assert keep.any() and not keep.all()


def test_labels_are_read_as_datasets_write_them(tmp_path):
    labels = {0: "wall", 1: "car;auto", 2: "Person", 3: "scarf", 4: "teddy bear", 5: "sky-other-merged"}
    movers = ClassMovers.load(small_checkpoints.segformer(tmp_path / "labels", labels))
    assert movers.out.tolist() == [False, True, True, False, False, True]
    with pytest.raises(ValueError, match="must name what moves among its classes"):
        ClassMovers.load(small_checkpoints.segformer(tmp_path / "none", {0: "LABEL_0", 1: "sky"}))


def test_names_and_masks_by_two_models(checkpoint, frames):
    movers = NamedMovers.load(checkpoint("qwen3_vl"), checkpoint("sam3")).to("cpu")
    assert not movers.speaker.training and not movers.finder.training
    assert isinstance(movers.names(frames[0]), list)
    found = movers.find(frames, ["car", "sky"])
    assert found.shape == (2, 40, 56) and found.any()
    assert torch.equal(found, movers.find(frames, ["car"]) | movers.find(frames, ["sky"]))
    assert torch.equal(found[1:], movers.find(frames[1:], ["car", "sky"]))
    assert not movers.find(frames, []).any()
    movers.sky = False
    assert torch.equal(movers.keep(frames), movers.keep(frames))


def test_the_speaker_sees_the_picture(checkpoint, frames):
    """What goes to the language model is right: a wrong count of picture tokens would be an error, this is the rest."""
    movers = NamedMovers.load(checkpoint("qwen3_vl"), checkpoint("sam3"))
    cut = movers.patches(images=[torch.zeros(3, 64, 96, dtype=torch.uint8).numpy()], input_data_format="channels_first")
    assert [list(map(int, grid)) for grid in cut["image_grid_thw"]] == [[1, 4, 6]]
    half = NamedMovers.load(checkpoint("qwen3_vl"), checkpoint("sam3"), dtype=torch.bfloat16)
    assert half.keep(frames).shape == (2, 40, 56)


@pytest.mark.parametrize(
    "answer, names",
    [
        ('["person", "car"]', ["person", "car"]),
        ('Sure! Here it is:\n```json\n["Dogs", "a boat", "Dogs"]\n```', ["dogs", "boat"]),
        ("['cat', 'kite']", ["cat", "kite"]),
        ('["person", "motor', ["person", "motor"]),
        ("1. person\n2. the red car\n- bird", ["person", "red car", "bird"]),
        ("<think>[a plan]</think>[]", []),
        ("None.", []),
        ("There is nothing in this picture that could ever move.", []),
        ('["' + '", "'.join("abcdefghijklmnop") + '"]', list("abcdefghijkl")),
        ('[{"label": "car"}, 3, null]', []),
        ("", []),
    ],
)
def test_answers_of_all_sorts(answer, names):
    assert parse_names(answer) == names


def test_what_cannot_be_used_is_refused(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "oneformer"}))
    with pytest.raises(ValueError, match="one of segformer, upernet, mask2former, maskformer, got 'oneformer'"):
        ClassMovers.load(tmp_path)
    with pytest.raises(ValueError, match="must be qwen3_vl, got 'sam3'"):
        NamedMovers.load(checkpoint("sam3"), checkpoint("sam3"))
    with pytest.raises(ValueError, match="must be sam3, got 'qwen3_vl'"):
        NamedMovers.load(checkpoint("qwen3_vl"), checkpoint("qwen3_vl"))


def test_sam_3_is_read_as_it_is_published(checkpoint, tmp_path, frames):
    """The hub holds it inside the model for videos: its settings under `detector_config`, its weights prefixed."""
    folder = shutil.copytree(checkpoint("sam3"), tmp_path / "video")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": told}))
    weights = {f"detector_model.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights | {"tracker_model.x": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    published, plain = (NamedMovers.load(checkpoint("qwen3_vl"), each) for each in (folder, checkpoint("sam3")))
    assert torch.equal(published.find(frames, ["car"]), plain.find(frames, ["car"]))
