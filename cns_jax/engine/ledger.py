"""The ledger: which concepts a run has learned, with which token, mask and files. One JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cns_jax.core.files import replacing
from cns_jax.core.settings import require


class Ledger:
    """`ledger.json` of a run: the base model and a row a learned concept, in order."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "ledger.json"

    def read(self) -> dict[str, Any]:
        """Its content; an empty ledger if the file is not there yet."""
        return (
            json.loads(self.file.read_text())
            if self.file.exists()
            else {"base": "", "base_kernels": "", "concepts": []}
        )

    def check_base(self, base: str, model: str) -> None:
        """Raises SettingsError if the run was started from another model than `base` (a fingerprint)."""
        before = self.read()["base"]
        require(
            before in ("", base),
            f"{model} has changed since {self.file.parent} was started: its weights are {base}, the run has learned on "
            f"{before}; give the model that it was, or start anew with --config.run=...",
        )

    def record(self, index: int, base: str, kernels: str, row: dict[str, Any]) -> None:
        """Set row `index` and drop what came after it; atomic. base, kernels: fingerprints of the base model and of
        its cross-attention K/V kernels."""
        concepts = [*self.read()["concepts"][:index], row]
        value = {"base": base, "base_kernels": kernels, "concepts": concepts}
        with replacing(self.file) as temporary:
            temporary.write_text(json.dumps(value, indent=2) + "\n")

    def snapshot(self, index: int) -> Path:
        """Where the weights after concept `index` lie."""
        row = self.read()["concepts"][index]
        return self.file.parent / row["weights"]
