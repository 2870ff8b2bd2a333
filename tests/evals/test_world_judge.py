"""The judge on the world: its truth of pictures, and when a held-out concept has appeared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cns_jax.engine.measure.judging import load_judge
from cns_jax.evals.judge import OF_SUBJECTS
from cns_jax.evals.world_judge import found, judged, labels_of
from cns_jax.miniature.concepts import SETS, picture_with, render_concept
from cns_jax.miniature.world import SUBJECTS, Picture, SubjectSpec

pytestmark = pytest.mark.computes

CAT, GLASS = SETS[0][0], SETS[0][5]


def test_labels() -> None:
    styled = Picture((SubjectSpec("mug", "red"),), "snow", "blueprint")
    labels = labels_of([picture_with([CAT]), styled, Picture((SubjectSpec("mug", "red"),), "snow", "photo")])
    cat, mug = SUBJECTS.index("cat"), SUBJECTS.index("mug")
    assert labels.subject.sum(1).tolist() == [1, 1, 1]
    assert all(int(getattr(labels, name)[0, cat]) > 0 for name in ("color", "pattern", "second", "quirk", "eyes"))
    assert all(int(getattr(labels, name)[1, mug]) == -1 for name in OF_SUBJECTS)  # no colours in a blueprint
    assert [int(getattr(labels, name)[2, mug]) for name in OF_SUBJECTS] == [0, 0, -1, 0, 0]


def test_found_asks_for_every_defining_attribute() -> None:
    right = {name: np.ones(6) for name in ("subject", "color", "pattern", "second", "style", "scene", "quirk", "eyes")}
    for row, name in enumerate(("subject", "color", "pattern", "second"), 1):
        right[name][row] = 0
    right["quirk"][5] = right["eyes"][5] = 0  # a few pixels
    assert found(right, [[CAT]] * 6).tolist() == [1, 0, 0, 0, 0, 1]
    right["style"][0] = 0
    assert found(right, [[GLASS, CAT]] * 6).tolist() == [0, 0, 0, 0, 0, 1]
    right["color"][:] = math.nan  # nothing to tell
    assert found(right, [[CAT]] * 6).tolist() == [1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_shipped_judge_tells_concepts_from_others(number: int) -> None:
    """It finds concepts on unseen renders of them, and not on renders of another set's."""
    judge, right, wrong = load_judge(), [], []
    for place, concept in enumerate(SETS[number - 1]):
        shown = [[concept]] * 8, [picture_with([concept])] * 8
        for other, shares in ((concept, right), (SETS[number % 3][place], wrong)):
            images = np.stack([render_concept(other, i, "test")[0] for i in range(8)])
            shares.append(found(judged(judge, images, shown[1]), shown[0]).mean())
    assert np.mean(right) >= 0.9 and min(right) > 0.5, right
    assert max(wrong) <= 0.1, wrong
