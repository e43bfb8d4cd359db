"""Which pixels may be remembered: not what moves by itself, and not the sky; by a segmentation model, if one is given.

The memory itself rejects what contradicts it, which needs no model; a segmenter finds what stands still for now.
"""

import re
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

from mirage.geometry.foreign import Preparation, load_strictly, read_settings

MOVABLE = frozenset(
    re.split(
        ", ",
        "person, people, man, woman, child, boy, girl, baby, rider, pedestrian, cyclist, bicyclist, motorcyclist, "
        "animal, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, fish, car, van, truck, bus, train, "
        "tram, motorcycle, motorbike, minibike, bicycle, bike, scooter, caravan, trailer, on rails, ego vehicle, "
        "airplane, boat, ship, kite, frisbee, sports ball, flag, skateboard, surfboard, snowboard, skis",
    )
)
"""Names that datasets give to what moves: COCO, ADE20K, Cityscapes."""
PREPARATION = Preparation(size=(512, 512), multiple=32)
SEMANTIC, UNIVERSAL = ("segformer", "upernet"), ("mask2former", "maskformer")


class Segmenter(ABC):
    """Tells what may be remembered; a foreign model is one subclass in one file."""

    @abstractmethod
    def keep(self, frames: Float[Tensor, "v 3 h w"]) -> Bool[Tensor, "v h w"]:
        """Which pixels may be remembered.

        Args:
            frames: Colour in [-1, 1].

        Returns:
            False on what moves or may move, and on the sky if the segmenter leaves it out.
        """

    def to(self, device: torch.device | str) -> "Segmenter":
        """Move the segmenter's model; one that has none stays as it is.

        Args:
            device: Where it shall compute.

        Returns:
            The segmenter there.
        """
        return self


class ClassMovers(Segmenter):
    """Movers by the class of each pixel: SegFormer, UperNet, Mask2Former or MaskFormer, of any usual dataset.

    A pixel is a mover's if its movable classes together outweigh each other class.

    Args:
        model: A segmentation model of transformers.
        preparation: How pictures become its input.
        sky: Whether the sky is left out too. A depth model that knows the sky puts it far away, where it can stay.
    """

    def __init__(self, model: torch.nn.Module, preparation: Preparation = PREPARATION, *, sky: bool = True):
        names = {int(index): _plain(label) for index, label in model.config.id2label.items()}
        out = [index for index, said in names.items() if said & MOVABLE or (sky and "sky" in said)]
        if not any(names[index] & MOVABLE for index in out):
            raise ValueError(f"movers model must name what moves among its classes, got {list(names.values())[:5]}")
        self.model, self.preparation = model.eval(), preparation
        self.out = torch.tensor([index in out for index in sorted(names)])

    @classmethod
    def load(cls, folder: str | Path, *, dtype: torch.dtype | None = None, sky: bool = True) -> "ClassMovers":
        """Load a model from its folder.

        Args:
            folder: As transformers saves it.
            dtype: Of the weights; float32 if None.
            sky: Whether the sky is left out too.

        Returns:
            The segmenter, on the CPU.

        Raises:
            ValueError: If the model is of another kind or damaged.
        """
        kind = read_settings(folder, "movers model").get("model_type")
        if kind not in SEMANTIC + UNIVERSAL:
            known = ", ".join(SEMANTIC + UNIVERSAL)
            raise ValueError(f"movers model must be one of {known}, got {kind!r} in {folder}")
        auto = AutoModelForSemanticSegmentation if kind in SEMANTIC else AutoModelForUniversalSegmentation
        return cls(load_strictly(auto, folder, "movers model", dtype), PREPARATION.told_by(Path(folder)), sky=sky)

    def to(self, device: torch.device | str) -> "ClassMovers":
        """Move the model."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def keep(self, frames: Float[Tensor, "v 3 h w"]) -> Bool[Tensor, "v h w"]:
        size, kept = tuple(frames.shape[2:]), []
        for frame in frames.split(1):
            said = self.model(pixel_values=self.preparation.pixels(frame).to(self.model.device, self.model.dtype))
            share = _shares(said).float()
            share = F.interpolate(share, size, mode="bilinear", align_corners=False)
            out = self.out.to(share.device)
            kept.append((share[:, out].sum(1) <= share[:, ~out].amax(1)).to(frames.device))
        return torch.cat(kept)


def _shares(said: object) -> Float[Tensor, "v k y x"]:
    """How much of each class there is, of a model's answer."""
    if hasattr(said, "logits"):
        return said.logits.softmax(1)
    classes = said.class_queries_logits.softmax(-1)[..., :-1]
    return torch.einsum("vqk,vqyx->vkyx", classes, said.masks_queries_logits.sigmoid())


def _plain(label: str) -> set[str]:
    """The names in a label: "car;auto" and "sky-other-merged" as their datasets write them."""
    return {re.sub(r"(-other|-merged|-stuff)+$", "", part.strip().lower()) for part in re.split(r"[;,]", label)}


def keep_cells(keep: Bool[Tensor, "v h w"], height: int, width: int) -> Bool[Tensor, "v {height} {width}"]:
    """A mask of pixels on another grid over the same picture: a cell is kept only if all pixels that it touches are.

    Args:
        keep: Pixels that may be remembered.
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        Cells that may be remembered.

    Example:
        >>> keep = torch.ones(1, 3, 6, dtype=torch.bool)
        >>> keep[0, 1, 2] = False
        >>> keep_cells(keep, 2, 3).int().tolist()
        [[[1, 0, 1], [1, 0, 1]]]
    """
    return F.adaptive_max_pool2d((~keep).float(), (height, width)) == 0
