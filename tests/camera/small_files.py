"""Small files of every format, made from known cameras by the words of docs/formats.md, not by our writers."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mirage.camera import Cameras
from mirage.camera.rigid import to_quaternion

HEIGHT, WIDTH, FRAMES = 54, 96, 5
GL = np.diag([1.0, -1.0, -1.0, 1.0])
PYTORCH3D = np.diag([-1.0, -1.0, 1.0, 1.0])
FOV = math.radians(50.625)


def k_of(truth: Cameras) -> np.ndarray:
    return truth.intrinsics.double().numpy()


def as_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def table(path: Path, rows: list) -> Path:
    path.write_text(
        "\n".join(" ".join(word if isinstance(word, str) else repr(float(word)) for word in r) for r in rows)
    )
    return path


def quaternions(matrices: np.ndarray) -> np.ndarray:
    """Scalar first."""
    return to_quaternion(torch.from_numpy(matrices[:, :3, :3])).numpy()


def normalised(truth: Cameras) -> list[float]:
    k = truth.resize(1, 1).intrinsics[0].double()
    return [k[0, 0].item(), k[1, 1].item(), k[0, 2].item(), k[1, 2].item()]


def spatia(folder, truth, w2c):
    (folder / "w2c.txt").write_text("\n".join(json.dumps(m.tolist()) for m in w2c))
    (folder / "intrinsics.txt").write_text("[{} {} {} {}]".format(*normalised(truth)))
    (folder / "prompt.txt").write_text("A quiet street.\n")
    return folder


def realestate10k(folder, truth, w2c):
    rows = [[f"frames/{n}.png", *normalised(truth), *m[:3].ravel()] for n, m in enumerate(w2c)]
    return table(folder / "clip.txt", [["https://example.org/watch"], [], ["a", "quiet", "street"], *rows])


def tum(folder, truth, w2c):
    c2w = np.linalg.inv(w2c)
    rows = [[n / 30, *m[:3, 3], *q[[1, 2, 3, 0]]] for n, (m, q) in enumerate(zip(c2w, quaternions(c2w), strict=True))]
    return table(folder / "groundtruth.txt", [["# timestamp tx ty tz qx qy qz qw"], *rows])


def kitti(folder, truth, w2c):
    return table(folder / "00.txt", [m[:3].ravel() for m in np.linalg.inv(w2c)])


def matrices(folder, truth, w2c):
    """ScanNet's tree, with names that must not be sorted as words."""
    for name in ("pose", "intrinsic", "color"):
        (folder / name).mkdir()
    for n, m in enumerate(np.linalg.inv(w2c)):
        table(folder / "pose" / f"{n + 8}.txt", m)
    four = np.eye(4)
    four[:3, :3] = k_of(truth)[0]
    table(folder / "intrinsic" / "intrinsic_color.txt", four)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "color" / "8.jpg")
    return folder


def colmap(folder, truth, w2c):
    (folder / "sparse" / "0").mkdir(parents=True)
    fx, fy, cx, cy = k_of(truth)[0][[0, 1, 0, 1], [0, 1, 2, 2]]
    table(folder / "sparse/0/cameras.txt", [["#", "cameras"], ["3 PINHOLE", f"{WIDTH} {HEIGHT}", fx, fy, cx, cy]])
    rows = [["# IMAGE_ID, QW, ..."]]
    order = [3, 0, 4, 1, 2]
    q = quaternions(w2c)
    for n in order:
        rows += [[f"{n + 1}", *q[n], *w2c[n, :3, 3], "3", f"frame {n + 8}.png"], [1.5, 2.0, "-1"] if n % 2 else []]
    table(folder / "sparse/0/images.txt", rows)
    return folder


def nerfstudio(folder, truth, w2c):
    """A DL3DV-like file: applied_transform, applied_scale, distortion, names."""
    fx, fy, cx, cy = k_of(truth)[0][[0, 1, 0, 1], [0, 1, 2, 2]]
    applied = np.array([[0, 0, 1, 0], [1, 0, 0, 0.5], [0, 1, 0, 2], [0, 0, 0, 1.0]])
    poses = applied @ np.linalg.inv(w2c) @ GL
    poses[:, :3, 3] *= 0.25
    frames = [{"file_path": f"images/{n}.png", "transform_matrix": m.tolist()} for n, m in enumerate(poses)]
    content = {
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "w": WIDTH,
        "h": HEIGHT,
        "camera_model": "OPENCV",
        "k1": 0.01,
    }
    content |= {"applied_transform": applied[:3].tolist(), "applied_scale": 0.25, "frames": frames}
    return as_json(folder / "transforms.json", content)


def square_lens(truth: Cameras, fov_down: float) -> None:
    """Give the truth the lens of formats that know a single angle."""
    focal = HEIGHT / 2 / math.tan(fov_down / 2)
    truth.intrinsics[:] = torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1.0]])


def blender(folder, truth, w2c):
    square_lens(truth, 0.7)
    angle = 2 * math.atan(WIDTH / 2 / truth.intrinsics[0, 0, 0].item())
    frames = [
        {"file_path": f"./train/r_{n}", "transform_matrix": (m @ GL).tolist()} for n, m in enumerate(np.linalg.inv(w2c))
    ]
    (folder / "train").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "train" / "r_0.png")
    return as_json(folder / "transforms_train.json", {"camera_angle_x": angle, "frames": frames})


def guessed(truth: Cameras) -> None:
    truth.intrinsics[:] = Cameras.from_fov(math.radians(60), HEIGHT, WIDTH).intrinsics


def vmem(folder, truth, w2c):
    guessed(truth)
    frames = [
        {"file_path": f"{n}.png", "transform_matrix": (m @ GL).tolist()} for n, m in enumerate(np.linalg.inv(w2c))
    ]
    return as_json(folder / f"transforms_{FRAMES}_frames.json", {"frames": frames})


def camera_path(folder, truth, w2c):
    square_lens(truth, math.radians(40))
    cameras = [{"camera_to_world": (m @ GL).ravel().tolist(), "fov": 40, "aspect": 1.0} for m in np.linalg.inv(w2c)]
    content = {"camera_type": "perspective", "render_height": HEIGHT, "render_width": WIDTH, "fps": 24}
    return as_json(folder / "camera_path.json", content | {"seconds": 4, "camera_path": cameras, "keyframes": []})


def viser(folder, truth, w2c):
    entries = [
        {"w2c": m.ravel().tolist(), "K": k.ravel().tolist(), "img_wh": [WIDTH, HEIGHT]}
        for m, k in zip(w2c, k_of(truth), strict=True)
    ]
    return as_json(folder / "cameras_from_viewer.json", entries)


def ngp_path(folder, truth, w2c):
    square_lens(truth, math.radians(45))
    c2w = np.linalg.inv(w2c)
    path = [
        {"R": q[[1, 2, 3, 0]].tolist(), "T": m[:3, 3].tolist(), "fov": 45.0, "timestamp": n / 4}
        for n, (m, q) in enumerate(zip(c2w, quaternions(c2w), strict=True))
    ]
    content = {"loop": False, "time": 0.0, "duration_seconds": 5.0, "spline_order": 3, "path": path}
    return as_json(folder / "path.json", content)


def ngp_export(folder, truth, w2c):
    square_lens(truth, FOV)
    cameras = [{"start": m[:3].tolist(), "end": m[:3].tolist()} for m in np.linalg.inv(w2c)]
    return as_json(folder / "exported.json", {"cameras": cameras, "resolution": [WIDTH, HEIGHT], "fps": 24, "spp": 8})


def ngp_seed(folder, truth, w2c):
    square_lens(truth, FOV)
    return as_json(folder / "cameras.json", [m[:3].tolist() for m in np.linalg.inv(w2c)])


def gen3c_request(folder, truth, w2c):
    k, size = k_of(truth), np.tile([WIDTH, HEIGHT], (FRAMES, 1))
    np.savez(
        folder / "request.npz",
        cameras_to_world=np.linalg.inv(w2c)[:, :3],
        focal_lengths=k[:, [0, 1], [0, 1]],
        principal_points=k[:, :2, 2] / size,
        resolutions=size,
    )
    return folder / "request.npz"


def worldscore(folder, truth, w2c):
    truth.intrinsics[:] = torch.tensor([[50.0, 0, WIDTH / 2], [0, 50.0, HEIGHT / 2], [0, 0, 1.0]])
    c2w = PYTORCH3D @ truth.world_from_cam.double().numpy() @ GL  # PyTorch3D world, Blender camera axes
    assert np.allclose(c2w[0], np.diag([-1.0, 1, -1, 1]))
    content = {"focal_length": 50, "scale": 1.0, "cameras": c2w[[0, -1]].tolist(), "cameras_interp": c2w.tolist()}
    return as_json(folder / "camera_data.json", content)


def hyworldplay(folder, truth, w2c):
    truth.intrinsics[:, :2, 2] = torch.tensor([WIDTH / 2, HEIGHT / 2])
    poses = np.linalg.inv(w2c)
    content = {str(n): {"extrinsic": poses[n].tolist(), "K": k_of(truth)[n].tolist()} for n in reversed(range(FRAMES))}
    return as_json(folder / "pose.json", content)


def cameractrl(folder, truth, w2c):
    return as_json(
        folder / "clip.json", [[n * 1000, *normalised(truth), 0, 0, *m[:3].ravel()] for n, m in enumerate(w2c)]
    )


def rgbd(folder, truth, w2c):
    k = k_of(truth)[0]
    k[:2, 2] -= 0.5
    np.savez(folder / "cameras.npz", c2w=np.linalg.inv(w2c), K=k, depth_scale=1000.0)
    (folder / "rgb").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "rgb" / "00000.png")
    return folder


def geometry(folder, truth, w2c):
    depths = np.ones((FRAMES, HEIGHT, WIDTH), np.float32)
    np.savez(folder / "geometry.npz", poses_c2w=np.linalg.inv(w2c), intrinsics=k_of(truth), depths=depths)
    return folder


def gen3c(folder, truth, w2c):
    images = np.zeros((2, 3, HEIGHT, WIDTH), np.float32)
    keys = {"K_key_frames": k_of(truth)[:2], "w2cs_key_frames": w2c[:2]}
    np.savez(folder / "views.npz", images_key_frames=images, w2cs_all=w2c, Ks_all=k_of(truth), **keys)
    return folder / "views.npz"


def gen3c_video(folder, truth, w2c):
    np.savez(folder / "camera.npz", w2c=w2c, intrinsics=k_of(truth))
    np.savez(folder / "depth.npz", depth=np.ones((FRAMES, HEIGHT, WIDTH), np.float16))
    return folder


def lyra(folder, truth, w2c):
    np.savez(folder / "trajectory.npz", w2c=w2c, intrinsics=k_of(truth), image_height=HEIGHT, image_width=WIDTH)
    as_json(folder / "captions.json", {"81": "the sea", "0": "a quiet street"})
    return folder


def vipe(folder, truth, w2c):
    """Frames 0 2 3 5 6 have poses; intrinsics are of all."""
    for name in ("pose", "intrinsics"):
        (folder / name).mkdir()
    k = k_of(truth)[0][[0, 1, 0, 1], [0, 1, 2, 2]]
    np.savez(folder / "pose" / "clip.npz", inds=[0, 2, 3, 5, 6], data=np.linalg.inv(w2c).reshape(-1, 16))
    np.savez(folder / "intrinsics" / "clip.npz", inds=np.arange(7), data=np.tile(k, (7, 1)))
    return folder


def npy(folder, truth, w2c):
    guessed(truth)
    np.save(folder / "poses.npy", np.linalg.inv(w2c) @ GL)
    return folder / "poses.npy"


FILES = {
    "spatia": spatia,
    "realestate10k": realestate10k,
    "tum": tum,
    "kitti": kitti,
    "matrices": matrices,
    "colmap": colmap,
    "nerfstudio": nerfstudio,
    "blender": blender,
    "vmem": vmem,
    "camera-path": camera_path,
    "viser": viser,
    "ngp-path": ngp_path,
    "ngp-export": ngp_export,
    "ngp-seed": ngp_seed,
    "gen3c-request": gen3c_request,
    "worldscore": worldscore,
    "hyworldplay": hyworldplay,
    "cameractrl": cameractrl,
    "rgbd": rgbd,
    "geometry": geometry,
    "gen3c": gen3c,
    "gen3c-video": gen3c_video,
    "lyra": lyra,
    "vipe": vipe,
    "npy": npy,
}
