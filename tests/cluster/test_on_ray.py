"""Shards made on a Ray of two workers, one of which is killed while it works: the bytes are those of one process."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from mirage.cluster import run
from mirage.dataset.prepare import Settings, prepare

ray = pytest.importorskip("ray")
SETTINGS = Settings(size=(32, 48), frames=5, per_shard=1)


def at_work() -> list[int]:
    """Processes of Ray that do a job: Ray writes the function's name where the words of the command were."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                words = (place / "cmdline").read_bytes()
                owner = place.stat().st_uid
            except OSError:
                continue
            if words.startswith(b"ray::_there") and owner == os.getuid():
                found.append(int(place.name))
    return found


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_of_two_is_killed_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare("worlds:3:7", "alone", SETTINGS)
    killed, over, before = [], threading.Event(), set(at_work())

    def kill_one() -> None:
        while not over.is_set() and not killed:
            if mine := sorted(set(at_work()) - before):
                os.kill(mine[0], signal.SIGKILL)
                killed.append(mine[0])
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        done = prepare("worlds:3:7", "together", SETTINGS, run=partial(run, workers=2, address="local"))
    finally:
        over.set()
        killer.join()
    assert killed, "a worker was killed while it worked"
    assert done.clips == done.made == 3
    one, other = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("alone", "together"))
    assert one == other


def test_no_cluster_at_the_address_is_said():
    with pytest.raises(ValueError, match=r"--cluster 127\.0\.0\.1:1: no Ray cluster"):
        list(run(print, [()], address="127.0.0.1:1"))
