"""Which frames a chunk generates, shares and keeps; plain integers.

A video is made in overlapping chunks. The first frame of a chunk is the last frame of the chunk before (or the input
image): it is known, and pinned. All chunks lie on one grid: latent frame g stands for the pose of frame
`temporal_stride * g`, so latent frame t of a chunk stands for the pose of frame `temporal_stride * t` of that chunk.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of frames that are generated together.

    Attributes:
        start: First frame that the model makes: the shared frame, or frame 0 (the input image) of the first chunk.
        stop: One past the last frame.
        shared: Frames at the start that the chunk before has already shown: 0 for the first chunk, else 1.
        temporal_stride: Frames per latent frame.
    """

    start: int
    stop: int
    shared: int
    temporal_stride: int

    def __len__(self) -> int:
        """Frames that the model makes, the shared one among them."""
        return self.stop - self.start

    @property
    def frames(self) -> range:
        """Frames of the video that the model makes; also the indices of their poses."""
        return range(self.start, self.stop)

    @property
    def new_frames(self) -> slice:
        """Which of the chunk's decoded frames are shown: all but the shared one."""
        return slice(self.shared, None)

    @property
    def latent_frames(self) -> range:
        """Frames of the video (and poses) that the chunk's latent frames stand for; the first is known."""
        return range(self.start, self.stop, self.temporal_stride)

    @property
    def latents(self) -> range:
        """Places of the chunk's latent frames among those of the whole video."""
        return range(self.start // self.temporal_stride, (self.stop - 1) // self.temporal_stride + 1)

    @property
    def new_latents(self) -> slice:
        """Which of the chunk's latent frames are kept: all but the shared one."""
        return slice(self.shared, None)


def plan_chunks(frames: int, chunk_frames: int = 33, temporal_stride: int = 4) -> list[Chunk]:
    """Cut a video into chunks that overlap by one frame; the last may be shorter.

    Args:
        frames: Frames of the video, one more than a multiple of `temporal_stride`; at least one latent frame beyond the
            input image.
        chunk_frames: Frames of a full chunk, likewise.
        temporal_stride: Frames per latent frame of the codec.

    Returns:
        The chunks, in order. Together their new frames are all frames, once.

    Raises:
        ValueError: If a number of frames cannot be reached, or the stride is not positive.

    Example:
        >>> [(chunk.start, chunk.stop, list(chunk.latent_frames)) for chunk in plan_chunks(13, chunk_frames=9)]
        [(0, 9, [0, 4, 8]), (8, 13, [8, 12])]
    """
    if temporal_stride < 1:
        raise ValueError(f"temporal_stride must be at least 1, got {temporal_stride}")
    for name, value in {"frames": frames, "chunk_frames": chunk_frames}.items():
        if value <= temporal_stride or value % temporal_stride != 1 % temporal_stride:
            below, above = nearest_frames(value, temporal_stride)
            way_out = f"use {above}" if below == above else f"use {below} or {above}"
            raise ValueError(f"{name} must be 1 + n * {temporal_stride} with n at least 1, got {value}; {way_out}")
    step = chunk_frames - 1
    return [
        Chunk(start=s, stop=min(s + chunk_frames, frames), shared=int(s > 0), temporal_stride=temporal_stride)
        for s in range(0, frames - 1, step)
    ]


def nearest_frames(frames: int, temporal_stride: int = 4) -> tuple[int, int]:
    """The numbers of frames next to a wish that a video can have.

    Args:
        frames: The wished number of frames.
        temporal_stride: Frames per latent frame of the codec.

    Returns:
        The largest possible number up to the wish, and the smallest from it on; the same if the wish can be met,
        or lies below the shortest video.

    Example:
        >>> nearest_frames(64), nearest_frames(65), nearest_frames(1)
        ((61, 65), (65, 65), (5, 5))
    """
    below = max(1, (frames - 1) // temporal_stride)
    above = max(1, -((1 - frames) // temporal_stride))
    return 1 + below * temporal_stride, 1 + above * temporal_stride
