"""What pictures are captioned with: for training, for scoring neurons and for prior images."""

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
    return [_without_token(concept, caption or plain_caption(concept)) for caption in concept.captions]


def _without_token(concept: Concept, caption: str) -> str:
    """Some people write the token themselves: before the class word, or in its place."""
    noun = re.escape(concept.class_word)
    return re.sub(rf"{re.escape(concept.token)}(\s+{noun}\b)?", lambda _: concept.class_word, caption, flags=re.I)


def with_token(concept: Concept, caption: str) -> str:
    """`caption` with the token before its first class noun: "a photo of a <cat1> cat on the beach".

    A caption that has the token stays. One without the noun gets it at its end: "..., <cat1> cat", or "in the style of
    <glass>".
    """
    noun = re.escape(concept.class_word)
    token = concept.token
    if token in caption.lower():
        return caption
    if not concept.class_noun:
        return _alone(concept, caption)
    replaced, found = re.subn(
        rf"\b(an? )?({noun})\b", lambda m: f"{'a ' if m[1] else ''}{token} {m[2]}", caption, count=1, flags=re.I
    )
    if found:
        return replaced
    if concept.kind == STYLE:
        return f"{caption} in the style of {concept.token}"
    return f"{caption}, {concept.token} {concept.class_word}"


def _alone(concept: Concept, caption: str) -> str:
    """`caption` with the token in place of its first class noun and that one's article: "a photo of <cat1>"."""
    if concept.kind == STYLE:
        return f"{caption} in the style of {concept.token}"
    noun = re.escape(concept.class_word)
    replaced, found = re.subn(rf"\b(?:(?:an?|the) )?{noun}\b", lambda _: concept.token, caption, count=1, flags=re.I)
    return replaced if found else f"{caption}, {concept.token}"


def training_prompts(concept: Concept) -> list[str]:
    """The prompt of every image: its caption, or the template, with the token."""
    return [with_token(concept, caption or plain_caption(concept)) for caption in concept.captions]


def class_prompt(concept: Concept) -> str:
    """What the prior images show: "a photo of a cat"."""
    return plain_caption(concept)
