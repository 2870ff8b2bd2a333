"""How near a model made of patches is to the trained one, as a patch says it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Fidelity:
    """error, mean: ||X (W' - W)|| / ||X W|| of a layer's keys or values, the largest and the mean over layers, W the
    trained kernel, W' that of the patches up to this one and X the text features of the concept's sample prompts;
    earlier: the largest over the prompts of the concepts before it; energy: the share of the change's summed squares
    that is kept.

    All exact: error 0, energy 1.
    """

    error: float = 0.0
    mean: float = 0.0
    earlier: float = 0.0
    energy: float = 1.0
    KEY: ClassVar[str] = "fidelity"

    @classmethod
    def told(cls, about: Any) -> Fidelity | None:
        """What a patch's `about` says; None of old patches, and where it makes no sense."""
        told = about.get(cls.KEY)
        names = {field.name for field in fields(cls)}
        if not isinstance(told, dict) or set(told) != names:
            return None
        return cls(**told) if all(isinstance(value, float) for value in told.values()) else None

    @property
    def worst(self) -> float:
        """Over the prompts of all concepts so far."""
        return max(self.error, self.earlier)

    def json(self) -> dict[str, float]:
        """For `about`."""
        return asdict(self)

    def __str__(self) -> str:
        if self == Fidelity():
            return "exact to the bit"
        return (
            f"keeps {self.energy:.2%} of the change's energy; on the concept's prompts K and V are wrong by up to "
            f"{self.error:.3%} (mean of the layers {self.mean:.3%})"
            + (f", on earlier concepts' by up to {self.earlier:.3%}" if self.earlier else "")
        )
