"""What is asked of an export, and what every format needs of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from cns_jax.core.settings import require
from cns_jax.core.tree import Tree
from cns_jax.core.types import Concept
from cns_jax.engine.runs.learned import Learned, base_kernels, taught_before
from cns_jax.methods.applied import Applied
from cns_jax.engine.runs.strength import scaled
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.weights.modelspec import Description, modelspec
from cns_jax.weights.pipeline import Pipeline, Source
from cns_jax.weights.strength import check_strength

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
KINDS = {  # format -> the dtype it takes unless told otherwise
    "diffusers": "float32",
    "single-file": "float16",
    "lora": "float16",
    "custom-diffusion": "float16",
    "textual-inversion": "float16",
    "patch": "float32",
}
PATCH_ERROR, PATCH_SIZE = 1e-3, 6.0
LICENSE = "Derived from the base model, whose licence applies; so do the rights in the pictures it was taught with."
_ONE_STRENGTH = {
    "patch": "a patch holds the values of one lesson as they are, which the next lesson starts from",
    "textual-inversion": "the embeddings alone hold no K/V weights, which strength scales",
}


@dataclass(frozen=True)
class ExportRequest:
    """format: a key of KINDS. out: the folder (empty: RUN/export/FORMAT). after: the weights right after this concept
    (empty: the last). dtype: of the numbers (empty: the format's own). license: for the metadata. strength: how much
    of the change of the K/V weights to take, W_0 + strength (W - W_0). rank: of a LoRA that approximates the change
    (0: the exact difference). bundle_embeddings: inside the LoRA file, which only A1111 reads. patch_error: how wrong a
    patch of low rank may make keys and values, relative to them (0: exact patches only); patch_size: MB, what such a
    patch may take. The patch of a lesson that a mask kept to less than half of the weights is always exact.

    Raises SettingsError for a value that is unknown, and for one that the format has no use for.
    """

    run: str
    format: str
    out: str = ""
    after: str = ""
    dtype: str = ""
    license: str = LICENSE
    strength: float = 1.0
    rank: int = 0
    bundle_embeddings: bool = False
    patch_error: float = PATCH_ERROR
    patch_size: float = PATCH_SIZE

    def __post_init__(self) -> None:
        require(self.format in KINDS, f"format={self.format!r}; known: {', '.join(KINDS)}")
        require(self.dtype in ("", *DTYPES), f"dtype={self.dtype!r}; known: {', '.join(DTYPES)}")
        check_strength(self.strength)
        reason = _ONE_STRENGTH.get(self.format, "")
        require(
            not reason or self.strength == 1,
            f"strength={self.strength}: {reason}; leave --strength out, or take another format",
        )
        require(self.rank >= 0, f"rank={self.rank} is negative; give the rank of a LoRA, or 0 for the exact difference")
        require(0 <= self.patch_error < 1, f"patch_error={self.patch_error} must be from 0 (exact) to 1 (everything)")
        require(
            self.patch_error > 0 or self.dtype in ("", "float32"),
            f"--patch_error=0 asks for exact patches, which are float32, not {self.dtype}",
        )
        require(0 < self.patch_size < math.inf, f"patch_size={self.patch_size} must be a number of MB above 0")
        for name, usual in (("patch_error", PATCH_ERROR), ("patch_size", PATCH_SIZE)):
            value = getattr(self, name)
            require(
                value == usual or self.format == "patch",
                f"--{name}={value} belongs to --format=patch, not {self.format}",
            )
        for name in ("rank", "bundle_embeddings"):
            value = getattr(self, name)
            require(not value or self.format == "lora", f"--{name}={value} belongs to --format=lora, not {self.format}")


@dataclass(frozen=True)
class Exporter:
    """What all formats need of a run."""

    request: ExportRequest
    learned: Learned
    source: Source

    @cached_property
    def kernels(self) -> Tree:
        """The base model's K/V kernels."""
        return base_kernels(self.source)

    @property
    def base(self) -> Tree:
        """What of the base model's parameters methods change."""
        return {"unet": self.kernels}

    @cached_property
    def applied(self) -> Applied:
        """The weights to export, at the strength that was asked for. Raises SettingsError where they depend on the
        prompt."""
        found = scaled(self.base, self._learned, self.request.strength)
        method = self.learned.settings.method.name
        require(
            found.low_rank is None,
            f"{method} samples with other weights for each prompt, which no file of one model can hold; "
            "python -m cns_jax.generate draws with the run itself, and --format=textual-inversion writes its embeddings",
        )
        return found

    @property
    def taught(self) -> Tree:
        """The K/V kernels to export, nested as the base model's."""
        return cross_attention_kernels(self.applied.unet)

    @property
    def out(self) -> Path:
        """Where to write."""
        given = self.request.out
        return Path(given).expanduser() if given else self.learned.directory / "export" / self.request.format

    @property
    def title(self) -> str:
        """The run's name, which files are called after: its folder's, since runs share configurations."""
        return self.learned.title

    @property
    def concepts(self) -> list[Concept]:
        """What was taught, without its pictures."""
        return list(self.learned.taught)

    @property
    def rows(self) -> np.ndarray:
        """The learned token rows, (concepts, d)."""
        return np.asarray(self._learned.rows_rd)[: len(self.learned.tokens)]

    @cached_property
    def _learned(self) -> Applied:
        """As training left it."""
        return self.learned.applied(self.base)

    @cached_property
    def embeddings(self) -> dict[str, np.ndarray]:
        """Token -> row (d,): what the base model had been taught before, then this run's."""
        return taught_before(self.source) | dict(zip(self.learned.tokens, self.rows, strict=True))

    @property
    def dtype_name(self) -> str:
        """The requested dtype, or the format's own."""
        return self.request.dtype or KINDS[self.request.format]

    @property
    def dtype(self) -> Any:
        """The same as NumPy knows it."""
        return DTYPES[self.dtype_name]

    def described(self, kind: str, triggers: list[str]) -> dict[str, str]:
        """Metadata."""
        about = Description(
            title=self.title,
            triggers=triggers,
            resolution=self.learned.settings.resolution,
            prediction_type=self.source.schedule.prediction_type,
            license=self.request.license,
            kind=kind,
            thumbnail=self.learned.thumbnail(),
        )
        return modelspec(about, self.source.model)

    @cached_property
    def words(self) -> dict[str, str]:
        """Token -> the word that stands for it where embeddings are called by file name."""
        tokenizer = load_tokenizer(self.source.tokenizer)

        words: dict[str, str] = {}
        for token in self.embeddings:
            word = token.strip("<>")
            # A1111 takes every occurrence of an embedding's name in a prompt: "cat" would hijack all cats
            if len(tokenizer.ids(word)) == 1:
                word = f"cns_{word}"
            while word in words.values():
                word += "_"
            words[token] = word
        return words

    def pipeline(self) -> Pipeline:
        """The base model, checked to be the one that training started from."""
        pipeline = self.source.load()
        found = pipeline.ids["model"]
        require(
            found == self.learned.base,
            f"{self.learned.settings.model} has changed since the run was trained: its weights are {found}, the run "
            f"started from {self.learned.base}",
        )
        return pipeline
