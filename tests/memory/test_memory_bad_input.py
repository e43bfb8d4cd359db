"""Malformed arguments: one sentence that names the argument, and the memory as it was."""

from dataclasses import replace
from pathlib import Path

import plane_worlds as worlds
import pytest
import torch
from safetensors import safe_open

from mirage.camera.cameras import Cameras
from mirage.memory import ColourMemory, LatentMemory, Memory, NoMemory, recall

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


def state(memory: LatentMemory, folder: Path) -> dict[str, str]:
    """All that a memory is: its settings, and a checksum over them and its tensors."""
    memory.save(folder / "memory.safetensors")
    with safe_open(str(folder / "memory.safetensors"), "pt") as file:
        return file.metadata()


BAD = {
    "latents of three axes": dict(latents=FEATURES[0], match="latents must be"),
    "too many latents": dict(latents=FEATURES.repeat(2, 1, 1, 1), match="as many views"),
    "NaN latents": dict(latents=poisoned(FEATURES, torch.nan), match="latents must be finite"),
    "no channels": dict(latents=FEATURES[:, :0], match="latents must have channels"),
    "latents of eight bits": dict(latents=FEATURES.to(torch.float8_e4m3fn), match="latents must be floating"),
    "sparse latents": dict(latents=FEATURES.to_sparse(), match="latents must be a dense tensor"),
    "latents above float32": dict(latents=FEATURES.double() + 1e300, match="latents must fit into torch.float32"),
    "depth in place of infinity": dict(depth=DEPTH * 1e35, match="depth must not be negative nor above"),
    "a focal length of nothing": dict(
        cameras=replace(SOURCE, intrinsics=SOURCE.intrinsics * torch.tensor([[1e-44], [1], [1]])), match="cameras: intr"
    ),
    "another device": dict(depth=DEPTH.to("meta"), match="on one device"),
    "integer latents": dict(latents=FEATURES.long(), match="latents must be floating"),
    "NaN depth": dict(depth=poisoned(DEPTH, torch.nan), match="depth must be finite"),
    "infinite depth": dict(depth=poisoned(DEPTH, torch.inf), match="depth must be finite"),
    "negative depth": dict(depth=poisoned(DEPTH, -1.0), match="depth must not be negative"),
    "odd depth": dict(depth=DEPTH[:, :39], match="depth must be a whole multiple"),
    "other keep": dict(keep=torch.ones(1, 4, 4, dtype=torch.bool), match="keep must have the shape"),
    "integer depth": dict(depth=DEPTH.int(), match="depth must be floating"),
    "keep of numbers": dict(keep=torch.ones_like(DEPTH), match="keep must be a tensor of bool"),
    "sparse keep": dict(keep=(DEPTH > 0).to_sparse(), match="keep must be a dense tensor"),
    "keep that is no tensor": dict(keep=True, match="keep must be a tensor of bool"),
    "latents that are no tensor": dict(latents=FEATURES.numpy(), match="latents must be a tensor"),
    "depth of two axes": dict(depth=DEPTH[0], match="depth"),
    "infinite pose": dict(
        cameras=replace(SOURCE, cam_from_world=poisoned(SOURCE.cam_from_world, torch.inf)), match="cameras: poses"
    ),
    "NaN intrinsics": dict(
        cameras=replace(SOURCE, intrinsics=poisoned(SOURCE.intrinsics, torch.nan)),
        match="cameras: poses and intrinsics",
    ),
    "skew": dict(
        cameras=replace(SOURCE, intrinsics=SOURCE.intrinsics + torch.eye(3).roll(1, 1)), match="cameras: intr"
    ),
    "a projective pose": dict(
        cameras=replace(
            SOURCE, cam_from_world=SOURCE.cam_from_world + torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None] * 0.1
        ),
        match="last row",
    ),
    "no cameras": dict(cameras=SOURCE.cam_from_world, match="cameras must be"),
    "other image": dict(cameras=SOURCE.resize(41, 56), match="cameras must be of the image's size"),
    "NaN pose": dict(
        cameras=replace(SOURCE, cam_from_world=poisoned(SOURCE.cam_from_world, torch.nan)), match="finite"
    ),
    "singular": dict(cameras=replace(SOURCE, intrinsics=torch.zeros(1, 3, 3)), match="cameras: intrinsics"),
    "no rotation": dict(cameras=scaled_rotation(1.1), match="cameras: cam_from_world"),
    "reflection": dict(cameras=scaled_rotation(-1.0), match="cameras: cam_from_world"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_views_are_refused_and_change_nothing(case, tmp_path):
    arguments = dict(latents=FEATURES, depth=DEPTH, cameras=SOURCE, keep=None) | BAD[case]
    match = arguments.pop("match")
    keep = arguments.pop("keep")
    with pytest.raises(ValueError, match=match):
        LatentMemory.from_view(*arguments.values(), keep=keep)
    memory = LatentMemory.from_view(FEATURES, DEPTH, SOURCE)
    before = state(memory, tmp_path)
    with pytest.raises(ValueError, match=match):
        memory.update(*arguments.values(), keep=keep)
    assert state(memory, tmp_path) == before


def test_bad_reads_and_options_are_refused(tmp_path):
    memory = LatentMemory.from_view(FEATURES, DEPTH, SOURCE)
    before = state(memory, tmp_path)
    for cameras, match in (
        (SOURCE.resize(41, 56), "stride 8 divides"),
        (SOURCE.resize(4, 56), "stride 8 divides"),
        (scaled_rotation(2.0), "cam_from_world"),
    ):
        with pytest.raises(ValueError, match=match):
            memory.read(cameras)
    nowhere = Cameras(SOURCE.intrinsics.to("meta"), SOURCE.cam_from_world.to("meta"), 40, 56)
    with pytest.raises(ValueError, match="cameras must have values"):
        memory.read(nowhere)
    with pytest.raises(OSError, match="cannot write"):
        memory.save(tmp_path)
    assert state(memory, tmp_path) == before
    for dtype in (torch.int8, torch.float8_e4m3fn, "float16"):
        with pytest.raises(ValueError, match="dtype must be a floating point type"):
            LatentMemory.from_view(FEATURES, DEPTH, SOURCE, dtype=dtype)
    with pytest.raises(ValueError, match="read must be one of"):
        LatentMemory.from_view(FEATURES, DEPTH, SOURCE, read="linear")
    two = worlds.cameras(worlds.pose().repeat(2, 1, 1), 40, 56)
    with pytest.raises(ValueError, match="one view"):
        LatentMemory.from_view(FEATURES.repeat(2, 1, 1, 1), DEPTH.repeat(2, 1, 1), two)

    half = LatentMemory.from_view(FEATURES, DEPTH, SOURCE, dtype=torch.float16)
    before = state(half, tmp_path)
    aside = worlds.cameras(worlds.pose(yaw=60)[None], 40, 56)
    with pytest.raises(ValueError, match="latents must fit into torch"):
        half.update(FEATURES * 1e6, DEPTH, aside)
    assert state(half, tmp_path) == before
    for budget, match in ((10, "budget_bytes must be at least"), (1e6, "whole number"), (True, "whole number")):
        with pytest.raises(ValueError, match=match):
            LatentMemory.from_view(FEATURES, DEPTH, SOURCE, budget_bytes=budget)


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(points=torch.zeros(3)), "points must be"),
        (dict(points=torch.zeros(4, 2)), "points must be"),
        (dict(points=torch.full((2, 3), torch.nan)), "points must be finite"),
        (dict(points=torch.zeros(2, 3, dtype=torch.int64)), "points must be floating"),
        (dict(points=torch.zeros(2, 3, device="meta")), "points must be on"),
        (dict(depth=DEPTH[0]), "depth"),
        (dict(depth=-DEPTH), "depth must not be negative"),
        (dict(depth=poisoned(DEPTH, torch.inf)), "depth must be finite"),
        (dict(cameras=SOURCE[:0]), "as many frames"),
        (dict(cameras=scaled_rotation(2.0)), "cameras: cam_from_world"),
        (dict(k=0), "k=0"),
        (dict(k=1.5), "k must be"),
        (dict(k=True), "k must be"),
        (dict(points=None), "points must be a tensor"),
        (dict(depth=DEPTH.numpy()), "depth must be a tensor"),
        (dict(cameras=None), "cameras must be"),
        (dict(threshold=torch.nan), "threshold a number"),
        (dict(threshold="0.1"), "threshold a number"),
        (dict(tolerance=None), "tolerance must not be negative"),
        (dict(points=torch.zeros(2, 3).to_sparse()), "points must be a dense tensor"),
        (dict(depth=DEPTH[:, :0]), r"depth \(f, h, w\)"),
        (dict(tolerance=-0.1), "tolerance must not be negative"),
    ],
)
def test_bad_recalls_are_refused(change, match):
    arguments = dict(points=torch.zeros(2, 3), cameras=SOURCE, depth=DEPTH) | change
    with pytest.raises(ValueError, match=match):
        recall(**arguments)


def test_latents_of_another_codec_are_refused(tmp_path):
    memory = LatentMemory.from_view(FEATURES, DEPTH, SOURCE)
    before = state(memory, tmp_path)
    with pytest.raises(ValueError, match=r"latents must be \(v, 3, 5, 7\) at stride 8"):
        memory.update(FEATURES.repeat(1, 2, 1, 1), DEPTH, SOURCE)
    with pytest.raises(ValueError, match="stride 16"):
        memory.update(FEATURES, DEPTH, SOURCE.resize(80, 112))
    assert state(memory, tmp_path) == before


def test_a_memory_is_not_made_of_what_it_cannot_be(tmp_path):
    surfels = LatentMemory.from_view(FEATURES, DEPTH, SOURCE).surfels
    good = dict(surfels=surfels, stride=8)
    for name, bad in (("surfels", FEATURES), ("stride", 0), ("stride", 8.0), ("read", "linear"), ("mover", torch.relu)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            LatentMemory(**good | {name: bad})
    memory = LatentMemory(**good, budget_bytes=surfels.nbytes)
    before = state(memory, tmp_path)
    for bad in (surfels.nbytes - 1, "8", True):
        with pytest.raises(ValueError, match="budget_bytes must be"):
            memory.budget_bytes = bad
    assert state(memory, tmp_path) == before


CODEC = {ColourMemory: {"codec": type("Encoder", (), {"stride": 8, "encode": len})()}, NoMemory: {}, LatentMemory: {}}


def kinds_of_memory() -> list[Memory]:
    colours = {"frames": torch.zeros(1, 3, 40, 56)}
    return [kind.from_view(FEATURES, DEPTH, SOURCE, **colours, **codec) for kind, codec in CODEC.items()]


@pytest.mark.parametrize("memory", kinds_of_memory(), ids=lambda memory: type(memory).__name__)
def test_all_kinds_refuse_the_same_cameras(memory, unchecked):
    three = worlds.cameras(worlds.pose().repeat(3, 1, 1), 40, 56)
    for cameras, match in (
        (None, "cameras must be"),
        (SOURCE.resize(41, 56), "divides"),
        (SOURCE.to("meta"), "values"),
    ):
        with pytest.raises(ValueError, match=match):
            memory.read(cameras)
        with pytest.raises(ValueError, match=match):
            memory.read_video(cameras, 1)
    for stride, match in (
        (0, "temporal_stride must be"),
        ("4", "temporal_stride must be"),
        (4, r"cameras must be of 1 \+ k"),
    ):
        with pytest.raises(ValueError, match=match):
            memory.read_video(three, stride)
    with pytest.raises(ValueError, match="latents must be of one view"):
        type(memory).from_view(
            FEATURES[:0], DEPTH[:0], SOURCE[:0], frames=torch.zeros(0, 3, 40, 56), **CODEC[type(memory)]
        )


def test_another_default_dtype_is_refused():
    memory = LatentMemory.from_view(FEATURES, DEPTH, SOURCE)
    torch.set_default_dtype(torch.float64)
    try:
        for call in (memory.update, LatentMemory.from_view, lambda *views: memory.read(views[2])):
            with pytest.raises(ValueError, match="default dtype must be float32, in which geometry is kept"):
                call(FEATURES, DEPTH, SOURCE)
    finally:
        torch.set_default_dtype(torch.float32)
