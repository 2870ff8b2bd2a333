"""Protection of a run: which prompts it holds, what a lesson's steps are pulled to, and what moved after all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np

from cns_jax.core.files import kept_array, name_of
from cns_jax.core.tree import flatten, like
from cns_jax.core.types import Concept
from cns_jax.engine.prepare import caches
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.studio import Studio
from cns_jax.miniature.world import world_prompts
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.protect.certificate import Change, Group, certificate, changes, within
from cns_jax.protect.moments import Protected, second_moment
from cns_jax.protect.prompts import concept_prompts, general_captions
from cns_jax.protect.proximal import Pull, pull_of, pull_shapes
from cns_jax.weights.shared_basis import decompose, norm

_WORLD, _WORLD_SEED = 400, 77  # other draws than the control suite's


def general_prompts(settings: RunSettings) -> tuple[str, ...]:
    """What a run protects besides its concepts."""
    if settings.calibration == "miniature" and not settings.protect.captions:
        return world_prompts(_WORLD, _WORLD_SEED)
    return general_captions(settings.protect.captions)


class Protection:
    """Of one run. groups: its taught concepts, in order."""

    def __init__(self, studio: Studio, settings: RunSettings) -> None:
        self.studio, self.settings = studio, settings
        self.groups: list[Group] = []
        self._base = cross_attention_kernels(studio.params["unet"])

    def add(self, group: Group) -> None:
        """A concept's lesson is over."""
        self.groups.append(group)
        if self.settings.protects:
            self._protected = self._protected + Protected.of(group.moment_dd, group.kernels())

    def pull(self) -> Pull | None:
        """What the next lesson's steps are pulled to; None if the run is not protected."""
        if not self.settings.protects:
            return None
        protect = self.settings.protect
        return pull_of(self._protected, protect.strength / self._scale, self._directions, self._base)

    def shapes(self) -> Pull | None:
        """Of what `pull` returns."""
        return pull_shapes(self._base, self._directions) if self.settings.protects else None

    def moment(self, concept: Concept, rows_rd: Any) -> np.ndarray:
        """Second moment of the concept's prompts, float32 (d, d). rows_rd: the token rows, its own as learned."""
        return self._moment(concept_prompts(concept), rows_rd).astype(np.float32)

    def kept(self, previous: Mapping[str, Any], kernels: Mapping[str, Any], moment_dd: np.ndarray) -> Mapping[str, Any]:
        """`kernels` with what the lesson changed cut to protect.rank directions; as they are if that is 0.

        Of all changes of that rank in one basis it is the nearest in the keys and values of the concept's own prompts,
        whose second moment is `moment_dd`, and of all protected ones. previous: before the lesson.
        """
        rank = self.settings.protect.rank
        if not rank:
            return kernels
        before = {name: np.asarray(w, np.float64) for name, w in flatten(previous).items()}
        change = {name: np.asarray(w, np.float64) - before[name] for name, w in flatten(kernels).items()}
        weighing_dd = self._protected.moment_dd + moment_dd if self.settings.protects else moment_dd
        scales = {name: 1 / norm(w, weighing_dd) for name, w in before.items()}
        cut = decompose(change, weighing_dd, scales).cut(rank, np.float32)
        return like(cut.apply({name: w.astype(np.float32) for name, w in before.items()}), kernels)

    def certificate(self, kernels: Mapping[str, Any]) -> list[Change]:
        """How much the taught concepts have moved since their own lessons, with these kernels."""
        return certificate(self.groups, kernels)

    def holder(self, previous: Mapping[str, Any]) -> Holder | None:
        """What keeps the run's promise during a lesson that starts from `previous`; None where there is none."""
        limit = self.settings.protect.limit
        return Holder(limit, self.groups, previous) if limit and self.groups else None

    @cached_property
    def _general_dd(self) -> np.ndarray:
        """Second moment of the general prompts, kept beside the run's other caches."""
        prompts, studio = general_prompts(self.settings), self.studio
        key = name_of((studio.ids["text_encoder"], studio.model.compute, prompts))
        file = caches(self.settings) / "moments" / f"{key}.safetensors"
        return kept_array(file, "moment", lambda: self._moment(prompts, studio.no_rows).astype(np.float32))

    @cached_property
    def _scale(self) -> float:
        """The general prompts' mean energy of a direction, in which protect.strength counts."""
        return float(np.trace(self._general_dd)) / len(self._general_dd)

    @cached_property
    def _protected(self) -> Protected:  # type: ignore[no-redef]
        return Protected.of(self._general_dd, self._base, self.settings.protect.general)

    @property
    def _directions(self) -> int:
        return self.settings.protect.directions or self.studio.model.text_encoder.hidden_size

    def _moment(self, prompts: tuple[str, ...], rows_rd: Any) -> np.ndarray:
        return second_moment(np.asarray(self.studio.encode(self.studio.vocabulary.encode(prompts), rows_rd)))


class Holder:
    """Keeps protect.limit during one lesson."""

    def __init__(self, limit: float, groups: list[Group], previous: Mapping[str, Any]) -> None:
        self.limit, self.groups = limit, list(groups)
        self.previous = jax.tree.map(np.asarray, previous)  # the step donates its own
        self.now = [changes(group, previous) for group in groups]

    def held(self, kernels: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        """The kernels within the promise, and how many of them were not."""
        return within(self.limit, self.groups, self.previous, kernels, self.now)
