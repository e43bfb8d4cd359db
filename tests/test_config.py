"""Settings in files: what is right comes back, what is wrong is named with its place."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from mirage.config import differences, from_plain, read_config, to_plain, write_config


@dataclass(frozen=True, kw_only=True)
class Leg:
    kind: Literal["walk", "turn"]
    length: float = 1.0

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ValueError(f"length must be positive, got {self.length}")


@dataclass(frozen=True, kw_only=True)
class Pack:
    size: tuple[int, int] = (2, 3)
    label: str | None = None
    heavy: bool = False


@dataclass(frozen=True, kw_only=True)
class Trip:
    legs: tuple[Leg, ...]
    seed: int = 0
    pack: Pack = field(default_factory=Pack)
    spare: Pack | None = None


GOOD = "legs:\n- {kind: walk, length: 1e-3}\n- {kind: turn}\npack: {size: [4, 5], heavy: true}\n"


def test_settings_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "trip.yaml"
    path.write_text(GOOD)
    trip = read_config(Trip, path)
    assert trip == Trip(legs=(Leg(kind="walk", length=0.001), Leg(kind="turn")), pack=Pack(size=(4, 5), heavy=True))
    path.write_text(write_config(trip))
    assert read_config(Trip, path) == trip == from_plain(Trip, to_plain(trip))


def test_changes_win_over_the_file(tmp_path):
    path = tmp_path / "trip.yaml"
    path.write_text(GOOD)
    trip = read_config(Trip, path, ["legs.1.length=2", "seed=7", "spare.label=red", "pack.label=null"])
    assert trip.legs[1].length == 2.0 and trip.seed == 7 and trip.spare == Pack(label="red") and trip.pack.label is None


@pytest.mark.parametrize(
    "text, told",
    [
        ("legs: []\nsed: 3", "sed is no setting; did you mean seed?"),
        ("legs: []\nzzz: 3", "zzz is no setting; there are legs, seed, pack, spare"),
        ("seed: 3", "legs is missing: a list"),
        ("legs:\n- {length: 3}", "legs.0.kind is missing: one of walk, turn"),
        ("legs:\n- {kind: run}", "legs.0.kind must be one of walk, turn, got 'run'"),
        ("legs:\n- {kind: walk, length: -1}", "legs.0.length must be positive, got -1.0"),
        ("legs:\n- {kind: walk, length: true}", "legs.0.length must be a number, got True"),
        ("legs:\n- {kind: walk, length: .inf}", "legs.0.length must be a number, got inf"),
        ("legs: 3", "legs must be a list, got 3"),
        ("legs: []\nseed: 1.5", "seed must be a whole number, got 1.5"),
        ("legs: []\nseed: true", "seed must be a whole number, got True"),
        ("legs: []\npack: {size: [1]}", "pack.size must be a list of 2, got [1]"),
        ("legs: []\npack: {size: [1, x]}", "pack.size.1 must be a whole number, got 'x'"),
        ("legs: []\npack: {heavy: 1}", "pack.heavy must be true or false, got 1"),
        ("legs: []\npack: 7", "pack must be settings by key, got 7"),
        ("legs: []\npack: {label: 7}", "pack.label must be a text, got 7"),
        ("legs: []\nseed: 1\nseed: 2", "cannot be read as YAML: line 3, column 1: the key seed comes twice"),
        ("legs: [", "cannot be read as YAML: line 1, column 8: "),
        ("legs:\n\t- {kind: walk}", "cannot be read as YAML: line 2, column 1: a tab cannot indent: take spaces"),
        ("- 1", "must hold settings by key, got [1]"),
        ("", "must hold settings by key, got None"),
    ],
)
def test_mistakes_are_named_with_file_and_place(tmp_path, text, told):
    path = tmp_path / "trip.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_config(Trip, path)
    assert told in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, told",
    [
        ("seed", "--set must be key=value"),
        ("legs.9.kind=walk", "--set legs.9.kind: there is no legs.9"),
        ("seed.x=3", "--set seed.x: there is no seed.x"),
        ("seed=[", "--set seed must have a value that YAML can read"),
    ],
)
def test_changes_that_lead_nowhere_are_named(tmp_path, change, told):
    path = tmp_path / "trip.yaml"
    path.write_text(GOOD + "seed: 1\n")
    with pytest.raises(ValueError) as error:
        read_config(Trip, path, [change])
    assert told in str(error.value)


def test_differences_are_named_by_key():
    old = Trip(legs=(Leg(kind="walk"),))
    new = Trip(legs=(Leg(kind="walk", length=2.0), Leg(kind="turn")), seed=1)
    assert [line.split(":")[0] for line in differences(old, new)] == ["legs.0.length", "legs.1", "seed"]
    assert differences(old, old) == []
