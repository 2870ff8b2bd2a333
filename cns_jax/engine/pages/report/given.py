"""The command that trained a run, kept in its folder, so that its report can say it again with a change."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from cns_jax.core.files import json_in, replacing
from cns_jax.engine.settings import MINIATURE, RunSettings

_FILE = "command.json"
_SETTING = re.compile(r"--?(concept|(?:no)?config(?:\.[^=]*)?)(?:=(.*))?", re.DOTALL)

Flags = dict[str, str | list[str] | None]
"""Name without dashes -> value; None for a switch, as in --noconfig.report.sheets; a list for a flag that repeats."""


def keep_command(directory: str | Path, arguments: Sequence[str]) -> None:
    """Keep the --config and --concept flags of a command line (without the program's name) in a run's folder; a
    --flagfile's too."""
    found = _flags_of(flags.FLAGS.read_flags_from_files(list(arguments), force_gnu=False))
    with replacing(Path(directory) / _FILE) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def kept(directory: Path) -> Flags:
    """The flags that the run was last trained with; empty if they were not kept."""
    found = json_in(directory / _FILE)
    if not found.get("config"):
        return {}
    return found if all(_is_value(value) for value in found.values()) else {}


def _is_value(value: Any) -> bool:
    return value is None or all(isinstance(one, str) for one in (value if isinstance(value, list) else [value]))


def given(directory: Path, settings: RunSettings) -> Flags:
    """What was kept, or else the flags that are likely."""
    if found := kept(directory):
        return found
    likely = {
        "config": settings.name,
        "config.data_root": settings.data_root,
        "config.model": settings.model if settings.model != MINIATURE else "",
        "config.seed": str(settings.seed or ""),
        "config.train.steps": str(settings.train.steps),
        "config.method.name": settings.method.name,
    }
    return {name: value for name, value in likely.items() if value}


def _flags_of(arguments: Sequence[str]) -> Flags:
    out: Flags = {}
    left = list(arguments)
    while left:
        found = _SETTING.fullmatch(left.pop(0))
        if found is None:
            continue
        name, value = found[1], found[2]
        if value is None and left and not left[0].startswith("-"):
            value = left.pop(0)  # --config.seed 3
        before = out.pop(name, None)
        repeats = [*(before if isinstance(before, list) else []), value or ""]
        out[name] = repeats if name == "concept" else value
    return out
