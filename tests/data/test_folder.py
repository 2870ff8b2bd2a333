"""Folders to concepts: names, captions, and every mistake told before training."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from cns_jax.core.types import SCENE, STYLE, Concept
from cns_jax.data import captions, prompts
from cns_jax.data.folder import DataError, discover, merge, read_concepts
from cns_jax.data.spec import ConceptSpec


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), (200, 40, 40)).save(folder / name)
    return folder


def test_plain_folders(tmp_path: Path) -> None:
    fill(tmp_path / "my_cat", "b.JPG", "a.png", ".hidden.png")
    (tmp_path / "my_cat" / "a.txt").write_text("a cat on a sofa\n")
    (tmp_path / "my_cat" / "notes.md").write_text("not a picture")
    fill(tmp_path / "red_mug", "1.webp", "2.png")
    rows = [{"file_name": "1.webp", "text": "a mug in the snow"}]
    (tmp_path / "red_mug" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / ".cache").mkdir()
    cat, mug = read_concepts(tmp_path, discover(tmp_path))
    assert (cat.name, cat.token, cat.class_word) == ("my_cat", "<my_cat>", "cat")
    assert [p.name for p in cat.image_paths] == ["a.png", "b.JPG"]
    assert cat.captions == ("a cat on a sofa", None)
    assert mug.captions == ("a mug in the snow", None)
    assert captions.training_prompts(cat) == ["a <my_cat> cat on a sofa", "a photo of a <my_cat> cat"]
    assert captions.scoring_captions(cat) == ["a cat on a sofa", "a photo of a cat"]


def test_all_problems_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "cat", "a.png")
    (tmp_path / "cat" / "b.png").write_bytes(b"")
    fill(tmp_path / "empty")
    fill(tmp_path / "mug", "a.png")
    (tmp_path / "mug" / "metadata.jsonl").write_text('{"file_name": "z.png", "text": "x"}\nnot json\n')
    specs = [
        ConceptSpec("cat"),
        ConceptSpec("empty", token="<cat>"),
        ConceptSpec("mug", token="mug!", kind="thing"),
        ConceptSpec("dgo"),
    ]
    with pytest.raises(DataError) as caught:
        read_concepts(tmp_path, specs)
    said = str(caught.value)
    for part in (
        f"{tmp_path / 'cat' / 'b.png'} is empty",
        f"{tmp_path / 'empty'} holds no pictures",
        "'cat' and 'empty' share the token <cat>; give each its own",
        "token 'mug!' must look like <cat1>",
        "kind 'thing' must be one of subject, style, scene",
        "there is no picture 'z.png'",
        "metadata.jsonl, line 2: expected",
        f"{tmp_path / 'dgo'} does not exist; {tmp_path} has: cat, empty, mug",
    ):
        assert part in said, said


@pytest.mark.parametrize(("make", "said"), [(False, "is not a folder"), (True, "has no sub-folders")])
def test_bad_root(tmp_path: Path, make: bool, said: str) -> None:
    root = tmp_path / "root"
    if make:
        fill(root, "a.png")
    with pytest.raises(DataError, match=said):
        discover(root)


def test_pictures_in_the_root(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.jpg")
    (tmp_path / ".DS_Store").touch()
    said = (
        f"holds 2 pictures itself and has no sub-folders; put each .* into a folder of its own, e.g. {tmp_path}/my_cat"
    )
    with pytest.raises(DataError, match=said):
        discover(tmp_path)


def test_what_lies_beside_the_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (fill(tmp_path / "red_mug", "1.png") / "Thumbs.db").touch()
    fill(tmp_path, "stray.png")
    (tmp_path / "cat.zip").touch()
    (tmp_path / ".DS_Store").touch()
    for name in (
        "__MACOSX/red_mug",
        "@eaDir",
        "$RECYCLE.BIN",
        "lost+found",
        ".ipynb_checkpoints",
        "System Volume Information",
    ):
        fill(tmp_path / name, "._1.png")
    assert [c.name for c in read_concepts(tmp_path, discover(tmp_path))] == ["red_mug"]
    assert caplog.messages == [f"{tmp_path}: left out beside the folders: 1 .png, 1 .zip"]
    (tmp_path / "dog").symlink_to("gone")
    (tmp_path / "red_mug" / "2.png").touch()
    with pytest.raises(DataError) as caught:
        read_concepts(tmp_path, discover(tmp_path))
    assert len(str(caught.value).splitlines()) == 2 and "2.png is empty" in str(caught.value)
    assert f"{tmp_path / 'dog'} is a link to gone, which is not there" in str(caught.value)


def test_names_in_other_scripts_and_with_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, name in enumerate(("10_sks dog", "5_mug", "cat", "мой_пёс", "моя_кошка", "猫")):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(fill(tmp_path / name) / "1.png")
    concepts = read_concepts(tmp_path, discover(tmp_path))
    tokens = ["<sks_dog>", "<mug>", "<cat>", "<moy_pes>", "<moya_koshka>", "<mao>"]
    assert [c.token for c in concepts] == tokens
    assert caplog.messages[0].startswith("the numbers before 10_sks dog, 5_mug are kohya's repeats; they are ignored")
    named = [f"{c.name}: its token is {c.token}" for c in concepts if c.name != "cat"]
    assert caplog.messages[1:] == named
    read_concepts(tmp_path, discover(tmp_path), quiet=True)
    assert len(caplog.messages) == 1 + len(named)


def test_names_that_give_no_token_of_their_own(tmp_path: Path) -> None:
    for name in ("10_dog", "20_dog", "‽", "a\x85b", "c" * 201, os.fsdecode(b"caf\xe9")):
        fill(tmp_path / name, "1.png")
    with pytest.raises(DataError) as caught:
        read_concepts(tmp_path, discover(tmp_path))
    said = str(caught.value)
    for part in (
        "'10_dog' and '20_dog' share the token <dog>; give each its own: write  token = \"<dog2>\"  into concept.toml",
        '--concept="20_dog: token=<dog2>"',
        '‽: its name gives no token; write  token = "<concept1>"  into concept.toml beside its pictures, or give',
        "'a\\x85b': a folder's name must be letters that can be printed; rename the folder",
        f"{'c' * 201}: a folder's name may have 200 bytes, since files are called after it; rename the folder",
        "'caf\\udce9': a folder's name must be letters",
    ):
        assert part in said, said


def test_a_picture_of_two_concepts_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "cat", "1.png")
    fill(tmp_path / "dog", "2.png")
    read_concepts(tmp_path, discover(tmp_path))
    assert f"{tmp_path / 'dog' / '2.png'} is the same file as {tmp_path / 'cat' / '1.png'}" in caplog.text


def test_who_is_heard_first(tmp_path: Path) -> None:
    """--concept, the configuration, concept.toml, the name."""
    (fill(tmp_path / "my_cat", "1.png") / "concept.toml").write_text(
        'class_word = "file"\nkind = "style"\ntoken = "<file>"\ninit_word = "file"\nsteps = 7\n'
    )
    (cat,) = read_concepts(tmp_path, [ConceptSpec("my_cat")])
    assert (cat.class_word, cat.kind, cat.token, cat.init_word, cat.steps) == ("file", STYLE, "<file>", "file", 7)
    of_config = ConceptSpec("my_cat", class_word="config", kind="subject", token="<config>")
    (cat,) = read_concepts(tmp_path, merge(tmp_path, [of_config], [ConceptSpec("my_cat", token="<flag>", steps=9)]))
    assert (cat.class_word, cat.kind, cat.token, cat.init_word, cat.steps) == ("config", "subject", "<flag>", "file", 9)
    (tmp_path / "my_cat" / "concept.toml").unlink()
    (cat,) = read_concepts(tmp_path, [ConceptSpec("my_cat")])
    assert (cat.class_word, cat.kind, cat.token, cat.init_word, cat.steps) == ("cat", "subject", "<my_cat>", None, 0)


@pytest.mark.parametrize(("name", "hint"), [("my_cta", "did you mean my_cat"), ("xyz", "there are: my_cat, tea_mug")])
def test_concepts_that_are_not_there(tmp_path: Path, name: str, hint: str) -> None:
    for known in ("my_cat", "tea_mug"):
        fill(tmp_path / known, "1.png")
    with pytest.raises(DataError) as caught:
        merge(tmp_path, discover(tmp_path), [ConceptSpec(name, kind=STYLE)])
    assert str(caught.value).startswith(f'--concept="{name}: ...": there is no concept {name!r}; {hint}')


def test_what_is_said_is_known_before_a_picture_is_read(tmp_path: Path) -> None:
    """So that a longer lesson can be asked for in concept.toml; what is wrong there is told with all else."""
    (fill(tmp_path / "cat") / "concept.toml").write_text("steps = 7\nknid = 1\n")
    (cat,) = merge(tmp_path, discover(tmp_path), ())
    assert cat == ConceptSpec("cat", steps=7)
    with pytest.raises(DataError) as caught:
        read_concepts(tmp_path, [cat])
    wrong, none = str(caught.value).splitlines()
    assert wrong == f"{tmp_path / 'cat' / 'concept.toml'}: there is no 'knid'; did you mean kind?"
    assert "holds no pictures" in none


@pytest.mark.parametrize(
    ("kind", "noun", "caption", "wanted"),
    [
        ("subject", "cat", "a photo of an old Cat and a cat", "a photo of an old <x> Cat and a cat"),
        ("subject", "umbrella", "a photo of an umbrella", "a photo of a <x> umbrella"),
        ("subject", "cat", "a concatenation", "a concatenation, <x> cat"),
        (STYLE, "painting", "a painting of a dog", "a <x> painting of a dog"),
        (STYLE, "painting", "a dog", "a dog in the style of <x>"),
        (SCENE, "beach", "a dog on the beach", "a dog on the <x> beach"),
        ("subject", "cat", "a photo of <x> on a sofa", "a photo of <x> on a sofa"),  # as some people write them
        ("subject", "cat", "a photo of a <X> cat", "a photo of a <X> cat"),
    ],
)
def test_token_goes_before_the_noun(kind: str, noun: str, caption: str, wanted: str) -> None:
    concept = Concept("x", "<x>", noun, kind, (), (), None)
    assert captions.with_token(concept, caption) == wanted


@pytest.mark.parametrize(
    "caption", ["a <x> cat on a sofa", "a <x> on a sofa", "a <X>  cat on a sofa", "a cat on a sofa"]
)
def test_neurons_are_scored_without_the_token(caption: str) -> None:
    concept = Concept("x", "<x>", "cat", "subject", (), (caption,), None)
    assert captions.scoring_captions(concept) == ["a cat on a sofa"]


def test_sample_prompts_without_the_token() -> None:
    concept = Concept("x", "<x>", "cat", "subject", (), (), None)
    texts = prompts.sample_prompts(concept)
    assert len(set(texts)) == 5 and all("<x> cat" in text for text in texts)
    assert prompts.without_tokens(texts[0]) == "a photo of a cat"
