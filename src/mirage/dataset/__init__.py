"""Prepared clips: what can be read, how clips become shards, and how shards are read at random and checked."""

from mirage.dataset.shards import DamagedClip as DamagedClip
from mirage.dataset.shards import LatentClip as LatentClip
from mirage.dataset.shards import Shards as Shards
from mirage.dataset.shards import write_manifest as write_manifest
from mirage.dataset.shards import write_shard as write_shard
