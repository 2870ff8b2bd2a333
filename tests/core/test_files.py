"""A file is whole or as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from cns_jax.core.files import FileError, read_json, replacing, require_keys


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"name": "x"', "is not JSON .line 1: "),
        (b"\x89PNG\r\n", "is not JSON .no text"),
        (b"", "is not JSON .line 1: Expecting value"),
        (b"[1]", "holds a JSON list; an object is expected"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(FileError, match=said) as told:
        read_json(file)
    assert str(told.value).startswith(str(file))
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_json_keys() -> None:
    require_keys({"a": "x", "b": [1], "c": 0}, {"a": str, "b": list}, "file")
    for value, said in (
        ({"b": []}, "file: 'a' is missing; str is expected"),
        ({"a": 1}, "'a' is a int"),
        (3, "file is a int"),
    ):
        with pytest.raises(FileError, match=said):
            require_keys(value, {"a": str}, "file")
