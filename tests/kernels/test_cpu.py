"""The CPU backend gives the bits of the reference, at any size, for any order of elements and number of threads."""

import contextlib

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirage.kernels import backend, ops

compiled = pytest.importorskip("mirage.kernels.compiled", reason="numba is not installed")
few = settings(max_examples=25, deadline=None, derandomize=True)
HALVES = (torch.float32, torch.float16, torch.bfloat16)


@contextlib.contextmanager
def threads(count: int):
    """As many threads, and no piece of work too small for them."""
    before, small = torch.get_num_threads(), compiled.SMALL
    torch.set_num_threads(count)
    compiled.SMALL = 1
    try:
        yield
    finally:
        torch.set_num_threads(before)
        compiled.SMALL = small


def both(operation, *args, count: int = 2, **options) -> list:
    """What the reference and the CPU backend give."""
    results = []
    for name in ("reference", "cpu"):
        with backend.use(name), threads(count):
            result = operation(*args, **options)
        results.append(result if isinstance(result, tuple) else (result,))
    return results


def same_bits(first: tuple, second: tuple) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(first, second, strict=True))


def poses(count: int, generator: torch.Generator, spread: float, shift: float = 0.0) -> torch.Tensor:
    out = torch.eye(4).repeat(count, 1, 1)
    twist = 0.2 * torch.randn(count, 3, 3, generator=generator)
    out[:, :3, :3] = torch.linalg.matrix_exp(twist - twist.mT)
    center = spread * torch.randn(count, 3, generator=generator) + shift
    out[:, :3, 3] = -(out[:, :3, :3] @ center[..., None])[..., 0]
    return out


def intrinsics(count: int, height: int, width: int) -> torch.Tensor:
    k = torch.tensor([[0.8 * width, 0.0, 0.48 * width], [0.0, 0.9 * width, 0.53 * height], [0.0, 0.0, 1.0]])
    return k.repeat(count, 1, 1)


def elements(seed: int, grid: tuple[int, int], sources: int, share: float, spread: float, shift: float = 0.0) -> dict:
    """Some cells of some source views that look at rough surfaces, half of them coplanar so that they compete."""
    generator = torch.Generator().manual_seed(seed)
    rows, cols = grid
    chosen = (torch.rand(sources, rows, cols, generator=generator) < share).flatten().nonzero()[:, 0]
    n = len(chosen)
    flat = torch.rand(n, generator=generator) < 0.5
    plane = torch.cat(
        [torch.where(flat, 0.25, 0.2 + 0.3 * torch.rand(n, generator=generator))[:, None], torch.zeros(n, 2)], 1
    )
    plane[:, 1:] = torch.where(flat[:, None], 0.0, 0.05 * torch.randn(n, 2, generator=generator))
    lookup = torch.full((sources, rows * cols), -1, dtype=torch.int32)
    source, cell = chosen // (rows * cols), chosen % (rows * cols)
    lookup[source, cell] = torch.arange(n, dtype=torch.int32)
    return {
        "plane": plane,
        "cell": cell.int(),
        "reach": torch.randint(20, 127, (n, 4), generator=generator).to(torch.int8),
        "rank": torch.randint(0, 4, (n,), generator=generator),
        "source": source.int(),
        "name": torch.randperm(sources + 3, generator=generator)[:sources],
        "source_size": grid,
        "source_intrinsics": intrinsics(sources, rows, cols),
        "source_cam_from_world": poses(sources, generator, spread, shift),
        "lookup": lookup.view(sources, rows, cols),
    }


def targets(seed: int, views: int, size: tuple[int, int], spread: float, shift: float = 0.0) -> tuple:
    generator = torch.Generator().manual_seed(seed + 1)
    return intrinsics(views, *size), poses(views, generator, spread, shift), *size


def splat(e: dict, *target) -> tuple:
    return ops.splat_surfels(*(value for key, value in e.items() if key != "lookup"), *target)


sizes = st.tuples(st.integers(1, 13), st.integers(1, 21))


@few
@given(st.integers(0, 999), st.integers(0, 700), st.integers(1, 4), sizes, st.sampled_from([0.0, 1e3, 1e7, 1e30]))
@example(0, 0, 2, (3, 5), 0.0)
@example(1, 700, 1, (1, 1), 0.0)
def test_nearest_points(seed, n, views, size, shift):
    generator = torch.Generator().manual_seed(seed)
    points = 2 * torch.randn(n, 3, generator=generator) + torch.tensor([0.0, 0.0, 2.5])
    points = torch.cat([points, points[: n // 3]]) + shift  # equals: the first wins
    k, pose, height, width = targets(seed, views, size, 1.0, shift)
    results = both(ops.splat_nearest, points, torch.randn(len(points), 3), k, pose, height, width)
    assert same_bits(*results)


def test_nearest_points_on_borders_and_runs_out_of_sight():
    """A picture holds its left border, not its right one nor the near plane; points may lie in rows or in columns."""
    eighths, zero = torch.arange(-8, 9) / 8, torch.zeros(17)
    across = torch.stack([eighths, zero, zero + 1], 1)  # at columns 2 x + 1.5 of three
    ahead = torch.stack([zero, zero, eighths], 1)
    behind, aside = (across * torch.tensor([1, 1, -1])).repeat(4, 1), (across + torch.tensor([99, 0, 0])).repeat(4, 1)
    points = torch.cat([behind, aside, across, behind, ahead, aside])
    target = (torch.tensor([[[2.0, 0, 1.5], [0, 2, 1], [0, 0, 1]]]), torch.eye(4)[None], 2, 3)
    first = torch.tensor([2, len(behind) + 17 + 11, 10]) + len(behind) + len(aside)
    for layout in (points, points.T.contiguous().T):
        results = both(ops.splat_nearest, layout, layout, *target, near=0.25)
        assert same_bits(*results)
        assert results[0][1].tolist() == [[[-1, -1, -1], first.tolist()]]
    unseen = torch.cat([behind, aside])
    assert all((index == -1).all() for _, index in both(ops.splat_nearest, unseen, unseen, *target))


@few
@given(
    st.integers(0, 999), sizes, st.integers(1, 5), st.sampled_from([0.0, 0.4, 1.0]), st.integers(1, 4), sizes,
    st.sampled_from([0.0, 0.5, 4.0]), st.sampled_from([0.0, 1e3, 1e7, 1e30]), st.booleans(),
)  # fmt: skip
@example(0, (70, 81), 2, 1.0, 3, (10, 21), 4.0, 0.0, False)
@example(1, (1, 1), 1, 1.0, 1, (1, 1), 0.1, 0.0, False)
@example(2, (13, 21), 5, 0.4, 3, (10, 21), 1.0, 0.0, True)
def test_nearest_cells(seed, grid, sources, share, views, size, spread, shift, shuffled):
    """What no view can see is passed over, and nothing else: the same bits as all points, whatever their order."""
    e, generator = elements(seed, grid, sources, share, spread, shift), torch.Generator().manual_seed(seed)
    keys = ("plane", "cell", "source")
    e["plane"][torch.rand(len(e["plane"]), generator=generator) < 0.02, 0] *= -1
    if shuffled:
        order = torch.randperm(len(e["plane"]), generator=generator)
        e |= {key: e[key][order] for key in keys}
    cells = (*(e[key] for key in keys), grid[1], e["source_intrinsics"], e["source_cam_from_world"])
    target = targets(seed, views, size, spread, shift)
    features = torch.randn(len(e["plane"]), 3, generator=generator).half()
    results = both(ops.splat_cells, features, *cells, *target)
    image, index, depth = results[0]
    assert same_bits(*results)
    assert same_bits((image, index), ops.splat_nearest(ops.surfel_points(*cells), features, *target))
    assert ((depth > 0) == (index >= 0)).all() and (depth[index < 0] == 0).all()


def test_most_cells_are_out_of_sight_and_the_others_are_all_drawn(generator):
    """A camera walks away from where most was seen: few groups are in its view, none of them is lost."""
    e = elements(6, (44, 80), 9, 1.0, 0.0)
    e["source_cam_from_world"][:, 2, 3] = torch.arange(9.0)  # each a step further back
    e["source_cam_from_world"][5:, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    cells = (e["plane"], e["cell"], e["source"], 80, e["source_intrinsics"], e["source_cam_from_world"])
    k, pose, *size = targets(6, 3, (44, 80), 0.1)
    pose[1, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0])) @ pose[1, :3, :3]
    k[2, :2, :2] *= 20  # through a telescope
    features = torch.arange(len(e["plane"]), dtype=torch.float32)[:, None]
    (image, index, _), fast = both(ops.splat_cells, features, *cells, k, pose, *size)
    assert same_bits((image, index), fast[:2]) and (index >= 0).flatten(1).any(1).all()
    assert (image[:, 0][index >= 0] == index[index >= 0]).all()


@few
@given(st.integers(0, 999), st.integers(1, 3), sizes, st.tuples(st.integers(1, 9), st.integers(1, 9)))
@example(0, 2, (1, 1), (16, 16))
@example(1, 2, (5, 7), (16, 16))
def test_cell_planes(seed, views, size, pixels):
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    depth = 2 + 0.1 * torch.rand(views, height * pixels[0], width * pixels[1], generator=generator)
    near = torch.nn.functional.interpolate(torch.rand(views, 1, 3, 4, generator=generator), depth.shape[1:])[:, 0]
    depth = torch.where(near < 0.4, depth / 2, depth)
    usable = torch.rand(depth.shape, generator=generator) < torch.rand(1, generator=generator) * 1.5
    assert same_bits(*both(ops.lift_planes, depth, usable, height, width))


@few
@given(
    st.integers(0, 999), sizes, st.integers(1, 4), st.sampled_from([0.0, 0.4, 1.0]), st.integers(1, 4), sizes,
    st.sampled_from([0.0, 0.5, 4.0]), st.sampled_from([0.0, 1e4]),
)  # fmt: skip
@example(0, (9, 14), 3, 1.0, 3, (10, 21), 0.5, 0.0)
@example(1, (1, 1), 1, 1.0, 1, (1, 1), 0.1, 0.0)
@example(2, (5, 7), 2, 0.0, 2, (5, 7), 0.1, 0.0)
def test_surfel_hits_and_gather(seed, grid, sources, share, views, size, spread, shift):
    e = elements(seed, grid, sources, share, spread, shift)
    results = both(splat, e, *targets(seed, views, size, spread, shift))
    assert same_bits(*results)
    index, _, place, _ = results[0]
    for dtype in HALVES:
        features = torch.randn(len(e["plane"]), 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
        keys = ("plane", "cell", "source", "lookup")
        rows = both(ops.gather, features, *(e[key] for key in keys), index.flatten(), place.flatten(0, 2))
        assert same_bits(*rows) and rows[0][0].isfinite().all()


@pytest.mark.parametrize("count", [1, 2])
def test_order_of_elements_and_threads_do_not_matter(generator, count):
    e, target = elements(3, (9, 14), 4, 0.8, 0.4), targets(3, 5, (11, 16), 0.4)
    per_element = ("plane", "cell", "reach", "rank", "source")
    order = torch.randperm(len(e["plane"]), generator=generator)
    ident = e["name"][e["source"].long()] * 9 * 14 + e["cell"]
    results = []
    for some in (torch.arange(len(order)), order):
        with backend.use("cpu"), threads(count):
            index, *rest = splat(e | {key: e[key][some] for key in per_element}, *target)
        results.append((torch.where(index >= 0, ident[some][index.clamp(min=0)], -1), *rest))
    assert same_bits(*results) and (results[0][0] >= 0).float().mean() > 0.3


def test_all_is_behind_the_camera():
    e = elements(4, (5, 7), 1, 1.0, 0.0)
    k, _, height, width = targets(4, 1, (5, 7), 0.0)
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])) @ e["source_cam_from_world"]
    for result in both(splat, e, k, turned, height, width):
        assert (result[0] == -1).all() and all((x == 0).all() for x in result[1:])


@few
@given(
    st.integers(0, 999), st.integers(0, 700), sizes, st.integers(1, 4), st.booleans(), st.sampled_from([0.0, 1e4, 1e30])
)
@example(0, 700, (9, 14), 3, True, 0.0)
@example(0, 700, (9, 14), 3, False, 0.0)
def test_seen_through(seed, n, grid, views, strict, shift):
    e = elements(seed, grid, views, 0.9, 0.3, shift)
    points = (
        2 * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) + torch.tensor([0.0, 0.0, 2.0]) + shift
    )
    keys = ("plane", "lookup", "source_intrinsics", "source_cam_from_world")
    assert same_bits(*both(ops.seen_through, points, *(e[key] for key in keys), strict=strict))


def test_features_that_need_a_gradient_get_one():
    e, target = elements(5, (5, 7), 2, 1.0, 0.2), targets(5, 2, (6, 9), 0.2)
    with backend.use("cpu"):
        index, _, place, _ = splat(e, *target)
        features = torch.randn(len(e["plane"]), 3, requires_grad=True)
        keys = ("plane", "cell", "source", "lookup")
        args = (*(e[key] for key in keys), index.flatten(), place.flatten(0, 2))
        ops.gather(features, *args).sum().backward()
        assert torch.equal(ops.gather(features, *args).detach(), ops.gather(features.detach(), *args))
    assert features.grad.sum() == pytest.approx(3 * (index >= 0).sum().item(), rel=1e-5)


def test_points_of_surfels_are_the_same_and_lie_on_their_rays(generator):
    n, views, rows, columns = 40_000, 5, 90, 101
    plane = torch.rand(n, 3, generator=generator) + 0.1
    cell = torch.randint(0, rows * columns, (n,), generator=generator, dtype=torch.int32)
    source = torch.randint(0, views, (n,), generator=generator, dtype=torch.int32)
    k = torch.eye(3).repeat(views, 1, 1)
    k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2] = 80.0, 70.0, 50.0, 44.0
    pose = torch.eye(4).repeat(views, 1, 1)
    turn = torch.linalg.qr(torch.randn(views, 3, 3, generator=generator, dtype=torch.float64))[0]
    turn = turn * turn.det()[:, None, None]
    pose[:, :3, :3], pose[:, :3, 3] = turn.float(), torch.randn(views, 3, generator=generator)
    given = (plane, cell, source, columns, k, pose)
    points = ops.surfel_points(*given)
    with backend.use("reference"):
        assert torch.equal(points, ops.surfel_points(*given))
    cam = torch.einsum("nij,nj->ni", pose[source, :3, :3], points) + pose[source, :3, 3]
    assert (cam[:, 2] * plane[:, 0] - 1).abs().max() < 1e-4
    image = torch.einsum("nij,nj->ni", k[source], cam / cam[:, 2:])[:, :2]
    assert (image - torch.stack([cell % columns + 0.5, cell // columns + 0.5], 1)).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_rounded_to_half_precision_as_torch_does(dtype):
    from mirage.kernels.cpu import _halves

    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    between = (every.sort().values[:-1].double() + every.sort().values[1:].double()).float() / 2
    bits = torch.cat([every, between]).view(torch.int32)
    values = torch.cat([bits - 1, bits, bits + 1]).view(torch.float32)[:, None]
    rounded = torch.empty_like(values, dtype=dtype)
    _halves(values.numpy(), values.view(torch.int32).numpy(), dtype == torch.float16, rounded.view(torch.int16).numpy())
    known = ~values.isnan()
    assert torch.equal(rounded[known].view(torch.int16), values[known].to(dtype).view(torch.int16))
    assert bool(rounded[~known].isnan().all())
