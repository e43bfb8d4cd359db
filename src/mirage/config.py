"""Settings in files: frozen dataclasses to YAML and back, strictly. What is wrong in a file is named with its place."""

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def read_config(kind: type[T], path: str | Path, changes: Sequence[str] = ()) -> T:
    """Read the settings of a dataclass from a YAML file.

    Every key must be one of the dataclass, every value of its type and within its bounds, and what has no default must
    be there. `__post_init__` of the dataclasses checks bounds; its messages begin with the name of the field.

    Args:
        kind: The dataclass; its fields are numbers, texts, booleans, literals, tuples, dataclasses, or one of these or
            None.
        path: The file.
        changes: Further settings "key.key=value", which win over the file; parts of a list are counted from 0.

    Returns:
        The settings.

    Raises:
        ValueError: In one sentence with file and key, if anything is wrong.
    """
    path = Path(path)
    try:
        held = yaml.load(path.read_text(), _Strict)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {_fault(error)}") from None
    if not isinstance(held, dict):
        raise ValueError(f"{path} must hold settings by key, got {_short(held)}")
    for change in changes:
        _change(held, change)
    try:
        return from_plain(kind, held)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def from_plain(kind: type[T], held: Mapping[str, object], at: str = "") -> T:
    """Make a dataclass of what a YAML or JSON file holds.

    Args:
        kind: The dataclass.
        held: Values by key.
        at: Where they stand, for messages.

    Returns:
        The settings.

    Raises:
        ValueError: If a key is unknown or missing, or a value of another type or out of bounds.

    Example:
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Walk:
        ...     steps: int
        ...     length: float = 1.0
        >>> from_plain(Walk, {"steps": 3})
        Walk(steps=3, length=1.0)
        >>> from_plain(Walk, {"step": 3})
        Traceback (most recent call last):
        ValueError: step is no setting; did you mean steps?
    """
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    for key in held:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            way = f"did you mean {at}{near[0]}?" if near else f"there are {', '.join(fields)}"
            raise ValueError(f"{at}{key} is no setting; {way}")
    for name, field in fields.items():
        if name not in held and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{at}{name} is missing: {_what(hints[name])}")
    values = {name: _value(hints[name], value, f"{at}{name}") for name, value in held.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{at}{error}") from None


def to_plain(settings: object) -> dict[str, Any]:
    """Give all settings as YAML and JSON take them.

    Args:
        settings: A dataclass.

    Returns:
        Values by key; `from_plain` makes the same settings of them.
    """
    return _plain(dataclasses.asdict(settings))


def write_config(settings: object) -> str:
    """Write all settings, defaults too, as YAML.

    Args:
        settings: A dataclass.

    Returns:
        The text.
    """
    return yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True, width=120)


def differences(old: object, new: object, at: str = "") -> list[str]:
    """Name what two settings of one kind differ in.

    Args:
        old: What was.
        new: What is.
        at: Where they stand, for the names.

    Returns:
        "key: old, now new" for each key.

    Example:
        >>> differences({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3]})
        ['b.1: 2, now 3']
    """
    old, new = (to_plain(x) if dataclasses.is_dataclass(x) else x for x in (old, new))
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new and type(old) is type(new) else [f"{at}: {_short(old)}, now {_short(new)}"]
    keys = dict.fromkeys([*old, *new])
    return [line for key in keys for line in differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))]


def _fault(error: Exception) -> str:
    """What is wrong with a file, in a few words, and where."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(getattr(error, "strerror", None) or error).split())
    problem = "a tab cannot indent: take spaces" if r"'\t'" in error.problem else error.problem
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


class _Strict(yaml.SafeLoader):
    """Refuses a key that comes twice; PyYAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [(key, at) for i, (key, (at, _)) in enumerate(zip(keys, node.value, strict=True)) if key in keys[:i]]
        if twice:
            key, at = twice[0]
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} comes twice", at.start_mark)
        return super().construct_mapping(node, deep)


def _value(hint: object, value: object, at: str) -> object:
    """A value as its field wants it."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        return _value(next(c for c in choices if c is not type(None)), value, at)
    if origin is tuple and isinstance(value, (list, tuple)):
        if choices[-1] is Ellipsis:
            return tuple(_value(choices[0], part, f"{at}.{i}") for i, part in enumerate(value))
        if len(value) == len(choices):
            return tuple(_value(c, part, f"{at}.{i}") for i, (c, part) in enumerate(zip(choices, value, strict=True)))
    elif origin is Literal:
        if value in choices and type(value) in map(type, choices):
            return value
    elif dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return from_plain(hint, value, f"{at}.")
    elif hint is float and not isinstance(value, bool):
        try:
            number = float(value)  # YAML takes 1e-3 for a text
            if isinstance(value, (int, float, str)) and abs(number) < float("inf"):
                return number
        except (TypeError, ValueError):
            pass
    elif type(value) is hint:
        return value
    raise ValueError(f"{at} must be {_what(hint)}, got {_short(value)}")


def _what(hint: object) -> str:
    """A type in words."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("nothing (null)" if c is type(None) else _what(c) for c in choices)
    if origin is Literal:
        return f"one of {', '.join(map(str, choices))}"
    if origin is tuple:
        return "a list" if choices[-1] is Ellipsis else f"a list of {len(choices)}"
    return "settings by key" if dataclasses.is_dataclass(hint) else KINDS.get(hint, str(hint))


def _change(held: dict, change: str) -> None:
    """Put one "key.key=value" into what a file holds."""
    where, equals, text = change.partition("=")
    if not equals or not where.strip():
        raise ValueError(f"--set must be key=value, as in stages.0.lr=1e-4, got {change!r}")
    try:
        value = yaml.load(text, _Strict)
    except yaml.YAMLError:
        raise ValueError(f"--set {where} must have a value that YAML can read, got {text!r}") from None
    *path, last = where.strip().split(".")
    inner: Any = held
    for i, key in enumerate([*path, last]):
        if isinstance(inner, list) and key.isdigit() and int(key) < len(inner):
            key = int(key)
        elif not isinstance(inner, dict):
            raise ValueError(f"--set {where}: there is no {'.'.join([*path, last][: i + 1])}")
        if i == len(path):
            inner[key] = value
        elif isinstance(inner, dict):
            inner[key] = {} if inner.get(key) is None else inner[key]
            inner = inner[key]
        else:
            inner = inner[key]


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
