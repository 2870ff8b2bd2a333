"""The judge: a small classifier of world pictures, independent of the CLIP that the prompts went through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.layers import Conv, Dense, GroupNorm


class Verdict(NamedTuple):
    """Logits a picture: style (b, styles), scene (b, scenes), subject presence (b, subjects; sigmoid), and of each
    subject, if present (b, subjects, classes): its colour, pattern, second colour, quirk and eyes."""

    style: jax.Array
    scene: jax.Array
    subject: jax.Array
    color: jax.Array
    pattern: jax.Array
    second: jax.Array
    quirk: jax.Array
    eyes: jax.Array


class Labels(NamedTuple):
    """The truth, int32: style (b,), scene (b,); subject (b, subjects) 1 where present; the rest (b, subjects), -1 where
    there is nothing to tell: the subject is absent, has no second colour, or is drawn in a style without colours."""

    style: jax.Array
    scene: jax.Array
    subject: jax.Array
    color: jax.Array
    pattern: jax.Array
    second: jax.Array
    quirk: jax.Array
    eyes: jax.Array


OF_SUBJECTS = ("color", "pattern", "second", "quirk", "eyes")
"""The fields that are told of each subject."""


class Judge(nn.Module):
    """Convolutions to an 8 x 8 map (64 x 64 input); each subject looks at its own places of it, and what is told of
    subjects is told by heads that all of them share, so that a pattern learned on cats is known on cars.

    classes: how many of styles, scenes, subjects, and of each field of OF_SUBJECTS.
    """

    classes: tuple[int, ...]

    @nn.compact
    def __call__(self, images_bhwc: jax.Array) -> Verdict:
        """images_bhwc: in [-1, 1]."""
        x = images_bhwc
        for i, (width, stride) in enumerate(((32, 2), (64, 2), (96, 1), (128, 2), (128, 1))):
            x = Conv(width, 3, stride=stride, name=f"conv{i}")(x)
            x = nn.silu(GroupNorm(8, 1e-5, name=f"norm{i}")(x))
        places_bpc = x.reshape(x.shape[0], -1, x.shape[-1])
        whole = nn.silu(Dense(128, name="whole")(jnp.concatenate([places_bpc.mean(1), places_bpc.max(1)], -1)))
        styles, scenes, subjects, *of_subject = self.classes
        maps_bps = Dense(2 * subjects, name="places")(places_bpc)
        # the body (for colours and patterns), and details of it (for quirks and eyes)
        bodies_bps, details_bps = jnp.split(maps_bps, 2, axis=-1)
        looks = [
            jnp.einsum("bps,bpc->bsc", jax.nn.softmax(maps, axis=1), places_bpc) for maps in (bodies_bps, details_bps)
        ]
        kind_sc = self.param("kind", nn.initializers.normal(0.1), (subjects, 192))
        hidden_bsc = nn.silu(Dense(192, name="hidden")(jnp.concatenate(looks, -1)) + kind_sc[None])
        return Verdict(
            Dense(styles, name="style")(whole),
            Dense(scenes, name="scene")(whole),
            jax.nn.logsumexp(bodies_bps, axis=1) + Dense(1, name="subject")(hidden_bsc)[..., 0],
            *(Dense(n, name=name)(hidden_bsc) for n, name in zip(of_subject, OF_SUBJECTS, strict=True)),
        )


def verdict(judge: Judge, params: Any, images_bhwc: jax.Array) -> Verdict:
    """The judge's logits for images in [-1, 1]."""
    return Verdict(*judge.apply({"params": params}, images_bhwc))


def cross_entropy(logits: jax.Array, index: jax.Array) -> jax.Array:
    """Negative log-likelihood of `index` along the last axis."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), index[..., None], axis=-1)[..., 0]


def judge_loss(verdict: Verdict, labels: Labels) -> jax.Array:
    """Sum of the heads' cross-entropies; what is told of subjects counts where there is something to tell."""
    presence = -(labels.subject * jax.nn.log_sigmoid(verdict.subject)).sum(-1)
    presence -= ((1 - labels.subject) * jax.nn.log_sigmoid(-verdict.subject)).sum(-1)
    total = cross_entropy(verdict.scene, labels.scene) + cross_entropy(verdict.style, labels.style) + presence
    total = total.mean()
    for name in OF_SUBJECTS:
        truth = getattr(labels, name)
        errors = cross_entropy(getattr(verdict, name), jnp.maximum(truth, 0))
        total += jnp.where(truth >= 0, errors, 0.0).sum() / jnp.maximum((truth >= 0).sum(), 1)
    return total


def grades(verdict: Verdict, labels: Labels, even: Sequence[int] = ()) -> dict[str, Any]:
    """Per picture, 1.0 where right, 0.0 where wrong, NaN where there is nothing to tell.

    style, scene; subject: the k likeliest subjects are the k asked for; the others: right for every subject asked
    for, taken as present. even: patterns that cover half of a body, where nobody can say which of the two colours is
    the body's: either order is right.
    """
    present = labels.subject > 0
    rank = jnp.argsort(jnp.argsort(-verdict.subject, axis=-1), axis=-1)
    out = {
        "scene": (jnp.argmax(verdict.scene, -1) == labels.scene).astype(jnp.float32),
        "style": (jnp.argmax(verdict.style, -1) == labels.style).astype(jnp.float32),
        "subject": ((rank < present.sum(-1, keepdims=True)) == present).all(-1).astype(jnp.float32),
    }
    seen = {name: jnp.argmax(getattr(verdict, name), -1) for name in OF_SUBJECTS}
    swapped = jnp.isin(labels.pattern, jnp.asarray(even, jnp.int32))
    swapped &= (seen["color"] == labels.second) & (seen["second"] == labels.color)
    for name in OF_SUBJECTS:
        truth = getattr(labels, name)
        right = (seen[name] == truth) | (truth < 0)
        if name in ("color", "second"):
            right |= swapped
        out[name] = jnp.where((truth >= 0).any(-1), right.all(-1).astype(jnp.float32), jnp.nan)
    return out
