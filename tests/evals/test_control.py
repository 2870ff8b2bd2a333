"""The judge's grades, and the prompts it grades: fixed, complete, and right where they should be."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.settings import SettingsError
from cns_jax.engine.measure.control import ControlRequest
from cns_jax.engine.measure.control import control as run_control
from cns_jax.engine.measure.judging import load_judge
from cns_jax.evals import control
from cns_jax.evals.judge import OF_SUBJECTS, Verdict, grades
from cns_jax.evals.world_judge import EVEN, JUDGE, labels_of
from cns_jax.miniature.drawing import Pattern
from cns_jax.miniature.world import COLORS, SCENES, STYLES, SUBJECTS, Picture, SubjectSpec, rgb

pytestmark = pytest.mark.computes

PICTURES = [
    Picture((SubjectSpec("cat", "red"),), "beach", "photo"),
    Picture((SubjectSpec("mug", "blue", Pattern("dots", rgb("red"), quirk="star")), SubjectSpec("dog", "black")),
            "space", "sketch"),
]  # fmt: skip


def perfect(pictures) -> Verdict:
    """The verdict of a judge that is sure and right."""
    labels = labels_of(pictures)
    one_hot = [np.eye(n)[np.maximum(leaf, 0)] for n, leaf in zip(JUDGE.classes, labels, strict=True)]
    one_hot[2] = np.asarray(labels.subject, np.float32)
    return Verdict(*(jnp.asarray(leaf, jnp.float32) for leaf in one_hot))


def test_labels() -> None:
    labels = labels_of(PICTURES)
    assert [STYLES[i] for i in labels.style] == ["photo", "sketch"]
    assert [SCENES[i] for i in labels.scene] == ["beach", "space"]
    color = np.asarray(labels.color)
    assert (color >= 0).sum(1).tolist() == [1, 2] == labels.subject.sum(1).tolist()
    assert COLORS[color[1, SUBJECTS.index("dog")]] == "black"


def test_a_perfect_verdict_is_right_everywhere() -> None:
    for name, right in grades(perfect(PICTURES), labels_of(PICTURES)).items():
        assert right[1] == 1 and (right[0] == 1 or name == "second"), name  # the cat has no second colour


def test_each_mistake_costs_its_attribute_only() -> None:
    labels, good = labels_of(PICTURES), perfect(PICTURES)
    cat, mug = SUBJECTS.index("cat"), SUBJECTS.index("mug")
    wrong = {
        "style": good._replace(style=jnp.roll(good.style, 1, axis=1)),
        "scene": good._replace(scene=jnp.roll(good.scene, 1, axis=1)),
        "subject": good._replace(subject=good.subject.at[1, cat].set(5)),
    }
    for name in OF_SUBJECTS:
        leaf = getattr(good, name)
        wrong[name] = good._replace(**{name: leaf.at[1, mug].set(jnp.roll(leaf[1, mug], 1))})
    for name, verdict in wrong.items():
        for other, right in grades(verdict, labels).items():
            assert right[1] == (other != name), (name, other)


@pytest.mark.parametrize(("pattern", "right"), [("dots", 0), ("checks", 1), ("stripes", 1)])
def test_even_patterns_have_two_colors_in_either_order(pattern: str, right: int) -> None:
    picture = Picture((SubjectSpec("mug", "blue", Pattern(pattern, rgb("red"))),), "beach", "photo")
    other = Picture((SubjectSpec("mug", "red", Pattern(pattern, rgb("blue"))),), "beach", "photo")
    found = grades(perfect([other]), labels_of([picture]), EVEN)
    assert (found["color"][0], found["second"][0], found["pattern"][0]) == (right, right, 1)


def test_prompts_are_fixed_and_cover_the_world() -> None:
    pictures = control.control_pictures(256)
    assert pictures[:8] == control.control_pictures(8)
    assert {p.scene for p in pictures} == set(SCENES) and {p.style for p in pictures} == set(STYLES)
    assert {s.kind for p in pictures for s in p.subjects} == set(SUBJECTS)
    assert {s.color for p in pictures for s in p.subjects} == set(COLORS)
    prompts = control.control_prompts(pictures)
    assert all(
        p.subjects[0].kind in words and p.subjects[0].color in words for p, words in zip(pictures, prompts, strict=True)
    )


def test_the_shipped_judge_knows_real_renders() -> None:
    pictures = control.control_pictures(128)
    shares = control.grade(load_judge(), control.real_renders(pictures), pictures)
    assert shares["scene"] > 0.97 and shares["style"] > 0.97 and shares["color"] > 0.93 and shares["subject"] > 0.97
    assert shares["pattern"] > 0.9 and shares["second"] > 0.85 and shares["quirk"] > 0.85
    upset = control.grade(load_judge(), control.real_renders(pictures), pictures[1:] + pictures[:1])
    assert max(upset.values()) < 0.6


def test_another_world_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """Its pictures would be judged by a classifier that has never seen such."""
    with pytest.raises(SettingsError, match="64 x 64; for another model: --suite=concepts"):
        run_control(ControlRequest(str(tiny_folder), num=1, out=str(tmp_path)))


@pytest.mark.slow
def test_the_shipped_miniature_follows_its_prompts(tmp_path: Path) -> None:
    result = run_control(ControlRequest(out=str(tmp_path)))
    print(result.table())
    for name, right in result.generated.items():
        assert right / result.real[name] >= 0.9, result.table()


def test_what_each_picture_shows_of_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cat's style is wrong, and it has no pattern to be graded by; the other picture is right but for its quirk."""
    right = {name: np.array([1.0, 1.0]) for name in control.ATTRIBUTES}
    right["style"], right["quirk"] = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    right["second"] = np.array([np.nan, 1.0])
    monkeypatch.setattr(control, "judged", lambda *_: right)
    shares, each = control.graded(None, np.zeros((2, 1, 1, 3), np.uint8), PICTURES)
    assert shares == {"scene": 1, "style": 0.5, "subject": 1, "color": 1, "pattern": 1, "second": 1, "quirk": 0}
    assert each == pytest.approx([3 / 4, 6 / 7])
