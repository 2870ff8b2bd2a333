"""Prompt weights: what AUTOMATIC1111's documentation says of brackets, escapes and BREAK."""

from __future__ import annotations

import logging
import math
import random

import pytest

from cns_jax.text.emphasis import PromptError, Segment, segments


def weighted(prompt: str) -> list[tuple[str, float]]:
    return [(text, round(weight, 4)) for text, weight, _ in segments(prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("((very)) much", [("very", 1.21), (" much", 1.0)]),
        ("[less] of it", [("less", 0.9091), (" of it", 1.0)]),
        ("([even])", [("even", 1.0)]),
        ("(word:1.3)", [("word", 1.3)]),
        ("(word: 1.3 )", [("word", 1.3)]),
        ("(word:.5)", [("word", 0.5)]),
        ("(gone:0)", [("gone", 0.0)]),
        ("(against:-1)", [("against", -1.0)]),
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3.0), (" c", 1.5)]),
        (r"\(literal\] \\", [(r"(literal] " + "\\", 1.0)]),
        (r"C:\new \n", [(r"C:\new \n", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("[(both", [("both", 1.0)]),
        ("a :) b", [("a :) b", 1.0)]),
        ("unopened] 16:9 x:1.3)", [("unopened] 16:9 x:1.3)", 1.0)]),
        ("(1.2.3:1.2.3)", [("1.2.3:1.2.3", 1.1)]),
        ("()", [("", 1.0)]),
        ("", [("", 1.0)]),
        ("a (<tiger_cat> cat:1.3), b", [("a ", 1.0), ("<tiger_cat> cat", 1.3), (", b", 1.0)]),
        ("(猫:1.2) и кот", [("猫", 1.2), (" и кот", 1.0)]),
        ("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))", None),
    ],
)  # fmt: skip
def test_brackets(prompt: str, expected: list[tuple[str, float]] | None) -> None:
    if expected is None:  # the example of the web UI's own source
        expected = [
            ("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
            ("sky", 1.4641),
        ]  # fmt: skip
    assert weighted(prompt) == expected


def test_break_begins_a_chunk() -> None:
    assert segments("a cat BREAK a (dog BREAK mug:2)") == [
        Segment("a cat"), Segment("a ", begins=True), Segment("dog", 2.0), Segment("mug", 2.0, begins=True),
    ]  # fmt: skip
    assert segments("breakfast BREAKS break") == [Segment("breakfast BREAKS break")]


def test_other_networks_are_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert weighted("a cat <lora:seen_once:0.8>, <b_dog>") == [("a cat , <b_dog>", 1.0)]
    assert [r.getMessage().split(" is left out")[0] for r in caplog.records] == ["<lora:seen_once:0.8>"]


@pytest.mark.parametrize("prompt", ["[cat:dog:0.5]", "[cat|dog]", "a cat AND a dog"])
def test_editing_is_named(prompt: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        segments(f"{prompt} in a test")
    assert "not supported; their words and signs are taken as text" in caplog.text
    assert segments("[(word:1.3)] and 16:9")
    assert len(caplog.records) == 1


def test_weights_have_a_limit() -> None:
    with pytest.raises(PromptError, match="weighs 'cat' 1e\\+40 times; 1000 is the most"):
        segments(f"a (cat:{10**40})")
    assert weighted("(cat:1000)") == [("cat", 1000.0)]
    assert weighted("(:2000)") == [("", 1.0)]
    for nested in ("((cat:900):900)", "(" * 80 + "cat"):
        with pytest.raises(PromptError):
            segments(nested)


def test_any_signs_end_in_segments_or_one_error() -> None:
    rng = random.Random(0)
    pieces = ["(", ")", "[", "]", "\\", ":1.5)", ":9999)", ":", ".", "cat", " ", "BREAK", "<lora:a:1>", "<", "猫", "|"]
    for _ in range(5000):
        prompt = "".join(rng.choices(pieces, k=rng.randrange(12)))
        try:
            found = segments(prompt)
        except PromptError:
            continue
        assert found and all(math.isfinite(segment.weight) for segment in found)
        if not set(prompt) & set("()[]\\") and "BREAK" not in prompt and "<lora" not in prompt:
            assert found == [Segment(prompt)]
