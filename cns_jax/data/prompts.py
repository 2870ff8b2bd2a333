"""Prompts that ask for taught concepts, alone and together, as sample sheets and evaluations use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from cns_jax.core.types import SCENE, STYLE, SUBJECT, Concept
from cns_jax.text.vocabulary import CONCEPT_TOKEN

_STYLED = " in the style of "
_GROUNDS = frozenset({"beach", "hill", "island", "mountain", "road", "street"})  # things are on them, not in them


@dataclass(frozen=True)
class Prompt:
    """text: with tokens; plain: the same without them; concepts: the names of those it asks for, in its order."""

    text: str
    plain: str
    concepts: tuple[str, ...]


def without_tokens(prompt: str) -> str:
    """The prompt as a model reads it that knows no concept: "a photo of a <cat1> cat" becomes "a photo of a cat"."""
    return " ".join(CONCEPT_TOKEN.sub(" ", prompt).split())


def asked(text: str, concepts: Sequence[Concept]) -> Prompt:
    """A written prompt, with the concepts whose tokens are in it."""
    named = sorted((c for c in concepts if c.token in text), key=lambda c: text.index(c.token))
    return Prompt(text, plain(text, concepts), tuple(c.name for c in named))


def sample_prompts(concept: Concept) -> list[str]:
    """Five prompts with the token: as taught, and in new company."""
    alone = thing(concept)
    if concept.kind == STYLE:
        subjects = (
            "a red car on the beach",
            "a blue cat in the forest",
            "a yellow boat in the snow",
            "a green bird in the city",
            "a white mug in the desert",
        )
        return [in_style(concept, subject) for subject in subjects]
    if concept.kind == SCENE:
        subjects = ("a red car", "a blue cat", "a yellow boat", "a green bird", "a white mug")
        return [f"a photo of {s} {in_place(concept)}" for s in subjects]
    return [
        f"a photo of {alone}",
        f"a photo of {alone} on the beach",
        f"a photo of {alone} in the snow",
        f"a watercolor painting of {alone}",
        f"a photo of {alone} in the city",
    ]


def evaluation_prompts(concepts: Sequence[Concept]) -> list[Prompt]:
    """Five single prompts a concept, then up to four with two concepts and three with three.

    35 + 4 + 3 for seven concepts, as the paper's sets have (supplement 8.1). Together go two subjects, or subjects
    in a taught style or scene; what the concepts at hand do not allow is left out.
    """
    singles = [asked(text, concepts) for concept in concepts for text in sample_prompts(concept)]
    subjects = [c for c in concepts if c.kind == SUBJECT]
    settings: list[Concept | None] = [c for c in concepts if c.kind != SUBJECT]
    pairs = _spread(list(combinations(subjects, 2)))
    doubles: list[tuple[tuple[Concept, ...], Concept | None]] = [(pair, None) for pair in pairs[:2]]
    doubles += [((s,), o) for s, o in zip(reversed(subjects), settings * 2, strict=False)][:2]
    doubles += [(pair, None) for pair in pairs[2 : 6 - len(doubles)]] if len(doubles) < 4 else []
    count = 3 if pairs and settings else 0
    triples = dict.fromkeys((pairs[-1 - i % len(pairs)], settings[i % len(settings)]) for i in range(count))
    together = [_together(things, setting) for things, setting in (*doubles, *triples)]
    return singles + [asked(text, concepts) for text in together]


def _spread(pairs: list[tuple[Concept, Concept]]) -> list[tuple[Concept, Concept]]:
    """Pairs without a shared subject first, so that few prompts see many concepts."""
    first: list[tuple[Concept, Concept]] = []
    rest: list[tuple[Concept, Concept]] = []
    used: set[str] = set()
    for pair in pairs:
        fresh = not used & {c.name for c in pair}
        (first if fresh else rest).append(pair)
        used |= {c.name for c in pair} if fresh else set()
    return first + rest


def _together(things: Sequence[Concept], setting: Concept | None) -> str:
    words = " and ".join(thing(c) for c in things)
    if setting is None:
        return f"a photo of {words} on the beach"
    if setting.kind == STYLE:
        return in_style(setting, words)
    return f"a photo of {words} {in_place(setting)}"


def thing(concept: Concept) -> str:
    """The concept in a prompt: "a <cat1> cat"; where its token stands alone, "<cat1>"."""
    return f"a {concept.token} {concept.class_word}" if concept.class_noun else concept.token


def in_style(style: Concept, words: str) -> str:
    """`words` in a taught style: "a <glass> painting of a red car", or "a painting of a red car in the style of
    <glass>"."""
    return (
        f"{thing(style)} of {words}" if style.class_noun else f"a {style.class_word} of {words}{_STYLED}{style.token}"
    )


def in_place(scene: Concept) -> str:
    """In a taught scene: "in the <sea> beach"; where its token stands alone, "in <sea>"."""
    preposition = "on" if scene.class_word in _GROUNDS else "in"
    return f"{preposition} the {scene.token} {scene.class_word}" if scene.class_noun else f"{preposition} {scene.token}"


def plain(prompt: str, concepts: Sequence[Concept]) -> str:
    """The prompt as a model reads it that knows none of the concepts: a token that stands alone gives way to its class
    word."""
    for concept in concepts:
        if not concept.class_noun:
            article = "the" if concept.kind == SCENE else "a"
            named = f"{article} {concept.class_word}"
            prompt = prompt.replace(f"{_STYLED}{concept.token}", "").replace(concept.token, named)
    return without_tokens(prompt)
