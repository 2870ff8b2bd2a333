"""The captions that lie beside pictures: 1.txt, 1.caption, 1.png.txt, and metadata.jsonl."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cns_jax.core.reading import TextError, read_text
from cns_jax.data.formats import is_picture
from cns_jax.data.stray import own

_SUFFIXES = (".txt", ".caption")
_MOST = 5  # lines of one file that are told as problems

Owners = Mapping[str, list[Path]]


def is_caption(path: Path) -> bool:
    """Whether a file may hold a picture's caption, by its name."""
    return path.suffix.lower() in _SUFFIXES


def is_metadata(path: Path) -> bool:
    """Whether a file is the table of captions."""
    return path.name.lower() == "metadata.jsonl"


def owners(pictures: Sequence[Path]) -> Owners:
    """Of each caption file's name without its ending, the pictures beside which it stands: 1.png of 1.png(.txt); 1.png,
    and 1.jpg if it is there, of 1(.txt)."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        for name in (picture.name, picture.stem):
            found[_plain(name)].append(picture)
    return found


def owners_of(file: Path, among: Owners) -> list[Path]:
    """The pictures beside which a file stands as their caption; none if it is no caption file."""
    return among.get(_plain(file.stem), []) if file.suffix.lower() in _SUFFIXES else []


def caption_file(picture: Path) -> Path:
    """Where a picture's caption is, or is to be written: 1.txt, or 1.png.txt where 1.jpg stands beside 1.png."""
    inside = own(picture.parent)
    among = owners([p for p in inside if is_picture(p)])
    found = [f for f in inside if owners_of(f, among) == [picture]]
    if found:
        return found[0]
    shared = len(among[_plain(picture.stem)]) > 1
    return picture.with_name(f"{picture.name}.txt") if shared else picture.with_suffix(".txt")


def read_captions(folder: Path, paths: Sequence[Path], problems: list[str]) -> tuple[str | None, ...]:
    """Of each picture: from its own file, else from metadata.jsonl ({"file_name", "text"}), else None.

    What is wrong is added to `problems`: bytes that are no text, rows that are none, a file of two pictures, and two
    files of one picture that say different things.
    """
    inside = own(folder) if folder.is_dir() else []
    table: dict[str, str] = {}
    for file in filter(is_metadata, inside):
        if file.is_file():
            table |= _metadata(file, paths, problems)
    said: dict[Path, dict[Path, str]] = defaultdict(dict)
    among = owners(paths)
    for file in inside:
        beside = owners_of(file, among) if file.is_file() else []
        text = _text(file, problems) if beside else ""
        if text and len(beside) > 1:
            names = " and ".join(p.name for p in beside)
            instead = " and ".join(f"{p.name}{file.suffix}" for p in beside)
            problems.append(f"{file} stands beside {names}; write {instead} instead, or give the pictures other names")
        elif text:
            said[beside[0]][file] = text
    for texts in said.values():
        if len(set(texts.values())) > 1:
            files = " and ".join(str(file) for file in texts)
            problems.append(f"{files} are captions of one picture and differ; remove one")
    return tuple(next(iter(said[p].values())) if p in said else table.get(_plain(p.name)) or None for p in paths)


def _text(file: Path, problems: list[str]) -> str:
    try:
        return read_text(file).strip()
    except TextError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{file} cannot be read ({error.strerror})")
    return ""


def _metadata(file: Path, paths: Sequence[Path], problems: list[str]) -> dict[str, str]:
    names = {_plain(p.name) for p in paths}
    left_out = {_plain(p.name) for p in file.parent.iterdir()} - names
    wrong: list[str] = []
    table: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(_text(file, problems).split("\n"), 1):  # splitlines would split within a string
        if not line.strip():
            continue
        try:
            name, text = _row(line)
        except ValueError as error:
            wrong.append(f"{file}, line {number}: {error}")
            continue
        if name in left_out:  # told by who reads the pictures
            continue
        if name not in names:
            wrong.append(f"{file}, line {number}: there is no picture {name!r} in {file.parent}")
        elif name in table:
            wrong.append(f"{file}, line {number}: a second row of {name!r}, after line {lines[name]}; remove one")
        else:
            table[name], lines[name] = text, number
    if len(wrong) > _MOST:
        wrong = [*wrong[:_MOST], f"{file}: and {len(wrong) - _MOST} lines more that cannot be used"]
    problems += wrong
    return table


_EXAMPLE = '{"file_name": "1.png", "text": "a photo of a cat"}'


def _row(line: str) -> tuple[str, str]:
    """(file's name, caption) of one line. Raises ValueError saying what is wrong with it."""
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError(f"expected {_EXAMPLE}, found brackets without end") from None
    except ValueError as error:
        raise ValueError(f"expected {_EXAMPLE} ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected {_EXAMPLE}, found {_kind(row)}")
    for key in ("file_name", "text"):
        if key not in row:
            raise ValueError(f"expected {_EXAMPLE}, found no {key!r}")
        if not isinstance(row[key], str):
            raise ValueError(f"{key!r} is {_kind(row[key])}, it must be a string")
        if re.search("[\ud800-\udfff]", row[key]):
            raise ValueError(f"{key!r} has half a letter (a lone surrogate); write the whole letter")
    return _plain(str(PurePosixPath(row["file_name"]))), row["text"].strip()


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _plain(name: str) -> str:
    """A file's name as any system spells it: macOS takes accents apart, others do not."""
    return unicodedata.normalize("NFC", name)
