"""Work off the event loop: threads that take one job of one party at a time, the parties in turn."""

import contextlib
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import torch


class Crowded(Exception):
    """A party has as many jobs waiting as it may have."""


class FairWorker:
    """Threads that take one job of each party in turn, so that nobody waits longer than one round.

    Args:
        name: Of the threads.
        most: Jobs that one party may have waiting; more are refused, so that no queue grows.
        nice: Added to the threads' niceness where the system has one per thread: work that may wait for others.
        threads: How many; with one, the jobs of a party never overlap.
    """

    def __init__(self, name: str, *, most: int = 4, nice: int = 0, threads: int = 1):
        self.most = most
        self._nice = nice
        self._waiting: OrderedDict[Hashable, deque[tuple[Callable[[], object], Future]]] = OrderedDict()
        self._ready = threading.Condition()
        self._stopped = False
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, party: Hashable, job: Callable[[], object]) -> Future:
        """Put a job behind the others of a party.

        Args:
            party: Whose turn the job takes.
            job: What to do.

        Returns:
            What will come of it.

        Raises:
            Crowded: If the party has too many jobs waiting, or the worker has stopped.
        """
        done: Future = Future()
        with self._ready:
            if self._stopped:
                raise Crowded("the server is shutting down")
            mine = self._waiting.setdefault(party, deque())
            if len(mine) >= self.most:
                raise Crowded(f"{len(mine)} jobs are waiting already: wait for them, then ask again")
            mine.append((job, done))
            self._ready.notify()
        return done

    def waiting(self, party: Hashable) -> int:
        """How many jobs of a party have not begun.

        Args:
            party: Whose jobs.

        Returns:
            Their number.
        """
        with self._ready:
            return len(self._waiting.get(party, ()))

    def cancel(self, party: Hashable) -> int:
        """Forget the jobs of a party that have not begun.

        Args:
            party: Whose jobs.

        Returns:
            How many there were.
        """
        with self._ready:
            dropped = self._waiting.pop(party, deque())
        for _, done in dropped:
            done.cancel()
        return len(dropped)

    def stop(self) -> None:
        """Finish the jobs at hand, forget the others, and end the threads."""
        with self._ready:
            self._stopped = True
            dropped = [done for jobs in self._waiting.values() for _, done in jobs]
            self._waiting.clear()
            self._ready.notify_all()
        for done in dropped:
            done.cancel()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread: several workers share the cores
        if self._nice and sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while True:
            with self._ready:
                while not (self._waiting or self._stopped):
                    self._ready.wait()
                if self._stopped:
                    return
                party, jobs = self._waiting.popitem(last=False)
                job, done = jobs.popleft()
                if jobs:
                    self._waiting[party] = jobs  # behind everyone else
            if not done.set_running_or_notify_cancel():
                continue
            try:
                result = job()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)
            del job, done
