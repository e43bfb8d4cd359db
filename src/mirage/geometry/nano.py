"""The embedded model's depth head: depth from latents and from what the memory projects, never from pixels."""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Float32
from torch import Tensor, nn

from mirage.camera.cameras import Cameras
from mirage.geometry.depth import DepthEstimator

FAR = 100.0  # world units; the sky is remembered at this depth, where turning moves it and walking hardly does


class LatentDepthHead(ModelMixin, ConfigMixin):
    """Depth from latents and what the memory projects: a small U of convolutions on the latent grid.

    Its output is twice as fine as the latent grid. It starts as the projected depth itself, and learns what to add.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 16, width: int = 64, typical: float = 4.0):
        super().__init__()
        self.enter = nn.Conv2d(latent_channels + 4, width, 3, padding=1)
        self.fine = nn.Sequential(_Residual(width), _Residual(width))
        self.down = nn.Conv2d(width, width, 2, 2)
        self.middle = nn.Sequential(_Residual(width), _Residual(width))
        self.deep = nn.Sequential(_Residual(width), _Residual(width))
        self.merge = nn.Sequential(_Residual(width), _Residual(width))
        self.leave = nn.Sequential(nn.Conv2d(width, 4, 3, padding=1), nn.PixelShuffle(2))
        nn.init.zeros_(self.leave[0].weight)
        nn.init.zeros_(self.leave[0].bias)

    def forward(
        self,
        latents: Float[Tensor, "v c h w"],
        rays: Float[Tensor, "v 2 h w"],
        prior: Float32[Tensor, "v h w"],
    ) -> Float32[Tensor, "v 2*h 2*w"]:
        """Logarithm of z-depth.

        Args:
            latents: Normalised image latents.
            rays: Slopes x/z and y/z of the cells' centres, which tell the field of view.
            prior: Projected memory depth in world units, 0 where there is none.

        Returns:
            Natural logarithm of depth in world units, two by two per cell.
        """
        seen = (prior > 0).float()
        base = torch.where(prior > 0, prior.clamp(min=1e-3) / self.config.typical, 1.0).log()
        x = self.enter(torch.cat([latents, rays, (base * seen)[:, None], seen[:, None]], 1))
        fine = self.fine(x)
        half = self.middle(_shrink(fine, self.down))
        quarter = self.deep(F.avg_pool2d(half, 2, ceil_mode=True))
        half = half + F.interpolate(quarter, half.shape[-2:], mode="nearest") + half.mean((2, 3), keepdim=True)
        fine = self.merge(fine + F.interpolate(half, fine.shape[-2:], mode="nearest"))
        start = F.interpolate((base * seen)[:, None], scale_factor=2, mode="nearest")
        return (self.leave(F.silu(fine)) + start)[:, 0].float() + torch.tensor(self.config.typical).log()


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def _shrink(x: Tensor, down: nn.Module) -> Tensor:
    """Halve a grid of any size; an odd edge is repeated first."""
    return down(F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode="replicate"))


class LatentDepth(DepthEstimator):
    """The embedded depth head as a `DepthEstimator`: it sees latents and the memory's depth, never pixels."""

    def __init__(self, head: LatentDepthHead):
        self.head = head

    @torch.no_grad()
    def estimate(
        self,
        frames: Float[Tensor, "v 3 H W"],
        latents: Float[Tensor, "v c h w"],
        cameras: Cameras,
        prior: Float32[Tensor, "v h w"] | None = None,
    ) -> Float32[Tensor, "v y x"]:
        if prior is None:
            prior = torch.zeros(len(latents), *latents.shape[2:], device=latents.device)
        rays = ray_slopes(cameras.resize(*latents.shape[2:]))
        return self.head(latents.float(), rays, prior).exp().clamp(1e-2, FAR)


def ray_slopes(cells: Cameras) -> Float32[Tensor, "v 2 h w"]:
    """x/z and y/z of the centre of each cell of cameras on the latent grid.

    Args:
        cells: Cameras whose height and width count cells.

    Returns:
        The two slopes per cell; they tell a network the field of view.

    Example:
        >>> import torch
        >>> K = torch.tensor([[[2.0, 0.0, 1.5], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]])
        >>> ray_slopes(Cameras(K, torch.eye(4)[None], 2, 3))[0, 0, 0].tolist()
        [-0.5, 0.0, 0.5]
    """
    flat = cells.cam_from_world.new_ones(len(cells), cells.height, cells.width)
    still = Cameras(
        cells.intrinsics, torch.eye(4, device=flat.device).expand(len(cells), 4, 4), cells.height, cells.width
    )
    return still.unproject(flat)[..., :2].permute(0, 3, 1, 2)
