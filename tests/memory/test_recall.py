"""Recall: the frames that saw a place, and not those that look at the wall before it."""

import plane_worlds as worlds
import pytest
import torch

from mirage.memory import LatentMemory, recall

HEIGHT, WIDTH = 40, 56
PAST = worlds.cameras(torch.stack([worlds.pose(yaw=20.0 * i) for i in range(6)]), HEIGHT, WIDTH)
DEPTH = worlds.depth(PAST, worlds.ROOM, HEIGHT, WIDTH).nan_to_num(0, 0, 0)


def seen_by(cams):
    depth = worlds.depth(cams, worlds.ROOM, 5, 7)
    return cams.unproject(depth).reshape(-1, 3)[(depth.isfinite()).flatten()]


def test_the_nearest_views_come_first():
    index, score = recall(seen_by(PAST[1]), PAST, DEPTH, k=3)
    assert index[0] == 1 and set(index.tolist()) == {0, 1, 2}
    assert score[0] > 0.9 and (score.diff() <= 0).all()


def test_score_is_the_share_of_points_in_the_picture_at_the_right_depth(generator):
    points = 6 * torch.rand(200, 3, generator=generator) - 3
    points = torch.cat([points, seen_by(PAST[2])])
    index, score = recall(points, PAST, DEPTH, k=6, threshold=0.0)
    for frame, value in zip(index.tolist(), score.tolist(), strict=True):
        place, z = PAST[frame].project(points)
        hits = 0
        for (x, y), depth in zip(place[0].tolist(), z[0].tolist(), strict=True):
            if depth > 0 and 0 <= x < WIDTH and 0 <= y < HEIGHT:
                known = DEPTH[frame, int(y), int(x)].item()
                hits += known > 0 and abs(depth - known) <= 0.1 * known
        assert value == pytest.approx(hits / len(points), abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_points_and_depth_of_any_precision(dtype):
    index, score = recall(seen_by(PAST[1]).to(dtype), PAST, DEPTH.to(dtype), k=3)
    expected, share = recall(seen_by(PAST[1]), PAST, DEPTH, k=3)
    assert index.tolist() == expected.tolist() and torch.allclose(score, share, atol=0.02)


def test_a_wall_between_hides_the_place():
    hidden = DEPTH.clone()
    hidden[1] = 0.5
    index, _ = recall(seen_by(PAST[1]), PAST, hidden)
    assert 1 not in index.tolist()


def test_nothing_to_recall():
    for points, cams, depth in (
        (torch.zeros(0, 3), PAST, DEPTH),
        (seen_by(PAST[1]), PAST[:0], DEPTH[:0]),
        (torch.full((4, 3), 1e6), PAST, DEPTH),
        (PAST.centers, PAST, torch.zeros_like(DEPTH)),
    ):
        index, score = recall(points, cams, depth)
        assert len(index) == len(score) == 0


def test_points_may_come_from_a_memory():
    source = PAST[0]
    features, depth = worlds.view(source, worlds.ROOM, 8)
    read = LatentMemory.from_view(features, depth, source).read(PAST[1])
    points = PAST[1].unproject(read.depth)[read.visible]
    assert set(recall(points, PAST, DEPTH)[0][:2].tolist()) == {0, 1}


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="as many frames"):
        recall(torch.zeros(1, 3), PAST, DEPTH[:2])
    with pytest.raises(ValueError, match="k=0"):
        recall(torch.zeros(1, 3), PAST, DEPTH, k=0)
