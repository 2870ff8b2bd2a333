"""A concept's name without its brackets draws no concept, and is named."""

from __future__ import annotations

from cns_jax.engine.draw.generate import bare_names
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary


def test_names_without_brackets_are_named(tiny_pipeline) -> None:
    vocabulary = Vocabulary(load_tokenizer(tiny_pipeline.tokenizer), ("<my_cat>", "<cat>"))
    (line,) = bare_names(vocabulary, ["a photo of a My_Cat cat", "a my_cat"])
    assert line == "my_cat without < and > is ordinary letters to the model; the concept is <my_cat>"
    for prompt in ("a <my_cat> cat", "a cat", "a my_cats", "not-my_cat", "my_cat-like"):
        assert bare_names(vocabulary, [prompt]) == []
