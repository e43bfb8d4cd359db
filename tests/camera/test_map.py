"""The map from above shows left as left, ahead as up, and says how large things are."""

import pytest
import torch

from mirage.camera import Cameras, build_path, draw_map
from mirage.camera.rigid import rigid

CAMERA = Cameras.from_fov(1.0, 9, 16)


def letters(words: str, frames: int = 25, **size: int) -> list[str]:
    return draw_map(build_path(words, frames, CAMERA).cameras, **size).splitlines()[:-1]


def test_directions():
    assert letters("left 2")[0].startswith("E") and letters("left 2")[0].endswith("S")
    assert letters("forward 2")[0] == "E" and letters("forward 2")[-1] == "S"
    corner = letters("forward 2, right 90deg, forward 2")
    assert corner[0].endswith("E") and corner[-1] == "S" and ">" in corner[0] and "^" in "".join(corner[1:])
    assert "<" in letters("forward 2, left 90deg, forward 2")[0]
    assert "v" in "".join(letters("forward 1, right 180deg, forward 2", 65))


def test_size_and_scale():
    lines = draw_map(build_path("right 30, forward 30", 49, CAMERA).cameras, columns=31, rows=16).splitlines()
    assert max(map(len, lines[:-1])) == 31 and len(lines) == 17
    assert lines[-1] == "seen from above, up is forward; a letter is 1 units wide"
    assert all("." in line or "^" in line or "S" in line or "E" in line for line in lines[:-1]), "no gap in the way"


@pytest.mark.parametrize("words", ["still", "pan:degrees=90", "up 1"])
def test_what_stays_in_place(words):
    """Turns are exact to rounding; that is no way either."""
    drawn = draw_map(build_path(words, 9, CAMERA).cameras)
    assert drawn.splitlines()[0] == "S" and drawn.endswith("the camera stays in its place")


def test_far_from_the_origin_and_broken():
    centers = torch.tensor([[1e4, 0, 1e4], [1e4 + 1, 0, 1e4]])
    pose = rigid(torch.eye(3).repeat(2, 1, 1), -centers)
    assert draw_map(Cameras(CAMERA.intrinsics.repeat(2, 1, 1), pose, 9, 16)).startswith("S...")
    for cameras, columns in [(CAMERA[:0], 9), (CAMERA, 1)]:
        with pytest.raises(ValueError, match="a map needs"):
            draw_map(cameras, columns=columns)
