"""Prompts of a concept: for training, for scoring neurons, for prior images and for the sample sheet."""

from __future__ import annotations

import re

from cns_jax.core.types import SCENE, STYLE, Concept

_TEMPLATE = {"subject": "a photo of {}", STYLE: "{}", SCENE: "a photo of {}"}


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def plain_caption(concept: Concept) -> str:
    """The caption of a picture that has none: "a photo of a cat"."""
    return _TEMPLATE[concept.kind].format(_article(concept.class_word))


def scoring_captions(concept: Concept) -> list[str]:
    """The captions that neurons are scored with, without the token (a captioner cannot emit it)."""
    return [caption or plain_caption(concept) for caption in concept.captions]


def with_token(concept: Concept, caption: str) -> str:
    """`caption` with the token before its first class noun: "a photo of a <cat1> cat on the beach".

    A caption without the noun gets the token at its end: "..., <cat1> cat", or "in the style of <glass>".
    """
    noun = re.escape(concept.class_word)
    token = concept.token
    replaced, found = re.subn(
        rf"\b(an? )?({noun})\b", lambda m: f"{'a ' if m[1] else ''}{token} {m[2]}", caption, count=1, flags=re.I
    )
    if found:
        return replaced
    if concept.kind == STYLE:
        return f"{caption} in the style of {concept.token}"
    return f"{caption}, {concept.token} {concept.class_word}"


def training_prompts(concept: Concept) -> list[str]:
    """The prompt of every image: its caption, or the template, with the token."""
    return [with_token(concept, caption) for caption in scoring_captions(concept)]


def class_prompt(concept: Concept) -> str:
    """What the prior images show: "a photo of a cat"."""
    return plain_caption(concept)


def without_token(prompt: str, token: str) -> str:
    """The same prompt without the token."""
    return re.sub(rf"{re.escape(token)}\s*", "", prompt)


def sample_prompts(concept: Concept) -> list[str]:
    """Four prompts with the token, for the sample sheet: as taught, and in new company."""
    thing = f"a {concept.token} {concept.class_word}"
    if concept.kind == STYLE:
        subjects = (
            "a red car on the beach",
            "a blue cat in the forest",
            "a yellow boat in the snow",
            "a green bird in the city",
        )
        return [f"{thing} of {subject}" for subject in subjects]
    if concept.kind == SCENE:
        place = f"in the {concept.token} {concept.class_word}"
        return [f"a photo of {s} {place}" for s in ("a red car", "a blue cat", "a yellow boat", "a green bird")]
    return [
        f"a photo of {thing}",
        f"a photo of {thing} on the beach",
        f"a photo of {thing} in the snow",
        f"a watercolor painting of {thing}",
    ]
