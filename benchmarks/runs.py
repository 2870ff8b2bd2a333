"""The results file: a line a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cns_jax.core.files import replacing

KEY = ("group", "variant", "number", "seed", "order", "count")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The finished runs of a results file; none if it is not there yet."""
    return [json.loads(row) for row in file.read_text().splitlines()] if file.exists() else []


def key_of(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a run the same run."""
    return tuple(line[name] for name in KEY)


def keep(file: Path, line: dict[str, Any]) -> None:
    """Put a run's line in place of its old one, or at the end."""
    lines = {key_of(row): row for row in read_lines(file)} | {key_of(line): line}
    with replacing(file) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in lines.values()))
