"""The Triton kernels: equal to the specification bit for bit, without ever waiting for the host.

Where there is a GPU they run on it, elsewhere in Triton's interpreter, and are compiled for a GPU that is not there.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mirage.camera.cameras import Cameras
from mirage.kernels import backend, ops, reference
from mirage.memory import LatentMemory

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OLDEST = "3.4" if DEVICE == "cuda" else "3.7"  # before, the interpreter fails with a numpy of today
pytest.importorskip("triton", OLDEST, reason=f"the kernels for GPUs need triton>={OLDEST}: pip install it (Linux only)")
KERNELS = Path(reference.__file__).parent
ONE = (torch.eye(3)[None], torch.eye(4)[None])
# numpy, which the interpreter calculates with, warns where lanes that do not count divide by zero
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def on(device: str, values):
    """Tensors on a device, also those in tuples."""
    if isinstance(values, tuple):
        return tuple(on(device, value) for value in values)
    return values.to(device) if isinstance(values, torch.Tensor) else values


def check(operation, *args, close=None, **options):
    """The operation's result on the GPU, after a look whether it is the specification's."""
    with backend.use("reference"):
        expected = operation(*args, **options)
    with backend.use("gpu"):
        found = on("cpu", operation(*on(DEVICE, args), **options))
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs) if close is None else torch.allclose(mine, theirs, rtol=close, atol=0)
    return found


def around(generator: torch.Generator, views: int, scale: float = 0.3) -> torch.Tensor:
    """Poses near the origin."""
    poses = torch.eye(4).repeat(views, 1, 1)
    twist = 0.15 * torch.randn(views, 3, 3, generator=generator)
    poses[:, :3, :3] = torch.linalg.matrix_exp(twist - twist.mT)
    poses[:, :3, 3] = scale * torch.randn(views, 3, generator=generator)
    return poses


def cameras(focal: float, x: float, y: float, views: int) -> torch.Tensor:
    return torch.tensor([[focal, 0.0, x], [0.0, focal + 1, y], [0.0, 0.0, 1.0]]).repeat(views, 1, 1)


def cloud(generator: torch.Generator, count: int = 301) -> torch.Tensor:
    return torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0.0, 2.0])


def patches(generator: torch.Generator, count: int = 75, sources: int = 3):
    """Random patches of planes in source views of 6 x 5 cells, as a memory stores them, and the cells they are in."""
    uniform = lambda *shape: torch.rand(*shape, generator=generator)
    plane = torch.cat([0.2 + 0.3 * uniform(count, 1), 0.08 * (uniform(count, 2) - 0.5)], 1)
    place = torch.randperm(30 * sources, generator=generator)[:count]
    source, cell = place // 30, place % 30
    reach = torch.randint(6, 110, (count, 4), generator=generator).to(torch.int8)
    rank = torch.randint(0, 4, (count,), generator=generator).to(torch.int16)
    lookup = torch.full((sources * 30,), -1, dtype=torch.int32)
    lookup[place] = torch.arange(count, dtype=torch.int32)
    name = torch.randperm(sources, generator=generator)
    views = (name, (6, 5), cameras(5.0, 2.6, 3.1, sources), around(generator, sources))
    return (plane, cell.int(), reach, rank, source.int()), views, lookup.view(sources, 6, 5)


@pytest.mark.parametrize("count, views, height, width", [(301, 3, 7, 11), (1, 1, 1, 1), (0, 2, 3, 2), (40, 1, 1, 5)])
def test_nearest(generator, count, views, height, width):
    features = torch.randn(count, 3, generator=generator)
    args = (cloud(generator, count), features, cameras(5.0, width / 2, height / 2, views), around(generator, views))
    index = check(ops.splat_nearest, *args, height, width)[1]
    assert count < 40 or (index >= 0).any()


def test_nearest_of_points_behind_and_of_equal_depth():
    points = torch.tensor([[0.0, 0.0, -2.0], [0.2, 0.1, 1.5], [0.3, 0.2, 1.5], [torch.inf, 0.0, 1.0]])
    index = check(ops.splat_nearest, points, torch.ones(4, 1), *ONE, 1, 1)[1]
    assert index.item() == 1
    assert check(ops.splat_nearest, points[:1], torch.ones(1, 1), *ONE, 1, 1)[1].item() == -1


@pytest.mark.parametrize("height, width, focal", [(9, 14, 9.0), (5, 3, 3.0)])
def test_nearest_cells(generator, height, width, focal):
    (plane, cell, _, _, source), views, _ = patches(generator)
    features, target = (
        torch.randn(75, 3, generator=generator),
        (cameras(9.0, width / 2, height / 2, 2), around(generator, 2)),
    )
    _, index, depth = check(ops.splat_cells, features, plane, cell, source, 5, *views[2:], *target, height, width)
    assert (index >= 0).any() and ((depth > 0) == (index >= 0)).all()


@pytest.mark.parametrize("height, width, focal", [(9, 14, 11.0), (1, 1, 2.0), (13, 3, 40.0)])
def test_surfels(generator, height, width, focal):
    elements, views, _ = patches(generator)
    target = (cameras(focal, width / 2, height / 2, 2), around(generator, 2))
    index = check(ops.splat_surfels, *elements, *views, *target, height, width)[0]
    assert len(index.unique()) > min(height * width, 5)


def test_surfels_of_any_order_and_far_from_the_origin(generator):
    elements, (name, size, k, poses), _ = patches(generator)
    poses, targets = poses.clone(), around(generator, 3)
    for pose in (*poses, *targets):
        pose[:3, 3] -= pose[:3, :3] @ torch.tensor([3e4, -2e4, 1e4])
    args = (name, size, k, poses, cameras(11.0, 7.2, 4.4, 3), targets, 9, 14)
    order = torch.randperm(len(elements[0]), generator=generator)
    index, *rest = check(ops.splat_surfels, *elements, *args)
    shuffled, *same = check(ops.splat_surfels, *(x[order] for x in elements), *args)
    assert torch.equal(torch.where(shuffled >= 0, order[shuffled.clamp(min=0)], -1), index)
    assert all(torch.equal(a, b) for a, b in zip(rest, same, strict=True))


def test_no_surfels_surfels_behind_and_one_that_fills_the_picture(generator):
    elements, views, _ = patches(generator, 7)
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))[None]
    for those, pose in ((0, ONE[1]), (7, turned)):
        index = check(ops.splat_surfels, *(x[:those] for x in elements), *views, cameras(4.0, 2.0, 1.0, 1), pose, 2, 5)
        assert (index[0] == -1).all()
    plane, reach = torch.tensor([[0.5, 0.01, -0.02]]), torch.full((1, 4), 100, dtype=torch.int8)
    zero = torch.zeros(1, dtype=torch.int64)
    wall = (plane, zero, reach, zero, zero, zero, (1, 1), cameras(1.0, 0.5, 0.5, 1), torch.eye(4)[None])
    index = check(ops.splat_surfels, *wall, cameras(20.0, 6.5, 5.5, 1), torch.eye(4)[None], 11, 13)[0]
    assert (index == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 21, 70])
def test_gather(generator, dtype, channels):
    (plane, cell, reach, rank, source), views, lookup = patches(generator)
    target = (cameras(11.0, 7.2, 4.4, 2), around(generator, 2))
    with backend.use("reference"):
        index, _, hit, _ = ops.splat_surfels(plane, cell, reach, rank, source, *views, *target, 9, 14)
    assert (index < 0).any() and (index >= 0).sum() > 50
    features = torch.randn(len(plane), channels, generator=generator).to(dtype)
    cut = dtype == torch.bfloat16 and DEVICE == "cpu"  # the interpreter cuts bfloat16 off where GPUs round it
    args = (features, plane, cell, source, lookup, index.flatten(), hit.flatten(0, 2))
    check(ops.gather, *args, close=2**-7 if cut else None)


def test_gather_of_no_hits_and_without_elements(generator):
    (plane, cell, _, _, source), _, lookup = patches(generator, 9, 1)
    features, chosen, hit = torch.ones(9, 2), torch.full((4,), -1), torch.zeros(4, 2)
    for elements, hits in ((9, 4), (9, 0), (0, 4)):
        some = (x[:elements] for x in (features, plane, cell, source))
        known = lookup if elements else torch.full_like(lookup, -1)
        assert (check(ops.gather, *some, known, chosen[:hits], hit[:hits]) == 0).all()


def rooms(generator: torch.Generator, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two depth maps of a slanted wall with objects in front, and holes."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    depth = (1 / (0.3 + 0.1 * x / width - 0.1 * y / height)).repeat(2, 1, 1)
    depth[0, height // 5 : height // 2, width // 4 : 2 * width // 3] = 1.3
    depth[1, (x + 2 * y) > width] = 0.9
    depth[1, (3 * x + y) > 1.6 * width] = 0.5
    usable = torch.rand(depth.shape, generator=generator) > 0.2
    usable[0, : height // 3, : width // 3] = False
    return depth, usable


@pytest.mark.parametrize("height, width, rows, cols", [(3, 4, 5, 4), (2, 3, 8, 8), (5, 3, 2, 2), (2, 3, 3, 5)])
def test_lift(generator, height, width, rows, cols):
    depth, usable = rooms(generator, height * rows, width * cols)
    edge = check(ops.lift_planes, depth, usable, height, width)[2]
    assert edge.any() and not edge.all()


def test_lift_of_nothing_and_of_one_cell(generator):
    depth, usable = rooms(generator, 6, 9)
    count = check(ops.lift_planes, depth, usable & False, 2, 3)[1]
    assert (count == 0).all()
    check(ops.lift_planes, depth, usable, 1, 1)
    check(ops.lift_planes, depth[:0], usable[:0], 2, 3)


@pytest.mark.parametrize("strict", [False, True])
def test_seen_through(generator, strict):
    (plane, *_), (_, _, k, poses), lookup = patches(generator, 90)
    count = check(ops.seen_through, cloud(generator), plane, lookup, k, poses, strict=strict)
    assert 0 < (count > 0).float().mean() < 1
    check(ops.seen_through, cloud(generator, 0), plane, lookup, k, poses, strict=strict)
    check(ops.seen_through, cloud(generator, 3), plane[:0], lookup * 0 - 1, k, poses, strict=strict)


@pytest.mark.parametrize("views, others", [(2, 3), (3, 40), (1, 1)])
def test_voxel_overlap(generator, views, others):
    points, more = cloud(generator, 200), cloud(generator, 331)
    more[:20] *= 1e30  # beyond any whole number
    view, other = (
        torch.randint(0, views, (200,), generator=generator),
        torch.randint(0, others, (331,), generator=generator),
    )
    assert check(ops.voxel_overlap, points, view, more, other, views, others, size=0.7).max() > 0
    check(ops.voxel_overlap, points, view, more[:0], other[:0], views, others)
    check(ops.voxel_overlap, points[:0], view[:0], more[:0], other[:0], views, others)


def test_a_memory_is_the_same_on_any_backend(generator):
    k, height, width = cameras(20.0, 12.1, 8.2, 1), 16, 24
    latents = torch.randn(3, 5, 4, 6, generator=generator)
    depth = (2 + torch.rand(3, 4, 6, generator=generator)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    poses = around(generator, 3, 0.1)
    start, *more = (Cameras(k.repeat(n, 1, 1), poses[3 - n :], height, width) for n in (1, 2, 3))
    results = []
    for name, device in (("reference", "cpu"), ("gpu", DEVICE)):
        with backend.use(name):
            memory = LatentMemory.from_view(latents[:1].half().to(device), depth[:1].to(device), start.to(device))
            memory.update(latents[1:].half().to(device), depth[1:].to(device), more[0].to(device))
            results.append((len(memory), memory.read(more[1].to(device))))
    (count, expected), (same, found) = results
    assert count == same >= 24 and expected.visible.float().mean() > 0.3
    for field in ("features", "visible", "depth", "observed"):
        assert torch.equal(getattr(found, field).cpu(), getattr(expected, field))


@pytest.mark.skipif(DEVICE == "cpu", reason="whether a GPU waits for the host can only be told on one")
def test_no_host_sync(generator):
    elements, views, lookup = patches(generator)
    depth, usable = rooms(generator, 16, 24)
    target, points = (cameras(11.0, 7.2, 4.4, 2), around(generator, 2)), cloud(generator)
    plane, cell, _, _, source = elements
    chosen, hit, who = torch.arange(75), torch.rand(75, 2) + 1, torch.zeros(301, dtype=torch.int64)
    calls = [
        (ops.splat_nearest, (points, points, *target, 9, 14), {}),
        (ops.splat_cells, (points[:75], plane, cell, source, 5, *views[2:], *target, 9, 14), {}),
        (ops.splat_surfels, (*elements, *views, *target, 9, 14), {}),
        (ops.gather, (torch.ones(75, 8).half(), plane, cell, source, lookup, chosen, hit), {}),
        (ops.lift_planes, (depth, usable, 2, 3), {}),
        (ops.lift_planes, (depth, usable, 8, 12), {}),
        (ops.seen_through, (points, plane, lookup, *views[2:]), {"strict": True}),
        (ops.voxel_overlap, (points, who, points, who, 1, 1), {}),
    ]
    calls = [(operation, on(DEVICE, args), options) for operation, args, options in calls]
    with backend.use("gpu"):
        for attempt in ("compile", "error"):
            torch.cuda.set_sync_debug_mode("default" if attempt == "compile" else "error")
            try:
                for operation, args, options in calls:
                    operation(*args, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")


WAITS = {"item", "tolist", "nonzero", "cpu", "numpy", "any", "all", "unique", "masked_select", "synchronize"}


def waits(tree: ast.AST) -> list[str]:
    """Calls that bring a value of a tensor to the host."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    names = [n.func.attr for n in calls if isinstance(n.func, ast.Attribute) and n.func.attr in WAITS]
    casts = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id in ("bool", "int", "float")]
    return names + [ast.unparse(n) for n in casts if not all(isinstance(a, ast.Constant) for a in n.args)]


def test_no_call_brings_a_value_to_the_host():
    shared = {"joined_reach", "nearest_of_keys"}  # what is taken from the reference
    body = ast.parse((KERNELS / "reference.py").read_text()).body
    body = [n for n in body if isinstance(n, ast.FunctionDef) and n.name in shared]
    assert len(body) == len(shared)
    trees = [ast.parse((KERNELS / f"{name}.py").read_text()) for name in ("gpu", "gpu_lift", "launch")]
    assert [waits(tree) for tree in (*body, *trees)] == [[]] * (len(body) + len(trees))
    assert waits(ast.parse("x[x.nonzero()], int(x.sum()), x.any()")) == ["any", "nonzero", "int(x.sum())"]


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, sys.argv[1])
import test_gpu
import torch
from mirage.kernels import gpu, gpu_lift

KINDS = {torch.float32: "fp32", torch.float16: "fp16", torch.int64: "i64", torch.int32: "i32", torch.int16: "i16"}
KINDS |= {torch.int8: "i8", torch.bool: "i1"}
calls = {}


def record(kernel, grid, *args, **constants):
    named = dict(zip(kernel.arg_names, args))
    fixed = [name for name, a in named.items() if isinstance(a, int) and a == 1]  # compiled in, as on a launch
    constants |= dict.fromkeys(set(fixed) - set(kernel.do_not_specialize), 1)
    kind = lambda a: "*" + KINDS[a.dtype] if isinstance(a, torch.Tensor) else "fp32" if isinstance(a, float) else "i32"
    signature = {name: kind(a) for name, a in named.items()} | dict.fromkeys(constants, "constexpr")
    calls[kernel.__name__] = ASTSource(fn=kernel, signature=signature, constexprs=constants)


zero = torch.zeros(1, 3)
try:
    gpu.nearest_points(zero, *test_gpu.ONE, 1, 1, 1e-3)
except ValueError as error:
    print(error)
gpu.launch = gpu_lift.launch = record
generator = torch.Generator().manual_seed(0)
elements, views, lookup = test_gpu.patches(generator)
target, points = (test_gpu.cameras(11.0, 7.2, 4.4, 2), test_gpu.around(generator, 2)), test_gpu.cloud(generator)
plane, cell, _, _, source = elements
who = torch.zeros(len(points), dtype=torch.int64)
gpu.nearest_points(points, *target, 9, 14, 1e-3)
gpu.surfel_hits(*elements, *views, *target, 9, 14, 1e-3, 0.05)
gpu.gather_rows(torch.ones(75, 48).half(), plane, cell, source, lookup, who, torch.rand(len(points), 2), 0.1)
gpu.cell_planes(*test_gpu.rooms(generator, 32, 48), 2, 3, 0.05)
gpu.seen_through(points, plane, lookup, *views[2:], 0.1, True)
gpu.voxel_overlap(points, who, points, who, 1, 1, 0.1)
for name, kernel in calls.items():
    made = triton.compile(kernel, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    code = made.asm["ptx"]
    bad = [word for word in ("fma", "div.full", "div.approx", ".local") if word in code]
    print(name, len(made.asm["cubin"]) > 0, bad)
"""


def test_all_kernels_compile_for_a_gpu_and_round_every_number_once():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    kernels = ["_nearest", "_table", "_surfels", "_gather", "_fit", "_cut", "_seen_through", "_occupy"]
    refusal, *made = done.stdout.splitlines()
    assert refusal.startswith("tensors must be on a GPU for the gpu kernels, got cpu")
    assert sorted(made) == sorted(f"{name} True []" for name in kernels)
