"""The ledger: which concepts a run has learned, with which token, mask and files. One JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Ledger:
    """`ledger.json` of a run: the base model and a row a learned concept, in order."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "ledger.json"

    def read(self) -> dict[str, Any]:
        """Its content; an empty ledger if the file is not there yet."""
        return json.loads(self.file.read_text()) if self.file.exists() else {"base": "", "concepts": []}

    def record(self, index: int, base: str, row: dict[str, Any]) -> None:
        """Set row `index` and drop what came after it; atomic."""
        concepts = [*self.read()["concepts"][:index], row]
        temporary = self.file.with_suffix(".partial")
        temporary.write_text(json.dumps({"base": base, "concepts": concepts}, indent=2) + "\n")
        temporary.rename(self.file)

    def snapshot(self, index: int) -> Path:
        """Where the weights after concept `index` lie."""
        row = self.read()["concepts"][index]
        return self.file.parent / row["weights"]
