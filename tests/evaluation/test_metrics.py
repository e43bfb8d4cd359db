"""Laws of what is measured of frames."""

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from mirage.camera.cameras import Cameras
from mirage.evaluation.metrics import CAP, bootstrap, detail, flow, psnr, seen_from, ssim


@pytest.fixture
def picture():
    """A picture with texture of all sizes, 70 x 94."""
    rng = np.random.default_rng(3)
    layers = [cv2.resize(rng.random((n, n, 3)), (94, 70), interpolation=cv2.INTER_CUBIC) for n in (4, 9, 20, 40)]
    return (np.clip(sum(layers) / 4, 0, 1) * 255).astype(np.uint8)


def noisy(picture, seed=0):
    noise = np.random.default_rng(seed).integers(-20, 21, picture.shape)
    return (picture.astype(int) + noise).clip(0, 255).astype(np.uint8)


def test_psnr_is_that_of_others(picture):
    other = noisy(picture)
    assert psnr(other, picture) == pytest.approx(peak_signal_noise_ratio(picture, other), abs=1e-4)


def test_identical_frames(picture):
    assert psnr(picture, picture) == CAP
    assert ssim(picture, picture) == 1
    assert detail(picture, picture) == 1
    assert not flow(picture, picture).any()


def test_only_masked_pixels_count(picture):
    other, mask = picture.copy(), np.zeros(picture.shape[:2], bool)
    other[:30] = 0
    mask[35:, 10:] = True
    assert psnr(other, picture, mask) == CAP and psnr(other, picture) < 30
    assert ssim(other, picture, mask) > 0.99 > ssim(other, picture)
    assert detail(other, picture, mask) == 1 > detail(other, picture)
    nothing = mask & False
    assert np.isnan(
        [psnr(other, picture, nothing), ssim(other, picture, nothing), detail(other, picture, nothing)]
    ).all()


def test_regions_make_up_the_whole(picture):
    other, mask = noisy(picture), np.arange(94)[None] * np.ones((70, 1)) < 31
    mean = lambda m: 10 ** (-psnr(other, picture, m) / 10)
    assert mask.mean() * mean(mask) + (1 - mask.mean()) * mean(~mask) == pytest.approx(mean(None), rel=1e-4)


@pytest.mark.parametrize("shift", [(1, 0), (0.5, 0.5), (-2.5, 1.5), (4, 3)])
def test_flow_finds_a_known_shift(picture, shift):
    warp = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
    moved = cv2.warpAffine(picture, warp, (94, 70), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    found = flow(picture, moved)
    inner = found[8:-8, 8:-8].reshape(-1, 2)
    assert np.abs(inner - shift).max() < 0.3
    assert np.abs(np.median(found.reshape(-1, 2), 0) - shift).max() < 0.05


def test_detail_of_blur_and_of_a_blank(picture):
    blurred = cv2.GaussianBlur(picture, (0, 0), 3)
    assert 0.1 < detail(blurred, picture) < 0.8
    assert detail(picture * 0 + 128, picture) == 0
    assert np.isnan(detail(picture, picture * 0))


class TwoPlanes:
    """A wall at z = 4, a square of half width 0.5 in front of it at z = 2; all rays are traced one by one."""

    def __init__(self, height=21, width=34):
        k = torch.tensor([[25.0, 0, width / 2 + 0.3], [0, 25.0, height / 2 - 0.2], [0, 0, 1]]).repeat(3, 1, 1)
        pose = torch.eye(4).repeat(3, 1, 1)
        for i, (angle, x) in enumerate([(0, 0), (0.2, -0.7), (-0.5, 0.4)]):
            c, s = np.cos(angle), np.sin(angle)
            pose[i, :3, :3] = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]])
            pose[i, :3, 3] = pose[i, :3, :3] @ torch.tensor([-x, 0.1 * i, 0.2 * i])
        self.cameras = Cameras(k, pose, height, width)

    def hit(self, origin, ray):
        """Where a ray ends, as a multiple of itself."""
        t = (2 - origin[2]) / ray[2]
        on_square = np.abs((origin + t * ray)[:2]).max() < 0.5
        return t if on_square else (4 - origin[2]) / ray[2]

    def depth(self):
        cameras = self.cameras
        depth = torch.zeros(len(cameras), cameras.height, cameras.width)
        ends = cameras.unproject(depth + 1).numpy().astype(float)
        eyes = cameras.centers.numpy().astype(float)
        for v, i, j in np.ndindex(*depth.shape):
            depth[v, i, j] = self.hit(eyes[v], ends[v, i, j] - eyes[v])
        return depth


def test_seen_pixels_are_those_of_brute_force():
    scene = TwoPlanes()
    cameras, depth = scene.cameras, scene.depth()
    seen = seen_from(depth, cameras, depth[0], cameras[0])
    assert seen[0].all()
    points = cameras.unproject(depth).numpy().astype(float)
    eye = cameras.centers[0].numpy().astype(float)
    xy, z = cameras[0].project(torch.from_numpy(points).float().reshape(-1, 3))
    xy, z = xy[0].reshape(*depth.shape, 2), z[0].reshape(depth.shape)
    wrong = compared = 0
    for v, i, j in np.ndindex(*depth.shape):
        x, y = xy[v, i, j].tolist()
        inside = bool(z[v, i, j] > 0) and 0 <= x <= cameras.width and 0 <= y <= cameras.height
        free = scene.hit(eye, points[v, i, j] - eye) > 0.999  # nothing between the first camera and the point
        rim = np.abs(
            np.abs(points[v, i, j, :2] - eye[:2]) / points[v, i, j, 2] * 2 + 0
        )  # where the sight line crosses z = 2
        if np.abs(rim.max() - 0.5) < 2 * 2 / 25:
            continue  # within two pixels of the square's outline the four neighbours may show both surfaces
        compared += 1
        wrong += bool(seen[v, i, j]) != (inside and free)
    assert compared > 1500 and wrong == 0
    assert 0.3 < seen[1:].float().mean() < 0.9


def test_what_is_hidden_is_not_seen():
    scene = TwoPlanes()
    depth = scene.depth()
    seen = seen_from(depth, scene.cameras, depth[0], scene.cameras[0])
    wall = depth[1] > 3
    assert (~seen[1] & wall)[:, 8:26].any(), "the wall behind the square comes out from behind it"


def test_bootstrap():
    values = np.random.default_rng(1).normal(20, 2, 100)
    once, again = bootstrap(values), bootstrap(values)
    assert once == again != bootstrap(values, seed=1)
    assert once["low"] < once["mean"] < once["high"] and once["n"] == 100
    assert once["high"] - once["low"] == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)
    assert bootstrap(np.array([np.nan])) == {"mean": None, "low": None, "high": None, "n": 0}
