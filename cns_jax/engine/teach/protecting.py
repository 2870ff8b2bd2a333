"""Protection of a run: which prompts it holds, what a lesson's steps are pulled to, and what moved after all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cns_jax.core.files import kept_array, name_of
from cns_jax.core.settings import SettingsError
from cns_jax.core.tree import flatten, like
from cns_jax.core.types import SUBJECT, Concept
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.learned import tokens_before
from cns_jax.engine.runs.patching import Applied as Patched
from cns_jax.engine.settings import MINIATURE, RunSettings
from cns_jax.methods.applied import Applied
from cns_jax.miniature.world import world_prompts
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.protect.certificate import Change, Group, certificate, changes, within
from cns_jax.protect.moments import Protected, second_moment
from cns_jax.protect.prompts import concept_prompts, general_captions, token_prompts
from cns_jax.protect.proximal import Pull, pull_of, pull_shapes
from cns_jax.text.vocabulary import TokenError, TruncatedPromptWarning, Vocabulary
from cns_jax.weights.locate import Address
from cns_jax.weights.pipeline import Source
from cns_jax.weights.shared_basis import decompose, norm

_WORLD, _WORLD_SEED = 400, 77  # other draws than the control suite's


def general_prompts(settings: RunSettings) -> tuple[str, ...]:
    """What a run protects besides its concepts."""
    drawn = settings.model == MINIATURE or settings.calibration == "miniature"
    if drawn and not settings.protect.captions:
        return world_prompts(_WORLD, _WORLD_SEED)
    return general_captions(settings.protect.captions)


def general_ids(prompts: tuple[str, ...], vocabulary: Vocabulary) -> np.ndarray:
    """Token ids int32 (b, l) of the general prompts, with one warning for all that lose their ends.

    Raises SettingsError for a "<name>" in them that no concept has.
    """
    with warnings.catch_warnings(record=True) as cut:
        warnings.simplefilter("always", TruncatedPromptWarning)
        try:
            ids = vocabulary.encode(prompts)
        except TokenError as error:
            raise SettingsError(f"protect.captions: {error}") from None
    if cut:
        told = f"{len(cut)} of {len(prompts)} general prompts (protect.captions) are too long; {cut[0].message}"
        warnings.warn(TruncatedPromptWarning(told), stacklevel=2)
    return ids


def general_file(settings: RunSettings, text_encoder: str, compute: str, prompts: tuple[str, ...]) -> Path:
    """Where their second moment is kept. text_encoder: its fingerprint."""
    return settings.caches / "moments" / f"{name_of((text_encoder, compute, prompts))}.safetensors"


def base_prompts(source: Source, address: Address) -> dict[str, tuple[str, ...]]:
    """Token -> prompts to protect, of the concepts that the base model was taught before. Patches that were applied
    say what they are; of others only the token is known."""
    applied = Patched.of(address)
    patches = [applied.patch(index) for index in range(len(applied.names))] if applied else []
    known = {
        p.token: concept_prompts(Concept(p.name, p.token, p.class_word, p.about.get("kind", SUBJECT), (), ()))
        for p in patches
    }
    return {token: known.get(token) or token_prompts(token) for token in tokens_before(source)}


def directions_of(settings: RunSettings, width: int) -> int:
    """Of text-feature space (width) that are protected."""
    return min(settings.protect.directions or width, width)


class Protection:
    """Of one run. groups: what the base model knew of concepts, and the run's taught concepts, in order."""

    def __init__(self, studio: Studio, settings: RunSettings) -> None:
        self.studio, self.settings = studio, settings
        self.groups: list[Group] = []
        self._base = cross_attention_kernels(studio.params["unet"])

    def add(self, group: Group, kernels: Mapping[str, Any]) -> None:
        """A concept's lesson is over. kernels: what the group reads."""
        self.groups.append(group)
        if self.settings.protects:
            self._protected = self._protected + Protected.of(group.moment_dd, kernels)

    def add_base(self, prompts: Mapping[str, tuple[str, ...]]) -> None:
        """Concepts of the base model, by their tokens: `base_prompts`."""
        for token, of_token in prompts.items():
            moment_dd = self._moment(of_token, self.studio.no_rows).astype(np.float32)
            self.add(Group(token, moment_dd, lambda: self._base), self._base)

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

    def kept(self, memory: Any, trainable: Any, moment_dd: np.ndarray) -> Any:
        """`trainable` with what the lesson changed of its kernels cut to protect.rank directions; itself if that is 0
        or the run is not protected.

        Of all changes of that rank in one basis it is the nearest in the keys and values of the concept's own prompts,
        whose second moment is `moment_dd`, and of all protected ones. memory: before the lesson.
        """
        rank = self.settings.protect.rank
        if not rank or not self.settings.protects:
            return trainable
        before = {name: np.asarray(w, np.float64) for name, w in flatten(memory.kernels).items()}
        change = {name: np.asarray(w, np.float64) - before[name] for name, w in flatten(trainable.kernels).items()}
        weighing_dd = self._protected.moment_dd + moment_dd
        scales = {name: 1 / norm(w, weighing_dd) for name, w in before.items()}
        cut = decompose(change, weighing_dd, scales).cut(rank, np.float32)
        return trainable._replace(kernels=like(cut.apply(before), trainable.kernels))

    def certificate(self, kernels: Mapping[str, Any]) -> list[Change]:
        """How much the taught concepts have moved since their own lessons, with these kernels."""
        return certificate(self.groups, kernels)

    def holder(self, previous: Applied) -> Holder | None:
        """What keeps the run's promise during a lesson that starts from `previous`; None where there is none."""
        limit = self.settings.protect.limit if self.settings.method.protectable else 0
        masked = self.settings.method.selects
        return (
            Holder(limit, self.groups, cross_attention_kernels(previous.unet), masked)
            if limit and self.groups
            else None
        )

    @cached_property
    def _general_dd(self) -> np.ndarray:
        """Second moment of the general prompts, kept beside the run's other caches."""
        prompts, studio = general_prompts(self.settings), self.studio
        file = general_file(self.settings, studio.ids["text_encoder"], studio.model.compute, prompts)

        def made() -> np.ndarray:
            return self._moment_of(general_ids(prompts, studio.vocabulary), studio.no_rows).astype(np.float32)

        return kept_array(file, "moment", made)

    @cached_property
    def _scale(self) -> float:
        """The general prompts' mean energy of a direction, in which protect.strength counts."""
        return float(np.trace(self._general_dd)) / len(self._general_dd)

    @cached_property
    def _protected(self) -> Protected:  # type: ignore[no-redef]
        return Protected.of(self._general_dd, self._base, self.settings.protect.general)

    @property
    def _directions(self) -> int:
        return directions_of(self.settings, self.studio.model.text_encoder.hidden_size)

    def _moment(self, prompts: tuple[str, ...], rows_rd: Any) -> np.ndarray:
        return self._moment_of(self.studio.vocabulary.encode(prompts), rows_rd)

    def _moment_of(self, ids: np.ndarray, rows_rd: Any) -> np.ndarray:
        return second_moment(np.asarray(self.studio.encode(ids, rows_rd)))


class Holder:
    """Keeps protect.limit during one lesson."""

    def __init__(self, limit: float, groups: list[Group], previous: Mapping[str, Any], masked: bool) -> None:
        self.limit, self.groups, self.masked = limit, list(groups), masked
        self.previous = jax.tree.map(np.asarray, previous)  # the step donates its own
        self.now = [changes(group, previous) for group in groups]

    def held(self, kernels: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        """The kernels within the promise, and how many of them were not."""
        return within(self.limit, self.groups, self.previous, kernels, self.now, self.masked)
