"""Many machines or one: the same jobs, in any order, each done again if its worker is lost."""

from mirage.cluster.run import run as run
