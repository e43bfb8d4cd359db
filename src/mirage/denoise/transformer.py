"""The denoiser: Wan's diffusion transformer with a memory branch, one timestep per frame and segment-aware positions.

One class from the toy to the 5-billion-parameter size, made of diffusers' blocks, under diffusers' weight names.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanAttention, WanTimeTextImageEmbedding, WanTransformerBlock
from jaxtyping import Float, Float32
from torch import Tensor, nn

from mirage.denoise.rope import rotate, segment_rotations


class MirageTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin, AttentionMixin):
    """Predict, from noisy and clean latent frames, the text and the memory, what the clean frames are.

    Args (all kept in the config):
        patch_size: Latent cells per token in time, rows, columns; time must be 1. Grids that the patch does
            not divide are padded inside and cropped again.
        num_attention_heads, attention_head_dim: Their product is the width of the model.
        in_channels: Channels of a latent, in and out.
        text_dim: Width of the text context; 0 builds a model without text (no cross-attention at all).
        freq_dim: Size of the sinusoidal code of the timestep, which lies in 0..1000.
        ffn_dim: Hidden width of the feed-forward layers.
        num_layers: Blocks of the main stream.
        eps: Of all norms.
        vace_layers: Main blocks that receive a hint from the memory branch, ascending, the first being 0;
            empty for a model without branch.
        vace_in_channels: Channels that the memory branch reads, in the layout `memory_layout`.
        memory_layout: "mask": [features | visibility | further channels]; "constant": [features | a constant], as
            the released code has it; "score": [features | an encoded score of what is seen], as Spatia has it. See
            `mirage.denoise.conditioning.branch_input`.
        prediction: What the output means. "velocity": noise minus clean latents (flow matching). "residual": clean
            latents minus the prior, the memory where it is visible and zero elsewhere. See `mirage.denoise.flow`.

    Departs from diffusers' `WanVACETransformer3DModel` in what that class cannot do: one timestep per frame, reference
    positions, a branch that does not see the reference frames, no text, no branch. Weight names are the same.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["MirageBlock"]  # noqa: RUF012 - the form diffusers reads
    _repeated_blocks = ["MirageBlock"]  # noqa: RUF012
    _keep_in_fp32_modules = ["time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["patch_embedding", "condition_embedder", "norm"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        *,
        patch_size: Sequence[int] = (1, 2, 2),
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        in_channels: int = 48,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 14336,
        num_layers: int = 30,
        eps: float = 1e-6,
        vace_layers: Sequence[int] = tuple(range(0, 30, 4)),
        vace_in_channels: int = 49,
        memory_layout: str = "mask",
        prediction: str = "velocity",
    ) -> None:
        super().__init__()
        _check_config(patch_size, attention_head_dim, in_channels, num_layers, vace_layers, vace_in_channels)
        _check_choice("memory_layout", memory_layout, ("mask", "constant", "score"))
        _check_choice("prediction", prediction, ("velocity", "residual"))
        if vace_layers and memory_layout != "mask" and vace_in_channels != 2 * in_channels:
            raise ValueError(
                f"vace_in_channels must be twice in_channels with memory_layout={memory_layout!r}, that is "
                f"{2 * in_channels}, got {vace_in_channels}"
            )
        dim = num_attention_heads * attention_head_dim
        block = dict(dim=dim, ffn_dim=ffn_dim, heads=num_attention_heads, text=text_dim > 0, eps=eps)

        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = WanTimeTextImageEmbedding(dim, freq_dim, 6 * dim, max(text_dim, 1))
        if not text_dim:
            self.condition_embedder.text_embedder = None
        self.blocks = nn.ModuleList(MirageBlock(**block) for _ in range(num_layers))
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, in_channels * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        if vace_layers:
            self.vace_patch_embedding = nn.Conv3d(vace_in_channels, dim, kernel_size=patch_size, stride=patch_size)
            self.vace_blocks = nn.ModuleList(
                MirageBlock(**block, joins=i == 0, hints=True) for i in range(len(vace_layers))
            )
        self.gradient_checkpointing = False
        self._cp_plan = _parallel_plan(branch=bool(vace_layers))
        _initialise(self)

    def forward(
        self,
        latents: Float[Tensor, "b c n h w"],
        timestep: Float[Tensor, "b n"],
        context: Float[Tensor, "b l d"] | None = None,
        memory: Float[Tensor, "b m n_memory h w"] | None = None,
        *,
        num_reference: int = 0,
    ) -> Float[Tensor, "b c n h w"]:
        """Run the network once; what the output means is `config.prediction`.

        Args:
            latents: Frames in the order [reference | target | preceding], normalised latents.
            timestep: Noise level of each frame in 0..1000 (1000 times sigma); 0 for clean frames.
            context: Text embeddings; None for a model without text.
            memory: What the branch reads at the target and preceding frames; None skips the branch.
            num_reference: How many of the first frames are reference frames.

        Returns:
            A frame for every frame; only those of noisy frames mean something. The dtype of `latents`.

        Raises:
            ValueError: If text or memory is given to a model without it, text is missing, or the memory has another
                number of frames.

        Cost:
            Quadratic in tokens; no host sync. The branch costs as much per block as the main stream without references.
        """
        text, branch = self.config.text_dim > 0, bool(self.config.vace_layers)
        if text != (context is not None):
            got = None if context is None else tuple(context.shape)
            wanted = "given" if text else "None"
            raise ValueError(f"context must be {wanted} for a model with text_dim={self.config.text_dim}, got {got}")
        if memory is not None and not branch:
            raise ValueError(
                f"memory must be None for a model without branch (no vace_layers), got {tuple(memory.shape)}"
            )
        if memory is not None and memory.shape[2] != latents.shape[2] - num_reference:
            raise ValueError(
                f"memory must have a frame for each frame that is no reference, {latents.shape[2]} - {num_reference}, "
                f"got {memory.shape[2]}"
            )
        height, width = latents.shape[-2:]
        x, rows, columns = self._tokens(self.patch_embedding, latents)
        rotations = segment_rotations(
            x.shape[1],
            rows,
            columns,
            num_reference=num_reference,
            head_dim=self.config.attention_head_dim,
            device=latents.device,
        )
        embedder = self.condition_embedder
        code = embedder.timesteps_proj(timestep.flatten()).unflatten(0, timestep.shape)
        time = embedder.time_embedder(code.to(embedder.time_embedder.linear_1.weight.dtype))
        modulation = embedder.time_proj(embedder.act_fn(time).to(embedder.time_proj.weight.dtype)).unflatten(
            -1, (6, -1)
        )
        words = embedder.text_embedder(context.to(embedder.time_proj.weight.dtype)) if text else None

        hints = {}
        if memory is not None:
            seen = self._tokens(self.vace_patch_embedding, memory)[0]
            later = x[:, num_reference:], modulation[:, num_reference:], rotations[num_reference:]
            for layer, block in zip(self.config.vace_layers, self.vace_blocks, strict=True):
                seen, hints[layer] = self._run(block, seen, words, *later[1:], later[0])
        for layer, block in enumerate(self.blocks):
            x = self._run(block, x, words, modulation, rotations)
            if layer in hints:
                joined = x[:, num_reference:] + hints.pop(layer)
                x = torch.cat([x[:, :num_reference], joined], dim=1) if num_reference else joined

        shift, scale = (self.scale_shift_table.float() + time.float()[:, :, None]).split(1, dim=2)
        x = self.proj_out(_modulate(self.norm_out(x.float()), shift, scale).type_as(x))
        return self._frames(x, rows, columns)[..., :height, :width].type_as(latents)

    def _tokens(
        self, embedding: nn.Conv3d, frames: Float[Tensor, "b m n h w"]
    ) -> tuple[Float[Tensor, "b n s dim"], int, int]:
        """Patches as tokens (s = rows * columns), in the dtype of the weights even under autocast."""
        _, height, width = self.config.patch_size
        padding = (0, -frames.shape[-1] % width, 0, -frames.shape[-2] % height)
        x = embedding(F.pad(frames, padding).to(embedding.weight.dtype)).to(embedding.weight.dtype)
        return x.flatten(3).permute(0, 2, 3, 1).contiguous(), x.shape[3], x.shape[4]

    def _frames(self, x: Float[Tensor, "b n s e"], rows: int, columns: int) -> Float[Tensor, "b c n h w"]:
        _, height, width = self.config.patch_size
        x = x.unflatten(-1, (height, width, -1)).unflatten(2, (rows, columns))
        return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)


class MirageBlock(WanTransformerBlock):
    """Wan's block with one modulation per frame; in the memory branch it also joins the main stream and gives hints.

    Args:
        dim, ffn_dim, heads, eps: As in the model.
        text: Whether there is cross-attention to the text.
        joins: First block of the branch: its input is projected and added to the tokens of the main stream.
        hints: Block of the branch: it projects its result to a hint for the main stream.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        heads: int,
        *,
        text: bool,
        eps: float,
        joins: bool = False,
        hints: bool = False,
    ) -> None:
        super().__init__(dim, ffn_dim, heads, cross_attn_norm=True, eps=eps)
        self.attn1.set_processor(MirageAttention())
        self.attn2.set_processor(MirageAttention())
        if not text:
            self.attn2 = self.norm2 = None
        self.proj_in = nn.Linear(dim, dim) if joins else None
        self.proj_out = nn.Linear(dim, dim) if hints else None

    def forward(
        self,
        x: Float[Tensor, "b n s dim"],
        words: Float[Tensor, "b l dim"] | None,
        modulation: Float[Tensor, "b n 6 dim"],
        rotations: Float32[Tensor, "n s pairs 2"],
        main: Float[Tensor, "b n s dim"] | None = None,
    ) -> Float[Tensor, "b n s dim"] | tuple[Float[Tensor, "b n s dim"], Float[Tensor, "b n s dim"]]:
        """Give the tokens after the block, and the hint if it is a block of the branch.

        Args:
            x: Tokens by frame, s of them each.
            words: Embedded text, or None.
            modulation: Shift, scale and gate of attention and feed-forward, per frame.
            rotations: Positions of the tokens.
            main: Tokens of the main stream, which the first block of the branch joins.

        Returns:
            The tokens; with the hint in the branch.
        """
        if self.proj_in is not None:
            x = self.proj_in(x).type_as(x) + main
        table = (self.scale_shift_table.float() + modulation.float()).split(1, dim=2)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table

        y = _modulate(self.norm1(x.float()), shift, scale).type_as(x)
        y = self.attn1(y.flatten(1, 2), None, None, rotations.flatten(0, 1)).unflatten(1, x.shape[1:3])
        x = torch.addcmul(x.float(), y.float(), gate).type_as(x)
        if self.attn2 is not None:
            y = self.norm2(x.float()).type_as(x)
            x = x + self.attn2(y.flatten(1, 2), words).view_as(x).type_as(x)
        y = _modulate(self.norm3(x.float()), ffn_shift, ffn_scale).type_as(x)
        x = torch.addcmul(x.float(), self.ffn(y).float(), ffn_gate).type_as(x)
        return x if self.proj_out is None else (x, self.proj_out(x).type_as(x))


class MirageAttention:
    """Self- or cross-attention of a `WanAttention`; on a CPU faster than the stock processor, with the same result."""

    _attention_backend = None  # set by `set_attention_backend`
    _parallel_config = None

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Float[Tensor, "b l dim"],
        encoder_hidden_states: Float[Tensor, "b words dim"] | None = None,
        attention_mask: None = None,
        rotary_emb: Float32[Tensor, "l pairs 2"] | None = None,
    ) -> Float[Tensor, "b l dim"]:
        """Attend from every token to every token, or to every word."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        value = attn.to_v(source).unflatten(2, (attn.heads, -1))

        def place(x: Float[Tensor, "b s dim"], norm: nn.RMSNorm) -> Float[Tensor, "b s heads d"]:
            x = norm(x.to(norm.weight.dtype)).unflatten(2, (attn.heads, -1))
            return (x if rotary_emb is None else rotate(x, rotary_emb)).to(value)

        query, key = place(attn.to_q(hidden_states), attn.norm_q), place(attn.to_k(source), attn.norm_k)
        if value.device.type == "cpu" and value.dtype == torch.bfloat16 and self._attention_backend is None:
            y = _attend_bfloat16(query, key, value)
        else:
            parallel = self._parallel_config if encoder_hidden_states is None else None
            y = dispatch_attention_fn(query, key, value, backend=self._attention_backend, parallel_config=parallel)
        return attn.to_out[0](y.flatten(2).type_as(value))


def _attend_bfloat16(
    query: Float[Tensor, "b l heads d"], key: Float[Tensor, "b s heads d"], value: Float[Tensor, "b s heads d"]
) -> Float[Tensor, "b l heads d"]:
    """Two matrix products: in bfloat16 on a CPU twice as fast as the fused kernel, which computes in float32."""
    query, key, value = (x.transpose(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    return (torch.softmax(query @ key.mT, dim=-1) @ value).transpose(1, 2)


def _modulate(x: Float[Tensor, "b n s d"], shift: Float[Tensor, "b n 1 d"], scale: Float[Tensor, "b n 1 d"]) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def _parallel_plan(*, branch: bool) -> dict[str, object]:
    """How diffusers' context parallelism divides the work: every process has some of the tokens of every frame."""
    tokens = ContextParallelInput(split_dim=2, expected_dims=4)
    places = {"rotations": ContextParallelInput(split_dim=1, expected_dims=4)}
    plan = {"blocks.0": {"x": tokens}, "blocks.*": places}
    if branch:
        plan |= {"vace_blocks.0": {"x": tokens, "main": tokens}, "vace_blocks.*": places}
    return plan | {"proj_out": ContextParallelOutput(gather_dim=2, expected_dims=4)}


@torch.no_grad()
def _initialise(model: MirageTransformer) -> None:
    """Wan's initial weights, with zeros at the ends of branch and model: it starts by changing nothing."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if "time_embedder" in name or "text_embedder" in name:
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
    nn.init.zeros_(model.proj_out.weight)
    for block in model.vace_blocks if model.config.vace_layers else ():
        nn.init.zeros_(block.proj_out.weight)


def _check_config(
    patch_size: Sequence[int], head_dim: int, channels: int, layers: int, branch: Sequence[int], branch_channels: int
) -> None:
    if len(patch_size) != 3 or patch_size[0] != 1:
        raise ValueError(
            f"patch_size must be (1, rows, columns), because each frame has its own timestep, got {patch_size}"
        )
    if head_dim % 2:
        raise ValueError(f"attention_head_dim must be even for rotary positions, got {head_dim}")
    branch = list(branch)
    if branch and (branch[0] != 0 or branch != sorted(set(branch)) or branch[-1] >= layers):
        raise ValueError(f"vace_layers must ascend from 0 and stay below num_layers={layers}, got {branch}")
    if branch and branch_channels < channels:
        raise ValueError(
            f"vace_in_channels must be at least in_channels={channels} (channels of the memory), got {branch_channels}"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
