"""The memory on a GPU: the nine reads of a chunk, its update, agreement with the CPU, and the bandwidth that is used.

    python benchmarks/gpu/memory.py            # the paper's scale on CUDA, under three minutes
    python benchmarks/gpu/memory.py --small    # toy sizes on the CPU by the specification, to see that it runs

704 x 1280 pixels, stride 16, 48 channels in float16, the nine latent views of a chunk after 8 chunks of 33 frames.
Two memories: what its own rule keeps, and every cell of every view. A read is the whole `LatentMemory.read`, from the
call until the device is idle, and again its kernels alone. Needs torch with Triton, and nothing else of Mirage's
extras. Prints a table in Markdown; exits with 1 if the GPU and the CPU disagree.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch

from mirage.camera.cameras import Cameras
from mirage.kernels import ops
from mirage.kernels.backend import use
from mirage.memory import LatentMemory
from mirage.memory.store import Surfels
from mirage.scenes.halls import hall, walk

STRIDE, CHANNELS, NEW_VIEWS = 16, 48, 8
AIM = 1.0  # milliseconds of the nine reads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --small runs on the CPU")
    device, backend = ("cpu", "reference") if options.small else ("cuda", "gpu")
    height, width, chunks, rounds = (96, 160, 1, 2) if options.small else (704, 1280, options.chunks, options.rounds)
    name = platform.machine() if options.small else torch.cuda.get_device_name()
    print(f"{name}; torch {torch.__version__}; backend {backend} against cpu", flush=True)

    frames = 4 * NEW_VIEWS * (chunks + 1) + 1
    cameras = walk(frames, height, width)[range(0, frames, 4)]
    world = hall(float(cameras.centers[:, 2].max()))
    depth = world.depth(cameras, height, width)
    latents = torch.randn(len(cameras), CHANNELS, height // STRIDE, width // STRIDE, dtype=torch.float16)
    print(f"{height} x {width}, stride {STRIDE}, {CHANNELS} channels in float16, {chunks} chunks", flush=True)

    here = [x.to(device) for x in (latents, depth, cameras)]
    step = lambda views, chunk: [x[1 + chunk * NEW_VIEWS : 1 + (chunk + 1) * NEW_VIEWS] for x in views]
    idle = torch.cuda.synchronize if device == "cuda" else lambda: None
    memories = {}
    with use(backend):
        for title, read in (("by its rule", "gather"), ("every cell", "nearest")):
            memory = LatentMemory.from_view(*(x[:1] for x in here), read=read)
            for chunk in range(chunks):
                memory.update(*step(here, chunk))
            memories[title] = memory
        targets = here[2][chunks * NEW_VIEWS : (chunks + 1) * NEW_VIEWS + 1]
        limit = bandwidth(device, 1 << 22 if options.small else 1 << 28, idle)
        print(f"a large copy: {limit / 1e9:,.0f} GB/s read and written\n", flush=True)
        print("| read of nine views | elements | ms | kernels alone, ms | MB touched | of the bandwidth | < 1 ms |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        agreed = True
        for title, surfels in ((title, memory.surfels) for title, memory in memories.items()):
            for read in ("nearest", "gather"):
                memory = LatentMemory(surfels, STRIDE, read=read)
                whole = milliseconds(lambda m=memory: m.read(targets), rounds, idle)
                kernels = milliseconds(kernels_of(surfels, targets, read), rounds, idle)
                touched = bytes_of(surfels, targets, read)
                share = touched / (kernels / 1e3) / limit
                met = "-" if options.small else "met" if whole < AIM else "**missed**"
                print(
                    f"| {read}, {title} | {len(surfels):,} | {whole:.3f} | {kernels:.3f} | {touched / 1e6:.1f} | "
                    f"{share:.0%} | {met} |",
                    flush=True,
                )
                agreed &= agrees(surfels, targets, read, backend)
        spent = []
        for _ in range(min(5, rounds)):
            fresh = LatentMemory(memories["by its rule"].surfels, STRIDE)
            idle()
            start = time.perf_counter()
            fresh.update(*step(here, chunks))
            idle()
            spent.append(1e3 * (time.perf_counter() - start))
    print(f"\nupdate with {NEW_VIEWS} views, by its rule: {statistics.median(spent):.1f} ms, cold {spent[0]:.1f} ms")
    print(f"the same winners as the CPU, and features to rounding: {'yes' if agreed else 'NO'}")
    return 0 if agreed else 1


def milliseconds(run: Callable[[], object], rounds: int, idle: Callable[[], None]) -> float:
    """Median time of a call, until the device is idle."""
    for _ in range(3):
        run()
    taken = []
    for _ in range(rounds):
        idle()
        start = time.perf_counter()
        run()
        idle()
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken)


def bandwidth(device: str, floats: int, idle: Callable[[], None]) -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.ones(floats, device=device)
    target = torch.empty_like(source)
    return 8 * floats / (milliseconds(lambda: target.copy_(source), 20, idle) / 1e3)


def kernels_of(surfels: Surfels, targets: Cameras, read: str) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """A read without its checks, features and winners: what is left is the kernels, and starting them."""
    rows, columns = surfels.grid
    grid, points = targets.resize(rows, columns), surfels.points

    def gather() -> tuple[torch.Tensor, torch.Tensor]:
        hits = surfels.render(grid)
        return surfels.sample(hits), hits.index

    if read == "gather":
        return gather
    return lambda: ops.splat_nearest(points, surfels.features, grid.intrinsics, grid.cam_from_world, rows, columns)


def bytes_of(surfels: Surfels, targets: Cameras, read: str) -> int:
    """Bytes that a read cannot do without: geometry once, latents of the winners, and the result."""
    rows, columns = surfels.grid
    cells = len(targets) * rows * columns * surfels.features.shape[1] * surfels.features.element_size()
    if read == "nearest":
        return 12 * len(surfels) + 2 * cells
    geometry = sum(surfels.tensors[key].nbytes for key in ("plane", "cell", "source", "reach", "edge"))
    return geometry + 5 * cells


def agrees(surfels: Surfels, targets: Cameras, read: str, backend: str) -> bool:
    """Whether the CPU finds the same elements in the same cells, and their features to rounding."""
    there = Surfels(**{key: tensor.cpu() for key, tensor in surfels.tensors.items()}, grid=surfels.grid)
    found = []
    for elements, cameras, name in ((surfels, targets, backend), (there, targets.to("cpu"), "cpu")):
        with use(name):
            image, index = kernels_of(elements, cameras, read)()
        found.append((image.cpu().float(), index.cpu()))
    (ours, mine), (theirs, its) = found
    return mine.equal(its) and torch.allclose(ours, theirs, rtol=2e-3, atol=2e-3)


if __name__ == "__main__":
    sys.exit(main())
