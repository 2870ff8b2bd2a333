"""A run's model before its first lesson and after each of them, ready to sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.runs.strength import scaled
from cns_jax.engine.settings import SampleSettings
from cns_jax.methods.applied import Applied


@dataclass(frozen=True)
class Stages:
    """learned: what the run knows; studio: the base model with the run's tokens."""

    learned: Learned
    studio: Studio

    @classmethod
    def open(cls, run: str, after: str = "", compute: str = "", vae: str = "") -> Stages:
        """A run up to concept `after` (default: the last); only its tokens are known to prompts. compute, vae:
        other than the run's own.

        Raises SettingsError if the folder is no run, has learned nothing yet, or does not know the concept.
        """
        learned = Learned.of(run, after)
        s = learned.settings
        address = dataclasses.replace(s.address, vae=vae) if vae else s.address
        rows = s.rows_for(len(learned.concepts))
        studio = Studio.open(find_source(address), learned.tokens, rows, s.resolution, compute=compute or s.compute)
        return cls(learned, studio)

    @property
    def last(self) -> int:
        """How many concepts the run knows."""
        return len(self.learned.concepts)

    def at(self, stage: int, strength: float = 1.0) -> Applied:
        """What to sample with after `stage` concepts; 0 is the base model with empty rows.

        strength: of what was taught to the weights (see `scaled`); the rows stay.
        """
        params = self.studio.params
        if stage == 0:
            return self.studio.base
        taught = self.learned.applied(params, stage - 1, self.studio.vocabulary.reserved)
        return dataclasses.replace(scaled(params, taught, strength), rows_rd=jnp.asarray(taught.rows_rd))

    def images(self, stage: int, prompts: Sequence[str], seeds: Sequence[int], sample: SampleSettings) -> np.ndarray:
        """Pictures uint8 (n, h, w, 3) after `stage` concepts."""
        return self.studio.generator.images(self.at(stage), prompts, seeds, sample)
