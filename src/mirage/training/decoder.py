"""Stage 1b: what shows latents learns on while the encoder stands still, so that all latents stay as they are.

First the motion between two latents, from what is exactly known of the worlds; then it and the decoder together. The
frames between latent frames gain most.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn

from mirage.training.autoencoder import distance, psnr, random_affine, warp
from mirage.training.clips import Clips, read_shard, to_floats
from mirage.training.fit import Schedule, fit, generator, mixed, save_atomic
from mirage.video.nano import ENCODING, NanoAutoencoder

FAR = 1000.0
PAIRS = 32, 12  # per step: of the motion alone, and beside the windows
WINDOWS = 2
SIDE, FRAMES = 128, 9


def train_decoder(
    folder: Path,
    model: NanoAutoencoder,
    shards: Sequence[Sequence[Path]],
    *,
    steps: int,
    seed: int = 0,
    stop_after: float | None = None,
    device: torch.device | str = "cpu",
) -> bool:
    """Train all but the encoder, in two runs that resume where they stopped.

    Args:
        folder: Gets `flow.safetensors`, `decoder.safetensors`, their states and curves, and `pairs/`.
        model: With `motion`; its encoder is left as it is.
        shards: Groups of shards of clips; each group is drawn as often as the others.
        steps: Steps of each run: of the motion alone, 32 pairs of latents each; of all, two windows of 128 x 128 x 9.
        seed: Of the batches.
        stop_after: Seconds after which a run saves and returns.
        device: Where to compute.

    Returns:
        True when both are done.
    """
    model = model.to(device, memory_format=torch.channels_last)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.split(".")[0] not in ENCODING)
    moments = Moments(folder / "pairs", model, shards, seed)

    def motion(flow: nn.Module, step: int) -> tuple:
        pairs, flows, sure = (x.to(device) for x in moments.pairs(step, PAIRS[0]))
        with mixed(device):
            return flow_loss(flow(pairs)[0], flows, sure), {"still": flows.norm(dim=3).mean()}

    def pictures(model: nn.Module, step: int) -> tuple:
        clips, *truth = (x.to(device) for x in moments.windows(step, WINDOWS))
        pairs, *truths = (x.to(device) for x in moments.pairs(step, PAIRS[1]))
        with mixed(device):
            value, figures = decoder_loss(model, clips, *truth, step)
            apart = flow_loss(model.flow(pairs)[0], *truths)
        return value + 0.04 * apart, figures | {"motion": apart.detach()}

    runs = (("flow", model.flow, motion, 1e-3), ("decoder", model, pictures, 4e-4))
    return all(fit(name, part, loss, Schedule(steps=steps, lr=lr), folder, stop_after) for name, part, loss, lr in runs)


def decoder_loss(
    model: NanoAutoencoder,
    clips: Float[Tensor, "b f 3 h w"],
    flows: Float[Tensor, "b g 3 2 2 h4 w4"],
    sure: Bool[Tensor, "b g 3 h4 w4"],
    seed: int,
    *,
    noise: float = 0.04,
    moved_weight: float = 1.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction of the clip, of two of its pictures alone, and of these moved in latent space; nothing of latents.

    Args:
        model: The autoencoder, with `motion`; no gradient reaches its encoder.
        clips: Colour in [-1, 1], 4 (t - 1) + 1 frames.
        flows: `true_flows` of the clips.
        sure: Where.
        seed: Fixes what is picked, the random maps and the noise.
        noise: Noise that the decoder must bear, relative to each channel's deviation.
        moved_weight: Weight of the moved pictures, relative to the clip.

    Returns:
        The loss, and figures for the curve (PSNR in dB of the decodings).
    """
    g = generator(seed, 3, device=clips.device)
    pictures = clips[:, ::4].flatten(0, 1)
    shown = pictures[torch.randperm(len(pictures), generator=g, device=g.device)[:2]]
    with torch.no_grad():
        latents, alone = model.encode(clips).float(), model.encode(shown[:, None])[:, 0].float()
    deviation = latents.std((0, 1, 3, 4))[:, None, None] + 1e-3
    jitter = lambda z: z + noise * deviation * torch.randn(z.shape, generator=g, device=z.device)

    video, motion = model.decode_moving(jitter(latents))
    maps = random_affine(len(shown), g)
    still, moved = model.decode(torch.cat([jitter(alone), warp(alone, maps)])[:, None])[:, 0].chunk(2)
    target = warp(shown, maps)
    inside = warp(torch.ones_like(target[:, :1]), maps) > 0.999
    loss = (
        distance(video, clips) + 0.5 * distance(still, shown) + moved_weight * distance(moved * inside, target * inside)
    )
    loss = loss + 0.01 * flow_loss(motion, flows.flatten(0, 1), sure.flatten(0, 1))
    between = torch.arange(clips.shape[1], device=clips.device) % 4 != 0
    figures = {
        "video_db": psnr(video, clips),
        "between_db": psnr(video[:, between], clips[:, between]),
        "image_db": psnr(still, shown),
        "moved_db": psnr(moved * inside, target * inside) + 10 * inside.float().mean().log10(),
    }
    return loss, {name: figure.detach() for name, figure in figures.items()}


def flow_loss(
    flows: Float[Tensor, "n 3 2 2 h w"], truth: Float[Tensor, "n 3 2 2 h w"], sure: Bool[Tensor, "n 3 h w"]
) -> Float[Tensor, ""]:
    """Error of motion in pixels, less of it where there is much motion."""
    error = (flows - truth).square().sum(3).add(1e-2).sqrt().mean(2)
    return (error * sure / (1 + 0.1 * truth.norm(dim=3).mean(2))).mean()


def true_flows(
    clips: Clips,
) -> tuple[Float[Tensor, "b g 3 2 2 h4 w4"], Bool[Tensor, "b g 3 h4 w4"]]:
    """Where what the frames between latent frames show is in the latent frame before and in the one after.

    Args:
        clips: Their depth and cameras say it; the sky is far away.

    Returns:
        Pixels (x, y) to go, at every fourth pixel; and where that is so: not on movers, nor behind a camera.
    """
    h, w = (torch.arange(n // 4, device=clips.depth.device) * 4 + 2 for n in clips.depth.shape[-2:])
    pixel = torch.stack([*torch.meshgrid(w + 0.5, h + 0.5, indexing="xy"), torch.ones(len(h), len(w)).to(h.device)])
    frames = torch.arange(clips.depth.shape[1], device=h.device)
    frames = frames[frames % 4 != 0]
    depth = clips.depth[:, frames][:, :, 2::4, 2::4].float()[..., : len(h), : len(w)]
    depth = torch.where(depth > 0, depth, FAR)
    k, pose = clips.intrinsics, clips.cam_from_world
    rays = torch.einsum("bfij,jhw->bfihw", torch.linalg.inv(k[:, frames]), pixel)
    local = torch.cat([rays * depth[:, :, None], torch.ones_like(depth)[:, :, None]], 2)
    flows, sure = [], ~clips.movers[:, frames][:, :, 2::4, 2::4][..., : len(h), : len(w)]
    for other in (frames - frames % 4, frames - frames % 4 + 4):
        there = pose[:, other] @ torch.linalg.inv(pose[:, frames])
        seen = torch.einsum("bfij,bfjhw->bfihw", k[:, other] @ there[:, :, :3], local)
        flows.append(seen[:, :, :2] / seen[:, :, 2:].clamp(min=0.05) - pixel[:2])
        sure = sure & (seen[:, :, 2] > 0.05)
    return torch.stack(flows, 2).clamp(-300, 300).unflatten(1, (-1, 3)), sure.unflatten(1, (-1, 3))


class Moments:
    """Pairs of latents and windows of clips with the motion that is true of them; a batch depends on the step alone.

    Args:
        folder: Where the latents of the clips and the motion are kept, made once.
        model: Encodes.
        shards: Groups of shards of clips.
        seed: Of the batches.
    """

    def __init__(self, folder: Path, model: NanoAutoencoder, shards: Sequence[Sequence[Path]], seed: int = 0):
        self.groups, self.seed, self.folder = [group for group in shards if group], seed, folder
        if not self.groups:
            raise ValueError("no clips to learn from: run the stage 'clips' first")
        self._open: dict[Path, dict[str, Tensor]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        device = next(model.parameters()).device
        for path in (path for group in self.groups for path in group):
            if self._at(path).exists():
                continue
            clips = read_shard(path)
            with torch.no_grad(), mixed(device):
                latents = [model.encode(to_floats(c[None].to(device)))[0].half().cpu() for c in clips.frames]
            flows, sure = true_flows(clips)
            save_atomic({"latents": torch.stack(latents), "flows": flows.half(), "sure": sure}, self._at(path))

    def pairs(self, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (before, after) of one shard with a little noise, the motion between, and where it is sure."""
        path, g = self._draw(step, 11)
        made = self._load(self._at(path))
        latents = made["latents"].float()
        clips, groups = latents.shape[0], latents.shape[1] - 1
        pick = torch.randperm(clips * groups, generator=g)[:count]
        clip, t = pick // groups, pick % groups
        pairs = torch.cat([latents[clip, t], latents[clip, t + 1]], 1)
        noise = latents.std((0, 1, 3, 4)).repeat(2)[:, None, None] * torch.randn(pairs.shape, generator=g)
        return pairs + 0.03 * noise, made["flows"][clip, t].float(), made["sure"][clip, t]

    def windows(self, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of one shard, colour in [-1, 1], with their motion and where it is sure."""
        path, g = self._draw(step, 5)
        clips, made = self._load(path)["frames"], self._load(self._at(path))
        pick = lambda n: int(torch.randint(n, (), generator=g))
        size = [min(SIDE, n) for n in clips.shape[-2:]]
        groups = min((FRAMES - 1) // 4, made["flows"].shape[1])
        shown, flows, sure = [], [], []
        for _ in range(count):
            i, t = pick(len(clips)), pick(made["flows"].shape[1] - groups + 1)
            top, left = (4 * pick((n - part) // 4 + 1) for n, part in zip(clips.shape[-2:], size, strict=True))
            here = slice(top, top + size[0]), slice(left, left + size[1])
            cell = (..., *(slice(s.start // 4, s.stop // 4) for s in here))
            shown.append(clips[i, 4 * t : 4 * (t + groups) + 1][(..., *here)])
            flows.append(made["flows"][i, t : t + groups][cell].float())
            sure.append(made["sure"][i, t : t + groups][cell])
        return to_floats(torch.stack(shown)), torch.stack(flows), torch.stack(sure)

    def _draw(self, step: int, kind: int) -> tuple[Path, torch.Generator]:
        g = generator(self.seed, step, kind)
        pick = lambda n: int(torch.randint(n, (), generator=g))
        group = self.groups[pick(len(self.groups))]
        return group[pick(len(group))], g

    def _at(self, path: Path) -> Path:
        return self.folder / f"{path.parent.name}-{path.name}"

    def _load(self, path: Path) -> dict[str, Tensor]:
        if path not in self._open:
            self._open[path] = {k: v for k, v in load_file(path).items() if k in ("frames", "latents", "flows", "sure")}
        return self._open[path]
