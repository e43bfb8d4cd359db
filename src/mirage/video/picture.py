"""Pictures for people: contact sheets, clips side by side, first frame against the return, small charts."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

Number = int | float
GROUND, PANEL, RULE = (17, 19, 24), (27, 30, 37), (58, 63, 74)
TEXT, FAINT = (232, 234, 238), (150, 157, 170)
LINES = ((94, 177, 255), (255, 159, 90), (124, 214, 140), (232, 121, 185), (214, 196, 98), (160, 150, 245))
MARGIN, GAP, TEXT_SIZE, TITLE_SIZE = 20, 12, 15, 19
COMFORTABLE = 256  # pixels: smaller frames are enlarged for display so that they and their labels can be read


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _canvas(height: int, width: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (width, height), GROUND)
    return picture, ImageDraw.Draw(picture)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[Number, Number],
    text: str,
    room: Number,
    *,
    size: int = TEXT_SIZE,
    fill: tuple[int, int, int] = TEXT,
    anchor: str = "lm",
) -> None:
    """Draw one line of text, shortened with an ellipsis to the room there is."""
    font, whole = _font(size), text
    while text and draw.textlength(text, font=font) > room:
        text = text.removesuffix("…")[:-1].rstrip() + "…" if len(text) > 1 else ""
    assert text or not whole or room < size, "no room for a single letter"
    draw.text(at, text, font=font, fill=fill, anchor=anchor)


def _zoom(height: int, width: int) -> int:
    """Whole factor that makes a frame comfortable to look at."""
    return max(1, -(-COMFORTABLE // max(height, width)))


def _enlarge(image: UInt8[np.ndarray, "h w 3"], zoom: int) -> Image.Image:
    picture = Image.fromarray(image)
    if zoom == 1:
        return picture
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.LANCZOS)


def contact_sheet(
    frames: Sequence[UInt8[np.ndarray, "_ _ 3"]] | UInt8[np.ndarray, "f h w 3"],
    labels: Sequence[str] | None = None,
    *,
    columns: int = 5,
    title: str = "",
    zoom: int | None = None,
) -> UInt8[np.ndarray, "sheet_h sheet_w 3"]:
    """Many frames on one page, row by row, each with its label below.

    Args:
        frames: Colour, 0 to 255, all of one size.
        labels: One line for each frame; by default none.
        columns: Frames in a row.
        title: A line above all; by default none.
        zoom: Whole enlargement of the frames; by default small ones grow to a comfortable size.

    Returns:
        The page, 0 to 255.

    Raises:
        ValueError: If there is no frame, if the frames differ in size, or if there are not as many labels as frames.

    Example:
        >>> contact_sheet(np.zeros((7, 128, 192, 3), np.uint8), [f"frame {i}" for i in range(7)], columns=4).shape
        (614, 1612, 3)
    """
    if len(frames) == 0 or len({frame.shape for frame in frames}) != 1:
        raise ValueError(f"frames must be at least one and of one size, got {[f.shape[:2] for f in frames][:8]}")
    if labels is not None and len(labels) != len(frames):
        raise ValueError(f"labels must be one per frame, got {len(labels)} for {len(frames)} frames")
    height, width = frames[0].shape[:2]
    zoom = zoom or _zoom(height, width)
    height, width = height * zoom, width * zoom
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    cell = height + (TEXT_SIZE + 10 if labels else 0) + GAP
    top = MARGIN + (TITLE_SIZE + 16 if title else 0)
    page = (top + rows * cell - GAP + MARGIN, 2 * MARGIN + columns * (width + GAP) - GAP)
    picture, draw = _canvas(*page)
    if title:
        _write(draw, (MARGIN, MARGIN + TITLE_SIZE / 2), title, page[1] - 2 * MARGIN, size=TITLE_SIZE)
    for i, frame in enumerate(frames):
        x, y = MARGIN + i % columns * (width + GAP), top + i // columns * cell
        picture.paste(_enlarge(frame, zoom), (x, y))
        if labels:
            _write(draw, (x, y + height + TEXT_SIZE / 2 + 6), labels[i], width, fill=FAINT)
    return np.asarray(picture)


def side_by_side(
    videos: Mapping[str, UInt8[np.ndarray, "_ _ _ 3"]],
    *,
    captions: Sequence[str] | None = None,
    zoom: int | None = None,
) -> UInt8[np.ndarray, "f sheet_h sheet_w 3"]:
    """Clips of equal size next to each other, their titles above, a caption and the progress below.

    Args:
        videos: Title to clip, left to right; colour, 0 to 255.
        captions: One line for each frame; by default none.
        zoom: Whole enlargement of the frames; by default small ones grow to a comfortable size.

    Returns:
        The clip, 0 to 255, with even height and width.

    Raises:
        ValueError: If there is no clip, if the clips differ in shape, or if there are not as many captions as frames.

    Example:
        >>> clip = np.zeros((3, 128, 192, 3), np.uint8)
        >>> side_by_side({"with memory": clip, "without": clip}).shape
        (3, 338, 820, 3)
    """
    if len({video.shape for video in videos.values()}) != 1:
        raise ValueError(f"videos must be of one shape, got { {t: v.shape[:3] for t, v in videos.items()} }")
    count, height, width = next(iter(videos.values())).shape[:3]
    if captions is not None and len(captions) != count:
        raise ValueError(f"captions must be one per frame, got {len(captions)} for {count} frames")
    zoom = zoom or _zoom(height, width)
    height, width = height * zoom, width * zoom
    top = MARGIN + TEXT_SIZE + 9
    below = top + height + 8  # the progress line
    full_h = below + 2 + (TEXT_SIZE + 14 if captions else 0) + MARGIN + 8
    full_w = 2 * MARGIN + len(videos) * (width + GAP) - GAP
    full_h, full_w = full_h + full_h % 2, full_w + full_w % 2
    base, draw = _canvas(full_h, full_w)
    for i, title in enumerate(videos):
        _write(draw, (MARGIN + i * (width + GAP), MARGIN + TEXT_SIZE / 2), title, width)
    result = np.empty((count, full_h, full_w, 3), np.uint8)
    for t in range(count):
        picture = base.copy()
        draw = ImageDraw.Draw(picture)
        for i, video in enumerate(videos.values()):
            picture.paste(_enlarge(video[t], zoom), (MARGIN + i * (width + GAP), top))
        span = full_w - 2 * MARGIN
        draw.rectangle((MARGIN, below, MARGIN + span - 1, below + 1), fill=RULE)
        draw.rectangle((MARGIN, below, MARGIN + round(span * (t + 1) / count) - 1, below + 1), fill=LINES[0])
        if captions:
            _write(draw, (MARGIN, below + TEXT_SIZE / 2 + 12), captions[t], span, fill=FAINT)
        result[t] = np.asarray(picture)
    return result


def return_panel(
    first: UInt8[np.ndarray, "h w 3"],
    returned: Mapping[str, UInt8[np.ndarray, "_ _ 3"]],
    notes: Mapping[str, str] | None = None,
    *,
    title: str = "The place that was left, and what is found on return",
) -> UInt8[np.ndarray, "sheet_h sheet_w 3"]:
    """The first frame beside the returned ones, and below each return how far it is from the first.

    Args:
        first: The frame before the camera left; colour, 0 to 255.
        returned: Title to the frame at the same camera after the walk.
        notes: Title to a line of figures, e.g. PSNR; titles without one stay bare.
        title: A line above all.

    Returns:
        The panel, 0 to 255; differences are shown from black (none) to white (a quarter of the range or more).

    Raises:
        ValueError: If the frames differ in size.

    Example:
        >>> first = np.zeros((128, 192, 3), np.uint8)
        >>> return_panel(first, {"with memory": first}, {"with memory": "31.2 dB"}).shape[2]
        3
    """
    bad = {name: image.shape[:2] for name, image in returned.items() if image.shape != first.shape}
    if bad:
        raise ValueError(f"returned frames must be {first.shape[0]} x {first.shape[1]} as the first, got {bad}")
    zoom = max(_zoom(*first.shape[:2]), 2 if max(first.shape[:2]) <= 256 else 1)
    height, width = first.shape[0] * zoom, first.shape[1] * zoom
    top, line = MARGIN + TITLE_SIZE + 16, TEXT_SIZE + 10
    full_h = top + line + height + line + GAP + height + MARGIN
    full_w = 2 * MARGIN + (1 + len(returned)) * (width + GAP) - GAP
    picture, draw = _canvas(full_h, full_w)
    _write(draw, (MARGIN, MARGIN + TITLE_SIZE / 2), title, full_w - 2 * MARGIN, size=TITLE_SIZE)
    for i, (name, image) in enumerate({"first frame": first, **returned}.items()):
        x = MARGIN + i * (width + GAP)
        _write(draw, (x, top + TEXT_SIZE / 2), name, width)
        picture.paste(_enlarge(image, zoom), (x, top + line))
        if i == 0:
            continue
        below = top + line + height
        _write(draw, (x, below + TEXT_SIZE / 2 + 5), (notes or {}).get(name, ""), width, fill=FAINT)
        distance = np.abs(image.astype(np.int16) - first).max(-1, keepdims=True)
        shown = np.repeat(np.minimum(distance * 4, 255).astype(np.uint8), 3, axis=-1)
        picture.paste(_enlarge(shown, zoom), (x, below + line + GAP))
    key = (MARGIN + width - 4, top + line + height + line + GAP + height / 2)
    _write(draw, key, "bright: not as it was left", width, fill=FAINT, anchor="rm")
    return np.asarray(picture)


def shade_unseen(
    image: UInt8[np.ndarray, "h w 3"], visible: Bool[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "h w 3"]:
    """An image with the cells that the memory does not reach hatched over.

    Args:
        image: Colour, 0 to 255; its size is a multiple of the grid's.
        visible: Cells that were read.

    Returns:
        Colour, 0 to 255.

    Raises:
        ValueError: If the image is not a whole number of cells.

    Example:
        >>> image = np.full((8, 16, 3), 200, np.uint8)
        >>> shaded = shade_unseen(image, np.array([[True, False]]))
        >>> (shaded[:, :8] == 200).all(), int(shaded[:, 8:].max()) < 200
        (np.True_, True)
    """
    (height, width), (rows, columns) = image.shape[:2], visible.shape
    if height % rows or width % columns:
        raise ValueError(f"image must be whole cells of a {rows} x {columns} grid, got {height} x {width} pixels")
    unseen = ~np.kron(visible, np.ones((height // rows, width // columns), bool))
    y, x = np.mgrid[:height, :width]
    hatch = np.where(((x + y) % 8 < 2)[..., None], np.uint8(96), np.uint8(40))
    return np.where(unseen[..., None], (image * 0.25).astype(np.uint8) + hatch, image).astype(np.uint8)


def depth_picture(depth: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A depth map as colour: near is warm and bright, far is blue and dark, unknown is black.

    Args:
        depth: z-depth in world units; 0 is unknown.

    Returns:
        Colour, 0 to 255, scaled to the map's own 2nd and 98th percentiles of inverse depth.

    Example:
        >>> near, far, unknown = depth_picture(np.array([[1.0, 9.0, 0.0]]))[0].astype(int)
        >>> int(near.sum()) > int(far.sum()) > int(unknown.sum())
        True
    """
    known = depth > 0
    if not known.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    inverse = 1.0 / np.where(known, depth, 1.0)
    low, high = np.percentile(inverse[known], (2, 98))
    level = ((inverse - low) / max(high - low, 1e-12)).clip(0, 1)
    stops = np.array([[24, 28, 84], [46, 92, 168], [64, 164, 170], [150, 208, 120], [250, 222, 110], [255, 248, 214]])
    at = np.linspace(0, 1, len(stops))
    colour = np.stack([np.interp(level, at, stops[:, i]) for i in range(3)], -1)
    return np.where(known[..., None], colour, 0).round().astype(np.uint8)


def chart(
    series: Mapping[str, Sequence[Number]],
    *,
    title: str,
    across: str = "frame",
    height: int = 320,
    width: int = 720,
    bounds: tuple[Number, Number] | None = None,
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """A small line chart, e.g. the coverage of every read along a path.

    Args:
        series: Name to values, one per step; NaN leaves a gap.
        title: A line above the chart.
        across: What a step is.
        height: Rows of the picture, in pixels.
        width: Columns of the picture, in pixels.
        bounds: Least and greatest value shown; by default those of the data.

    Returns:
        The chart, 0 to 255.

    Raises:
        ValueError: If there is no finite value to draw.

    Example:
        >>> chart({"coverage": [1.0, 0.6, 0.7, 1.0]}, title="Coverage", height=200, width=300).shape
        (200, 300, 3)
    """
    lines = {name: np.asarray(values, float) for name, values in series.items()}
    finite = np.concatenate([v[np.isfinite(v)] for v in lines.values()] or [np.empty(0)])
    if not len(finite):
        raise ValueError(f"series must hold a finite value, got {dict(series)}")
    low, high = bounds or (finite.min(), finite.max())
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    steps = max(len(v) for v in lines.values())
    picture, draw = _canvas(height, width)
    left, right = MARGIN + 44, width - MARGIN
    top, bottom = MARGIN + TITLE_SIZE + 2 * TEXT_SIZE, height - MARGIN - TEXT_SIZE - 8
    _write(draw, (MARGIN, MARGIN + TITLE_SIZE / 2), title, width - 2 * MARGIN, size=TITLE_SIZE)
    draw.rectangle((left, top, right, bottom), fill=PANEL)
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - share * (bottom - top)
        draw.line((left, y, right, y), fill=RULE)
        _write(draw, (left - 8, y), f"{low + share * (high - low):.3g}", 44, size=12, fill=FAINT, anchor="rm")
    for share in (0, 0.5, 1):
        x, step = left + share * (right - left), round(share * (steps - 1))
        anchor = {0: "lm", 0.5: "mm", 1: "rm"}[share]
        text = f"{across} {step}" if share == 0 else str(step)
        _write(draw, (x, bottom + 12), text, 160, size=12, fill=FAINT, anchor=anchor)
    key = left
    for i, (name, values) in enumerate(lines.items()):
        colour = LINES[i % len(LINES)]
        x = left + np.arange(len(values)) / max(steps - 1, 1) * (right - left)
        y = bottom - (values.clip(low, high) - low) / (high - low) * (bottom - top)
        known = np.isfinite(values)
        for part in np.split(np.arange(len(values)), np.flatnonzero(~known)):
            points = [(float(x[j]), float(y[j])) for j in part if known[j]]
            if len(points) > 1:
                draw.line(points, fill=colour, width=2, joint="curve")
            elif points:
                draw.ellipse((points[0][0] - 2, points[0][1] - 2, points[0][0] + 2, points[0][1] + 2), fill=colour)
        y_key = MARGIN + TITLE_SIZE + TEXT_SIZE
        draw.line((key, y_key, key + 16, y_key), fill=colour, width=3)
        _write(draw, (key + 22, y_key), name, max(right - key - 22, TEXT_SIZE), size=13)
        key += 22 + draw.textlength(name, font=_font(13)) + 20
    return np.asarray(picture)
