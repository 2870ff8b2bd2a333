"""Prompts of evaluations: every concept alone, several together, and what they ask for."""

from __future__ import annotations

import pytest

from cns_jax.core.types import SCENE, STYLE, SUBJECT, Concept
from cns_jax.data.prompts import asked, evaluation_prompts, without_tokens
from cns_jax.miniature.concepts import concepts as drawn


def concept(name: str, word: str, kind: str = SUBJECT) -> Concept:
    return Concept(name, f"<{name}>", word, kind, (), ())


CAT, MUG = concept("cat1", "cat"), concept("mug1", "mug")
GLASS, SEA = concept("glass", "painting", STYLE), concept("sea", "beach", SCENE)


def test_what_a_prompt_asks_for() -> None:
    prompt = asked("a <glass> painting of a <mug1> mug and a <cat1> cat", (CAT, MUG, GLASS))
    assert prompt.concepts == ("glass", "mug1", "cat1")
    assert prompt.plain == "a painting of a mug and a cat"
    assert asked("a cat", (CAT,)).concepts == ()
    assert without_tokens("a photo of a <cat1> cat and  <my-dog_2>") == "a photo of a cat and"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_as_many_as_in_the_paper(number: int) -> None:
    """35 single prompts, 4 with two and 3 with three concepts a set (supplement 8.1), all different."""
    concepts = [concept(c.name, c.class_word, c.kind) for c in drawn(number)]
    prompts = evaluation_prompts(concepts)
    counts = [len(p.concepts) for p in prompts]
    assert [counts.count(n) for n in (1, 2, 3)] == [35, 4, 3]
    assert len({p.text for p in prompts}) == 42
    for c in concepts:
        assert sum(p.concepts == (c.name,) for p in prompts) == 5
    assert not any("<" in p.plain for p in prompts)


def test_few_concepts() -> None:
    assert [p.concepts for p in evaluation_prompts([CAT])] == [("cat1",)] * 5
    two = [p for p in evaluation_prompts([CAT, MUG]) if len(p.concepts) > 1]
    assert [p.text for p in two] == ["a photo of a <cat1> cat and a <mug1> mug on the beach"]
    styled = [p.text for p in evaluation_prompts([CAT, MUG, GLASS, SEA]) if len(p.concepts) > 1]
    assert "a <glass> painting of a <mug1> mug" in styled
    assert "a photo of a <cat1> cat and a <mug1> mug on the <sea> beach" in styled
    assert evaluation_prompts([GLASS])[0].text == "a <glass> painting of a red car on the beach"
