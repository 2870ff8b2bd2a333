"""An evaluation.json for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cns_jax.evals.scores import FIELDS, SINGLE, TABLE_SCALES, TOGETHER

_LABELS = {"clip_i": "CLIP-I", "clip_t": "CLIP-T", "found": "found, %", "dino_i": "DINO-I"}
_NAME, _CELL = 20, 13


def score_table(found: Mapping[str, Any]) -> str:
    """A concept a line, right after its lesson and at the end; then means with 95 % intervals, the best pictures, and
    what became of everything else. Scales are those of the papers (`TABLE_SCALES`)."""
    summary = found["summary"]
    fields = [name for name in FIELDS if name in summary]
    lines = [
        _line("", [text for name in fields for text in (_LABELS[name], "")]),
        _line("", ["learned", "at end"] * len(fields)),
    ]
    for j, concept in enumerate(found["concepts"]):
        cells = [TABLE_SCALES[name] * summary[name]["matrix"][row][j] for name in fields for row in (j, -1)]
        lines.append(_line(concept["name"], [f"{cell:.1f}" for cell in cells]))
    lines.append(_line("mean", [_scaled(name, summary[name][of]) for name in fields for of in ("learning", "average")]))
    limits = [_limits(name, summary[name]["intervals"][of]) for name in fields for of in ("learning", "average")]
    lines.append(_line("95 % interval", limits))
    kinds = {"single": SINGLE, "several together": TOGETHER}
    if summary[fields[0]]["together"] is not None:
        lines.append(_line("several together", [t for n in fields for t in ("", _scaled(n, summary[n]["together"]))]))
        limits = [t for n in fields for t in ("", _limits(n, summary[n]["intervals"]["together"]))]
        lines.append(_line("95 % interval", limits))
    for label, kind in kinds.items():
        if best := summary["best"][kind]:
            cells = [t for n in fields for t in ("", _scaled(n, best[n]) if n in best else "")]
            lines.append(_line(f"best of {found['num']}, {label.split()[0]}", cells))
    for name, shares in summary["attributes"].items():
        if shares["new"] is not None and shares["end"] is not None:
            lines.append(f"shows {name:14}{100 * shares['new']:{_CELL}.1f}{100 * shares['end']:{_CELL}.1f}")
    if found["zero_shot"]:
        lines.append(f"pictures without a concept are unchanged to {found['zero_shot']['unchanged']:.3f} (cosine)")
    return "\n".join(line.rstrip() for line in lines)


def _line(name: str, cells: list[str]) -> str:
    return f"{name[: _NAME - 1]:{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _scaled(field: str, value: float | None) -> str:
    return "" if value is None else f"{TABLE_SCALES[field] * value:.1f}"


def _limits(field: str, limits: list[float | None]) -> str:
    low, high = limits
    return "" if low is None or high is None else f"{TABLE_SCALES[field] * low:.1f}-{TABLE_SCALES[field] * high:.1f}"
