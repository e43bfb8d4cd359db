"""The latent memory: latents of views as patches in space, read by forward depth and backward gather."""

import os
from dataclasses import replace
from typing import Literal, no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.lift import lift
from mirage.memory.files import load_surfels, save_surfels
from mirage.memory.memory import (
    FLOATS,
    Memory,
    MemoryRead,
    UpdateReport,
    check_budget,
    check_cameras,
    check_groups,
    check_views,
    exact,
)
from mirage.memory.merge import append, merge
from mirage.memory.mover import LatentMover
from mirage.memory.store import Surfels

Read = Literal["gather", "nearest", "nearest-corner"]
READS = ("gather", "nearest", "nearest-corner")


class LatentMemory(Memory):
    """Latents remembered in space (Eq. 3), read at other views without an encoder.

    Three reads. "gather", the default: per target cell the front surface and the best source of it, then the source
    latents at the fractional place that the cell sees; only what is new is written. "nearest" is the paper's (Eq. 5),
    which writes all valid cells (Eq. 6). "nearest-corner" is the released code's: the same with cells at integer
    coordinates and rounding, half a cell off; it is there to be measured against.

    Example:
        Remember a view, step 0.1 to the left: each latent is found a quarter of a cell further right.

        >>> latents = torch.arange(6.0).reshape(1, 1, 2, 3)
        >>> K = torch.tensor([[[20.0, 0.0, 12.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]])
        >>> camera = Cameras(K, torch.eye(4)[None], 16, 24)
        >>> memory = LatentMemory.from_view(latents, torch.ones(1, 16, 24), camera)
        >>> bool((memory.read(camera).features == latents).all())
        True
        >>> left = torch.eye(4)[None]
        >>> left[0, 0, 3] = 0.1
        >>> memory.read(Cameras(K, left, 16, 24)).features[0, 0, :, 1].tolist()
        [0.75, 3.75]
    """

    @no_type_check  # malformed arguments get a ValueError with a way out
    def __init__(
        self,
        surfels: Surfels,
        stride: int,
        *,
        read: Read = "gather",
        budget_bytes: int | None = None,
        mover: LatentMover | None = None,
    ):
        if not isinstance(surfels, Surfels):
            raise ValueError(f"surfels must be Surfels, got {type(surfels).__name__}: use from_view or load")
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
            raise ValueError(f"stride must be a positive whole number, got {stride!r}")
        _check_read(read)
        _check_mover(mover, surfels.features.shape[1], read)
        self.surfels = surfels
        self.mover = mover
        self.stride = stride
        self.budget_bytes = budget_bytes
        self._read = read
        self._next_name = int(surfels.name.max()) + 1 if len(surfels.name) else 0

    @property
    def budget_bytes(self) -> int | None:
        """Bound on `nbytes`, None for none; a lower one that is set is kept from the next update on."""
        return self._budget_bytes

    @budget_bytes.setter
    @no_type_check
    def budget_bytes(self, budget_bytes: int | None) -> None:
        """Refuse one that the first view does not fit into. See `check_budget`."""
        check_budget(budget_bytes, 0 if budget_bytes is None else self.surfels.first_bytes)
        self._budget_bytes = budget_bytes

    @classmethod
    @exact
    @no_type_check  # malformed arguments get a ValueError with a way out
    def from_view(
        cls,
        latents: Float[Tensor, "1 c h w"],
        depth: Float[Tensor, "1 H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "1 3 Y X"] | None = None,
        keep: Bool[Tensor, "1 H W"] | None = None,
        read: Read = "gather",
        dtype: torch.dtype | None = None,
        budget_bytes: int | None = None,
        mover: LatentMover | None = None,
    ) -> "LatentMemory":
        """A memory of one view: what was given. It wins over all that is imagined later and is never forgotten.

        Args:
            latents: Latents of the view.
            depth: Its z-depth, in world units, 0 = unknown; any whole multiple of the latents.
            cameras: Its camera, of image size.
            frames: Not needed; here for the sake of other memories.
            keep: False on movers and sky; all True if None.
            read: "gather", "nearest" or "nearest-corner".
            dtype: How features are stored; that of `latents` if None.
            budget_bytes: Bound on `nbytes`; None for no bound.
            mover: Mends what is read at other poses; not kept in files.

        Returns:
            The memory.

        Raises:
            ValueError: If an argument is malformed, or the first view alone is over the budget.
        """
        stride = check_views(latents, depth, cameras, keep)
        if len(latents) != 1:
            raise ValueError(f"latents must be of one view, got {len(latents)}: give the others to update")
        _check_read(read)
        if dtype not in (None, *FLOATS):
            raise ValueError(f"dtype must be a floating point type of 16, 32 or 64 bits, got {dtype}")
        height, width = latents.shape[2:]
        stored = _stored(latents, latents.dtype if dtype is None else dtype)
        lifted = lift(depth.float(), height, width, keep=keep)
        camera = _on_cells(cameras, height, width, read)
        surfels = Surfels.of_views(stored, lifted, camera, lifted.valid, 0)
        memory = cls(surfels, stride, read=read, budget_bytes=budget_bytes, mover=mover)
        memory._next_name = 1
        return memory

    def __len__(self) -> int:
        return len(self.surfels)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept, features and geometry; a call needs more while it runs, see `read`, `update`."""
        return self.surfels.nbytes

    @exact
    def read(self, cameras: Cameras) -> MemoryRead:
        """What is known of these views, with zero features, zero depth and False where nothing is.

        Args:
            cameras: Target views, of image size.

        Returns:
            Features, visibility, projected depth and what of it the first view explains.

        Raises:
            ValueError: If the cameras are malformed or their size is not a whole multiple of the stride.

        Cost:
            O(views * elements) time, less what lies outside the pictures. The gathering read makes a table of all cells
            of all source views, four bytes a cell, and drops it.
        """
        check_cameras(cameras)
        height, width = cameras.height // self.stride, cameras.width // self.stride
        if min(height, width) < 1 or (height * self.stride, width * self.stride) != (cameras.height, cameras.width):
            raise ValueError(
                f"cameras must be of a size that the stride {self.stride} divides, got {cameras.height} x "
                f"{cameras.width}: use cameras.resize or crop"
            )
        if cameras.cam_from_world.device != self.surfels.plane.device:
            raise ValueError(f"cameras must be on {self.surfels.plane.device}, got {cameras.cam_from_world.device}")
        camera = _on_cells(cameras, height, width, self._read)
        if self._read == "gather":
            hits = self.surfels.render(camera)
            index, depth, features, unmoved = hits.index, hits.depth, self.surfels.sample(hits), hits.unmoved
            if self.mover is not None:
                features = self.mover(self.surfels, features, hits, camera)
        else:
            features, index, depth = self.surfels.nearest(camera)
            unmoved = torch.zeros_like(index, dtype=torch.bool)  # this read does not know where in a cell it is
        visible = index >= 0
        observed = self.surfels.shows_first(index)
        return MemoryRead(features=features, visible=visible, depth=depth, observed=observed, unmoved=unmoved)

    @exact
    def read_video(self, cameras: Cameras, temporal_stride: int) -> MemoryRead:
        """What is known of the latent frames of a video.

        A mover that knows groups of this many frames reads at every pose and tells in the features what happens within
        a group; all else is as at the group's last frame.

        Args:
            cameras: All frames, of image size: one and whole groups.
            temporal_stride: Frames of a group.

        Returns:
            The read at the first frame and at the last one of each group.

        Raises:
            ValueError: If the cameras are malformed, see `read`, or are not one and whole groups.
        """
        check_groups(cameras, temporal_stride)
        motion = None if self.mover is None else self.mover.motion
        if motion is None or motion.frames != temporal_stride:
            return super().read_video(cameras, temporal_stride)
        every = self.read(cameras)
        latent = {name: value[::temporal_stride] for name, value in vars(every).items()}
        return MemoryRead(**latent | {"features": motion(every.features, every.visible, every.unmoved)})

    @exact
    @no_type_check
    def update(
        self,
        latents: Float[Tensor, "v c h w"],
        depth: Float[Tensor, "v H W"],
        cameras: Cameras,
        *,
        frames: Float[Tensor, "v 3 Y X"] | None = None,
        keep: Bool[Tensor, "v H W"] | None = None,
    ) -> UpdateReport:
        """Remember what is new in these views or seen better (Eq. 6, filtered), by the rules of `merge`.

        Depth is first aligned to the memory over all views at once. A cell that the memory knows already is not
        written, nor one that contradicts it; coarse elements behind finer ones, and elements that updates see through
        again and again, are retired; over the budget the least useful go. The first view always stays and always reads
        back as it was given. The same views cost nothing, however often they come.

        Of the "nearest" reads all valid cells are written (Eq. 6), whether known or not, as the paper does.

        `nbytes` is within the budget before and after. In between, eight views at a time are worked on: beside the
        elements before and after there are, for a while, the cells of eight views, a copy of the geometry without
        features, and the table that `read` makes; see `merge`.

        Args:
            latents: Latents of the views.
            depth: Their z-depth, 0 = unknown, in any scale that is near the memory's or co-visible with it.
            cameras: Their cameras, of image size.
            frames: Not needed; here for the sake of other memories.
            keep: False on movers and sky; all True if None.

        Returns:
            What became of the cells.

        Raises:
            ValueError: If an argument is malformed; the memory is then unchanged.
        """
        stride = check_views(latents, depth, cameras, keep)
        grid = (self.surfels.features.shape[1], *self.surfels.grid)
        if stride != self.stride or tuple(latents.shape[1:]) != grid:
            raise ValueError(
                f"latents must be (v, {', '.join(map(str, grid))}) at stride {self.stride} like the first view, got "
                f"{tuple(latents.shape)} at stride {stride}"
            )
        if latents.device != self.surfels.features.device:
            raise ValueError(f"latents must be on {self.surfels.features.device}, got {latents.device}")
        stored = _stored(latents, self.surfels.features.dtype)
        camera = _on_cells(cameras, *grid[1:], self._read)
        lifted = lift(depth.float(), *grid[1:], keep=keep)
        if self._read == "gather":
            merged = merge(self.surfels, stored, lifted, camera, self._next_name, budget_bytes=self.budget_bytes)
        else:
            merged = append(self.surfels, stored, lifted, camera, self._next_name, budget_bytes=self.budget_bytes)
        self.surfels = merged.surfels
        self._next_name += len(latents)
        return merged.report

    def save(self, path: str | os.PathLike) -> None:
        """Write the memory to one safetensors file, in place of an old one only when complete.

        Args:
            path: The file; its folder is made if it is missing.

        Raises:
            ValueError: If `path` is no path.
            OSError: In one sentence, if the file cannot be written; an older one is then unchanged.
        """
        settings = {"stride": self.stride, "read": self._read, "budget_bytes": self.budget_bytes}
        save_surfels(self.surfels, path, settings | {"next_name": self._next_name})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        stride: int | None = None,
        channels: int | None = None,
        device: torch.device | str = "cpu",
        mover: LatentMover | None = None,
    ) -> "LatentMemory":
        """Read a memory that `save` wrote. On the CPU its tensors are pages of the file, loaded when they are touched.

        Args:
            path: The file.
            stride: The stride that it must have, that of the codec in use; any if None.
            channels: The channels that it must have; any if None.
            device: Where the memory shall live.
            mover: Mends what is read at other poses; it must be on `device`.

        Returns:
            The memory, equal to the one that was saved.

        Raises:
            ValueError: If `path` or `device` is none that can be used, or the file is not a memory of this version, is
                damaged, or is of another stride or channels.
        """
        try:
            usable = torch.empty(0, device=device).device.type != "meta" and device is not None
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(f"device must be one that PyTorch finds here, got {device!r}: {error}") from None
        if not usable:
            raise ValueError(f"device must be one that holds values, as cpu or cuda, got {device!r}")
        surfels, settings = load_surfels(path)
        whole = lambda key, least: type(settings.get(key)) is int and settings[key] >= least
        least = int(surfels.name.max()) + 1 if len(surfels.name) else 0
        if (
            set(settings) != {"stride", "read", "budget_bytes", "next_name"}
            or not (whole("stride", 1) and whole("next_name", least) and settings["read"] in READS)
            or not (settings["budget_bytes"] is None or whole("budget_bytes", surfels.first_bytes))
        ):
            raise ValueError(f"path: {path} has settings that no memory has: {settings}")
        holds = (settings["stride"], surfels.features.shape[1])
        if stride not in (None, holds[0]) or channels not in (None, holds[1]):
            wanted = (holds[0] if stride is None else stride, holds[1] if channels is None else channels)
            raise ValueError(
                f"path: {path} holds a memory of stride {holds[0]} and {holds[1]} channels, but stride {wanted[0]!r} "
                f"and {wanted[1]!r} channels are asked for: use the model that it was made with"
            )
        surfels = Surfels(**{key: tensor.to(device) for key, tensor in surfels.tensors.items()}, grid=surfels.grid)
        memory = cls(surfels, holds[0], read=settings["read"], budget_bytes=settings["budget_bytes"], mover=mover)
        memory._next_name = settings["next_name"]
        return memory


def _stored(latents: Float[Tensor, "v c h w"], dtype: torch.dtype) -> Float[Tensor, "v c h w"]:
    """The latents as they are kept; what is read is summed in float32."""
    stored = latents.to(dtype)
    wide = stored.dtype == torch.float64
    if (wide or stored.dtype != latents.dtype) and not bool(stored.float().isfinite().all()):
        raise ValueError(
            f"latents must fit into {torch.float32 if wide else dtype}, got values up to "
            f"{float(latents.abs().amax()):.3g}: keep them as bfloat16"
        )
    return stored


@no_type_check
def _check_read(read: Read) -> None:
    if read not in READS:
        raise ValueError(f"read must be one of {', '.join(READS)}, got {read!r}")


@no_type_check
def _check_mover(mover: LatentMover | None, channels: int, read: Read) -> None:
    """Refuse a mover that cannot mend these reads."""
    if mover is None:
        return
    if not isinstance(mover, LatentMover):
        raise ValueError(f"mover must be a LatentMover or None, got {type(mover).__name__}: use from_pretrained")
    if mover.channels != channels:
        raise ValueError(
            f"mover must be for {channels} channels, those of the latents, got {mover.channels}: use the mover that "
            "was trained for this codec"
        )
    if read != "gather":
        raise ValueError(f'mover mends the read "gather" alone, got {read!r}: leave the mover out')


def _on_cells(cameras: Cameras, height: int, width: int, read: Read) -> Cameras:
    """The cameras on the grid of cells; the released code's have their principal point half a cell off."""
    cameras = cameras.resize(height, width)
    if read != "nearest-corner":
        return cameras
    half = torch.zeros_like(cameras.intrinsics)
    half[:, :2, 2] = 0.5
    return replace(cameras, intrinsics=cameras.intrinsics + half)
