"""The paper's read: equal to a brute-force loop, whatever the order of the points and the number of threads."""

import pytest
import torch

from mirage.kernels.ops import splat_nearest

HEIGHT, WIDTH = 7, 11


def scene(generator: torch.Generator, n: int = 900, views: int = 3):
    points = torch.randn(n, 3, generator=generator) + torch.tensor([0.0, 0.0, 3.0])
    features = torch.randn(n, 5, generator=generator)
    intrinsics = torch.tensor([[9.0, 0.0, 5.7], [0.0, 8.0, 3.2], [0.0, 0.0, 1.0]]).repeat(views, 1, 1)
    poses = torch.eye(4).repeat(views, 1, 1)
    poses[:, :3, 3] = torch.randn(views, 3, generator=generator) * 0.3
    return points, features, intrinsics, poses


def test_equals_a_loop_over_points(generator):
    points, features, intrinsics, poses = scene(generator)
    image, index = splat_nearest(points, features, intrinsics, poses, HEIGHT, WIDTH)
    expected = torch.full((len(poses), HEIGHT, WIDTH), -1)
    nearest = torch.full(expected.shape, torch.inf)
    for v, (k, pose) in enumerate(zip(intrinsics, poses, strict=True)):
        cam = (pose[:3, :3] @ points[..., None])[..., 0] + pose[:3, 3]
        for n, q in enumerate(cam):
            if q[2] <= 1e-3:
                continue
            x, y = (k @ (q / q[2]))[:2].floor().long().tolist()
            if 0 <= x < WIDTH and 0 <= y < HEIGHT and q[2] < nearest[v, y, x]:
                nearest[v, y, x], expected[v, y, x] = q[2], n
    assert (index == expected).all()
    assert (image.permute(0, 2, 3, 1)[index >= 0] == features[index[index >= 0]]).all()
    assert (image.permute(0, 2, 3, 1)[index < 0] == 0).all()


def by_duplicate_writes(points, features, intrinsics, poses):
    """Defect 3: far points are written before near ones, but PyTorch promises no order for writes to one place."""
    cam = points @ poses[0, :3, :3].T + poses[0, :3, 3]
    order = torch.randperm(len(points))
    x, y = (cam @ intrinsics[0].T / cam[:, 2:])[:, :2].floor().long().unbind(-1)
    inside = (cam[:, 2] > 1e-3) & (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    image = torch.zeros(HEIGHT * WIDTH, features.shape[1])
    for n in order[inside[order]]:
        image[y[n] * WIDTH + x[n]] = features[n]
    return image.T.view(1, -1, HEIGHT, WIDTH)


@pytest.mark.parametrize("defect", [False, True])
def test_order_and_threads_do_not_matter(generator, defect):
    points, features, intrinsics, poses = scene(generator)

    def draw(points, features):
        if defect:
            return by_duplicate_writes(points, features, intrinsics, poses)
        return splat_nearest(points, features, intrinsics, poses, HEIGHT, WIDTH)[0]

    threads = torch.get_num_threads()
    images = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            shuffled = torch.randperm(len(points), generator=generator)
            images += [draw(points, features), draw(points[shuffled], features[shuffled])]
    finally:
        torch.set_num_threads(threads)
    assert all((image == images[0]).all() for image in images) != defect


def test_gradient_reaches_the_points_that_are_drawn_and_no_others(generator):
    points, features, intrinsics, poses = scene(generator)
    features.requires_grad_()
    image, index = splat_nearest(points, features, intrinsics, poses, HEIGHT, WIDTH)
    image.sum().backward()
    drawn = torch.zeros(len(points), dtype=torch.bool)
    drawn[index[index >= 0]] = True
    assert ((features.grad != 0).any(1) == drawn).all()


def test_no_points_and_all_behind():
    points, features = torch.tensor([[0.0, 0.0, -2.0]]), torch.ones(1, 2)
    k, pose = torch.eye(3)[None], torch.eye(4)[None]
    for n in (0, 1):
        image, index = splat_nearest(points[:n], features[:n], k, pose, 3, 2)
        assert (image == 0).all() and (index == -1).all() and image.shape == (1, 2, 3, 2)


def test_refuses_an_empty_grid():
    with pytest.raises(ValueError, match="height=0"):
        splat_nearest(torch.zeros(1, 3), torch.zeros(1, 1), torch.eye(3)[None], torch.eye(4)[None], 0, 2)
