"""How the videos for WorldScore are made, and through which lens."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mirage.evaluation.worldscore.paths import FOCAL

Lens = Literal["correct", "stock"]
STOCK = (FOCAL, FOCAL, 256.0, 256.0)  # what its evaluation gives DROID-SLAM for every image


@dataclass(frozen=True, kw_only=True)
class WorldScore:
    """How the videos are made. All that are in one folder are made alike."""

    size: tuple[int, int]
    """Height and width, in pixels."""
    frames: int = 65
    """Frames per scene, its first and its last included."""
    fps: int = 10
    """Of the mp4, which nothing evaluates."""
    camera_speed: float = 1.0
    """As in the harness's configuration: what `scale` of `camera_data.json` says."""
    scale: float = 1.0
    """World units of the model per unit of `camera_data.json`; only the shape of the path is scored."""
    lens: Lens = "correct"
    """Where the principal point is: in the middle of the image, or where the harness's evaluation takes it to be."""
    model: str = "nano"
    """Which model, and below how it is called."""
    estimator: str | None = None
    movers: str | None = None
    steps: int | None = None
    guidance: float = 1.0
    negative_prompt: str = ""
    seed: int = 0

    def __post_init__(self):
        for name, least in {"frames": 2, "fps": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("camera_speed", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.lens not in get_args(Lens):
            raise ValueError(f"lens must be one of {', '.join(get_args(Lens))}, got {self.lens!r}")
        if self.lens == "stock" and min(self.size) <= 256:
            raise ValueError(
                f"lens 'stock' has its principal point at 256, 256, outside of {self.size[0]} x {self.size[1]} pixels: "
                "take 'correct', or a larger size"
            )

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """fx, fy, cx and cy that the videos are made with, in pixels."""
        return STOCK if self.lens == "stock" else (FOCAL, FOCAL, self.size[1] / 2, self.size[0] / 2)

    def lens_report(self) -> dict:
        """Both intrinsics, the videos' and those that the evaluation takes, and what lies between them."""
        (fx, fy, cx, cy), (height, width) = self.intrinsics, self.size
        stock_cx, stock_cy = STOCK[2:]
        field = lambda focal, size: round(math.degrees(2 * math.atan(size / 2 / focal)), 2)
        return {
            "videos": {"fx": fx, "fy": fy, "cx": cx, "cy": cy},
            "corrected_evaluation": {"fx": fx, "fy": fy, "cx": cx, "cy": cy},
            "stock_evaluation": dict(zip(("fx", "fy", "cx", "cy"), STOCK, strict=True)),
            "principal_point_off_by": [round(stock_cx - cx, 2), round(stock_cy - cy, 2)],
            "field_of_view_degrees": [field(fx, width), field(fy, height)],
            "stock_evaluation_is_right": (cx, cy) == (stock_cx, stock_cy),
        }
