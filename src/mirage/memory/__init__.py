"""What we know: memories that take views with depth and camera, and give back other views."""

from mirage.memory.colour_memory import ColourMemory as ColourMemory
from mirage.memory.latent_memory import LatentMemory as LatentMemory
from mirage.memory.memory import Memory as Memory
from mirage.memory.memory import MemoryRead as MemoryRead
from mirage.memory.memory import UpdateReport as UpdateReport
from mirage.memory.motion import GroupMotion as GroupMotion
from mirage.memory.mover import LatentMover as LatentMover
from mirage.memory.no_memory import NoMemory as NoMemory
from mirage.memory.recall import recall as recall
