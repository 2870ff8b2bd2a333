"""What keeps protect.limit draws back the kernels that break it, and no others."""

from __future__ import annotations

import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.protect.certificate import Group, certificate, changes, within

LIMIT = 1e-3


def made(rng: np.random.Generator, scale: float) -> dict[str, dict[str, np.ndarray]]:
    return {name: {"kernel": (scale * rng.normal(size=(12, 5))).astype(np.float32)} for name in ("a", "b", "c")}


def scene() -> tuple[Group, dict, dict, np.ndarray]:
    """A group of 4 of 12 directions; its kernels, and ones that moved in a (a little) and in b and c (a lot)."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(12, 4)))[0]
    before, moved = made(rng, 1.0), made(rng, 1.0)
    scale = {"a": 1e-3, "b": 0.5, "c": 2.0}
    after = {k: {"kernel": before[k]["kernel"] + np.float32(scale[k]) * moved[k]["kernel"]} for k in before}
    return Group("g", basis @ basis.T, lambda: before), before, after, basis


def test_only_kernels_that_break_the_promise_are_drawn_back() -> None:
    group, before, after, basis = scene()
    drawn, count = within(LIMIT, [group], before, after, [changes(group, before)])
    assert count == 2
    np.testing.assert_array_equal(drawn["a"]["kernel"], after["a"]["kernel"])
    assert max(changes(group, drawn).values()) <= LIMIT < certificate([group], after)[0].worst
    rest = np.eye(12) - basis @ basis.T
    for name in ("b", "c"):  # what the group does not use stays as learned
        learned, kept = (rest @ (w[name]["kernel"] - before[name]["kernel"]) for w in (after, drawn))
        np.testing.assert_allclose(kept, learned, atol=1e-4)
        assert np.abs(learned).max() > 0.1


def test_of_a_masked_lesson_all_of_a_kernels_change_shrinks_alike() -> None:
    group, before, after, _ = scene()
    after["b"]["kernel"][3:] = before["b"]["kernel"][3:]
    drawn, count = within(LIMIT, [group], before, after, [changes(group, before)], masked=True)
    assert count == 2 and max(changes(group, drawn).values()) <= LIMIT
    np.testing.assert_array_equal(drawn["b"]["kernel"][3:], before["b"]["kernel"][3:])
    assert (np.asarray(drawn["b"]["kernel"])[:3] != before["b"]["kernel"][:3]).all()


def test_what_was_lost_before_the_lesson_breaks_no_promise_of_it() -> None:
    group, before, after, _ = scene()
    drawn, count = within(LIMIT, [group], after, after, [changes(group, after)])
    assert count == 0 and all(np.array_equal(w, flatten(after)[k]) for k, w in flatten(drawn).items())
