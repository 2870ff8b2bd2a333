"""A page of all settings, read from their dataclasses: name, type, default, and what the docstring says of each."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from cns_jax.core.settings import NAME, SettingsError, choices_of


def entries(cls: type) -> dict[str, str]:
    """What the docstring of dataclass `cls` says of its fields.

    An entry is "field: text", "one, other: text" or "field (aside): text", and ends where the next one begins, or with
    the paragraph. Entries may follow each other in a line, after a semicolon or a full stop, or have lines of their
    own. The first of a field counts.
    """
    fields = {field.name for field in dataclasses.fields(cls)}
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(cls.__doc__ or "")):
        text = " ".join(paragraph.split())
        heads = [
            (match.start(), match.end(), re.findall(r"\w+", match[1].replace(" and ", " ")), match[2] or "")
            for match in re.finditer(r"(?:(?<=[;.:)] )|^)((?:\w+(?:, | and ))*\w+)(?: \(([^()]*)\))?: ", text)
        ]
        heads = [head for head in heads if set(head[2]) <= fields]
        ends = [head[0] for head in heads[1:]] + [len(text)]
        for (_, start, names, aside), end in zip(heads, ends, strict=False):  # no heads, one end
            told = "; ".join(filter(None, (aside, text[start:end].strip().rstrip(";."))))
            found = dict.fromkeys(names, told) | found
    return found


def reference(cls: type, title: str) -> str:
    """A Markdown page of the settings of `cls` and of the dataclasses in it, a section each.

    Raises SettingsError naming the fields that no docstring explains.
    """
    parts, silent = [title.rstrip() + "\n"], list[str]()
    for group in _groups(_Group(cls, "", "The run", None)):
        parts.append(f"## {group.heading}\n")
        parts += [prose] if (prose := _prose(group.cls)) else []
        told, hints = entries(group.cls), typing.get_type_hints(group.cls)
        for field in dataclasses.fields(group.cls):
            name, inner = group.name_of(field), _inner(group, field)
            if inner:
                parts.append(f"- `{name}`: see {' or '.join(f'[{g.heading}]({_anchor(g.heading)})' for g in inner)}")
                continue
            if not told.get(field.name):
                silent.append(f"{group.cls.__name__}.{field.name}")
            kind = _kind(hints[field.name])
            parts.append(f"- `{name}` ({kind}, {_default(field, group.given)}): {told.get(field.name)}")
        parts.append("")
    if silent:
        raise SettingsError(f"no docstring explains {', '.join(silent)}")
    return "\n".join(parts).rstrip() + "\n"


class _Group(NamedTuple):
    """A section of the page. prefix: dotted name of its settings; given: their values by default, if the dataclass
    around them gives any."""

    cls: type
    prefix: str
    heading: str
    given: object

    def name_of(self, field: dataclasses.Field[Any]) -> str:
        return f"{self.prefix}.{field.name}".lstrip(".")


def _groups(group: _Group) -> Iterator[_Group]:
    """`group` and those in it."""
    yield group
    for field in dataclasses.fields(group.cls):
        for inner in _inner(group, field):
            yield from _groups(inner)


def _inner(group: _Group, field: dataclasses.Field[Any]) -> list[_Group]:
    """Those that a field stands for: none of a plain value, several where another setting chooses among them."""
    hint, name = typing.get_type_hints(group.cls)[field.name], group.name_of(field)
    made = getattr(group.given, field.name) if group.given else field.default_factory
    value = made() if callable(made) else made

    def of(cls: type, name: str, heading: str) -> _Group:
        return _Group(cls, name, heading, value if isinstance(value, cls) else None)

    if field.name in choices_of(group.cls):
        table = choices_of(group.cls)[field.name]
        return [of(cls, name, f"{name} with {name}.{NAME}={chosen}") for chosen, cls in table.items()]
    cls, many = _dataclass(hint), "[0]" if typing.get_origin(hint) is tuple else ""
    return [of(cls, name + many, name + many)] if cls else []


def _anchor(heading: str) -> str:
    """As GitHub makes one of a heading."""
    return "#" + re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


def _dataclass(hint: Any) -> type | None:
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
    return inner if dataclasses.is_dataclass(inner) and isinstance(inner, type) else None


def _prose(cls: type) -> str:
    """The first sentence of its docstring, where that is no entry."""
    first = " ".join(re.split(r"\n\s*\n", inspect.cleandoc(cls.__doc__ or ""))[0].split())
    sentence = re.split(r"(?<=\.) ", first)[0]
    return "" if any(sentence.startswith((f"{name}:", f"{name},")) for name in entries(cls)) else sentence + "\n"


def _kind(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is tuple:
        return f"tuple of {_kind(arguments[0])}"
    return "None" if hint is type(None) else str(getattr(hint, "__name__", hint))


def _default(field: dataclasses.Field[Any], given: object) -> str:
    if given is not None:
        value = getattr(given, field.name)
        return f'"{value}"' if isinstance(value, str) else str(value)
    if field.default is not dataclasses.MISSING:
        return f'"{field.default}"' if isinstance(field.default, str) else str(field.default)
    return "()" if field.default_factory is not dataclasses.MISSING else "must be given"
