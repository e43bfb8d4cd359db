"""What the denoiser is told about a chunk: memory, preceding and reference frames, the clean first frame, the text."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """All conditions of one chunk of t target frames, with or without leading batch axes in every field.

    All frames are normalised latents, time before channels.

    Args:
        features: Memory read at the target frames; zero where unseen.
        visible: Cells that the memory has seen.
        unmoved: Visible cells whose features are already those of the target: a "residual" model leaves them alone.
        extra: Further channels for the memory branch at the target frames, for instance of the memory's geometry.
        second: What stands beside the features in the layouts "constant" (the released code's: an encoded video of
            ones, which depends on the shape only) and "score" (Spatia's: an encoded video of what is seen), at the
            target and preceding frames.
        preceding: Clean frames just before the first target frame, oldest first.
        reference: Clean past frames that saw the same place.
        first: Clean first target frames, which sampling keeps bit for bit.
        context: Text embeddings.

    Raises:
        ValueError: If `first` has more frames than the target.
    """

    features: Float[Tensor, "*b t c h w"]
    visible: Bool[Tensor, "*b t h w"]
    unmoved: Bool[Tensor, "*b t h w"] | None = None
    extra: Float[Tensor, "*b t e h w"] | None = None
    second: Float[Tensor, "*b m c h w"] | None = None
    preceding: Float[Tensor, "*b p c h w"] | None = None
    reference: Float[Tensor, "*b r c h w"] | None = None
    first: Float[Tensor, "*b k c h w"] | None = None
    context: Float[Tensor, "*b l d"] | None = None

    def __post_init__(self) -> None:
        frames = self.features.shape[-4]
        if self.first is not None and self.first.shape[-4] > frames:
            raise ValueError(f"first must have at most the {frames} target frames, got {self.first.shape[-4]}")

    def batched(self) -> "Conditioning":
        """Give the same conditions with one leading batch axis; unchanged if they have it.

        Returns:
            Conditions whose fields are views of these.

        Raises:
            ValueError: If there is more than one batch axis.
        """
        if self.features.ndim == 5:
            return self
        if self.features.ndim != 4:
            raise ValueError(f"features must have one batch axis or none, got the shape {tuple(self.features.shape)}")
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value[None] for name, value in given.items() if value is not None})

    def pin(self, target: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h w"]:
        """Put the clean first frames in their place, bit for bit.

        Args:
            target: Target frames, with a leading batch axis as in these conditions.

        Returns:
            New frames; `target` itself where no frame is pinned.
        """
        if self.first is None:
            return target
        return torch.cat([self.first.to(target), target[:, self.first.shape[1] :]], dim=1)

    def sequence(
        self, noisy: Float[Tensor, "b t c h w"], timestep: Float[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b c n h w"], Float[Tensor, "b n"], int]:
        """Line up the frames as the transformer takes them, the first target frames pinned.

        Args:
            noisy: Target frames.
            timestep: Noise level per sample in 0..1000; clean frames get 0.

        Returns:
            The frames [reference | target | preceding], a timestep for each, and the number of reference frames.
        """
        before = [] if self.reference is None else [self.reference.to(noisy)]
        after = [] if self.preceding is None else [self.preceding.to(noisy)]
        frames = torch.cat([*before, self.pin(noisy), *after], dim=1)
        start = before[0].shape[1] if before else 0
        pinned = 0 if self.first is None else self.first.shape[1]
        times = timestep.new_zeros(frames.shape[:2])
        times[:, start + pinned : start + noisy.shape[1]] = timestep[:, None]
        return frames.transpose(1, 2), times, start


def branch_input(conditioning: Conditioning, layout: str) -> Float[Tensor, "b m n h w"]:
    """Build what the memory branch reads at the target and preceding frames.

    At the preceding frames the best memory there is are these clean frames themselves: they take the place of the
    features, seen everywhere, with zero in the further channels.

    Args:
        conditioning: With a leading batch axis.
        layout: "mask": [features | visibility | extra]; "constant" and "score": [features | second].

    Returns:
        The channels of the branch in the transformer's axis order, dtype of the features.

    Raises:
        ValueError: If `second` is missing where it is needed, or has another number of frames.

    Example:
        Two target frames of one cell, the second unseen, and a preceding frame.

        >>> read = torch.tensor([5.0, 0.0]).view(1, 2, 1, 1, 1)
        >>> seen = torch.tensor([True, False]).view(1, 2, 1, 1)
        >>> c = Conditioning(features=read, visible=seen, preceding=torch.full((1, 1, 1, 1, 1), 7.0))
        >>> branch_input(c, "mask")[0, :, :, 0, 0].tolist()
        [[5.0, 0.0, 7.0], [1.0, 0.0, 1.0]]
    """
    features = conditioning.features.masked_fill(~conditioning.visible[:, :, None], 0)
    second = [conditioning.visible[:, :, None].to(features)]
    if conditioning.extra is not None:
        second.append(conditioning.extra.to(features))
    second = torch.cat(second, dim=2)
    if conditioning.preceding is not None:
        past = conditioning.preceding.to(features)
        features = torch.cat([features, past], dim=1)
        known = torch.zeros_like(second[:, :1]).expand(-1, past.shape[1], -1, -1, -1).clone()
        known[:, :, 0] = 1
        second = torch.cat([second, known], dim=1)
    if layout != "mask":
        if conditioning.second is None or conditioning.second.shape[1] != features.shape[1]:
            got = None if conditioning.second is None else conditioning.second.shape[1]
            raise ValueError(
                f"second must have {features.shape[1]} frames (target and preceding) for a model with "
                f"memory_layout={layout!r}, got {got}"
            )
        second = conditioning.second.to(features)
    return torch.cat([features, second], dim=2).transpose(1, 2)
