"""Where we look: cameras, paths and camera files."""

from mirage.camera.cameras import Box as Box
from mirage.camera.cameras import Cameras as Cameras
from mirage.camera.cameras import cover as cover
from mirage.camera.files import load_trajectory as load_trajectory
from mirage.camera.formats import FORMATS as FORMATS
from mirage.camera.map import draw_map as draw_map
from mirage.camera.path import PRESETS as PRESETS
from mirage.camera.path import build_path as build_path
from mirage.camera.trajectory import Motion as Motion
from mirage.camera.trajectory import Trajectory as Trajectory
from mirage.camera.trajectory import cut as cut
from mirage.camera.trajectory import measure_motion as measure_motion
from mirage.camera.trajectory import resample as resample
from mirage.camera.writers import WRITERS as WRITERS
from mirage.camera.writers import save_trajectory as save_trajectory
