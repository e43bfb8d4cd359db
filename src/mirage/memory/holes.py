"""What a picture or a grid of latents shows where nothing is known of it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mirage.kernels.checks import checked


@checked()
def fill_holes(image: Float[Tensor, "v c h w"], visible: Bool[Tensor, "v h w"]) -> Float[Tensor, "v c h w"]:
    """Fill the holes of images smoothly, by ever coarser averages of what is around them.

    An encoder or decoder looks at the neighbours of each cell: smooth holes disturb them least. Without anything
    visible all is zero, which is grey and the mean of normalised latents.

    Args:
        image: Values; what is not visible is not looked at.
        visible: Where they are known.

    Returns:
        The same values where visible, others in the holes.

    Raises:
        ValueError: If they do not fit the signature; the message names the argument.

    Gradient:
        Flows to the visible values.

    Cost:
        O(v * c * h * w), no host sync.

    Example:
        >>> image = torch.tensor([[[[1.0, 9.0, 9.0, 4.0]]]])
        >>> fill_holes(image, torch.tensor([[[True, False, False, True]]]))[0, 0, 0].tolist()
        [1.0, 1.75, 3.25, 4.0]
    """
    mask = visible[:, None].to(image.dtype)
    known, levels = torch.where(visible[:, None], image, 0.0), []
    while max(known.shape[2:]) > 1 and known.numel():
        levels.append((known, mask))
        window = [min(2, size) for size in known.shape[2:]]
        known, mask = (
            torch.nn.functional.avg_pool2d(x, window, ceil_mode=True, count_include_pad=False) for x in (known, mask)
        )
        known, mask = known / mask.clamp(min=1e-6), (mask > 0).to(image.dtype)
        known = known * mask
    coarse = known
    for known, mask in reversed(levels):
        coarse = torch.nn.functional.interpolate(coarse, known.shape[2:], mode="bilinear", align_corners=False)
        coarse = known + coarse * (1 - mask)
    return coarse
