"""Where a picture was taken from: its pose by features it shares with a view of known depth, or with another picture.

COLMAP's estimators if pycolmap is installed, else OpenCV's.
"""

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.rigid import rotation_angle

LEAST = 12  # features that must agree on a pose
AGREE = 0.01  # of the picture's diagonal: how far off a feature may be that agrees, but at least a pixel
RATIO = 0.8  # of Lowe's test
EDGE = 1.05  # between the depths around a feature: beyond it the feature is on an edge and belongs to neither side
POINTS = 1000  # pixels of a flow that are looked at
BASELINE = 0.02  # of the depth: with less between two views nothing tells the direction between them


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a picture."""

    places: Float32[np.ndarray, "n 2"]
    """Pixels (x, y), corner convention."""
    looks: Float32[np.ndarray, "n 128"]


def features(picture: UInt8[np.ndarray, "h w 3"]) -> Features:
    """SIFT features of a picture, by OpenCV.

    Args:
        picture: Colour, 0 to 255.

    Returns:
        The features, perhaps none.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    points, looks = cv2.SIFT_create(contrastThreshold=0.01).detectAndCompute(grey, None)
    if not points:
        return Features(places=np.zeros((0, 2), np.float32), looks=np.zeros((0, 128), np.float32))
    places = np.array([p.pt for p in points], np.float32) + 0.5
    return Features(places=places, looks=looks)


def match(first: Features, second: Features) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, "n 2"]]:
    """Features that are each other's best match, and clearly so.

    Args:
        first: Of one picture.
        second: Of another.

    Returns:
        Their places in both.
    """
    if min(len(first.places), len(second.places)) < 2:
        return first.places[:0], second.places[:0]
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    there = [m[0] for m in matcher.knnMatch(first.looks, second.looks, 2) if m[0].distance < RATIO * m[1].distance]
    back = {m.queryIdx: m.trainIdx for m in matcher.match(second.looks, first.looks)}
    pairs = [(m.queryIdx, m.trainIdx) for m in there if back.get(m.trainIdx) == m.queryIdx]
    a, b = np.array(pairs, int).reshape(-1, 2).T
    return first.places[a], second.places[b]


def locate(
    found: Features, key: Features, depth: Float32[Tensor, "h w"], at: Cameras, camera: Cameras
) -> Float[Tensor, "4 4"] | None:
    """The pose of a picture from what it shares with a view of known depth.

    Args:
        found: Features of the picture.
        key: Features of the view.
        depth: z-depth of the view, 0 = unknown.
        at: The view's camera.
        camera: The picture's intrinsics; its pose is not looked at.

    Returns:
        `cam_from_world`, in double precision; None if too little agrees.
    """
    known, seen = match(key, found)
    around = _around(depth, known)
    sure = (around.min(0) > 0) & (around.max(0) < EDGE * around.min(0))
    if sure.sum() < LEAST:
        return None
    k = at.intrinsics[0].double().cpu().numpy()
    rays = np.concatenate([(known[sure] - k[:2, 2]) / k[[0, 1], [0, 1]], np.ones((sure.sum(), 1))], 1)
    points = (rays * around.mean(0)[sure, None]) @ np.linalg.inv(_pose(at))[:3, :3].T + _center(at)
    return _absolute(seen[sure].astype(np.float64), points, camera)


def locate_by_flow(
    flow: Float32[np.ndarray, "h w 2"], mask: Bool[np.ndarray, "h w"], depth: Float32[Tensor, "h w"], at: Cameras
) -> Float[Tensor, "4 4"] | None:
    """The pose of a picture from how far all of it is from where a view of known depth has it.

    It works on pictures that are too blurred for features, if they are near to the view.

    Args:
        flow: From the view to the picture, in pixels.
        mask: Pixels that count.
        depth: z-depth of the view, 0 = unknown.
        at: The view's camera, with the intrinsics of the picture.

    Returns:
        `cam_from_world`, in double precision; None if too little agrees.
    """
    y, x = np.nonzero(mask & (depth.cpu().numpy() > 0))
    if len(x) < LEAST:
        return None
    chosen = np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int)
    x, y = x[chosen], y[chosen]
    points = at.unproject(depth[None])[0].double().cpu().numpy()[y, x]
    return _absolute(np.stack([x, y], 1) + 0.5 + flow[y, x].astype(np.float64), points, at)


def between(first: Features, second: Features, a: Cameras, b: Cameras) -> Float[Tensor, "4 4"] | None:
    """The motion from one picture to another, by the essential matrix; the length of the way is not known.

    Args:
        first: Features of one.
        second: Features of the other.
        a: Intrinsics of the first.
        b: Intrinsics of the second.

    Returns:
        `second_from_first` with a way of length 1; None if too little agrees.
    """
    x, y = match(first, second)
    return None if len(x) < LEAST else _relative(x.astype(np.float64), y.astype(np.float64), a, b)


def pose_error(found: Float[Tensor, "4 4"], true: Float[Tensor, "4 4"]) -> tuple[float, float]:
    """How far a pose is from another.

    Args:
        found: `cam_from_world`.
        true: `cam_from_world`.

    Returns:
        Angle between the orientations in degrees, distance between the centres in world units.
    """
    a, b = (m.detach().cpu().double() for m in (found, true))
    turn = float(torch.rad2deg(rotation_angle(a[:3, :3] @ b[:3, :3].T)))
    center = lambda m: -m[:3, :3].T @ m[:3, 3]
    return turn, float((center(a) - center(b)).norm())


def motion_error(found: Float[Tensor, "4 4"], true: Float[Tensor, "4 4"], depth: float) -> tuple[float, float]:
    """How far a motion of unknown length is from another.

    Args:
        found: `second_from_first`, its way of length 1.
        true: `second_from_first`.
        depth: Of the scene, in world units.

    Returns:
        Angle between the turns and between the ways in degrees; NaN for the latter where the true way is too short
        against the depth to be told.
    """
    a, b = (m.detach().cpu().double() for m in (found, true))
    turn = float(torch.rad2deg(rotation_angle(a[:3, :3] @ b[:3, :3].T)))
    way = b[:3, 3]
    if way.norm() < BASELINE * depth:
        return turn, float("nan")
    cosine = (a[:3, 3] @ way) / (a[:3, 3].norm() * way.norm())
    return turn, float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))


def match_scale(
    frames: UInt8[np.ndarray, "f h w 3"], cameras: Cameras, depth: Float32[Tensor, "h w"]
) -> tuple[float, int]:
    """The factor from the unit of a path to that of a depth map of its first frame.

    Features of the first frame are triangulated with true frames along the path; the factor is the median of what the
    depth map has there over what they have. Paths from structure from motion have a unit of their own.

    Args:
        frames: True frames.
        cameras: Their cameras.
        depth: z-depth of the first frame, 0 = unknown.

    Returns:
        The factor, and how many features told it; 1 and 0 if fewer than `LEAST` do.
    """
    key, ratios = features(frames[0]), []
    for i in np.unique(np.linspace(1, len(frames) - 1, 12).round().astype(int)).tolist():
        x, y = match(key, features(frames[i]))
        if len(x) < LEAST:
            continue
        first, other = (cameras.intrinsics[j].double().cpu().numpy() @ _pose(cameras[j])[:3] for j in (0, i))
        points = cv2.triangulatePoints(first, other, x.T.astype(np.float64), y.T.astype(np.float64))
        points = (points[:3] / points[3]).T
        near = max(1.0, AGREE / 2 * np.hypot(*frames.shape[1:3]))
        good = np.ones(len(points), bool)
        for j, place in ((0, x), (i, y)):
            xy, z = _project(cameras[j], points)
            good &= (z > 0) & (np.linalg.norm(xy - place, axis=1) < near)
        rays = [(points - _center(cameras[j])) for j in (0, i)]
        cosine = (rays[0] * rays[1]).sum(1) / np.prod([np.linalg.norm(r, axis=1) for r in rays], 0)
        good &= cosine < np.cos(np.radians(1.0))  # else the depth of a feature is anyone's guess
        z = _project(cameras[0], points)[1]
        there = _around(depth, x)
        good &= (there.min(0) > 0) & (there.max(0) < EDGE * there.min(0))
        ratios += (there.mean(0)[good] / z[good]).tolist()
    return (float(np.median(ratios)), len(ratios)) if len(ratios) >= LEAST else (1.0, 0)


def estimator() -> str:
    """What estimates poses here, with its version."""
    colmap = _colmap()
    return f"pycolmap {colmap.__version__}" if colmap else f"OpenCV {cv2.__version__}"


@functools.cache
def _colmap() -> ModuleType | None:
    try:
        return importlib.import_module("pycolmap")
    except ImportError:
        return None


def _pose(camera: Cameras) -> Float[np.ndarray, "4 4"]:
    return camera.cam_from_world[0].double().cpu().numpy()


def _center(camera: Cameras) -> Float[np.ndarray, "3"]:
    return camera.centers[0].double().cpu().numpy()


def _project(camera: Cameras, points: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
    xy, z = camera.project(torch.from_numpy(points).float().to(camera.intrinsics.device))
    return xy[0].cpu().numpy(), z[0].cpu().numpy()


def _around(depth: Float32[Tensor, "h w"], places: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, "4 n"]:
    """Depth of the four pixels around places."""
    values = depth.cpu().numpy()
    left, top = np.floor(places - 0.5).astype(int).T
    h, w = values.shape
    at = lambda i, j: values[(top + i).clip(0, h - 1), (left + j).clip(0, w - 1)]
    return np.stack([at(i, j) for i in (0, 1) for j in (0, 1)])


def _near(camera: Cameras) -> float:
    return max(1.0, AGREE * float(np.hypot(camera.height, camera.width)))


def _absolute(
    places: Float[np.ndarray, "n 2"], points: Float[np.ndarray, "n 3"], camera: Cameras
) -> Float[Tensor, "4 4"] | None:
    near = _near(camera)
    if colmap := _colmap():
        options = colmap.AbsolutePoseEstimationOptions()
        options.ransac.max_error = near
        options.ransac.random_seed = 0
        done = colmap.estimate_and_refine_absolute_pose(places, points, _lens(colmap, camera), options)
        if done is None or done["num_inliers"] < LEAST:
            return None
        return _square(done["cam_from_world"].matrix())
    k = camera.intrinsics[0].double().cpu().numpy()
    cv2.setRNGSeed(0)
    solved = {"reprojectionError": near, "iterationsCount": 1000, "confidence": 0.9999, "flags": cv2.SOLVEPNP_SQPNP}
    good, turn, way, inliers = cv2.solvePnPRansac(points, places, k, None, **solved)
    if not good or inliers is None or len(inliers) < LEAST:
        return None
    chosen = inliers[:, 0]
    turn, way = cv2.solvePnPRefineLM(points[chosen], places[chosen], k, None, turn, way)
    return _square(np.concatenate([cv2.Rodrigues(turn)[0], way], 1))


def _relative(
    x: Float[np.ndarray, "n 2"], y: Float[np.ndarray, "n 2"], a: Cameras, b: Cameras
) -> Float[Tensor, "4 4"] | None:
    near = _near(a) / 3  # nothing but the rays tells of a way: what is off by more tells another
    if colmap := _colmap():
        options = colmap.RANSACOptions()
        options.max_error = near
        options.random_seed = 0
        first, second = _lens(colmap, a), _lens(colmap, b)
        done = colmap.estimate_relative_pose(first, x, second, y, options)
        if done is None or done["num_inliers"] < LEAST:
            return None
        pose = done["cam2_from_cam1"]
        better = colmap.refine_relative_pose(pose, first, x, second, y, np.asarray(done["inlier_mask"], bool))
        return _square((better or done)["cam2_from_cam1"].matrix())
    rays = []
    for places, camera in ((x, a), (y, b)):
        k = camera.intrinsics[0].double().cpu().numpy()
        rays.append((places - k[:2, 2]) / k[[0, 1], [0, 1]])
    cv2.setRNGSeed(0)
    focal = float(a.intrinsics[0, 0, 0])
    matrix, inliers = cv2.findEssentialMat(
        *rays, np.eye(3), method=cv2.USAC_MAGSAC, prob=0.9999, threshold=near / focal
    )
    if matrix is None or matrix.shape != (3, 3) or inliers.sum() < LEAST:
        return None
    _, rotation, way, _ = cv2.recoverPose(matrix, *rays, np.eye(3), mask=inliers)
    return _square(np.concatenate([rotation, way], 1))


def _lens(colmap: ModuleType, camera: Cameras) -> object:
    k = camera.intrinsics[0].double().cpu().numpy()
    values = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
    return colmap.Camera(model="PINHOLE", width=camera.width, height=camera.height, params=values)


def _square(matrix: Float[np.ndarray, "3 4"]) -> Float[Tensor, "4 4"]:
    return torch.cat([torch.from_numpy(np.asarray(matrix, np.float64)), torch.tensor([[0.0, 0, 0, 1]]).double()])
