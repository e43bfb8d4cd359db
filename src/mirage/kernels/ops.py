"""Public tensor operations of the memory: they document, check and dispatch; the arithmetic lives in the backends.

All of them refuse what does not fit their signature, see `checked`. Values of tensors on a GPU are not looked at.
"""

import torch
from jaxtyping import Bool, Float, Float32, Int, Int8, Int64
from torch import Tensor

from mirage.kernels import backend, reference
from mirage.kernels.checks import checked


@checked()
def splat_nearest(
    points: Float32[Tensor, "n 3"],
    features: Float[Tensor, "n c"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    *,
    near: float = 1e-3,
) -> tuple[Float[Tensor, "v c {height} {width}"], Int64[Tensor, "v {height} {width}"]]:
    r"""Give each cell of each view the feature of the nearest point that falls into it.

    This is the paper's read: the points are lifted latent tokens and the cells are the latent
    tokens of a new view. Cells that no point reaches stay zero.

    Equation:
        .. math::
            z_n [u_n, v_n, 1]^\top = K (R x_n + t), \qquad
            i(p) = \arg\min_{n:\, \lfloor (u_n, v_n) \rfloor = p,\; z_n > near} (z_n, n)

        Eq. 5, 9 and 10 of "Latent Spatial Memory" (arXiv:2606.09828). Departs from the paper's
        code in two ways: cell centres are at +0.5, and equal depths are won by the lower
        index, so the result does not depend on the device or the number of threads.

    Convention:
        World and camera axes are OpenCV (+x right, +y down, +z forward); depth is z. Cell (row r,
        column c) covers [c, c+1) x [r, r+1): its centre is (c + 0.5, r + 0.5).

    Args:
        points: World positions, in world units.
        features: One feature per point; any float dtype, returned unchanged.
        intrinsics: Pinhole matrices for a `height` x `width` grid, in cells. Zero skew.
        cam_from_world: Rigid transforms from world to camera, in world units.
        height: Rows of the output grid, in cells.
        width: Columns of the output grid, in cells.
        near: Least depth that is drawn, in world units; points at or behind it are skipped.

    Returns:
        The rendered features, dtype of `features`, zero where nothing was drawn; and the
        index of the point that each cell shows, -1 where nothing was drawn.

    Raises:
        ValueError: If `near`, `height` or `width` is not positive.

    Gradient:
        Flows to `features` only. The choice of the nearest point is not differentiable.

    Cost:
        O(v * n) time; runs of points outside a picture are passed over in one go. No sort, no host sync.

    Example:
        Two points on the axis of a 2 x 3 view: the near one (feature 7) hides the far one.

        >>> points = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
        >>> features = torch.tensor([[5.0], [7.0]])
        >>> K = torch.tensor([[[2.0, 0.0, 1.5], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]])
        >>> image, index = splat_nearest(points, features, K, torch.eye(4)[None], 2, 3)
        >>> image[0, 0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 7.0, 0.0]]
        >>> index[0].tolist()
        [[-1, -1, -1], [-1, 1, -1]]
    """
    if min(near, height, width) <= 0:
        raise ValueError(f"near, height and width must be positive, got {near=}, {height=}, {width=}")
    if len(points):
        found = backend.of(points).nearest_points(points, intrinsics, cam_from_world, height, width, near)
        index = found[0].unflatten(1, (height, width))
    else:
        index = torch.full((len(intrinsics), height, width), -1, device=points.device)
    return _image(features, index), index


def _image(features: Float[Tensor, "n c"], index: Int64[Tensor, "v h w"]) -> Float[Tensor, "v c h w"]:
    """The features that the cells of some views show."""
    if not len(features):
        return features.new_zeros(len(index), features.shape[1], *index.shape[1:])
    learns = features.requires_grad and torch.is_grad_enabled()
    shown = (reference if learns else backend.of(features)).rows(features, index.flatten())
    return shown.unflatten(0, index.shape).movedim(3, 1)


@checked(source=lambda given: (0, len(given["source_intrinsics"])))
def splat_cells(
    features: Float[Tensor, "n c"],
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    source_width: int,
    source_intrinsics: Float32[Tensor, "s 3 3"],
    source_cam_from_world: Float32[Tensor, "s 4 4"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    *,
    near: float = 1e-3,
) -> tuple[
    Float[Tensor, "v c {height} {width}"],
    Int64[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width}"],
]:
    r"""Give each cell of each view the feature of the nearest centre of a source cell that falls into it.

    The paper's read of cells that are kept as what they are in their source views: nothing is lifted that no view
    can see.

    Equation:
        `splat_nearest` of `surfel_points`, to the bit.

    Convention:
        Cell centres at +0.5 in both grids; see `splat_nearest`. Depth is z.

    Args:
        features: One feature per element; any float dtype, returned unchanged.
        plane: Inverse depth at the centre and its slopes, per element; from `lift_planes`.
        cell: Number of the cell in its source grid, row by row.
        source: Source view of each element.
        source_width: Columns of the source grid.
        source_intrinsics: Pinhole matrices of the source views, in their cells. Zero skew.
        source_cam_from_world: Rigid transforms of the source views, in world units.
        intrinsics: Pinhole matrices for a `height` x `width` grid, in cells. Zero skew.
        cam_from_world: Rigid transforms from world to camera, in world units.
        height: Rows of the target grid, in cells.
        width: Columns of the target grid, in cells.
        near: Least depth that is drawn, in world units.

    Returns:
        The rendered features and the element that each cell shows, see `splat_nearest`; and the depth of its centre,
        0 where nothing was drawn.

    Raises:
        ValueError: If `near`, `height`, `width` or `source_width` is not positive.

    Gradient:
        Flows to `features` only.

    Cost:
        O(v * n) time, O(n) memory; runs of elements of one source outside a picture are passed over in one go. No host
        sync.

    Example:
        Two cells of one view at depths 1 and 2, seen from their own place in the other order.

        >>> plane = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
        >>> K, pose, swap = torch.eye(3)[None], torch.eye(4)[None], torch.tensor([1, 0])
        >>> K[:, 0, 2] = 1.0
        >>> features, source = torch.tensor([[5.0], [7.0]]), torch.zeros(2, dtype=torch.int64)
        >>> image, index, depth = splat_cells(features, plane, swap, source, 2, K, pose, K, pose, 1, 2)
        >>> image.flatten().tolist(), index.flatten().tolist(), depth.flatten().tolist()
        ([7.0, 5.0], [1, 0], [2.0, 1.0])
    """
    if min(near, height, width, source_width) <= 0:
        raise ValueError(
            f"near, height, width and source_width must be positive, got {near=}, {height=}, {width=}, {source_width=}"
        )
    if len(plane):
        unproject, target = _unprojection(source_intrinsics, source_cam_from_world), (intrinsics, cam_from_world)
        found = backend.of(plane).nearest_cells(
            plane, cell, source, source_width, *unproject, *target, height, width, near
        )
        index, depth = (value.unflatten(1, (height, width)) for value in found)
    else:
        index = torch.full((len(intrinsics), height, width), -1, device=plane.device)
        depth = plane.new_zeros(index.shape)
    return _image(features, index), index, depth


def _unprojection(
    intrinsics: Float32[Tensor, "s 3 3"], cam_from_world: Float32[Tensor, "s 4 4"]
) -> tuple[Float32[Tensor, "s 3 3"], Float32[Tensor, "s 3"]]:
    """What a ray's [u, v, 1] is multiplied with, and where the rays begin: R^T K^-1 and -R^T t, rounded once."""
    turn, shift = cam_from_world[:, :3, :3].double().mT, cam_from_world[:, :3, 3:].double()
    return (turn @ reference._inverse(intrinsics.double())).float(), -(turn @ shift)[..., 0].float()


@checked()
def lift_planes(
    depth: Float32[Tensor, "v H W"],
    usable: Bool[Tensor, "v H W"],
    height: int,
    width: int,
    *,
    tolerance: float = 0.05,
) -> tuple[
    Float32[Tensor, "v {height} {width} 3"],
    Int64[Tensor, "v {height} {width}"],
    Bool[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width} 4"],
]:
    r"""Give each latent cell one plane: the largest surface among the usable pixels inside it.

    The first half of the lift (Eq. 4). Depths of different surfaces are never blended: a cell
    that straddles a depth edge is cut at the widest gaps and keeps its largest part, marked as edge; the
    smaller part is left to the neighbour whose surface it is.

    Equation:
        .. math:: 1 / z(u, v) = a_0 + a_1 (u - u_i) + a_2 (v - v_i)

        Inverse depth is linear over the image of a plane, so :math:`a` is a least-squares fit over the
        pixels of the cell. With fewer than nine pixels per cell, :math:`a_0` is the median and the slopes come
        from the neighbouring cell that differs least. The paper pools depth bilinearly, which invents points
        between surfaces and between a surface and unknown depth.

    Convention:
        Offsets are in cells from the cell's centre, x right, y down. Depth is z; only `usable` pixels are looked at.

    Args:
        depth: Depth maps, in world units.
        usable: Pixels whose depth is known and may be remembered.
        height: Rows of the cell grid; divides the rows of `depth`.
        width: Columns of the cell grid; divides the columns of `depth`.
        tolerance: Relative depth step above which two pixels are on different surfaces.

    Returns:
        The planes (:math:`a_0, a_1, a_2`), zero where no pixel is usable; the number of usable pixels per cell;
        the cells that straddle a depth edge; and how far the surface goes to the left, right, top and bottom of the
        cell's centre, in cells: half a cell, less beside an edge, more where it goes on into the next cell.

    Raises:
        ValueError: If `height` or `width` does not divide the size of `depth`.

    Gradient:
        None.

    Cost:
        O(v * H * W) time; the pixels of edge cells are sorted. One host sync.

    Example:
        A wall at 2, a far wall at 8 in the right column of the right cell, and a hole in the left one.

        >>> depth = torch.full((1, 3, 6), 2.0)
        >>> depth[:, :, 5] = 8.0
        >>> depth[:, 0, 0] = 0.0
        >>> plane, count, edge, reach = lift_planes(depth, depth > 0, 1, 2)
        >>> (1 / plane[0, 0, :, 0]).tolist(), count[0, 0].tolist(), edge[0, 0].tolist()
        ([2.0, 2.0], [8, 9], [False, True])
        >>> [round(x, 2) for x in reach[0, 0, 0].tolist()]
        [0.5, 0.85, 0.5, 0.5]
    """
    if height < 1 or width < 1 or depth.shape[1] % height or depth.shape[2] % width:
        raise ValueError(
            f"depth must be a whole multiple of the {height} x {width} cell grid, got {depth.shape[1]} x "
            f"{depth.shape[2]}: resize it (nearest) or crop it first"
        )
    if depth.device.type == "cpu" and depth.numel() and not 0 < depth.min() <= depth.max() < torch.inf:
        wrong = usable & ~((depth > 0) & (depth < torch.inf))
        if bool(wrong.any()):
            raise ValueError(f"depth must be positive and finite where usable, got {float(depth[wrong][0])}")
    return backend.of(depth).cell_planes(depth, usable, height, width, tolerance)


@checked(
    cell=lambda given: (0, given["source_size"][0] * given["source_size"][1]),
    rank=lambda given: (0, 4096),
    source=lambda given: (0, len(given["name"])),
    name=lambda given: (0, 2**44 // (given["source_size"][0] * given["source_size"][1])),
)
def splat_surfels(
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    reach: Int8[Tensor, "n 4"],
    rank: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    name: Int64[Tensor, " s"],
    source_size: tuple[int, int],
    source_intrinsics: Float32[Tensor, "s 3 3"],
    source_cam_from_world: Float32[Tensor, "s 4 4"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    height: int,
    width: int,
    *,
    near: float = 1e-3,
    tolerance: float = 0.05,
) -> tuple[
    Int64[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width}"],
    Float32[Tensor, "v {height} {width} 2"],
    Float32[Tensor, "v {height} {width}"],
]:
    r"""Find for each cell of each view the front surface and the best element that saw it.

    The *forward depth* half of the default read. Each element is a patch of a plane that a cell of a source
    view covers. The central ray of every target cell in the patch's image is intersected with the plane and
    mapped back into the source grid, so the answer is exact to a fraction of a cell, and a patch fills as
    many cells as it covers. Elements seen from behind are not drawn.

    Equation:
        .. math::
            w(du, dv) = a_0 + a_1 du + a_2 dv, \qquad
            \lambda [x, y, 1]^\top = K_v R_{vs} K_s^{-1} [u_i + du, v_i + dv, 1]^\top + w(du, dv)\, K_v t_{vs}

        is the homography between the target cell centre (x, y) and the source offset (du, dv); the target depth is
        :math:`\lambda / w`. Per cell first :math:`z^* = \min z`, then among all with :math:`z \le z^* (1 + tolerance)`,
        depths to ten bits, the least (rank, fringe, blur, outside, name, cell): fringe tells a hit beyond the last
        centre of the surface, where nothing is left to interpolate with; blur grows when the element's image is larger
        than 1.4 cells or smaller than half a cell; outside tells a hit in the overlap beyond the
        element's own cell. Departs from Eq. 5, in which a point fills one whole cell.

    Convention:
        Cell centres at +0.5 in both grids; see `splat_nearest`. Depth is z.

    Args:
        plane: Inverse depth at the centre and its slopes along x and y, per source cell; from `lift_planes`.
        cell: Cell of the element in its source grid, counted row by row; one element per cell and source at most.
        reach: How far the element goes to the left, right, top and bottom of its centre, in 1/128 of a source cell.
        rank: Class of the element, 0 (best) to 4095.
        source: Source view of each element.
        name: Name of each source view, unique; with the cell it settles all ties. Names times cells are below 2**44.
        source_size: Rows and columns of the source grids.
        source_intrinsics: Pinhole matrices of the source views, in their cells. Zero skew.
        source_cam_from_world: Rigid transforms of the source views, in world units.
        intrinsics: Pinhole matrices for a `height` x `width` grid, in cells. Zero skew.
        cam_from_world: Rigid transforms from world to camera, in world units.
        height: Rows of the target grid, in cells.
        width: Columns of the target grid, in cells.
        near: Least depth that is drawn, in world units.
        tolerance: Relative depth difference within which elements show the same surface.

    Returns:
        The element that each cell shows, -1 where there is none; its depth there, 0 where there is none; the place
        of the hit in the source grid, in cells, to 1/1024; and the size of a source cell in the target, in cells.

    Raises:
        ValueError: If `near`, `height` or `width` is not positive.

    Gradient:
        None: depth and coordinates are constants.

    Cost:
        O(v * n + p) time, p the (element, view, cell) triples in boxes; elements in runs of one source outside the
        picture are passed over in runs. Two minima over 32 and 64-bit keys instead of a sort.

    Example:
        One frontal patch at depth 2, seen from its own place by a grid of twice the resolution: it fills 2 x 2 cells.

        >>> plane, reach = torch.tensor([[0.5, 0.0, 0.0]]), torch.full((1, 4), 64, dtype=torch.int8)
        >>> cell, zero = torch.tensor([1]), torch.zeros(1, dtype=torch.int64)
        >>> K, pose = torch.eye(3)[None], torch.eye(4)[None]
        >>> twice = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]])
        >>> index, depth, hit, size = splat_surfels(
        ...     plane, cell, reach, zero, zero, zero, (1, 2), K, pose, twice, pose, 2, 5)
        >>> depth[0].tolist()
        [[0.0, 0.0, 2.0, 2.0, 0.0], [0.0, 0.0, 2.0, 2.0, 0.0]]
        >>> hit[0, 0, 2].tolist(), size[0, 0, 2].item()
        ([1.25, 0.25], 2.0)
    """
    if min(near, height, width) <= 0:
        raise ValueError(f"near, height and width must be positive, got {near=}, {height=}, {width=}")
    elements = (plane, cell, reach, rank, source, name, source_size, source_intrinsics, source_cam_from_world)
    return backend.of(plane).surfel_hits(*elements, intrinsics, cam_from_world, height, width, near, tolerance)


@checked(
    cell=lambda given: (0, given["lookup"].shape[1] * given["lookup"].shape[2]),
    source=lambda given: (0, len(given["lookup"])),
    lookup=lambda given: (-1, len(given["plane"])),
    chosen=lambda given: (-1, len(given["plane"])),
)
def gather(
    features: Float[Tensor, "n c"],
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    lookup: Int[Tensor, "s h w"],
    chosen: Int64[Tensor, " m"],
    hit: Float32[Tensor, "m 2"],
    *,
    tolerance: float = 0.1,
) -> Float[Tensor, "m c"]:
    r"""Sample the source latents at fractional cells, without looking across depth edges.

    The *backward gather* half of the default read: bilinear among the four source cells around each hit; those that
    do not exist or lie on another surface than the chosen element have no weight, and the others share it. Where
    nothing is chosen the feature is zero.

    Equation:
        .. math:: f(u, v) = \sum_k b_k m_k F_k / \sum_k b_k m_k

        with the bilinear weights :math:`b_k`, and :math:`m_k = 1` if the plane of the neighbour at the hit, or the
        chosen plane at the neighbour's centre, agrees within `tolerance`. At a cell's centre this is its token exactly.

    Convention:
        Cell centres at +0.5: hit (0.5, 0.5) is the centre of the first cell.

    Args:
        features: One feature per element; any float dtype.
        plane: Inverse depth plane per element, see `lift_planes`.
        cell: Cell of the element in its source grid, counted row by row.
        source: Source view of each element.
        lookup: Element of each cell of each source view, -1 where there is none.
        chosen: Element of each hit, -1 for none.
        hit: Place (x, y) of each hit in the source grid, in cells; less than a cell from the chosen element's centre.
        tolerance: Relative difference of inverse depth above which a neighbour is on another surface.

    Returns:
        One feature per hit, dtype of `features`, summed in float32.

    Raises:
        ValueError: If `tolerance` is not positive.

    Gradient:
        Flows to `features`.

    Cost:
        O(m * c) time and memory; no host sync.

    Example:
        Two cells side by side on one wall; a third behind a depth edge has no say.

        >>> plane = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.1, 0.0, 0.0]])
        >>> features, cell = torch.tensor([[0.0], [4.0], [100.0]]), torch.arange(3)
        >>> hits = torch.tensor([[0.5, 0.5], [0.75, 0.5], [1.75, 0.5], [0.0, 0.0]])
        >>> source, chosen = torch.zeros(3, dtype=torch.int64), torch.tensor([0, 0, 1, -1])
        >>> gather(features, plane, cell, source, torch.tensor([[[0, 1, 2]]]), chosen, hits)[:, 0].tolist()
        [0.0, 1.0, 4.0, 0.0]
    """
    if tolerance <= 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    module = reference if features.requires_grad and torch.is_grad_enabled() else backend.of(features)
    return module.gather_rows(features, plane, cell, source, lookup, chosen, hit, tolerance)


@checked(lookup=lambda given: (-1, len(given["plane"])))
def seen_through(
    points: Float32[Tensor, "n 3"],
    plane: Float32[Tensor, "m 3"],
    lookup: Int[Tensor, "v h w"],
    intrinsics: Float32[Tensor, "v 3 3"],
    cam_from_world: Float32[Tensor, "v 4 4"],
    *,
    tolerance: float = 0.1,
    strict: bool = True,
) -> Int64[Tensor, " n"]:
    r"""Count for each point the views that have looked through it: their surface there lies clearly behind it.

    What a view has looked through is free space, so a point there has moved or has a wrong depth. Views that do not
    know what is at the point's image, and those that the point is behind, have no say.

    Equation:
        .. math:: \#\{v : a_{v}(u_{nv})\, z_{nv} (1 + tolerance) < 1\}

        with the inverse depth :math:`a` of the view's surface at the point's image. Strict: at the centres of all four
        cells around the image, so that a depth edge decides nothing. Else: on the plane of the cell that contains it.

    Convention:
        Cell centres at +0.5; depth is z.

    Args:
        points: World points, in world units.
        plane: Inverse depth plane per element, see `lift_planes`.
        lookup: Element of each cell of each view, -1 where nothing is known.
        intrinsics: Pinhole matrices of the views, in their cells. Zero skew.
        cam_from_world: Rigid transforms from world to camera, in world units.
        tolerance: Relative depth difference above which the surface lies clearly behind the point.
        strict: Whether all four cells around must lie behind, or only the one that contains the image.

    Returns:
        The number of views, per point.

    Raises:
        ValueError: If `tolerance` is negative.

    Gradient:
        None.

    Cost:
        O(v * n) time, O(n) memory; no host sync.

    Example:
        A view of two cells: a wall at 4 on the left, nothing known on the right.

        >>> points = torch.tensor([[-0.5, 0.0, 1.0], [-0.5, 0.0, 3.9], [0.5, 0.0, 1.0]])
        >>> K = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]])
        >>> plane, lookup = torch.tensor([[0.25, 0.0, 0.0]]), torch.tensor([[[0, -1]]])
        >>> seen_through(points, plane, lookup, K, torch.eye(4)[None], strict=False).tolist()
        [1, 0, 0]
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    return backend.of(points).seen_through(points, plane, lookup, intrinsics, cam_from_world, tolerance, strict)


@checked(source=lambda given: (0, len(given["intrinsics"])))
def surfel_points(
    plane: Float32[Tensor, "n 3"],
    cell: Int[Tensor, " n"],
    source: Int[Tensor, " n"],
    width: int,
    intrinsics: Float32[Tensor, "s 3 3"],
    cam_from_world: Float32[Tensor, "s 4 4"],
) -> Float32[Tensor, "n 3"]:
    r"""Give the world positions of the centres of cells.

    Equation:
        .. math:: R^\top K^{-1} [u, v, 1]^\top / a_0 - R^\top t

        Eq. 8 of arXiv:2606.09828, with inverse depth :math:`a_0`.

    Convention:
        Cell centres at +0.5; see `splat_nearest`.

    Args:
        plane: Inverse depth at the centre and its slopes, per element; from `lift_planes`.
        cell: Number of the cell in its source grid, row by row.
        source: Source view of each element.
        width: Columns of the source grid.
        intrinsics: Pinhole matrices of the source views, in their cells. Zero skew.
        cam_from_world: Rigid transforms of the source views, in world units.

    Returns:
        World points, in world units.

    Raises:
        ValueError: If `width` is not positive.

    Gradient:
        None.

    Cost:
        O(n) time and memory; no host sync.

    Example:
        The second cell of a row of two, seen at depth 4 by a camera of focal length 2 at the origin.

        >>> K = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]]])
        >>> one, zero = torch.tensor([1]), torch.tensor([0])
        >>> surfel_points(torch.tensor([[0.25, 0.0, 0.0]]), one, zero, 2, K, torch.eye(4)[None]).tolist()
        [[1.0, 0.0, 4.0]]
    """
    if width < 1:
        raise ValueError(f"width must be positive, got {width}")
    return backend.of(plane).surfel_points(plane, cell, source, width, *_unprojection(intrinsics, cam_from_world))


@checked(view=lambda given: (0, given["views"]), other_view=lambda given: (0, given["other_views"]))
def voxel_overlap(
    points: Float32[Tensor, "n 3"],
    view: Int[Tensor, " n"],
    other_points: Float32[Tensor, "m 3"],
    other_view: Int[Tensor, " m"],
    views: int,
    other_views: int,
    *,
    size: float = 0.1,
) -> Float32[Tensor, "{views} {other_views}"]:
    r"""Tell how much of space two sets of views have in common: the overlap of the voxels that their points occupy.

    The paper's rule for the choice of reference frames, for all pairs of views at once.

    Equation:
        .. math:: |V_i \cap W_j| / |V_i \cup W_j|, \qquad V_i = \{\lfloor p / size \rfloor : p \in i\}

        The paper takes 0.1 m and recalls from an overlap of 0.04.

    Convention:
        World points; voxel k of an axis covers [k, k + 1) times `size`.

    Args:
        points: World points of the one set of views, in world units.
        view: View of each of them, from 0.
        other_points: World points of the other set of views, in world units.
        other_view: View of each of them, from 0.
        views: Number of views of the one set.
        other_views: Number of views of the other set.
        size: Side of a voxel, in world units.

    Returns:
        Intersection over union per pair of views, 0 for two views without points.

    Raises:
        ValueError: If `size` is not positive.

    Gradient:
        None.

    Cost:
        O((n + m) log(n + m) + n * other_views) time and memory; host syncs.

    Example:
        The views share one of three voxels.

        >>> one = torch.tensor([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5]])
        >>> other = torch.tensor([[1.2, 0.1, 0.9], [2.0, 0.0, 0.0]])
        >>> zero = torch.zeros(2, dtype=torch.int64)
        >>> round(voxel_overlap(one, zero, other, zero, 1, 1, size=1.0).item(), 3)
        0.333
    """
    if not size > 0:
        raise ValueError(f"size must be positive, got {size}")
    for which, some in (("points", points), ("other_points", other_points)):
        if some.device.type == "cpu" and not bool(some.isfinite().all()):
            raise ValueError(f"{which} must be finite, got NaN or infinity")
    module = backend.of(points)
    return module.voxel_overlap(points, view, other_points, other_view, views, other_views, size)
