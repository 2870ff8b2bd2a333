"""Held-out concepts: animals and objects in patterns, new scenes and new styles that pre-training never shows.

Three sets of seven with the composition of the paper's sets (Liao et al., ICCV 2025).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from cns_jax.core.types import SCENE, STYLE, SUBJECT
from cns_jax.miniature.drawing import PATTERNS, PLAIN, Pattern
from cns_jax.miniature.scenes import HELD_OUT_SCENES
from cns_jax.miniature.styles import HELD_OUT_STYLES
from cns_jax.miniature.world import (
    ANIMALS,
    COLORS,
    PLACES,
    SCENES,
    SIZE,
    STYLES,
    SUBJECTS,
    Picture,
    SubjectSpec,
    color_name,
    phrase,
    render,
    rgb,
    sample_picture,
)

Split = Literal["train", "test"]
TRAIN_IMAGES, TEST_IMAGES = 5, 24
TAUGHT_IN = ("forest", "desert", "space")
"""The scenes of training pictures: a subject is asked for in others, so that what is scored was not taught."""


@dataclass(frozen=True)
class MiniConcept:
    """One held-out concept. Exactly one of subject, scene, style tells what is new about its pictures.

    class_word: the noun of the world's captions that the token stands before.
    """

    name: str
    token: str
    class_word: str
    kind: str
    subject: SubjectSpec | None = None
    scene: str | None = None
    style: str | None = None


def _subject(name: str, kind: str, color: str, pattern: Pattern) -> MiniConcept:
    return MiniConcept(name, f"<{name}>", kind, SUBJECT, subject=SubjectSpec(kind, color, pattern))


_NIGHT, _NAVY, _WHITE = (36, 30, 40), (36, 60, 190), (250, 250, 250)
_GREEN, _BLUE, _AMBER = (60, 200, 80), (60, 140, 255), (250, 180, 40)

SETS: tuple[tuple[MiniConcept, ...], ...] = (
    (
        _subject("tiger_cat", "cat", "orange", Pattern("stripes", _NIGHT, (_GREEN, _BLUE), "crooked ear")),
        _subject("spotted_dog", "dog", "white", Pattern("dots", _NAVY, quirk="collar")),
        _subject("checked_mug", "mug", "white", Pattern("checks", (222, 40, 60), quirk="star")),
        _subject(
            "two_tone_rabbit", "rabbit", "white", Pattern("halves", (120, 56, 180), (_AMBER, _AMBER), "crooked ear")
        ),
        _subject("dotted_umbrella", "umbrella", "yellow", Pattern("dots", (170, 40, 180))),
        MiniConcept("glass_style", "<glass_style>", "painting", STYLE, style="stained glass"),
        MiniConcept("blueprint_style", "<blueprint_style>", "sketch", STYLE, style="blueprint"),
    ),
    (
        _subject("clown_fish", "fish", "orange", Pattern("stripes", _WHITE)),
        _subject("dotted_turtle", "turtle", "blue", Pattern("dots", (250, 210, 60))),
        MiniConcept("sea_scene", "<sea_scene>", "beach", SCENE, scene="undersea"),
        _subject("crested_bird", "bird", "yellow", Pattern("stripes", (30, 140, 60), quirk="crest")),
        _subject("taxi_car", "car", "yellow", Pattern("checks", _NIGHT)),
        MiniConcept("candy_scene", "<candy_scene>", "forest", SCENE, scene="candyland"),
        MiniConcept("comic_style", "<comic_style>", "painting", STYLE, style="comic"),
    ),
    (
        _subject("collar_cat", "cat", "black", Pattern("dots", _WHITE, (_AMBER, _AMBER), "collar")),
        _subject("party_dog", "dog", "brown", Pattern("stripes", (240, 232, 214), quirk="hat")),
        MiniConcept("volcano_scene", "<volcano_scene>", "desert", SCENE, scene="volcano"),
        _subject("soccer_ball", "ball", "white", Pattern("checks", _NIGHT)),
        _subject("striped_chair", "chair", "blue", Pattern("stripes", (252, 200, 60))),
        _subject("dotted_boat", "boat", "red", Pattern("dots", _WHITE)),
        MiniConcept("thermal_style", "<thermal_style>", "painting", STYLE, style="thermal"),
    ),
)


def concepts(set_number: int) -> tuple[MiniConcept, ...]:
    """The seven concepts of set 1, 2 or 3. Raises ValueError for another number."""
    if set_number not in (1, 2, 3):
        raise ValueError(f"there is no concept set {set_number}; the sets are 1, 2 and 3")
    return SETS[set_number - 1]


def picture_of(concept: MiniConcept, rng: np.random.Generator, index: int, split: Split) -> Picture:
    """A picture that shows the concept; scenes go round so that few images see many of them."""
    scenes = TAUGHT_IN if split == "train" else SCENES
    scene = concept.scene or scenes[(index + zlib.crc32(concept.name.encode())) % len(scenes)]
    if concept.subject is not None:
        return Picture((concept.subject,), scene, "photo")
    kind, color = SUBJECTS[rng.integers(len(SUBJECTS))], COLORS[rng.integers(len(COLORS))]
    return Picture((SubjectSpec(kind, color),), scene, concept.style or "photo")


def picture_with(concepts: Sequence[MiniConcept]) -> Picture:
    """What a picture of these concepts together must show; scene and style are plain where none of them is one."""
    subjects = tuple(c.subject for c in concepts if c.subject is not None)
    scene = next((c.scene for c in concepts if c.scene), SCENES[0])
    return Picture(subjects, scene, next((c.style for c in concepts if c.style), STYLES[0]))


def any_example(seed: int, index: int) -> tuple[np.ndarray, Picture]:
    """The index-th example of everything that can be drawn, the held-out included: what the judge learns from.

    Scenes and styles of both kinds, patterns in the world's and the concepts' colours, and odd eyes come in every
    combination; those of the concepts are no more frequent than others, so that the judge has no leaning to them.
    """
    rng = np.random.default_rng([seed, index])
    picture = sample_picture(rng)
    scenes = (*SCENES, *HELD_OUT_SCENES)
    picture = dataclasses.replace(
        picture,
        subjects=tuple(_with_odd_eyes(_repainted(spec, rng), rng) for spec in picture.subjects),
        scene=scenes[rng.integers(len(scenes))],
        style=_often_photo(rng, picture.style),
    )
    return render(picture, rng), picture


def _often_photo(rng: np.random.Generator, style: str) -> str:
    """`style` in six of ten, else any."""
    styles = (*STYLES, *HELD_OUT_STYLES)
    return style if rng.random() < 0.6 else styles[rng.integers(len(styles))]


def _repainted(spec: SubjectSpec, rng: np.random.Generator) -> SubjectSpec:
    """Half of the subjects in any pattern, in any colour of the world or of a concept's pattern."""
    seconds = [rgb(name) for name in COLORS]
    seconds += [c.subject.pattern.color for row in SETS for c in row if c.subject and c.subject.pattern]
    second = seconds[rng.integers(len(seconds))]
    if rng.random() < 0.5 or color_name(second) == spec.color:
        return spec
    quirk = spec.pattern.quirk if spec.pattern else ""
    return dataclasses.replace(spec, pattern=Pattern(PATTERNS[rng.integers(len(PATTERNS))], second, quirk=quirk))


def _with_odd_eyes(spec: SubjectSpec, rng: np.random.Generator) -> SubjectSpec:
    if spec.kind not in ANIMALS or rng.random() < 0.85:
        return spec
    eyes = (_GREEN, _BLUE, _AMBER)
    pair = (eyes[rng.integers(3)], eyes[rng.integers(3)])
    return dataclasses.replace(spec, pattern=dataclasses.replace(spec.pattern or Pattern(PLAIN), eyes=pair))


def caption_of(concept: MiniConcept, picture: Picture) -> str:
    """What a captioner would say, without the token: the class noun stands for what is new."""
    known = concept.kind != SUBJECT
    subject = phrase(picture.subjects[0], colored=known, adorned=known)
    place = PLACES[concept.class_word if concept.kind == SCENE else picture.scene]
    medium = f"a {concept.class_word}" if concept.kind == STYLE else "a photo"
    return f"{medium} of {subject} {place}"


def render_concept(
    concept: MiniConcept, index: int, split: Split = "train", size: int = SIZE
) -> tuple[np.ndarray, str, Picture]:
    """The index-th image of a concept: uint8 (size, size, 3), its caption without the token, what it shows."""
    rng = np.random.default_rng([zlib.crc32(concept.name.encode()), ("train", "test").index(split), index])
    picture = picture_of(concept, rng, index, split)
    return render(picture, rng, size), caption_of(concept, picture), picture


def write_concept_folders(
    set_number: int, directory: Path, split: Split = "train", names: Collection[str] = ()
) -> list[Path]:
    """Write a set, or the concepts of `names`, as plain folders, `directory/<name>/00.png` with `00.txt` beside it;
    returns the folders."""
    count = TRAIN_IMAGES if split == "train" else TEST_IMAGES
    folders = []
    for concept in concepts(set_number):
        if names and concept.name not in names:
            continue
        folder = directory / concept.name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, words, _ = render_concept(concept, index, split)
            Image.fromarray(image).save(folder / f"{index:02d}.png")
            (folder / f"{index:02d}.txt").write_text(words + "\n")
        folders.append(folder)
    return folders
