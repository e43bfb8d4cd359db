"""The update of the latent memory: what is new is written once, what contradicts is not, what was given stays."""

import plane_worlds as worlds
import pytest
import torch

from mirage.camera.cameras import Cameras
from mirage.memory import LatentMemory

HEIGHT, WIDTH, STRIDE = 72, 104, 8
CELLS = (HEIGHT // STRIDE, WIDTH // STRIDE)


def at(*poses: torch.Tensor) -> Cameras:
    return worlds.cameras(torch.stack(poses), HEIGHT, WIDTH)


def remember(planes: torch.Tensor = worlds.ROOM, **options) -> tuple[LatentMemory, Cameras]:
    source = at(worlds.pose())
    return LatentMemory.from_view(*worlds.view(source, planes, STRIDE), source, **options), source


def path(frames: int, step: float = 6.0) -> Cameras:
    return at(*(worlds.pose(x=0.05 * i, yaw=step * i) for i in range(frames)))


@pytest.mark.parametrize("defect", [False, True])
def test_what_is_known_is_not_written_again(defect):
    """Defect 8: the paper's rule writes frame 0 twice and grows with every look."""
    memory, source = remember(read="nearest" if defect else "gather")
    count = len(memory)
    for _ in range(3):
        memory.update(*worlds.view(source, worlds.ROOM, STRIDE), source)
    assert (len(memory) == count) != defect


def test_a_path_there_and_back_costs_nothing_on_the_way_back():
    memory, _ = remember()
    there = path(8)
    first = memory.update(*worlds.view(there, worlds.ROOM, STRIDE), there)
    size = memory.nbytes
    back = there[list(range(7, -1, -1))]
    second = memory.update(*worlds.view(back, worlds.ROOM, STRIDE), back)
    assert first.new > 20 and first.rejected == 0
    assert second.new == 0 and second.written <= 0.02 * len(memory) and memory.nbytes <= 1.02 * size
    for report in (first, second):
        assert report.new + report.refined + report.explained + report.rejected + report.invalid == 8 * 9 * 13


def test_what_was_written_is_read_without_seams():
    memory, _ = remember()
    there = path(8)
    memory.update(*worlds.view(there, worlds.ROOM, STRIDE), there)
    between = at(*(worlds.pose(x=0.05 * i, yaw=6.0 * i) for i in (0.5, 2.3, 4.6, 6.5)))
    read = memory.read(between)
    assert read.visible.float().mean() > 0.995
    error = worlds.misplacement(read, between)
    assert error[read.visible].median() < 0.1 and worlds.rms(error) < 1.0


def test_a_chunk_at_once_has_less_of_a_seam_than_its_views_one_by_one():
    there, sizes, known = path(8), [], []
    for groups in ([range(8)], [[i] for i in range(8)], [range(7, -1, -1)]):
        memory, _ = remember()
        for group in groups:
            memory.update(*worlds.view(there[list(group)], worlds.ROOM, STRIDE), there[list(group)])
        sizes.append(len(memory))
        known.append(memory.read(there).visible)
    assert sizes[0] < 0.9 * sizes[1] and sizes[2] == sizes[0]
    assert known[0].equal(known[1]) and known[0].equal(known[2])


def test_seams_are_of_the_surface_that_is_written():
    """A post before a wall: a step aside shows more of the wall, and of the post nothing that is written again."""
    depth = torch.full((1, HEIGHT, WIDTH), 4.0)
    depth[:, :, 40:56] = 1.0  # two columns of cells
    memory = LatentMemory.from_view(torch.zeros(1, 1, *CELLS), depth, at(worlds.pose()))
    aside = at(worlds.pose(x=16 / (0.8 * WIDTH)))  # 16 pixels of the post, 4 of the wall
    depth = torch.full((1, HEIGHT, WIDTH), 4.0)
    depth[:, :, 24:40] = 1.0
    report = memory.update(torch.zeros(1, 1, *CELLS), depth, aside)
    written = memory.surfels.plane[~memory.surfels.observed]
    assert report.new > 0 and report.written > report.new and len(written) == report.written
    assert (1 / written[:, 0] - 4).abs().amax() < 0.1


def test_observed_wins_over_generated():
    memory, _ = remember(worlds.WALL)
    near = at(worlds.pose(z=1.0))
    features, depth = worlds.view(near, worlds.WALL, STRIDE)
    memory.update(torch.full_like(features, 99.0), depth, near)
    read = memory.read(near)
    assert (read.features < 50).all() and read.observed.all()
    aside = at(worlds.pose(yaw=25))
    memory.update(*worlds.view(aside, worlds.WALL, STRIDE), aside)
    read = memory.read(aside)
    assert read.visible.all() and read.observed.any() and not read.observed.all()


def test_generated_is_refined_by_a_closer_look():
    memory, _ = remember(worlds.WALL)
    away, close = at(worlds.pose(yaw=40)), at(worlds.pose(x=2.0, z=1.6, yaw=40))
    memory.update(*worlds.view(away, worlds.WALL, STRIDE), away)
    features, depth = worlds.view(close, worlds.WALL, STRIDE)
    report = memory.update(features, depth, close)
    assert report.refined > 20
    generated = ~memory.read(close).observed
    error = (memory.read(close).features - features).abs().amax(1)
    assert (error[generated] == 0).float().mean() > 0.9


@pytest.mark.parametrize("defect", [False, True])
def test_a_mover_in_seen_space_and_a_hole_in_a_wall_are_rejected(defect):
    """Depth that contradicts the memory does not enter; the paper's rule takes it in, and it shows for ever."""
    memory, source = remember(worlds.WALL, read="nearest" if defect else "gather")
    other = at(worlds.pose(x=0.1))
    features, depth = worlds.view(other, worlds.WALL, STRIDE)
    mover, hole = (slice(None), slice(16, 40), slice(24, 56)), (slice(None), slice(48, 64), slice(64, 96))
    depth[mover], depth[hole] = 1.2, 6.0
    report = memory.update(features, depth, other)
    assert (report.rejected >= 3 * 4 + 2 * 4) != defect
    assert torch.allclose(memory.read(source).depth, torch.tensor(3.0), rtol=1e-3) != defect


def test_the_hidden_side_of_a_thing_is_not_a_contradiction():
    """A surface in front of what is known, where nothing has seen through, is new."""
    source = at(worlds.pose())
    features, depth = worlds.view(source, worlds.WALL, STRIDE)
    memory = LatentMemory.from_view(features, depth, source)
    # From the side, a thing stands right of what the first view saw and hides a part of the known wall.
    other = at(worlds.pose(x=4.5, yaw=-60))
    place = other.unproject(torch.full((1, HEIGHT, WIDTH), 1.0))
    features, depth = worlds.view(other, worlds.WALL, STRIDE)
    outside = source.project(place.reshape(-1, 3))[0][..., 0].view(1, HEIGHT, WIDTH) > WIDTH + 3 * STRIDE
    hides = outside & (depth > 1.5)
    depth = torch.where(hides, 1.0, depth)
    report = memory.update(features, depth, other)
    assert hides.float().mean() > 0.1
    assert report.rejected == 0 and report.new > 0.15 * 9 * 13


@pytest.mark.parametrize("defect", [False, True])
def test_keep_is_honoured(defect):
    """Defect 9: without a filter, movers and sky are remembered."""
    memory, _ = remember(worlds.WALL)
    aside = at(worlds.pose(yaw=60))
    features, depth = worlds.view(aside, worlds.WALL, STRIDE)
    keep = torch.ones_like(depth, dtype=torch.bool)
    keep[:, :32] = False
    report = memory.update(features, depth, aside, keep=None if defect else keep)
    assert (report.invalid == 4 * CELLS[1]) != defect
    written = memory.surfels.cell[~memory.surfels.observed]
    assert len(written) and (written >= 4 * CELLS[1]).all() != defect


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_depth_is_aligned_before_it_is_written(scale):
    memory, _ = remember()
    there = path(5)
    features, depth = worlds.view(there, worlds.ROOM, STRIDE)
    report = memory.update(features, depth / scale, there)
    assert report.scale == pytest.approx(scale, rel=2e-3) and report.rejected == 0 and report.covisible > 100
    truth = worlds.depth(there, worlds.ROOM, *CELLS)
    read = memory.read(there)
    assert ((read.depth / truth - 1).abs()[read.visible] < 0.06).all()
    if scale == 1:
        assert report.scale == 1.0 and report.shift == 0.0  # exactly: noise is not fitted


def test_the_budget_is_kept_and_the_first_view_stays():
    memory, source = remember()
    first = memory.read(source)
    bounded, _ = remember(budget_bytes=memory.nbytes + 4000)
    evicted = 0
    for start in range(0, 40, 8):
        there = at(*(worlds.pose(x=0.05 * i, yaw=6.0 * i) for i in range(start, start + 8)))
        report = bounded.update(*worlds.view(there, worlds.ROOM, STRIDE), there)
        evicted += report.evicted
        assert bounded.nbytes <= bounded.budget_bytes
    assert evicted > 0 and len(bounded) > len(memory)
    after = bounded.read(source)
    assert (after.features == first.features).all() and after.observed.all()
    newest = there[-1]
    assert bounded.read(newest).visible.float().mean() > 0.1  # what was written last is still there


def test_budget_below_the_first_view_is_refused():
    with pytest.raises(ValueError, match=r"budget_bytes must be at least .* got 100"):
        remember(budget_bytes=100)


def test_features_are_stored_as_asked_and_all_bytes_are_counted():
    memory, source = remember(dtype=torch.float16)
    memory.update(*worlds.view(path(3), worlds.ROOM, STRIDE), path(3))
    assert memory.surfels.features.dtype == torch.float16 and memory.read(source).features.dtype == torch.float16
    assert memory.nbytes == sum(t.numel() * t.element_size() for t in memory.surfels.tensors.values())
