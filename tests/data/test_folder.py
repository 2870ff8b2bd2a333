"""Folders to concepts: names, captions, and every mistake told before training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cns_jax.core.types import SCENE, STYLE, Concept
from cns_jax.data import captions, prompts
from cns_jax.data.folder import ConceptSpec, DataError, check_words, discover, guess_class_word, read_concepts
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), (200, 40, 40)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("name", "noun"), [("colorful_sneaker", "sneaker"), ("dog2", "dog"), ("my-red mug", "mug"), ("Cat", "cat")]
)
def test_class_word_of_a_folder(name: str, noun: str) -> None:
    assert guess_class_word(name) == noun


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


def test_words_the_tokenizer_does_not_know(tiny_folder: Path) -> None:
    vocabulary = Vocabulary(load_tokenizer(tiny_folder / "tokenizer"), ("<a>", "<b>", "<c>"))
    concepts = [
        Concept("a", "<a>", "cat", "subject", (), (), None),
        Concept("b", "<b>", "xylophonist", "subject", (), (), None),
        Concept("c", "<c>", "cat", "subject", (), (), "zeppelins"),
    ]
    check_words(concepts[:1], vocabulary)
    with pytest.raises(DataError) as caught:
        check_words(concepts, vocabulary)
    said = str(caught.value)
    assert "class word 'xylophonist'" in said and "set class_word" in said
    assert "init_word 'zeppelins' is not one token" in said


@pytest.mark.parametrize(
    ("kind", "noun", "caption", "wanted"),
    [
        ("subject", "cat", "a photo of an old Cat and a cat", "a photo of an old <x> Cat and a cat"),
        ("subject", "umbrella", "a photo of an umbrella", "a photo of a <x> umbrella"),
        ("subject", "cat", "a concatenation", "a concatenation, <x> cat"),
        (STYLE, "painting", "a painting of a dog", "a <x> painting of a dog"),
        (STYLE, "painting", "a dog", "a dog in the style of <x>"),
        (SCENE, "beach", "a dog on the beach", "a dog on the <x> beach"),
    ],
)
def test_token_goes_before_the_noun(kind: str, noun: str, caption: str, wanted: str) -> None:
    concept = Concept("x", "<x>", noun, kind, (), (), None)
    assert captions.with_token(concept, caption) == wanted


def test_sample_prompts_without_the_token() -> None:
    concept = Concept("x", "<x>", "cat", "subject", (), (), None)
    texts = prompts.sample_prompts(concept)
    assert len(set(texts)) == 5 and all("<x> cat" in text for text in texts)
    assert prompts.without_tokens(texts[0]) == "a photo of a cat"
