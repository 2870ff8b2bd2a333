"""Results files: a line a finished run, or a timed workload."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from cns_jax.core.files import replacing

KEY = ("group", "variant", "number", "seed", "order", "count")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a results file; none if it is not there yet."""
    return [json.loads(row) for row in file.read_text().splitlines()] if file.exists() else []


def keep(file: Path, line: dict[str, Any], key: Sequence[str] = KEY) -> None:
    """Put a line in place of the old one that is equal in the fields of `key` (of a run: KEY), or at the end."""

    def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in key)

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):  # another process may be keeping its line now
        lines = {key_of(row): row for row in read_lines(file)} | {key_of(line): line}
        with replacing(file) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in lines.values()))
