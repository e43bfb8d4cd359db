"""A path seen from above, in letters: enough to notice that left is right or that a unit is wrong."""

import math

import torch

from mirage.camera.cameras import Cameras

HEADINGS = 12  # how many poses show where they look


def draw_map(cameras: Cameras, columns: int = 61, rows: int = 17) -> str:
    """Draw where cameras go and look, from above.

    Convention:
        Up is forward of the world (+z), right is right (+x); height (y) is not shown. A letter is twice as high as
        wide, so angles are true.

    Args:
        cameras: The path; at least one camera.
        columns: Most letters across.
        rows: Most lines.

    Returns:
        Lines of ASCII: S the start, E the end, dots the way, ^ > v < where the camera looks at about a dozen poses,
        and what a letter measures.

    Raises:
        ValueError: If there is no camera, or no room for a map.

    Example:
        >>> from mirage.camera.path import build_path
        >>> print(draw_map(build_path("right 2", 9, Cameras.from_fov(1.0, 4, 6)).cameras, columns=9, rows=3))
        S^.^^^.^E
        seen from above, up is forward; a letter is 0.25 units wide
    """
    if len(cameras) == 0 or columns < 2 or rows < 2:
        raise ValueError(f"a map needs a camera and 2 x 2 letters, got {len(cameras)} and {columns} x {rows}")
    pose = cameras.world_from_cam.detach().cpu().double()
    x, z = pose[:, 0, 3], pose[:, 2, 3]
    unit = max((x.max() - x.min()).item() / (columns - 1), (z.max() - z.min()).item() / (2 * (rows - 1)))
    unit = unit if unit > 1e-9 * (1 + pose[:, :3, 3].abs().max().item()) else math.inf
    place = torch.stack([(z.max() - z) / (2 * unit), (x - x.min()) / unit], -1)
    steps = torch.linspace(0, 1, 1 + columns, dtype=torch.float64)[:, None, None]
    way = torch.lerp(place[:-1], place[1:], steps).reshape(-1, 2)  # dots between poses that are far apart
    down, across = place.round().long().unbind(-1)
    canvas = [[" "] * (1 + across.max().item()) for _ in range(1 + down.max().item())]
    for row, column in way.round().long().unique(dim=0).tolist():
        canvas[row][column] = "."
    last = len(cameras) - 1
    for n in sorted({round(last * i / HEADINGS) for i in range(HEADINGS + 1)} - {0, last}):
        if canvas[down[n]][across[n]] == ".":
            ahead = math.atan2(pose[n, 0, 2].item(), pose[n, 2, 2].item())
            canvas[down[n]][across[n]] = "^>v<"[round(ahead / (math.pi / 2)) % 4]
    canvas[down[last]][across[last]] = "E"
    canvas[down[0]][across[0]] = "S"
    scale = "the camera stays in its place" if unit == math.inf else f"a letter is {unit:.3g} units wide"
    lines = ["".join(row).rstrip() for row in canvas]
    return "\n".join([*lines, f"seen from above, up is forward; {scale}"])
