"""A run's result in the formats of other tools."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from cns_jax.core.settings import require
from cns_jax.core.tree import Tree, flatten
from cns_jax.engine.learned import Learned, base_kernels, taught_before, with_concepts, with_rows
from cns_jax.engine.studio import find_source
from cns_jax.text.tokenizer import bpe_tables, load_tokenizer
from cns_jax.weights.adapters import (
    bundled_embeddings,
    custom_diffusion_tensors,
    difference_tensors,
    embedding_tensors,
)
from cns_jax.weights.folder import check_replaceable, write_pipeline
from cns_jax.weights.modelspec import Description, modelspec
from cns_jax.weights.patch import make_patch, write_patch
from cns_jax.weights.pipeline import Pipeline, Source
from cns_jax.weights.single_file import write_single_file
from cns_jax.weights.snapshot import Snapshot
from cns_jax.weights.tensors import write_tensors

log = logging.getLogger(__name__)

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
LICENSE = "Derived from the base model, whose licence applies; so do the rights in the pictures it was taught with."


@dataclass(frozen=True)
class ExportRequest:
    """format: a key of FORMATS. out: the folder (empty: RUN/export/FORMAT). after: the weights right after this
    concept (empty: the last). dtype: of the numbers (empty: the format's own). license: for the metadata."""

    run: str
    format: str
    out: str = ""
    after: str = ""
    dtype: str = ""
    license: str = LICENSE

    def __post_init__(self) -> None:
        require(self.format in FORMATS, f"format={self.format!r}; known: {', '.join(FORMATS)}")
        require(self.dtype in ("", *DTYPES), f"dtype={self.dtype!r}; known: {', '.join(DTYPES)}")


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

    @cached_property
    def snapshot(self) -> Snapshot:
        """The weights to export."""
        return self.learned.snapshot(self.kernels)

    @property
    def out(self) -> Path:
        """Where to write."""
        given = self.request.out
        return Path(given).expanduser() if given else self.learned.directory / "export" / self.request.format

    @property
    def title(self) -> str:
        """The run's name, which files are called after."""
        return self.learned.settings.name

    @property
    def rows(self) -> np.ndarray:
        """The learned token rows, (concepts, d)."""
        return self.snapshot.rows_rd[: len(self.learned.tokens)]

    @cached_property
    def embeddings(self) -> dict[str, np.ndarray]:
        """Token -> row (d,): what the base model had been taught before, then this run's."""
        return taught_before(self.source) | dict(zip(self.learned.tokens, self.rows, strict=True))

    def dtype(self, default: str) -> Any:
        """The requested dtype, or the format's own."""
        return DTYPES[self.request.dtype or default]

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


def _diffusers(export: Exporter) -> list[Path]:
    merged, write_tokenizer = with_concepts(
        export.pipeline(), export.snapshot.kernels, export.learned.tokens, export.rows
    )
    return [write_pipeline(export.out, merged, export.dtype("float32"), write_tokenizer)]


def _single_file(export: Exporter) -> list[Path]:
    # other tools know the rows of CLIP's own tokens only; the tokens that were taught are embeddings beside the file
    own = len(bpe_tables(load_tokenizer(export.source.tokenizer))[0])
    merged = with_rows(export.pipeline(), export.snapshot.kernels, own)
    file = export.out / f"{export.title}.safetensors"
    write_single_file(file, merged, export.dtype("float16"), export.described("", list(export.words.values())))
    return [file, *_embeddings(export, export.out / "embeddings")]


def _lora(export: Exporter) -> list[Path]:
    dtype = export.dtype("float16")
    _warn_of_earlier_lessons(export)
    words = {export.words[token]: row for token, row in export.embeddings.items()}
    tensors = difference_tensors(export.kernels, export.snapshot.kernels, dtype) | bundled_embeddings(words, dtype)
    second = export.source.model.text_encoder.hidden_size == 1024
    metadata = export.described("lora", list(words))
    metadata |= {"ss_v2": str(second), "cns_jax.base": export.learned.base}  # A1111 lists the file under SD2 or SD1
    file = write_tensors(export.out / f"{export.title}_lora.safetensors", tensors, metadata)
    return [file, *_embeddings(export, export.out / "embeddings")]


def _warn_of_earlier_lessons(export: Exporter) -> None:
    before = taught_before(export.source)
    if before:
        log.warning(
            "%s had been taught %s before this run: the file belongs to that model, not to the one below it",
            export.learned.settings.model, ", ".join(before),
        )  # fmt: skip


def _custom_diffusion(export: Exporter) -> list[Path]:
    _warn_of_earlier_lessons(export)
    dtype = export.dtype("float16")
    names = flatten(export.source.shapes["unet"])
    tensors = custom_diffusion_tensors(names, export.snapshot.kernels, dtype)
    # diffusers looks for this very name
    file = write_tensors(export.out / "pytorch_custom_diffusion_weights.safetensors", tensors, {"format": "pt"})
    return [file, *_embeddings(export, export.out)]


def _textual_inversion(export: Exporter) -> list[Path]:
    return _embeddings(export, export.out)


def _embeddings(export: Exporter, folder: Path) -> list[Path]:
    dtype, files = export.dtype("float16"), []
    for token, row in export.embeddings.items():
        metadata = export.described("textual-inversion", [export.words[token]])
        metadata.pop("modelspec.thumbnail", None)  # ten times the embedding
        file = folder / f"{export.words[token]}.safetensors"
        files.append(write_tensors(file, embedding_tensors(token, row, dtype), metadata))
    return files


def _patch(export: Exporter) -> list[Path]:
    dtype, files = export.dtype("float32"), []
    parent, parent_name = "", ""
    for index, row in enumerate(export.learned.concepts):
        after = export.learned.snapshot(export.kernels, index)
        settings = export.learned.settings
        about = Description(
            title=row["name"],
            triggers=[f"{row['token']} {row['class_word']}"],
            resolution=settings.resolution,
            prediction_type=export.source.schedule.prediction_type,
            license=export.request.license,
            kind="lora",
            thumbnail=export.learned.thumbnail(index),
        )
        patch = make_patch(
            after.kernels,
            after.mask,
            after.rows_rd[index],
            dtype,
            name=row["name"],
            token=row["token"],
            class_word=row["class_word"],
            base=export.learned.base,
            parent=parent,
            base_name=export.learned.settings.model,
            parent_name=parent_name,
            about={
                "kind": row["kind"],
                "mask": row["mask"],
                "method": {"name": settings.method_name, **dataclasses.asdict(settings.method)},
                "train": dataclasses.asdict(settings.train),
            },
            metadata=modelspec(about, export.source.model),
        )
        files.append(write_patch(export.out / f"{index + 1:02d}_{row['name']}.safetensors", patch))
        parent, parent_name = patch.id, patch.name
    return files


FORMATS: dict[str, Callable[[Exporter], list[Path]]] = {
    "diffusers": _diffusers,
    "single-file": _single_file,
    "lora": _lora,
    "custom-diffusion": _custom_diffusion,
    "textual-inversion": _textual_inversion,
    "patch": _patch,
}

HOW_TO = {
    "diffusers": "StableDiffusionPipeline.from_pretrained({out!r}); prompts take the tokens: {tokens}",
    "single-file": "put the file into models/checkpoints (ComfyUI) or models/Stable-diffusion (A1111) and embeddings/* "
    "into the embeddings folder; prompts take {words} (ComfyUI: embedding:{first})",
    "lora": "put the file into models/loras (ComfyUI) or models/Lora (A1111); ComfyUI also needs embeddings/* in "
    "models/embeddings; prompts take {words} (ComfyUI: embedding:{first})",
    "custom-diffusion": "pipe.unet.load_attn_procs({out!r}, "
    "weight_name='pytorch_custom_diffusion_weights.safetensors', _pipeline=pipe), then a token at a time "
    "pipe.load_textual_inversion({out!r}, weight_name='{first}.safetensors')",
    "textual-inversion": "a token at a time pipe.load_textual_inversion({out!r}, weight_name='{first}.safetensors'), "
    "or copy the files to the embeddings folder of ComfyUI or A1111",
    "patch": "python -m cns_jax.patch apply --model=BASE --out=DIR {files}",
}


def _check_place(export: Exporter) -> None:
    """Refuse a place that cannot be written or that holds what the export is made from, before gigabytes are read."""
    out, model = export.out.absolute(), Path(export.learned.settings.model).absolute()
    require(not out.is_file(), f"--out={export.out} is a file; give the name of a folder")
    require(
        out != model and model not in out.parents and out not in model.parents,
        f"--out={export.out} and the base model {model} lie in each other; give another folder",
    )
    there = next(path for path in (out, *out.parents) if path.exists())
    require(os.access(there, os.W_OK), f"--out={export.out}: {there} is not writable")
    if export.request.format == "diffusers":
        check_replaceable(out)


def export(request: ExportRequest) -> tuple[list[Path], str]:
    """Write the files; returns them and a line on how to use them. Raises SettingsError or WeightsMismatch."""
    learned = Learned.of(request.run, request.after)
    exporter = Exporter(request, learned, find_source(learned.settings.address))
    _check_place(exporter)
    files = FORMATS[request.format](exporter)
    words = exporter.words
    how = HOW_TO[request.format].format(
        out=str(exporter.out),
        files=" ".join(shlex.quote(str(file)) for file in files),
        tokens=", ".join(words),
        words=", ".join(words.values()),
        first=next(iter(words.values())),
    )
    return files, how
