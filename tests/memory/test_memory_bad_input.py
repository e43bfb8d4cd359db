"""Malformed arguments: one sentence that names the argument, and the memory as it was."""

from dataclasses import replace

import plane_worlds as worlds
import pytest
import torch

from mirage.memory import LatentMemory

SOURCE = worlds.cameras(worlds.pose()[None], 40, 56)
FEATURES, DEPTH = worlds.view(SOURCE, worlds.ROOM, 8)


def poisoned(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.contiguous().clone()
    tensor.view(-1)[7] = value
    return tensor


def scaled_rotation(factor: float):
    pose = SOURCE.cam_from_world.clone()
    pose[:, :3, :3] *= factor
    return replace(SOURCE, cam_from_world=pose)


BAD = {
    "latents of three axes": dict(latents=FEATURES[0], match="latents must be"),
    "too many latents": dict(latents=FEATURES.repeat(2, 1, 1, 1), match="as many views"),
    "NaN latents": dict(latents=poisoned(FEATURES, torch.nan), match="latents must be finite"),
    "integer latents": dict(latents=FEATURES.long(), match="latents must be floating"),
    "NaN depth": dict(depth=poisoned(DEPTH, torch.nan), match="depth must be finite"),
    "infinite depth": dict(depth=poisoned(DEPTH, torch.inf), match="depth must be finite"),
    "negative depth": dict(depth=poisoned(DEPTH, -1.0), match="depth must not be negative"),
    "odd depth": dict(depth=DEPTH[:, :39], match="depth must be a whole multiple"),
    "other keep": dict(keep=torch.ones(1, 4, 4, dtype=torch.bool), match="keep must have the shape"),
    "other image": dict(cameras=SOURCE.resize(41, 56), match="cameras must be of the image's size"),
    "NaN pose": dict(
        cameras=replace(SOURCE, cam_from_world=poisoned(SOURCE.cam_from_world, torch.nan)), match="finite"
    ),
    "singular": dict(cameras=replace(SOURCE, intrinsics=torch.zeros(1, 3, 3)), match="cameras: intrinsics"),
    "no rotation": dict(cameras=scaled_rotation(1.1), match="cameras: cam_from_world"),
    "reflection": dict(cameras=scaled_rotation(-1.0), match="cameras: cam_from_world"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_views_are_refused_and_change_nothing(case):
    arguments = dict(latents=FEATURES, depth=DEPTH, cameras=SOURCE, keep=None) | BAD[case]
    match = arguments.pop("match")
    keep = arguments.pop("keep")
    with pytest.raises(ValueError, match=match):
        LatentMemory.from_view(*arguments.values(), keep=keep)
    memory = LatentMemory.from_view(FEATURES, DEPTH, SOURCE)
    before = {key: value.clone() for key, value in memory.surfels.tensors.items()}
    with pytest.raises(ValueError, match=match):
        memory.update(*arguments.values(), keep=keep)
    assert all((memory.surfels.tensors[key] == value).all() for key, value in before.items())


def test_bad_reads_and_options_are_refused():
    memory = LatentMemory.from_view(FEATURES, DEPTH, SOURCE)
    for cameras, match in (
        (SOURCE.resize(41, 56), "stride 8 divides"),
        (SOURCE.resize(4, 56), "stride 8 divides"),
        (scaled_rotation(2.0), "cam_from_world"),
    ):
        with pytest.raises(ValueError, match=match):
            memory.read(cameras)
    with pytest.raises(ValueError, match="read must be one of"):
        LatentMemory.from_view(FEATURES, DEPTH, SOURCE, read="linear")
    two = worlds.cameras(worlds.pose().repeat(2, 1, 1), 40, 56)
    with pytest.raises(ValueError, match="one view"):
        LatentMemory.from_view(FEATURES.repeat(2, 1, 1, 1), DEPTH.repeat(2, 1, 1), two)


def test_latents_of_another_codec_are_refused():
    memory = LatentMemory.from_view(FEATURES, DEPTH, SOURCE)
    with pytest.raises(ValueError, match=r"latents must be \(v, 3, 5, 7\) at stride 8"):
        memory.update(FEATURES.repeat(1, 2, 1, 1), DEPTH, SOURCE)
    with pytest.raises(ValueError, match="stride 16"):
        memory.update(FEATURES, DEPTH, SOURCE.resize(80, 112))
