"""Checkpoints through orbax: what is saved, where, and the newest that is whole."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import jax


def _orbax() -> Any:
    """Imported when first needed: a quarter of a second, which a new run's first steps do not wait for."""
    import orbax.checkpoint

    return orbax.checkpoint


class Checkpoints:
    """The checkpoints of one run, a numbered folder each; the last `keep` are kept.

    Saves are asynchronous and become visible only when complete, so a kill at any moment leaves the one
    before.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self._directory, self._keep = directory.resolve(), keep

    @cached_property
    def _manager(self) -> Any:
        options = _orbax().CheckpointManagerOptions(max_to_keep=self._keep, create=True)
        return _orbax().CheckpointManager(self._directory, options=options)

    def latest(self) -> int | None:
        """The number of the newest complete checkpoint, or None."""
        return self._manager.latest_step() if self._directory.exists() else None

    def save(self, number: int, tree: Any, wait: bool = False) -> None:
        """Save a pytree of arrays under `number`; wait: until it is on disk. Saving a number again is skipped."""
        if self.latest() == number:
            return
        self._manager.save(number, args=_orbax().args.StandardSave(tree))
        if wait:
            self._manager.wait_until_finished()

    def among(self, numbers: range) -> list[int]:
        """Those of the numbers that are complete checkpoints, rising."""
        return [n for n in sorted(self._manager.all_steps()) if n in numbers] if self._directory.exists() else []

    def forget_from(self, number: int) -> None:
        """Delete the checkpoints from `number` on, of a lesson that starts again."""
        if self._directory.exists():
            for later in [n for n in self._manager.all_steps() if n >= number]:
                self._manager.delete(later)

    def restore(self, number: int, like: Any, resized: bool = False) -> Any:
        """The tree of checkpoint `number`, with the structure, shapes, dtypes and shardings of `like`.

        resized: arrays of other shapes are cut at their ends, or filled up with zeros; else they are a ValueError.
        """
        target = jax.tree.map(_orbax().utils.to_shape_dtype_struct, like)
        return self._manager.restore(number, args=_orbax().args.StandardRestore(target, strict=not resized))

    def close(self) -> None:
        """Wait for pending saves and release threads."""
        if self._directory.exists():
            self._manager.wait_until_finished()
            self._manager.close()
