"""A run's folder: which settings it may go on with, and what it takes over from another run."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cns_jax.core.files import replacing
from cns_jax.core.settings import SettingsError
from cns_jax.engine.concepts import data_folder
from cns_jax.engine.learned import Learned, read_settings
from cns_jax.engine.ledger import Ledger
from cns_jax.engine.settings import RunSettings

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
    file = Path(settings.directory) / "config.json"
    if not file.exists():
        return None
    before = read_settings(file)
    was, now = _flat(dataclasses.asdict(before)), _flat(dataclasses.asdict(settings))
    differing = [key for key in now if was.get(key) != now[key] and not _FREE.fullmatch(key)]
    if settings.drawn != before.drawn:
        differing.append("data_root")
    if bool(settings.prior.folder) != bool(before.prior.folder):  # where own pictures lie is free, not whether
        differing.append("prior.folder")
    if differing:
        told = ", ".join(f"{key} ({was.get(key)!r} there, {now[key]!r} now)" for key in sorted(differing))
        raise SettingsError(
            f"{file.parent} holds a run with another {told}; continue it with its own settings, give this one another "
            f"folder with --config.run=..., or go on from what it has learned with --config.after={file.parent} "
            "--config.run=..."
        )
    return before


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
    if settings.after and not ledger.file.exists():
        _take_over(Learned.of(settings.after), directory)
    elif before is not None and ledger.read()["concepts"]:
        _keep_taught(Learned.of(settings.directory), directory)
    with replacing(directory / "config.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(settings), indent=2) + "\n")
    return directory


def _take_over(learned: Learned, directory: Path) -> None:
    """Ledger, weights, pictures, sheets and curves of another run; the ledger last, since it makes them count."""
    for row in learned.concepts:
        _share(learned.directory / row["weights"], directory / row["weights"])
    for index, row in enumerate(learned.concepts):
        for old in (learned.directory / "samples").glob(f"{index + 1:02d}_{row['name']}.*"):
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
