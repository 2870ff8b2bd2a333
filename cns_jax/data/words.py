"""Class words and start words against the model's tokenizer, before any training."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence

from cns_jax.core.types import Concept
from cns_jax.data.captions import training_prompts
from cns_jax.data.folder import DataError
from cns_jax.data.spec import how_to_say
from cns_jax.text.vocabulary import UnknownTokenError, Vocabulary

log = logging.getLogger(__name__)

_MAX_PIECES = 3
_LETTERS = 3  # of a piece that can mean something
_ALIKE = 0.8  # of difflib's ratio: a typing error, not another word
_BROAD = (
    "animal person toy object cup bag car building plant food clothes furniture cat dog bird man woman bottle shoe hat "
    "chair house boat tree flower fruit room place landscape painting drawing style"
).split()


def check_words(concepts: Sequence[Concept], vocabulary: Vocabulary) -> None:
    """Refuse class nouns that the tokenizer shatters, start words that are not one token, and captions with tokens of
    no concept, before training. Warns of a class noun that looks like a typing error.

    Raises DataError with one line a problem.
    """
    problems = []
    for concept in concepts:
        word, init = concept.class_word, concept.init_word
        near, say = _near(word, vocabulary), how_to_say(concept.name, "class_word")
        if not _known(word, vocabulary):
            problems.append(
                f"{concept.name}: the model does not know the class word {word!r} (the tokenizer breaks it into "
                f"{' '.join(vocabulary.tokenizer.pieces(word))}); {_choices(near, vocabulary)}: {say}"
            )
        elif init is not None and not vocabulary.is_single_token(init):
            problems.append(
                f"{concept.name}: init_word {init!r} is not one token; "
                f"{_choices(_near(init, vocabulary), vocabulary)}: {how_to_say(concept.name, 'init_word')}"
            )
        elif near and difflib.SequenceMatcher(None, word, near[0]).ratio() >= _ALIKE:
            meant = " or ".join(near[:2])
            log.warning(
                "%s: the class word %r is not one word to the model; did you mean %s?", concept.name, word, meant
            )
        problems += _captions(concept, vocabulary)
    if problems:
        raise DataError("\n".join(problems))


def _known(word: str, vocabulary: Vocabulary) -> bool:
    """Whether the tokenizer has the word, or a few pieces of it of which one is more than single letters or bytes."""
    ids = vocabulary.token_ids(word)
    if len(ids) == 1:
        return True
    longest = max(len(vocabulary.tokenizer.decode([i]).strip("\ufffd")) for i in ids) if ids else 0
    return 0 < len(ids) <= _MAX_PIECES and longest >= _LETTERS


def _near(word: str, vocabulary: Vocabulary) -> list[str]:
    """Whole words of the tokenizer that are spelled like `word`; none if it is one itself."""
    if vocabulary.is_single_token(word):
        return []
    words = [w for w in vocabulary.tokenizer.words if len(w) >= _LETTERS]
    return difflib.get_close_matches(word.lower(), words, 4, 0.7)


def _choices(near: Sequence[str], vocabulary: Vocabulary) -> str:
    broad = [word for word in _BROAD if vocabulary.is_single_token(word) and word not in near][:12]
    known = "; ".join(filter(None, (f"near: {', '.join(near)}" if near else "", f"broader: {', '.join(broad)}")))
    return f"choose a word that it knows ({known})" if known else "choose a word that it knows"


def _captions(concept: Concept, vocabulary: Vocabulary) -> list[str]:
    lines = []
    for path, caption, prompt in zip(concept.image_paths, concept.captions, training_prompts(concept), strict=True):
        try:
            vocabulary.token_ids(prompt)
        except UnknownTokenError as error:
            lines.append(f"{path}: its caption {caption!r} has a token of no concept: {error}")
    return lines
