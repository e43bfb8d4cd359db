"""The training of movers: data of every kind, a loss that falls, runs that go on, mistakes that are named."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mirage.camera.cameras import Cameras
from mirage.memory import LatentMemory, LatentMover
from mirage.training.clips import to_floats
from mirage.training.fit import generator
from mirage.training.mover import MoverRecipe, decoded_error, error, fit_mover, readout, train_mover
from mirage.training.mover_data import Group, find, read_group
from mirage.video.codec import LatentCodec

RECIPE = MoverRecipe(split=2, features=4, width=8, steps=6, batch=1, targets=2, worlds=1, size=6, columns=8)


class Patches(LatentCodec):
    """Twelve numbers for every 4 x 4 pixels, by a fixed linear map."""

    channels, stride, temporal_stride = 12, 4, 1

    def __init__(self):
        self.matrix = torch.linalg.qr(torch.randn(48, 48, generator=generator(3)))[0][:12]

    def encode(self, frames):
        self.check(frames)
        patches = F.pixel_unshuffle(frames.flatten(0, 1), 4)
        return torch.einsum("cp,bphw->bchw", self.matrix, patches).unflatten(0, frames.shape[:2])

    def decode(self, latents):
        patches = torch.einsum("cp,bchw->bphw", self.matrix, latents.flatten(0, 1))
        return F.pixel_shuffle(patches, 4).unflatten(0, latents.shape[:2])


def write_sequence(folder, frames=3, height=24, width=32):
    """Posed RGB-D of a wall with stripes, seen in passing."""
    rng = np.random.default_rng(0)
    wall = np.kron(
        np.tile(rng.integers(0, 2, (1, 40, 1), np.uint8) * 200 + 20, (12, 1, 3)), np.ones((4, 4, 1), np.uint8)
    )
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    w2c = np.tile(np.eye(4), (frames, 1, 1))
    for i in range(frames):
        Image.fromarray(wall[:height, 6 * i : 6 * i + width]).save(folder / "rgb" / f"{i:05}.png")
        Image.fromarray(np.full((height, width), 2000, np.uint16)).save(folder / "depth" / f"{i:05}.png")
        w2c[i, 0, 3] = -6 * i * 2.0 / width
    k = np.array([[width, 0, width / 2 - 0.5], [0, width, height / 2 - 0.5], [0, 0, 1.0]])
    np.savez(folder / "cameras.npz", c2w=np.linalg.inv(w2c), w2c=w2c, K=k, depth_scale=1000.0)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a sequence and on an exact world papered with a photograph."""
    root = tmp_path_factory.mktemp("mover")
    write_sequence(root / "wall")
    (root / "photos").mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).resize((240, 160)).save(root / "photos" / "one.png")
    assert train_mover(root / "out", Patches(), [root / "wall", root / "photos"], RECIPE, told={"name": "patches"})
    return root


def test_a_run_leaves_a_mover_and_its_data(trained):
    mover = LatentMover.from_pretrained(trained / "out" / "mover")
    assert mover.config == {"channels": 12, "split": 2, "features": 4, "width": 8}
    assert mover.contract[-1].weight.abs().sum() > 0
    names = sorted(path.name for path in (trained / "out" / "groups").glob("*.safetensors"))
    assert names == ["wall-00000.safetensors", "world-0-00000.safetensors"]
    world = read_group(trained / "out" / "groups" / names[1])
    assert world.colour.shape == (6, 3, 24, 24) and world.latents.shape == (6, 12, 6, 6)
    assert world.colour.float().std() > 5 and (world.depth > 0).any()


def test_sequences_are_where_their_cameras_say(trained):
    """A wall that passes by is read exactly where whole cells pass."""
    group = read_group(trained / "out" / "groups" / "wall-00000.safetensors")
    memory = LatentMemory.from_view(group.latents[:1].float(), group.depth[:1], group.cameras[0])
    read = memory.read(group.cameras[2])  # 12 pixels on: three cells
    assert read.visible[0, :, :4].all()
    torch.testing.assert_close(read.features[0, :, :, :4], group.latents[2, :, :, :4].float(), rtol=0, atol=2e-2)


def test_runs_go_on_where_they_stopped(trained, tmp_path):
    files = sorted((trained / "out" / "groups").glob("*.safetensors"))
    cut = MoverRecipe(**{**vars(RECIPE), "stop_after": 0.0})
    assert not fit_mover(tmp_path, files, cut)
    assert fit_mover(tmp_path, files, RECIPE)
    one, other = (LatentMover.from_pretrained(d / "mover").state_dict() for d in (trained / "out", tmp_path))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_training_mends_a_toy(trained, tmp_path):
    """On one wall in passing, the error falls far below the gather's, whatever the seed."""
    files = [trained / "out" / "groups" / "wall-00000.safetensors"]
    recipe = MoverRecipe(
        **{**vars(RECIPE), "steps": 120, "lr": 5e-3, "noise": 0.0, "again": 0.0, "width": 48, "features": 8, "split": 4}
    )
    fit_mover(tmp_path, files, recipe)
    group = read_group(files[0])
    mover, look = LatentMover.from_pretrained(tmp_path / "mover"), readout([group])
    latents, truth = group.latents[:1].float(), group.latents[1:2].float()
    off = []
    for mend in (None, mover):
        read = LatentMemory.from_view(latents, group.depth[:1], group.cameras[0], mover=mend).read(group.cameras[1])
        counts = read.visible & (torch.arange(read.visible.shape[2]) < 5)
        off.append(float(error(read.features, truth, counts, look)))
    assert off[1] < 0.2 * off[0]


def test_steps_through_the_decoder_follow_and_go_on(trained, tmp_path):
    """They come after the others, resume as these do, and lower what is seen of the errors."""
    files = [trained / "out" / "groups" / "wall-00000.safetensors"]
    how = {**vars(RECIPE), "lr": 1e-2, "noise": 0.0, "again": 0.0, "width": 32, "features": 8, "split": 4}
    recipe = MoverRecipe(**how | {"decoded": 12})
    assert fit_mover(tmp_path / "linear", files, MoverRecipe(**how))
    assert not fit_mover(tmp_path / "both", files, MoverRecipe(**vars(recipe) | {"stop_after": 0.2}), codec=Patches())
    assert fit_mover(tmp_path / "both", files, recipe, codec=Patches())
    assert fit_mover(tmp_path / "at once", files, recipe, codec=Patches())
    group = read_group(files[0])
    latents, truth = group.latents[:1].float(), group.latents[1:2].float()
    off = {}
    for name in ("linear", "both", "at once"):
        mover = LatentMover.from_pretrained(tmp_path / name / "mover")
        read = LatentMemory.from_view(latents, group.depth[:1], group.cameras[0], mover=mover).read(group.cameras[1])
        counts = read.visible & (torch.arange(read.visible.shape[2]) < 5)
        seen = lambda x, m=counts: float(decoded_error(Patches(), x, truth, to_floats(group.colour[1:2]), m))
        off[name] = seen(read.features) - seen(truth)
    assert off["both"] == off["at once"] < 0.8 * off["linear"]


def test_a_decoder_without_gradients_is_refused(trained, tmp_path):
    class Sealed(Patches):
        decode = torch.no_grad()(Patches.decode)

    files = [trained / "out" / "groups" / "wall-00000.safetensors"]
    recipe = MoverRecipe(**{**vars(RECIPE), "steps": 1, "decoded": 1})
    with pytest.raises(ValueError, match=r"codec must be given .*decoded=1"):
        fit_mover(tmp_path, files, recipe)
    with pytest.raises(ValueError, match=r"must pass gradients .* Sealed does not: train with decoded=0"):
        fit_mover(tmp_path, files, recipe, codec=Sealed())


def test_the_readout_is_the_decoder_where_that_is_linear():
    codec = Patches()
    colour = torch.randint(0, 256, (4, 3, 40, 40), generator=generator(0), dtype=torch.uint8)
    smooth = F.avg_pool2d(colour.float(), 5, 1, 2)
    colour = smooth.round().byte()
    frames = colour.float() / 127.5 - 1
    latents = codec.encode(frames[:, None])[:, 0]
    cameras = Cameras.from_fov(1.0, 40, 40)
    ones = lambda x: x.expand(4, *x.shape[1:]).contiguous()
    group = Group(
        colour=colour,
        latents=latents,
        depth=torch.ones(4, 40, 40),
        intrinsics=ones(cameras.intrinsics),
        cam_from_world=ones(cameras.cam_from_world),
    )
    look = readout([group])
    seen = F.pixel_shuffle(F.conv2d(latents, look, padding=1), 4)[..., 4:-4, 4:-4]
    own = codec.decode(latents[:, None])[:, 0][..., 4:-4, 4:-4]
    truth = frames[..., 4:-4, 4:-4]
    centred = lambda x: x - x.mean((0, 2, 3), keepdim=True)
    assert (centred(seen) - centred(truth)).square().mean() <= 1.05 * (centred(own) - centred(truth)).square().mean()


def test_errors_of_cells_that_do_not_count_are_nothing():
    g = generator(5)
    truth, read = torch.randn(2, 3, 5, 6, generator=g), torch.randn(2, 3, 5, 6, generator=g)
    look = torch.randn(12, 3, 3, 3, generator=g)
    counts = torch.zeros(2, 5, 6, dtype=torch.bool)
    counts[:, 2:4, 1:3] = True
    other = torch.where(counts[:, None], read, 9.0)
    assert torch.equal(error(read, truth, counts, look), error(other, truth, counts, look))
    assert (error(read, truth, counts, look) > 0).all() and not error(truth, truth, counts, look).any()


def test_other_data_and_another_codec_are_refused(trained, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(trained / "out", out)
    both = [trained / "wall", trained / "photos"]
    with pytest.raises(ValueError, match="groups of other data or of another codec"):
        train_mover(out, Patches(), both, RECIPE, told={"name": "another"})
    with pytest.raises(ValueError, match="groups of other data or of another codec"):
        train_mover(out, Patches(), both[:1], RECIPE, told={"name": "patches"})
    assert json.loads((out / "groups" / "groups.json").read_text())["codec"] == {"name": "patches"}
    file = out / "groups" / "wall-00000.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"wall-00000.safetensors is damaged .*delete it"):
        train_mover(out, Patches(), both, RECIPE, told={"name": "patches"})


def test_sources_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match="there is no"):
        find([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"neither cameras\.npz .* nor pictures"):
        find([tmp_path])
    with pytest.raises(ValueError, match="at least one source"):
        find([])
    assert find(["worlds"]).worlds and not find([write_sequence(tmp_path / "one")]).worlds
    (tmp_path / "one" / "depth" / "00001.png").unlink()
    with pytest.raises(ValueError, match="3 pictures, 2 depth maps, 3 cameras"):
        train_mover(tmp_path / "out", Patches(), [tmp_path / "one"], RECIPE)
