"""A file is whole or as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from cns_jax.core.files import replacing


def test_replaces(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "a.json"
    for text in ("one", "two"):
        with replacing(file) as temporary:
            assert temporary.suffix == ".json" and temporary != file
            temporary.write_text(text)
        assert file.read_text() == text
    assert [p.name for p in file.parent.iterdir()] == ["a.json"]


def test_two_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with replacing(file) as one:
        one.write_text("one")
        with replacing(file) as other:
            other.write_text("other")
    assert file.read_text() == "one" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]
