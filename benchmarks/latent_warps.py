"""Ways to carry latents to another pose without learning anything, beside each other, on the real sequences.

python benchmarks/latent_warps.py --data DATA --out DIR [--pairs 4]

DATA holds the RGB-D sequences and weights_taef2_flux2. Beside nearest and gather: bicubic; a first-order
expansion with stored gradients; each cell as the mean of 2 x 2 reads; and features of the decoder carried in place of
the latents, after its first layer and after each doubling.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirage.camera.cameras import Cameras
from mirage.evaluation.metrics import bootstrap
from mirage.evaluation.moved_reads import GATHER, WARP, read_pair
from mirage.evaluation.real_loops import SEQUENCES, WEIGHTS, Rgbd, Views
from mirage.memory import LatentMemory
from mirage.video.taef2 import SPREAD, TinyFlux2, TinyFlux2Codec


def sampled(grid: Tensor, place: Tensor, mode: str) -> Tensor:
    """A grid "1 c h w" at places "1 y x 2", in cells."""
    size = place.new_tensor([grid.shape[3], grid.shape[2]])
    return F.grid_sample(grid, 2 * place / size - 1, mode=mode, padding_mode="border", align_corners=False)


@torch.no_grad()
def ways(codec: TinyFlux2Codec, views: Views, own: Tensor, cells: Tensor) -> dict[str, Tensor]:
    """Pictures of the second view by each way, the truth's latents (features) outside the cells."""
    h, w = own.shape[2:]
    memory = LatentMemory.from_view(own[:1], views.depth[:1], views.cameras[:1])
    camera: Cameras = views.cameras[1:]
    hits = lambda k: memory.surfels.render(camera.resize(h * k, w * k))
    place, place2 = hits(1).place, hits(2).place
    first = own[:1]
    padded = F.pad(first, (1, 1, 1, 1), mode="replicate")
    right, down = (
        (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2,
        (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2,
    )
    middle = place.floor() + 0.5
    offset = (place - middle).movedim(-1, 1)
    near = partial(sampled, place=middle, mode="nearest")
    latents = {
        "bicubic": sampled(first, place, "bicubic"),
        "stored gradients": near(first) + near(right) * offset[:, :1] + near(down) * offset[:, 1:],
        "mean of 2 x 2 reads": F.avg_pool2d(sampled(first, place2, "bilinear"), 2),
    }
    shown = lambda z: codec.decode(torch.where(cells, z, own[1:])[:, None])[:, 0]
    pictures = {name: shown(z) for name, z in latents.items()}
    decoder: nn.Sequential = codec.model.decoder
    doublings = [i for i, layer in enumerate(decoder) if isinstance(layer, nn.Upsample)]
    cuts = {"decoder, first layer": 3} | {f"decoder, after doubling {n + 1}": i + 2 for n, i in enumerate(doublings)}
    raw = 3 * (own * SPREAD / 3).tanh()
    for name, cut in cuts.items():
        features = decoder[:cut](raw)
        k = features.shape[-1] // w
        moved = sampled(features[:1], hits(k).place * k, "bilinear")
        mask = cells.repeat_interleave(k, 0).repeat_interleave(k, 1)
        pictures[name] = (decoder[cut:](torch.where(mask, moved, features[1:])) * 2 - 1).clamp(-1, 1)
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=4)
    options = parser.parse_args()
    codec = TinyFlux2Codec(TinyFlux2.from_folder(options.data / WEIGHTS))
    text = []
    for name in SEQUENCES:
        rgbd = Rgbd.open(options.data / name, width=320, step=codec.stride)
        last, rows = len(rgbd.pictures) - 1, []
        for gap in (1, 3):
            for i in np.linspace(0, last - gap, options.pairs).round().astype(int).tolist():
                views = rgbd.views([i, i + gap])
                if (got := read_pair(codec, views, {})) is None:
                    continue
                _, cells, pictures, _ = got
                own = codec.encode(views.colour[:, None])[:, 0]
                inside = cells.repeat_interleave(codec.stride, 0).repeat_interleave(codec.stride, 1)
                pictures |= {name: made[0] for name, made in ways(codec, views, own, cells).items()}
                decibels = lambda x, views=views, inside=inside: float(
                    -10 * ((x - views.colour[1])[:, inside] / 2).square().mean().log10()
                )
                rows.append({name: decibels(picture) for name, picture in pictures.items()})
                print(name, i, i + gap, {key: round(value, 1) for key, value in rows[-1].items()}, flush=True)
        text += [f"\n{name}, {len(rows)} pairs\n", "| way | PSNR, dB | over gather, dB |", "|---|--:|--:|"]
        for way in [key for key in rows[0] if key != WARP] + [WARP]:
            values = np.array([row[way] for row in rows])
            gain = bootstrap(values - np.array([row[GATHER] for row in rows]))
            text.append(
                f"| {way} | {values.mean():.2f} | {gain['mean']:+.2f} ({gain['low']:+.2f}, {gain['high']:+.2f}) |"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "latent_warps.md").write_text("\n".join(text).strip() + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
