"""The ledger: which concepts a run has learned, with which token, mask and files. One JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cns_jax.core.files import FileError, digest, is_file_name, read_json, replacing, require_keys
from cns_jax.core.settings import require

Row = Mapping[str, Any]
_NEEDED = dict.fromkeys(("name", "token", "class_word", "kind", "weights"), str)


class Ledger:
    """`ledger.json` of a run: the base model, a row a learned concept in order, and the lesson that is going on.

    It is the truth of what a run knows: names and tokens count, not positions in a folder.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / "ledger.json"

    def read(self) -> dict[str, Any]:
        """Its content; an empty ledger if the file is not there yet. Raises FileError if it is damaged."""
        empty: dict[str, Any] = {"base": "", "base_kernels": "", "concepts": []}
        if not self.file.exists():
            return empty
        found = empty | read_json(self.file)
        require_keys(found, {"base": str, "base_kernels": str, "concepts": list}, str(self.file))
        for number, row in enumerate(found["concepts"]):
            require_keys(row, _NEEDED, f"{self.file}: concept {number + 1}")
            if not is_file_name(row["name"]):
                raise FileError(f"{self.file}: {row['name']!r} is no name of a concept, after which files are called")
            if _leaves(row["weights"]):
                raise FileError(f"{self.file}: {row['weights']} lies outside of the run's folder")
        if found.get("current") is not None:
            require_keys(found["current"], {"name": str, "token": str}, f"{self.file}: the lesson that is going on")
        return found

    def check_base(self, base: str, model: str) -> None:
        """Raises SettingsError if the run was started from another model than `base` (a fingerprint)."""
        before = self.read()["base"]
        require(
            before in ("", base),
            f"{model} is not the model that {self.file.parent} was started from, or has changed since: its weights are "
            f"{base}, the run has learned on {before}; give the model that it was, or start anew with --config.run=...",
        )

    def begin(self, base: str, kernels: str, lesson: Row) -> None:
        """Note the lesson that is going on. base, kernels: fingerprints of the base model and of its K/V kernels."""
        self.write(base, kernels, self.read()["concepts"], lesson)

    def record(self, index: int, row: Row) -> None:
        """Set row `index`, whose lesson is over, and drop what came after it."""
        ledger = self.read()
        self.write(ledger["base"], ledger["base_kernels"], [*ledger["concepts"][:index], row])

    def write(self, base: str, kernels: str, rows: Sequence[Row], lesson: Row | None = None) -> None:
        """All of it; atomic."""
        value: dict[str, Any] = {"base": base, "base_kernels": kernels, "concepts": list(rows)}
        value |= {"current": lesson} if lesson is not None else {}
        with replacing(self.file) as temporary:
            temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def kept(directory: Path, weights: str) -> dict[str, Any]:
    """What a row keeps of its file of weights, to tell later whether it is whole."""
    file = directory / weights
    return {"weights": weights, "bytes": file.stat().st_size, "sha256": digest(file)}


def there(directory: Path, row: Row) -> Path:
    """A row's file of weights; raises FileError if it is gone or has another length than it had."""
    file = directory / row["weights"]
    if not file.is_file():
        raise FileError(f"{file} is gone, which holds what {row['name']} taught; put it back from a copy")
    if row.get("bytes", file.stat().st_size) != file.stat().st_size:
        raise FileError(
            f"{file} has {file.stat().st_size} bytes, it had {row['bytes']}: it was cut short or replaced; put it back "
            "from a copy"
        )
    return file


def whole(directory: Path, row: Row) -> Path:
    """A row's file of weights, every byte as it was written (rows of old versions do not tell); raises FileError."""
    file = there(directory, row)
    if row.get("sha256", "") not in ("", digest(file)):
        raise FileError(f"{file} is not as it was written: it was damaged or replaced; put it back from a copy")
    return file


def _leaves(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts
