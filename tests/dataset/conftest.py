"""Fixtures of the tests of prepared clips."""

import pytest
from small_footage import Walk, make_walk


@pytest.fixture(scope="session")
def walk() -> Walk:
    """What is true of a short walk through a room."""
    return make_walk()
