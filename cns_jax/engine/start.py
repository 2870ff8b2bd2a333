"""What every command does before its work."""

from __future__ import annotations

from cns_jax.core.memory import collect_seldom, keep_memory
from cns_jax.core.xla.compiling import keep_compiled
from cns_jax.engine.progress import console


def start(form: str = "%(message)s") -> None:
    """Messages to the terminal in `form`, compiled programs to the user's cache, memory kept between calls."""
    console(form)
    collect_seldom()
    keep_memory()
    keep_compiled()
