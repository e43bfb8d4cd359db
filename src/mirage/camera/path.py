"""Camera paths from words: presets, text commands and files, through one door, `build_path`.

A path begins at the camera it is given: the view of the input image.
"""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.files import finish, load_trajectory
from mirage.camera.rigid import compose, invert, look_at, screw
from mirage.camera.text_readers import POSE_STRING, pose_string
from mirage.camera.trajectory import Trajectory, measure_motion, resample

TURN_COST = math.radians(30)  # a turn of this much takes as many frames as a move of one unit
LONGEST = 1e5  # world units; beyond it float32 has no centimetres left
RAMP = 0.25  # share of a move in which it gathers speed, and loses it
COMMANDS = (
    'moves "forward 2", "back 2", "left 1", "right 1", "up 1", "down 1" (units); '
    'turns "left 30deg", "right 30deg", "up 10deg", "down 10deg", "roll 10deg"; '
    'one after the other with ",", at once with "and"'
)


def build_path(
    spec: str,
    frames: int | None,
    camera: Cameras,
    *,
    scale: float = 1.0,
    keep_intrinsics: bool = False,
    center: float = 1.0,
) -> Trajectory:
    """Make the camera path that a user asks for in words.

    Five kinds of words are understood:

    - a preset with options, `orbit:radius=2,degrees=30` (`PRESETS`);
    - a text command, `forward 2, left 30deg, back 2` (`walk`);
    - a pose string of HY-WorldPlay, `w-3,right-4` (`pose_string`);
    - a camera file or folder (`load_trajectory`), which also brings its intrinsics;
    - `there-and-back:` or `a-b-a-b:` before any of these.

    Args:
        spec: The words.
        frames: Number of cameras. A file of more poses is cut, one of fewer is resampled. None takes a file as it is.
        camera: One camera: the input image's size, intrinsics and pose.
        scale: Factor on every distance, in world units.
        keep_intrinsics: Keep the intrinsics of `camera` where a file has its own.
        center: Distance of the point that a file of turns about a centre means (ViewCrafter), before `scale`.

    Returns:
        The path, whose first camera is at `camera`, bit for bit.

    Raises:
        ValueError: If the words are not understood, `frames` is missing or less than 1, `scale` is not positive and
            finite, `camera` is not one camera, or the path is endless.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    if len(camera) != 1:
        raise ValueError(f"a path begins at one camera, got {len(camera)}")
    if frames is not None and frames < 1:
        raise ValueError(f"a path needs at least 1 frame, got {frames}")
    name, colon, rest = spec.strip().partition(":")
    if name in LEGS:
        inner = rest.strip() or "forward 1, left 20deg"
        leg = build_path(
            inner,
            frames and leg_frames(frames, LEGS[name]),
            camera,
            scale=scale,
            keep_intrinsics=keep_intrinsics,
            center=center,
        )
        order = fold(frames or LEGS[name] * (len(leg.cameras) - 1) + 1, LEGS[name])
        return _made(leg.cameras[order], spec, leg.format, leg.convention, leg.notes, leg.file_from_world)
    exists = name not in PRESETS and _exists(spec)
    if exists or POSE_STRING.fullmatch(spec):
        size, own = (camera.height, camera.width), camera if keep_intrinsics else None
        if exists:
            file = load_trajectory(spec, *size, camera=own, lens=camera, center=center)
        else:
            file = finish(pose_string(spec), spec, "pose-string", *size, camera=own, lens=camera)
        cameras, notes = file.cameras.to(camera.cam_from_world.device), list(file.notes)
        if frames is not None and frames < len(cameras):
            notes.append(f"the first {frames} of {len(cameras)} poses")
            cameras = cameras[:frames]
        elif frames is not None and frames > len(cameras):
            notes.append(f"{len(cameras)} poses resampled to {frames}")
            cameras = resample(cameras, frames)
        if scale != 1:
            notes.append(f"distances multiplied by {scale:g}")
        cameras = _follow(cameras.intrinsics, camera, cameras.world_from_cam.double(), scale)
        return _made(cameras, spec, file.format, file.convention, notes, file.file_from_world)
    if frames is None:
        raise ValueError(f"how many frames shall the path {spec!r} have? Only files have a number of their own")
    if name in PRESETS:
        cameras = PRESETS[name](camera, frames, scale=scale, **_options(name, rest if colon else ""))
        return _made(cameras, spec, "preset", "relative to the camera")
    if re.search(r"[/\\]|\.(txt|json|npz|npy|bin)$", spec):
        raise ValueError(f"no camera path at {spec}: no such file or folder")
    try:
        cameras = walk(spec, camera, frames, scale=scale)
    except ValueError as error:
        raise ValueError(
            f"{error}. A path is a preset ({', '.join([*PRESETS, *LEGS])}; options as in orbit:radius=2,degrees=30), "
            f"a file, or a command: {COMMANDS}"
        ) from error
    return _made(cameras, spec, "command", "relative to the camera")


def still(camera: Cameras, frames: int, *, scale: float = 1.0) -> Cameras:
    """Stay in place.

    Args:
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Has no effect.

    Returns:
        The path.
    """
    return _moves(camera, frames, scale, [(_vector(), _vector())])


def orbit(camera: Cameras, frames: int, *, scale: float = 1.0, radius: float = 2.0, degrees: float = 30.0) -> Cameras:
    """Go round the point in front of the camera, facing it.

    Args:
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Factor on the radius.
        radius: Distance of the point, in world units.
        degrees: Angle to go: positive to the right (looking to the left), negative to the left.

    Returns:
        The path.

    Raises:
        ValueError: If the radius is not positive.
    """
    if not radius > 0:
        raise ValueError(f"orbit: radius must be positive, got {radius:g}; negative degrees go to the left")
    angle = math.radians(degrees)
    return _moves(camera, frames, scale, [(_vector(x=radius * angle), _vector(y=-angle))])


def dolly(camera: Cameras, frames: int, *, scale: float = 1.0, distance: float = 1.0) -> Cameras:
    """Push in, or pull out.

    Args:
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Factor on the distance.
        distance: How far to go forward, in world units; negative is backward.

    Returns:
        The path.
    """
    return _moves(camera, frames, scale, [(_vector(z=distance), _vector())])


def pan(camera: Cameras, frames: int, *, scale: float = 1.0, degrees: float = 30.0, tilt: float = 0.0) -> Cameras:
    """Turn on the spot.

    Args:
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Has no effect.
        degrees: Angle to turn: positive to the right.
        tilt: Angle to turn at the same time, in degrees: positive upwards.

    Returns:
        The path.
    """
    return _moves(camera, frames, scale, [(_vector(), _vector(x=math.radians(tilt), y=math.radians(degrees)))])


def truck(camera: Cameras, frames: int, *, scale: float = 1.0, distance: float = 1.0, rise: float = 0.0) -> Cameras:
    """Go sideways, and up, without turning.

    Args:
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Factor on the distances.
        distance: How far to go to the right, in world units; negative is to the left.
        rise: How far to go up at the same time, in world units.

    Returns:
        The path.
    """
    return _moves(camera, frames, scale, [(_vector(x=distance, y=-rise), _vector())])


def spiral(
    camera: Cameras,
    frames: int,
    *,
    scale: float = 1.0,
    radius: float = 0.3,
    turns: float = 1.0,
    forward: float = 0.5,
    focus: float = 4.0,
) -> Cameras:
    """Wind forward on a circle that touches the start, looking at a point ahead.

    Args:
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Factor on the distances.
        radius: Radius of the circle, which lies above the start, in world units.
        turns: Number of rounds, clockwise as seen by the camera; negative is the other way.
        forward: How far to go forward in all, in world units.
        focus: Distance of the point to look at from the start, in world units.

    Returns:
        The path.

    Raises:
        ValueError: If the path would reach the point it looks at.
    """
    if focus <= max(0.0, forward):
        raise ValueError(f"spiral: focus must be positive and beyond forward, got {focus=}, {forward=}")
    along = _ease(_progress(frames))
    angle = 2 * math.pi * turns * along
    # Clockwise from the lowest point: to the left, up, to the right, down (y points down).
    eye = torch.stack([-radius * angle.sin(), radius * (angle.cos() - 1), forward * along], -1)
    path = invert(look_at(eye, torch.tensor([0.0, 0.0, focus], dtype=torch.float64)))
    return _follow(camera.intrinsics, camera, path, scale)


def random_walk(
    camera: Cameras, frames: int, *, scale: float = 1.0, distance: float = 2.0, degrees: float = 40.0, seed: int = 0
) -> Cameras:
    """Walk forward and look about smoothly, another way for every seed.

    The way does not depend on the number of frames.

    Args:
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Factor on the distance.
        distance: Length of the way, in world units.
        degrees: About how far it turns to either side; a quarter of that up and down.
        seed: Chooses the way.

    Returns:
        The path.

    Raises:
        ValueError: If the seed is negative or has more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"random-walk: seed must be from 0 to {2**63 - 1}, got {seed}")
    generator = torch.Generator().manual_seed(seed)
    fine = torch.linspace(0, 1, 2049, dtype=torch.float64)[:, None]
    phase = 2 * math.pi * torch.rand(2, 4, generator=generator, dtype=torch.float64)
    size = torch.rand(2, 4, generator=generator, dtype=torch.float64) / torch.arange(1, 5)
    wave = ((math.pi * torch.arange(1, 5) * fine)[:, None] + phase).sin() - phase.sin()
    yaw, pitch = ((wave * size).sum(-1) * math.radians(degrees) * torch.tensor([1.0, 0.25])).unbind(-1)
    ahead = torch.stack([yaw.sin() * pitch.cos(), -pitch.sin(), yaw.cos() * pitch.cos()], -1)
    way = torch.cat([torch.zeros(1, 3, dtype=torch.float64), ((ahead[1:] + ahead[:-1]) / 2).cumsum(0)])
    where = _ease(_progress(frames)) * (len(fine) - 1)
    low = where.long().clamp(max=len(fine) - 2)
    part = (where - low)[:, None]
    eye = torch.lerp(way[low], way[low + 1], part) * (distance / (len(fine) - 1))
    path = invert(look_at(eye, eye + torch.lerp(ahead[low], ahead[low + 1], part)))
    return _follow(camera.intrinsics, camera, path, scale)


def walk(command: str, camera: Cameras, frames: int, *, scale: float = 1.0) -> Cameras:
    """Follow a text command such as "forward 2, left 30deg, back 2".

    A direction with an angle turns, a direction with a number goes. Moves are separated by commas and made one after
    the other, or joined by "and" and made at once (an arc). Directions are those of the camera at that moment. Each
    move starts and ends gently, and takes frames for its distance (1 unit) or angle (30 degrees), whichever is more.

    Args:
        command: Moves: forward, back, left, right, up, down, and roll, each with a number; "deg" or "rad" makes a turn
            of it, as does a verb: "turn left 30", "look up 10".
        camera: Where the path begins.
        frames: Number of cameras.
        scale: Factor on the distances, not on the frames they take.

    Returns:
        The path.

    Raises:
        ValueError: If a move is not understood.
    """
    moves = []
    for step in re.split(r"\s*(?:,|;|\n|\bthen\b)\s*", command.strip().lower()):
        parts = [_parse_move(part) for part in re.split(r"\s*(?:\band\b|\+|&)\s*(?=[a-z])", step)]
        moves.append((sum(move for move, _ in parts), sum(turn for _, turn in parts)))
    return _moves(camera, frames, scale, moves)


def fold(frames: int, legs: int) -> list[int]:
    """Which pose of a path each frame shows when the path is gone there, back, there, ...

    Args:
        frames: Number of frames; the last are held if they do not divide into legs.
        legs: How often the path is gone: 2 is there and back, 3 is A-B-A-B.

    Returns:
        Indices into a path of `leg_frames(frames, legs)` poses. Equal indices are the same place, bit for bit: place A
        at multiples of twice `leg_frames - 1`, place B half-way between.

    Example:
        >>> fold(7, 2), fold(10, 3)
        ([0, 1, 2, 3, 2, 1, 0], [0, 1, 2, 3, 2, 1, 0, 1, 2, 3])
    """
    length = leg_frames(frames, legs) - 1
    steps = [min(frame, legs * length) for frame in range(frames)]
    return [length - abs(length - step % (2 * length)) if length else 0 for step in steps]


def leg_frames(frames: int, legs: int) -> int:
    """How many poses one leg of a folded path has.

    Args:
        frames: Number of frames of the whole path.
        legs: How often the leg is gone.

    Returns:
        Poses of a leg, its two ends included.

    Example:
        >>> leg_frames(65, 2), leg_frames(97, 3)
        (33, 33)
    """
    return (frames - 1) // legs + 1


PRESETS: dict[str, Callable[..., Cameras]] = {
    "orbit": orbit,
    "dolly": dolly,
    "pan": pan,
    "truck": truck,
    "spiral": spiral,
    "random-walk": random_walk,
    "still": still,
}
LEGS = {"there-and-back": 2, "a-b-a-b": 3}

DIRECTIONS = {  # (axis, sign) of the move, (axis, sign) of the turn; a turn follows the right-hand rule
    "forward": ((2, 1), None),
    "back": ((2, -1), None),
    "right": ((0, 1), (1, 1)),
    "left": ((0, -1), (1, -1)),
    "down": ((1, 1), (0, -1)),
    "up": ((1, -1), (0, 1)),
}
MOVE = re.compile(
    r"(?:(?P<verb>move|go|walk|step|strafe|turn|rotate|look|pan|tilt|roll)\s+)?"
    r"(?:(?P<direction>forward|back|left|right|up|down)(?:ward)?s?\s+)?"
    r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+))\s*"
    r"(?P<unit>deg|degrees?|°|rad|radians?|m|met(?:er|re)s?|units?)?"
)


def _parse_move(text: str) -> tuple[Tensor, Tensor]:
    """One move of a command as (distance along the axes, rotation vector)."""
    match = MOVE.fullmatch(text)
    if match is None:
        raise ValueError(f"did not understand {text!r}" if text else "an empty move")
    verb, direction, number, unit = match["verb"], match["direction"], float(match["number"]), match["unit"] or ""
    angle = unit.startswith(("deg", "°", "rad"))
    turns = angle or (verb in ("turn", "rotate", "look", "pan", "tilt", "roll") and not unit)
    radians = number if unit.startswith("rad") else math.radians(number)
    move, turn = _vector(), _vector()
    if verb == "roll" and turns and direction in (None, "left", "right"):
        turn[2] = -radians if direction == "left" else radians
    elif direction is None or verb == "roll":
        raise ValueError(f"{text!r} has no direction")
    elif turns:
        if DIRECTIONS[direction][1] is None or verb in ("move", "go", "walk", "step", "strafe"):
            raise ValueError(f"{text!r}: one goes {direction} by a distance, not by an angle")
        axis, sign = DIRECTIONS[direction][1]
        turn[axis] = sign * radians
    else:
        if verb in ("turn", "rotate", "look", "pan", "tilt"):
            raise ValueError(f"{text!r}: one turns {direction} by an angle, not by a distance")
        axis, sign = DIRECTIONS[direction][0]
        move[axis] = sign * number
    return move, turn


def _moves(camera: Cameras, frames: int, scale: float, moves: Sequence[tuple[Tensor, Tensor]]) -> Cameras:
    """Make moves, each a (distance along the axes, rotation vector) at once, one after the other."""
    costs = [max(move.norm().item(), turn.norm().item() / TURN_COST) for move, turn in moves]
    time = _progress(frames) * sum(costs)
    path = torch.eye(4, dtype=torch.float64).expand(frames, 4, 4)
    begin = 0.0
    for (move, turn), cost in zip(moves, costs, strict=True):
        if cost == 0:
            continue
        done = _ease(((time - begin) / cost).clamp(0, 1))
        path = path @ screw(move, turn, done)  # a move not yet begun is the identity, a past one is whole
        begin += cost
    return _follow(camera.intrinsics, camera, path, scale)


def _follow(intrinsics: Tensor, camera: Cameras, camera_from_cam: Float64[Tensor, "f 4 4"], scale: float) -> Cameras:
    """Cameras at poses given in the axes of `camera`, on its device; the first pose is its own, exactly."""
    camera_from_cam = camera_from_cam.clone()
    camera_from_cam[:, :3, 3] *= scale
    start = camera.cam_from_world
    relative = invert(camera_from_cam).to(start.device)
    pose = compose(relative, start.double()).float()
    pose = torch.cat([start, pose[1:]])
    return Cameras(intrinsics.expand(len(pose), 3, 3).clone(), pose, camera.height, camera.width)


def _progress(frames: int) -> Tensor:
    """Time of each frame, 0 to 1."""
    if frames < 1:
        raise ValueError(f"a path needs at least 1 frame, got {frames}")
    return torch.linspace(0, 1, frames, dtype=torch.float64)


def _ease(time: Tensor) -> Tensor:
    """Start and stop gently: constant speed between two ramps; 0 and 1 stay exact."""
    speed = 1 / (1 - RAMP)
    middle = speed * (time - RAMP / 2)
    start, end = speed * time**2 / (2 * RAMP), 1 - speed * (1 - time) ** 2 / (2 * RAMP)
    return torch.where(time < RAMP, start, torch.where(time > 1 - RAMP, end, middle))


def _vector(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Tensor:
    return torch.tensor([x, y, z], dtype=torch.float64)


def _options(name: str, text: str) -> dict[str, float | int]:
    """Options of a preset, "radius=2,degrees=30", as its function takes them."""
    accepted = {
        key: parameter.annotation
        for key, parameter in inspect.signature(PRESETS[name]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key != "scale"
    }
    options = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = (word.strip() for word in part.partition("="))
        try:
            options[key] = accepted[key](value)
            good = equals == "=" and math.isfinite(options[key])
        except (KeyError, ValueError):
            good = False
        if not good:
            raise ValueError(f"{name}: {part!r} is not an option; expected {_describe(name)} (numbers)")
    return options


def _describe(name: str) -> str:
    """A preset with the options it takes and their defaults."""
    parameters = inspect.signature(PRESETS[name]).parameters.values()
    options = [f"{p.name}={p.default:g}" for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "scale"]
    return f"{name}:{','.join(options)}" if options else f"{name} without options"


def _exists(spec: str) -> bool:
    try:
        return bool(spec.strip()) and Path(spec).exists()
    except (OSError, ValueError):  # a text that cannot be a path
        return False


def _made(
    cameras: Cameras,
    source: str,
    format: str,
    convention: str,
    notes: Sequence[str] = (),
    file_from_world: Tensor | None = None,
) -> Trajectory:
    length = measure_motion(cameras).length
    if not length <= LONGEST:
        raise ValueError(
            f"a path must be at most {LONGEST:g} units long, {source} has {length:.3g}: make its distances or angles "
            "smaller, or the scale"
        )
    return Trajectory(
        cameras=cameras,
        source=source,
        format=format,
        convention=convention,
        notes=tuple(notes),
        file_from_world=torch.eye(4) if file_from_world is None else file_from_world,
    )
