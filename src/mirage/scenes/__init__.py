"""Exact worlds: procedural rooms and open places, an exact renderer, and camera walks inside them."""

from mirage.scenes.paths import sample_path as sample_path
from mirage.scenes.render import Rendering as Rendering
from mirage.scenes.render import render as render
from mirage.scenes.worlds import Worlds as Worlds
