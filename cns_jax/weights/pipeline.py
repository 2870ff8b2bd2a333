"""A Stable Diffusion on disk (`Source`: nothing read yet) and in memory (`Pipeline`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from cns_jax.core.tree import Tree, fingerprint
from cns_jax.diffusion.schedule import Schedule
from cns_jax.nn.model import PARTS, Model
from cns_jax.weights.strict import Keep, check, load
from cns_jax.weights.tensors import Stored


@dataclass(frozen=True)
class Pipeline:
    """A Stable Diffusion in memory.

    params: float32 numpy arrays, or what `Source.load`'s `keep` made of them. tokenizer: its folder. scheduler:
    the dict of scheduler_config.json as found (empty: none); configs: part -> that of its config.json. part_ids:
    fingerprints of the float32 values.
    """

    model: Model
    params: Mapping[str, Tree]
    schedule: Schedule
    tokenizer: Path
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    part_ids: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def ids(self) -> Mapping[str, str]:
        """Part -> fingerprint, and "model" -> that of all parts together."""
        parts = {part: self.part_ids.get(part) or fingerprint(self.params[part]) for part in PARTS}
        joined = ",".join(f"{part}:{parts[part]}" for part in PARTS)
        return {**parts, "model": hashlib.sha256(joined.encode()).hexdigest()[:16]}


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint. file: what errors name; stored: diffusers key -> where the tensor lies."""

    file: Path
    stored: Mapping[str, Stored]


@dataclass(frozen=True)
class Source:
    """A Stable Diffusion on disk, its configurations read, its weights not yet."""

    model: Model
    parts: Mapping[str, Part]
    schedule: Schedule
    tokenizer: Path
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def shapes(self) -> dict[str, Tree]:
        """The parameters as ShapeDtypeStructs."""
        return jax.eval_shape(self.model.init, jax.random.key(0))

    def check(self) -> None:
        """Names and shapes of all weights; raises WeightsMismatch."""
        for name, part in self.parts.items():
            check(part.stored, self.shapes[name], part.file)

    def load(self, keep: Keep | None = None) -> Pipeline:
        """Read the weights.

        keep("unet.conv_in.kernel", float32 array): what to hold of a leaf, for instance a copy on a device (None: the
        array that was read, whose memory is in the file's order: writing it again copies nothing).
        Raises WeightsMismatch.
        """
        self.check()  # all parts before the first gigabyte
        params, ids = {}, {}
        for name, part in self.parts.items():
            params[name], ids[name] = load(part.stored, self.shapes[name], part.file, keep, f"{name}.")
        return Pipeline(self.model, params, self.schedule, self.tokenizer, self.scheduler, self.configs, ids)
