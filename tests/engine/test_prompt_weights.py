"""Weighted and long prompts in the sampler: the rule, equal chunks, and plain prompts that stay as they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import values

from cns_jax.core.settings import build
from cns_jax.engine.draw.sampling import emphasized
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings, SampleSettings
from cns_jax.methods.applied import Applied
from cns_jax.text.vocabulary import TruncatedPromptWarning

SAMPLE = SampleSettings(steps=2, batch=2, guidance_scale=4.0)
LONG = "a cat " * 12 + "<a> dog"  # 26 tokens; the tiny text encoder takes 18


@pytest.fixture(scope="module")
def studio(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    settings = build(RunSettings, values(tiny_folder, tmp_path_factory.mktemp("run")))
    return Studio.open(find_source(settings.address), ("<a>",), 5, 16)


def latents(studio: Studio, *prompts: str, syntax: str = "a1111", negative: str = "", row: float = 0.0) -> np.ndarray:
    sample = dataclasses.replace(SAMPLE, negative_prompt=negative)
    rows = jnp.asarray(row * np.random.default_rng(0).normal(size=studio.no_rows.shape), jnp.float32)
    seeds = [3] * len(prompts)
    return studio.generator.latents(Applied(studio.params, rows), prompts, seeds, sample, syntax=syntax)  # type: ignore[arg-type]


def test_the_rule() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(1, 2, (2, 4, 3)).astype(np.float32)
    weights = np.float32([[1, 1, 1, 1], [1, 1.3, 0.5, 1]])
    plain, weighted = np.asarray(emphasized(jnp.asarray(hidden), jnp.asarray(weights)))
    np.testing.assert_array_equal(plain, hidden[0])
    scaled = hidden[1] * weights[1][:, None]
    np.testing.assert_allclose(weighted, scaled * hidden[1].mean() / scaled.mean(), rtol=1e-5)
    assert emphasized(jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(weights)).dtype == jnp.bfloat16


def test_plain_prompts_take_the_program_that_they_took(studio: Studio, compiled: list[str]) -> None:
    without = latents(studio, "a red cat", "a mug", syntax="plain")
    before = len(compiled)
    np.testing.assert_array_equal(latents(studio, "a red cat", "a mug"), without)
    # beside a weighted one, which is drawn by its own program
    together = latents(studio, "a red cat", "a (mug:1.5)", "a mug")
    np.testing.assert_array_equal(together[[0, 2]], without)
    assert (together[1] != without[1]).any()
    assert [name for name in compiled[before:] if "sample" in name] == ["jit(sample_chunks)"]


def test_one_program_for_each_number_of_chunks(studio: Studio, compiled: list[str]) -> None:
    many = latents(studio, "a (red:1.2) cat", "[a] mug", LONG, LONG.replace("dog", "cat"), "a cat BREAK a mug")
    assert many.shape[0] == 5
    latents(studio, "(a red) cat", LONG, "a mug BREAK a mug", "a cat")
    assert sum("sample_chunks" in name for name in compiled) <= 2  # of one chunk and of two


def test_brackets_are_letters_in_plain_syntax(studio: Studio) -> None:
    assert (latents(studio, "a (mug)", syntax="plain") != latents(studio, "a (mug)")).any()
    np.testing.assert_allclose(latents(studio, r"a \(mug\)"), latents(studio, "a (mug)", syntax="plain"), atol=1e-6)


def test_the_end_of_a_long_prompt_counts(studio: Studio) -> None:
    with pytest.warns(TruncatedPromptWarning):
        latents(studio, LONG, syntax="plain")
    last = [latents(studio, LONG, row=row) for row in (0.0, 5.0)]  # the concept's row, in the second chunk
    assert np.abs(last[0] - last[1]).max() > 1e-2


def test_repeated_chunks_change_nothing(studio: Studio) -> None:
    """So that a short negative prompt beside a long prompt means what it means alone."""
    once, twice = latents(studio, "a (red:1.5) cat"), latents(studio, "a (red:1.5) cat BREAK a (red:1.5) cat")
    np.testing.assert_allclose(twice, once, atol=2e-3)
    long_negative = latents(studio, "a cat", negative="a mug BREAK a mug")
    np.testing.assert_allclose(long_negative, latents(studio, "a cat", negative="a mug"), atol=2e-3)
    assert np.abs(long_negative - latents(studio, "a cat")).max() > 1e-2
