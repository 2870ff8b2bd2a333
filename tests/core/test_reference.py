"""The page of all settings: it is of today, leaves nothing out, and reads docstrings in prose and in lists."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from cns_jax.core.reference import entries, reference
from cns_jax.core.settings import SettingsError, names_of
from cns_jax.engine.settings import TITLE, RunSettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_of_today() -> None:
    now = reference(RunSettings, TITLE)
    assert now == PAGE.read_text(), "python -m cns_jax.train --help_settings > docs/settings.md"
    for name in names_of(RunSettings, ""):
        assert f"- `{name[1:]}`" in now


@dataclass(frozen=True)
class Inner:
    """steps: how many (0: none); one, other: of both kinds. Not a field: this. last (a flag): the end

    one and last: another word
    """

    steps: int = 3
    one: float = 1e-3
    other: float = 2.0
    last: bool = False


@dataclass(frozen=True)
class Outer:
    """A whole. Notes: none.

    name: of it,
        over two lines.
    kind: a or b.

    inner: never read, it has its own.
    """

    name: str
    kind: Literal["a", "b"] = "a"
    maybe: int | None = None
    inner: Inner = field(default_factory=lambda: Inner(steps=5))


def test_entries_in_prose_and_in_lists() -> None:
    told = entries(Inner)
    assert told["steps"] == "how many (0: none)" and told["last"] == "a flag; the end"
    assert told["one"] == told["other"] and told["one"].startswith("of both kinds")
    assert entries(Outer)["name"] == "of it, over two lines" and entries(Outer)["kind"] == "a or b"


def test_a_field_without_a_text_is_named() -> None:
    with pytest.raises(SettingsError, match="no docstring explains Outer.maybe$"):
        reference(Outer, "# Title")


def test_types_and_defaults() -> None:
    Outer.__doc__ = f"{Outer.__doc__}\n\nmaybe: perhaps"
    page = reference(Outer, "# Title")
    assert "- `name` (str, must be given): of it" in page and '- `kind` ("a" or "b", "a"): a or b' in page
    assert "- `maybe` (int or None, None): perhaps" in page and "- `inner`: see [inner](#inner)" in page
    assert "- `inner.steps` (int, 5): how many" in page  # as the outer one gives it
    assert dataclasses.fields(Inner)[0].default == 3


@dataclass(frozen=True)
class Other:
    """The other one.

    weight: of it.
    """

    weight: float = 0.5


@dataclass(frozen=True)
class Chosen:
    """of: one of both"""

    of: Inner | Other = field(default_factory=lambda: Inner(steps=7))

    CHOICES = {"of": {"inner": Inner, "other": Other}}  # noqa: RUF012


def test_a_field_whose_class_another_one_chooses_has_a_section_a_class() -> None:
    page = reference(Chosen, "# Title")
    assert (
        "- `of`: see [of with of.name=inner](#of-with-ofnameinner) or [of with of.name=other](#of-with-ofnameother)"
        in page
    )
    assert "## of with of.name=inner\n" in page and "- `of.steps` (int, 7): how many" in page
    assert "## of with of.name=other\n" in page and "- `of.weight` (float, 0.5): of it" in page
    assert {".of.steps", ".of.weight"} <= set(names_of(Chosen, ""))
