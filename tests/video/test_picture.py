"""Pictures for people: every frame is there, unharmed and in order, and its label can be read."""

import numpy as np
import pytest

from mirage.video.picture import GROUND, chart, contact_sheet, depth_picture, return_panel, shade_unseen, side_by_side

random = np.random.default_rng(0)


def find(page: np.ndarray, frame: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns at which a frame stands on a page, pixel for pixel."""
    h, w = frame.shape[:2]
    corners = np.argwhere((page[: len(page) - h + 1, : page.shape[1] - w + 1] == frame[0, 0]).all(-1))
    return [(int(r), int(c)) for r, c in corners if (page[r : r + h, c : c + w] == frame).all()]


def noise(*shape: int) -> np.ndarray:
    return random.integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_a_contact_sheet_holds_every_frame_in_reading_order():
    frames = noise(7, 33, 50)
    page = contact_sheet(frames, [str(i) for i in range(7)], columns=3, title="seven", zoom=1)
    places = [find(page, frame) for frame in frames]
    assert all(len(place) == 1 for place in places)
    flat = [place[0] for place in places]
    assert flat == sorted(flat) and len({row for row, _ in flat}) == 3 and len({column for _, column in flat}) == 3


def test_small_frames_grow_and_large_ones_do_not():
    assert contact_sheet(noise(1, 100, 128)).shape[1] == 2 * 20 + 2 * 128
    assert contact_sheet(noise(1, 300, 200)).shape[1] == 2 * 20 + 200


@pytest.mark.parametrize("label", ["short", "a label that is far too long for the frame it belongs to " * 3, ""])
def test_a_label_stays_below_its_own_frame(label):
    page = contact_sheet(np.zeros((2, 64, 64, 3), np.uint8), [label, ""], columns=2, zoom=1)
    ink = np.argwhere((page != GROUND).any(-1) & page.any(-1))
    assert (len(ink) > 0) == bool(label)
    assert all(row >= 84 and 20 <= column < 20 + 64 + 2 for row, column in ink)


def test_clips_side_by_side_keep_their_frames_and_fit_a_video():
    left, right = noise(4, 31, 45), noise(4, 31, 45)
    clip = side_by_side({"with": left, "without": right}, captions=list("abcd"), zoom=1)
    assert clip.shape[0] == 4 and clip.shape[1] % 2 == clip.shape[2] % 2 == 0
    for t in range(4):
        (row, column), (row2, column2) = find(clip[t], left[t])[0], find(clip[t], right[t])[0]
        assert row == row2 and column2 > column
    progress = [(frame == (94, 177, 255)).all(-1).sum() for frame in clip]
    assert progress == sorted(progress) and progress[0] > 0


def test_the_return_panel_shows_where_the_place_changed():
    first, changed = np.full((256, 300, 3), 90, np.uint8), np.full((256, 300, 3), 90, np.uint8)
    changed[:50, :60] = 200
    same = return_panel(first, {"with memory": first}, title="")
    other = return_panel(first, {"with memory": changed}, {"with memory": "12.3 dB"}, title="")
    assert same.shape == other.shape
    assert (same == 255).all(-1).sum() == 0 and (other == 255).all(-1).sum() == 50 * 60


def test_unseen_cells_are_hatched_and_seen_ones_untouched():
    image, visible = noise(24, 40), random.random((3, 5)) > 0.5
    shaded = shade_unseen(image, visible)
    seen = np.kron(visible, np.ones((8, 8), bool))
    assert (shaded[seen] == image[seen]).all() and (shaded[~seen] < 165).all()
    with pytest.raises(ValueError, match="whole cells of a 3 x 5 grid, got 25 x 40"):
        shade_unseen(noise(25, 40), visible)


def test_a_depth_picture_ignores_scale_and_marks_the_unknown():
    depth = np.linspace(1, 9, 35, dtype=np.float32).reshape(5, 7)
    depth[2, 3] = 0
    picture = depth_picture(depth)
    assert (picture[2, 3] == 0).all() and (picture.sum(-1) > 0).sum() == 34
    assert np.abs(depth_picture(depth * 8).astype(int) - picture).max() <= 1
    assert not depth_picture(np.zeros((3, 4))).any()


def test_a_chart_draws_gaps_and_flat_lines():
    assert chart({"flat": [1.0, 1.0], "gap": [0.5, float("nan"), 2.0]}, title="t", width=300, height=200).any()
    assert chart({"coverage": [0.5]}, title="one step", bounds=(0, 1)).shape == (320, 720, 3)


def test_misuse_is_one_sentence():
    with pytest.raises(ValueError, match="frames must be at least one"):
        contact_sheet([])
    with pytest.raises(ValueError, match="labels must be one per frame, got 1 for 2"):
        contact_sheet(noise(2, 20, 20), ["a"])
    with pytest.raises(ValueError, match="videos must be of one shape"):
        side_by_side({"a": noise(2, 20, 20), "b": noise(3, 20, 20)})
    with pytest.raises(ValueError, match="captions must be one per frame, got 1 for 2"):
        side_by_side({"a": noise(2, 20, 20)}, captions=["x"])
    with pytest.raises(ValueError, match="must be 20 x 20 as the first"):
        return_panel(noise(20, 20), {"b": noise(20, 22)})
    with pytest.raises(ValueError, match="finite"):
        chart({"empty": []}, title="nothing")
