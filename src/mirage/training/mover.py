"""Training of `LatentMover` by reprojection: views are remembered, read at the poses of others, and held to these.

What counts is the picture. The loss looks at latents through a linear read-out of pixels, fitted to the autoencoder by
least squares: it weighs errors roughly as the decoder does, costs next to nothing and needs no gradient of it. The last
steps may look through the decoder itself (`MoverRecipe.decoded`): slower, and better, for the latents that an encoder
gives are not those that decode best.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from mirage.camera.cameras import Cameras
from mirage.geometry.lift import lift
from mirage.memory import LatentMemory, LatentMover
from mirage.training.clips import to_floats
from mirage.training.fit import Schedule, fit, generator, mixed
from mirage.training.mover_data import Group, find, prepare, read_group
from mirage.video.codec import LatentCodec

logger = logging.getLogger(__name__)
AGREE = 0.05  # relative difference of depth that is still the same surface
LEAST = 20  # cells that a target needs
FLOOR = 1e-3  # squared error of a colour below which nothing is gained by getting better: an autoencoder's own
SECOND = 0.3  # share of memories of two views
LATENT = 0.02  # weight of errors of latents beside those of colours


@dataclass(frozen=True, kw_only=True)
class MoverRecipe:
    """How a mover is made and trained.

    Attributes:
        split: Sub-cells per cell, along both axes.
        features: Of a sub-cell.
        width: Of the hidden layers.
        steps: Optimiser steps.
        decoded: More steps, after these, whose loss looks through the decoder; the codec must pass gradients.
        batch: Places per step.
        targets: Views that are read of each place.
        lr: Peak learning rate.
        worlds: Exact worlds, where the data has any.
        size: Side of their pictures, in cells.
        columns: Columns of the frames of sequences, in cells.
        noise: Share of memories whose depth and pose are off as a sensor's are.
        again: Share of memories of what was read from another memory, as in a walk where everything is re-written.
        seed: Fixes worlds, first weights and samples.
        stop_after: Seconds of training after which to save and stop; None never does.
    """

    split: int = 4
    features: int = 16
    width: int = 128
    steps: int = 2000
    decoded: int = 0
    batch: int = 2
    targets: int = 3
    lr: float = 2e-3
    worlds: int = 160
    size: int = 24
    columns: int = 40
    noise: float = 0.3
    again: float = 0.3
    seed: int = 0
    stop_after: float | None = None


def train_mover(
    out: Path,
    codec: LatentCodec,
    sources: Sequence[str | Path],
    recipe: MoverRecipe | None = None,
    *,
    told: dict[str, object] | None = None,
    device: torch.device | str = "cpu",
    tell: Callable[[str], None] = lambda text: None,
) -> bool:
    """Make the data, train, and save the mover in `out/mover`; the same call goes on after an interruption.

    Args:
        out: Folder of groups, checkpoints, curve and mover.
        codec: The frozen autoencoder whose latents shall be moved.
        sources: "worlds", folders of posed RGB-D, folders of photographs.
        recipe: How.
        told: What tells this autoencoder from others; `out` keeps to it.
        device: Where the mover is trained.
        tell: Called with what is under way.

    Returns:
        Whether all steps are done.

    Raises:
        ValueError: If a source is malformed or `out` holds something else.
    """
    recipe = recipe or MoverRecipe()
    found = find(sources)
    sizes = {"size": recipe.size * codec.stride, "width": recipe.columns * codec.stride}
    files = prepare(out / "groups", codec, found, worlds=recipe.worlds, **sizes, seed=recipe.seed, told=told, tell=tell)
    return fit_mover(out, files, recipe, codec=codec, device=device)


def fit_mover(
    out: Path,
    files: Sequence[Path],
    recipe: MoverRecipe,
    *,
    codec: LatentCodec | None = None,
    device: torch.device | str = "cpu",
) -> bool:
    """Train on groups that are there; see `train_mover`. The codec is needed for `recipe.decoded` alone."""
    if recipe.decoded and codec is None:
        raise ValueError(f"codec must be given to look through its decoder, got None with decoded={recipe.decoded}")
    groups = [read_group(file) for file in files]
    torch.manual_seed(recipe.seed)
    channels = groups[0].latents.shape[1]
    mover = LatentMover(channels=channels, split=recipe.split, features=recipe.features, width=recipe.width)
    mover.to(device)
    look = readout(groups[:: max(1, len(groups) // 60)]).to(device)
    started = time.monotonic()
    schedule = lambda steps, lr: Schedule(
        steps=steps, lr=lr, warmup=min(50, steps // 10), ema=0.995, save_every=250, log_every=25
    )
    loss = lambda model, step: _loss(model, groups, look, generator(recipe.seed, step), recipe, device)
    whole = fit("mover", mover, loss, schedule(recipe.steps, recipe.lr), out, recipe.stop_after)
    if whole and recipe.decoded:
        left = None if recipe.stop_after is None else recipe.stop_after - (time.monotonic() - started)
        loss = lambda model, step: _loss(model, groups, look, generator(recipe.seed, step, 1), recipe, device, codec)
        whole = fit("mover-decoded", mover, loss, schedule(recipe.decoded, recipe.lr / 2), out, left)
    mover.save_pretrained(out / "mover")
    return whole


def readout(groups: Sequence[Group]) -> Float32[Tensor, "p c 3 3"]:
    """The linear map from the latents round a cell to its pixels that is nearest to the autoencoder's."""
    gram = moment = 0.0
    for group in groups:
        stride = group.colour.shape[-1] // group.latents.shape[-1]
        latents = group.latents.float()
        around = F.unfold(latents, 3, padding=1).unflatten(-1, latents.shape[2:])[..., 1:-1, 1:-1]
        x = around.movedim(1, -1).flatten(0, 2)
        y = F.pixel_unshuffle(to_floats(group.colour), stride)[..., 1:-1, 1:-1].movedim(1, -1).flatten(0, 2)
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        gram, moment = gram + x.T @ x, moment + x.T @ y
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram + ridge, moment)[:-1]
    return weight.T.unflatten(1, (-1, 3, 3)).contiguous()


def _loss(
    mover: LatentMover,
    groups: Sequence[Group],
    look: Float32[Tensor, "p c 3 3"],
    g: torch.Generator,
    recipe: MoverRecipe,
    device: torch.device | str,
    codec: LatentCodec | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean logarithm of the error over targets, through the decoder if a codec is given; and how many dB what a
    linear look sees of it is below the gather's."""
    losses, gains = [], []
    for _ in range(recipe.batch):
        group = groups[int(torch.randint(len(groups), (), generator=g))]
        memory, rest = _remembered(group, mover, g, recipe, device)
        cameras = group.cameras[rest].to(device)
        truth = group.latents[rest].to(device).float()
        on_cells = cameras.resize(*truth.shape[2:])
        hits = memory.surfels.render(on_cells)
        gathered = memory.surfels.sample(hits)
        with mixed(device):
            moved = mover(memory.surfels, gathered, hits, on_cells)
        cells = lift(group.depth[rest].to(device), *truth.shape[2:])
        counts = (hits.index >= 0) & ~hits.unmoved & cells.valid
        counts &= (hits.depth - cells.depth).abs() <= AGREE * cells.depth
        some = counts.flatten(1).sum(1) >= LEAST
        if not bool(some.any()):
            continue
        before = error(gathered, truth, counts, look)[some]
        after = error(moved, truth, counts, look)[some]
        if codec is None:
            losses.append((after + FLOOR).log())
        else:
            pictures = to_floats(group.colour[rest].to(device))[some]
            losses.append((decoded_error(codec, moved[some], truth[some], pictures, counts[some]) + FLOOR).log())
        gains.append(10 * ((before + FLOOR).log10() - (after.detach() + FLOOR).log10()))
    if not losses:
        return 0 * sum(p.sum() for p in mover.parameters()), {}
    return torch.cat(losses).mean(), {"gain": torch.cat(gains).mean()}


def error(
    latents: Float[Tensor, "v c h w"],
    truth: Float[Tensor, "v c h w"],
    counts: Bool[Tensor, "v h w"],
    look: Float32[Tensor, "p c 3 3"],
) -> Float[Tensor, " v"]:
    """Squared error per colour of the pixels of the cells that count, as far as a linear look can tell, and a bit of
    that of the latents; other cells are taken for true."""
    off = torch.where(counts[:, None], latents.float() - truth, 0.0)
    return _mean_square(F.conv2d(off, look, padding=1), counts) + LATENT * _mean_square(off, counts)


def decoded_error(
    codec: LatentCodec,
    latents: Float[Tensor, "v c h w"],
    truth: Float[Tensor, "v c h w"],
    pictures: Float32[Tensor, "v 3 H W"],
    counts: Bool[Tensor, "v h w"],
) -> Float[Tensor, " v"]:
    """What `error` estimates: the squared error per colour of the decoded pixels of the cells that count."""
    off = torch.where(counts[:, None], latents.float() - truth, 0.0)
    with mixed("cpu"):  # the codec stays where it is
        shown = codec.decode((truth + off).cpu()[:, None])[:, 0].float().to(off.device)
    if off.requires_grad and not shown.requires_grad:
        raise ValueError(
            f"codec must pass gradients to its latents, {type(codec).__name__} does not: train with decoded=0"
        )
    pixels = counts.repeat_interleave(codec.stride, 1).repeat_interleave(codec.stride, 2)
    return _mean_square(shown - pictures, pixels) + LATENT * _mean_square(off, counts)


def _mean_square(off: Float[Tensor, "v c h w"], counts: Bool[Tensor, "v h w"]) -> Float[Tensor, " v"]:
    """Over channels and the places that count."""
    return (off.square() * counts[:, None]).mean(1).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)


def _remembered(
    group: Group, mover: LatentMover, g: torch.Generator, recipe: MoverRecipe, device: torch.device | str
) -> tuple[LatentMemory, list[int]]:
    """A memory of one view or two, and the views that are left to be read."""
    order = torch.randperm(len(group.colour), generator=g).tolist()
    draw = lambda: float(torch.rand((), generator=g))
    depth, pose = group.depth[order[:2]].clone(), group.cam_from_world[order[:2]].clone()
    if draw() < recipe.noise:
        depth, pose = _disturbed(depth, pose, g)
    cameras = Cameras(group.intrinsics[order[:2]], pose, *group.colour.shape[2:]).to(device)
    latents, depth = group.latents[order[:2]].to(device).float(), depth.to(device)
    memory = LatentMemory.from_view(latents[:1], depth[:1], cameras[0])
    taken = 1
    kind = draw()
    if kind < recipe.again and len(order) > 2:  # the mover has to bear its own reads, or it wears off when repeated
        memory.mover = mover
        with torch.no_grad():
            read = memory.read(cameras[1])
        if bool(read.visible.any()):
            height, width = (n // m for n, m in zip(depth.shape[1:], read.visible.shape[1:], strict=True))
            keep = read.visible.repeat_interleave(height, 1).repeat_interleave(width, 2)
            memory = LatentMemory.from_view(read.features, depth[1:], cameras[1], keep=keep)
        memory.mover, taken = None, 2
    elif kind < recipe.again + SECOND and len(order) > 2:
        memory.update(latents[1:], depth[1:], cameras[1])
        taken = 2
    return memory, order[taken : taken + recipe.targets]


def _disturbed(
    depth: Float32[Tensor, "v H W"], pose: Float32[Tensor, "v 4 4"], g: torch.Generator
) -> tuple[Float32[Tensor, "v H W"], Float32[Tensor, "v 4 4"]]:
    """Depth off by smooth errors of about one per cent, poses by an eighth of a degree and half a per cent of depth."""
    height, width = depth.shape[1:]
    rough = torch.randn(len(depth), 1, max(2, height // 32), max(2, width // 32), generator=g)
    depth = depth * (1 + 0.01 * F.interpolate(rough, (height, width), mode="bilinear")[:, 0])
    turn = 0.002 * torch.randn(len(depth), 3, generator=g)
    x, y, z = turn.unbind(-1)
    zero = torch.zeros_like(x)
    small = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    pose = pose.clone()
    pose[:, :3] = torch.linalg.matrix_exp(small) @ pose[:, :3]
    known = depth[depth > 0]
    typical = known.median() if len(known) else 1.0
    pose[:, :3, 3] += 0.003 * typical * torch.randn(len(depth), 3, generator=g)
    return depth, pose
