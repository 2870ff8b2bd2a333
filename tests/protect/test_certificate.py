"""What moved, and the promise that bounds it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.protect.certificate import Group, certificate, changes, told, within
from cns_jax.protect.moments import second_moment

RNG = np.random.default_rng(9)
WIDTH = 10


def tree(scale: float) -> dict:
    return {"a": {"kernel": jnp.asarray(scale * RNG.normal(size=(WIDTH, 6)), jnp.float32)},
            "b": {"kernel": jnp.asarray(scale * RNG.normal(size=(WIDTH, 4)), jnp.float32)}}  # fmt: skip


def plus(one: dict, other: dict) -> dict:
    return {name: {"kernel": one[name]["kernel"] + other[name]["kernel"]} for name in one}


BEFORE = tree(1.0)
FEATURES = RNG.normal(size=(2, 2, WIDTH))  # four of ten directions
CAT = Group("cat", second_moment(FEATURES), lambda: BEFORE)


def test_a_certificate_is_the_change_of_the_prompts_own_keys_and_values() -> None:
    after = plus(BEFORE, tree(0.1))
    x_nd = FEATURES.reshape(-1, WIDTH)
    shares = {}
    for name in BEFORE:
        w, v = (np.asarray(t[name]["kernel"], np.float64) for t in (BEFORE, after))
        shares[f"{name}.kernel"] = np.square(x_nd @ (v - w)).sum() / np.square(x_nd @ w).sum()
    assert changes(CAT, after) == pytest.approx(shares, rel=1e-5)
    (change,) = certificate([CAT], after)
    worst = max(shares, key=lambda name: shares[name])
    assert change.mean == pytest.approx(np.mean(list(shares.values())), rel=1e-5)
    assert (change.layer, change.worst) == (worst, pytest.approx(shares[worst], rel=1e-5))
    assert told(change).startswith("cat: its keys and values have moved by ")


def test_a_promise_is_kept_and_free_directions_stay_as_learned() -> None:
    learned = tree(3.0)
    now = [changes(CAT, BEFORE)]
    held, count = within(0.01, [CAT], BEFORE, plus(BEFORE, learned), now)
    assert count == 2
    shares = changes(CAT, held)
    assert max(shares.values()) <= 0.01 < min(changes(CAT, plus(BEFORE, learned)).values())
    assert max(shares.values()) > 0.01 / 64  # not drawn back further than factors of 4 ask
    free = np.linalg.eigh(CAT.moment_dd)[1][:, :6].T
    for name, leaf in learned.items():
        kept = np.asarray(held[name]["kernel"] - BEFORE[name]["kernel"])
        np.testing.assert_allclose(free @ kept, free @ np.asarray(leaf["kernel"]), atol=1e-4)


def test_only_what_breaks_a_promise_is_drawn_back() -> None:
    learned = tree(1e-4)
    learned["b"]["kernel"] = learned["b"]["kernel"] * 1e5
    after = plus(BEFORE, learned)
    held, count = within(0.01, [CAT], BEFORE, after, [changes(CAT, BEFORE)])
    assert count == 1
    np.testing.assert_array_equal(held["a"]["kernel"], after["a"]["kernel"])
    assert changes(CAT, held)["b.kernel"] <= 0.01


def test_what_was_broken_before_a_lesson_does_not_get_worse() -> None:
    before = plus(BEFORE, tree(1.0))  # an earlier lesson without a promise
    now = [changes(CAT, before)]
    held, _ = within(1e-6, [CAT], before, plus(before, tree(1.0)), now)
    after = changes(CAT, held)
    assert all(after[name] <= now[0][name] * (1 + 1e-6) for name in after)


def test_everything_may_be_held() -> None:
    full = Group("all", np.eye(WIDTH), lambda: BEFORE)
    held, count = within(1e-30, [full], BEFORE, plus(BEFORE, tree(1.0)), [changes(full, BEFORE)])
    assert count == 2
    for name in BEFORE:
        np.testing.assert_allclose(held[name]["kernel"], BEFORE[name]["kernel"], atol=1e-6)
