"""WorldScore: what its harness wants of a model, written, checked, and plugged into it."""

from mirage.evaluation.worldscore.check import Fault as Fault
from mirage.evaluation.worldscore.check import check as check
from mirage.evaluation.worldscore.harness import install as install
from mirage.evaluation.worldscore.items import Item as Item
from mirage.evaluation.worldscore.items import read_items as read_items
from mirage.evaluation.worldscore.settings import WorldScore as WorldScore
from mirage.evaluation.worldscore.write import imagine as imagine
from mirage.evaluation.worldscore.write import write as write
