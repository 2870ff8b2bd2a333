"""An evaluation.json for people."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from cns_jax.evals.scores import FIELDS, SINGLE, TABLE_SCALES, TOGETHER

_LABELS = {"clip_i": "CLIP-I", "clip_t": "CLIP-T", "found": "found, %", "dino_i": "DINO-I"}
_NAME, _CELL = 20, 13


def score_table(found: Mapping[str, Any]) -> str:
    """A concept a line, right after its lesson and at the end; then means with 95 % intervals, the concepts' prompts
    without their tokens (by the base model and at the end: leakage), the best pictures, what was lost, and what became
    of everything else. Scales are those of the papers (`TABLE_SCALES`)."""
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
    plain = [_scaled(n, summary[n][of]) for n in fields for of in ("plain_before", "plain_after")]
    lines.append(_line("its token left out", plain))
    for label, kind in kinds.items():
        if best := summary["best"][kind]:
            cells = [t for n in fields for t in ("", _scaled(n, best[n]) if n in best else "")]
            lines.append(_line(f"best of {found['num']}, {label.split()[0]}", cells))
    for name, shares in summary["attributes"].items():
        if shares["new"] is not None and shares["end"] is not None:
            lines.append(f"shows {name:14}{100 * shares['new']:{_CELL}.1f}{100 * shares['end']:{_CELL}.1f}")
    lines += _lost(summary, fields) if len(found["concepts"]) > 1 else []
    lines += _without_concepts(found["zero_shot"]) if found["zero_shot"] else []
    return "\n".join(line.rstrip() for line in lines)


def _lost(summary: Mapping[str, Any], fields: list[str]) -> list[str]:
    """Forgetting's summaries, in points."""
    told = {"backward_transfer": "since its own lesson a concept changed by", "forgetting": "since its best it lost"}
    lines = []
    for name, label in told.items():
        points = [f"{TABLE_SCALES[f] * summary[f][name]:+.1f} {_LABELS[f].removesuffix(', %')}" for f in fields]
        lines.append(f"{label} {', '.join(points)}")
    return lines


def _without_concepts(found: Mapping[str, Any]) -> list[str]:
    """What became of pictures without any concept."""
    before, after = (TABLE_SCALES["clip_t"] * found["clip_t"][when] for when in ("before", "after"))
    lines = [
        f"pictures without a concept are unchanged to {found['unchanged']:.3f} (cosine); CLIP-T {before:.1f} before, "
        f"{after:.1f} after"
    ]
    if control := found.get("control"):
        shares = [100 * fmean(x for x in control[when].values() if x is not None) for when in ("before", "after")]
        lines.append(f"of what they should show, the judge sees {shares[0]:.1f} % before, {shares[1]:.1f} % after")
    return lines


def _line(name: str, cells: list[str]) -> str:
    return f"{name[: _NAME - 1]:{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _scaled(field: str, value: float | None) -> str:
    return "" if value is None else f"{TABLE_SCALES[field] * value:.1f}"


def _limits(field: str, limits: list[float | None]) -> str:
    low, high = limits
    return "" if low is None or high is None else f"{TABLE_SCALES[field] * low:.1f}-{TABLE_SCALES[field] * high:.1f}"
