"""Positions know the three segments, and attention sees their differences only."""

import torch

from mirage.denoise.rope import rotate, segment_rotations


def angles(frames, rows, columns, **kwargs):
    table = segment_rotations(frames, rows, columns, **kwargs)
    return torch.atan2(table[..., 1], table[..., 0]).unflatten(1, (rows, columns))


def test_each_axis_turns_its_own_pairs():
    table = angles(4, 3, 5, num_reference=1, head_dim=18)  # pairs: 3 of time, 3 of rows, 3 of columns
    first = table[..., [0, 3, 6]]  # the pair that turns by one radian per step
    assert torch.allclose(first[1:, 1, 2], torch.tensor([[0.0, 1, 2], [1, 1, 2], [2, 1, 2]]), atol=1e-6)


def test_references_stand_before_the_video_and_one_image_below():
    table = angles(3, 2, 3, num_reference=2, head_dim=12)  # pairs: 2 of time, 2 of rows, 2 of columns
    assert torch.allclose(table[:, 0, 0, 0], torch.tensor([-2.0, -1.0, 0.0]), atol=1e-6)
    assert torch.allclose(table[:, 0, 0, 2], torch.tensor([2.0, 2.0, 0.0]), atol=1e-6)
    assert torch.allclose(table[:, 0, 2, 4], torch.tensor([2.0, 2.0, 2.0]), atol=1e-6)


def test_no_two_tokens_share_a_place():
    table = segment_rotations(5, 3, 4, num_reference=2, head_dim=12).flatten(0, 1).flatten(1)
    assert torch.pdist(table).min() > 1e-2


def test_scores_depend_on_differences_of_position(generator):
    query, key = torch.randn(2, 1, 1, 1, 12, generator=generator)
    table = segment_rotations(6, 4, 4, num_reference=0, head_dim=12).unflatten(1, (4, 4))

    def score(at, other):
        return (rotate(query, table[at][None]) * rotate(key, table[other][None])).sum()

    assert torch.allclose(score((1, 0, 2), (3, 1, 0)), score((3, 2, 3), (5, 3, 1)), atol=1e-5)
    assert not torch.allclose(score((1, 0, 2), (3, 1, 0)), score((1, 0, 2), (3, 1, 1)), atol=1e-3)


def test_rotation_keeps_lengths_and_dtype(generator):
    x = torch.randn(2, 12, 3, 12, generator=generator)
    table = segment_rotations(2, 2, 3, num_reference=1, head_dim=12).flatten(0, 1)
    assert torch.allclose(rotate(x, table).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert rotate(x.bfloat16(), table).dtype == torch.bfloat16
