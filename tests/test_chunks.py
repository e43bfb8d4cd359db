"""The chunk plan: the published one, and laws for every size."""

import itertools
import json

import pytest

from mirage.chunks import nearest_frames, plan_chunks


def test_reproduces_the_published_plan(shared):
    golden = json.loads((shared / "golden" / "chunk_plan.json").read_text())
    for frames, plan in golden.items():
        ours = [[chunk.start + chunk.shared, chunk.stop, len(chunk)] for chunk in plan_chunks(int(frames))]
        assert ours == plan


@pytest.mark.parametrize("chunk_frames, stride", [(33, 4), (17, 4), (5, 4), (9, 8), (4, 1), (7, 3)])
@pytest.mark.parametrize("latents", [2, 3, 5, 9, 10, 33])
def test_chunks_cover_every_frame_once(latents, chunk_frames, stride):
    frames = 1 + (latents - 1) * stride
    chunks = plan_chunks(frames, chunk_frames, stride)
    shown = [frame for chunk in chunks for frame in chunk.frames[chunk.new_frames]]
    assert shown == list(range(frames))
    kept = [latent for chunk in chunks for latent in chunk.latents[chunk.new_latents]]
    assert kept == list(range(latents))
    for chunk in chunks:
        assert list(chunk.latent_frames) == [latent * stride for latent in chunk.latents]
        assert len(chunk) == 1 + stride * (len(chunk.latents) - 1) <= chunk_frames
    for before, after in itertools.pairwise(chunks):
        assert before.frames[-1] == after.frames[0], "neighbours share one frame"
        assert before.latents[-1] == after.latents[0]
    assert chunks[0].shared == 0 and all(chunk.shared == 1 for chunk in chunks[1:])


@pytest.mark.parametrize(
    "frames, allowed", [(64, "61 or 65"), (66, "65 or 69"), (4, "use 5"), (1, "use 5"), (-3, "use 5")]
)
def test_unreachable_counts_name_their_neighbours(frames, allowed):
    with pytest.raises(ValueError, match=f"^frames must .* got {frames}; .*{allowed}"):
        plan_chunks(frames)


def test_bad_chunk_sizes_are_refused():
    with pytest.raises(ValueError, match=r"^chunk_frames .* got 32; use 29 or 33"):
        plan_chunks(33, chunk_frames=32)
    with pytest.raises(ValueError, match="temporal_stride must be at least 1, got 0"):
        plan_chunks(33, temporal_stride=0)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_nearest_frames_are_reachable_and_near(stride):
    for wish in range(-3, 40):
        below, above = nearest_frames(wish, stride)
        assert plan_chunks(below, 1 + 4 * stride, stride) and plan_chunks(above, 1 + 4 * stride, stride)
        assert below <= max(wish, 1 + stride) <= max(above, 1 + stride) and above - below in (0, stride)
