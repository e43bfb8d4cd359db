"""Laws of the memory for any world: round trip, rigid motion, order, duplicates, budget, and the ends of the ranges."""

from dataclasses import replace

import plane_worlds as worlds
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mirage.camera.cameras import Cameras
from mirage.memory import LatentMemory

STRIDE = 4
few = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 10_000)
sides = st.integers(1, 9)


def camera(pose: torch.Tensor, rows: int, columns: int, focal: float = 0.8) -> Cameras:
    return worlds.cameras(pose[None], rows * STRIDE, columns * STRIDE, focal)


def steps(generator: torch.Generator, rows: int, columns: int) -> torch.Tensor:
    """A depth map of blocks between 1 and 4, with unknown ones."""
    levels = 1 + 3 * torch.rand(3, generator=generator)
    blocks = levels[torch.randint(3, (1, -(-rows * STRIDE // 3), -(-columns * STRIDE // 3)), generator=generator)]
    unknown = torch.rand(blocks.shape, generator=generator) < 0.1
    depth = blocks.masked_fill(unknown, 0.0).repeat_interleave(3, 1).repeat_interleave(3, 2)
    return depth[:, : rows * STRIDE, : columns * STRIDE].contiguous()


def remember(seed: int, rows: int, columns: int, views: int = 0, scale: float = 1.0, **options):
    """A memory of a first view and of some others around it, of steps that contradict each other; and all views."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(views + 1, 5, generator=generator) - 0.5
    poses = torch.stack([worlds.pose(*(n[:3] * 1.0).tolist(), *(40 * n[3:]).tolist()) for n in numbers])
    poses[:, :3, 3] *= scale
    cameras = worlds.cameras(poses, rows * STRIDE, columns * STRIDE)
    depth = scale * torch.cat([steps(generator, rows, columns) for _ in numbers])
    latents = torch.randn(views + 1, 5, rows, columns, generator=generator)
    memory = LatentMemory.from_view(latents[:1], depth[:1], cameras[0], **options)
    return memory, latents, depth, cameras


def state(memory: LatentMemory) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in memory.surfels.tensors.items()}


def equal(one: dict, other: dict) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


@few
@given(seeds, sides, sides, st.sampled_from([1e-4, 1.0, 1e4]))
@example(1, 1, 1, 1.0)
def test_the_source_view_reads_back_as_it_was_written(seed, rows, columns, scale):
    """Also after updates: nothing that is imagined ever hides what was given."""
    memory, latents, depth, cameras = remember(seed, rows, columns, views=3, scale=scale)
    kept = memory.surfels.lookup[0] >= 0 if len(memory) else torch.zeros(rows, columns, dtype=torch.bool)
    for _ in range(2):
        read = memory.read(cameras[0])
        assert (read.features[0][:, kept] == latents[0][:, kept]).all() and read.observed[0][kept].all()
        assert (read.depth[0][kept] > 0).all()
        memory.update(latents[1:], depth[1:], cameras[1:])


@few
@given(seeds, st.tuples(*[st.sampled_from([-64.0, -3.0, 0.0, 5.0, 128.0])] * 3), st.integers(0, 3))
def test_a_rigid_motion_of_world_and_cameras_changes_nothing(seed, shift, quarter):
    """Quarter turns and shifts are exact in float32: so are winners, fates and features."""
    memory, latents, depth, cameras = remember(seed, 6, 7, views=3)
    turn = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]).matrix_power(quarter)
    world_from_new = torch.eye(4)
    world_from_new[:3, :3], world_from_new[:3, 3] = turn, torch.tensor(shift)
    # Shifts are told to 2**-12 of a unit, so that nothing is rounded when they move.
    pose = cameras.cam_from_world.clone()
    pose[:, :3, :3] = torch.eye(3)
    pose[:, :3, 3] = (pose[:, :3, 3] * 4096).round() / 4096
    cameras = replace(cameras, cam_from_world=pose)
    moved = replace(cameras, cam_from_world=pose @ world_from_new)
    results = []
    for cams in (cameras, moved):
        memory = LatentMemory.from_view(latents[:1], depth[:1], cams[0])
        report = memory.update(latents[1:], depth[1:], cams[1:])
        results.append((report, memory.read(cams)))
    (report, read), (report2, read2) = results
    assert report == report2 and (read.visible == read2.visible).all() and (read.observed == read2.observed).all()
    assert torch.equal(read.features, read2.features) and torch.equal(read.depth, read2.depth)


@few
@given(seeds, sides, sides)
def test_duplicates_change_nothing(seed, rows, columns):
    """Within an update, even if the views contradict each other; for updates again and again see `test_forget`."""
    memory, latents, depth, cameras = remember(seed, rows, columns, views=3)
    memory.update(latents[:1], depth[:1], cameras[0])
    assert len(memory.surfels.name) <= 1  # the first view once more
    memory.update(latents[1:], depth[1:], cameras[1:])
    twice, *_ = remember(seed, rows, columns, views=3)
    double = [1, 1, 2, 2, 3, 3]
    twice.update(latents[double], depth[double], cameras[double])
    assert len(twice) == len(memory) and twice.nbytes == memory.nbytes
    assert torch.equal(twice.read(cameras).features, memory.read(cameras).features)


@few
@given(seeds, st.floats(1.0, 3.0), st.sampled_from(["gather", "nearest"]))
def test_the_budget_is_never_exceeded(seed, share, read):
    first, latents, depth, cameras = remember(seed, 6, 7, views=12)
    budget = int(share * first.nbytes)
    memory = LatentMemory.from_view(latents[:1], depth[:1], cameras[0], read=read, budget_bytes=budget)
    for start in (1, 5, 9):
        part = slice(start, start + 4)
        before, report = len(memory), memory.update(latents[part], depth[part], cameras[part])
        assert memory.nbytes <= budget
        assert len(memory) == before + report.written - report.retired - report.evicted
        fates = report.new + report.refined + report.explained + report.rejected + report.invalid
        assert fates == 4 * 6 * 7
        assert int(memory.surfels.observed.sum()) == len(first)


def test_the_table_of_cells_is_never_kept():
    memory, latents, depth, cameras = remember(3, 6, 7, views=6)
    memory.update(latents[1:], depth[1:], cameras[1:])
    memory.read(cameras)
    held = [value for value in vars(memory.surfels).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in held) == memory.nbytes


@few
@given(seeds)
def test_the_order_of_elements_never_matters(seed):
    memory, latents, depth, cameras = remember(seed, 6, 7, views=6)
    memory.update(latents[1:4], depth[1:4], cameras[1:4])
    budget = memory.nbytes
    generator = torch.Generator().manual_seed(seed)
    results = []
    for order in (torch.arange(len(memory)), torch.randperm(len(memory), generator=generator)):
        other = LatentMemory(memory.surfels.take(order), STRIDE, budget_bytes=budget)
        reports = [other.update(latents[part], depth[part], cameras[part]) for part in (slice(4, 7), slice(1, 3))]
        results.append((reports, other.nbytes, other.read(cameras)))
    (reports, size, read), (reports2, size2, read2) = results
    assert reports == reports2 and size == size2
    assert all(torch.equal(a, b) for a, b in zip(vars(read).values(), vars(read2).values(), strict=True))


@few
@given(seeds, sides, sides, st.sampled_from(["gather", "nearest", "nearest-corner"]))
@example(1, 1, 1, "gather")
@example(2, 1, 9, "nearest")
def test_nothing_to_remember_and_nothing_to_see(seed, rows, columns, read):
    memory, latents, depth, cameras = remember(seed, rows, columns, views=2, read=read)
    before = state(memory)
    report = memory.update(latents[1:], torch.zeros_like(depth[1:]), cameras[1:])
    assert report.invalid == 2 * rows * columns and equal(before, state(memory))
    memory.update(latents[:0], depth[:0], cameras[:0])
    assert equal(before, state(memory))
    # All behind the camera: it stands before all that is known and looks away.
    away = camera(worlds.pose(z=-20.0, yaw=180) @ cameras.cam_from_world[0], rows, columns)
    assert not memory.read(away).visible.any() and memory.read(cameras[:0]).features.shape == (0, 5, rows, columns)
    blind = LatentMemory.from_view(latents[:1], torch.zeros_like(depth[:1]), cameras[0], read=read)
    assert len(blind) == 0 and not blind.read(cameras).visible.any()
    report = blind.update(latents[1:], depth[1:], cameras[1:])
    assert len(blind) == report.written and blind.read(cameras[1:]).visible.any() == (report.written > 0)


@few
@given(seeds, st.sampled_from([1e-4, 1e-2, 1e2, 1e6]))
def test_the_scale_of_the_world_does_not_matter(seed, scale):
    scale = 2.0 ** round(torch.tensor(scale).log2().item())  # exact in float32
    results = []
    for size in (1.0, scale):
        memory, latents, depth, cameras = remember(seed, 6, 7, views=3, scale=size)
        report = memory.update(latents[1:], depth[1:], cameras[1:])
        read = memory.read(cameras)
        results.append((report, read.features, read.visible, read.depth / size))
    (report, *read), (report2, *read2) = results
    assert (report.new, report.refined, report.rejected) == (report2.new, report2.refined, report2.rejected)
    assert all(torch.equal(a, b) for a, b in zip(read, read2, strict=True))


@few
@given(seeds, st.sampled_from([1e4, 1e6]))
def test_far_from_the_origin_reads_stay_where_they_are(seed, far):
    """At 1e6 a pose is told to 1/16 of a unit; with steps of that size nothing else is lost."""
    generator = torch.Generator().manual_seed(seed)
    features, depth = worlds.view(camera(worlds.pose(), 6, 7), worlds.WALL, STRIDE)
    shift = torch.tensor([far, -far, far])
    poses = torch.eye(4).repeat(4, 1, 1)
    poses[1:, :3, 3] = torch.randint(-8, 9, (3, 3), generator=generator) / 16
    near = worlds.cameras(poses, 6 * STRIDE, 7 * STRIDE)
    away = replace(near, cam_from_world=poses.clone())
    away.cam_from_world[:, :3, 3] -= shift
    reads = []
    for cams in (near, away):
        memory = LatentMemory.from_view(features, depth, cams[0])
        views = worlds.view(near, worlds.WALL, STRIDE)
        memory.update(*(x[1:] for x in views), cams[1:])
        reads.append(memory.read(cams))
    assert (reads[0].visible == reads[1].visible).all() and torch.equal(reads[0].features, reads[1].features)


@few
@given(seeds, st.sampled_from([torch.float16, torch.bfloat16, torch.float64]), st.integers(1, 64))
def test_any_stride_dtype_and_number_of_channels(seed, dtype, channels):
    generator = torch.Generator().manual_seed(seed)
    stride = int(torch.randint(1, 33, (), generator=generator))
    camera = worlds.cameras(worlds.pose()[None], 3 * stride, 5 * stride)
    latents = torch.randn(1, channels, 3, 5, generator=generator).to(dtype)
    memory = LatentMemory.from_view(latents, 2 * torch.ones(1, 3 * stride, 5 * stride), camera)
    aside = replace(camera, cam_from_world=worlds.pose(x=0.7)[None])
    report = memory.update(latents, 2 * torch.ones(1, 3, 5), aside)
    read = memory.read(camera)
    assert memory.stride == stride and report.new > 0 and torch.equal(read.features, latents)
    assert memory.surfels.features.dtype == dtype == memory.read(aside).features.dtype
