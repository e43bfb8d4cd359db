"""Where we look: cameras, paths and camera files."""

from mirage.camera.cameras import Cameras as Cameras
