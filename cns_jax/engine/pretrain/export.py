"""Writing the trained miniature."""
from __future__ import annotations

from typing import Any


def export(pretraining: Any) -> None:
    """Placeholder until weights/folder lands."""
