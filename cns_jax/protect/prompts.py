"""Which prompts are protected: general ones of every kind of picture, and those that ask for a taught concept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cns_jax.core.settings import SettingsError, require
from cns_jax.core.types import SCENE, STYLE, Concept
from cns_jax.data import prompts

_SHIPPED = Path(__file__).with_name("captions.txt")
_PLACES = ("in the forest", "in the desert", "in space")
_MEDIA = ("a picture of", "a pencil sketch of", "pixel art of")
_COMPANY = (
    "a green car", "a white cat", "a red bird", "a black mug", "a pink boat", "a yellow fish", "a brown dog",
    "a purple chair",
)  # fmt: skip
_COUNT = 24  # whole batches of the text encoder


def general_captions(file: str = "") -> tuple[str, ...]:
    """The shipped captions of every kind of picture, about 1,000, or those of a text file, one a line.

    Raises SettingsError if the file cannot be read as UTF-8 or holds no caption.
    """
    path = Path(file).expanduser() if file else _SHIPPED
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"protect.captions={file!r} cannot be read: {error}") from None
    captions = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    require(bool(captions), f"protect.captions={file!r} holds no caption; write one a line")
    return captions


def concept_prompts(concept: Concept) -> tuple[str, ...]:
    """24 prompts that ask for the concept, alone, in several places and media, and in company.

    They stand for all prompts near them, and none of them is among those that pictures are scored with
    (data/prompts.py). Their words are known to Stable Diffusion and to the miniature.
    """
    thing = prompts.thing(concept)
    if concept.kind == STYLE:
        styled = (prompts.in_style(concept, f"{other} {place}") for other in _COMPANY for place in _PLACES)
        return (thing, *styled)[:_COUNT]
    if concept.kind == SCENE:
        scene = f"the {concept.token} {concept.class_word}" if concept.class_noun else concept.token
        shown = [f"{medium} {other}" for medium in ("a photo of", *_MEDIA[:2]) for other in _COMPANY]
        return tuple(f"{what} {'on' if i % 2 else 'in'} {scene}" for i, what in enumerate(shown))
    alone = [f"{medium} {thing}" for medium in _MEDIA]
    placed = [f"{medium} {thing} {place}" for medium in ("a photo of", *_MEDIA) for place in _PLACES]
    places = (_PLACES * len(_COMPANY))[: len(_COMPANY)]
    together = [f"a photo of {thing} and {other} {p}" for other, p in zip(_COMPANY, places, strict=True)]
    return (thing, *alone, *placed, *together)


def token_prompts(token: str) -> tuple[str, ...]:
    """As `concept_prompts` of a concept of which nothing but its token is known."""
    alone = [f"{medium} {token}" for medium in ("a photo of", *_MEDIA)]
    placed = [f"{medium} {token} {place}" for medium in ("a photo of", *_MEDIA) for place in _PLACES]
    return (token, *alone, *placed, *(f"a photo of {token} and {other}" for other in _COMPANY))[:_COUNT]


def overlapping(prompts: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those of `prompts` that are among `others`, case and spaces aside."""
    known = {" ".join(text.lower().split()) for text in others}
    return [text for text in prompts if " ".join(text.lower().split()) in known]
