"""Conditions become tokens in the order [reference | target | preceding]."""

from dataclasses import fields, replace

import pytest
import torch

from mirage.denoise import branch_input


def test_sequence_puts_clean_frames_around_the_noisy_ones(conditions, generator):
    known = conditions(2)
    noisy = torch.randn(2, 3, 4, 5, 7, generator=generator)
    latents, times, references = known.sequence(noisy, torch.tensor([900.0, 20.0]))
    expected = torch.cat([known.reference, known.first, noisy[:, 1:], known.preceding], dim=1)
    assert torch.equal(latents.transpose(1, 2), expected)
    assert times.tolist() == [[0, 0, 900, 900, 0, 0], [0, 0, 20, 20, 0, 0]]
    assert references == 1


def test_sequence_of_target_frames_alone(conditions, generator):
    noisy = torch.randn(1, 3, 4, 5, 7, generator=generator)
    latents, times, references = conditions(1, preceding=0, reference=0, first=0).sequence(noisy, torch.tensor([5.0]))
    assert torch.equal(latents.transpose(1, 2), noisy) and times.tolist() == [[5, 5, 5]] and references == 0


def test_pin_is_bit_exact_and_leaves_its_input(conditions, generator):
    known = conditions(2, first=2)
    noisy = torch.randn(2, 3, 4, 5, 7, generator=generator)
    before = noisy.clone()
    pinned = known.pin(noisy)
    assert torch.equal(pinned[:, :2], known.first) and torch.equal(pinned[:, 2:], noisy[:, 2:])
    assert torch.equal(noisy, before)


def test_branch_reads_features_and_mask_then_the_clean_past(conditions):
    known = conditions(2)
    read = branch_input(known, "mask").transpose(1, 2)
    assert read.shape == (2, 5, 5, 5, 7)
    assert torch.equal(read[:, :3, :4], known.features) and torch.equal(read[:, :3, 4].bool(), known.visible)
    assert torch.equal(read[:, 3:, :4], known.preceding) and (read[:, 3:, 4] == 1).all()


def test_branch_never_shows_what_is_unseen(conditions):
    known = conditions(1)
    leaky = replace(known, features=known.features + 1)
    read = branch_input(leaky, "mask")[:, :4, :3].permute(0, 2, 3, 4, 1)
    assert not read[~known.visible].any()


def test_branch_takes_further_channels_at_the_target_frames(conditions, generator):
    extra = torch.randn(1, 3, 2, 5, 7, generator=generator)
    read = branch_input(replace(conditions(1), extra=extra), "mask").transpose(1, 2)
    assert torch.equal(read[:, :3, 5:], extra) and not read[:, 3:, 5:].any()


def test_constant_layout_takes_the_constant_as_it_is(conditions, generator):
    constant = torch.randn(1, 5, 4, 5, 7, generator=generator)
    known = replace(conditions(1), second=constant)
    assert torch.equal(branch_input(known, "constant")[:, 4:].transpose(1, 2), constant)
    with pytest.raises(ValueError, match=r"5 frames .* got None"):
        branch_input(conditions(1), "constant")
    with pytest.raises(ValueError, match=r"5 frames .* got 3"):
        branch_input(replace(known, second=constant[:, :3]), "constant")


def test_batched_adds_one_axis_once(conditions):
    single = conditions()
    batch = single.batched()
    assert batch.batched() is batch
    for f in fields(single):
        value = getattr(single, f.name)
        assert value is None or torch.equal(getattr(batch, f.name)[0], value)


def test_more_first_than_target_frames_are_refused(conditions):
    with pytest.raises(ValueError, match="at most the 3 target frames, got 4"):
        conditions(first=4)
