"""The whole method on one screen: read what is known, imagine the rest, show it, keep it."""

import contextlib
import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Bool, Float, Float32, UInt8
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from mirage.camera.cameras import Cameras
from mirage.checkpoint import load_lora
from mirage.checkpoint.conditions import BranchConditions
from mirage.checkpoint.files import saved_dtype
from mirage.checkpoint.hub import HUB_OPTIONS, fetch
from mirage.checkpoint.named import DEPTH_MODELS, depth_estimator, segmenter
from mirage.checkpoint.wan import published_layout, wan_parts
from mirage.chunks import Chunk, plan_chunks
from mirage.denoise.conditioning import Conditioning
from mirage.denoise.sampler import sample
from mirage.denoise.text import encode_prompts, null_context
from mirage.denoise.transformer import MirageTransformer
from mirage.geometry.depth import DepthEstimator, KnownDepth, fill_depth
from mirage.geometry.movers import Segmenter, keep_cells
from mirage.geometry.nano import LatentDepth, LatentDepthHead
from mirage.memory import ColourMemory, LatentMemory, LatentMover, Memory, MemoryRead, NoMemory, recall
from mirage.rollout import ChunkResult as ChunkResult
from mirage.rollout import Clock, MirageOutput, RolloutState
from mirage.video.codec import LatentCodec
from mirage.video.io import images_to_tensor, tensor_to_images
from mirage.video.nano import NanoAutoencoder, NanoCodec
from mirage.video.wan import WanCodec

EMBEDDED = {"nano": Path(__file__).parent / "models" / "nano"}
MEMORIES = ("latent", "colour", "none")
MOVER = "mover"  # folder of the mover in that of a model
PROMPTS = 16  # embedded prompts that are kept: none is encoded twice
log = logging.getLogger(__name__)


class MiragePipeline(DiffusionPipeline):
    """One image and a camera path in, a video of a world that stays put out.

    Args:
        transformer: The denoiser with its memory branch.
        vae: The video autoencoder: the embedded one, or Wan's.
        scheduler: A flow-matching scheduler of diffusers.
        depth_head: Depth from latents; without one, a `DepthEstimator` must be given to each call.
        text_encoder: UMT5, for a transformer that reads text.
        tokenizer: Of the text encoder.
        chunk_frames: Frames that are imagined at once, the shared one included.
        preceding_frames: Latent frames before the shared one that the denoiser sees.
        reference_frames: Most past latent frames that are recalled because they saw the same place.
        num_inference_steps: Calls of the denoiser per chunk, unless a call says otherwise.
        size: Height and width that the model was made for, in pixels.
        mover: Mends what the latent memory reads at other poses; it is kept beside the autoencoder it was made for.
    """

    model_cpu_offload_seq = "text_encoder->depth_head->transformer->vae"
    _optional_components = ["depth_head", "text_encoder", "tokenizer"]  # noqa: RUF012  (diffusers reads a list)

    def __init__(
        self,
        transformer: MirageTransformer,
        vae: NanoAutoencoder | AutoencoderKLWan,
        scheduler: SchedulerMixin,
        depth_head: LatentDepthHead | None = None,
        text_encoder: UMT5EncoderModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chunk_frames: int = 33,
        preceding_frames: int = 2,
        reference_frames: int = 4,
        num_inference_steps: int = 40,
        size: list[int] = (704, 1280),
        mover: LatentMover | None = None,
    ):
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler, depth_head=depth_head)
        self.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)
        self.register_to_config(
            chunk_frames=chunk_frames,
            preceding_frames=preceding_frames,
            reference_frames=reference_frames,
            num_inference_steps=num_inference_steps,
            size=list(size),
        )
        self.codec: LatentCodec = NanoCodec(vae) if isinstance(vae, NanoAutoencoder) else WanCodec(vae)
        self.conditions = BranchConditions(self.codec, transformer.config.memory_layout, preceding_frames)
        self._mover = mover
        self._embedded: dict[str, Tensor] = {}
        self._by_name: dict[tuple[Callable, str], object] = {}

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "nano",
        *,
        memory: str | Path | None = None,
        lora: str | Path | None = None,
        memory_layout: str | None = None,
        dtype: torch.dtype | None = None,
        **options: object,
    ) -> "MiragePipeline":
        """Load a model: "nano" is embedded; any other name is a folder or a hub name.

        A folder may be our own (`save_pretrained`), a Wan pipeline of diffusers, or as Wan publishes it. A Wan model
        needs the weights of a memory branch, see `mirage.checkpoint.wan.wan_parts`; without one the path would be
        ignored, and only calls with `memory="none"` are answered.

        Args:
            name: "nano", a folder, or "owner/name" on the hub.
            memory: Weights of a memory branch for a Wan model: a file, a folder, or "owner/name" on the hub.
            lora: Weights of a low-rank adapter, likewise; the same path if one file holds both.
            memory_layout: What the branch reads, if its keys and shapes do not tell it rightly.
            dtype: Of the weights; if None bfloat16 where they were saved so and for Wan models, else float32. The
                autoencoder of a model that reads text stays in float32.
            options: For the hub: `revision`, `cache_dir`, `token`, `local_files_only`; else as in
                `DiffusionPipeline.from_pretrained`.

        Returns:
            The pipeline, on the CPU.

        Raises:
            ValueError: If there is no such model, the hub cannot be reached, or weights are damaged or do not fit.
        """
        hub = {key: options.pop(key) for key in HUB_OPTIONS if key in options}
        folder = EMBEDDED.get(str(name)) or fetch(name, "model", **hub)
        branch, adapter = (path and fetch(path, what, **hub) for path, what in ((memory, "memory"), (lora, "lora")))
        together = branch is not None and branch == adapter  # one file holds both
        if published_layout(folder) == "mirage":
            if memory is not None:
                raise ValueError(f"memory must be left out, because {name} comes with its own branch, got {memory}")
            try:
                kept = dtype or saved_dtype(folder / "transformer", "blocks.0.attn1.to_q.weight")
                if dtype or kept not in (None, torch.float16):  # else float32: half is for the disk alone
                    exact = torch.float32 if (folder / "text_encoder").is_dir() else dtype or torch.float32
                    options["dtype"] = {"transformer": kept, "text_encoder": kept, "default": exact}
                if (folder / MOVER).is_dir():
                    options.setdefault("mover", LatentMover.from_pretrained(folder / MOVER))
                pipeline = super().from_pretrained(str(folder), **options)
            except (SafetensorError, ValueError, OSError, EOFError, KeyError, RuntimeError) as error:
                raise ValueError(f"model {name} cannot be loaded: {error}") from error
        else:
            parts = wan_parts(folder, branch, memory_layout=memory_layout, dtype=dtype, adapter=together)
            pipeline = cls(**parts, **options)
            if branch is None:
                log.warning("%s has no memory branch: a camera path will be ignored. Give one with memory=", name)
        if adapter is not None:
            load_lora(pipeline.transformer, adapter, beside=together)
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options: object) -> None:
        """Write all parts into a folder that `from_pretrained` reads.

        Args:
            save_directory: The folder.
            options: As in `DiffusionPipeline.save_pretrained`.

        Raises:
            ValueError: If an adapter is loaded: it would be lost.
        """
        if getattr(self.transformer, "peft_config", None):
            raise ValueError(
                f"transformer must have no adapter when it is saved, got {', '.join(self.transformer.peft_config)}: "
                "call transformer.fuse_lora() and transformer.unload_lora() first"
            )
        super().save_pretrained(save_directory, **options)
        if self._mover is not None:
            self._mover.save_pretrained(Path(save_directory) / MOVER)

    @property
    def mover(self) -> LatentMover | None:
        """What mends the reads of the latent memory, there where the pipeline computes; None if nothing does."""
        return None if self._mover is None else self._mover.to(self._execution_device)

    @torch.no_grad()
    def __call__(
        self,
        image: UInt8[np.ndarray, "h w 3"] | Float[Tensor, "3 h w"],
        cameras: Cameras,
        prompt: str | Sequence[str] | None = None,
        *,
        memory: Literal["latent", "colour", "none"] | Callable[..., Memory] = "latent",
        depth: Float32[Tensor, "h w"] | None = None,
        estimator: DepthEstimator | str | None = None,
        movers: Segmenter | str | None = None,
        num_inference_steps: int | None = None,
        negative_prompt: str = "",
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        output_type: Literal["np", "pt"] = "np",
        callback_on_step_end: Callable | None = None,
        callback_on_chunk_end: Callable[[ChunkResult], None] | None = None,
    ) -> MirageOutput:
        """Walk along the path.

        Args:
            image: The first frame, of the size of the cameras: uint8, or floats in [-1, 1].
            cameras: One camera per frame, the first that of the image; in pixels, world units of the depth.
            prompt: What to imagine, for a model that reads text: one text, or one per chunk (the last serves the rest).
            memory: "latent" (the contribution), "colour" (the baseline), "none", or a function that is called as
                `LatentMemory.from_view` is.
            depth: z-depth of the image if it is known; where it is 0, and without it, depth is estimated.
            estimator: Depth of all other frames, or a name for `depth_estimator`; the model's own depth head if None.
            movers: What may not be remembered, or a name for `segmenter`; if None, what contradicts the memory.
            num_inference_steps: Calls of the denoiser per chunk.
            negative_prompt: What to guide away from.
            guidance_scale: Strength of that guidance; 1 does without it.
            generator: Source of the noise.
            output_type: "np" for uint8 images, "pt" for a tensor in [-1, 1].
            callback_on_step_end: Called as in diffusers, `(pipeline, step, timestep, {"latents": ...})`.
            callback_on_chunk_end: Called with each `ChunkResult` as soon as it is made.

        Returns:
            The video and its memory.

        Raises:
            ValueError: If an argument does not fit the model or another argument.
        """
        seconds: dict[str, float] = defaultdict(float)
        video, coverage, sizes, updates = [], [], [], []
        loop = self.rollout(
            image,
            cameras,
            prompt,
            memory=memory,
            depth=depth,
            estimator=estimator,
            movers=movers,
            num_inference_steps=num_inference_steps,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            generator=generator,
            callback_on_step_end=callback_on_step_end,
            seconds=seconds,
        )
        with self.progress_bar(total=len(cameras) - 1) as bar:
            for store, result in loop:
                sizes.append(store.nbytes)
                if result is None:
                    continue
                video.append(result.frames)
                updates.append(result.update)
                coverage += result.known.visible.float().mean((1, 2)).tolist()[result.chunk.shared :]
                bar.update(len(result.chunk) - 1)
                if callback_on_chunk_end is not None:
                    callback_on_chunk_end(result)
        frames = torch.cat(video)
        self.maybe_free_model_hooks()
        return MirageOutput(
            frames=tensor_to_images(frames) if output_type == "np" else frames,
            memory=store,
            coverage=coverage,
            memory_bytes=sizes,
            seconds=dict(seconds),
            updates=updates,
        )

    @torch.no_grad()
    def rollout(
        self,
        image: UInt8[np.ndarray, "h w 3"] | Float[Tensor, "3 h w"],
        cameras: Cameras,
        prompt: str | Sequence[str] | None = None,
        *,
        memory: Literal["latent", "colour", "none"] | Callable[..., Memory] = "latent",
        depth: Float32[Tensor, "h w"] | None = None,
        estimator: DepthEstimator | str | None = None,
        movers: Segmenter | str | None = None,
        num_inference_steps: int | None = None,
        negative_prompt: str = "",
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable | None = None,
        seconds: dict[str, float] | None = None,
    ) -> Iterator[tuple[Memory, ChunkResult | None]]:
        """The loop itself (Algorithm 1): yields the memory of the first view, then memory and result of each chunk.

        Args:
            image: As in `__call__`, like all other arguments.
            cameras: One camera per frame.
            prompt: One text, or one per chunk.
            memory: Kind of memory.
            depth: Known depth of the image.
            estimator: Depth of all other frames.
            movers: What may not be remembered.
            num_inference_steps: Calls of the denoiser per chunk.
            negative_prompt: What to guide away from.
            guidance_scale: Strength of that guidance.
            generator: Source of the noise.
            callback_on_step_end: Called after each call of the denoiser.
            seconds: Takes the wall-clock time by phase.

        Yields:
            The memory, and what the chunk made; None for the first view.

        Raises:
            ValueError: If an argument does not fit the model or another argument.
        """
        plan = plan_chunks(len(cameras), self.config.chunk_frames, self.codec.temporal_stride)
        clock = Clock({} if seconds is None else seconds, self._execution_device)
        cameras = self._checked(image, cameras)[1]
        with clock("text"):
            texts = self._texts(prompt, len(plan))
            away = self._texts(negative_prompt, 1)[0] if guidance_scale != 1.0 else None
        models = {"estimator": self._estimator(estimator), "movers": self._segmenter(movers)}
        state = self.begin(image, cameras[0], memory=memory, depth=depth, seconds=clock.seconds, **models)
        yield state.memory, None
        for chunk, text in zip(plan, texts, strict=True):
            state, result = self._advance(
                state,
                cameras[chunk.start + 1 : chunk.stop],
                text,
                away,
                **models,
                steps=num_inference_steps or self.config.num_inference_steps,
                guidance_scale=guidance_scale,
                generator=generator,
                callback=callback_on_step_end,
                clock=clock,
            )
            yield state.memory, result

    @torch.no_grad()
    def begin(
        self,
        image: UInt8[np.ndarray, "h w 3"] | Float[Tensor, "3 h w"],
        camera: Cameras,
        *,
        memory: Literal["latent", "colour", "none"] | Callable[..., Memory] = "latent",
        depth: Float32[Tensor, "h w"] | None = None,
        estimator: DepthEstimator | str | None = None,
        movers: Segmenter | str | None = None,
        seconds: dict[str, float] | None = None,
    ) -> RolloutState:
        """Remember the first view: where a walk begins whose path is chosen on the way.

        Args:
            image: The first frame, of the size of its camera: uint8, or floats in [-1, 1].
            camera: Its camera.
            memory: Kind of memory, as in `__call__`.
            depth: z-depth of the image if it is known.
            estimator: Depth where it is not known, as in `__call__`.
            movers: What may not be remembered, as in `__call__`.
            seconds: Takes the wall-clock time by phase.

        Returns:
            The state after one frame; give it to `advance`.

        Raises:
            ValueError: If an argument does not fit the model or another argument.
        """
        picture, camera = self._checked(image, camera)
        estimator = self._estimator(estimator)
        clock = Clock({} if seconds is None else seconds, self._execution_device)
        with clock("encode"):
            first = self.codec.encode(picture[None])[0]
        with clock("depth"):
            first_depth = self._first_depth(depth, estimator, picture, first, camera)
        keep = self._kept(self._segmenter(movers), picture, first_depth, clock)
        with clock("write"):
            store = self._remember(memory, first, first_depth, camera, picture, keep)
        return RolloutState(memory=store, frames=1, clean=first, generated=first, depth=first_depth, cameras=camera)

    @torch.no_grad()
    def advance(
        self,
        state: RolloutState,
        cameras: Cameras,
        prompt: str | None = None,
        *,
        estimator: DepthEstimator | str | None = None,
        movers: Segmenter | str | None = None,
        num_inference_steps: int | None = None,
        negative_prompt: str = "",
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable | None = None,
        seconds: dict[str, float] | None = None,
    ) -> tuple[RolloutState, ChunkResult]:
        """Make one more chunk, one turn of the loop. The state that is given stays as it was.

        Args:
            state: What `begin` or the last `advance` returned.
            cameras: Cameras of the new frames, those after the state's last: a whole multiple of the temporal stride,
                at most a chunk.
            prompt: What to imagine in this chunk, for a model that reads text.
            estimator: Depth of the new frames, as in `__call__`.
            movers: What may not be remembered, as in `__call__`.
            num_inference_steps: Calls of the denoiser.
            negative_prompt: What to guide away from.
            guidance_scale: Strength of that guidance; 1 does without it.
            generator: Source of the noise.
            callback_on_step_end: As in `__call__`.
            seconds: Takes the wall-clock time by phase.

        Returns:
            The state after the chunk, and the chunk.

        Raises:
            ValueError: If an argument does not fit the model or another argument.
        """
        most, stride = self.config.chunk_frames - 1, self.codec.temporal_stride
        if not 0 < len(cameras) <= most or len(cameras) % stride:
            raise ValueError(
                f"cameras must be those of {stride} to {most} new frames, a multiple of {stride}, got {len(cameras)}"
            )
        if (cameras.height, cameras.width) != (state.cameras.height, state.cameras.width):
            raise ValueError(
                f"cameras must be of the size of the walk, {state.cameras.height} x {state.cameras.width}, got "
                f"{cameras.height} x {cameras.width}: use Cameras.fit"
            )
        clock = Clock({} if seconds is None else seconds, self._execution_device)
        with clock("text"):
            text = self._texts(prompt, 1)[0]
            away = self._texts(negative_prompt, 1)[0] if guidance_scale != 1.0 else None
        return self._advance(
            state,
            cameras.to(self._execution_device),
            text,
            away,
            estimator=self._estimator(estimator),
            movers=self._segmenter(movers),
            steps=num_inference_steps or self.config.num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generator,
            callback=callback_on_step_end,
            clock=clock,
        )

    def _advance(
        self,
        state: RolloutState,
        cameras: Cameras,
        text: Float[Tensor, "l d"] | None,
        away: Float[Tensor, "l d"] | None,
        *,
        estimator: DepthEstimator,
        movers: Segmenter | None,
        steps: int,
        guidance_scale: float,
        generator: torch.Generator | None,
        callback: Callable | None,
        clock: Clock,
    ) -> tuple[RolloutState, ChunkResult]:
        """The method: read what is known, imagine the rest, show it, keep it."""
        stride, store = self.codec.temporal_stride, copy.copy(state.memory)
        chunk = Chunk(
            start=state.frames - 1,
            stop=state.frames + len(cameras),
            shared=int(state.frames > 1),
            temporal_stride=stride,
        )
        written = cameras[stride - 1 :: stride]
        targets = Cameras.cat([state.cameras[-1], written])
        preceding = state.generated[:-1]  # as many as the state keeps
        with clock("read"):
            every = Cameras.cat([state.cameras[-1], cameras])
            known = store.read_video(every, stride)
            features, visible, second = self.conditions(store, known, every, len(preceding))
        with clock("recall"):
            chosen = self._recall(known, targets, state.cameras, state.depth)
        with clock("denoise"), self._alone():
            latents = sample(
                self.transformer,
                self.scheduler,
                Conditioning(
                    features=features,
                    visible=visible,
                    second=second,
                    unmoved=known.unmoved,
                    preceding=preceding if len(preceding) else None,
                    reference=state.clean[chosen] if len(chosen) else None,
                    first=state.clean[-1:],
                    context=text,
                ),
                steps=steps,
                negative_context=away,
                guidance_scale=guidance_scale,
                generator=generator,
                callback=callback and (lambda i, t, x: callback(self, i, t, {"latents": x}).get("latents")),
            )
        with clock("decode"):
            frames = self.codec.decode(latents[None])[0].clamp(-1, 1)
        pictures = frames[::stride][1:]
        with clock("encode"):
            clean = self.codec.encode(pictures[:, None])[:, 0]
        with clock("depth"):
            depth = self._estimate(estimator, pictures, clean, written, known.depth[1:])
        keep = self._kept(movers, pictures, depth, clock)
        with clock("write"):
            update = store.update(clean, depth, written, frames=pictures, keep=keep)
        after = RolloutState(
            memory=store,
            frames=chunk.stop,
            clean=torch.cat([state.clean, clean]),
            generated=torch.cat([state.generated, latents[1:]])[-self.config.preceding_frames - 1 :],
            depth=torch.cat([_fit(state.depth, depth), depth]),
            cameras=Cameras.cat([state.cameras, written]),
        )
        result = ChunkResult(
            chunk=chunk,
            frames=frames[chunk.new_frames],
            known=known,
            latents=latents,
            clean=clean,
            depth=depth,
            cameras=cameras,
            update=update,
        )
        return after, result

    def _texts(self, prompt: str | Sequence[str] | None, chunks: int) -> list[Float[Tensor, "l d"] | None]:
        """Embedded text of each chunk; None for a model without text."""
        dim = self.transformer.config.text_dim
        if not prompt and dim and self.text_encoder is not None:
            prompt = [""]  # which has an embedding of its own
        if not prompt:
            empty = null_context(1, dim)
            return [None if empty is None else empty[0].to(self._execution_device, self.transformer.dtype)] * chunks
        if not dim:
            raise ValueError(f"prompt must be left out, because this model reads no text, got {prompt!r}")
        if self.text_encoder is None or self.tokenizer is None:
            raise ValueError("prompt needs a text_encoder and a tokenizer, but this pipeline was loaded without them")
        given = [prompt] if isinstance(prompt, str) else list(prompt)[:chunks]
        if new := [text for text in dict.fromkeys(given) if text not in self._embedded]:
            with self._alone():
                for text in new:
                    self._embedded[text] = encode_prompts(self.tokenizer, self.text_encoder, [text])[0]
        embedded = [self._embedded[text].to(self._execution_device) for text in given]
        while len(self._embedded) > PROMPTS:
            self._embedded.pop(next(iter(self._embedded)))
        return embedded + embedded[-1:] * (chunks - len(embedded))

    def _first_depth(
        self, depth: Tensor | None, estimator: DepthEstimator, image: Tensor, latents: Tensor, camera: Cameras
    ) -> Float32[Tensor, "1 y x"]:
        if depth is None:
            return self._estimate(estimator, image, latents, camera)
        given = KnownDepth(depth[None].to(image)).estimate(image, latents, camera)
        if bool((given > 0).all()):
            return given
        return fill_depth(given, self._estimate(estimator, image, latents, camera))

    def _recall(self, known: MemoryRead, targets: Cameras, seen_at: Cameras, seen_depth: Tensor) -> Tensor:
        if not self.config.reference_frames or len(seen_at) < 2:
            return torch.zeros(0, dtype=torch.int64)
        points = targets.unproject(known.depth)[known.visible]
        return recall(points, seen_at, seen_depth, k=self.config.reference_frames)[0]

    def _remember(
        self,
        memory: str | Callable[..., Memory],
        latents: Tensor,
        depth: Tensor,
        camera: Cameras,
        image: Tensor,
        keep: Tensor | None,
    ) -> Memory:
        masked = {} if keep is None else {"keep": keep}
        if callable(memory):
            return memory(latents, depth, camera, frames=image, **masked)
        if memory not in MEMORIES:
            raise ValueError(f"memory must be one of {', '.join(MEMORIES)} or a function, got {memory!r}")
        if memory != "none" and not self.transformer.config.vace_layers:
            raise ValueError(
                "the transformer has no memory branch, so the path would be ignored: load branch weights, or ask for "
                "memory='none'"
            )
        if memory == "latent":
            return LatentMemory.from_view(latents, depth, camera, mover=self.mover, **masked)
        if memory == "colour":
            return ColourMemory.from_view(latents, depth, camera, frames=image, codec=self.codec, **masked)
        return NoMemory.from_view(latents, depth, camera)

    def _estimator(self, estimator: DepthEstimator | str | None) -> DepthEstimator:
        if isinstance(estimator, str):
            return self._named(depth_estimator, estimator)
        if estimator is not None:
            return estimator
        if self.depth_head is None:
            raise ValueError(
                "estimator must be given, because this model has no depth head of its own: a DepthEstimator or a name "
                f"(--depth-model) such as {', '.join(list(DEPTH_MODELS)[:3])}, got None"
            )
        return LatentDepth(self.depth_head)

    def _segmenter(self, movers: Segmenter | str | None) -> Segmenter | None:
        return self._named(segmenter, movers) if isinstance(movers, str) else movers

    def _named(self, load: Callable, name: str) -> object:
        """A model that was asked for by name: loaded once; without offload it stays where the pipeline computes."""
        if (load, name) not in self._by_name:
            self._by_name[load, name] = load(name)
        return self._by_name[load, name].to("cpu" if self._offloads else self._execution_device)

    @property
    def _offloads(self) -> bool:
        grouped = any(
            _is_group_offload_enabled(part) for part in self.components.values() if isinstance(part, torch.nn.Module)
        )
        return grouped or bool(getattr(self, "_all_hooks", None))

    @contextlib.contextmanager
    def _alone(self, guest: DepthEstimator | Segmenter | None = None) -> Iterator[DepthEstimator | Segmenter | None]:
        """Under offload one model at a time is on the card: all parts leave it, then a guest has it for a while."""
        for hook in getattr(self, "_all_hooks", ()):
            hook.offload()
        away = self._offloads and guest is not None
        yield guest.to(self._execution_device) if away else guest
        if away:
            guest.to("cpu")

    def _estimate(self, estimator: DepthEstimator, *given: object) -> Float32[Tensor, "v y x"]:
        with self._alone(estimator) as estimator:
            return estimator.estimate(*given)

    def _kept(
        self, movers: Segmenter | None, frames: Float[Tensor, "v 3 h w"], depth: Float32[Tensor, "v y x"], clock: Clock
    ) -> Bool[Tensor, "v y x"] | None:
        """Cells of the depth that may be remembered; None without a segmenter: all of them."""
        if movers is None:
            return None
        with clock("movers"), self._alone(movers) as movers:
            return keep_cells(movers.keep(frames), *depth.shape[1:])

    def _checked(self, image: np.ndarray | Tensor, cameras: Cameras) -> tuple[Float[Tensor, "1 3 h w"], Cameras]:
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"image must be uint8 (height, width, 3), got {image.dtype} {image.shape}")
            image = images_to_tensor(image)
        step = self.codec.stride * self.transformer.config.patch_size[1]
        size = tuple(image.shape[-2:])
        if image.ndim != 3 or size != (cameras.height, cameras.width):
            raise ValueError(
                f"image must be of the size of the cameras, {cameras.height} x {cameras.width}, got "
                f"{' x '.join(map(str, size))}: bring both to one size with fit_image and Cameras.fit"
            )
        if size[0] % step or size[1] % step:
            raise ValueError(f"height and width must be multiples of {step}, got {size[0]} x {size[1]}")
        return image[None].to(self._execution_device, torch.float32), cameras.to(self._execution_device)


def _fit(old: Float32[Tensor, "v i j"], like: Float32[Tensor, "u y x"]) -> Float32[Tensor, "v y x"]:
    """Depth maps on the grid of others, nearest: only recall looks at them."""
    if old.shape[1:] == like.shape[1:]:
        return old
    return torch.nn.functional.interpolate(old[None], like.shape[1:], mode="nearest-exact")[0]
