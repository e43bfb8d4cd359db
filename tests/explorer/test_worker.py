"""Turns are fair, queues do not grow, and an error is told to the one who asked."""

import threading

import pytest

from mirage.explorer.worker import Crowded, FairWorker


@pytest.fixture
def worker():
    made = FairWorker("test", most=3)
    yield made
    made.stop()


def hold(worker) -> threading.Event:
    """Keep the worker busy until the event."""
    begun, go = threading.Event(), threading.Event()
    worker.submit("holder", lambda: (begun.set(), go.wait(10)))
    assert begun.wait(10)
    return go


def test_parties_take_turns_whoever_came_first(worker):
    go, order = hold(worker), []
    jobs = [worker.submit(party, lambda p=party: order.append(p)) for party in "aaabbc"]
    go.set()
    for job in jobs:
        job.result(10)
    assert "".join(order) == "abcaba"


def test_a_queue_does_not_grow(worker):
    go = hold(worker)
    for _ in range(3):
        worker.submit("a", lambda: None)
    with pytest.raises(Crowded, match="3 jobs are waiting"):
        worker.submit("a", lambda: None)
    worker.submit("b", lambda: None)
    assert (worker.waiting("a"), worker.waiting("b")) == (3, 1)
    assert worker.cancel("a") == 3 and worker.waiting("a") == 0
    go.set()


def test_an_error_reaches_who_asked_and_the_worker_goes_on(worker):
    bad = worker.submit("a", lambda: 1 / 0)
    good = worker.submit("a", lambda: 7)
    assert isinstance(bad.exception(10), ZeroDivisionError) and good.result(10) == 7


def test_after_the_stop_nothing_is_taken():
    worker = FairWorker("test")
    go = hold(worker)
    waits = worker.submit("a", lambda: None)
    threading.Timer(0.05, go.set).start()
    worker.stop()
    assert waits.cancelled()
    with pytest.raises(Crowded, match="shutting down"):
        worker.submit("a", lambda: None)
