"""What a run has learned, on the host: its ledger, its snapshots, and the checkpoint that it started from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cns_jax.core.files import read_json
from cns_jax.core.settings import SettingsError, build, require
from cns_jax.core.types import Concept
from cns_jax.core.tree import Tree, fingerprint, flatten, overlay, select
from cns_jax.engine.runs.ledger import Ledger, Row, whole
from cns_jax.engine.settings import RunSettings
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Method
from cns_jax.neurons.score import cross_attention_kernels, is_cross_attention_kernel
from cns_jax.text.tokenizer import bpe_tables, load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.layout import file_key
from cns_jax.weights.pipeline import Pipeline, Source
from cns_jax.weights.snapshot import Snapshot, load_moment, load_snapshot
from cns_jax.weights.strict import load


@dataclass(frozen=True)
class Learned:
    """concepts: the ledger's rows up to the chosen one; base, kernels: fingerprints of the model that training started
    from, and of its cross-attention K/V kernels."""

    directory: Path
    settings: RunSettings
    concepts: Sequence[Mapping[str, Any]]
    base: str
    kernels: str

    @classmethod
    def of(cls, run: str, after: str = "") -> Learned:
        """What the run in folder `run` knew after concept `after` (empty: after its last).

        Raises SettingsError if the folder is no run, has learned nothing yet, or does not know the concept.
        """
        directory = Path(run).expanduser()
        config = directory / "config.json"
        if not config.is_file():
            raise SettingsError(f"{run} is not the folder of a training run (no config.json in it)")
        settings = read_settings(config)
        ledger = Ledger(directory).read()
        rows = ledger["concepts"]
        require(bool(rows), f"{run} has not finished its first concept yet; run the training command again to go on")
        names = [row["name"] for row in rows]
        require(not after or after in names, f"{run} has not learned {after!r}; it knows {', '.join(names)}")
        count = names.index(after) + 1 if after else len(names)
        return cls(directory, settings, rows[:count], ledger["base"], ledger["base_kernels"])

    @property
    def tokens(self) -> tuple[str, ...]:
        """The concepts' tokens, in order."""
        return tuple(row["token"] for row in self.concepts)

    @property
    def taught(self) -> tuple[Concept, ...]:
        """The concepts, in order, without their pictures."""
        return tuple(concept_of(row, self.settings.method) for row in self.concepts)

    @property
    def title(self) -> str:
        """What people call the run: the name of its folder."""
        return self.directory.resolve().name or self.settings.name

    def folder(self, name: str) -> Path:
        """Where the pictures lie that a concept was taught with: in the run's own folder, or, of runs of old versions,
        where the settings say."""
        kept = data_folder(self.directory) / name
        if kept.is_dir() or self.settings.drawn is not None:
            return kept
        return self.folder_in(self.settings.data_root, name)

    def folder_in(self, root: str, name: str) -> Path:
        """Where a concept's pictures lie in a folder of all concepts, as the settings call theirs."""
        chosen = next((c.folder for c in self.settings.concepts if c.name == name), "")
        return Path(root).expanduser() / (chosen or name)

    def snapshot(self, base: Mapping[str, Any], index: int = -1, rows: int = 0) -> Snapshot:
        """What the run kept after concept `index`.

        base: the base model's parameters, of which the K/V kernels suffice; rows: that its memory has at least. Raises
        SettingsError if they are not those that the run started from.
        """
        kernels = cross_attention_kernels(base["unet"])
        found = fingerprint(kernels)
        require(
            found == self.kernels,
            f"{self.settings.model} has changed since the run was trained: its cross-attention kernels are {found}, "
            f"the run started from {self.kernels}",
        )
        files = snapshot_files(self.directory, self.concepts[: index % len(self.concepts) + 1])
        return read_snapshot(self.settings.method, files, kernels, rows)

    def applied(self, base: Mapping[str, Any], index: int = -1, rows: int = 0) -> Applied:
        """What to sample with after concept `index`; base, rows: as in `snapshot`."""
        return self.settings.method.sampled(base, self.snapshot(base, index, rows).memory)

    def moments(self) -> list[np.ndarray | None]:
        """Of each concept the second moment of its prompts' text features (d, d); None of runs of old versions."""
        return [load_moment(whole(self.directory, row)) for row in self.concepts]

    def thumbnail(self, index: int = -1) -> Path:
        """A small picture of concept `index` (absent in runs of old versions)."""
        number = index % len(self.concepts) + 1
        return self.directory / "samples" / f"{number:02d}_{self.concepts[index]['name']}.jpg"


def read_settings(file: Path) -> RunSettings:
    """The settings in a run's config.json; the run is where the file is, wherever it was made.

    Raises SettingsError or FileError naming the file if it is damaged or of another version.
    """
    values = read_json(file)
    try:
        return build(RunSettings, {**_renamed(values), "run": str(file.parent)})
    except SettingsError as error:
        raise SettingsError(f"{file} is damaged, or of another version: {error}") from None


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json in today's names: the method's stood beside its settings."""
    name, others = values.get("method_name"), {k: v for k, v in values.items() if k != "method_name"}
    return {**others, "method": {"name": name, **others.get("method", {})}} if name else others


def concept_of(row: Mapping[str, Any], method: Method) -> Concept:
    """A concept of the ledger of a run of `method`, without its pictures."""
    return Concept(row["name"], row["token"], row["class_word"], row["kind"], (), (), class_noun=method.class_noun)


def snapshot_files(directory: Path, rows: Sequence[Row]) -> list[Path]:
    """The files of a run's weights up to the last of `rows`; only that one is checked to be whole, since earlier ones
    are read for runs of old versions alone. Raises as `whole`."""
    return [*(directory / row["weights"] for row in rows[:-1]), whole(directory, rows[-1])]


def read_snapshot(method: Method, files: Sequence[Path], kernels: Mapping[str, Any], rows: int) -> Snapshot:
    """The last of the snapshots so far of a run of `method`; kernels: the base model's; rows: the memory's at least.

    Raises as `load_snapshot`.
    """
    width = next(iter(flatten(kernels).values())).shape[0]

    def shapes(rows: int) -> Any:
        return jax.eval_shape(lambda unet: method.empty({"unet": unet}, rows, width), kernels)

    return load_snapshot(files, shapes(rows), shapes(rows + 1), kernels)


def data_folder(directory: str | Path) -> Path:
    """Where a run keeps the pictures that it was taught with, a folder a concept."""
    return Path(directory) / "data"


def base_kernels(source: Source) -> Tree:
    """The cross-attention K/V kernels of a checkpoint, float32, without reading the rest."""
    return _leaves(source, "unet", is_cross_attention_kernel)


def text_encoder(source: Source) -> Tree:
    """The text encoder's parameters of a checkpoint, float32, without reading the rest."""
    return _leaves(source, "text_encoder", lambda _: True)


def taught_before(source: Source) -> dict[str, np.ndarray]:
    """The tokens of `tokens_before`, with their rows."""
    tokens = tokens_before(source)
    if not tokens:
        return {}
    table = _leaves(source, "text_encoder", lambda name: name == ".".join(_TABLE))
    rows = flatten(table)[".".join(_TABLE)]
    return {token: rows[i] for token, i in tokens.items()}


def tokens_before(source: Source) -> dict[str, int]:
    """Tokens that the base model's tokenizer has on top of its BPE, with their ids, in order: concepts of earlier
    runs."""
    added = bpe_tables(load_tokenizer(source.tokenizer))[2]
    return dict(sorted(added.items(), key=lambda item: item[1]))


def _leaves(source: Source, name: str, wanted: Callable[[str], bool]) -> Tree:
    target, part = select(source.shapes[name], wanted), source.parts[name]
    keys = {file_key(leaf) for leaf in flatten(target)}
    return load({k: v for k, v in part.stored.items() if k in keys}, target, part.file)[0]


_TABLE = ("text_model", "embeddings", "token_embedding", "embedding")


def with_concepts(
    pipeline: Pipeline, kernels: Mapping[str, Any], tokens: Sequence[str], rows_nd: np.ndarray
) -> tuple[Pipeline, Callable[[Path], None]]:
    """The pipeline with other K/V kernels and, at the end of its token table, a row a token; and what writes its
    tokenizer. It is then an ordinary Stable Diffusion for any tool."""
    vocabulary = Vocabulary(load_tokenizer(pipeline.tokenizer), tuple(tokens), len(tokens))
    grown = np.concatenate([token_table(pipeline), np.asarray(rows_nd, np.float32)])
    return _with_table(pipeline, kernels, grown), vocabulary.save


def with_rows(pipeline: Pipeline, kernels: Mapping[str, Any], count: int) -> Pipeline:
    """The pipeline with other K/V kernels and the first `count` rows of its token table."""
    return _with_table(pipeline, kernels, token_table(pipeline)[:count])


def token_table(pipeline: Pipeline) -> np.ndarray:
    """The token embeddings (tokens, d)."""
    text = pipeline.params["text_encoder"]
    return text[_TABLE[0]][_TABLE[1]][_TABLE[2]][_TABLE[3]]


def _with_table(pipeline: Pipeline, kernels: Mapping[str, Any], table: np.ndarray) -> Pipeline:
    text = overlay(pipeline.params["text_encoder"], {_TABLE[0]: {_TABLE[1]: {_TABLE[2]: {_TABLE[3]: table}}}})
    config = dataclasses.replace(pipeline.model.text_encoder, vocab_size=len(table))
    return dataclasses.replace(
        pipeline,
        model=dataclasses.replace(pipeline.model, text_encoder=config),
        params={**pipeline.params, "unet": overlay(pipeline.params["unet"], kernels), "text_encoder": text},
        part_ids={"vae": pipeline.ids["vae"]},  # the others have changed
    )


def kernels_of(pipeline: Pipeline) -> Tree:
    """The K/V kernels of a loaded pipeline."""
    return cross_attention_kernels(pipeline.params["unet"])
