"""Checkpoints through orbax: what is saved, where, and the newest that is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run, a numbered folder each; the last `keep` are kept.

    Saves are asynchronous and become visible only when complete, so a kill at any moment leaves the one
    before.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    def latest(self) -> int | None:
        """The number of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, number: int, tree: Any, wait: bool = False) -> None:
        """Save a pytree of arrays under `number`; wait: until it is on disk. Saving a number again is skipped."""
        if self.latest() == number:
            return
        self._manager.save(number, args=ocp.args.StandardSave(tree))
        if wait:
            self._manager.wait_until_finished()

    def restore(self, number: int, like: Any) -> Any:
        """The tree of checkpoint `number`, with the structure, shapes, dtypes and shardings of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(number, args=ocp.args.StandardRestore(target))

    def close(self) -> None:
        """Wait for pending saves and release threads."""
        self._manager.wait_until_finished()
        self._manager.close()
