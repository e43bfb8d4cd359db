"""Rigid transforms as 4 x 4 matrices: `b_from_a` maps coordinates of a to b, and neighbours must agree."""

import torch
from jaxtyping import Float
from torch import Tensor


def invert(b_from_a: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Give the transform back, `a_from_b`, without a general inverse.

    Args:
        b_from_a: Rigid transforms; the rotation must be orthonormal.

    Returns:
        Their inverses, dtype of the input.

    Example:
        >>> b_from_a = torch.eye(4)
        >>> b_from_a[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
        >>> invert(b_from_a)[:3, 3].tolist()
        [-1.0, -2.0, -3.0]
    """
    rotation = b_from_a[..., :3, :3].mT
    return rigid(rotation, -(rotation @ b_from_a[..., :3, 3:])[..., 0])


def rigid(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Put a rotation and a translation into one matrix.

    Args:
        rotation: Rotation matrices.
        translation: Where the origin goes, in world units.

    Returns:
        `[[rotation, translation], [0, 1]]`, dtype of the rotation.

    Example:
        >>> rigid(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))[0].tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    matrix = rotation.new_zeros(*rotation.shape[:-2], 4, 4)
    matrix[..., :3, :3], matrix[..., :3, 3] = rotation, translation
    matrix[..., 3, 3] = 1.0
    return matrix


def compose(*transforms: Float[Tensor, "*#batch 4 4"]) -> Float[Tensor, "*#batch 4 4"]:
    """Chain transforms as they are written: `compose(c_from_b, b_from_a)` is `c_from_a`.

    Args:
        transforms: At least one rigid transform; batches broadcast.

    Returns:
        The product, with a last row of exactly 0 0 0 1.

    Raises:
        ValueError: If there is nothing to compose.

    Example:
        >>> step = rigid(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
        >>> compose(step, step)[:3, 3].tolist()
        [2.0, 0.0, 0.0]
    """
    if not transforms:
        raise ValueError("compose needs at least one transform, got none")
    product = transforms[0]
    for transform in transforms[1:]:
        rotation = product[..., :3, :3] @ transform[..., :3, :3]
        moved = (product[..., :3, :3] @ transform[..., :3, 3:])[..., 0] + product[..., :3, 3]
        product = rigid(rotation, moved)
    return product


def rebase(cam_from_world: Float[Tensor, "v 4 4"]) -> Float[Tensor, "v 4 4"]:
    """Make the first camera the world: the same motion, seen from where it began.

    Args:
        cam_from_world: Rigid transforms, in world units; at least one.

    Returns:
        `cam_from_world[i] @ world_from_cam[0]`; the first is exactly the identity.

    Example:
        >>> start = rigid(torch.eye(3), torch.tensor([0.0, 0.0, 5.0]))
        >>> rebase(torch.stack([start, start]))[1].equal(torch.eye(4))
        True
    """
    based = compose(cam_from_world, invert(cam_from_world[:1]))
    based[0] = torch.eye(4, dtype=based.dtype, device=based.device)
    return based


def look_at(eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """Aim cameras at points and keep them upright.

    Looking straight up or down leaves "upright" open; the top of the image then points along +z or -z of the world.

    Convention:
        World and camera axes are OpenCV (+x right, +y down, +z forward): up is -y.

    Args:
        eye: Camera centres, in world units.
        target: Points that appear at the principal point, in world units; they must differ from the eye.

    Returns:
        `cam_from_world` of the cameras.

    Example:
        >>> look_at(torch.zeros(3), torch.tensor([2.0, 0.0, 0.0]))[2, :3].tolist()
        [1.0, 0.0, 0.0]
    """
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    down = torch.zeros_like(forward)
    down[..., 1] = 1.0
    side = torch.linalg.cross(down, forward)
    steep = side.norm(dim=-1, keepdim=True) < 1e-6
    side = torch.where(steep, torch.tensor([1.0, 0.0, 0.0], dtype=side.dtype, device=side.device), side)
    right = torch.nn.functional.normalize(side, dim=-1)
    cam_from_world = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)
    return rigid(cam_from_world, -(cam_from_world @ eye[..., None])[..., 0])


def screw(
    move: Float[Tensor, "*#batch 3"], turn: Float[Tensor, "*#batch 3"], amount: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch 4 4"]:
    """Move and turn at once, at constant speed: a straight line, a turn on the spot, or an arc.

    Equation:
        `exp(amount * [[turn]_x, move; 0, 0])`, the exponential map of SE(3).

    Args:
        move: Velocity of the camera in its own axes, in world units.
        turn: Rotation vector in its own axes (right-hand rule about +x, +y, +z), in radians.
        amount: How much of the motion to make; 0 is none, 1 is all.

    Returns:
        `start_from_end`: the pose of the moved camera in the axes of the start.

    Example:
        A quarter of a circle of radius 2 to the right, about the point (0, 0, 2), facing it all the time:

        >>> arc = screw(torch.tensor([torch.pi, 0.0, 0.0]), torch.tensor([0.0, -torch.pi / 2, 0.0]), torch.tensor(1.0))
        >>> [round(value, 3) for value in arc[:3, 3].tolist()]
        [2.0, 0.0, 2.0]
    """
    twist = move.new_zeros(*move.shape[:-1], 4, 4)
    x, y, z = turn.unbind(-1)
    twist[..., 0, 1], twist[..., 0, 2], twist[..., 1, 2] = -z, y, -x
    twist[..., 1, 0], twist[..., 2, 0], twist[..., 2, 1] = z, -y, x
    twist[..., :3, 3] = move
    return torch.linalg.matrix_exp(twist * amount[..., None, None])


def rotation_angle(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """How far rotations turn, between 0 and pi.

    Equation:
        `atan2(|vee(R - R^T)| / 2, (trace R - 1) / 2)`, accurate near 0 where an arc cosine is not.

    Args:
        rotation: Rotation matrices.

    Returns:
        Angles, in radians.

    Example:
        >>> round(rotation_angle(torch.diag(torch.tensor([-1.0, 1.0, -1.0]))).item(), 4)
        3.1416
    """
    odd = rotation - rotation.mT
    sine = torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], -1).norm(dim=-1)
    return torch.atan2(sine, rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Round nearly orthonormal matrices to rotations.

    Args:
        matrix: Matrices near a rotation, such as those read from a file with few digits.

    Returns:
        The closest rotation of each (least squares).

    Example:
        >>> nearest_rotation(torch.eye(3) * 1.01).allclose(torch.eye(3), atol=1e-6)
        True
    """
    u, _, vt = torch.linalg.svd(matrix)
    u = torch.cat([u[..., :2], u[..., 2:] * torch.linalg.det(u @ vt)[..., None, None]], -1)
    return u @ vt


def interpolate(
    first: Float[Tensor, "*batch 4 4"], second: Float[Tensor, "*batch 4 4"], amount: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 4 4"]:
    """Go from one pose to another: the rotation by slerp, the translation along a straight line.

    Give it `world_from_cam`, so that the camera's *centre* goes along the line.

    Args:
        first: Rigid transforms at 0.
        second: Rigid transforms at 1.
        amount: How far to go, 0 to 1.

    Returns:
        The transforms between; the shorter way round.

    Example:
        >>> end = rigid(torch.diag(torch.tensor([-1.0, 1.0, -1.0])), torch.tensor([4.0, 0.0, 0.0]))
        >>> half = interpolate(torch.eye(4), end, torch.tensor(0.5))
        >>> round(rotation_angle(half[:3, :3]).item(), 5), half[0, 3].item()
        (1.5708, 2.0)
    """
    a, b = to_quaternion(first[..., :3, :3]), to_quaternion(second[..., :3, :3])
    b = torch.where((a * b).sum(-1, keepdim=True) < 0, -b, b)
    angle = 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))
    small = angle < 1e-6
    sine = torch.where(small, 1.0, angle.sin())
    before = torch.where(small, 1 - amount, ((1 - amount) * angle).sin() / sine)
    after = torch.where(small, amount, (amount * angle).sin() / sine)
    rotation = from_quaternion(before[..., None] * a + after[..., None] * b)
    return rigid(rotation, torch.lerp(first[..., :3, 3], second[..., :3, 3], amount[..., None]))


def to_quaternion(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Write rotations as unit quaternions, scalar first.

    Each comes from its largest component, so no case divides by little.

    Args:
        rotation: Rotation matrices.

    Returns:
        `(w, x, y, z)`; of the two signs either one.

    Example:
        >>> to_quaternion(torch.diag(torch.tensor([-1.0, 1.0, -1.0]))).abs().tolist()
        [0.0, 0.0, 1.0, 0.0]
    """
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = (row.unbind(-1) for row in rotation.unbind(-2))
    products = torch.stack(  # four times q_i q_j
        [
            *(1 + r00 + r11 + r22, r21 - r12, r02 - r20, r10 - r01),
            *(r21 - r12, 1 + r00 - r11 - r22, r10 + r01, r02 + r20),
            *(r02 - r20, r10 + r01, 1 - r00 + r11 - r22, r21 + r12),
            *(r10 - r01, r02 + r20, r21 + r12, 1 - r00 - r11 + r22),
        ],
        -1,
    ).unflatten(-1, (4, 4))
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = products.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4))[..., 0, :]
    return torch.nn.functional.normalize(row, dim=-1)


def from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Give the rotation matrices of quaternions.

    Args:
        quaternion: `(w, x, y, z)`, scalar first, of any length but 0.

    Returns:
        Rotation matrices.

    Example:
        >>> from_quaternion(torch.tensor([0.0, 0.0, 2.0, 0.0])).diagonal().tolist()
        [-1.0, 1.0, -1.0]
    """
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
