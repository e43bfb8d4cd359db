"""Worlds that are kept: a folder that outlives the process, to be continued, undone, branched, checked and exported."""

from mirage.world.manifest import ChunkMark as ChunkMark
from mirage.world.manifest import Settings as Settings
from mirage.world.world import World as World
