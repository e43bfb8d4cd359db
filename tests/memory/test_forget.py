"""What goes and what stays: budget, refined elements, moved objects, wrong depth maps."""

import plane_worlds as worlds
import pytest
import torch

from mirage.camera.cameras import Cameras
from mirage.memory import LatentMemory
from mirage.memory import store as store_module

HEIGHT, WIDTH, STRIDE = 72, 104, 8
CELLS = (HEIGHT // STRIDE, WIDTH // STRIDE)


def at(*poses: torch.Tensor) -> Cameras:
    return worlds.cameras(torch.stack(poses), HEIGHT, WIDTH)


def remember(planes: torch.Tensor = worlds.ROOM, **options) -> tuple[LatentMemory, Cameras]:
    source = at(worlds.pose())
    return LatentMemory.from_view(*worlds.view(source, planes, STRIDE), source, **options), source


def noisy(depth: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    return depth * (1 + sigma * torch.randn(depth.shape, generator=generator))


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("world", worlds.WORLDS)
def test_the_same_views_again_and_again_cost_nothing(generator, world, sigma):
    planes = worlds.WORLDS[world]
    memory, _ = remember(planes)
    hundred = (world, sigma) == ("wall", 0.02)
    views = at(*list(worlds.MOVES.values())[2 if hundred else 0 : 4 if hundred else None])
    features, depth = worlds.view(views, planes, STRIDE)
    memory.update(features, noisy(depth, sigma, generator), views)
    count, size = len(memory), memory.nbytes
    for _ in range(100 if hundred else 4):
        report = memory.update(features, noisy(depth, sigma, generator), views)
        assert (len(memory), memory.nbytes) == (count, size)
    assert report.written == report.evicted == report.retired == 0


def test_coarse_elements_go_when_finer_ones_show_all_of_them():
    """From afar, then from near all over: what is left of the far view is what the near ones do not cover."""
    memory, _ = remember(worlds.WALL)
    far = at(worlds.pose(x=9.0, z=-3.0))
    memory.update(*worlds.view(far, worlds.WALL, STRIDE), far)
    coarse = int((memory.surfels.name[memory.surfels.source] == 1).sum())
    retired = 0
    for y in (-2.0, -0.7, 0.7, 2.0):
        near = at(*(worlds.pose(x=9.0 + x, y=y, z=0.0) for x in (-4.5, -2.7, -0.9, 0.9, 2.7, 4.5)))
        report = memory.update(*worlds.view(near, worlds.WALL, STRIDE), near)
        retired += report.retired
        assert report.refined > 50
    left = (memory.surfels.name[memory.surfels.source] == 1).sum()
    assert retired > 0.5 * coarse and left == coarse - retired
    between = at(*(worlds.pose(x=9.0 + x, y=0.3, z=z) for x, z in ((0.2, 0.0), (-1.3, 0.4), (1.7, -1.0), (0, -3))))
    read = memory.read(between)
    assert read.visible.float().mean() > 0.995
    assert worlds.rms(worlds.misplacement(read, between)) < 0.5


def test_observed_elements_are_never_retired():
    memory, source = remember(worlds.WALL)
    first = memory.read(source)
    for _ in range(5):
        near = at(*(worlds.pose(x=0.3 * i, z=1.5) for i in range(-2, 3)))
        memory.update(*worlds.view(near, worlds.WALL, STRIDE), near)
        gone = at(worlds.pose(x=0.1))  # says that there is nothing where the wall was
        features, depth = worlds.view(gone, worlds.WALL, STRIDE)
        depth[:, : HEIGHT // 3] = 9.0
        memory.update(features, depth, gone)
    after = memory.read(source)
    assert (after.features == first.features).all() and after.observed.all() and (after.depth == first.depth).all()


ASIDE = [worlds.pose(x=8 + 0.1 * i) for i in range(4)]


def with_object() -> LatentMemory:
    """A memory that has imagined a box before the wall, outside of what the first view saw."""
    memory, _ = remember(worlds.WALL)
    views = at(*ASIDE)
    features, depth = worlds.view(views, worlds.WALL, STRIDE)
    box = _ray_meets_card(views)
    assert 0.02 < (box > 0).float().mean() < 0.3
    depth = torch.where(box > 0, box, depth)
    memory.update(torch.where(_cells(box > 0)[:, None], 50.0, features), depth, views)
    assert (_read(memory, views) == 50).any()
    return memory


def _ray_meets_card(views: Cameras) -> torch.Tensor:
    """Depth of a card of 0.6 x 0.6 that stands across the first of these views, 0 beside it."""
    first = views[0]
    normal = first.cam_from_world[0, 2, :3]
    center = first.centers[0]
    one = views.unproject(torch.ones(len(views), HEIGHT, WIDTH))
    origin = views.centers[:, None, None]
    distance = (1.5 - (origin - center) @ normal) / ((one - origin) @ normal)
    point = origin + distance[..., None] * (one - origin)
    local = (point - center) @ first.cam_from_world[0, :3, :3].T
    on = (local[..., :2].abs() < 0.3).all(-1) & (distance > 0)
    return torch.where(on, distance, 0.0)


def _cells(mask: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(mask.float(), STRIDE) > 0.5


def _read(memory: LatentMemory, views: Cameras) -> torch.Tensor:
    return memory.read(views).features[:, 0]


def test_a_moved_object_that_stays_away_is_gone_after_three_updates():
    memory, views = with_object(), at(*ASIDE)
    features, depth = worlds.view(views, worlds.WALL, STRIDE)
    retired = 0
    for update in range(3):
        assert (_read(memory, views) == 50).any()  # one or two updates may be wrong
        report = memory.update(features, depth, views)
        retired += report.retired
        assert (report.retired > 0) == (update == 2)
    read = memory.read(views)
    assert not (read.features[:, 0] > 40).any() and retired > 10
    assert read.visible[:, 1:-1, 1:-1].float().mean() > 0.99  # the wall that it hid has been remembered


def test_an_object_that_is_seen_again_is_not_doubted_any_more():
    memory, views = with_object(), at(*ASIDE)
    features, depth = worlds.view(views, worlds.WALL, STRIDE)
    box = _ray_meets_card(views)
    before = len(memory)
    for _ in range(3):
        for _ in range(2):
            memory.update(features, depth, views)
        assert memory.surfels.doubt.any()
        memory.update(torch.where(_cells(box > 0)[:, None], 50.0, features), torch.where(box > 0, box, depth), views)
    assert len(memory) >= before and (_read(memory, views) == 50).any()


@pytest.mark.parametrize("times", [1, 2])
def test_wrong_depth_maps_of_a_chunk_erase_nothing(times):
    """All of the views see through all of the memory, or through a part of it."""
    for wrong in (slice(None), slice(0, HEIGHT // 2)):
        memory = with_object()
        views = at(*ASIDE)
        before = memory.read(views)
        tensors = {key: value.clone() for key, value in memory.surfels.tensors.items() if key != "doubt"}
        features, depth = worlds.view(views, worlds.WALL, STRIDE)
        depth[:, wrong] = 20 * torch.rand(depth[:, wrong].shape, generator=torch.Generator().manual_seed(1)) + 8
        for _ in range(times):
            report = memory.update(torch.full_like(features, -7.0), depth, views)
            assert report.retired == 0 and report.rejected > 0.1 * views.cam_from_world.shape[0] * 9 * 13
        for key, value in tensors.items():
            assert (memory.surfels.tensors[key][: len(value)] == value).all()
        after = memory.read(views)
        assert (after.features[before.visible[:, None].expand_as(after.features)] != -7).all()


def test_a_view_that_contradicts_most_of_the_memory_has_no_say():
    memory, views = with_object(), at(*ASIDE)
    features, depth = worlds.view(views, worlds.WALL, STRIDE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        factor = 1.3 + 2 * torch.rand(len(views), *CELLS, generator=generator)
        wrong = depth * factor.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)
        memory.update(features, wrong, views)
    assert (_read(memory, views) == 50).any() and not memory.surfels.doubt.any()


def walk(memory: LatentMemory, updates: int, views: int = 4) -> list:
    reports = []
    for start in range(0, updates * views, views):
        there = at(*(worlds.pose(x=0.4 * i, yaw=3.0 * i) for i in range(start, start + views)))
        reports.append(memory.update(*worlds.view(there, worlds.TILTED, STRIDE), there))
    return reports


@pytest.mark.parametrize("read", ["gather", "nearest"])
def test_the_budget_holds_at_every_moment(monkeypatch, read):
    """No set of elements that an update makes on its way is larger than budget and views at work together."""
    sizes = []
    create = store_module.Surfels.__init__

    def counted(self, **tensors):
        create(self, **tensors)
        sizes.append(self.nbytes)

    monkeypatch.setattr(store_module.Surfels, "__init__", counted)
    first = remember(worlds.TILTED, read=read)[0].nbytes
    budget = 13 * first // 10
    memory, source = remember(worlds.TILTED, read=read, budget_bytes=budget)
    given = memory.read(source)
    chunk = 4 * (CELLS[0] * CELLS[1] * memory.surfels.element_bytes + memory.surfels.view_bytes)
    evicted = 0
    for _ in range(30):
        (report,) = walk(memory, 1)
        evicted += report.evicted
        assert memory.nbytes <= budget
        assert memory.nbytes == len(memory) * memory.surfels.element_bytes + len(memory.surfels.name) * (
            memory.surfels.view_bytes
        )
    assert evicted > 0 and max(sizes) <= budget + chunk
    after = memory.read(source)
    assert read == "nearest" or ((after.features == given.features).all() and after.observed.all())


def test_bytes_and_views_stay_flat_on_a_long_walk():
    first = remember(worlds.TILTED)[0].nbytes
    memory, _ = remember(worlds.TILTED, budget_bytes=3 * first)
    views, counts = [], []
    for start in range(0, 96, 6):  # along a wall without end
        there = at(*(worlds.pose(x=0.7 * i) for i in range(start, start + 6)))
        report = memory.update(*worlds.view(there, worlds.WALL, STRIDE), there)
        views.append(len(memory.surfels.name))
        counts.append(len(memory))
        assert memory.nbytes <= 3 * first and report.new > 0
    assert max(views[8:]) <= max(views[:8]) and min(counts[8:]) > 0.8 * max(counts)


def test_what_is_near_stays_and_what_is_far_goes_first():
    """Out and back to half-way: the place of the second half is nearer than the one in between."""
    memory, _ = remember(worlds.WALL)
    places = [at(worlds.pose(x=4.0 * i)) for i in range(1, 6)]
    for place in places:
        memory.update(*worlds.view(place, worlds.WALL, STRIDE), place)
    memory.budget_bytes = int(0.6 * memory.nbytes)
    memory.update(*worlds.view(places[3], worlds.WALL, STRIDE), places[3])
    share = [memory.read(place).visible.float().mean().item() for place in places]
    assert share[3] == 1 and share[4] > 0.9 and share[0] < 0.5
    left = memory.surfels.name[memory.surfels.source]
    assert memory.nbytes <= memory.budget_bytes and (left == 0).sum() == CELLS[0] * CELLS[1]


def test_forgotten_views_take_no_room():
    memory, _ = remember(worlds.WALL)
    first = memory.nbytes
    for i in range(1, 4):
        place = at(worlds.pose(x=6.0 * i))
        memory.update(*worlds.view(place, worlds.WALL, STRIDE), place)
    memory.budget_bytes = first
    away = at(worlds.pose(x=60.0))
    report = memory.update(*worlds.view(away, worlds.WALL, STRIDE), away)
    assert memory.nbytes == first and memory.surfels.name.tolist() == [0] and report.evicted > 0
