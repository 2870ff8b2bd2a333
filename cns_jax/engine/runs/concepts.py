"""A run's concepts: what its settings ask for, found and read, and what it was taught with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cns_jax.core.files import digest
from cns_jax.core.settings import require
from cns_jax.core.types import Concept
from cns_jax.data.folder import discover, merge, read_concepts
from cns_jax.data.spec import ConceptSpec
from cns_jax.engine.runs.learned import Learned, data_folder
from cns_jax.engine.settings import MOST_STEPS, ConceptSettings, RunSettings
from cns_jax.methods.base import Method
from cns_jax.miniature.concepts import MiniConcept, write_concept_folders
from cns_jax.miniature.concepts import concepts as mini_concepts


def specs_of(settings: RunSettings, taught: Collection[str] = ()) -> tuple[ConceptSpec, ...]:
    """What is said of each concept that the settings ask for, in order; no picture is read.

    taught: names that the run knows already: they need no folder, but the flag --concept may still speak of them.
    Raises NoFolders if the data root has none, DataError if --concept speaks of an unknown concept, SettingsError for a
    concept that a drawn set has not and for steps that cannot be.
    """
    chosen, said = _specs(settings.concepts), _specs(settings.said)
    if settings.drawn is None:
        root = Path(settings.data_root).expanduser()
        return _checked(settings, merge(root, chosen or discover(root), said, taught))
    drawn = drawn_set(settings)
    unknown = [c.name for c in chosen if c.name not in drawn]
    require(not unknown, f"{settings.data_root} has no concepts {unknown}; it has {', '.join(drawn)}")
    facts = ((c, drawn[c.name]) for c in chosen or map(ConceptSpec, drawn))
    specs = [c.over(ConceptSpec(c.name, "", d.token, d.class_word, d.kind)) for c, d in facts]
    return _checked(settings, merge(None, specs, said, taught))


def _checked(settings: RunSettings, specs: tuple[ConceptSpec, ...]) -> tuple[ConceptSpec, ...]:
    """Steps that concept.toml or the flag --concept asks for are bound as the configuration's are."""
    calls = settings.train.steps_per_call
    for spec in specs:
        good = spec.steps % calls == 0 and spec.steps < MOST_STEPS
        text = f"{spec.name}: steps={spec.steps} must be a multiple of train.steps_per_call={calls}, below {MOST_STEPS}"
        require(good, text)
    return specs


def _specs(concepts: Sequence[ConceptSettings]) -> list[ConceptSpec]:
    return [ConceptSpec(c.name, c.folder, c.token, c.class_word, c.kind, c.init_word, c.steps) for c in concepts]


def read(settings: RunSettings, specs: Sequence[ConceptSpec], drawn_into: Path | None = None) -> tuple[Concept, ...]:
    """The concepts of `specs` with their pictures; those of a drawn set are drawn into `drawn_into` (the run's data/).

    Raises DataError with all that is wrong.
    """
    root = Path(settings.data_root).expanduser()
    if settings.drawn is not None:
        root = drawn_into or data_folder(settings.directory)
        if specs:
            write_concept_folders(int(settings.drawn), root, names=[spec.name for spec in specs])
    return said_by(settings.method, read_concepts(root, specs))


def said_by(method: Method, concepts: Sequence[Concept]) -> tuple[Concept, ...]:
    """The concepts as the method's prompts say them."""
    return tuple(dataclasses.replace(concept, class_noun=method.class_noun) for concept in concepts)


def find_concepts(settings: RunSettings) -> tuple[Concept, ...]:
    """All concepts that the settings ask for, in order; raises DataError or SettingsError with all that is wrong."""
    return read(settings, specs_of(settings))


def taught_concepts(learned: Learned) -> tuple[Concept, ...]:
    """The concepts that a run knows, with the pictures and captions that they were taught with.

    Raises DataError with all that is wrong.
    """
    specs = [
        ConceptSpec(r["name"], str(learned.folder(r["name"]).absolute()), r["token"], r["class_word"], r["kind"])
        for r in learned.concepts
    ]
    return said_by(learned.settings.method, read_concepts(learned.directory, specs, quiet=True))


def drawn_set(settings: RunSettings) -> dict[str, MiniConcept]:
    """The drawn concepts of "miniature:1", ":2" or ":3", by name; empty if data_root is a folder."""
    number = settings.drawn
    if number is None:
        return {}
    require(number in ("1", "2", "3"), f"data_root={settings.data_root!r}; the drawn sets are miniature:1, :2 and :3")
    return {c.name: c for c in mini_concepts(int(number))}


def fingerprints(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Name and content hash of each picture, as the ledger keeps them."""
    return [{"file": path.name, "sha256": digest(path)} for path in paths]


def keep_pictures(concept: Concept, directory: Path) -> None:
    """Copy what a concept is taught with to the run's data/, so that the run needs the user's folder no more.

    Captions go to metadata.jsonl. A copy of other pictures that lies there is replaced.
    """
    folder = data_folder(directory) / concept.name
    if folder.exists() and all(path.parent.samefile(folder) for path in concept.image_paths):
        return  # a drawn set's pictures were drawn there
    building = folder.with_name(folder.name + ".partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for path in concept.image_paths:
        shutil.copyfile(path, building / path.name)
    for mask in filter(None, concept.mask_paths):
        shutil.copyfile(mask, building / mask.name)
    pairs = zip(concept.image_paths, concept.captions, strict=True)
    rows: list[Mapping[str, Any]] = [{"file_name": p.name, "text": text} for p, text in pairs if text is not None]
    if rows:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (building / "metadata.jsonl").write_text(lines, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
