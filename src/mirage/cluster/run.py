"""Run independent jobs: in this process, in several of this machine, or on a cluster of Ray, all called alike.

A job is a function of its arguments that leaves its result on the disk, so a job whose worker is lost is simply done
again.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for

LOCAL = "local"
RETRIES = 3  # lost workers in a row, with nothing done in between, before it is taken for the jobs' own fault


def run(
    work: Callable,
    jobs: Sequence[tuple],
    *,
    workers: int = 1,
    address: str = "",
    gpus: float = 0.0,
) -> Iterator[tuple[int, object]]:
    """Call a function with each of many arguments.

    Args:
        work: A function that other processes can import.
        jobs: Its arguments, once per call.
        workers: Processes on this machine; 1 works in this one.
        address: Of a Ray cluster, "auto" for the one that this machine belongs to, or "local" for `workers` processes
            of a Ray of its own; no Ray if empty.
        gpus: Cards, or a part of one, that each job needs of a Ray cluster.

    Yields:
        Which job is done, and what it returned; in the order in which they end.

    Raises:
        ValueError: If Ray is not installed, or there is no cluster at the address.
        RuntimeError: If workers are lost again and again.
    """
    if not jobs:
        return
    if address:
        yield from _on_ray(work, jobs, workers, address, gpus)
    elif workers == 1 or len(jobs) == 1:
        for index, job in enumerate(jobs):
            yield index, work(*job)
    else:
        yield from _in_processes(work, jobs, min(workers, len(jobs)))


def _in_processes(work: Callable, jobs: Sequence[tuple], workers: int) -> Iterator[tuple[int, object]]:
    left, lost = set(range(len(jobs))), 0
    while left:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
        try:
            running = {pool.submit(work, *jobs[index]): index for index in sorted(left)}
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    index = running.pop(future)
                    result = future.result()
                    left.discard(index)
                    lost = 0
                    yield index, result
        except BrokenProcessPool as error:
            lost += 1
            if lost == RETRIES:
                raise RuntimeError(
                    f"a worker process was killed {RETRIES} times in a row, perhaps for want of memory: give fewer "
                    "--workers"
                ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()) if left else []:
                process.kill()


def _end_with_parent() -> None:
    """Let a worker die with the process that began it, however that ends, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_reachable(address: str) -> None:
    """Refuse at once an address where nobody answers: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"--cluster {address}: no Ray cluster can be reached there ({error})") from error


def _there(folder: str, work: Callable, job: tuple) -> object:
    """Do a job in the folder in which it was asked for, so that relative paths mean the same."""
    with contextlib.suppress(FileNotFoundError):
        os.chdir(folder)
    return work(*job)


def _on_ray(
    work: Callable, jobs: Sequence[tuple], workers: int, address: str, gpus: float
) -> Iterator[tuple[int, object]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL:
        os.environ.setdefault("RAY_worker_niceness", "0")  # workers of one's own are no guests
    try:
        import ray
        from ray.exceptions import RayTaskError, WorkerCrashedError
    except ImportError as error:
        raise ValueError("--cluster needs Ray: pip install 'mirage-world[cluster]'") from error
    _check_reachable(address)
    here = {"num_cpus": workers, "include_dashboard": False}
    there = {"address": address}
    try:
        ray.init(**(here if address == LOCAL else there), log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"--cluster {address}: no Ray cluster can be reached there ({first})") from error
    try:
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_there)
        waiting = {remote.remote(os.getcwd(), work, job): index for index, job in enumerate(jobs)}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            try:
                yield waiting.pop(done[0]), ray.get(done[0])
            except RayTaskError as error:
                raise (error.cause or error) from None
            except WorkerCrashedError as error:
                raise RuntimeError(f"a worker was lost {RETRIES + 1} times at the same job") from error
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            ray.shutdown()
