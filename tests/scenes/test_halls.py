"""Worlds in closed form: depth is that of the surfaces, and what lies behind one is not seen."""

import torch

from mirage.scenes.halls import FAR, hall, placed, walk


def test_depth_of_a_hall_is_that_of_its_surfaces():
    """Unprojected, every pixel lies on a wall, on the floor, on the ceiling or on a pillar, and before all others."""
    world, cameras = hall(5.0), walk(101, 22, 38)[[0, 40, 100]]
    depth = world.depth(cameras, 22, 38)
    known = depth > 0
    assert 0.8 < known.float().mean() < 1 and depth.max() <= FAR
    points = cameras.unproject(depth)[known]
    flat = world.planes[:, 3] - points @ world.planes[:, :3].T
    aside = (points[:, None, [0, 2]] - world.pillars[:, :2]).norm(dim=-1) - world.pillars[:, 2]
    assert (flat > -1e-3).all() and (aside > -1e-3).all()
    assert torch.cat([flat, aside], 1).abs().amin(1).max() < 2e-3
    on_pillar = (aside.abs() < 1e-3).any(1).float().mean()
    assert 0.1 < on_pillar < 0.9


def test_what_a_pillar_hides_is_not_seen():
    world, camera = hall(5.0), placed(16, 24, torch.zeros(1, 3), torch.zeros(1))
    depth = world.depth(camera, 16, 24)
    points = camera.unproject(depth)
    assert world.sees(camera, points)[depth > 0].all()
    assert not world.sees(camera, 1.01 * points)[depth > 0].any()


def test_a_walk_that_returns_retraces_its_steps_beside_them():
    out, back = walk(21, 8, 12), walk(21, 8, 12, returns=True)
    aside = torch.tensor([0.03, 0.0, 0.0])
    assert torch.allclose(back.centers[:11], out.centers[:11])
    assert torch.allclose(back.centers[11:], out.centers[:10].flip(0) + aside, atol=1e-6)
    assert torch.allclose(back.cam_from_world[11:, :3, :3], out.cam_from_world[:10, :3, :3].flip(0), atol=1e-6)
