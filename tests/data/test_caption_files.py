"""Captions beside pictures: every name and form that people have, and a line for everything that is wrong."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from cns_jax.data.caption_files import caption_file, read_captions

ROW = '{"file_name": "1.png", "text": "a mug"}'


def read(folder: Path, *pictures: str) -> tuple[tuple[str | None, ...], list[str]]:
    problems: list[str] = []
    for name in pictures:
        (folder / name).touch()
    return read_captions(folder, [folder / name for name in pictures], problems), problems


@pytest.mark.parametrize("name", ["1.txt", "1.caption", "1.png.txt", "1.png.caption", "1.TXT", "1.PNG.txt"])
def test_names(tmp_path: Path, name: str) -> None:
    picture = "1.PNG" if "PNG" in name else "1.png"
    (tmp_path / name).write_text("a red mug\n")
    assert read(tmp_path, picture, "2.png") == (("a red mug", None), [])
    assert caption_file(tmp_path / picture).name == name
    assert caption_file(tmp_path / "2.png").name == "2.txt"


def test_a_file_goes_before_the_table_and_an_empty_one_says_nothing(tmp_path: Path) -> None:
    rows = [{"file_name": f"{n}.png", "text": f"row {n}"} for n in (1, 2)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "1.txt").write_text("beside")
    (tmp_path / "2.txt").write_text(" \n")
    assert read(tmp_path, "1.png", "2.png", "3.png") == (("beside", "row 2", None), [])


def test_one_file_of_two_pictures(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("a mug")
    (tmp_path / "1.png.txt").write_text("a mug")
    _, problems = read(tmp_path, "1.jpg", "1.png", "2.png")
    assert problems == [
        f"{tmp_path / '1.txt'} stands beside 1.jpg and 1.png; write 1.jpg.txt and 1.png.txt instead, or give the "
        "pictures other names"
    ]
    (tmp_path / "1.txt").unlink()
    assert read(tmp_path, "1.jpg", "1.png") == ((None, "a mug"), [])
    assert caption_file(tmp_path / "1.jpg").name == "1.jpg.txt"


@pytest.mark.parametrize(("text", "count"), [("a mug", 0), ("another mug", 1)])
def test_two_files_of_one_picture(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "1.txt").write_text("a mug\n")
    (tmp_path / "1.caption").write_text(text)
    captions, problems = read(tmp_path, "1.png")
    assert captions == (text if not count else captions[0],) and len(problems) == count
    assert all("1.caption" in p and "1.txt" in p and "differ; remove one" in p for p in problems)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('["1.png", "a mug"]', "found a list"),
        ("null", "found null"),
        ("3", "found a number"),
        ('"1.png"', "found a string"),
        ("not json", "(Expecting value"),
        ('{"file_name": "1.png"}', "found no 'text'"),
        ('{"text": "a mug"}', "found no 'file_name'"),
        ('{"file_name": "1.png", "text": ["a mug", "a cup"]}', "'text' is a list, it must be a string"),
        ('{"file_name": "1.png", "text": null}', "'text' is null"),
        ('{"file_name": "1.png", "text": 7}', "'text' is a number"),
        ('{"file_name": "1.png", "text": true}', "'text' is true or false"),
        ('{"file_name": ["1.png"], "text": "a"}', "'file_name' is a list"),
        ('{"file_name": {"a": 1}, "text": "a"}', "'file_name' is an object"),
        ('{"file_name": "2.png", "text": "a"}', "there is no picture '2.png'"),
        ('{"file_name": "1.png", "text": "\\ud83d"}', "has half a letter"),
        ("[" * 100_000, "brackets without end"),
        ('{"text": ' + "1" * 5000 + "}", "expected"),
        ('{"file_name": "1.png", "text": "another"}', "a second row of '1.png', after line 1; remove one"),
        (ROW, "a second row of '1.png', after line 1; remove one"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(f"{ROW}\n\n{line}\n")
    captions, problems = read(tmp_path, "1.png")
    assert captions == ("a mug",) and len(problems) == 1
    assert problems[0].startswith(f"{tmp_path / 'metadata.jsonl'}, line 3: ") and said in problems[0]


def test_a_row_of_a_picture_that_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(ROW + "\n" + ROW.replace("1.png", "2.heic"))
    (tmp_path / "2.heic").touch()
    assert read(tmp_path, "1.png") == (("a mug",), [])


def test_many_wrong_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps([{"file_name": "1.png"}] * 9, indent=1))
    _, problems = read(tmp_path, "1.png")
    assert len(problems) == 6 and "and 24 lines more that cannot be used" in problems[-1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["1.txt", "metadata.jsonl"])
def test_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    text = "a mug’s\u2028handle"  # a separator that splitlines would split at
    row = json.dumps({"file_name": "1.png", "text": text}, ensure_ascii=False)
    (tmp_path / name).write_text(text if name == "1.txt" else row, encoding=encoding)
    assert read(tmp_path, "1.png") == ((text,), [])


@pytest.mark.parametrize("name", ["1.txt", "metadata.jsonl"])
def test_other_encodings_are_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ROW.replace("a mug", "the mug’s").encode("cp1252"))
    captions, problems = read(tmp_path, "1.png")
    assert captions == (None,) and len(problems) == 1 and f"{tmp_path / name}, line 1: byte 0x92" in problems[0]


def test_names_of_macos_and_paths_in_the_table(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "café.png")
    rows = [{"file_name": "café.png", "text": "one"}, {"file_name": "./2.png", "text": "two"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path, apart, "2.png") == (("one", "two"), [])
