"""The judge: a small classifier of world pictures, independent of the CLIP that the prompts went through."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.layers import Conv, Dense, GroupNorm


class Verdict(NamedTuple):
    """Logits a picture: style (b, styles), scene (b, scenes), subject presence (b, subjects; sigmoid), and the
    colour that each subject has if present (b, subjects, colors)."""

    style: jax.Array
    scene: jax.Array
    subject: jax.Array
    color: jax.Array


class Labels(NamedTuple):
    """The truth: style (b,), scene (b,) int32; color (b, subjects) int32, -1 where a subject is absent."""

    style: jax.Array
    scene: jax.Array
    color: jax.Array


class Judge(nn.Module):
    """Five strided convolutions and four linear heads on the flattened 4 x 4 features (64 x 64 input)."""

    styles: int
    scenes: int
    subjects: int
    colors: int

    @nn.compact
    def __call__(self, images_bhwc: jax.Array) -> Verdict:
        """images_bhwc: in [-1, 1]."""
        x = images_bhwc
        for i, (width, stride) in enumerate(((24, 2), (48, 2), (96, 2), (96, 1), (96, 2))):
            x = Conv(width, 3, None, f"conv{i}", stride=stride)(x)
            x = nn.silu(GroupNorm(8, 1e-5, name=f"norm{i}")(x))
        features = nn.silu(Dense(192, name="hidden")(x.reshape(x.shape[0], -1)))
        color = Dense(self.subjects * self.colors, name="color")(features)
        return Verdict(
            Dense(self.styles, name="style")(features),
            Dense(self.scenes, name="scene")(features),
            Dense(self.subjects, name="subject")(features),
            color.reshape(-1, self.subjects, self.colors),
        )


def verdict(judge: Judge, params: Any, images_bhwc: jax.Array) -> Verdict:
    """The judge's logits for images in [-1, 1]."""
    return Verdict(*judge.apply({"params": params}, images_bhwc))


def cross_entropy(logits: jax.Array, index: jax.Array) -> jax.Array:
    """Negative log-likelihood of `index` along the last axis."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), index[..., None], axis=-1)[..., 0]


def judge_loss(verdict: Verdict, labels: Labels) -> jax.Array:
    """Sum of the heads' cross-entropies; colour counts for the subjects that are present."""
    present = labels.color >= 0
    presence = (
        jnp.maximum(verdict.subject, 0) - verdict.subject * present + jnp.log1p(jnp.exp(-jnp.abs(verdict.subject)))
    )
    color = cross_entropy(verdict.color, jnp.maximum(labels.color, 0))
    color = jnp.where(present, color, 0.0).sum() / jnp.maximum(present.sum(), 1)
    scene, style = cross_entropy(verdict.scene, labels.scene), cross_entropy(verdict.style, labels.style)
    return scene.mean() + style.mean() + presence.sum(-1).mean() + color


def grades(verdict: Verdict, labels: Labels) -> dict[str, Any]:
    """Per picture, 1.0 where right: style, scene; subject: the k likeliest subjects are the k asked for;
    color: every asked subject, taken as given, has its colour."""
    present = labels.color >= 0
    k = present.sum(-1, keepdims=True)
    rank = jnp.argsort(jnp.argsort(-verdict.subject, axis=-1), axis=-1)
    color_right = jnp.argmax(verdict.color, -1) == labels.color
    return {
        "scene": (jnp.argmax(verdict.scene, -1) == labels.scene).astype(jnp.float32),
        "style": (jnp.argmax(verdict.style, -1) == labels.style).astype(jnp.float32),
        "color": (color_right | ~present).all(-1).astype(jnp.float32),
        "subject": ((rank < k) == present).all(-1).astype(jnp.float32),
    }
