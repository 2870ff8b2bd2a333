"""Each format's files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from cns_jax.core.files import save_tensors
from cns_jax.core.settings import require
from cns_jax.core.tree import flatten
from cns_jax.engine.runs.export.exporter import Exporter
from cns_jax.engine.runs.export.features import Features
from cns_jax.engine.runs.export.low_rank import cost_of_rank
from cns_jax.engine.runs.export.patches import write_patches
from cns_jax.engine.runs.learned import taught_before, with_concepts, with_rows
from cns_jax.text.tokenizer import bpe_tables, load_tokenizer
from cns_jax.weights.adapters import (
    bundled_embeddings,
    custom_diffusion_tensors,
    difference_tensors,
    embedding_tensors,
)
from cns_jax.weights.folder import write_pipeline
from cns_jax.weights.low_rank import low_rank_tensors
from cns_jax.weights.single_file import write_single_file

log = logging.getLogger(__name__)


def _diffusers(export: Exporter) -> list[Path]:
    merged, write_tokenizer = with_concepts(
        export.pipeline(), export.taught, export.learned.tokens, export.rows
    )
    return [write_pipeline(export.out, merged, export.dtype, write_tokenizer)]


def _single_file(export: Exporter) -> list[Path]:
    # other tools know the rows of CLIP's own tokens only; the tokens that were taught are embeddings beside the file
    own = len(bpe_tables(load_tokenizer(export.source.tokenizer))[0])
    merged = with_rows(export.pipeline(), export.taught, own)
    file = export.out / f"{export.title}.safetensors"
    write_single_file(file, merged, export.dtype, export.described("", list(export.words.values())))
    return [file, *_embeddings(export, export.out / "embeddings")]


def _lora(export: Exporter) -> list[Path]:
    _check_weights(export)
    _warn_of_earlier_lessons(export)
    request, before, after = export.request, export.kernels, export.taught
    if request.rank:
        features = Features(export)
        tensors = low_rank_tensors(
            before, after, request.rank, export.dtype, features.weighing(export.learned.moments())
        )
        log.info("rank %d %s", request.rank, cost_of_rank(export, features, tensors))
    else:
        tensors = difference_tensors(before, after, export.dtype)
    if request.bundle_embeddings:  # InvokeAI and diffusers refuse a file that holds them
        tensors |= bundled_embeddings({export.words[t]: row for t, row in export.embeddings.items()}, export.dtype)
    second = export.source.model.text_encoder.hidden_size == 1024
    metadata = export.described("lora", list(export.words.values()))
    metadata |= {"ss_v2": str(second), "cns_jax.base": export.learned.base}  # A1111 lists the file under SD2 or SD1
    if request.rank:
        metadata |= {"ss_network_module": "networks.lora", "ss_network_dim": str(request.rank)}
    name = f"{export.title}_lora_rank{request.rank}" if request.rank else f"{export.title}_lora"
    file = save_tensors(export.out / f"{name}.safetensors", tensors, metadata)
    return [file, *_embeddings(export, export.out / "embeddings")]


def _check_weights(export: Exporter) -> None:
    method = export.learned.settings.method
    require(
        bool(method.learns),
        f"{method.name} changes no weights, so a file of --format={export.request.format} would hold none; "
        "--format=textual-inversion writes the embeddings, which are all that it taught",
    )


def _warn_of_earlier_lessons(export: Exporter) -> None:
    before = taught_before(export.source)
    if before:
        log.warning(
            "%s had been taught %s before this run: the file belongs to that model, not to the one below it",
            export.learned.settings.model, ", ".join(before),
        )  # fmt: skip


def _custom_diffusion(export: Exporter) -> list[Path]:
    _check_weights(export)
    _warn_of_earlier_lessons(export)
    names = flatten(export.source.shapes["unet"])
    tensors = custom_diffusion_tensors(names, export.taught, export.dtype)
    # diffusers looks for this very name
    file = save_tensors(export.out / "pytorch_custom_diffusion_weights.safetensors", tensors, {"format": "pt"})
    return [file, *_embeddings(export, export.out)]


def _textual_inversion(export: Exporter) -> list[Path]:
    return _embeddings(export, export.out)


def _embeddings(export: Exporter, folder: Path) -> list[Path]:
    files = []
    for token, row in export.embeddings.items():
        metadata = export.described("textual-inversion", [export.words[token]])
        metadata.pop("modelspec.thumbnail", None)  # ten times the embedding
        file = folder / f"{export.words[token]}.safetensors"
        files.append(save_tensors(file, embedding_tensors(token, row, export.dtype), metadata))
    return files


FORMATS: dict[str, Callable[[Exporter], list[Path]]] = {
    "diffusers": _diffusers,
    "single-file": _single_file,
    "lora": _lora,
    "custom-diffusion": _custom_diffusion,
    "textual-inversion": _textual_inversion,
    "patch": write_patches,
}
