"""How much the keys and values of earlier concepts' prompts have moved: known before any picture is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.tree import flatten, like

Kernels = Mapping[str, Any]
_TINY = float(np.finfo(np.float32).tiny)


class Group(NamedTuple):
    """A taught concept. moment_dd: second moment of its prompts' text features; kernels: reads the K/V kernels as they
    were right after its lesson."""

    name: str
    moment_dd: np.ndarray
    kernels: Callable[[], Kernels]


class Change(NamedTuple):
    """By how much a concept's keys and values have moved since its own lesson, as a share of their energy: the mean
    over layers, and the worst layer with its name."""

    name: str
    mean: float
    worst: float
    layer: str


def certificate(groups: Sequence[Group], kernels: Kernels) -> list[Change]:
    """Of each group, with `kernels` as they are now."""
    return [_change(group.name, changes(group, kernels)) for group in groups]


def told(change: Change) -> str:
    """For people, a line."""
    return (
        f"{change.name}: its keys and values have moved by {percent(change.mean)} since its own lesson, "
        f"in the worst layer by {percent(change.worst)}"
    )


def percent(share: float) -> str:
    """For people, to two digits."""
    return f"{100 * share:.2g} %" if share >= 1e-5 else "less than 0.001 %"


def changes(group: Group, kernels: Kernels) -> dict[str, float]:
    """Dotted kernel name -> tr((W - W_g)^T C (W - W_g)) / tr(W_g^T C W_g), W_g being the group's own kernels."""
    shares = _shares(jnp.asarray(group.moment_dd, jnp.float32), group.kernels(), kernels)
    return {name: float(share) for name, share in flatten(shares).items()}


def within(
    limit: float,
    groups: Sequence[Group],
    previous: Kernels,
    kernels: Kernels,
    now: Sequence[Mapping[str, float]],
    masked: bool = False,
) -> tuple[Kernels, int]:
    """`kernels` with those that break a promise drawn back towards `previous`, and how many of them did.

    The promise: no kernel changes a group by more than `limit`, or by more than it did before the lesson, of which
    `now` tells (of each group, as `changes`). In the metric of the groups' features a kernel is drawn back as little as
    keeps the promise, by factors of 4: directions that no group uses stay as learned. masked: single weights that the
    lesson did not move may not move here either, so all of a kernel's change is drawn back alike.
    """
    base, flat = flatten(previous), dict(flatten(kernels))
    learned = {name: np.asarray(w, np.float64) - np.asarray(base[name], np.float64) for name, w in flat.items()}
    total_dd = sum((np.asarray(group.moment_dd, np.float64) for group in groups), np.zeros(()))
    broken = _broken(limit, groups, like(flat, kernels), now, set(flat))
    count = len(broken)
    strength = 1 / max(float(np.trace(total_dd)), _TINY) if broken else 0.0
    for turn in range(_ROUNDS):
        if not broken:
            return like(flat, kernels), count
        eye_dd = np.eye(len(total_dd))
        shrink_dd = eye_dd / 2 ** (turn + 1) if masked else np.linalg.inv(eye_dd + strength * total_dd)
        for name in broken:
            flat[name] = jnp.asarray(base[name] + shrink_dd @ learned[name], jnp.float32)
        broken = _broken(limit, groups, like(flat, kernels), now, broken)
        strength *= 4
    return like({**flat, **{name: jnp.asarray(base[name]) for name in broken}}, kernels), count


def _broken(
    limit: float, groups: Sequence[Group], kernels: Kernels, now: Sequence[Mapping[str, float]], among: set[str]
) -> set[str]:
    found = set[str]()
    for group, before in zip(groups, now, strict=True):
        found |= {name for name, share in changes(group, kernels).items() if share > max(limit, before[name])}
    return found & among


def _change(name: str, shares: Mapping[str, float]) -> Change:
    worst = max(shares, key=lambda layer: shares[layer])
    return Change(name, float(np.mean(list(shares.values()))), shares[worst], worst)


@jax.jit
def _shares(moment_dd: jax.Array, before: Kernels, after: Kernels) -> Kernels:
    def energy(w: jax.Array) -> jax.Array:
        return (w * jnp.matmul(moment_dd, w, precision=jax.lax.Precision.HIGHEST)).sum()

    return jax.tree.map(lambda b, a: energy(a - b) / jnp.maximum(energy(b), _TINY), before, after)


_ROUNDS = 24
