"""Patches of a run: for every lesson the smaller form of its change that is near enough.

Each patch is made against what the patches before it give, not against what training had: what they left out is part of
the next change, so that errors do not add up along a run.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax.core.settings import require
from cns_jax.core.tree import flatten
from cns_jax.engine.runs.export.exporter import Exporter
from cns_jax.engine.runs.export.features import Features
from cns_jax.engine.runs.export.low_rank import wrong
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.changes import Change, LowRank, Sparse
from cns_jax.weights.fidelity import Fidelity
from cns_jax.weights.modelspec import Description, modelspec
from cns_jax.weights.patch import Patch, write_patch
from cns_jax.weights.shared_basis import decompose, factor, norm

log = logging.getLogger(__name__)

_REAL_MASK = 0.5  # of the weights: a mask that holds fewer was meant to be sparse
_HEADER = 2**16  # bytes: names, settings and a thumbnail
_ROOM = 0.9  # of the error that is allowed goes to the rank, the rest to rounding

Kernels = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Taught:
    """What a run held after a lesson. kernels: dotted name -> K/V kernel; mask: which of their weights the lesson might
    change, by the same names; rows_rd: all concept rows; moment_dd: of the concept's prompts, None in old runs."""

    kernels: Kernels
    mask: Kernels
    rows_rd: np.ndarray
    moment_dd: np.ndarray | None

    @classmethod
    def of(cls, export: Exporter, index: int) -> Taught:
        """After concept `index` of the run."""
        found = export.learned.snapshot(export.base, index)
        applied = export.learned.settings.method.sampled(export.base, found.memory)
        kernels = {k: np.asarray(v) for k, v in flatten(cross_attention_kernels(applied.unet)).items()}
        every = {name: np.ones(kernel.shape, bool) for name, kernel in kernels.items()}
        mask = every if found.mask is None else flatten(found.mask)
        return cls(kernels, mask, np.asarray(applied.rows_rd), found.moment_dd)


@dataclass(frozen=True)
class _Lesson:
    """index: of the concept; before: kernels that the patches before give; after: what training had then."""

    export: Exporter
    features: Features
    index: int
    before: Kernels
    after: Taught
    moments: tuple[np.ndarray | None, ...]  # of the concepts up to this one, as the run kept them

    @property
    def name(self) -> str:
        """The concept's."""
        return str(self.export.learned.concepts[self.index]["name"])

    @property
    def wanted(self) -> Kernels:
        """Dotted name -> trained kernel."""
        return self.after.kernels

    @cached_property
    def sparse(self) -> Sparse:
        """The change as the neuron mask has it."""
        return Sparse.of(self.after.kernels, self.after.mask, self.export.dtype)

    @property
    def masked(self) -> bool:
        """Whether the lesson was kept to some of the weights."""
        return self.sparse.count < _REAL_MASK * sum(kernel.size for kernel in self.wanted.values())

    def low_rank(self, limit: float, budget: int) -> tuple[LowRank, Fidelity]:
        """The smallest change of low rank that keeps to `limit`, or the nearest of at most `budget` bytes.

        Raises SettingsError for weights that are no numbers.
        """
        require(
            all(np.isfinite(kernel).all() for kernel in self.wanted.values()),
            f"the weights after {self.name} hold NaN or infinity, since the training diverged: nothing to patch with",
        )
        weighing = self.features.weighing(self.moments)
        change = {name: kernel - self.before[name] for name, kernel in self.wanted.items()}
        found = decompose(change, weighing, {n: 1 / norm(kernel, weighing) for n, kernel in self.wanted.items()})
        samples = [x.T @ x for x in self.features.samples[: self.index + 1]]
        near = np.flatnonzero(found.errors(self.wanted, samples) <= _ROOM * limit)
        needed = max(int(near[0]), 1) if len(near) else len(weighing)
        told: list[tuple[LowRank, Fidelity]] = []
        # twice the rank is worth more than the digits of float32, unless a tiny error is asked for
        for dtype in [self.export.dtype] if self.export.request.dtype else [np.float16, np.float32]:
            numbers = sum(kernel.shape[1] for kernel in self.wanted.values())
            most = budget // (4 * len(weighing) + np.dtype(dtype).itemsize * numbers)
            cut = found.cut(max(min(needed, most), 1), dtype)
            told.append((cut, self.fidelity(cut)))
            if told[-1][1].worst <= limit or needed > most:
                break
        return min(told, key=lambda one: one[1].worst)

    def fidelity(self, change: Change) -> Fidelity:
        """Of the kernels that the patches up to this one give with `change`."""
        given = change.apply(self.before)
        if all(np.array_equal(given[name], kernel) for name, kernel in self.wanted.items()):
            return Fidelity()
        *earlier, own = self.features.samples[: self.index + 1]
        errors = wrong(self.wanted, given, own)
        lost = sum(float(np.square(given[name] - kernel).sum()) for name, kernel in self.wanted.items())
        whole = sum(float(np.square(self.before[name] - kernel).sum()) for name, kernel in self.wanted.items())
        return Fidelity(
            max(errors),
            float(np.mean(errors)),
            max((max(wrong(self.wanted, given, text_nd)) for text_nd in earlier), default=0.0),
            1 - lost / (whole or 1),
        )

    def chosen(self) -> tuple[Change, Fidelity]:
        """The form of the change that the request asks for."""
        request = self.export.request
        limit, budget = request.patch_error, round(request.patch_size * 1e6) - self.rest
        size = _size(self.sparse)
        if not limit or self.masked:
            if size > budget:
                log.warning(
                    "%s: its exact patch takes %.2f MB, more than --patch_size=%g",
                    self.name, size / 1e6, request.patch_size,
                )  # fmt: skip
            return self.sparse, self.fidelity(self.sparse)
        low_rank, told = self.low_rank(limit, budget)
        if size <= budget and (_size(low_rank) >= size or told.worst > limit):
            return self.sparse, self.fidelity(self.sparse)
        if told.worst > limit:
            log.warning(
                "%s: no patch of %g MB is as near as --patch_error=%g; this one makes K and V wrong by up to %.2g. "
                "What helps is a larger --patch_size, or --patch_error=0, which is exact and takes %.2f MB",
                self.name, request.patch_size, limit, told.worst, size / 1e6,
            )  # fmt: skip
        return low_rank, told

    @property
    def rest(self) -> int:
        """Bytes of a patch that hold no change."""
        moment = self.after.moment_dd
        return _HEADER + self.after.rows_rd[0].nbytes + (factor(moment).nbytes if moment is not None else 0)


def write_patches(export: Exporter) -> list[Path]:
    """A file a concept, in order."""
    export.applied  # refuses what is no one model
    files, kept = list[Path](), list[np.ndarray | None]()
    features = Features(export)
    kernels: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in flatten(export.kernels).items()}
    parent: Patch | None = None
    for index in range(len(export.learned.concepts)):
        after = Taught.of(export, index)
        kept.append(after.moment_dd)
        change, told = _Lesson(export, features, index, kernels, after, tuple(kept)).chosen()
        patch = _patch(export, index, after, change, told, parent)
        file = write_patch(export.out / f"{index + 1:02d}_{patch.name}.safetensors", patch)
        log.info("%s: %s, %.2f MB, %s", file.stem, change, file.stat().st_size / 1e6, told)
        files.append(file)
        kernels, parent = change.apply(kernels), patch
    return files


def _patch(
    export: Exporter, index: int, after: Taught, change: Change, told: Fidelity, parent: Patch | None
) -> Patch:
    row, settings = export.learned.concepts[index], export.learned.settings
    about = Description(
        title=row["name"],
        triggers=[f"{row['token']} {row['class_word']}"],
        resolution=settings.resolution,
        prediction_type=export.source.schedule.prediction_type,
        license=export.request.license,
        kind="lora",
        thumbnail=export.learned.thumbnail(index),
    )
    return Patch(
        change=change,
        row_d=np.asarray(after.rows_rd[index], np.float32),
        moment_kd=None if after.moment_dd is None else factor(after.moment_dd),
        name=row["name"],
        token=row["token"],
        class_word=row["class_word"],
        base=export.learned.base,
        parent=parent.id if parent else "",
        base_name=settings.model,
        parent_name=parent.name if parent else "",
        about={
            "kind": row["kind"],
            "mask": row["mask"],
            "method": dataclasses.asdict(settings.method),
            "train": dataclasses.asdict(settings.train),
            Fidelity.KEY: told.json(),
        },
        metadata=modelspec(about, export.source.model),
    )


def _size(change: Change) -> int:
    """Bytes of the change's tensors."""
    return sum(tensor.nbytes for tensor in change.tensors().values())
