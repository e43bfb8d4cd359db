"""What a chunk costs, counted on paper: operations, bytes, and from them memory and time. No tensor is made.

Operations are those of matrix products and convolutions, two per multiply-add; they agree exactly with what PyTorch
counts (`torch.utils.flop_counter`), which a test holds them to. Memory and time are estimates: `USED` and `COPIES`
below are assumptions and not measurements.
"""

from dataclasses import dataclass, field
from math import prod

GIB = 2.0**30
USED = 0.5  # assumed share of a card's dense bfloat16 peak that the whole reaches
SLOWER = {"decode": 2, "encode": 2}  # the autoencoder computes in float32: TF32 has half of bfloat16's rate
COPIES = 4  # assumed tensors of the largest size in the autoencoder that are alive at once
LINK = 25e9  # assumed bytes per second between a computer and its card, PCIe 4.0 x 16 or 5.0 x 8
RESERVE = 1.5 * GIB  # assumed for the driver, the libraries and the gaps of the allocator
ITEM = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Card:
    """A graphics card, by its maker's data sheet."""

    memory: float
    """Bytes."""
    operations: float
    """Per second, dense bfloat16 with sums in float32."""
    bandwidth: float
    """Bytes per second of its memory."""


CARDS = {
    "B200": Card(180 * GIB, 2250e12, 8.0e12),
    "H200": Card(141e9, 989e12, 4.8e12),
    "H100": Card(80 * GIB, 989e12, 3.35e12),
    "A100": Card(80 * GIB, 312e12, 2.04e12),
    "L40S": Card(48 * GIB, 362e12, 0.864e12),
    "RTX 5090": Card(32 * GIB, 209e12, 1.79e12),
    "RTX 4090": Card(24 * GIB, 165e12, 1.01e12),
    "RTX 3090": Card(24 * GIB, 71e12, 0.936e12),
}
"""By NVIDIA's data sheets and architecture papers (SXM where there are several, without sparsity)."""


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A transformer's size; the default is Wan2.2-TI2V-5B with the paper's branch."""

    width: int = 3072
    feed: int = 14336
    layers: int = 30
    channels: int = 48
    patch: int = 4
    """Latent cells per token."""
    text_width: int = 4096
    """0 for a model without text."""
    time_width: int = 256
    branch: int = 8
    """Blocks of the memory branch, 0 for none."""
    branch_channels: int = 49

    def parameters(self, layers: int | None = None, branch: int | None = None) -> int:
        """Number of weights, of so many blocks (all if not said)."""
        layers, branch = (self.layers if layers is None else layers), (self.branch if branch is None else branch)
        d, f, text = self.width, self.feed, self.text_width > 0
        block = 4 * (d * d + d) + 2 * d + 2 * d * f + f + d + 6 * d
        block += (4 * (d * d + d) + 2 * d + 2 * d) if text else 0
        ends = (self.channels * self.patch + 1) * d + (d + 1) * self.channels * self.patch + 2 * d
        ends += (self.time_width + 1) * d + (d + 1) * d + 6 * d * (d + 1)
        ends += ((self.text_width + 1) * d + (d + 1) * d) if text else 0
        side = branch * (block + d * d + d) + d * d + d + (self.branch_channels * self.patch + 1) * d
        return layers * block + ends + (side if branch else 0)

    def operations(
        self, *, targets: int, cells: int, preceding: int = 0, reference: int = 0, words: int = 512
    ) -> dict[str, int]:
        """Of one call, by part: projections and attention of both streams.

        Args:
            targets: Latent frames of the chunk.
            cells: Tokens of a frame.
            preceding: Clean frames just before them.
            reference: Recalled frames.
            words: Tokens of text.

        Returns:
            Operations by part.
        """
        d, f = self.width, self.feed
        frames = targets + preceding + reference
        tokens, seen = frames * cells, (targets + preceding) * cells
        words = words if self.text_width else 0

        def products(n: int) -> int:
            """Of a block with n tokens."""
            own = 2 * n * (4 * d * d + 2 * d * f)
            return own + (2 * n * 2 * d * d + 2 * words * 2 * d * d if words else 0)

        ends = 2 * tokens * self.patch * self.channels * d * 2
        ends += 2 * frames * (self.time_width * d + d * d + 6 * d * d)
        ends += 2 * words * (self.text_width * d + d * d)
        branch = self.branch * (products(seen) + 2 * seen * d * d)
        if branch:
            branch += 2 * seen * d * d + 2 * seen * self.patch * self.branch_channels * d
        return {
            "main stream": self.layers * products(tokens) + ends,
            "its self-attention": self.layers * 4 * tokens * tokens * d,
            "its attention to the text": self.layers * 4 * tokens * words * d,
            "memory branch": branch,
            "attention of the branch": self.branch * (4 * seen * seen * d + 4 * seen * words * d),
        }

    def activations(self, *, tokens: int, seen: int) -> int:
        """Bytes that are alive in the middle of a block, in bfloat16 with float32 sums; attention is fused."""
        d, f = self.width, self.feed
        streams = 2 * d * (2 * tokens + seen * (1 + self.branch))  # both streams, and the hints until they are used
        return streams + tokens * max(2 * 2 * f + 4 * d + 2 * d, 4 * 2 * d + 2 * 4 * d)


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """Wan 2.2's autoencoder; its convolutions are causal in time."""

    base: int = 160
    decoder_base: int = 256
    channels: int = 48
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    pixels: int = 12
    """Channels of the patches of pixels."""
    shorter: tuple[bool, ...] = (False, True, True)
    """Which halvings of the encoder also halve time."""

    def convolutions(self, side: str, frames: int, height: int, width: int) -> list[tuple[int, int, int, int, int]]:
        """Every convolution (and the two products of attention) in order.

        Args:
            side: "encode" or "decode".
            frames: Video frames, 1 + a multiple of 4.
            height: Rows of pixels.
            width: Columns of pixels.

        Returns:
            Of each: weights without bias, bias and other parameters, channels in, frames x cells out, cells of a frame.
        """
        decode, found = side == "decode", []
        dims = [self.base * m for m in self.multiples]
        if decode:
            dims = [self.decoder_base * m for m in self.multiples[::-1]]
        scale = 2 ** len(self.shorter)
        rows, columns = (height // 2 // scale, width // 2 // scale) if decode else (height // 2, width // 2)
        f = 1 + (frames - 1) // 2 ** sum(self.shorter) if decode else frames

        def conv(kernel: int, into: int, out: int, f: int, extra: int = 0) -> None:
            found.append((kernel * into * out, out + extra, into, f * rows * columns, rows * columns))

        def residual(into: int, out: int) -> None:
            conv(27, into, out, f, extra=into)
            conv(27, out, out, f, extra=out)
            if into != out:
                conv(1, into, out, f)

        def middle(c: int) -> None:
            residual(c, c)
            conv(1, c, 3 * c, f, extra=c)
            found.append((0, 0, 2 * c * rows * columns, f * rows * columns, rows * columns))  # scores, and their sums
            conv(1, c, c, f)
            residual(c, c)

        if decode:
            conv(1, self.channels, self.channels, f)
            conv(27, self.channels, dims[0], f)
            middle(dims[0])
        else:
            conv(27, self.pixels, dims[0], f)
        for i, c in enumerate(dims):
            into = dims[max(i - 1, 0)]
            for j in range(self.blocks + decode):
                residual(into if j == 0 else c, c)
            if i == len(dims) - 1:
                break
            if decode:
                if self.shorter[::-1][i]:
                    conv(3, c, 2 * c, f - 1)
                    f = 2 * f - 1
                rows, columns = 2 * rows, 2 * columns
                conv(9, c, c, f)
            else:
                rows, columns = rows // 2, columns // 2
                conv(9, c, c, f)
                if self.shorter[i]:
                    f = (f + 1) // 2
                    conv(3, c, c, f - 1)
        if decode:
            conv(27, dims[-1], self.pixels, f, extra=dims[-1])
        else:
            middle(dims[-1])
            conv(27, dims[-1], 2 * self.channels, f, extra=dims[-1])
            conv(1, 2 * self.channels, 2 * self.channels, f)
        return found

    def parameters(self) -> int:
        """Number of weights of both sides."""
        return sum(w + b for side in ("encode", "decode") for w, b, *_ in self.convolutions(side, 5, 32, 32))

    def operations(self, side: str, frames: int, height: int, width: int) -> int:
        """Of one clip; arguments as in `convolutions`."""
        listed = self.convolutions(side, frames, height, width)
        return sum(2 * (weights or into) * places for weights, _, into, places, _ in listed)

    def memory(self, side: str, frames: int, height: int, width: int, item: int = 4) -> int:
        """Bytes alive at the worst moment: the frames that convolutions remember, and copies of the largest tensor."""
        listed = self.convolutions(side, frames, height, width)
        sizes = [(weights, into, cells) for weights, _, into, _, cells in listed if weights]
        at_once = 4 if frames > 1 else 1
        remembered = 2 * sum(into * cells for _, into, cells in sizes) if frames > 1 else 0
        return item * (remembered + COPIES * at_once * max(into * cells for _, into, cells in sizes))


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """UMT5's size; the default is UMT5-XXL."""

    vocabulary: int = 256384
    width: int = 4096
    inner: int = 4096
    feed: int = 10240
    layers: int = 24
    buckets: int = 32
    heads: int = 64

    def parameters(self) -> int:
        """Number of weights."""
        layer = 4 * self.width * self.inner + 3 * self.width * self.feed + 2 * self.width + self.buckets * self.heads
        return self.vocabulary * self.width + self.layers * layer + self.width

    def operations(self, words: int = 512) -> int:
        """Of one prompt."""
        products = 2 * words * (4 * self.width * self.inner + 3 * self.width * self.feed)
        return self.layers * (products + 4 * words * words * self.inner)


@dataclass(frozen=True, kw_only=True)
class Model:
    """All parts that a chunk passes through."""

    denoiser: Denoiser = field(default_factory=Denoiser)
    autoencoder: Autoencoder | None = field(default_factory=Autoencoder)
    """None if it is not Wan 2.2's: then it is not counted."""
    text: TextEncoder | None = field(default_factory=TextEncoder)
    stride: int = 16
    temporal_stride: int = 4
    patch: int = 2
    """Latent cells along the side of a token."""
    chunk_frames: int = 33
    preceding: int = 2
    reference: int = 4
    steps: int = 40
    size: tuple[int, int] = (704, 1280)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is run."""

    height: int = 704
    width: int = 1280
    frames: int = 33
    """Of a chunk, the shared one included."""
    steps: int = 40
    guided: bool = False
    dtype: str = "bfloat16"
    offload: str = "none"
    quantize: str = "none"
    tiling: bool = False

    def __str__(self) -> str:
        tiled = ", tiled autoencoder" if self.tiling else ""
        weights = self.dtype if self.quantize == "none" else f"{self.quantize} weights"
        return f"{self.height} x {self.width}, {self.frames} frames, {weights}, offload {self.offload}{tiled}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Memory of the card and time of a chunk; estimated, not measured."""

    memory: dict[str, float]
    """Bytes on the card while each phase runs."""
    operations: dict[str, int]
    """Of a full chunk, by phase."""
    moved: float
    """Bytes that offloading moves in a chunk."""

    @property
    def peak(self) -> float:
        """Bytes on the card at the worst moment."""
        return max(self.memory.values())

    def seconds(self, card: Card) -> float:
        """Of a chunk on a card, if `USED` of its peak is reached; moving weights adds to it."""
        slowed = sum(value * SLOWER.get(phase, 1) for phase, value in self.operations.items())
        return slowed / (USED * card.operations) + self.moved / LINK


def chunk_operations(model: Model, settings: Settings) -> dict[str, int]:
    """Operations of a full chunk, by phase.

    Args:
        model: The model.
        settings: Its size and steps.

    Returns:
        Operations; the text is that of one prompt.
    """
    targets = 1 + (settings.frames - 1) // model.temporal_stride
    cells = prod(-(-side // (model.stride * model.patch)) for side in (settings.height, settings.width))
    one = model.denoiser.operations(targets=targets, cells=cells, preceding=model.preceding, reference=model.reference)
    size = settings.height, settings.width
    found = {"text": model.text.operations()} if model.text else {}
    found["denoise"] = sum(one.values()) * settings.steps * (2 if settings.guided else 1)
    if model.autoencoder:
        found["decode"] = model.autoencoder.operations("decode", settings.frames, *size)
        found["encode"] = (targets - 1) * model.autoencoder.operations("encode", 1, *size)
    return found


def estimate(model: Model, settings: Settings) -> Estimate:
    """Memory and operations of a full chunk with these settings.

    Args:
        model: The model.
        settings: How it is run.

    Returns:
        The estimate.

    Example:
        >>> whole, parted = (estimate(Model(), Settings(offload=kind)).peak / GIB for kind in ("none", "model"))
        >>> whole > 2 * parted
        True
    """
    item = ITEM[settings.dtype]
    small = 1 if settings.quantize in ("fp8", "int8") else item
    d = model.denoiser
    inner = d.parameters() - d.parameters(0, 0)
    denoiser = inner * small + d.parameters(0, 0) * item
    text = model.text.parameters() * item if model.text else 0
    codec = 4 * model.autoencoder.parameters() if model.autoencoder else 0
    targets = 1 + (settings.frames - 1) // model.temporal_stride
    cells = prod(-(-side // (model.stride * model.patch)) for side in (settings.height, settings.width))
    seen = (targets + model.preceding) * cells
    active = d.activations(tokens=seen + model.reference * cells, seen=seen) * (item / 2)
    tile = (
        (min(settings.height, 512), min(settings.width, 512)) if settings.tiling else (settings.height, settings.width)
    )
    pixels = 4 * 3 * settings.frames * settings.height * settings.width
    decoding = encoding = pixels
    if model.autoencoder:
        decoding += model.autoencoder.memory("decode", settings.frames, *tile)
        encoding += model.autoencoder.memory("encode", 1, *tile)
        encoding += (targets - 2) * (encoding - pixels)  # the frames of a chunk are encoded as one batch of images
    block = inner / (d.layers + d.branch)
    words = model.text.vocabulary * model.text.width * item if model.text else 0  # the table of words is one piece
    held = {
        "none": dict.fromkeys(("text", "denoise", "decode", "encode"), denoiser + text + codec),
        "model": {"text": text, "denoise": denoiser, "decode": codec, "encode": codec},
        "group": {
            "text": words + codec,
            "denoise": 2 * block * small + d.parameters(0, 0) * item + codec,
            "decode": codec,
            "encode": codec,
        },
    }[settings.offload]
    working = {"text": 0.3 * GIB if model.text else 0, "denoise": active, "decode": decoding, "encode": encoding}
    runs = settings.steps * (2 if settings.guided else 1)
    moved = {"none": 0, "model": denoiser + codec, "group": denoiser * runs}[settings.offload]
    return Estimate(
        memory={phase: 0.0 + held[phase] + working[phase] + RESERVE for phase in working},
        operations=chunk_operations(model, settings),
        moved=float(moved),
    )


def table(model: Model, sizes: list[tuple[int, int]], *, frames: int, steps: int) -> list[tuple[Settings, Estimate]]:
    """Estimates of the settings that are worth a look, from the fastest to the smallest.

    Args:
        model: The model.
        sizes: Heights and widths.
        frames: Of a chunk.
        steps: Calls of the denoiser.

    Returns:
        Settings and estimates.
    """
    ways = [("none", "none", False), ("model", "none", False), ("model", "none", True), ("model", "fp8", True)]
    ways += [("group", "none", True)]
    return [
        (chosen, estimate(model, chosen))
        for height, width in sizes
        for offload, quantize, tiling in ways
        for chosen in [
            Settings(
                height=height,
                width=width,
                frames=frames,
                steps=steps,
                offload=offload,
                quantize=quantize,
                tiling=tiling,
            )
        ]
    ]
