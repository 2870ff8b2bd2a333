"""One writer a folder: who writes to it holds its lock, and others are told who that is."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cns_jax.core.files import json_in
from cns_jax.core.settings import SettingsError

_LOCK, _OWNER = ".lock", ".lock.json"


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Be the only process that writes to `folder`, which is made if it is absent, and removed if it stays empty.

    The operating system gives the lock back when its process dies, however it dies. The same process may hold it
    several times. Raises SettingsError naming the process, its host and its command, if another one holds it.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(str((folder / _LOCK).resolve()), timeout=0, is_singleton=True), folder / _OWNER
    try:
        lock.acquire()
    except Timeout:
        raise SettingsError(f"{folder} is in use: {_told(owner)}; wait until it is done, or stop it") from None
    try:
        if lock.lock_counter == 1:
            command = shlex.join(sys.argv)
            since = time.strftime("%Y-%m-%d %H:%M")
            about = {"pid": os.getpid(), "host": platform.node(), "since": since, "command": command}
            owner.write_text(json.dumps(about) + "\n")
        yield
    finally:
        if lock.lock_counter == 1:
            owner.unlink(missing_ok=True)
            (folder / _LOCK).unlink(missing_ok=True)
        lock.release()
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _told(owner: Path) -> str:
    about = json_in(owner)
    if not about.keys() >= {"pid", "host", "since", "command"}:
        return "another process writes to it"
    return f"process {about['pid']} on {about['host']} writes to it since {about['since']} ({about['command']})"
