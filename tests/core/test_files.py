"""A file is whole or as it was."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from cns_jax.core import files
from cns_jax.core.files import FileError, copy_folder, read_json, replacing, require_keys, save_tensors


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


@pytest.fixture(params=[0o022, 0o027, 0o002])
def wanted(request: pytest.FixtureRequest) -> Iterator[int]:
    """The mode of a new file."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_mode_follows_the_umask_whatever_writes(tmp_path: Path, wanted: int) -> None:
    file, private = tmp_path / "a.safetensors", tmp_path / "b.txt"
    for _ in range(2):
        save_tensors(file, {"a": np.ones(2)})  # by itself safetensors makes 0600
        assert mode(file) == wanted
        file.chmod(0o600)
    private.touch(0o600)
    with replacing(private) as temporary:
        temporary.write_text("x")
    assert mode(private) == wanted


def test_a_copy_can_be_deleted(tmp_path: Path, wanted: int) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "a").write_text("a")
    for path, of in ((source / "below" / "a", 0o400), (source / "below", 0o500), (source, 0o500)):
        path.chmod(of)
    copy_folder(source, tmp_path / "copy")
    assert (tmp_path / "copy" / "below" / "a").read_text() == "a" and mode(tmp_path / "copy" / "below" / "a") == wanted
    assert mode(tmp_path / "copy") == mode(tmp_path / "copy" / "below") == wanted | (wanted & 0o444) >> 2
    shutil.rmtree(tmp_path / "copy")
    for path in (source, source / "below"):
        path.chmod(0o700)


def test_a_full_disk_is_an_error_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match=r"a\.safetensors cannot be written .*No space left"):
        save_tensors(tmp_path / "a.safetensors", {"a": np.ones(2)})
    assert not list(tmp_path.iterdir())


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
