"""Names of pictures: numbered up, never those of others, readable in every script."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cns_jax.engine.draw.naming import Numbered, slug


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A photo of a <tiger_cat> cat!", "a_photo_of_a_tiger_cat_cat"),
        ("фото кота", "foto_kota"),
        ("猫", "mao"),
        ("été", "ete"),
        ("😀", "grinning"),
        ("", "picture"),
        ("???", "picture"),
        ("../../etc/passwd\0\n", "etc_passwd"),
        ("x" * 59 + " yes", "x" * 59),
        ("\udcff", "picture"),
    ],
)
def test_slugs(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_numbers_go_on(tmp_path: Path) -> None:
    first = Numbered(tmp_path)
    assert [first.write("cat", b"a").name for _ in range(2)] == ["cat_00000.png", "cat_00001.png"]
    (tmp_path / "cat_00041.png").write_bytes(b"theirs")
    (tmp_path / "cat_7.png").write_bytes(b"of an older version")
    (tmp_path / "cat_nap_00099.png").write_bytes(b"another prompt's")
    again = Numbered(tmp_path)
    assert again.write("cat", b"b").name == "cat_00042.png"
    assert again.write("dog", b"b").name == "dog_00000.png"
    assert (tmp_path / "cat_00041.png").read_bytes() == b"theirs"
    assert not list(tmp_path.glob(".*"))


def test_overwrite_begins_from_zero(tmp_path: Path) -> None:
    for data in (b"old", b"new"):
        files = Numbered(tmp_path, overwrite=True)
        names = [files.write("cat", data).name for _ in range(2)]
    assert names == ["cat_00000.png", "cat_00001.png"]
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"new"}


@pytest.mark.parametrize("links", [True, False])
def test_writers_at_once_never_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:  # as on exFAT

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    folders = [Numbered(tmp_path) for _ in range(8)]
    for folder in folders:
        assert folder._first("cat") == 0  # all have looked before any of them writes
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda i: [folders[i].write("cat", b"%d" % i) for _ in range(5)], range(8)))
    files = [file for some in written for file in some]
    assert len(set(files)) == 40
    assert all(file.read_bytes() == b"%d" % i for i, some in enumerate(written) for file in some)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Numbered(tmp_path / "file")
