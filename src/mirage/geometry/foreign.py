"""What image models of others are given and what comes back: exact resizes, strict loading, one depth for the sky."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float32
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from mirage.geometry.lift import lift
from mirage.geometry.nano import FAR
from mirage.geometry.scale import align_depth

NEAR = 1e-4  # what is nearer than any picture shows is no depth


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How pictures become the input of a model, and how its maps lie over the pictures again.

    The picture is always resized as a whole, never cropped, with corners on corners: a map of any size covers it
    exactly, and no cell is shifted against what it shows.
    """

    size: tuple[int, int] | None = None
    """Height and width to aim at."""
    shortest: int | None = None
    """Length of the shorter side to aim at, if there is no `size`."""
    longest: int | None = None
    """Most of the longer side, if there is no `size`."""
    multiple: int = 1
    """Both sides are made multiples of it."""
    keep_aspect: bool = True
    """Whether the side of `size` that asks for the smaller change decides alone."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted from colours in [0, 1]."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Then divided by."""
    pad: bool = False
    """Whether the picture is mirrored over its border first, as ZoeDepth was trained."""

    def told_by(self, folder: Path) -> "Preparation":
        """These settings with what the model's own files say in their place."""
        told = {}
        for name in ("processor_config.json", "preprocessor_config.json"):
            if (folder / name).is_file():
                told = json.loads((folder / name).read_text())
                told = told.get("image_processor", told)
        size = told.get("size") or {}
        size = {"shortest_edge": size} if isinstance(size, int) else size
        given: dict[str, object] = {}
        if "height" in size:
            given = {"size": (size["height"], size["width"]), "shortest": None, "longest": None}
        elif "shortest_edge" in size:
            given = {"size": None, "shortest": size["shortest_edge"], "longest": size.get("longest_edge")}
        names = {"multiple": "ensure_multiple_of", "keep_aspect": "keep_aspect_ratio"}
        given |= {ours: told[theirs] for ours, theirs in names.items() if told.get(theirs) is not None}
        given["pad"] = self.pad and told.get("do_pad", True)  # others call it padding to bring pictures to one size
        if told.get("do_normalize") is False:
            given |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        elif told.get("image_mean") and told.get("image_std"):
            given |= {"mean": tuple(told["image_mean"]), "std": tuple(told["image_std"])}
        return replace(self, **given)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Size of the model's input for pictures of a size."""
        if self.size is not None:
            down, across = self.size[0] / height, self.size[1] / width
            if self.keep_aspect:
                down = across = across if abs(1 - across) < abs(1 - down) else down
        else:
            down = self.shortest / min(height, width) if self.shortest else math.inf
            down = min(down, self.longest / max(height, width) if self.longest else math.inf)
            down = across = down if down < math.inf else 1.0
        rows, columns = (max(1, round(side / self.multiple)) for side in (height * down, width * across))
        return rows * self.multiple, columns * self.multiple

    def margin(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that are mirrored at each border."""
        if not self.pad:
            return 0, 0
        return min(height - 1, int(math.sqrt(height / 2) * 3)), min(width - 1, int(math.sqrt(width / 2) * 3))

    def pixels(self, frames: Float[Tensor, "v 3 h w"]) -> Float[Tensor, "v 3 y x"]:
        """The model's input for pictures in [-1, 1]."""
        rows, columns = self.margin(*frames.shape[2:])
        colours = F.pad(frames.float() / 2 + 0.5, (columns, columns, rows, rows), mode="reflect")
        size = self.grid(*colours.shape[2:])
        if size != tuple(colours.shape[2:]):
            colours = F.interpolate(colours, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, std = (colours.new_tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (colours - mean) / std

    def maps(self, maps: Float[Tensor, "v y x"], height: int, width: int) -> Float[Tensor, "v i j"]:
        """What a model said of its input as maps of the whole picture and nothing else."""
        rows, columns = self.margin(height, width)
        if not rows and not columns:
            return maps
        maps = F.interpolate(maps[None], (height + 2 * rows, width + 2 * columns), mode="bilinear", align_corners=False)
        return maps[0, :, rows : rows + height, columns : columns + width]


def settle(
    depth: Float[Tensor, "v y x"],
    latents: Float[Tensor, "v c h w"],
    sky: Bool[Tensor, "v y x"] | None = None,
    prior: Float32[Tensor, "v h w"] | None = None,
    *,
    finest: int = 16,
) -> Float32[Tensor, "v i j"]:
    """Make a model's depth fit for a memory: on a multiple of the cells, unknown is 0, sky and beyond is at `FAR`.

    The memory brings a chunk's depth to its own scale before it writes; the sky is placed so that it is at `FAR` after
    that, in every chunk, and can be found where it was left.

    Args:
        depth: z-depth in the model's unit; less than 1e-4 or not finite where it is unknown.
        latents: Latents of the same frames; only their grid matters.
        sky: Where the model sees the sky; nowhere if None.
        prior: Depth that the memory projects into the cells, in world units, 0 where it has none.
        finest: Most values along a side of a cell.

    Returns:
        z-depth in the model's unit, as fine as the model's map or somewhat finer.

    Example:
        >>> depth = torch.tensor([[[2.0, float("inf"), 500.0, -1.0]]])
        >>> settle(depth, torch.zeros(1, 1, 1, 4)).tolist()
        [[[2.0, 0.0, 100.0, 0.0]]]
        >>> settle(depth, torch.zeros(1, 1, 1, 4), torch.tensor([[[False, True, False, False]]])).tolist()
        [[[2.0, 100.0, 100.0, 0.0]]]
    """
    rows, columns = latents.shape[2:]
    fine = min(finest, max(math.ceil(depth.shape[1] / rows), math.ceil(depth.shape[2] / columns)))
    size = (rows * fine, columns * fine)
    ground = torch.where((depth > NEAR) & depth.isfinite(), depth, 0.0).float()
    sky = torch.zeros_like(ground, dtype=torch.bool) if sky is None else sky
    ground = resample_depth(ground.masked_fill(sky, 0.0), *size)
    sky = F.interpolate(sky[None].float(), size, mode="nearest-exact")[0] > 0
    far = FAR
    if prior is not None and bool((prior > 0).any()):
        fit = align_depth(lift(ground, rows, columns).depth, prior.masked_fill(prior > 0.99 * FAR, 0.0))
        far = 1 / (fit.scale * (1 / FAR - fit.shift)) if fit.shift < 0.5 / FAR else FAR / fit.scale
    return ground.clamp(max=far).masked_fill(sky, far)


def resample_depth(depth: Float32[Tensor, "v y x"], height: int, width: int) -> Float32[Tensor, "v {height} {width}"]:
    """Depth on another grid over the same picture, without surfaces between a near and a far one.

    Inverse depth, which is linear over a plane, is interpolated where that stays within 5 % of the nearest value, and
    the nearest value is taken elsewhere: at edges, and beside unknown depth.

    Args:
        depth: z-depth, 0 = unknown.
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        z-depth, 0 where the nearest value is unknown.

    Example:
        >>> resample_depth(torch.tensor([[[1.0, 1.02, 9.0, 0.0]]]), 1, 8)[0, 0, 2:].tolist()
        [1.0149253606796265, 1.0199999809265137, 9.0, 9.0, 0.0, 0.0]
    """
    if depth.shape[1:] == (height, width):
        return depth
    to = lambda maps, mode, **how: F.interpolate(maps[None], (height, width), mode=mode, **how)[0]
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=NEAR), 0.0)
    smooth, near = to(inverse, "bilinear", align_corners=False), to(inverse, "nearest-exact")
    alike = (smooth - near).abs() <= 0.05 * near
    return torch.where(near > 0, 1 / torch.where(alike, smooth, near).clamp(min=1e-30), 0.0)


def read_settings(folder: str | Path, what: str) -> dict:
    """Read the config.json of a model.

    Args:
        folder: The folder.
        what: How messages call the model.

    Returns:
        Its settings.

    Raises:
        ValueError: If there is none.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{what} must be a folder with a config.json and safetensors, got {folder}")
    with loading(what, folder):
        told = json.loads(path.read_text())
        if not isinstance(told, dict):
            raise ValueError("config.json holds no settings")
    return told


@contextmanager
def loading(what: str, folder: str | Path) -> Iterator[None]:
    """Say in one sentence why a model cannot be loaded.

    Args:
        what: How messages call the model.
        folder: Where it lies.

    Yields:
        Nothing.

    Raises:
        ValueError: If the block fails.
    """
    try:
        yield
    except (OSError, SafetensorError, KeyError, RuntimeError, TypeError, AttributeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{what} {folder} cannot be loaded: {reason[:300]}") from error


def load_strictly(kind: type, folder: str | Path, what: str, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """Load a model of transformers, all of its weights and from safetensors only.

    Args:
        kind: The class, or one of the automatic ones.
        folder: Where it lies.
        what: How messages call it.
        dtype: Of the weights; float32 if None.

    Returns:
        The model, to be evaluated, on the CPU.

    Raises:
        ValueError: If files are damaged or weights are missing.
    """
    options = {"dtype": dtype or torch.float32, "use_safetensors": True, "local_files_only": True}
    with loading(what, folder):
        model, told = kind.from_pretrained(str(folder), output_loading_info=True, **options)
        if told["missing_keys"] or told["mismatched_keys"]:
            lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
            raise ValueError(f"{len(lacking)} weights are missing or of another shape: {', '.join(lacking[:5])}")
    return model.eval()
