"""Held-out concepts: the paper's composition, never seen in pre-training, split into training and evaluation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cns_jax.core.types import Concept
from cns_jax.data.captions import training_prompts
from cns_jax.data.prompts import evaluation_prompts
from cns_jax.miniature import concepts as C
from cns_jax.miniature.scenes import HELD_OUT_SCENES
from cns_jax.miniature.styles import HELD_OUT_STYLES
from cns_jax.miniature.world import (
    ANIMALS,
    COATS,
    COLORS,
    HELD_OUT,
    SCENES,
    STYLES,
    color_name,
    description,
    render,
    rgb,
)


def kind(concept: C.MiniConcept) -> str:
    if concept.subject is None:
        return concept.kind
    return "animal" if concept.subject.kind in ANIMALS else "object"


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (1, {"animal": 3, "object": 2, "style": 2}),
        (2, {"animal": 3, "scene": 2, "object": 1, "style": 1}),
        (3, {"animal": 2, "scene": 1, "object": 3, "style": 1}),
    ],
)
def test_composition(number: int, wanted: dict[str, int]) -> None:
    assert Counter(map(kind, C.concepts(number))) == wanted


def test_unknown_set() -> None:
    with pytest.raises(ValueError, match="sets are 1, 2 and 3"):
        C.concepts(4)


def test_names_and_tokens_are_unique() -> None:
    everything = [c for number in (1, 2, 3) for c in C.concepts(number)]
    assert len({c.name for c in everything}) == len({c.token for c in everything}) == 21


def test_pre_training_never_shows_them() -> None:
    """No picture of the world has a concept's kind in its colour and pattern, its odd eyes, its scene or its style."""
    shown = [spec for i in range(4000) for spec in description(0, i)[1].subjects]
    looks = {(s.kind, s.color, s.pattern.kind) for s in shown if s.pattern}
    assert len(looks) > 400 and not any(s.pattern and s.pattern.eyes for s in shown)
    for concept in (c for number in (1, 2, 3) for c in C.concepts(number)):
        assert concept.scene not in SCENES and concept.style not in STYLES
        if concept.subject is not None:
            look = (concept.subject.kind, concept.subject.color, concept.subject.pattern.kind)
            assert look in HELD_OUT and look not in looks


def test_no_word_means_a_concepts_coat() -> None:
    """Else its token would have a synonym; where a pattern covers half, the colours may change places."""
    for concept in (c for row in C.SETS for c in row if c.subject is not None):
        color, pattern = concept.subject.color, concept.subject.pattern
        second = color_name(pattern.color)
        assert (color, pattern.kind, second) not in COATS
        assert pattern.kind == "dots" or (second, pattern.kind, color) not in COATS


def test_a_patterns_colour_has_one_name() -> None:
    """Half as far from its own name's colour as from any other at most: a tie is told by chance, and a picture that is
    a little off counts as another concept's."""
    for concept in (c for row in C.SETS for c in row if c.subject and c.subject.pattern):
        distances = sorted(float(np.linalg.norm(np.subtract(concept.subject.pattern.color, rgb(n)))) for n in COLORS)
        assert distances[0] < 0.5 * distances[1], concept.name


def test_everything_is_drawn_for_the_judge() -> None:
    pictures = [C.any_example(0, i)[1] for i in range(400)]
    drawn = {(s.kind, s.color, s.pattern.kind) for p in pictures for s in p.subjects if s.pattern}
    assert {p.style for p in pictures} >= set(HELD_OUT_STYLES) and {p.scene for p in pictures} >= set(HELD_OUT_SCENES)
    assert len(HELD_OUT & drawn) > len(HELD_OUT) / 4  # as often as other combinations
    assert any(s.pattern and s.pattern.eyes for p in pictures for s in p.subjects)


def test_picture_with_several() -> None:
    cat, glass = C.concepts(1)[0], C.concepts(1)[5]
    picture = C.picture_with([glass, cat])
    assert picture.subjects == (cat.subject,) and picture.style == "stained glass"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_pictures(number: int) -> None:
    assert 4 <= C.TRAIN_IMAGES <= 6 and C.TEST_IMAGES >= 12
    for concept in C.concepts(number):
        shown = [C.render_concept(concept, i) for i in range(C.TRAIN_IMAGES)]
        held = [C.render_concept(concept, i, "test") for i in range(3)]
        np.testing.assert_array_equal(shown[1][0], C.render_concept(concept, 1)[0])
        images = np.stack([row[0] for row in shown + held]).astype(np.float32).reshape(len(shown) + 3, -1)
        apart = np.abs(images[:, None] - images[None]).mean(-1) + 100 * np.eye(len(images))
        assert apart.min() > 3, f"two pictures of {concept.name} are all but equal"
        for _, caption, _ in shown:
            assert concept.class_word in caption and "<" not in caption
        if concept.kind == "subject":
            assert {row[2].scene for row in shown} == set(C.TAUGHT_IN)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_nothing_is_asked_for_that_was_taught(number: int) -> None:
    """No evaluation prompt is the prompt of a training picture."""
    taught = []
    for mini in C.concepts(number):
        captions = tuple(C.render_concept(mini, i)[1] for i in range(C.TRAIN_IMAGES))
        taught.append(Concept(mini.name, mini.token, mini.class_word, mini.kind, (), captions))
    prompts = {prompt for concept in taught for prompt in training_prompts(concept)}
    assert len(prompts) > 3 * len(taught) and not prompts & {p.text for p in evaluation_prompts(taught)}


def test_a_pattern_is_seen() -> None:
    """The concept is not its class in its colour."""
    for concept in (c for number in (1, 2, 3) for c in C.concepts(number) if c.subject is not None):
        picture = C.picture_of(concept, np.random.default_rng(0), 0, "train")
        plain = replace(picture, subjects=(replace(concept.subject, pattern=None),))
        one, two = (render(p, np.random.default_rng(0)).astype(np.float32) for p in (picture, plain))
        assert np.abs(one - two).mean() > 2, concept.name


def test_folders(tmp_path: Path) -> None:
    folders = C.write_concept_folders(2, tmp_path)
    assert [f.name for f in folders] == [c.name for c in C.concepts(2)]
    image, caption, _ = C.render_concept(C.concepts(2)[0], 3)
    np.testing.assert_array_equal(np.asarray(Image.open(folders[0] / "03.png")), image)
    assert (folders[0] / "03.txt").read_text().strip() == caption
