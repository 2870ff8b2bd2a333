"""The records that the parts hand to each other. No logic lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

SUBJECT, STYLE, SCENE = "subject", "style", "scene"
KINDS = (SUBJECT, STYLE, SCENE)


@dataclass(frozen=True)
class Concept:
    """One thing to teach, on the host. Never enters jit.

    captions: one an image, without the concept's token; None where the prompt template is to be used.
    class_word: the noun that the token stands before ("cat"), and the class of the prior images.
    init_word: the word whose embedding the token starts from (None: the class word).
    steps: of its lesson (0: as many as the run's settings say).
    mask_paths: the loss mask of each image, None where it has none; empty where no image has.
    class_noun: whether prompts say the class word behind the token ("<cat1> cat"); else the token stands for both.
    """

    name: str
    token: str
    class_word: str
    kind: str
    image_paths: tuple[Path, ...]
    captions: tuple[str | None, ...]
    init_word: str | None = None
    steps: int = 0
    mask_paths: tuple[Path | None, ...] = ()
    class_noun: bool = True


class ConceptData(NamedTuple):
    """What the training step reads of one concept, on the device and padded to one shape for all concepts.

    moments_vhwc: VAE moments of v views; ids_vl: the token ids of each view's prompt; views: how many are real.
    prior_nhwc: scaled latents of n prior images; prior_ids_nl: the token ids of what each shows; priors: how many are
    real. mask_vhw: how much each position of a view is learned, 0 to 1; None where no concept of the run has a mask.
    """

    moments_vhwc: jax.Array
    ids_vl: jax.Array
    views: jax.Array
    prior_nhwc: jax.Array
    prior_ids_nl: jax.Array
    priors: jax.Array
    mask_vhw: jax.Array | None = None


class Batch(NamedTuple):
    """One training batch, and all that is random about its loss.

    latents_bhwc: scaled; ids_bl: int32; weight_b: weight of each image's loss; noise_bhwc: what is added at
    timesteps_b (int32); mask_bhw: weights of the positions' loss, None for ones.
    """

    latents_bhwc: jax.Array
    ids_bl: jax.Array
    weight_b: jax.Array
    noise_bhwc: jax.Array
    timesteps_b: jax.Array
    mask_bhw: jax.Array | None = None


class Trainable(NamedTuple):
    """What learns in methods on kernels: cross-attention K/V kernels (nested as in the UNet) and the concept rows."""

    kernels: Mapping[str, Any]
    rows_rd: jax.Array


class TrainState(NamedTuple):
    """What a step changes; donated. Random keys are derived from seed and step, so none is kept."""

    step: jax.Array
    trainable: Any
    opt_state: Any


class Frozen(NamedTuple):
    """What a step reads: an argument, never closed over, never donated.

    base: all parameters as loaded; plan: what the method fixed for this concept; pull: what protects earlier concepts'
    keys and values (`protect.proximal.Pull`), None where nothing does.
    """

    base: Mapping[str, Any]
    plan: Any
    pull: Any = None
