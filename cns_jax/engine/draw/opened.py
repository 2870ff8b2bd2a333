"""What `generate` draws from: a training run's weights, or any checkpoint with embeddings on top."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cns_jax.core.settings import require
from cns_jax.engine.draw.generator import Generator
from cns_jax.engine.draw.request import Request
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings, SampleSettings
from cns_jax.methods.applied import Applied
from cns_jax.text.tokenizer import Tokenizer, load_tokenizer
from cns_jax.text.vocabulary import CONCEPT_TOKEN
from cns_jax.weights.embedding import embedding_files, read_embedding
from cns_jax.weights.locate import Address
from cns_jax.weights.pipeline import Source
from cns_jax.weights.tensors import WeightsMismatch

log = logging.getLogger(__name__)

_ROWS = RunSettings.reserved_rows  # as in a run, whose compiled programs then serve here too


@dataclass(frozen=True)
class Opened:
    """applied: what the generator takes. sample: the sampling settings that come with the weights. about: what
    pictures tell of the weights. out: where pictures go unless asked otherwise."""

    generator: Generator
    applied: Applied
    sample: SampleSettings
    about: Mapping[str, Any]
    out: Path


def open_for(request: Request) -> Opened:
    """Read the weights that a request draws from. Raises SettingsError or WeightsMismatch."""
    found = _of_run(request) if request.run else _of_model(request)
    height, width = found.generator.size
    size = request.height or height, request.width or width
    model = found.generator.model
    layers = model.text_encoder.num_hidden_layers
    skip = request.clip_skip
    require(skip <= layers, f"clip_skip={skip}: the text encoder has {layers} layers; 1 takes the last of them")
    # the layers that are left out come last, and the final layer norm follows whatever layer is the last one
    text = dataclasses.replace(model.text_encoder, num_hidden_layers=layers - skip + 1)
    generator = dataclasses.replace(found.generator, size=size, model=dataclasses.replace(model, text_encoder=text))
    about = {**found.about, "vae": Path(request.vae).stem} if request.vae else found.about
    return dataclasses.replace(found, generator=generator, about=about)


def _of_run(request: Request) -> Opened:
    stages = Stages.open(request.run, request.after, request.compute, request.vae)
    learned = stages.learned
    applied = stages.at(stages.last, request.strength)
    about = {
        "model": learned.title,
        "base_model": Path(learned.settings.model).name,
        "run": learned.directory.absolute().name,
        "concept": learned.concepts[-1]["name"],
        "strength": request.strength,
    }
    out = learned.directory / "generated"
    return Opened(stages.studio.generator, applied, learned.settings.sample, about, out)


def _of_model(request: Request) -> Opened:
    address = Address(request.model, request.variant, request.tokenizer, request.prediction_type, request.vae)
    source = find_source(address)
    embeddings = _embeddings(request, source)
    side = source.model.unet.sample_size * source.model.vae.downsampling
    reserved = max(_ROWS, len(embeddings))
    studio = Studio.open(source, tuple(embeddings), reserved, side, compute=request.compute or "auto")
    rows = np.zeros(studio.no_rows.shape, np.float32)
    rows[: len(embeddings)] = list(embeddings.values()) or 0
    applied = Applied(studio.params, jax.device_put(rows))
    about = {"model": Path(request.model).name, "tokens": list(embeddings)}
    return Opened(studio.generator, applied, SampleSettings(), about, Path("generated"))


def _embeddings(request: Request, source: Source) -> dict[str, np.ndarray]:
    """Token -> row (d,) of the files that the request names. Raises SettingsError or WeightsMismatch."""
    known, width = load_tokenizer(source.tokenizer), source.model.text_encoder.hidden_size
    found: dict[str, np.ndarray] = {}
    for entry in filter(None, (entry.strip() for entry in request.tokens)):
        if CONCEPT_TOKEN.fullmatch(entry):
            _check_known(entry, known, request)
            continue
        path = Path(entry).expanduser()
        require(path.exists(), f"--tokens={entry}: there is no such file or folder; a token is written <name>")
        for file in embedding_files(path):
            token, row = read_embedding(file)
            require(not known.has(token), f"--tokens={file}: {request.model} knows {token} already; leave the file out")
            require(token not in found, f"--tokens={file}: another file holds {token} too; give one of them")
            if len(row) != width:
                raise WeightsMismatch(
                    f"{file} is {len(row)} wide, the text encoder of {request.model} {width}: the embedding belongs to "
                    "another base model"
                )
            found[token] = row
    beside = Path(request.model).expanduser().parent / "embeddings"
    if not request.tokens and request.model.endswith(".safetensors") and beside.is_dir():
        log.info("%s lies beside the file; --tokens=%s lets prompts take its tokens", beside, beside)
    return found


def _check_known(token: str, known: Tokenizer, request: Request) -> None:
    require(
        known.has(token),
        f"--tokens={token}: the tokenizer of {request.model} does not know it; give the file of its embedding, "
        "which export writes into embeddings/",
    )
