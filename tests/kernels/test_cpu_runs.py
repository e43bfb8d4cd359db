"""What the gathering read passes over changes nothing: copies of surfaces, nearly equal depths, any view of them."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirage.kernels import backend, ops

compiled = pytest.importorskip("mirage.kernels.compiled", reason="numba is not installed")
few = settings(max_examples=20, deadline=None, derandomize=True)


def poses(centers: torch.Tensor, twist: torch.Tensor) -> torch.Tensor:
    out = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    out[:, :3, :3] = torch.linalg.matrix_exp((twist - twist.mT).double())
    out[:, :3, 3] = -(out[:, :3, :3] @ centers.double()[..., None])[..., 0]
    return out


def intrinsics(count: int, rows: int, cols: int) -> torch.Tensor:
    k = torch.tensor([[0.8 * cols, 0.0, 0.48 * cols], [0.0, 0.9 * cols, 0.53 * rows], [0.0, 0.0, 1.0]])
    return k.repeat(count, 1, 1)


def copies(seed: int, sources: int, grid: tuple[int, int], spread: float, shift: float, step: float, tilt: float):
    """Cells of source views that all look at the same two tilted planes, depths off by up to some ten-bit steps."""
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)
    randn = lambda *shape: torch.randn(*shape, generator=generator)
    rows, cols = grid
    pose = poses(spread * randn(sources, 3) + shift, 0.1 * randn(sources, 3, 3))
    normal = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]) + tilt * randn(2, 3)
    k = intrinsics(sources, rows, cols)
    u, v = torch.arange(cols) + 0.5, torch.arange(rows) + 0.5
    ray = torch.stack([u.expand(rows, cols), v[:, None].expand(rows, cols), torch.ones(rows, cols)], -1).reshape(-1, 3)
    m = pose[:, :3, :3].mT @ torch.linalg.inv(k.double())
    center = -(pose[:, :3, :3].mT @ pose[:, :3, 3:])[..., 0] - shift
    # n . (c + z d) = b: inverse depth is n . d / (b - n . c), a plane in the picture.
    per_surface = []
    for n, b in zip(normal.double(), (4.0, 6.0), strict=True):
        row = torch.einsum("j,sjk->sk", n, m) / (b - center @ n)[:, None]
        per_surface.append(torch.stack([row @ ray.double().T, *row[:, :2, None].expand(-1, 2, len(ray)).unbind(1)], -1))
    nearer = (ray[:, 0] * 3 // cols + ray[:, 1] * 2 // rows) % 2 < 1
    plane = torch.where(nearer[None, :, None], *per_surface).float()
    plane *= 1 + step * torch.randint(-3, 4, plane.shape[:2], generator=generator)[..., None]
    kept = ((plane[..., 0] > 0.02) & (rand(sources, rows * cols) < 0.95)).flatten()
    count = sources * rows * cols
    chosen = kept.nonzero()[:, 0]
    reach = torch.tensor([6, 64, 109])[
        torch.multinomial(torch.tensor([0.05, 0.3, 0.65]), 4 * count, True, generator=generator)
    ]
    return (
        plane.flatten(0, 1)[chosen],
        (chosen % (rows * cols)).int(),
        reach.view(-1, 4)[chosen].to(torch.int8),
        torch.randint(0, 5, (count,), generator=generator)[chosen],
        (chosen // (rows * cols)).int(),
        torch.randperm(sources + 3, generator=generator)[:sources],
        grid,
        k,
        pose.float(),
    )


def both(given: tuple, target: tuple, tolerance: float, count: int = 2) -> list:
    """What the reference and the CPU backend give; no piece of work is too small for the latter."""
    before, small, results = torch.get_num_threads(), compiled.SMALL, []
    torch.set_num_threads(count)
    compiled.SMALL = 1
    try:
        for name in ("reference", "cpu"):
            with backend.use(name):
                results.append(ops.splat_surfels(*given, *target, tolerance=tolerance))
    finally:
        torch.set_num_threads(before)
        compiled.SMALL = small
    return results


@few
@given(
    st.integers(0, 9999),
    st.sampled_from([3, 9, 20]),
    st.tuples(st.integers(5, 24), st.integers(5, 30)),
    st.tuples(st.integers(1, 30), st.integers(1, 40)),
    st.sampled_from([0.0, 0.02, 0.3, 1.5]),
    st.sampled_from([0.0, 1e4]),
    st.sampled_from([0.0, 2**-11, 2**-10, 2**-8, 0.02]),
    st.sampled_from([0.0, 0.2, 0.7]),
    st.sampled_from([0.05, 0.05, 0.003, 0.3]),
    st.sampled_from([0.0, 0.5, 2.5, 5.0]),
)
@example(0, 20, (24, 30), (30, 40), 0.02, 0.0, 0.0, 0.2, 0.05, 0.0)
@example(1, 20, (24, 30), (30, 40), 0.3, 0.0, 0.02, 0.2, 0.05, 2.5)
@example(2, 9, (24, 30), (30, 40), 0.3, 1e4, 2**-10, 0.7, 0.05, 3.9)
def test_copies_of_surfaces(seed, sources, grid, size, spread, shift, step, tilt, tolerance, ahead):
    given = copies(seed, sources, grid, spread, shift, step, tilt)
    generator = torch.Generator().manual_seed(seed + 1)
    randn = lambda *shape: torch.randn(*shape, generator=generator)
    centers = spread * randn(2, 3) + shift + torch.tensor([0.0, 0.0, ahead])  # some patches are beside or behind
    target = (intrinsics(2, *size), poses(centers, 0.15 * randn(2, 3, 3)).float(), *size)
    results = both(given, target, tolerance)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("count", [1, 2])
def test_order_and_threads_do_not_matter_where_much_is_hidden(generator, count):
    elements, views = (x := copies(5, 16, (22, 31), 0.2, 0.0, 2**-10, 0.3))[:5], x[5:]
    target = (intrinsics(2, 20, 33), poses(0.2 * torch.randn(2, 3, generator=generator), torch.zeros(2, 3, 3)).float())
    results = []
    for order in (torch.arange(len(elements[0])), torch.randperm(len(elements[0]), generator=generator)):
        some = (*(value[order] for value in elements), *views)
        index, *rest = both(some, (*target, 20, 33), 0.05, count)[1]
        results.append((torch.where(index >= 0, order[index.clamp(min=0)], -1), *rest))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert (results[0][0] >= 0).float().mean() > 0.5


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 0.0, 1e30])
def test_elements_without_meaning_hide_nothing(bad):
    given = list(copies(6, 12, (18, 20), 0.1, 0.0, 0.0, 0.1))
    plane = given[0].clone()
    plane[::7, 0], plane[3::11, 1] = bad, bad
    given[0] = plane
    target = (intrinsics(1, 17, 23), torch.eye(4)[None], 17, 23)
    results = both(tuple(given), target, 0.05)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert (results[0][0] >= 0).any()
