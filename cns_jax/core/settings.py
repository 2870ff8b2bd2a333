"""A configuration becomes frozen dataclasses once, at the door; below that no ConfigDict exists."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting has an unknown name or a value that cannot work."""


def build(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Dataclass `cls` from a mapping, nested dataclasses from nested mappings, lists to tuples.

    Raises SettingsError naming an unknown key (with the closest known one) or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(fields))}"
            raise SettingsError(f"{where}.{key} is not a setting; {hint}")
        arguments[key] = _value(hints[key], value, f"{where}.{key}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise SettingsError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is typing.Literal:
        require(value in arguments, f"{where}={value!r} must be one of {', '.join(map(repr, arguments))}")
        return value
    union = origin in (typing.Union, types.UnionType)
    plain = tuple(typing.get_origin(a) or a for a in (arguments if union else (hint,)) if a is not typing.Any)
    mistaken = isinstance(value, bool) and bool not in plain
    if plain and (mistaken or not isinstance(value, plain)):
        names = " or ".join(a.__name__ for a in plain)
        raise SettingsError(f"{where}={value!r} is a {type(value).__name__}; it must be {names}")
    return value


def require(holds: bool, message: str) -> None:
    """Raise SettingsError(message) unless `holds`."""
    if not holds:
        raise SettingsError(message)
