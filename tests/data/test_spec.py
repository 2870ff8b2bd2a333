"""What is said of a concept: concept.toml, the flag --concept, and which goes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from cns_jax.core.settings import SettingsError
from cns_jax.data.spec import ConceptSpec, read_file, read_flags

ALL = ConceptSpec("my_cat", "", "<x>", "cat", "style", "y", 300)


def toml(folder: Path, text: str, encoding: str = "utf-8") -> tuple[ConceptSpec, list[str]]:
    problems: list[str] = []
    (folder / "concept.toml").write_text(text, encoding=encoding)
    return read_file(folder, "my_cat", problems), problems


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_file(tmp_path: Path, encoding: str) -> None:
    text = 'class_word = " cat " # noun\nkind = "style"\ntoken = "<x>"\ninit_word = "y"\nsteps = 300\n'
    assert toml(tmp_path, text, encoding) == (ALL, [])
    assert read_file(tmp_path / "none", "my_cat", []) == ConceptSpec("my_cat")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('clas_word = "cat"', "there is no 'clas_word'; did you mean class_word?"),
        ('[concept]\nkind = "style"', "there is no 'concept'; known: class_word, kind, token, init_word, steps"),
        ("class_word = 5", "class_word = 5 must be a string"),
        ('class_word = ["cat"]', "class_word = ['cat'] must be a string"),
        ('kind = "thing"', "kind = 'thing' must be one of subject, style, scene"),
        ('token = "sks"', "token = 'sks' must look like <cat1>"),
        ('steps = "300"', "steps = '300' must be a whole number"),
        ("steps = -1", "steps = -1 must be a whole number, not negative"),
        ("steps = true", "steps = True must be a whole number"),
        ('class_word = "a\\nb"', "must be letters that can be printed, in one line"),
        ("steps = 3.5", "steps = 3.5 must be a whole number"),
        ("a = " + "[" * 20_000, "recursion"),
        ("steps = " + "1" * 5000, "digits"),
        ("class_word = cat", "(at line 1, column 14)"),
        ('kind = "style"\nkind = "scene"', "Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str, said: str) -> None:
    spec, problems = toml(tmp_path, text)
    assert spec == ConceptSpec("my_cat") and len(problems) == 1
    assert problems[0].startswith(str(tmp_path / "concept.toml")) and said in problems[0]


def test_bytes_of_a_file(tmp_path: Path) -> None:
    _, problems = toml(tmp_path, 'class_word = "é"', "cp1252")
    assert len(problems) == 1 and "concept.toml, line 1: byte 0xe9" in problems[0]


@pytest.mark.parametrize(
    "flags",
    [
        ["my_cat: class_word=cat, kind=style, token=<x>, init_word=y, steps=300"],
        [" my_cat :class_word = 'cat' ,kind=style,token=<x>,", 'my_cat: steps=300, init_word="y"'],
        ["my_cat: class_word=dog, steps=5", "my_cat: class_word=cat, kind=style, token=<x>, init_word=y, steps=300"],
    ],
)
def test_flags(flags: list[str]) -> None:
    assert read_flags(flags) == (ALL,)


def test_flags_of_several_concepts() -> None:
    dog = "10_sks dog"
    assert read_flags([f"{dog}: kind=style", "c:d: steps=7"]) == (
        ConceptSpec(dog, kind="style"),
        ConceptSpec("c:d", steps=7),
    )
    assert read_flags([]) == ()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("my_cat", 'must read NAME: KEY=VALUE, ... as in --concept="my_cat: class_word=cat"'),
        ("class_word=cat", "must read NAME: KEY=VALUE"),
        (": kind=style", "must read NAME: KEY=VALUE"),
        ("my_cat: knid=style", "there is no 'knid'; did you mean kind?"),
        ("my_cat: kind=style, scene", "there is no 'scene'"),
        ("my_cat: kind=thing", "must be one of subject, style, scene"),
        ("my_cat: steps=many", "steps = 'many' must be a whole number"),
        ("my_cat: steps=-3", "steps = -3 must be a whole number, not negative"),
        ("my_cat: kind=style, kind=scene", "gives a key twice"),
    ],
)
def test_what_is_wrong_in_a_flag(flag: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_flags([flag])
    assert f'--concept="{flag}"' in str(caught.value) and said in str(caught.value)


def test_all_flags_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_flags(["a", "b: kind=c"])
    assert len(str(caught.value).splitlines()) == 2


def test_what_is_said_first_stays() -> None:
    first, second = ConceptSpec("a", token="<x>", steps=5), ConceptSpec("a", token="<y>", kind="style")
    assert first.over(second) == ConceptSpec("a", token="<x>", kind="style", steps=5)
