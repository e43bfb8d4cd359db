"""Tileable textures with the statistics of natural images: 1/f spectra, correlated colours, soft edges.

Every maker takes a NumPy generator and gives a periodic "s s 3" image in [0, 1] (display values).
"""

import numpy as np

SIZE = 128
Image = np.ndarray

_FREQUENCY = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]) * SIZE
_V, _U = np.meshgrid((np.arange(SIZE) + 0.5) / SIZE, (np.arange(SIZE) + 0.5) / SIZE, indexing="ij")


def noise(rng: np.random.Generator, alpha: float = 2.0, low: float = 1.0, high: float = 40.0) -> Image:
    """A periodic field of unit variance with power spectrum f^-alpha between two frequencies (cycles per tile)."""
    white = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    gain = np.maximum(_FREQUENCY, low) ** (-alpha / 2) * np.exp(-((_FREQUENCY / high) ** 2))
    gain[0, 0] = 0.0
    field = np.fft.irfft2(white * gain, s=(SIZE, SIZE))
    return field / (field.std() + 1e-9)


def smooth(x: Image, edge: float) -> Image:
    """A soft step of width `edge` around zero."""
    return 0.5 + 0.5 * np.tanh(x / edge)


def colour(rng: np.random.Generator, saturation: float = 1.0, value: tuple[float, float] = (0.3, 0.85)) -> Image:
    """One natural colour: mostly warm or green or blue, mostly muted."""
    hue = rng.choice(
        [rng.normal(0.085, 0.03), rng.normal(0.29, 0.06), rng.normal(0.58, 0.04), rng.uniform()],
        p=[0.5, 0.16, 0.18, 0.16],
    )
    sat = saturation * (rng.beta(1.6, 4.0) if rng.random() < 0.87 else rng.uniform(0.35, 0.7))
    val = rng.uniform(*value)
    ramp = np.clip(np.abs((hue + np.array([0.0, 2 / 3, 1 / 3])) % 1.0 * 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return val * (1.0 - sat + sat * ramp)


def paint(rng: np.random.Generator, base: Image, contrast: float, alpha: float = 2.0, chroma: float = 0.25) -> Image:
    """`base` (one colour or an image) with 1/f variation: strong in luminance, weaker in two chroma directions."""
    light = 1.15 * noise(rng, alpha - 0.25)[..., None] * np.ones(3)
    warm = noise(rng, alpha + 0.3)[..., None] * np.array([1.0, 0.05, -0.9])
    tint = noise(rng, alpha + 0.3)[..., None] * np.array([0.5, -0.7, 0.5])
    return base * np.exp(contrast * (light + chroma * (warm + 0.6 * tint)))


def plaster(rng: np.random.Generator) -> Image:
    """A painted wall: nearly one colour."""
    return paint(rng, colour(rng, 0.55, (0.6, 0.95)), rng.uniform(0.03, 0.08), rng.uniform(1.9, 2.6))


def white(rng: np.random.Generator) -> Image:
    """A nearly white paint, to be tinted or left as a ceiling."""
    return paint(rng, colour(rng, 0.2, (0.85, 0.97)), rng.uniform(0.02, 0.05), 2.4, 0.15)


def ground(rng: np.random.Generator) -> Image:
    """Grass, sand, gravel or asphalt: 1/f with some colour."""
    base = np.array([[0.36, 0.42, 0.2], [0.3, 0.4, 0.17], [0.62, 0.53, 0.4], [0.45, 0.44, 0.42], [0.52, 0.46, 0.36]])
    return paint(rng, base[rng.integers(len(base))] * rng.uniform(0.85, 1.15, 3), rng.uniform(0.1, 0.2), 1.85, 0.35)


def stone(rng: np.random.Generator) -> Image:
    """Warped veins, as marble or rock."""
    veins = np.abs(noise(rng, 2.4)) ** 0.7
    a, b = colour(rng, 0.7, (0.4, 0.9)), colour(rng, 0.7, (0.25, 0.8))
    mix = smooth(veins - 0.6, 0.4)[..., None]
    return paint(rng, a * mix + (0.55 * a + 0.45 * b) * (1 - mix), 0.07)


def wood(rng: np.random.Generator) -> Image:
    """Grain along v in a few planks of different tone, with soft joints."""
    tone = np.array([[0.55, 0.36, 0.2], [0.68, 0.5, 0.32], [0.4, 0.25, 0.15], [0.75, 0.62, 0.45], [0.5, 0.42, 0.35]])
    base = tone[rng.integers(len(tone))] * rng.uniform(0.9, 1.15)
    planks = int(rng.integers(2, 6))
    x = _U * planks
    row = np.floor(x).astype(int)
    shift = rng.uniform(0, 8, planks)[row]
    grain = np.sin(2 * np.pi * (2 * x + shift + 0.35 * noise(rng, 3.2, 2.0)))
    streak = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
        * np.exp(-np.abs(np.fft.fftfreq(SIZE)[:, None] * SIZE) / 2.0)
        / np.maximum(np.abs(np.fft.rfftfreq(SIZE)[None] * SIZE), 1.0) ** 0.6
        * np.exp(-((np.fft.rfftfreq(SIZE)[None] * SIZE / 34) ** 2)),
        s=(SIZE, SIZE),
    )
    edge = np.abs(x - row - 0.5) * 2
    joint = 1.0 - 0.35 * smooth(edge - 0.96, 0.03)
    plank = rng.normal(1.0, 0.1, planks)[row]
    return paint(rng, base * (plank * joint * np.exp(0.05 * grain + 0.09 * streak / streak.std()))[..., None], 0.05)


def tiles(rng: np.random.Generator) -> Image:
    """Bricks, tiles or paving: low-contrast joints, each tile with its own tone."""
    rows, columns = int(rng.choice([2, 4, 4, 6, 8])), int(rng.choice([2, 2, 3, 4]))
    stagger = 0.5 if rng.random() < 0.6 and rows % 2 == 0 else 0.0
    warp = 0.004 * noise(rng, 3.0, 3.0)
    y = (_V + warp) * rows
    r = np.floor(y).astype(int)
    x = (_U + warp) * columns + stagger * (r % 2)
    c = np.floor(x).astype(int)
    r, c, fy, fx = r % rows, c % columns, y - np.floor(y), x - np.floor(x)
    edge = np.minimum(np.minimum(fx, 1 - fx) / columns, np.minimum(fy, 1 - fy) / rows) * SIZE
    base = colour(rng, 1.0, (0.35, 0.85))
    tone = base * (
        1 + rng.normal(0, rng.uniform(0.04, 0.13), (rows, columns, 1)) + rng.normal(0, 0.02, (rows, columns, 3))
    )
    joint = base.mean() * rng.uniform(0.75, 1.2) * np.array([1.02, 1.0, 0.96])
    inside = smooth(edge - rng.uniform(1.2, 2.0), 0.8)[..., None]
    return paint(rng, tone[r, c] * inside + joint * (1 - inside), 0.08)


def checker(rng: np.random.Generator) -> Image:
    """A soft checkerboard of two related tones."""
    n = int(rng.choice([1, 2, 2]))
    field = np.sin(2 * np.pi * n * _U) * np.sin(2 * np.pi * n * _V)
    a = colour(rng, 0.9, (0.45, 0.9))
    b = 0.5 * a + 0.5 * colour(rng, 0.9, (0.2, 0.7))
    mix = smooth(field, 0.12)[..., None]
    return paint(rng, a * mix + b * (1 - mix), 0.07)


def fabric(rng: np.random.Generator) -> Image:
    """Cloth: stripes of a few colours over a mottled ground."""
    a, b, c = (colour(rng, 1.0, (0.3, 0.85)) for _ in range(3))
    along = _U if rng.random() < 0.5 else _V
    wave = np.cos(2 * np.pi * (along * rng.integers(1, 5) + 0.03 * noise(rng, 3.0)))
    fine = np.cos(2 * np.pi * along * rng.integers(4, 9))
    image = a + (b - a) * (rng.choice([0.1, 0.25, 0.6]) * smooth(wave - rng.uniform(-0.4, 0.6), 0.2))[..., None]
    image = image + (c - image) * (rng.choice([0.0, 0.15, 0.3]) * smooth(fine - 0.6, 0.3))[..., None]
    return paint(rng, np.clip(image, 0.02, 1), 0.08)


def foliage(rng: np.random.Generator) -> Image:
    """Leaves in light and shade."""
    base = np.array([0.3, 0.4, 0.16]) * rng.uniform(0.75, 1.25, 3)
    return paint(rng, base, rng.uniform(0.3, 0.42), 1.6, 0.3)


def leaves(rng: np.random.Generator, discs: int = 60) -> Image:
    """Dead leaves: overlapping soft discs and rectangles of power-law size, each with its own 1/f shading.

    Occlusion and scale invariance as in photographs, so that a photograph is not a stranger.
    """
    palette = [colour(rng, 1.0, (0.15, 0.9)) for _ in range(int(rng.integers(4, 9)))]
    image = np.broadcast_to(palette[0], (SIZE, SIZE, 3)).copy()
    shade = [noise(rng, 2.2) for _ in range(3)]
    radius = np.clip(0.05 * rng.uniform(0, 1, discs) ** (-0.75), 0.05, 0.45)
    for r in np.sort(radius)[::-1] * SIZE:
        y, x = rng.uniform(0, SIZE, 2)
        half = int(np.ceil(r * 1.5)) + 2
        span = np.arange(-min(half, SIZE // 2), min(half, SIZE // 2))
        iy, ix = (span + int(y)) % SIZE, (span + int(x)) % SIZE
        turn = rng.uniform(0, np.pi)
        p = np.cos(turn) * span[:, None] + np.sin(turn) * span[None]
        q = np.cos(turn) * span[None] - np.sin(turn) * span[:, None]
        aspect = rng.uniform(0.6, 1.5)
        if rng.random() < 0.55:
            gap = r - np.hypot(p * aspect, q / aspect)
        else:
            gap = np.minimum(r * aspect - np.abs(p), r / aspect - np.abs(q))
        mask = smooth(gap, 1.0)[..., None]
        tone = palette[rng.integers(len(palette))] * np.exp(rng.normal(0, 0.3) + rng.normal(0, 0.05, 3))
        lit = np.exp(0.16 * shade[rng.integers(3)][np.ix_(iy, ix)] + 0.2 * p / r * rng.uniform(-1, 1))[..., None]
        block = np.ix_(iy, ix)
        image[block] = image[block] * (1 - mask) + tone * lit * mask
    return paint(rng, image, 0.05)


def window(rng: np.random.Generator) -> Image:
    """A bright window: sky, a blurred horizon, a frame with a cross."""
    horizon = rng.uniform(0.45, 0.75) + 0.04 * noise(rng, 3.0)[:1]
    top, low = np.array([0.62, 0.78, 0.95]) * rng.uniform(0.9, 1.05), np.array([0.93, 0.95, 0.96])
    sky = top + (low - top) * np.clip(_V / 0.7, 0, 1)[..., None]
    land = paint(rng, np.array([0.45, 0.52, 0.38]) * rng.uniform(0.8, 1.2, 3), 0.15)
    image = sky + (land - sky) * smooth(_V - horizon, 0.03)[..., None]
    bars = int(rng.choice([1, 2, 2, 3]))
    across = np.minimum(np.abs((_U * bars + 0.5) % 1 - 0.5) / bars, np.minimum(_U, 1 - _U))
    down = np.minimum(np.minimum(_V, 1 - _V), np.abs(_V - rng.uniform(0.3, 0.5)))
    frame = smooth(0.03 - np.minimum(across, down), 0.008)[..., None]
    return image * (1 - frame) + np.array([0.82, 0.8, 0.76]) * rng.choice([0.5, 1.0, 1.1]) * frame


def facade(rng: np.random.Generator) -> Image:
    """One storey unit of a house front: a window (or two) in a wall; repeats to make a front."""
    wall = plaster(rng) if rng.random() < 0.6 else tiles(rng) * 0.5 + colour(rng, 0.8, (0.5, 0.8)) * 0.5
    w, h, mid = rng.uniform(0.14, 0.24), rng.uniform(0.2, 0.3), rng.uniform(0.4, 0.5)
    gap = np.minimum(w - np.abs(_U - 0.5), h - np.abs(_V - mid))
    glass = paint(rng, np.array([0.25, 0.32, 0.4]) * rng.uniform(0.7, 1.4), 0.2, 2.6) + 0.25 * (1 - _V)[..., None]
    trim = colour(rng, 0.5, (0.6, 0.98))
    image = wall + (trim - wall) * smooth(gap + 0.035, 0.008)[..., None]
    image = image + (glass - image) * smooth(gap, 0.008)[..., None]
    bar = smooth(0.012 - np.abs(_U - 0.5), 0.006) * smooth(gap, 0.008)
    return image + (trim - image) * bar[..., None]


def sky(rng: np.random.Generator) -> Image:
    """A panorama: u is the azimuth, v runs from the zenith (0) to just below the horizon (1); hills at the foot."""
    dusk = rng.random() < 0.25
    top = np.array([0.33, 0.52, 0.82]) if not dusk else np.array([0.42, 0.47, 0.66])
    low = np.array([0.82, 0.88, 0.94]) if not dusk else np.array([0.97, 0.8, 0.63])
    if rng.random() < 0.25:
        top, low = np.array([0.66, 0.7, 0.75]), np.array([0.85, 0.86, 0.86])
    top = top * rng.uniform(0.85, 1.1)
    image = top + (low - top) * (_V**1.5)[..., None]
    cloud = noise(rng, 2.6, 2.0, 30.0) * 0.8 + noise(rng, 1.8, 4.0) * 0.2
    cover = (smooth(cloud - rng.uniform(0.0, 1.4), 0.5) * rng.uniform(0.4, 0.9) * np.clip((1 - _V) * 5, 0, 1))[
        ..., None
    ]
    lit = np.array([0.97, 0.96, 0.95]) * (0.93 + 0.06 * noise(rng, 2.2)[..., None])
    image = image + (lit - image) * cover
    for k, depth in enumerate((0.55, 0.3)):
        crest = 0.86 + 0.03 * k + rng.uniform(0.008, 0.03) * noise(rng, 2.6)[:1]
        hill = np.array([0.34, 0.42, 0.36]) * rng.uniform(0.8, 1.2, 3)
        hill = paint(rng, hill + (low - hill) * depth, 0.08)
        image = image + (hill - image) * smooth(_V - crest, 0.006)[..., None]
    return image


def mip_chain(image: Image) -> Image:
    """Linear-light texels of every level, finest first, as "m 3": each level is the mean of 2 x 2 of the one before."""
    level = np.clip(image, 0.01, 1.0) ** 2
    texels = [level.reshape(-1, 3)]
    while len(level) > 1:
        level = level.reshape(len(level) // 2, 2, -1, 2, 3).mean((1, 3))
        texels.append(level.reshape(-1, 3))
    return np.concatenate(texels).astype(np.float32)
