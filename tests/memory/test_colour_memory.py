"""The colour baseline: renders what it saw, encodes it, and says what it does not know."""

import plane_worlds as worlds
import pytest
import torch

from mirage.memory import ColourMemory, LatentMemory, NoMemory

HEIGHT, WIDTH, STRIDE = 40, 56, 8
CELLS = (HEIGHT // STRIDE, WIDTH // STRIDE)


class MeanCodec:
    """A linear codec of one latent per frame: the mean colour of each cell."""

    stride = STRIDE

    def encode(self, frames):
        return torch.nn.functional.avg_pool2d(frames.flatten(0, 1), STRIDE).unflatten(0, frames.shape[:2])


def colours(cams, planes):
    """Smooth colours of the world, in [-1, 1]."""
    points = cams.unproject(worlds.depth(cams, planes, HEIGHT, WIDTH))
    return torch.sin(points * torch.tensor([1.0, 0.7, 0.5])).permute(0, 3, 1, 2)


def remember(planes):
    source = worlds.cameras(worlds.pose()[None], HEIGHT, WIDTH)
    frames, depth = colours(source, planes), worlds.depth(source, planes, HEIGHT, WIDTH)
    latents = MeanCodec().encode(frames[:, None])[:, 0]
    return ColourMemory.from_view(latents, depth, source, frames=frames, codec=MeanCodec()), source, latents


def test_source_view_gives_back_its_frame_and_its_latents():
    memory, source, latents = remember(worlds.ROOM)
    frames, pixels = memory.render(source)
    assert (frames == colours(source, worlds.ROOM)).all() and pixels.visible.all()
    read = memory.read(source)
    assert (read.features == latents).all() and read.visible.all() and read.observed.all()
    mean = torch.nn.functional.avg_pool2d(worlds.depth(source, worlds.ROOM, HEIGHT, WIDTH), STRIDE)
    assert torch.allclose(read.depth, mean, rtol=1e-4)


@pytest.mark.parametrize("move", worlds.MOVES)
def test_other_views_are_rendered_without_holes(move):
    memory, source, _ = remember(worlds.ROOM)
    target = worlds.cameras(worlds.MOVES[move][None], HEIGHT, WIDTH)
    frames, pixels = memory.render(target)
    assert pixels.visible[worlds.cosighted(source, target, worlds.ROOM, HEIGHT, WIDTH, margin=1)].all()
    error = (frames - colours(target, worlds.ROOM)).abs().amax(1)
    assert error[pixels.visible].mean() < 0.01
    read = memory.read(target)
    share = torch.nn.functional.avg_pool2d(pixels.visible.float(), STRIDE)
    assert (read.visible == (share > 0.5)).all()
    assert (read.features[~read.visible[:, None].expand_as(read.features)] == 0).all()


def test_holes_are_filled_from_around_before_encoding():
    memory, source, _ = remember(worlds.WALL)
    aside = worlds.cameras(worlds.pose(yaw=20)[None], HEIGHT, WIDTH)
    frames, pixels = memory.render(aside)
    assert 0.2 < pixels.visible.float().mean() < 0.9
    assert frames.amin() >= colours(source, worlds.WALL).amin() and frames.amax() <= colours(source, worlds.WALL).amax()
    nothing = worlds.cameras(worlds.pose(yaw=180)[None], HEIGHT, WIDTH)
    assert (memory.render(nothing)[0] == 0).all() and not memory.read(nothing).visible.any()


def test_update_adds_only_what_is_new():
    memory, source, latents = remember(worlds.ROOM)
    same = memory.update(
        latents,
        worlds.depth(source, worlds.ROOM, HEIGHT, WIDTH),
        source,
        frames=colours(source, worlds.ROOM),
    )
    assert same.written == 0
    aside = worlds.cameras(worlds.pose(yaw=15)[None], HEIGHT, WIDTH)
    frames, depth = colours(aside, worlds.ROOM), worlds.depth(aside, worlds.ROOM, HEIGHT, WIDTH)
    report = memory.update(MeanCodec().encode(frames[:, None])[:, 0], depth, aside, frames=frames)
    assert report.new > 0.1 * HEIGHT * WIDTH and memory.nbytes > 0
    read = memory.read(aside)
    assert read.visible.all() and not read.observed.all()
    assert (memory.render(aside)[0] - frames).abs().mean() < 0.01


def test_the_budget_of_a_colour_memory_is_kept():
    free, source, latents = remember(worlds.ROOM)
    depth, frames = worlds.depth(source, worlds.ROOM, HEIGHT, WIDTH), colours(source, worlds.ROOM)
    given = dict(frames=frames, codec=MeanCodec())
    with pytest.raises(ValueError, match="budget_bytes must be at least"):
        ColourMemory.from_view(latents, depth, source, **given, budget_bytes=free.nbytes - 1)
    memory = ColourMemory.from_view(latents, depth, source, **given, budget_bytes=free.nbytes + 10_000)
    aside = worlds.cameras(worlds.pose(yaw=40)[None], HEIGHT, WIDTH)
    frames, depth = colours(aside, worlds.ROOM), worlds.depth(aside, worlds.ROOM, HEIGHT, WIDTH)
    report = memory.update(MeanCodec().encode(frames[:, None])[:, 0], depth, aside, frames=frames)
    assert report.evicted > 0 and memory.nbytes <= free.nbytes + 10_000
    assert (memory.render(source)[0] == colours(source, worlds.ROOM)).all()


def test_frames_are_required():
    memory, source, latents = remember(worlds.WALL)
    depth = worlds.depth(source, worlds.WALL, HEIGHT, WIDTH)
    before = {key: value.clone() for key, value in memory.surfels.tensors.items()}
    good = colours(source, worlds.WALL)
    for frames, word in (
        (None, "None"),
        (torch.zeros(1, 3, 8, 8), "like the cameras"),
        (good.numpy(), "must be a tensor"),
        (good.long(), "floating point"),
        (good.to_sparse(), "dense"),
        (good.to("meta"), "must be on cpu"),
        (good.double() + 1e300, "finite in float32"),
    ):
        with pytest.raises(ValueError, match=f"frames.*{word}"):
            memory.update(latents, depth, source, frames=frames)
    with pytest.raises(ValueError, match="codec must have a stride and an encode, got int"):
        ColourMemory.from_view(latents, depth, source, frames=good, codec=8)
    with pytest.raises(ValueError, match="finite"):
        memory.update(latents, depth, source, frames=torch.full((1, 3, HEIGHT, WIDTH), torch.nan))
    for bad, match in ((-depth, "depth must not be negative"), (depth[:, :7], "depth must be a whole multiple")):
        with pytest.raises(ValueError, match=match):
            memory.update(latents, bad, source, frames=colours(source, worlds.WALL))
    with pytest.raises(ValueError, match="a size that the stride"):
        memory.read(source.resize(HEIGHT + 1, WIDTH))
    assert all(torch.equal(memory.surfels.tensors[key], value) for key, value in before.items())


def test_coarse_depth_is_brought_to_the_pixels():
    """A smooth wall seen with depth per cell is the wall seen with depth per pixel."""
    fine, source, latents = remember(worlds.WALL)
    coarse = worlds.depth(source, worlds.WALL, *latents.shape[2:])
    memory = ColourMemory.from_view(latents, coarse, source, frames=colours(source, worlds.WALL), codec=MeanCodec())
    aside = worlds.cameras(worlds.pose(yaw=5)[None], HEIGHT, WIDTH)
    both = fine.render(aside)[1].visible & memory.render(aside)[1].visible
    assert both.float().mean() > 0.7
    difference = (fine.render(aside)[0] - memory.render(aside)[0]).abs() * both
    assert difference.mean() < 0.02


def test_autocast_changes_nothing():
    memory, _, latents = remember(worlds.ROOM)
    aside = worlds.cameras(worlds.pose(x=0.4, yaw=20)[None], HEIGHT, WIDTH)
    frames, depth = colours(aside, worlds.ROOM), worlds.depth(aside, worlds.ROOM, HEIGHT, WIDTH)
    other, *_ = remember(worlds.ROOM)
    report = memory.update(latents, depth, aside, frames=frames)
    with torch.autocast("cpu", torch.bfloat16):
        assert other.update(latents, depth, aside, frames=frames) == report and report.new > 0
        there = other.render(aside)
    here = memory.render(aside)
    assert torch.equal(here[0], there[0]) and torch.equal(here[1].depth, there[1].depth)


def test_three_kinds_answer_in_one_form():
    colour, source, latents = remember(worlds.ROOM)
    depth, frames = worlds.depth(source, worlds.ROOM, HEIGHT, WIDTH), colours(source, worlds.ROOM)
    latent = LatentMemory.from_view(latents, depth, source, frames=frames)
    none = NoMemory.from_view(latents, depth, source, frames=frames)
    none.update(latents, depth, source)
    targets = worlds.cameras(torch.stack([worlds.pose(), worlds.pose(yaw=30)]), HEIGHT, WIDTH)
    for memory in (colour, latent, none):
        read = memory.read(targets)
        assert read.features.shape == (2, 3, *CELLS)
        assert read.visible.shape == read.observed.shape == read.depth.shape == (2, *CELLS)
        assert (read.visible | (read.depth == 0)).all() and (read.visible | ~read.observed).all()
    assert not read.visible.any() and len(none) == none.nbytes == 0
