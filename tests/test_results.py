"""Results appear together, or not at all."""

import pytest

from mirage.results import results


@pytest.fixture
def folder(tmp_path):
    """Older results, and a folder where a file shall go."""
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "c.txt").mkdir()
    return tmp_path


def write(aside) -> None:
    for name in "abc":
        (aside / f"{name}.txt").write_text("new")


def test_nothing_is_replaced_if_one_file_cannot_be(folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(OSError, match=r"cannot write the results to .*c\.txt is a folder"), results(folder) as aside:
        write(aside)
    assert sorted(folder.rglob("*")) == before and (folder / "a.txt").read_text() == "old"


def test_a_folder_of_that_name_is_refused_before_any_work(folder):
    with pytest.raises(OSError, match=r"c\.txt is a folder"), results(folder, "a.txt", "c.txt"):
        pytest.fail("the block has begun")


def test_older_results_are_replaced(folder):
    (folder / "c.txt").rmdir()
    with results(folder, "a.txt") as aside:
        write(aside)
    assert {p.name: p.read_text() for p in folder.iterdir()} == dict.fromkeys(["a.txt", "b.txt", "c.txt"], "new")


def test_errors_about_other_files_pass(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), results(tmp_path / "out"):
        (tmp_path / "elsewhere").read_text()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["{long}", "{long}/inner", "new/{long}"])
def test_a_name_that_is_too_long(tmp_path, place):
    with (
        pytest.raises(OSError, match=r"cannot write the results to .*: file name too long"),
        results(tmp_path / place.format(long="x" * 300)),
    ):
        pytest.fail("the block has begun")
    assert not list(tmp_path.iterdir())
