"""Laws of the pinhole camera: exact under resize and crop, project undoes unproject, bad input is named."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage.camera import Cameras, cover
from mirage.camera.rigid import invert, screw


def random_cameras(count: int, height: int, width: int, generator: torch.Generator) -> Cameras:
    """Cameras of different lenses with the world in front of them."""
    focal = 0.6 + torch.rand(count, 2, generator=generator)
    k = torch.eye(3).repeat(count, 1, 1)
    k[:, 0, 0], k[:, 1, 1] = focal[:, 0] * width, focal[:, 1] * height
    k[:, :2, 2] = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    pose = screw(
        torch.randn(count, 3, generator=generator), torch.randn(count, 3, generator=generator), torch.ones(count)
    )
    return Cameras(k, pose, height, width)


@pytest.mark.parametrize("height, width", [(5, 7), (7, 5), (1, 3)])
def test_project_undoes_unproject(height, width, generator):
    cameras = random_cameras(3, height, width, generator)
    depth = 0.5 + 3 * torch.rand(3, height, width, generator=generator)
    points = cameras.unproject(depth)
    for i in range(3):
        xy, z = cameras[i].project(points[i].flatten(0, 1))
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        torch.testing.assert_close(
            xy[0].unflatten(0, (height, width)), torch.stack([columns, rows], -1), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(z[0].unflatten(0, (height, width)), depth[i], atol=1e-4, rtol=0)


def test_a_coarse_depth_map_is_unprojected_at_its_own_cell_centres(generator):
    cameras = random_cameras(2, 6, 9, generator)
    depth = 1 + torch.rand(2, 2, 3, generator=generator)
    torch.testing.assert_close(cameras.unproject(depth), cameras.resize(2, 3).unproject(depth))


@given(st.tuples(*[st.integers(1, 40)] * 4), st.tuples(st.integers(-5, 20), st.integers(-5, 20)))
@settings(max_examples=30, deadline=None)
def test_resize_and_crop_are_exact(sizes, corner):
    """A point keeps its place in the scene: positions scale and shift, and resize and crop commute."""
    h, w, h2, w2 = sizes
    top, left = corner
    generator = torch.Generator().manual_seed(h * w)
    cameras = random_cameras(2, h, w, generator)
    points = cameras.unproject(torch.rand(2, 3, 3, generator=generator) + 1)[0].flatten(0, 1)
    xy, z = cameras.project(points)
    scale = torch.tensor([w2 / w, h2 / h])
    resized, z_resized = cameras.resize(h2, w2).project(points)
    cropped, _ = cameras.crop(top, left, 11, 13).project(points)
    seen = z > 0.1
    torch.testing.assert_close(resized[seen], (xy * scale)[seen], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(z_resized, z)
    torch.testing.assert_close(cropped[seen], (xy - torch.tensor([left, top]))[seen], atol=1e-3, rtol=1e-4)
    once = cameras.crop(top, left, 11, 13).resize(22, 39)
    other = cameras.resize(2 * h, 3 * w).crop(2 * top, 3 * left, 22, 39)
    torch.testing.assert_close(once.intrinsics, other.intrinsics, atol=1e-3, rtol=1e-5)


def test_resizing_by_powers_of_two_returns_bit_for_bit(generator):
    cameras = random_cameras(3, 24, 40, generator)
    assert cameras.resize(3, 5).resize(24, 40).intrinsics.equal(cameras.intrinsics)


@given(st.tuples(*[st.integers(1, 300)] * 4))
@settings(max_examples=200, deadline=None)
def test_cover_is_the_largest_centred_window_of_the_shape(sizes):
    height, width, rows, columns = sizes
    box = cover(*sizes)
    assert 0 <= box.top <= box.top + box.height <= height and 0 <= box.left <= box.left + box.width <= width
    assert box.height == height or box.width == width
    assert abs(2 * box.top + box.height - height) <= 1 and abs(2 * box.left + box.width - width) <= 1
    assert abs(box.height - box.width * rows / columns) <= max(0.5, rows / columns) or min(box[2:]) == 1
    assert cover(height, width, height, width) == (0, 0, height, width)


def test_fit_treats_the_camera_as_the_photograph(generator):
    """Content at a place of the image is found where crop and resize of the image put it."""
    cameras = random_cameras(1, 50, 91, generator)
    fitted, box = cameras.fit(16, 24)
    assert (fitted.height, fitted.width) == (16, 24)
    points = cameras.unproject(torch.ones(1, 50, 91))[0].flatten(0, 1)
    before, _ = cameras.project(points)
    after, _ = fitted.project(points)
    offset, stretch = torch.tensor([box.left, box.top]), torch.tensor([24 / box.width, 16 / box.height])
    torch.testing.assert_close(after, (before - offset) * stretch, atol=1e-3, rtol=0)


def test_indexing_keeps_the_batch(generator):
    cameras = random_cameras(4, 3, 5, generator)
    assert [len(cameras[i]) for i in (0, -1, -4, slice(1, 3), [2, 0], range(3), torch.tensor([1]))] == [
        1,
        1,
        1,
        2,
        2,
        3,
        1,
    ]
    assert cameras[-1].cam_from_world.equal(cameras.cam_from_world[3:])
    assert Cameras.cat(list(cameras)).intrinsics.equal(cameras.intrinsics), "iteration ends"
    for bad in (4, -5):
        with pytest.raises(IndexError, match="of a batch of 4"):
            cameras[bad]


def test_centres_are_where_projection_is_degenerate(generator):
    cameras = random_cameras(3, 4, 6, generator)
    torch.testing.assert_close(cameras.world_from_cam, torch.linalg.inv(cameras.cam_from_world), atol=1e-5, rtol=1e-5)
    _, z = cameras.project(cameras.centers)
    torch.testing.assert_close(z.diagonal(), torch.zeros(3), atol=1e-5, rtol=0)


def test_gradients_reach_depth_and_cameras(generator):
    cameras = random_cameras(1, 3, 4, generator)
    k = cameras.intrinsics.requires_grad_()
    depth = torch.ones(1, 3, 4, requires_grad=True)
    cameras.crop(0, 1, 3, 3).resize(3, 4).unproject(depth).sum().backward()
    assert k.grad.abs().sum() > 0 and depth.grad.abs().sum() > 0


def test_opencv_intrinsics_are_half_a_pixel_off(generator):
    cameras = random_cameras(2, 4, 6, generator)
    opencv = Cameras.from_opencv(cameras.intrinsics.double(), cameras.cam_from_world.double(), 4, 6)
    assert opencv.intrinsics[:, :2, 2].equal(cameras.intrinsics[:, :2, 2] + 0.5)
    with pytest.raises(ValueError, match="fov must be in radians"):
        Cameras.from_fov(60.0, 4, 6)


def test_wrong_shapes_are_named(unchecked):
    k, pose = torch.eye(3)[None], torch.eye(4)[None]
    for bad in [(k[0], pose), (k, pose[0]), (k.repeat(2, 1, 1), pose), (pose, k)]:
        with pytest.raises(ValueError, match=r"^Cameras needs intrinsics \(v, 3, 3\) .* got \("):
            Cameras(*bad, 4, 6)
    with pytest.raises(ValueError, match=r"are float32, got intrinsics torch\.float64"):
        Cameras(k.double(), pose, 4, 6)
    with pytest.raises(ValueError, match="must be positive, got 0 x 6"):
        Cameras(k, pose, 0, 6)
    with pytest.raises(ValueError, match="one image size, got"):
        Cameras.cat([Cameras(k, pose, 4, 6), Cameras(k, pose, 6, 4)])
    with pytest.raises(ValueError, match="sizes must be positive"):
        cover(3, 4, 0, 1)


@pytest.mark.parametrize(
    "tensor, place, value, message",
    [
        ("k", (0, 2), math.nan, "not finite"),
        ("k", (1, 1), -1.0, "focal length"),
        ("k", (0, 1), 0.1, "skew"),
        ("pose", (3, 0), 1.0, "last row of cam_from_world"),
        ("pose", (0, 0), 1.1, "not orthonormal"),
        ("pose", (2, 2), -1.0, "mirror image"),
    ],
)
def test_validate_names_the_camera_and_its_fault(tensor, place, value, message):
    k, pose = torch.eye(3).repeat(3, 1, 1), torch.eye(4).repeat(3, 1, 1)
    assert len(Cameras(k, pose, 4, 6).validate()) == 3
    {"k": k, "pose": pose}[tensor][1][place] = value
    with pytest.raises(ValueError, match=f"^camera 1 of 3 .*{message}"):
        Cameras(k, pose, 4, 6).validate()


def test_invert_agrees_with_world_from_cam(generator):
    cameras = random_cameras(5, 4, 6, generator)
    torch.testing.assert_close(invert(cameras.cam_from_world), cameras.world_from_cam)
