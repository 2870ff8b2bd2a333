"""Settings of any kind: they become dataclasses, or one SettingsError that names the setting."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import typing
import warnings
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cns_jax.core.files import FileError
from cns_jax.core.settings import SettingsError, build
from cns_jax.engine.runs.learned import Learned, read_settings
from cns_jax.engine.settings import RunSettings

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**63, 2**64, 10**400, -1, 0.5, math.nan, math.inf, -math.inf, 1e308]),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.binary(max_size=3),
)


def _leaves(kind: type, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all settings."""
    hints, out = typing.get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        inner = dataclasses.is_dataclass(hint) and isinstance(hint, type)
        out += _leaves(hint, (*prefix, field.name)) if inner else [(*prefix, field.name)]
    return out


PATHS = _leaves(RunSettings)


def _with(changes: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {"name": "x", "data_root": "miniature:1"}
    for path, value in changes:
        inner = values
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return values


@given(st.lists(st.tuples(st.sampled_from(PATHS), ODD), min_size=1, max_size=3))
@example([(("train", "steps"), 10**400)])
@example([(("method", "lambda1"), 10**400)])
@example([(("prior", "general"), math.nan)])
@example([(("concepts",), "abc")])
@example([(("concepts",), 3)])
def test_any_value_of_any_setting(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            built = build(RunSettings, _with(changes))
        except SettingsError as error:
            assert str(error)
        else:
            json.dumps(dataclasses.asdict(built))  # it can be kept


@given(st.dictionaries(st.text(max_size=5), ODD, max_size=3) | ODD)
def test_things_that_are_no_settings(value: Any) -> None:
    try:
        build(RunSettings, value)
    except SettingsError:
        return
    raise AssertionError("a run without a name")


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b"null"]))
@example(b'{"name": "x", "data_root": "d", "train": 3}')
@example(b"\x89PNG\r\n\x1a\n")
def test_a_damaged_config(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_bytes(data)
        for read in (lambda: read_settings(file), lambda: Learned.of(folder)):
            try:
                read()
            except (SettingsError, FileError) as error:
                assert "config.json" in str(error)
            else:
                raise AssertionError("read")
