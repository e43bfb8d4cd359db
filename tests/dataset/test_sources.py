"""Sources: each layout gives the frames, the cameras and the depth that were written, or says what is wrong."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_footage import same_path, write_clip, write_list, write_nerfstudio, write_pictures, write_rgbd

from mirage.camera import save_trajectory
from mirage.dataset.sources import Reading, open_footage, survey


def opened(source, reading=None):
    """The one piece of footage of a source."""
    reading = reading or Reading()
    found = survey(str(source), reading)
    assert len(found.found) == 1, found
    return open_footage(found.found[0], reading)


def close(frames, truth) -> bool:
    """Whether frames went through a good encoder at most, and are the right ones."""
    return np.abs(frames.astype(int) - truth).mean() < 4


def test_rgbd_folders(tmp_path, walk):
    footage = opened(write_rgbd(tmp_path / "room", walk))
    assert same_path(footage.cameras, walk.cameras) and footage.has_depth and footage.metric
    assert np.array_equal(footage.frames([3, 20]), walk.frames[[3, 20]])
    assert np.abs(np.stack(footage.depth([3, 20])) - walk.depth[[3, 20]]).max() < 6e-4


def test_a_video_in_a_folder_and_videos_beside_their_cameras(tmp_path, walk):
    write_clip(tmp_path / "one" / "film.mp4", walk.frames)
    write_nerfstudio(tmp_path / "one" / "transforms.json", walk.cameras)
    (tmp_path / "one" / "caption.txt").write_text("a plain\nroom")
    for name in ("x", "y"):
        write_clip(tmp_path / "many" / f"{name}.mp4", walk.frames)
        write_list(tmp_path / "many" / f"{name}.txt", walk.cameras)
    (tmp_path / "many" / "x.json").write_text('{"caption": "of x"}')
    one, many = opened(tmp_path / "one"), survey(str(tmp_path / "many"), Reading())
    assert [found.name for found in many.found] == ["x", "y"]
    x, y = (open_footage(found, Reading()) for found in many.found)
    assert (one.caption, x.caption, y.caption) == ("a plain room", "of x", "")
    assert one.metric and not x.metric, "structure from motion has a unit of its own"
    for footage in (one, x, y):
        assert same_path(footage.cameras, walk.cameras) and not footage.has_depth
        assert close(footage.frames([0, 24]), walk.frames[[0, 24]])
        assert close(footage.frames(range(7, 20, 4)), walk.frames[7:20:4])


def test_realestate10k_by_cut_clip_by_whole_video_and_by_frames_named_by_time(tmp_path, walk):
    part = walk.cameras[8:20]
    lists = tmp_path / "lists"
    write_list(lists / "cut.txt", part)
    write_list(lists / "whole.txt", part, url="https://www.youtube.com/watch?v=whole_video", start=1.0)
    write_list(lists / "named.txt", part[::3], start=1.0, fps=8 / 3)
    write_list(lists / "gone.txt", part, url="https://youtu.be/not_here_at_all")
    videos = tmp_path / "videos"
    write_clip(videos / "cut.mp4", walk.frames[8:20])
    write_clip(videos / "whole_video.mp4", walk.frames)
    write_pictures(videos / "named", walk.frames[8:20], [str(round((1 + i / 8) * 1e6)) for i in range(12)])
    reading = Reading(videos=str(videos))
    found = survey(str(lists), reading)
    assert [one.name for one in found.found] == ["cut", "named", "whole"]
    assert [one["name"] for one in found.skipped] == ["gone"] and "not_here_at_all.mp4" in found.skipped[0]["why"]
    for one in found.found:
        footage, step = open_footage(one, reading), 3 if one.name == "named" else 1
        assert same_path(footage.cameras, part[::step]), one.name
        assert close(footage.frames([0, 3]), walk.frames[8:20:step][[0, 3]]), one.name
        assert not footage.metric
    with pytest.raises(ValueError, match="give the folder of their --videos"):
        survey(str(lists), Reading())


def test_a_time_that_the_video_does_not_have_is_named(tmp_path, walk):
    write_list(tmp_path / "lists" / "late.txt", walk.cameras, url="https://youtu.be/some_video", start=99.0)
    write_clip(tmp_path / "videos" / "some_video.mp4", walk.frames)
    with pytest.raises(ValueError, match=r"a pose at 99\.000 s, but .* has no frame within"):
        opened(tmp_path / "lists", Reading(videos=str(tmp_path / "videos")))


def write_vipe(folder, walk, *, name="room", kind="PINHOLE"):
    """As ViPE leaves it: a video, poses and intrinsics by frame, depth and masks in zips."""
    exr = pytest.importorskip("OpenEXR")
    write_clip(folder / "rgb" / f"{name}.mp4", walk.frames)
    for part in ("pose", "intrinsics", "depth", "mask"):
        (folder / part).mkdir()
    count = np.arange(len(walk.frames))
    np.savez(folder / "pose" / f"{name}.npz", inds=count, data=walk.cameras.world_from_cam.numpy())
    k = walk.cameras.intrinsics
    np.savez(
        folder / "intrinsics" / f"{name}.npz",
        inds=count,
        data=torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], 1).numpy(),
    )
    (folder / "intrinsics" / f"{name}_camera.txt").write_text("".join(f"{i}: {kind}\n" for i in count))
    with zipfile.ZipFile(folder / "depth" / f"{name}.zip", "w") as depth:
        for i in count:
            file = folder / "z.exr"
            header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
            with exr.File(header, {"Z": exr.Channel(walk.depth[i].astype(np.float16))}) as picture:
                picture.write(str(file))
            depth.writestr(f"{i:05}.exr", file.read_bytes())
            file.unlink()
    mask = np.zeros(walk.frames.shape[1:3], np.uint8)
    mask[:7, :9] = 2
    with zipfile.ZipFile(folder / "mask" / f"{name}.zip", "w") as masks:
        for i in count:
            data = io.BytesIO()
            Image.fromarray(mask).save(data, "PNG")
            masks.writestr(f"{i:05}.png", data.getvalue())
    return folder


def test_vipe(tmp_path, walk):
    footage = opened(write_vipe(tmp_path / "results", walk))
    assert same_path(footage.cameras, walk.cameras)
    assert close(footage.frames([2, 9]), walk.frames[[2, 9]])
    assert np.abs(np.stack(footage.depth([2, 9])) / walk.depth[[2, 9]] - 1).max() < 1e-3
    moving = footage.movers([4])[0]
    assert moving[:7, :9].all() and moving.sum() == 63
    with pytest.raises(ValueError, match="only PINHOLE cameras can be used, got PANORAMA"):
        opened(write_vipe(tmp_path / "round", walk, kind="PANORAMA"))


def test_tum(tmp_path, walk):
    folder = tmp_path / "tum"
    write_pictures(folder / "rgb", walk.frames)
    write_pictures(folder / "depth", (walk.depth * 5000).round().clip(0, 65535).astype(np.uint16))
    times = 100 + np.arange(25) / 10
    for kind, late in (("rgb", 0.0), ("depth", 0.004)):
        rows = [f"{t + late:.4f} {kind}/{i:05}.png" for i, t in enumerate(times)]
        (folder / f"{kind}.txt").write_text("# a comment\n" + "\n".join(rows))
    from scipy.spatial.transform import Rotation

    pose = walk.cameras.world_from_cam.double().numpy()
    turn = Rotation.from_matrix(pose[:, :3, :3]).as_quat()
    rows = [[t + 0.003, *p, *q] for t, p, q in zip(times, pose[:, :3, 3], turn, strict=True)]
    rows.insert(11, [*(np.array(rows[10]) + np.array(rows[11]))[:1] / 2, *rows[10][1:]])  # more often than pictures
    rows = [row for i, row in enumerate(rows) if i != 3]  # and not always
    (folder / "groundtruth.txt").write_text("\n".join(" ".join(f"{n:.6f}" for n in row) for row in rows))
    k = walk.cameras.intrinsics[0]
    lens = tuple(float(n) for n in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
    footage = opened(folder, Reading(intrinsics=lens))
    left = [i for i in range(25) if i != 3]
    assert same_path(footage.cameras, walk.cameras[left])
    assert np.array_equal(footage.frames([3, 10]), walk.frames[[4, 11]])
    assert np.abs(footage.depth([3])[0] - walk.depth[4]).max() < 2e-4
    with pytest.raises(ValueError, match="has no intrinsics: give --intrinsics"):
        opened(folder)


def test_poses_go_to_the_pictures_that_they_name(tmp_path, walk):
    names = [f"{(7 * i) % 25:02}" for i in range(25)]  # in an order of their own
    write_pictures(tmp_path / "nerf" / "images", walk.frames, names)
    images = [f"images/{name}.png" for name in names]
    save_trajectory(tmp_path / "nerf" / "transforms.json", walk.cameras[2:20], "nerfstudio", images=images[2:20])
    write_pictures(tmp_path / "sfm" / "images", walk.frames)
    some = [f"{i:05}.png" for i in range(4, 22)]
    save_trajectory(tmp_path / "sfm" / "sparse", walk.cameras[4:22], "colmap", images=some)
    nerf, sfm = opened(tmp_path / "nerf"), opened(tmp_path / "sfm")
    assert np.array_equal(nerf.frames([0, 17]), walk.frames[[2, 19]]) and same_path(nerf.cameras, walk.cameras[2:20])
    assert np.array_equal(sfm.frames([0, 17]), walk.frames[[4, 21]]) and same_path(sfm.cameras, walk.cameras[4:22])
    assert not sfm.metric


def test_rendered_clips_and_exact_worlds(tmp_path):
    reading = Reading(size=(16, 24), frames=5)
    worlds = survey("worlds:2:40", reading)
    seen = [open_footage(one, reading) for one in worlds.found]
    assert [one.name for one in worlds.found] == ["world-000040", "world-000041"]
    shard = {
        "frames": torch.stack([torch.from_numpy(s.frames(range(5))).permute(0, 3, 1, 2).contiguous() for s in seen]),
        "depth": torch.stack([torch.from_numpy(np.stack(s.depth(range(5)))).half() for s in seen]),
        "movers": torch.stack([torch.from_numpy(np.stack(s.movers(range(5)))) for s in seen]),
        "intrinsics": torch.stack([s.cameras.intrinsics for s in seen]),
        "cam_from_world": torch.stack([s.cameras.cam_from_world for s in seen]),
    }
    save_file(shard, tmp_path / "clips-00000.safetensors")
    again = survey(str(tmp_path), reading)
    assert len(again.found) == 2
    for before, found in zip(seen, again.found, strict=True):
        after = open_footage(found, reading)
        assert np.array_equal(before.frames([1, 4]), after.frames([1, 4]))
        assert torch.equal(before.cameras.cam_from_world, after.cameras.cam_from_world)
        assert np.allclose(np.stack(before.depth([1, 4])), np.stack(after.depth([1, 4])), rtol=1e-3)
        assert np.stack(after.depth(range(5))).min() > 0, "the sky has a depth too"


def test_a_folder_of_folders_and_what_is_none(tmp_path, walk):
    write_rgbd(tmp_path / "b10", walk, frames=3)
    write_rgbd(tmp_path / "b9", walk, frames=3)
    (tmp_path / "notes").mkdir()
    found = survey(str(tmp_path), Reading())
    assert [one.name for one in found.found] == ["b9", "b10"]
    assert (
        found.skipped == [{"name": "notes", "why": found.skipped[0]["why"]}] and "no video" in found.skipped[0]["why"]
    )


def test_bad_sources_are_named(tmp_path, walk):
    with pytest.raises(ValueError, match="source not found"):
        survey(str(tmp_path / "nowhere"), Reading())
    with pytest.raises(ValueError, match=r"worlds:COUNT or worlds"):
        survey("worlds:none", Reading())
    with pytest.raises(ValueError, match=r"nothing to prepare in .* no video, no folder of frames"):
        survey(str(tmp_path), Reading())
    write_pictures(tmp_path / "photo" / "case", walk.frames[:1])
    with pytest.raises(ValueError, match="has a single picture and no video"):
        survey(str(tmp_path / "photo"), Reading())


def test_bad_footage_is_named(tmp_path, walk):
    folder = write_rgbd(tmp_path / "few", walk)
    (folder / "rgb" / "00007.png").unlink()
    with pytest.raises(ValueError, match="24 frames but 25 poses but 25 depth maps"):
        opened(folder)
    write_pictures(tmp_path / "bare" / "rgb", walk.frames[:3])
    with pytest.raises(ValueError, match="no camera file of a known format"):
        opened(tmp_path / "bare")
    folder = tmp_path / "torn"
    write_clip(folder / "film.mp4", walk.frames)
    write_nerfstudio(folder / "transforms.json", walk.cameras)
    data = (folder / "film.mp4").read_bytes()
    (folder / "film.mp4").write_bytes(data[:300])
    with pytest.raises(ValueError, match=r"video cannot be read: .*film\.mp4"):
        opened(folder)
    (folder / "film.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"video cannot be read: .*film\.mp4"):
        opened(folder)
    folder = write_rgbd(tmp_path / "blot", walk)
    (folder / "rgb" / "00005.png").write_bytes(b"no picture")
    footage = opened(folder)
    with pytest.raises(ValueError, match=r"00005\.png"):
        footage.frames([4, 5])


def test_photographs_are_no_footage(shared):
    with pytest.raises(ValueError, match="has a single picture and no video"):
        survey(str(shared / "data" / "spatia_test_cases"), Reading())
