"""What a run says while it works: a progress bar, a JSON-lines file and TensorBoard."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cns_jax.core.threads import Beside

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


_TAG = re.compile(r"[^A-Za-z0-9_.-]")
"""What TensorBoard takes in no name; it would say so in every row."""


class Metrics:
    """Appends rows to `metrics.jsonl` and to TensorBoard's event files under `directory`.

    After a resume, rows past the restored step are dropped first, so that no step appears twice.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "metrics.jsonl"
        Beside(import_module, "tensorboardX")  # it imports torch where that is installed, which takes a second or two

    @cached_property
    def _writer(self) -> SummaryWriter:
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self.path.with_name("tensorboard")))

    def rewind(self, part: str, step: int) -> None:
        """Forget rows of `part` after `step`."""
        if not self.path.exists():
            return
        lines = self.path.read_text(errors="replace").splitlines()
        kept = [line for line in lines if not _later(line, part, step)]
        if kept != lines:
            self.path.write_text("".join(line + "\n" for line in kept))

    def write(self, part: str, step: int, values: Mapping[str, float]) -> None:
        """One row: the part of the run (a concept, a stage), its step, and named scalars."""
        row: dict[str, Any] = {"part": part, "step": step, "time": round(time.time(), 3), **values}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(f"{_TAG.sub('_', part)}/{name}", value, step)

    def close(self) -> None:
        """Flush TensorBoard's files."""
        if "_writer" in vars(self):
            self._writer.close()


def _later(line: str, part: str, step: int) -> bool:
    try:
        row = json.loads(line)
        return bool(row["part"] == part and row["step"] > step)
    except (json.JSONDecodeError, KeyError, TypeError):  # the line that a kill cut short, or what a disk made of it
        return True


def _without_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def console(form: str = "%(message)s") -> None:
    """Send our messages to the terminal, and of other libraries' only warnings (orbax reports every save)."""
    logging.basicConfig(level=logging.INFO, format=form, force=True)  # absl has put its own handler there
    for name in ("absl", "jax", "orbax", "tensorflow_datasets"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("absl", "asyncio"):  # tracebacks of a save that fails, as where the disk is full; it is raised, too
        logging.getLogger(name).addFilter(_without_traceback)


def bar(title: str, total: int, start: int = 0, unit: str = "step") -> tqdm:
    """A progress bar with rate and ETA, from step `start`; quiet files get a line every 10 s, not a flood."""
    return tqdm(total=total, initial=start, desc=title, unit=unit, mininterval=0.5, maxinterval=10, dynamic_ncols=True)
