"""What operations refuse: every argument of every one of them, by its name, before anything is read or written."""

import pytest
import torch

from mirage.kernels import backend, ops

K = torch.tensor([[5.0, 0.0, 2.5], [0.0, 5.0, 3.0], [0.0, 0.0, 1.0]]).repeat(2, 1, 1)
POSE, CELL, SOURCE = torch.eye(4).repeat(2, 1, 1), torch.arange(30).repeat(2).int(), torch.arange(2).int()
PLANE = torch.tensor([[0.5, 0.01, 0.02]]).repeat(60, 1)
POINTS, WHO = torch.tensor([[0.1, 0.2, 2.0]]).repeat(7, 1), torch.zeros(7, dtype=torch.int64)
ELEMENTS = {"plane": PLANE, "cell": CELL, "source": SOURCE.repeat_interleave(30)}
LOOKUP, VIEWS = torch.arange(60).view(2, 6, 5).int(), {"intrinsics": K, "cam_from_world": POSE}
SURFELS = ELEMENTS | {
    "reach": torch.full((60, 4), 64, dtype=torch.int8),
    "rank": torch.zeros(60, dtype=torch.int8),
    "name": torch.arange(2),
    "source_size": (6, 5),
    "source_intrinsics": K,
    "source_cam_from_world": POSE,
}
HITS = {"chosen": torch.arange(-1, 8), "hit": torch.full((9, 2), 0.5)}
GOOD = {
    ops.splat_nearest: {"points": POINTS, "features": POINTS.half(), **VIEWS, "height": 6, "width": 5, "near": 0.1},
    ops.splat_cells: {
        **{"features": torch.ones(60, 3), **ELEMENTS, "source_width": 5, "source_intrinsics": K},
        **{"source_cam_from_world": POSE, **VIEWS, "height": 6, "width": 5, "near": 0.1},
    },
    ops.lift_planes: {"depth": torch.ones(2, 9, 6), "usable": torch.ones(2, 9, 6) > 0, "height": 3, "width": 2},
    ops.splat_surfels: SURFELS | VIEWS | {"height": 9, "width": 7, "near": 0.1, "tolerance": 0.05},
    ops.gather: {"features": torch.ones(60, 3), **ELEMENTS, "lookup": LOOKUP, **HITS, "tolerance": 0.1},
    ops.seen_through: {"points": POINTS, "plane": PLANE, "lookup": LOOKUP, **VIEWS, "tolerance": 0.1},
    ops.surfel_points: ELEMENTS | VIEWS | {"width": 5},
    ops.voxel_overlap: {
        **{"points": POINTS, "view": WHO, "other_points": POINTS, "other_view": WHO},
        **{"views": 1, "other_views": 1, "size": 0.1},
    },
}
FREE = {(ops.seen_through, "points"), (ops.seen_through, "plane"), (ops.gather, "lookup")}
OPERATIONS = pytest.mark.parametrize("operation", GOOD, ids=lambda operation: operation.__name__)


def refused(operation, **wrong) -> str:
    with pytest.raises(ValueError) as caught:
        operation(**GOOD[operation] | wrong)
    return str(caught.value)


@OPERATIONS
def test_what_is_good_is_done(operation):
    operation(**GOOD[operation])
    with backend.use("reference"):
        operation(**GOOD[operation])


@OPERATIONS
def test_every_argument_is_refused_by_name(operation):
    for name, value in GOOD[operation].items():
        if isinstance(value, torch.Tensor):
            wrong = value.to(torch.complex64)
            for bad in (None, value.numpy(), value.tolist(), value[0], value[None], wrong, value.to_sparse()):
                assert refused(operation, **{name: bad}).startswith(f"{name} must be")
            assert f"{name} on meta" in refused(operation, **{name: value.to("meta")})
            if (operation, name) not in FREE:  # another argument is as long
                refused(operation, **{name: torch.cat([value, value])})
            if value.ndim > 1 and name not in ("features", "lookup"):
                refused(operation, **{name: torch.cat([value, value], -1)})
        else:
            for bad in (None, "x", torch.ones(2), float("nan"), True):
                assert refused(operation, **{name: bad}).startswith(f"{name} must be")


@OPERATIONS
def test_cameras_are_finite_and_not_singular(operation):
    for name in GOOD[operation].keys() & {"intrinsics", "cam_from_world", "source_intrinsics", "source_cam_from_world"}:
        for bad in (torch.nan, torch.inf):
            poisoned = GOOD[operation][name].clone()
            poisoned[1, 0, 2] = bad
            assert refused(operation, **{name: poisoned}).startswith(f"{name} must be finite")
        if "intrinsics" in name:
            assert "singular" in refused(operation, **{name: torch.zeros_like(K)})


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1.0, 0.0])
def test_depth_counts_only_where_usable(bad):
    depth, usable = torch.ones(2, 9, 6), torch.ones(2, 9, 6) > 0
    expected = ops.lift_planes(depth, usable.index_fill(2, torch.tensor(1), False), 3, 2)
    depth[:, :, 1] = bad
    assert refused(ops.lift_planes, depth=depth).startswith("depth must be positive and finite where usable, got")
    found = ops.lift_planes(depth, usable.index_fill(2, torch.tensor(1), False), 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@OPERATIONS
def test_indices_outside_are_refused(operation):
    for name in GOOD[operation].keys() & {"source", "lookup", "chosen", "view", "other_view", "rank"}:
        for bad in (2**20, -2):
            wrong = GOOD[operation][name].long().clone()
            wrong.view(-1)[-1] = bad
            assert f"got {bad if bad < 0 else int(wrong.min())} to" in refused(operation, **{name: wrong})


@pytest.mark.parametrize("name", ["points", "other_points"])
def test_no_voxel_holds_what_is_nowhere(name):
    assert refused(ops.voxel_overlap, **{name: POINTS * torch.nan}).startswith(f"{name} must be finite")
