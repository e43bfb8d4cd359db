"""What foreign models are given and what comes back lies exactly over the picture; the sky is where it was."""

import json

import pytest
import torch

from mirage.geometry.foreign import Preparation, resample_depth, settle
from mirage.geometry.metric import KINDS
from mirage.geometry.movers import keep_cells
from mirage.geometry.nano import FAR

MORE = {
    "depth anything 3": Preparation(longest=504, multiple=14),
    "shorter side": Preparation(shortest=80, multiple=32),
}


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
@pytest.mark.parametrize("height, width", [(90, 161), (161, 90), (64, 64)])
def test_a_picture_of_coordinates_comes_back_to_itself(kind, height, width):
    preparation = (KINDS | MORE)[kind]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    picture = torch.stack([x / width, y / height, torch.zeros_like(x)])[None] * 2 - 1
    pixels = preparation.pixels(picture)
    assert not any(side % preparation.multiple for side in pixels.shape[2:])
    mean, std = (torch.tensor(value)[:, None, None] for value in (preparation.mean, preparation.std))
    for channel, side, true in ((0, width, x), (1, height, y)):
        back = preparation.maps((pixels * std + mean)[:, channel], height, width)
        there = torch.nn.functional.interpolate(back[None], (height, width), mode="bilinear", align_corners=False)[0]
        assert (there[0, 4:-4, 4:-4] * side - true[4:-4, 4:-4]).abs().max() < 0.5


def test_the_usual_sizes_are_those_of_the_models():
    assert KINDS["depth_anything"].grid(704, 1280) == (518, 938)
    assert KINDS["depth_pro"].grid(704, 1280) == (1536, 1536)
    assert MORE["depth anything 3"].grid(704, 1280) == (280, 504)


def test_what_the_files_of_a_model_say_counts(tmp_path):
    told = {"image_processor": {"size": {"shortest_edge": 60, "longest_edge": 90}, "image_mean": [0.1] * 3}}
    told["image_processor"] |= {"image_std": [0.2] * 3, "do_pad": True, "ensure_multiple_of": 10}
    (tmp_path / "processor_config.json").write_text(json.dumps(told))
    read = Preparation(size=(5, 5)).told_by(tmp_path)
    assert read == Preparation(shortest=60, longest=90, multiple=10, mean=(0.1,) * 3, std=(0.2,) * 3)
    assert read.grid(120, 240) == (40, 90)


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_sky_is_at_far_after_the_memory_has_aligned_the_chunk(generator, factor):
    known = 1 + 4 * torch.rand(1, 12, 16, generator=generator)
    known[:, :4] = FAR
    sky = torch.zeros(1, 12, 16, dtype=torch.bool)
    sky[:, :4] = True
    mine = settle(torch.where(sky, 17.0, known / factor), torch.zeros(1, 4, 12, 16), sky, known)
    assert (mine * factor)[sky].sub(FAR).abs().max() < 0.01 * FAR
    assert torch.equal(mine[~sky], (known / factor)[~sky])


def test_the_grid_is_a_multiple_of_the_cells_and_no_surface_is_made_up():
    x = torch.arange(90) + 0.5
    plane = 1 / (0.2 + 0.002 * x).expand(1, 50, 90)  # a slanted plane, with a far wall on its right
    there = torch.where(x < 40, plane, 50.0)
    fine = settle(there, torch.zeros(1, 4, 11, 20))
    assert fine.shape == (1, 55, 100)
    at = (torch.arange(100) + 0.5) * 0.9
    inner = (at > 1) & (at < 39)
    assert torch.allclose(fine[0, :, inner], 1 / (0.2 + 0.002 * at[inner]).expand(55, -1), rtol=1e-4)
    assert not ((fine > 5) & (fine < 47)).any()
    assert settle(there, torch.zeros(1, 4, 1, 2)).shape == (1, 16, 32)
    holes = there.masked_fill((x > 20) & (x < 25), 0.0)
    assert torch.equal(resample_depth(holes, 50, 90), holes)
    assert set(resample_depth(holes, 50, 180)[0, 0, 42:49].tolist()) == {0.0}


@pytest.mark.parametrize("size", [(40, 56), (8, 8), (13, 29), (80, 112)])
def test_a_cell_is_kept_only_if_all_pixels_that_it_touches_are(generator, size):
    keep = torch.rand(2, 40, 56, generator=generator) > 0.02
    cells = keep_cells(keep, *size)
    rows, columns = (torch.arange(n + 1) * side / n for n, side in zip(size, (40, 56), strict=True))
    for i in range(size[0]):
        for j in range(0, size[1], 3):
            inside = keep[:, int(rows[i]) : -int(-rows[i + 1] // 1), int(columns[j]) : -int(-columns[j + 1] // 1)]
            assert torch.equal(cells[:, i, j], inside.all(2).all(1))
