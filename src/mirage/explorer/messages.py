"""What the explorer's server and its clients say to each other, as JSON that is checked; for pictures see `wire`."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator
from torch import Tensor

from mirage.camera.cameras import Cameras

Number = Annotated[float, Field(ge=-1e5, le=1e5, allow_inf_nan=False)]
Pose = Annotated[
    list[Number],
    Field(min_length=12, max_length=12, description="The upper 3 x 4 of cam_from_world row by row; OpenCV axes"),
]
Words = Annotated[str, Field(min_length=1, max_length=300)]
Prompt = Annotated[str, Field(max_length=2000)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _rigid(pose: list[float]) -> list[float]:
    rotation = torch.tensor(pose).view(3, 4)[:, :3]
    if (rotation @ rotation.mT - torch.eye(3)).abs().max() > 1e-3 or torch.linalg.det(rotation) < 0:
        raise ValueError("must hold a rotation in its first three columns, orthonormal and right-handed")
    return pose


class Begin(_Message):
    """Begin a walk from one of the bundled pictures."""

    picture: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$", description="Its name, see /api")]
    fov: Annotated[float, Field(ge=5, le=160, description="Field of view across the longer side, degrees")] = 60.0
    seed: Annotated[int, Field(ge=0, lt=2**53, description="Of the noise")] = 0


class Move(_Message):
    """Go somewhere: to a pose, or as words say from where one is."""

    pose: Pose | None = None
    words: Annotated[Words | None, Field(description='As in "forward 1, left 20deg"')] = None
    scale: Annotated[float, Field(gt=0, le=1e3, description="Factor on the distances of the words")] = 1.0

    _check = field_validator("pose")(lambda pose: pose and _rigid(pose))


class PathRequest(_Message):
    """A path from where one is: in words, or through keyframes."""

    words: Annotated[Words | None, Field(description='"orbit:degrees=40", "forward 1, left 20deg", see /api')] = None
    keyframes: Annotated[list[Pose] | None, Field(min_length=1, max_length=64)] = None
    frames: Annotated[int, Field(ge=2, le=513, description="Poses of the path, its beginning included")] = 49
    scale: Annotated[float, Field(gt=0, le=1e3, description="Factor on the distances of words")] = 1.0

    _check = field_validator("keyframes")(lambda poses: poses and [_rigid(pose) for pose in poses])


class Generate(_Message):
    """Imagine along the way walked since the last chunk, or along a path."""

    poses: Annotated[
        list[Pose] | None, Field(min_length=1, max_length=513, description="A path; if null, the way walked")
    ] = None
    prompt: Annotated[Prompt | None, Field(description="What to imagine, for a model that reads text")] = None
    seed: Annotated[
        int | None,
        Field(ge=0, lt=2**53, description="Of the noise; that of the world if null"),
    ] = None
    wait: Annotated[bool, Field(description="Answer when it is done; otherwise at once")] = True

    _check = field_validator("poses")(lambda poses: poses and [_rigid(pose) for pose in poses])


class Undo(_Message):
    """Take the last chunks back."""

    chunks: Annotated[int, Field(ge=0, le=10_000, description="0: only those that wait")] = 1


class Branch(_Message):
    """Begin another walk from an earlier place; this one is kept."""

    chunks: Annotated[int, Field(ge=0, le=10_000, description="How many chunks the new walk keeps")]


class Look(_Message):
    """WebSocket, to the server: here I am; show me what is known from here."""

    type: Literal["look"]
    number: Annotated[int, Field(ge=0, lt=2**32, description="Comes back with the picture")]
    pose: Pose
    walk: Annotated[bool, Field(description="Whether this is a step of the way walked")] = True

    _check = field_validator("pose")(_rigid)


class Shown(_Message):
    """WebSocket, to the server: this picture has been drawn; the next may come."""

    type: Literal["shown"]
    number: Annotated[int, Field(ge=0, lt=2**32)]


class Auto(_Message):
    """WebSocket, to the server: imagine by itself as one goes, or not."""

    type: Literal["auto"]
    on: bool


class Prompted(_Message):
    """WebSocket, to the server: what to imagine from now on, for a model that reads text."""

    type: Literal["prompt"]
    prompt: Prompt


FromClient = Annotated[Look | Shown | Auto | Prompted, Field(discriminator="type")]
FROM_CLIENT: TypeAdapter[FromClient] = TypeAdapter(FromClient)


class ChunkInfo(BaseModel):
    """One chunk of a walk."""

    number: int = Field(description="From 1; 0 is the picture")
    frames: int = Field(description="Frames of the walk after it")
    known: float = Field(description="Share that the memory knew before it was imagined")
    new: int = Field(description="Cells that were new to the memory")
    seconds: float = Field(description="Time it took")
    prompt: str | None
    pose: list[float] = Field(description="Where it ends")


class Drift(BaseModel):
    """How the first view is shown now."""

    start: float = Field(description="PSNR of the first view as the memory shows it, against the picture, dB")
    now: float = Field(description="The same, now")
    changed: float = Field(description="Largest change of a pixel of that view since the start, 0 to 255")


class SessionState(BaseModel):
    """All there is to know of a walk but its pictures."""

    type: Literal["state"] = "state"
    id: str
    title: str
    height: int
    width: int
    focal: list[float] = Field(description="fx, fy, cx, cy in pixels")
    frames: int
    chunks: list[ChunkInfo]
    start: list[float] = Field(description="Pose of the picture")
    pose: list[float] = Field(description="Where one is")
    path: list[list[float]] = Field(description="Poses of the remembered views")
    working: int = Field(description="Chunks that are being made or wait for their turn")
    auto: bool
    prompt: bool = Field(description="Whether the model reads text")
    memory_bytes: int
    memory_budget: int | None
    elements: int
    depth: dict[int, float] = Field(description="Percentiles of the depth of the picture, world units")
    drift: Drift
    chunk_limit: int
    branch_of: str | None


class Trouble(BaseModel):
    """WebSocket, from the server: something could not be done, and why."""

    type: Literal["error"] = "error"
    message: str


class Moved(BaseModel):
    """Where one is, and how much is known from there."""

    pose: list[float]
    known: float
    blocked: bool = Field(description="Whether that is in or behind a surface of the picture")


class PathPlan(BaseModel):
    """A path before anything is imagined along it."""

    poses: list[list[float]]
    known: list[float] = Field(description="Share of each view that the memory knows")
    warnings: list[str]
    suggested_scale: float = Field(description="What its distances should be multiplied by")


class Made(BaseModel):
    """What `generate` did."""

    chunks: list[ChunkInfo]
    waiting: int


class Pictures(BaseModel):
    """What the server offers."""

    version: str
    model: str
    pictures: list[str]
    presets: list[str] = Field(description="Words of paths, ready to be used")
    prompt: bool
    chunk_frames: int
    limits: dict[str, float]


def cameras_of(poses: list[list[float]], like: Cameras) -> Cameras:
    """Cameras at poses as they are sent.

    Args:
        poses: The upper 3 x 4 of `cam_from_world`, row by row.
        like: One camera whose lens and size they get.

    Returns:
        The cameras, on the device of `like`.
    """
    upper = torch.tensor(poses, dtype=torch.float32).view(-1, 3, 4)
    last = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(upper), 1, 4)
    pose = torch.cat([upper, last], 1).to(like.cam_from_world.device)
    return Cameras(like.intrinsics[:1].expand(len(pose), 3, 3).clone(), pose, like.height, like.width)


def poses_of(cam_from_world: Float32[Tensor, "v 4 4"]) -> list[list[float]]:
    """Poses as they are sent.

    Args:
        cam_from_world: Transforms from world to camera.

    Returns:
        The upper 3 x 4 of each, row by row.
    """
    return cam_from_world[:, :3].flatten(1).tolist()
