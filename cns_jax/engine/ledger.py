"""The ledger: which concepts a run has learned, with which token, mask and files. One JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cns_jax.core.files import replacing
from cns_jax.core.settings import SettingsError, require

Row = Mapping[str, Any]
_NEEDED = ("name", "token", "class_word", "kind", "weights")


class Ledger:
    """`ledger.json` of a run: the base model, a row a learned concept in order, and the lesson that is going on.

    It is the truth of what a run knows: names and tokens count, not positions in a folder.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / "ledger.json"

    def read(self) -> dict[str, Any]:
        """Its content; an empty ledger if the file is not there yet. Raises SettingsError if it is damaged."""
        empty: dict[str, Any] = {"base": "", "base_kernels": "", "concepts": []}
        if not self.file.exists():
            return empty
        try:
            found = {**empty, **json.loads(self.file.read_text(encoding="utf-8"))}
            whole = isinstance(found["concepts"], list)
            whole = whole and all(isinstance(row[key], str) for row in found["concepts"] for key in _NEEDED)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SettingsError(f"{self.file} is damaged ({error!r}); take a copy of it, or start anew") from None
        require(whole, f"{self.file} is damaged: a concept's row lacks one of {', '.join(_NEEDED)}")
        outside = [row["weights"] for row in found["concepts"] if _leaves(row["weights"])]
        require(not outside, f"{self.file}: {outside[:1]} lies outside of the run's folder")
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

    def snapshot(self, index: int) -> Path:
        """Where the weights after concept `index` lie."""
        row = self.read()["concepts"][index]
        return self.file.parent / row["weights"]


def _leaves(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts
