"""The drawn world: what it holds, that it varies, and that captions tell what is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cns_jax.miniature import world
from cns_jax.miniature.drawing import PATTERNS, Pattern, Pen
from cns_jax.miniature.subjects import ANIMALS, OBJECTS, QUIRKS
from cns_jax.miniature.world import COLORS, SCENES, STYLES, SUBJECTS, Picture, SubjectSpec


def drawn(picture: Picture, seed: int = 0) -> np.ndarray:
    return world.render(picture, np.random.default_rng(seed)).astype(np.float32)


def test_extent() -> None:
    assert len(world.ANIMALS) >= 6 and len(world.OBJECTS) >= 6
    assert len(COLORS) >= 10 and len(SCENES) >= 6 and len(STYLES) >= 4


def test_examples_repeat_and_describe_themselves() -> None:
    image, caption, picture = world.example(3, 5)
    again, same, _ = world.example(3, 5)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, again)
    assert caption == same and world.description(3, 5) == (caption, picture)
    assert world.example(4, 5)[2] != picture or world.example(3, 6)[2] != picture


def test_arrays_do_not_depend_on_the_number_of_processes() -> None:
    one, two = world.world_arrays(0, 6, processes=1), world.world_arrays(0, 6, processes=2)
    np.testing.assert_array_equal(one["images"], two["images"])
    assert one["captions"] == two["captions"]


def test_captions_name_what_is_drawn() -> None:
    rows = [world.description(0, i) for i in range(800)]
    colored = placed = pairs = 0
    for caption, picture in rows:
        assert all(s.kind in caption for s in picture.subjects), (caption, picture)
        pairs += len(picture.subjects) == 2
        colored += all({s.color, world.coat(s)} & set(caption.split()) for s in picture.subjects)
        placed += world.PLACES[picture.scene] in caption
        assert picture.style == "photo" or picture.style in caption or picture.style == "watercolor"
    assert 0.25 < pairs / 800 < 0.35
    assert 0.8 < colored / 800 < 0.9
    assert 0.86 < placed / 800 < 0.94
    assert {s.kind for _, p in rows for s in p.subjects} == set(SUBJECTS)
    assert {s.color for _, p in rows for s in p.subjects} == set(COLORS)


def test_every_attribute_changes_the_picture() -> None:
    base = Picture((SubjectSpec("cat", "red"),), "beach", "photo")
    pictures = [base]
    pictures += [Picture((SubjectSpec(k, "red"),), "beach", "photo") for k in SUBJECTS if k != "cat"]
    pictures += [Picture((SubjectSpec("cat", c),), "beach", "photo") for c in COLORS if c != "red"]
    pictures += [Picture(base.subjects, s, "photo") for s in SCENES if s != "beach"]
    pictures += [Picture(base.subjects, "beach", s) for s in STYLES if s != "photo"]
    images = np.stack([drawn(p) for p in pictures]).reshape(len(pictures), -1)
    apart = np.abs(images[:, None] - images[None]).mean(-1) + 100 * np.eye(len(images))
    assert apart.min() > 1, f"{pictures[apart.argmin() // len(images)]} looks like another"


def test_one_picture_varies_with_the_draw() -> None:
    picture = Picture((SubjectSpec("dog", "blue"),), "forest", "photo")
    assert np.abs(drawn(picture, 0) - drawn(picture, 1)).mean() > 5


def test_the_area_of_subjects() -> None:
    """Another colour changes the picture in the area of its subjects, and nowhere else."""
    for index in [i for i in range(40) if world.description(0, i)[1].style == "photo"][:6]:
        rng = np.random.default_rng([0, index])
        picture = world.sample_picture(rng)
        world.caption(picture, rng)
        other = tuple(replace(s, color="pink" if s.color != "pink" else "green") for s in picture.subjects)
        repainted = world.render(replace(picture, subjects=other), rng)
        changed = np.abs(repainted.astype(int) - world.example(0, index)[0]).max(-1) > 60
        area = world.subject_area(0, index, world.SIZE)
        assert area.dtype == np.uint8 and 0.05 < (area > 127).mean() < 0.6
        assert changed.any() and (area[changed] > 0).mean() > 0.98


def test_edges_are_anti_aliased() -> None:
    """A hard-edged drawing of few colours would have few distinct pixels."""
    image = drawn(Picture((SubjectSpec("ball", "red"),), "snow", "photo")).astype(np.uint8)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 300


@pytest.mark.parametrize("color", ["orange", "red"])
def test_prompt(color: str) -> None:
    picture = Picture((SubjectSpec("cat", color), SubjectSpec("mug", "white")), "space", "pixel")
    article = "an" if color == "orange" else "a"
    assert world.prompt(picture) == f"pixel art of {article} {color} cat and a white mug in space"


def test_patterns_are_told() -> None:
    spec = SubjectSpec("rabbit", "white", Pattern("halves", world.rgb("orange"), quirk="crooked ear"))
    picture = Picture((spec,), "snow", "photo")
    assert world.prompt(picture) == "a photo of a white rabbit with an orange side and a crooked ear in the snow"
    assert world.phrase(spec, adorned=False) == "a white rabbit"
    assert world.phrase(SubjectSpec("mug", "red", Pattern("plain", quirk="star"))) == "a red mug with a star"


def test_a_coat_is_one_word() -> None:
    """For colour, pattern and its colour; the rest of the phrase stays, and without one of them it is not used."""
    spec = SubjectSpec("mug", "red", Pattern("stripes", world.rgb("green"), quirk="star"))
    word = world.COATS["red", "stripes", "green"]
    assert world.phrase(spec, named=True) == f"a {word} mug with a star"
    assert world.phrase(spec, colored=False, named=True) == "a mug with green stripes and a star"
    assert world.phrase(spec, adorned=False, named=True) == "a red mug"
    assert world.phrase(SubjectSpec("mug", "red"), named=True) == "a red mug"
    assert len(set(world.COATS.values())) == len(world.COATS) > 200


def test_coats_are_told_by_their_words_often() -> None:
    rows = [
        (caption, world.coat(s)) for caption, p in (world.description(0, i) for i in range(800)) for s in p.subjects
    ]
    told = [word in caption for caption, word in rows if word]
    assert len(told) > 200 and 0.35 < sum(told) / len(told) < 0.5  # 60 % of those with colour and pattern told


def test_patterns_and_quirks_are_common() -> None:
    shown = [s for i in range(800) for s in world.description(0, i)[1].subjects]
    kinds = [s.pattern.kind for s in shown if s.pattern]
    assert set(kinds) == {*PATTERNS, "plain"} and 0.4 < sum(k != "plain" for k in kinds) / len(shown) < 0.6
    quirks = {s.pattern.quirk for s in shown if s.pattern} - {""}
    assert quirks == {name for names in QUIRKS.values() for name in names}
    assert all(world.rgb(s.color) != s.pattern.color for s in shown if s.pattern and s.pattern.kind != "plain")


def test_color_names() -> None:
    assert all(world.color_name(world.rgb(name)) == name for name in COLORS)
    assert world.color_name((36, 30, 40)) == "black"


def test_prompts_differ() -> None:
    prompts = world.world_prompts(100)
    assert prompts == world.world_prompts(100) and len(set(prompts)) > 90
    assert len(set(world.photo_prompts())) == len(SUBJECTS) * len(SCENES)
    assert "a photo of an umbrella in space" in world.photo_prompts()


@pytest.mark.parametrize("kind", sorted(set(SUBJECTS) - {"dog", "car", "mug", "chair"}))
def test_a_pattern_is_not_hidden_by_details(kind: str) -> None:
    def colors(pattern: str) -> set[tuple[int, ...]]:
        pen = Pen(128, 64, 64, 45, False, (20, 40, 200), Pattern(pattern, (200, 0, 0)))
        {**ANIMALS, **OBJECTS}[kind](pen)
        return set(map(tuple, np.asarray(pen.layer).reshape(-1, 3).tolist()))

    hidden = colors("plain") - colors("checks")
    assert hidden and (200, 0, 0) in colors("checks")
