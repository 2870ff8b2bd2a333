"""Settings of protection, the same for every method that teaches cross-attention keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cns_jax.core.settings import require


@dataclass(frozen=True)
class ProtectSettings:
    """What a lesson may not change: the keys and values of earlier concepts' prompts and of general prompts.

    enabled: auto is what the method says of itself ("protected" is, "cns" as in its paper is not). strength: how far
    each step draws protected keys and values back to what they were, of a direction of text-feature space with the
    general prompts' mean energy (1: by half). general: the weight of the general prompts beside 1 of each concept.
    captions: a text file with general prompts, one a line (empty: the shipped ones, or the drawn world's for the
    miniature). directions: of text-feature space that are protected, the strongest first (0: all); fewer cost less.
    limit: a promise: a lesson stops moving what would change the keys or values of an earlier concept's prompts, in any
    layer, by more than this share of their energy since its own lesson (0: no promise).
    rank: after its lesson, what it changed is cut to so many directions of text-feature space, the same for all layers:
    a patch of it is then small and exact, and so is a LoRA (0: all that it learned stays).
    """

    enabled: Literal["auto", "on", "off"] = "auto"
    strength: float = 0.125
    general: float = 0.3
    captions: str = ""
    directions: int = 128
    limit: float = 0.0
    rank: int = 0

    def __post_init__(self) -> None:
        for name in ("strength", "general", "limit"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), f"protect.{name}={value} must be finite and not negative")
        for name in ("directions", "rank"):
            value = getattr(self, name)
            require(value >= 0, f"protect.{name}={value} must not be negative; 0 means all")
