"""Names of cross-attention layers, for people."""

from __future__ import annotations

import re

_PARTS = ("down", "mid", "up")
_NUMBERS = re.compile(r"\.(\d+)")


def layer_of(name: str) -> str:
    """Where a kernel or its layer sits: "down 0.1" for the second attention of the first downward block; "mid"; "up
    3.2". A name from no UNet stays as it is."""
    part, numbers = _place(name)
    if not part:
        return name
    places = numbers[1:] if part == "mid" else numbers
    if places and places[-1] == 0:  # the transformer block: one a layer in Stable Diffusion 1 and 2
        places = places[:-1]
    return " ".join(filter(None, (part, ".".join(map(str, places)))))


def network_order(name: str) -> tuple[int, tuple[int, ...]]:
    """What sorts layers as data passes them; names from no UNet come last."""
    part, numbers = _place(name)
    return (_PARTS.index(part) if part else len(_PARTS)), numbers


def _place(name: str) -> tuple[str, tuple[int, ...]]:
    part = next((p for p in _PARTS if name.startswith(f"{p}_block")), "")
    return part, tuple(map(int, _NUMBERS.findall(name)))
