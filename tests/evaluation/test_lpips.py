"""LPIPS from the file of its weights to the figure; without torchvision or the file it is told how to get them."""

import numpy as np
import pytest
import torch

from mirage.evaluation import metrics


@pytest.fixture
def hub(tmp_path):
    """Where weights are looked for: nothing is there."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    metrics.lpips_missing.cache_clear()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)
    metrics.lpips_missing.cache_clear()


def test_without_weights_there_is_no_figure_and_a_way_to_it(hub):
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    assert np.isnan(metrics.lpips(frames, frames))
    ((_, _, said),) = metrics.used("lpips")
    assert "LPIPS is left out" in said and metrics.BACKBONE in said


def test_weights_of_the_right_form_give_a_distance(hub):
    models = pytest.importorskip("torchvision.models", reason="LPIPS needs torchvision")
    hub.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(models.alexnet(weights=None).state_dict(), hub / metrics.BACKBONE)
    draw = np.random.default_rng(0)
    truth = draw.integers(60, 190, (9, 37, 64, 3)).astype(np.uint8)  # more frames than are taken at once
    near, far = (truth + draw.integers(-d, d, truth.shape) for d in (8, 60))
    distances = [metrics.lpips(v.astype(np.uint8), truth) for v in (truth, near, far)]
    assert distances[0] == 0 < distances[1] < distances[2] < 1
    each = [metrics.lpips(far[i : i + 1].astype(np.uint8), truth[i : i + 1]) for i in range(9)]
    assert distances[2] == pytest.approx(np.mean(each), rel=1e-5)
