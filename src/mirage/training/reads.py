"""What the loop would know along a clip: the memory's reads of every chunk, as imperfect as they are there."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.camera.trajectory import resample
from mirage.checkpoint.conditions import BranchConditions
from mirage.dataset.shards import LatentClip
from mirage.memory import ColourMemory, LatentMemory, LatentMover, Memory, NoMemory, recall
from mirage.training.recipe import Conditions, Store
from mirage.video.codec import LatentCodec


@dataclass(frozen=True, kw_only=True)
class Reads:
    """Of one clip of t latent frames, in k chunks of n; numbers in half precision."""

    video: Float[Tensor, "t c h w"]
    """The clip itself: what the denoiser makes."""
    caption: str
    held: Float[Tensor, "t c h w"]
    """The clean latents that the loop has of each frame: what it remembers, refers to and begins a chunk with."""
    features: Float[Tensor, "k n c h w"]
    visible: Bool[Tensor, "k n h w"]
    observed: Bool[Tensor, "k n h w"]
    second: tuple[Float[Tensor, "m c h w"] | None, ...]
    """What stands beside the features in branches of others, per chunk; most of it shared."""
    recalled: Int64[Tensor, "k r"]
    """Past latent frames that saw the chunk's place, best first, -1 for none."""

    @property
    def nbytes(self) -> int:
        """Bytes that are its own."""
        held = [getattr(self, f.name) for f in fields(self)]
        return sum(x.numel() * x.element_size() for x in held if isinstance(x, Tensor))


class Reader:
    """Makes the reads of clips; a clip in one variant always gives the same.

    Args:
        codec: The autoencoder of the model.
        branch: What its memory branch reads.
        chunk: Latent frames of a chunk, the shared one included.
        references: Most past frames that are recalled.
        store: Which memory.
        mover: Mends what the latent memory reads, as in the pipeline.
        conditions: How imperfect it is.
        device: Where it works.
    """

    def __init__(
        self,
        codec: LatentCodec,
        branch: BranchConditions,
        *,
        chunk: int,
        references: int,
        store: Store,
        mover: LatentMover | None = None,
        conditions: Conditions,
        device: torch.device | str = "cpu",
    ):
        self.codec, self.branch, self.chunk, self.references = codec, branch, chunk, references
        self.store, self.mover, self.conditions, self.device = store, mover, conditions, torch.device(device)

    def starts(self, latent_frames: int) -> range:
        """First latent frames of the chunks of a clip."""
        return range(0, latent_frames - self.chunk + 1, self.chunk - 1)

    @torch.no_grad()
    def read(self, clip: LatentClip, g: torch.Generator) -> Reads:
        """Walk along a clip as the loop does: read, then remember what was made.

        Args:
            clip: The clip, of at least one chunk.
            g: Decides what goes wrong, on the CPU.

        Returns:
            The reads, on the device.
        """
        c, cameras = self.conditions, clip.cameras.to(self.device)
        video, image, depth = (x.to(self.device).float() for x in (clip.video, clip.image, clip.depth))
        keep = None if self.store.movers else clip.keep.to(self.device)
        chance = lambda share: bool(torch.rand((), generator=g) < share)
        exact, again = chance(c.first_depth_exact), chance(c.reencoded)
        noise = c.written_noise * float(torch.rand((), generator=g))
        rough = lambda x: x + noise * torch.randn(x.shape, generator=g).to(x)
        guessed = depth * wobble(depth, c.depth_error, g)
        given = depth[:1] if exact else depth[:1] * wobble(depth[:1], c.first_depth_error, g)
        cut = lambda part: {} if keep is None else {"keep": keep[part]}
        memory = self._remember(image[:1], given, cameras[0], cut(slice(1)))
        held, parts, stride = image.clone(), [], self.codec.temporal_stride
        way = all_cameras(clip, stride).to(self.device)
        for start in self.starts(len(image)):
            targets, later = cameras[start : start + self.chunk], slice(start + 1, start + self.chunk)
            every = way[stride * start : stride * (start + self.chunk - 1) + 1]
            known = memory.read_video(every, stride)
            chosen = torch.full((self.references,), -1)
            if start and self.references:
                points = targets.unproject(known.depth)[known.visible]
                found = recall(points, cameras[: start + 1], guessed[: start + 1], k=self.references)[0]
                chosen[: len(found)] = found.cpu()
            preceding = min(start, self.branch.preceding)
            features, visible, second = self.branch(memory, known, every, preceding)
            part = {"features": features.half(), "visible": visible, "observed": known.observed, "recalled": chosen}
            parts.append(part | {"second": second})
            if again:
                latents = torch.cat([held[start : start + 1], rough(video[later])])
                pictures = self.codec.decode(latents[None])[0, ::stride][1:].clamp(-1, 1)
                held[later] = self.codec.encode(pictures[:, None])[:, 0].to(held)
            else:
                held[later] = rough(image[later])
                pictures = self._pictures(held[later])
            memory.update(held[later], guessed[later], cameras[later], frames=pictures, **cut(later))
        join = lambda name: torch.stack([part[name] for part in parts])
        return Reads(
            video=video.half(),
            caption=clip.caption,
            held=held.half(),
            second=tuple(part["second"] for part in parts),
            **{name: join(name) for name in ("features", "visible", "observed", "recalled")},
        )

    def _remember(self, latents: Tensor, depth: Tensor, camera: object, masked: dict[str, Tensor]) -> Memory:
        budget = None if self.store.budget_kib is None else 1024 * self.store.budget_kib
        if self.store.kind == "none":
            return NoMemory.from_view(latents, depth, camera)
        if self.store.kind == "latent":
            mover = self.mover if self.store.read == "gather" else None
            settings = {"read": self.store.read, "budget_bytes": budget, "mover": mover}
            return LatentMemory.from_view(latents, depth, camera, **settings, **masked)
        frames = self._pictures(latents)
        return ColourMemory.from_view(
            latents, depth, camera, frames=frames, codec=self.codec, budget_bytes=budget, **masked
        )

    def _pictures(self, latents: Float[Tensor, "v c h w"]) -> Float[Tensor, "v 3 y x"] | None:
        """Only a memory of colours looks at them."""
        return self.codec.decode(latents[:, None])[:, 0].clamp(-1, 1) if self.store.kind == "colour" else None


def all_cameras(clip: LatentClip, temporal_stride: int) -> Cameras:
    """The cameras of all frames of a clip; where a set does not keep them, they go evenly from latent to latent frame.

    Args:
        clip: The clip.
        temporal_stride: Video frames per latent frame.

    Returns:
        As many cameras as the video has frames.
    """
    frames = 1 + temporal_stride * (len(clip.video) - 1)
    return clip.way if clip.way is not None and len(clip.way) == frames else resample(clip.cameras, frames)


class Cache:
    """Values by key, the latest used of them kept within a bound in bytes.

    Args:
        limit: The bound.
    """

    def __init__(self, limit: float):
        self.limit, self.held = limit, 0
        self._values: OrderedDict[object, Reads] = OrderedDict()

    def get(self, key: object, make: Callable[[], Reads]) -> Reads:
        """The value of a key, made if it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        self.held += value.nbytes
        while self.held > self.limit and len(self._values) > 1:
            self.held -= self._values.popitem(last=False)[1].nbytes
        return value


def wobble(depth: Float32[Tensor, "t y x"], size: float, g: torch.Generator) -> Float32[Tensor, "t y x"]:
    """Smooth factors about one: how an estimator of depth errs over an image.

    Args:
        depth: Maps, of which only the shape matters.
        size: Standard deviation of the factor's logarithm at the points of a coarse grid.
        g: Source of the error, on the CPU.

    Returns:
        Factors.

    Example:
        >>> wobble(torch.ones(2, 4, 6), 0.0, torch.Generator()).unique().tolist()
        [1.0]
    """
    noise = (torch.randn(len(depth), 1, 5, 5, generator=g) * size).to(depth.device)
    return F.interpolate(noise, depth.shape[1:], mode="bicubic", align_corners=False)[:, 0].exp()
