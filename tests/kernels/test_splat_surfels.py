"""Forward depth with footprints: equal to a loop in float64, whatever the order and the number of threads."""

import torch

from mirage.kernels.ops import splat_surfels

HEIGHT, WIDTH, GRID = 9, 14, 6


def scene(generator: torch.Generator, n: int = 60, sources: int = 2, views: int = 3):
    """Random patches of planes in two source views, seen by cameras around them."""
    uniform = lambda *shape: torch.rand(*shape, generator=generator)
    plane = torch.cat([0.2 + 0.3 * uniform(n, 1), 0.08 * (uniform(n, 2) - 0.5)], 1)
    cell = torch.randperm(GRID * GRID * sources, generator=generator)[:n]
    source, cell = cell // (GRID * GRID), cell % (GRID * GRID)
    reach = (64 + 45 * torch.randint(0, 2, (n, 4), generator=generator)).to(torch.int8)
    rank = torch.randint(0, 4, (n,), generator=generator)
    source_k = torch.tensor([[5.0, 0.0, 3.1], [0.0, 5.0, 2.8], [0.0, 0.0, 1.0]]).repeat(sources, 1, 1)
    target_k = torch.tensor([[11.0, 0.0, 7.2], [0.0, 12.0, 4.4], [0.0, 0.0, 1.0]]).repeat(views, 1, 1)
    poses = torch.eye(4).repeat(sources + views, 1, 1)
    twist = 0.15 * torch.randn(sources + views, 3, 3, generator=generator)
    poses[:, :3, :3] = torch.linalg.matrix_exp(twist - twist.mT)
    poses[:, :3, 3] = 0.4 * torch.randn(sources + views, 3, generator=generator)
    elements = (plane, cell, reach, rank, source)
    return *elements, torch.arange(sources), (GRID, GRID), source_k, poses[:sources], target_k, poses[sources:]


def by_loop(plane, cell, reach, rank, source, name, size, source_k, source_pose, target_k, target_pose, tolerance):
    """Depth of the front surface, and the hits that agree with it."""
    depth = torch.full((len(target_k), HEIGHT, WIDTH), torch.inf, dtype=torch.float64)
    relative = target_pose.double() @ torch.linalg.inv(source_pose.double())[:, None]
    matrix = target_k.double() @ relative[..., :3, :3] @ torch.linalg.inv(source_k.double())[:, None]
    epipole = -(target_k.double() @ relative[..., :3, 3:])[..., 0]
    hits = []
    for n in range(len(plane)):
        a, u, v = plane[n].double(), cell[n].item() % size[1] + 0.5, cell[n].item() // size[1] + 0.5
        left, right, top, bottom = (reach[n] / 128).tolist()
        for view in range(len(target_k)):
            m, e = matrix[source[n], view], epipole[source[n], view]
            columns = [m[:, 0] - a[1] * e, m[:, 1] - a[2] * e, m @ torch.tensor([u, v, 1.0]).double() - a[0] * e]
            homography = torch.stack(columns, 1)
            if torch.linalg.det(homography) * homography[2, 2] <= 0 or homography[2, 2] <= 0:
                continue
            for y in range(HEIGHT):
                for x in range(WIDTH):
                    q = torch.linalg.solve(homography, torch.tensor([x + 0.5, y + 0.5, 1.0]).double())
                    du, dv = (q[:2] / q[2]).tolist()
                    inside = -left <= du <= right and -top <= dv <= bottom
                    scale = homography[2] @ torch.tensor([du, dv, 1.0]).double()
                    disparity = a @ torch.tensor([1.0, du, dv]).double()
                    if inside and scale > 0 and disparity > 0:
                        z = (scale / disparity).item()
                        depth[view, y, x] = min(depth[view, y, x], z)
                        hits.append((view, y, x, z, n, u + du, v + dv))
    return depth, [h for h in hits if h[3] <= depth[h[:3]] * (1 + tolerance)]


def test_equals_a_loop_in_float64(generator):
    args = scene(generator)
    rank = args[3]
    index, depth, place, _ = splat_surfels(*args, HEIGHT, WIDTH, tolerance=0.05)
    front, candidates = by_loop(*args, 0.05)
    seen = index >= 0
    assert 0.3 < seen.float().mean() < 1
    assert (seen != front.isfinite()).float().mean() < 0.01  # rays that graze a border of a patch
    allowed = {}
    for view, y, x, z, n, u, v in candidates:
        allowed.setdefault((view, y, x), {})[n] = (z, u, v)
    wrong = 0
    for view, y, x in (seen & front.isfinite()).nonzero().tolist():
        options, winner = allowed[view, y, x], index[view, y, x].item()
        wrong += winner not in options or rank[winner] != min(rank[n] for n in options)
        if winner in options:
            z, u, v = options[winner]
            assert abs(depth[view, y, x] - z) < 1e-3 * z
            assert (place[view, y, x] - torch.tensor([u, v])).abs().max() < 5e-3
    assert wrong / seen.sum() < 0.01


def test_order_and_threads_do_not_matter(generator):
    plane, cell, reach, rank, source, *views = scene(generator)
    elements = (plane, cell, reach, rank, source)
    ident = source * GRID * GRID + cell
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for order in (torch.arange(len(plane)), torch.randperm(len(plane), generator=generator)):
                index, *rest = splat_surfels(*(x[order] for x in elements), *views, HEIGHT, WIDTH)
                results.append((torch.where(index >= 0, ident[order][index.clamp(min=0)], -1), *rest))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all((a == b).all() for a, b in zip(result, results[0], strict=True))


def test_views_in_one_go_and_in_parts_are_the_same(generator, monkeypatch):
    args = (*scene(generator), HEIGHT, WIDTH)
    whole = splat_surfels(*args)
    monkeypatch.setattr("mirage.kernels.reference.PAIRS_AT_ONCE", 1)
    assert all((a == b).all() for a, b in zip(whole, splat_surfels(*args), strict=True))


def test_a_patch_is_not_seen_from_behind():
    plane, reach = torch.tensor([[0.5, 0.0, 0.0]]), torch.full((1, 4), 64, dtype=torch.int8)
    zero = torch.zeros(1, dtype=torch.int64)
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))  # half a turn, looking back from depth 4
    turned[2, 3] = 4.0
    k = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]])
    args = (plane, zero, reach, zero, zero, zero, (1, 1), k, torch.eye(4)[None], k)
    assert (splat_surfels(*args, turned[None], 1, 1)[0] == -1).all()
    assert (splat_surfels(*args, torch.eye(4)[None], 1, 1)[0] == 0).all()
