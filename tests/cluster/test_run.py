"""Jobs: all are done once, in any order, though workers are killed; Ray and plain processes are called alike."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirage.cluster import run


def square(folder: str, number: int) -> int:
    """A job that tells who does it; one of the first two to begin loses its worker."""
    mark = Path(folder) / "killed"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return number * number
    os.kill(os.getpid(), signal.SIGKILL)
    return -1


def fail(number: int) -> int:
    if number == 2:
        raise OSError("cannot write here: no space left on device")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_is_that_of_the_call(workers):
    with pytest.raises(OSError, match="no space left"):
        list(run(fail, [(n,) for n in range(4)], workers=workers))


def test_a_job_whose_process_was_killed_is_done_again(tmp_path):
    done = dict(run(square, [(str(tmp_path), n) for n in range(5)], workers=2))
    assert done == {n: n * n for n in range(5)} and (tmp_path / "killed").exists()


def slow(folder: str, number: int) -> int:
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(60)
    return number


def test_workers_die_with_the_process_that_began_them(tmp_path):
    jobs = [(str(tmp_path), 0), (str(tmp_path), 1)]
    code = f"import test_run; list(test_run.run(test_run.slow, {jobs}, workers=2))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    wait = time.monotonic() + 120
    while len(pids := [int(p.stem) for p in tmp_path.glob("*.pid")]) < 2 and time.monotonic() < wait:
        time.sleep(0.05)
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    while any(_alive(pid) for pid in pids) and time.monotonic() < wait:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
