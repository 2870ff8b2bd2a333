"""A configuration becomes frozen dataclasses once, at the door; below that no ConfigDict exists."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
NAME = "name"
"""The setting of a group that says which class the group is, where there are several."""


class SettingsError(ValueError):
    """A setting has an unknown name or a value that cannot work."""


def build(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Dataclass `cls` from a mapping, nested dataclasses from nested mappings, lists to tuples.

    Raises SettingsError naming an unknown key (with the closest known ones), a missing one, or a value of the wrong
    type.
    """
    return _build(cls, values, where, list(names_of(cls, where)))


def names_of(cls: type, prefix: str) -> Iterator[str]:
    """Dotted names of all settings below `prefix`, those of nested dataclasses after their own."""
    hints = typing.get_type_hints(cls)
    for field in (each.name for each in dataclasses.fields(cls)):  # type: ignore[arg-type]
        name, hint = f"{prefix}.{field}", hints[field]
        yield name
        if field in choices_of(cls):
            for chosen in choices_of(cls)[field].values():
                yield from names_of(chosen, name)
        inner, many = (typing.get_args(hint)[0], "[0]") if typing.get_origin(hint) is tuple else (hint, "")
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield from names_of(inner, name + many)


def _build(cls: type[T], values: Mapping[str, Any], where: str, known: Sequence[str]) -> T:
    if not isinstance(values, Mapping):
        raise SettingsError(f"{where}={values!r} is a {type(values).__name__}; it must be a group of settings")
    hints = typing.get_type_hints(cls)
    for field, table in choices_of(cls).items():
        if isinstance(values.get(field), Mapping):
            name = values[field].get(NAME, next(iter(table)))
            known_name = isinstance(name, str) and name in table
            require(known_name, f"{where}.{field}.{NAME}={name!r} must be one of {', '.join(table)}")
            hints[field] = table[name]
            values = {**values, field: _of_the_chosen(values[field], table[name], table.values())}
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    for key in values:
        if key not in {f.name for f in fields}:
            raise SettingsError(f"{where}.{key} is not a setting; {_near(str(key), hints, where, known)}")
    no_default = dataclasses.MISSING
    missing = [f.name for f in fields if f.default is no_default and f.default_factory is no_default]
    missing = [name for name in missing if name not in values]
    require(not missing, f"{where} says nothing of {', '.join(missing)}, which must be given")
    return cls(**{key: _value(hints[key], value, f"{where}.{key}", known) for key, value in values.items()})


def choices_of(cls: type) -> Mapping[str, Mapping[str, type]]:
    """What a dataclass says in CHOICES of fields whose class follows from the setting `name` in them: field ->
    (name -> class). The first class is taken where no name is given."""
    found: Mapping[str, Mapping[str, type]] = getattr(cls, "CHOICES", {})
    return found


def _of_the_chosen(values: Mapping[str, Any], chosen: type, others: Iterable[type]) -> dict[str, Any]:
    """`values` without what belongs to other classes alone, so that a configuration of one serves another, too, and
    without what is left empty."""
    own = {field.name for field in dataclasses.fields(chosen)}  # type: ignore[arg-type]
    known = {field.name for other in others for field in dataclasses.fields(other)}  # type: ignore[arg-type]
    return {key: value for key, value in values.items() if value is not None and (key in own or key not in known)}


def _near(key: str, siblings: Iterable[str], where: str, known: Sequence[str]) -> str:
    """A hint at settings whose names resemble `key`: of the same group, else of any other."""
    here = difflib.get_close_matches(key, siblings, 1)
    if here:
        return f"did you mean {where}.{here[0]}?"
    last = {name: name.rpartition(".")[2] for name in known if "[" not in name}
    alike = difflib.get_close_matches(key, set(last.values()), 1, 0.8)
    found = [name for name, own in last.items() if own in alike]
    if found:
        return f"did you mean {' or '.join(found)}?"
    return f"known: {', '.join(sorted(siblings))}"


def _value(hint: Any, value: Any, where: str, known: Sequence[str]) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where, known)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        require(listed, f"{where}={value!r} is a {type(value).__name__}; it must be a tuple")
        return tuple(_value(arguments[0], v, f"{where}[{i}]", known) for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise SettingsError(f"{where} is too large for a number of 64 bits") from None
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
