"""Pictures and videos: what is read is what was meant, what is written is whole or absent."""

import json
import resource
from contextlib import contextmanager

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mirage.camera.cameras import Cameras
from mirage.video.io import (
    VideoWriter,
    atomic,
    fit_image,
    images_to_tensor,
    read_image,
    read_video,
    tensor_to_images,
    write_image,
    write_json,
    write_video,
)


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    picture = Image.new("RGB", (23, 17), (255, 255, 255)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    image = read_image(path)
    assert image.shape == (17, 23, 3) and image.dtype == np.uint8 and image.min() >= 254


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    picture = Image.new("RGBA", (20, 20), (255, 0, 0, 0)).convert(mode)
    picture.save(tmp_path / "a.png", **({"transparency": picture.getpixel((0, 0))} if mode == "P" else {}))
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    values = (np.arange(16 * 16, dtype=np.uint16) << 8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png")[..., 0] == values >> 8).all()


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_the_picture_stands_upright(tmp_path, orientation, turn):
    image = gradient(32, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png") == np.rot90(image, turn)).all()


def bad_images(folder):
    """Name of the defect, the file that has it, a word that the error must hold."""
    Image.fromarray(gradient(40, 40)).save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_header.png").write_bytes(whole[:20])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    Image.new("1", (10_000, 10_000)).save(folder / "large.png")
    Image.new("F", (20, 20)).save(folder / "float.tiff")
    frames = [Image.new("L", (20, 20), shade) for shade in (0, 90, 180)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return {
        "missing.png": "does not exist", "folder.png": "is a folder", "cut.png": "damaged", "cut_header.png": "image",
        "text.jpg": "no known format", "empty.png": "no known format", "dot.png": "1 x 1", "huge.png": "too large",
        "large.png": "too large", "moving.gif": "animated", "float.tiff": "floating-point",
    }  # fmt: skip


def test_a_bad_image_is_one_sentence(tmp_path):
    for name, word in bad_images(tmp_path).items():
        with pytest.raises(ValueError, match=word) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=30)
@given(st.integers(40, 90), st.integers(40, 90), st.integers(24, 70), st.integers(24, 70))
def test_a_fitted_picture_and_its_fitted_camera_stay_together(height, width, to_height, to_width):
    camera = Cameras.from_fov(1.0, height, width)
    fitted_camera, _ = camera.fit(to_height, to_width)
    rays = torch.linalg.inv(fitted_camera.intrinsics[0]) @ torch.tensor([[10.5, 12.5, 1.0], [12.5, 9.5, 1.0]]).T
    x, y, _ = (camera.intrinsics[0] @ rays).tolist()  # where pixels (12, 10) and (9, 12) were in the photograph
    ramp = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.uint8) + np.uint8(40)
    fitted = fit_image(np.concatenate([ramp, ramp[..., :1]], -1), to_height, to_width)
    for column, row, at_x, at_y in zip((10, 12), (12, 9), x, y, strict=True):
        assert fitted[row, column, 0] == pytest.approx(at_x - 0.5 + 40, abs=1.1)
        assert fitted[row, column, 1] == pytest.approx(at_y - 0.5 + 40, abs=1.1)


def test_bytes_survive_the_trip_to_the_model_and_back():
    images = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(1, 2, 8, 16, 3)
    assert (tensor_to_images(images_to_tensor(images)) == images).all()
    assert images_to_tensor(images).aminmax() == (-1.0, 1.0)


# --- videos ------------------------------------------------------------------------------------------------------


def moving(count: int, height: int, width: int) -> np.ndarray:
    return np.stack([np.roll(gradient(height, width), 2 * i, axis=1) // 2 + 50 for i in range(count)])


@pytest.mark.parametrize(("height", "width", "even"), [(32, 48, (32, 48)), (33, 47, (34, 48)), (17, 20, (18, 20))])
def test_a_video_comes_back(tmp_path, height, width, even):
    frames = moving(11, height, width)
    write_video(tmp_path / "a.mp4", frames, crf=4)
    back = read_video(tmp_path / "a.mp4")
    assert back.shape == (11, *even, 3)
    assert np.abs(back[:, :height, :width].astype(int) - frames).mean() < 3


def test_a_video_plays_everywhere(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, fps=12) as video:
        for frame in moving(9, 30, 40):
            video.write(frame)
        video.write(moving(3, 30, 40))
    assert video.frames == 12
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12 and stream.codec_context.colorspace == 1  # BT.709
        assert sum(1 for _ in container.decode(video=0)) == 12
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # starts before it is all there


def test_colours_are_those_that_were_written(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", np.kron(colours, np.ones((16, 16, 1), np.uint8))[None], crf=1)
    cells = read_video(tmp_path / "a.mp4")[0].reshape(3, 16, 4, 16, 3)[:, 4:12, :, 4:12]
    assert np.abs(cells.astype(int) - colours[:, None, :, None]).max() <= 6  # BT.601 read as 709 is off by 30


def test_an_older_video_survives_an_interruption(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving(3, 32, 32))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), VideoWriter(path) as video:
        video.write(moving(40, 32, 32))
        raise KeyboardInterrupt
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_without_frames_or_with_two_sizes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"), VideoWriter(tmp_path / "a.mp4"):
        pass
    with pytest.raises(ValueError, match="32 x 32, got 32 x 34"), VideoWriter(tmp_path / "a.mp4") as video:
        video.write(moving(2, 32, 32))
        video.write(moving(1, 32, 34))
    assert not list(tmp_path.iterdir())


def test_a_bad_video_is_one_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    write_image(tmp_path / "still.png", gradient(20, 20))
    with pytest.raises(ValueError, match="damaged"):
        read_video(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="does not exist"):
        read_video(tmp_path / "missing.mp4")


# --- whole or absent ---------------------------------------------------------------------------------------------


@contextmanager
def full_disk(room: int):
    """No file may grow past `room` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def writers():
    noise = np.random.default_rng(1).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    return {
        "a.mp4": lambda path: write_video(path, noise),
        "a.png": lambda path: write_image(path, noise[0]),
        "a.jpg": lambda path: write_image(path, noise[0]),
        "a.json": lambda path: write_json(path, noise[0].tolist()),
    }


@pytest.mark.parametrize("name", writers())
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, name):
    with pytest.raises(OSError, match=f"^cannot write .*{name}: .*large"), full_disk(2000):
        writers()[name](tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", writers())
def test_an_impossible_folder_says_so(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=f"^cannot write .*{name}: .*(directory|exists)"):
        writers()[name](tmp_path / "file" / name)
    with pytest.raises(OSError, match=r"^cannot write"):
        writers()[name](f"/proc/nowhere/{name}")


def test_json_comes_back_and_nan_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {"coverage": [0.5, 1.0]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"coverage": [0.5, 1.0]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"coverage": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failing_block_keeps_the_older_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic(tmp_path / "a.txt") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
