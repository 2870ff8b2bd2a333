"""What people say of a concept: in the configuration, on the command line, in concept.toml beside its pictures."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cns_jax.core.reading import TextError, read_text
from cns_jax.core.settings import SettingsError
from cns_jax.core.types import KINDS
from cns_jax.text.vocabulary import CONCEPT_TOKEN

FILE = "concept.toml"


@dataclass(frozen=True)
class ConceptSpec:
    """What is said of a concept; an empty string and 0 say nothing. What nobody says is filled from the name: folder,
    token "<name>", kind subject, class word = the name's last word without digits. steps: 0 means train.steps."""

    name: str
    folder: str = ""
    token: str = ""
    class_word: str = ""
    kind: str = ""
    init_word: str = ""
    steps: int = 0

    def over(self, other: ConceptSpec) -> ConceptSpec:
        """What is said here, and of the rest what `other` says."""
        said = {f.name: getattr(self, f.name) or getattr(other, f.name) for f in dataclasses.fields(self)}
        return ConceptSpec(**said)


_KEYS = ("class_word", "kind", "token", "init_word", "steps")


def read_file(folder: Path, name: str, problems: list[str]) -> ConceptSpec:
    """What concept.toml in `folder` says of concept `name`; what is wrong in it is added to `problems`."""
    file = folder / FILE
    if not file.is_file():
        return ConceptSpec(name)
    try:
        values = tomllib.loads(read_text(file))
    except (TextError, OSError) as error:
        problems.append(str(error))
    except (ValueError, RecursionError) as error:  # not only tomllib's own: of endless brackets and numbers, too
        problems.append(f'{file}: {error}; write lines as  class_word = "cat"')
    else:
        return _spec(name, values, str(file), problems)
    return ConceptSpec(name)


def read_flags(flags: Iterable[str]) -> tuple[ConceptSpec, ...]:
    """The texts "my_cat: class_word=cat, kind=style" of the flag --concept; of one concept the later flag wins.

    Raises SettingsError listing all that is wrong.
    """
    specs: dict[str, ConceptSpec] = {}
    problems: list[str] = []
    for flag in flags:
        where = f'--concept="{flag}"'
        found = re.fullmatch(r"\s*(.+?)\s*:\s*(\w+\s*=.*)", flag, re.S)
        if not found:
            problems.append(f"{where} must read NAME: KEY=VALUE, ... as in {_example('my_cat')}")
            continue
        name, pairs = found[1], [part.partition("=") for part in found[2].split(",") if part.strip()]
        values: dict[str, Any] = {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}
        if len(values) < len(pairs):
            problems.append(f"{where} gives a key twice")
        if re.fullmatch(r"[+-]?\d{1,18}", values.get("steps", "")):
            values["steps"] = int(values["steps"])
        said = _spec(name, values, where, problems)
        specs[name] = said.over(specs[name]) if name in specs else said
    if problems:
        raise SettingsError("\n".join(problems))
    return tuple(specs.values())


def how_to_say(name: str, key: str, value: str = "...") -> str:
    """How to give a concept's `key`: the two ways, literally."""
    return f'write  {key} = "{value}"  into {FILE} beside its pictures, or give {_example(name, key, value)}'


def _example(name: str, key: str = "class_word", value: str = "cat") -> str:
    return f'--concept="{name}: {key}={value}"'


def _spec(name: str, values: Mapping[str, Any], where: str, problems: list[str]) -> ConceptSpec:
    good: dict[str, Any] = {}
    for key, value in values.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_KEYS)}"
            problems.append(f"{where}: there is no {key!r}; {hint}")
            continue
        why = _wrong(key, value)
        if why:
            problems.append(f"{where}: {key} = {value!r} {why}")
        else:
            good[key] = value.strip() if isinstance(value, str) else value
    return ConceptSpec(name, **good)


def _wrong(key: str, value: Any) -> str | None:
    if key == "steps":
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole and value >= 0 else "must be a whole number, not negative; 0 is train.steps"
    if not isinstance(value, str):
        return "must be a string"
    if not value.isprintable():
        return "must be letters that can be printed, in one line"
    return check_value(key, value.strip())


def check_value(key: str, value: str) -> str | None:
    """Why a concept cannot have this token or kind; None if it can."""
    if key == "token" and value and not CONCEPT_TOKEN.fullmatch(value):
        return "must look like <cat1> (a-z, 0-9, _ and - between < and >)"
    if key == "kind" and value not in ("", *KINDS):
        return f"must be one of {', '.join(KINDS)}"
    return None
