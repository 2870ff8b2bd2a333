"""Files that are whole or not there, whenever the process dies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to; it takes the file's place when the block ends, and is deleted on an error.

    Folders above are made. Runs that share a cache may write the same file at once: each has a path of its own.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.stem}.{uuid.uuid4().hex[:8]}.partial{file.suffix}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
