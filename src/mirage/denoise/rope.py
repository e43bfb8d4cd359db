"""Where a token stands: rotary positions that know the three segments [reference | target | preceding]."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

THETA = 10000.0  # base of the rotary frequencies, as in Wan


def segment_rotations(
    frames: int, rows: int, columns: int, *, num_reference: int, head_dim: int, device: torch.device | str = "cpu"
) -> Float32[Tensor, "{frames} {rows*columns} {head_dim//2} 2"]:
    r"""Give each token the rotation that encodes its place in time and on the image.

    Target frames stand at times 0, 1, ... and the preceding frames follow them; reference frames stand
    before them in time and one image height below, so that no token of a reference shares a place with
    a token of the video.

    Equation:
        .. math::
            r_k = e^{i\, x\, \theta^{-2k/d}}, \quad x \in \{t, row, column\}

        with the head split as in Wan: a third of the pairs (rounded down) each for row and column, the rest
        for time. Reference frame j of R has time j - R and rows h..2h-1; the released code of
        "Latent Spatial Memory" (arXiv:2606.09828) does the same.

    Args:
        frames: Number of latent frames, all segments together.
        rows: Rows of tokens (patches), not of latent cells.
        columns: Columns of tokens.
        num_reference: How many of the first frames are reference frames.
        head_dim: Channels of one attention head, even.
        device: Where the result is made.

    Returns:
        Cosine and sine for each frame, token and pair of channels.

    Cost:
        O(frames * rows * columns * head_dim); no host sync.

    Example:
        The first pair of the second target frame turns by one radian, that of a reference by minus one.

        >>> r = segment_rotations(3, 2, 5, num_reference=1, head_dim=12)
        >>> r.shape, torch.atan2(r[:, 0, 0, 1], r[:, 0, 0, 0]).round(decimals=4).tolist()
        (torch.Size([3, 10, 6, 2]), [-1.0, 0.0, 1.0])
    """
    time = torch.arange(-num_reference, frames - num_reference, dtype=torch.float32, device=device)
    row = torch.arange(rows, dtype=torch.float32, device=device) + rows * (time < 0)[:, None]
    column = torch.arange(columns, dtype=torch.float32, device=device)
    space = head_dim // 6  # pairs of channels for rows, and as many for columns
    angles = torch.cat(
        [
            _angles(time, head_dim // 2 - 2 * space)[:, None, None].expand(-1, rows, columns, -1),
            _angles(row, space)[:, :, None].expand(-1, -1, columns, -1),
            _angles(column, space).expand(frames, rows, -1, -1),
        ],
        dim=-1,
    ).flatten(1, 2)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Float[Tensor, "b l heads d"], rotations: Float32[Tensor, "l d//2 2"]) -> Float[Tensor, "b l heads d"]:
    """Turn each pair of channels by the rotation of its token.

    Attention of rotated queries and keys depends on the difference of their positions only.

    Args:
        x: Queries or keys, heads apart.
        rotations: Cosine and sine per token and pair, from `segment_rotations`.

    Returns:
        The rotated tensor in the dtype of `x`; the arithmetic is float32.

    Example:
        A quarter turn sends (1, 0) to (0, 1).

        >>> rotate(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[0.0, 1.0]]])).tolist()
        [[[[0.0, 1.0]]]]
    """
    rotations = rotations[:, None]
    if torch.compiler.is_compiling():  # the compiler fuses real arithmetic; eager kernels are fastest in complex
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = rotations.unbind(-1)
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).type_as(x)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(rotations)).flatten(-2).type_as(x)


def _angles(position: Float[Tensor, "*p"], pairs: int) -> Float[Tensor, "*p {pairs}"]:
    exponent = torch.arange(pairs, dtype=torch.float32, device=position.device) / pairs
    return position[..., None] * THETA**-exponent
