"""What the method and the steps are given: prompts without their padding, shapes known before the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_runs import values

from cns_jax.core.settings import SettingsError, build
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.concepts import find_concepts
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.layout import Bucket, Layout, layout_of
from cns_jax.engine.teach.prepare import calibration_of, concept_data, data_shapes
from cns_jax.engine.timings import Timings
from cns_jax.evals.neuron_prompts import pool_of
from cns_jax.neurons.calibration import draw
from cns_jax.neurons.score import feature_norms


@pytest.mark.parametrize("positions", ["caption", "caption+eot", "all"])
def test_padding_behind_the_longest_prompt_changes_no_norm(positions: str) -> None:
    settings = build(RunSettings, {"name": "x", "data_root": "miniature:1", "model": "miniature"})
    settings = dataclasses.replace(settings, method=dataclasses.replace(settings.method, positions=positions))
    studio = Studio.open(find_source(settings.address), (), 0, 64, compute="float32")
    ours = calibration_of(studio, settings)
    prompts = list(draw(pool_of(settings.calibration), settings.method.calibration_prompts, settings.seed))
    ids = studio.vocabulary.encode(prompts)
    mask = studio.vocabulary.caption_mask(ids, settings.method.positions)
    used = 1 + max(np.flatnonzero(row).max() for row in mask)
    length = ours.states_bld.shape[1]
    assert used <= length < used + 8 and length <= ids.shape[1]
    assert (length < ids.shape[1]) == (positions != "all")
    whole = feature_norms(studio.encode(ids), jnp.asarray(mask))
    np.testing.assert_allclose(feature_norms(*ours), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prior_batch", [0, 1])
def test_shapes_are_those_of_the_data(tiny_folder: Path, tmp_path: Path, prior_batch: int) -> None:
    config = values(tiny_folder, tmp_path / "run")
    config["train"] |= {"prior_batch": prior_batch, "batch": 4 - prior_batch}
    settings = build(RunSettings, config)
    concepts = find_concepts(settings)
    studio = Studio.open(find_source(settings.address), tuple(c.token for c in concepts), 5, 16)
    most = layout_of(studio.model, settings, concepts)
    bucket = Bucket((16, 16), most.buckets[0].views + 2)  # as of another concept with more pictures, and a mask
    layout = Layout((bucket,), masked=bool(prior_batch))
    (data,) = concept_data(studio, settings, concepts[0], layout, Timings()).buckets
    (wanted,) = data_shapes(studio, settings, layout)
    kind = lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type)  # noqa: E731
    assert jax.tree.map(kind, data) == jax.tree.map(kind, wanted)
    assert int(data.views) == bucket.views - 2 and not most.masked
    assert data.mask_vhw is None or (data.mask_vhw == 1).all()


def test_what_is_said_of_concepts_reaches_them(tmp_path: Path) -> None:
    """By the configuration, by the flag --concept and by concept.toml; of drawn sets, too."""
    folder = tmp_path / "my_cat"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "1.png")
    (folder / "concept.toml").write_text('kind = "style"\nsteps = 300\n')
    values = {"name": "x", "run": str(tmp_path / "run"), "said": [{"name": "my_cat", "token": "<x>"}]}
    (cat,) = find_concepts(build(RunSettings, values | {"data_root": str(tmp_path)}))
    assert (cat.token, cat.class_word, cat.kind, cat.steps) == ("<x>", "cat", "style", 300)
    values |= {"concepts": [{"name": "tiger_cat", "steps": 20}], "said": [{"name": "tiger_cat", "init_word": "tiger"}]}
    (cat,) = find_concepts(build(RunSettings, values | {"data_root": "miniature:1"}))
    assert (cat.token, cat.class_word, cat.init_word, cat.steps) == ("<tiger_cat>", "cat", "tiger", 20)


@pytest.mark.parametrize("steps", [15, 1_000_000])
def test_steps_beside_the_pictures_are_bound_as_those_of_the_configuration(tmp_path: Path, steps: int) -> None:
    (tmp_path / "my_cat").mkdir()
    (tmp_path / "my_cat" / "concept.toml").write_text(f"steps = {steps}\n")
    settings = build(RunSettings, {"name": "x", "run": str(tmp_path / "run"), "data_root": str(tmp_path)})
    with pytest.raises(SettingsError, match=f"my_cat: steps={steps} must be a multiple of train.steps_per_call=10"):
        find_concepts(settings)
