"""Sampling: pictures do not depend on their batch, nor on how many devices share it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import values

from benchmarks.aot.reading import collectives
from cns_jax.core.mesh import make_mesh, place
from cns_jax.core.settings import build
from cns_jax.core.tree import map_named
from cns_jax.engine.draw.prior import Part, compile_priors, prior_latents
from cns_jax.engine.draw.sampling import decode, sample_latents
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.methods.applied import Applied
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.folder import read_folder


def drawn(folder: Path, devices: int, fsdp: int, count: int) -> tuple[np.ndarray, np.ndarray, list[set[str]]]:
    """Latents and pictures of `count` seeds, and what the devices exchange: in the sampler's loop, for pictures."""
    source = read_folder(folder)
    mesh = make_mesh(fsdp, jax.devices()[:devices])
    params = map_named(partial(place, mesh), source.load().params)
    vocabulary, shape = Vocabulary(load_tokenizer(source.tokenizer)), source.model.latent_shape(16, 16)
    ids = [jnp.asarray(vocabulary.encode(prompts)) for prompts in (["a red cat", "a mug"] * 2, [""])]
    sample = partial(
        sample_latents.jitted, Applied(params, jnp.zeros((1, source.model.text_encoder.hidden_size))), ids[0][:count],
        ids[1], jnp.arange(count, dtype=jnp.uint32), 5.0,
    )  # fmt: skip
    chosen = dict(model=source.model, schedule=source.schedule, shape=shape, sampler="dpm++2m", steps=3, mesh=mesh)
    latents = sample(**chosen)
    pictures = decode(params["vae"], latents, model=source.model, mesh=mesh)
    texts = [
        sample_latents.jitted.lower(*sample.args, **chosen).compile().as_text(),
        decode.jitted.lower(params["vae"], latents, model=source.model, mesh=mesh).compile().as_text(),
    ]
    texts[0] = "\n".join(line for line in texts[0].splitlines() if "/while/" in line)
    return np.asarray(latents), np.asarray(pictures), [set(collectives(text)) for text in texts]


@pytest.mark.parametrize(("fsdp", "count"), [(1, 4), (2, 4), (1, 3)])
def test_four_devices_draw_what_one_draws(tiny_folder: Path, fsdp: int, count: int) -> None:
    latents, pictures, alone = drawn(tiny_folder, 1, 1, count)
    shared, shared_pictures, exchanged = drawn(tiny_folder, 4, fsdp, count)
    np.testing.assert_allclose(shared, latents, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shared_pictures.astype(int), pictures.astype(int), atol=1)
    assert alone == [set(), set()]
    assert exchanged == [{"all-gather"} if fsdp > 1 else set(), {"all-gather"} if count == 4 else set()]


def test_a_sampler_compiled_ahead_is_the_one_that_draws(tiny_folder: Path, tmp_path: Path, compiled: list[str]) -> None:
    settings = build(RunSettings, values(tiny_folder, tmp_path))
    studio = Studio.open(find_source(settings.address), ("<a>",), 5, 16)
    sample = replace(settings.prior.sample, steps=7)  # which no other test takes, so it is not compiled yet
    parts = [Part("cats", ("a red cat", "a cat"), (1, 2), (16, 16))]
    compile_priors(studio, parts, sample, tmp_path)
    prior_latents(studio, parts[0], sample, tmp_path)
    assert len([name for name in compiled if "sample" in name]) == 1
    sample_latents.jitted.clear_cache()
    compile_priors(studio, parts, sample, tmp_path)  # they are kept now
    assert not sample_latents.jitted._cache_size() and len([name for name in compiled if "sample" in name]) == 1


def test_pictures_compile_each_of_their_programs_once(tiny_folder: Path, tmp_path: Path, compiled: list[str]) -> None:
    """What was begun ahead is what is called, sampler and decoder."""
    settings = build(RunSettings, values(tiny_folder, tmp_path))
    studio = Studio.open(find_source(settings.address), ("<a>",), 5, 16)
    sample = replace(settings.prior.sample, steps=9, batch=3)  # which no other test takes
    rows = jnp.zeros((5, studio.model.text_encoder.hidden_size))
    for _ in range(2):
        pictures = studio.generator.images(Applied(studio.params, rows), ["a cat"] * 4, range(4), sample)
    assert pictures.shape == (4, 16, 16, 3)
    counts = [len([name for name in compiled if of in name]) for of in ("sample_latents", "decode")]
    assert counts == [1, 1]


DRAWN_TWICE = """
import numpy as np

from cns_jax.engine.settings import SampleSettings
from cns_jax.engine.start import start
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.weights.locate import Address

start()
studio = Studio.open(find_source(Address("miniature")), (), 1, 64)
sample = SampleSettings("dpm++2m", steps=12, guidance_scale=4.0, batch=16)


def latents(order):
    prompts = [f"a photo of a {colour} cat" for colour in ("red", "blue", "green", "white")] * 4
    return studio.generator.latents(studio.base, [prompts[i] for i in order], list(order), sample)


order = range(16)
np.testing.assert_allclose(latents(order[::-1])[::-1], latents(order), rtol=1e-4, atol=1e-4)
"""


def test_a_picture_is_the_same_wherever_it_lies_in_its_batch() -> None:
    """On as many threads as a user's process has: with parts of a batch in threads, their first rows were wrong."""
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # which ask for four devices
    done = subprocess.run([sys.executable, "-c", DRAWN_TWICE], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr[-2000:]
