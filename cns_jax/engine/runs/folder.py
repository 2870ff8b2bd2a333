"""A run's folder: which settings it may go on with, and what it takes over from another run."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cns_jax.core.files import replacing
from cns_jax.core.settings import SettingsError
from cns_jax.engine.runs.concepts import data_folder
from cns_jax.engine.runs.learned import Learned, read_settings
from cns_jax.engine.runs.ledger import Ledger
from cns_jax.engine.settings import MINIATURE, RunSettings

# What a run may go on with another value of. Its concepts are compared with its ledger, model and VAE by fingerprints;
# the rest changes no weight, or only how long later lessons last.
_FREE = re.compile(
    r"name|run|after|concepts|said|data_root|model|variant|vae|reserved_rows|report\..*|prior\.(directory|folder)|"
    r"train\.(steps|save_every|sample_every|fsdp|remat)"
)


def earlier_settings(settings: RunSettings) -> RunSettings | None:
    """The settings that the run's folder was last used with; None if it holds no run.

    Raises SettingsError if they differ in what a run must keep, naming each setting with both values.
    """
    directory = Path(settings.directory)
    file = directory / "config.json"
    _check_whole(directory, taking_over=bool(settings.after))
    if not file.exists():
        return None
    before = read_settings(file)
    was, now = (_flat(dataclasses.asdict(_from_anywhere(each))) for each in (before, settings))
    differing = [key for key in now if was.get(key) != now[key] and not _FREE.fullmatch(key)]
    if "method.name" in differing:  # the rest follows from it
        differing = [
            key
            for key in differing
            if key == "method.name" or not key.startswith("method.") and key != "train.prior_batch"
        ]
    if settings.drawn != before.drawn:
        differing.append("data_root")
    if bool(settings.prior.folder) != bool(before.prior.folder):  # where own pictures lie is free, not whether
        differing.append("prior.folder")
    if differing and not _begun(directory):
        return None  # it failed before anything was learned or saved: there is nothing to mix
    if differing:
        learned = Ledger(directory).read()["concepts"]
        on = f", where --config.after={file.parent} goes on from what it has learned" if learned else ""
        told = ", ".join(f"{key} ({was.get(key)!r} there, {now[key]!r} now)" for key in sorted(differing))
        raise SettingsError(
            f"{file.parent} holds a run with another {told}; continue it with its own settings, or give this one "
            f"another folder with --config.run=...{on}"
        )
    return before


def _from_anywhere(settings: RunSettings) -> RunSettings:
    """With the whole paths of the model's files and folders, so that the run can be opened from another folder."""
    paths = {name: getattr(settings.address, name) for name in ("model", "tokenizer", "vae")}
    found = {name: os.path.abspath(path) for name, path in paths.items() if path != MINIATURE and os.path.exists(path)}
    return dataclasses.replace(settings, **found)


def _check_whole(directory: Path, taking_over: bool) -> None:
    """Refuse a folder that lacks what says what its weights are: a new run there would write over them.

    taking_over: another run's weights are copied there first, and perhaps not yet its ledger.
    """
    ledger, weights = Ledger(directory), sorted(directory.glob("weights/*.safetensors"))
    if weights and not ledger.file.exists() and not taking_over:
        raise SettingsError(
            f"{directory} holds {weights[0].name} and no {ledger.file.name}, which says what the run has learned; put "
            "it back from a copy, or give another folder with --config.run=..."
        )
    if ledger.file.exists() and ledger.read()["concepts"] and not (directory / "config.json").exists():
        raise SettingsError(
            f"{directory} has learned concepts, and its config.json, which says with which settings, is gone; put it "
            "back from a copy, or give another folder with --config.run=..."
        )


def _begun(directory: Path) -> bool:
    """Whether the run has learned or saved anything."""
    saved = directory / "checkpoints"
    return bool(Ledger(directory).read()["concepts"]) or (
        saved.is_dir() and any(entry.name.isdecimal() for entry in saved.iterdir())
    )


def check_base(settings: RunSettings, base: str) -> None:
    """Raises SettingsError if the run, or the one that it goes on from, has learned on another model than `base`, a
    fingerprint."""
    ledger = Ledger(Path(settings.directory))
    if settings.after and not ledger.file.exists():
        ledger = Ledger(Learned.of(settings.after).directory)
    ledger.check_base(base, f"{settings.model} with the VAE {settings.vae}" if settings.vae else settings.model)


def claim(settings: RunSettings) -> Path:
    """The run's folder with the resolved settings in it, and with what `settings.after` knows, if the run is new.

    Of a run of an old version, the pictures that it was taught with are copied into it, while its settings say where
    they are. Raises SettingsError as `earlier_settings`.
    """
    before = earlier_settings(settings)
    directory = Path(settings.directory)
    directory.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(directory)
    if before is not None and ledger.read()["concepts"]:
        _keep_taught(Learned.of(settings.directory), directory)
    with replacing(directory / "config.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(_from_anywhere(settings)), indent=2) + "\n")
    if settings.after and not ledger.file.exists():
        _take_over(Learned.of(settings.after), directory)
    return directory


def _take_over(learned: Learned, directory: Path) -> None:
    """Ledger, weights, pictures, sheets and curves of another run; the ledger last, since it makes them count."""
    for row in learned.concepts:
        _share(learned.directory / row["weights"], directory / row["weights"])
    for index, row in enumerate(learned.concepts):
        for old in (learned.directory / "samples").glob(f"{index + 1:02d}_{glob.escape(row['name'])}.*"):
            (directory / "samples").mkdir(exist_ok=True)
            shutil.copyfile(old, directory / "samples" / old.name)
    if (learned.directory / "metrics.jsonl").exists():
        shutil.copyfile(learned.directory / "metrics.jsonl", directory / "metrics.jsonl")
    _keep_taught(learned, directory)
    Ledger(directory).write(learned.base, learned.kernels, learned.concepts)


def _keep_taught(learned: Learned, directory: Path) -> None:
    """Copy the pictures of all taught concepts into the folder of a run that has none of them yet."""
    for row in learned.concepts:
        pictures, kept = learned.folder(row["name"]), data_folder(directory) / row["name"]
        if kept.is_dir() or not pictures.is_dir():
            continue
        building = kept.with_name(kept.name + ".partial")
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(pictures, building, ignore_dangling_symlinks=True)
        building.rename(kept)


def _share(old: Path, new: Path) -> None:
    """The same file in another folder: a link where the disk allows it, since weights are never changed in place."""
    new.parent.mkdir(parents=True, exist_ok=True)
    new.unlink(missing_ok=True)
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return out
