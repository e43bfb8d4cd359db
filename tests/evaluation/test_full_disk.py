"""A disk that is full under an evaluation: said in one sentence, no half line stays, and the same command goes on."""

import resource
from contextlib import contextmanager

import pytest

from mirage.evaluation.study import Study, run


@contextmanager
def room(limit):
    """Files longer than this fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_whole_lines_and_the_run_goes_on(tmp_path, unchecked):
    measured = []

    def measure(scene, rows, out):
        measured.append(scene)
        return [{"scene": scene, "row": row, "figure": 1.5, "words": 300 * "x"} for row in rows]

    study = Study(task="toy", settings={}, scenes=("a", "b", "c"), rows=("one",), measure=measure)
    out = tmp_path / "out"
    with room(5), pytest.raises(OSError, match=r"cannot write .*results.jsonl: file too large; .*goes on"):
        run(study, out, processes=1)
    assert not list(out.iterdir()) and not measured
    with room(500), pytest.raises(OSError, match="what was measured before is kept"):
        run(study, out, processes=1)
    assert measured == ["a", "b"]
    records = run(study, out, processes=1)
    assert measured == ["a", "b", "b", "c"] and [r["scene"] for r in records] == ["a", "b", "c"]
