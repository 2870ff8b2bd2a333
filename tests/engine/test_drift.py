"""What later lessons move of the first concept, against the weights that sampling uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.paper.drift import drift, likeness
from cns_jax.core.tree import flatten
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.runs.concepts import taught_concepts
from cns_jax.neurons.score import cross_attention_kernels


def test_drift_is_what_the_stages_weights_differ_by(trained: dict[str, Any]) -> None:
    stages = Stages.open(str(trained["folder"]))
    kernels = [flatten(cross_attention_kernels(stages.at(stage).unet)) for stage in range(stages.last + 1)]
    ids = stages.studio.vocabulary.encode(sample_prompts(taught_concepts(stages.learned)[0]))
    hidden = np.asarray(stages.at(stages.last).encode(stages.studio.model, ids))

    def energy(of: Any) -> float:
        return float(sum((np.einsum("bld,do->blo", hidden, of(name)) ** 2).sum() for name in kernels[0]))

    found = drift(stages)
    assert len(found) == stages.last - 1 > 0
    for lesson, parts in enumerate(found, 2):
        wanted = energy(lambda n, i=lesson: np.asarray(kernels[i][n]) - np.asarray(kernels[i - 1][n]))
        assert parts["all"] == pytest.approx(wanted / energy(lambda n: np.asarray(kernels[0][n])), rel=1e-3)
        assert parts["all"] > 0 and parts["own"] > 0 and parts["new"] > 0
        roots = sum(parts[name] ** 0.5 for name in ("own", "earlier", "new"))
        assert parts["all"] <= roots**2 * 1.001  # triangle inequality
    assert found[0]["earlier"] == 0 < found[-1]["earlier"]  # before the third lesson there is no other concept


def test_likeness_is_the_mean_cosine_between_concepts(trained: dict[str, Any]) -> None:
    stages = Stages.open(str(trained["folder"]))
    prompts = [sample_prompts(concept)[0] for concept in taught_concepts(stages.learned)]
    ids = stages.studio.vocabulary.encode(prompts)
    hidden = np.asarray(stages.at(stages.last).encode(stages.studio.model, ids))
    cosines = [
        np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        for i, one in enumerate(hidden)
        for other in hidden[i + 1 :]
        for a, b in zip(one[1:], other[1:], strict=True)
    ]
    found = likeness(stages)
    assert found["taught"] == pytest.approx(np.mean(cosines), rel=1e-4)
    assert found["taught"] < 1 and found["plain"] < 1 and found["plain"] != found["taught"]
