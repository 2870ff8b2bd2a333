"""Pictures of NaN are an error, wherever the NaN comes from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_runs import values

from cns_jax.core.settings import build
from cns_jax.core.tree import map_named
from cns_jax.engine.draw.generate import generate
from cns_jax.engine.draw.generator import PictureError
from cns_jax.engine.draw.prior import Part, prior_file, prior_latents
from cns_jax.engine.draw.request import Request
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.methods.applied import Applied

PARTS = Part("cats", ("a red cat", "a cat"), (1, 2), (16, 16))


@pytest.fixture(scope="module")
def studio(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    settings = build(RunSettings, values(tiny_folder, tmp_path_factory.mktemp("run")))
    return Studio.open(find_source(settings.address), (), 5, 16)


@pytest.fixture
def sample(tiny_folder: Path, tmp_path: Path) -> Any:
    return build(RunSettings, values(tiny_folder, tmp_path)).sample


def broken(params: dict[str, Any], name: str) -> dict[str, Any]:
    """The parameters with NaN in every leaf whose name begins with `name`."""
    nan = lambda key, leaf: jnp.full_like(leaf, jnp.nan) if key.startswith(name) else leaf  # noqa: E731
    return map_named(nan, params)


def test_a_guidance_that_overflows(studio: Studio, sample: Any) -> None:
    wild = dataclasses.replace(sample, guidance_scale=3e38)
    with pytest.raises(PictureError) as caught:
        studio.generator.images(studio.base, ["a cat", "a mug"], [3, 4], wild)
    assert "the picture of 'a cat' with seed 3 became NaN: sampling diverged with guidance_scale=3e+38" in str(
        caught.value
    )


def test_weights_of_a_diverged_training(trained: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained["folder"], run, ignore=shutil.ignore_patterns("checkpoints", "data"))
    ledger = json.loads((run / "ledger.json").read_text())
    del (
        ledger["concepts"][-1]["sha256"],
        ledger["concepts"][-1]["bytes"],
    )  # as of an old version, which went on with NaN
    (run / "ledger.json").write_text(json.dumps(ledger))
    file = run / ledger["concepts"][-1]["weights"]
    tensors = load_file(file)
    save_file({k: np.full_like(v, np.nan) if k.startswith("memory.kernels.") else v for k, v in tensors.items()}, file)
    with pytest.raises(PictureError, match="trained weights hold NaN or infinity, since the training diverged"):
        generate(Request(str(run), ("a cat",), num=1))
    assert not list(run.glob("generated/*"))
    generate(Request(str(run), ("a cat",), num=1, after="spotted_dog"))  # the stages before are whole


def test_a_decoder_that_overflows(studio: Studio, sample: Any) -> None:
    params = broken(dict(studio.params), "vae.decoder.up_blocks.2.resnets.1.conv2")
    with pytest.raises(PictureError, match="'a mug' with seed 4 became NaN in the VAE's decoder.*in float32"):
        studio.generator.images(Applied(params, studio.no_rows), ["a mug", "a cat"], [4, 5], sample)


def test_a_picture_of_one_colour_is_no_error(studio: Studio, sample: Any) -> None:
    still = map_named(
        lambda key, leaf: jnp.zeros_like(leaf) if key.startswith("vae.decoder.conv_out") else leaf, studio.params
    )
    pictures = studio.generator.images(Applied(still, studio.no_rows), ["a cat"], [0], sample)
    assert (pictures == 128).all()


def test_prior_images_of_nan_are_not_kept(studio: Studio, sample: Any, tmp_path: Path) -> None:
    wild = dataclasses.replace(studio, params=broken(dict(studio.params), "unet.conv_in"))
    with pytest.raises(PictureError, match="'a red cat' with seed 1 became NaN"):
        prior_latents(wild, PARTS, sample, tmp_path)
    assert not list(tmp_path.iterdir())


def test_prior_images_that_were_kept_as_nan_are_made_again(studio: Studio, sample: Any, tmp_path: Path) -> None:
    whole = prior_latents(studio, PARTS, sample, tmp_path)
    file = prior_file(studio.ids["model"], studio.model.compute, PARTS, sample, tmp_path)
    save_file({"latents": np.full_like(whole, np.nan)}, file)
    np.testing.assert_array_equal(prior_latents(studio, PARTS, sample, tmp_path), whole)
    np.testing.assert_array_equal(load_file(file)["latents"], whole)


def test_a_seed_beyond_32_bits_makes_its_own_prior_images(studio: Studio, sample: Any, tmp_path: Path) -> None:
    wide = prior_latents(studio, PARTS._replace(seeds=(2**32 + 1, 2**64 + 2)), sample, tmp_path)
    near = prior_latents(studio, PARTS, sample, tmp_path)
    assert (wide[0] != near[0]).any()
    np.testing.assert_array_equal(wide[1], near[1])  # counted on from 0
