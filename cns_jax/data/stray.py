"""Files and folders that operating systems and cloud drives leave among people's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_NAMES = frozenset(
    "__macosx @eadir @tmp #recycle #snapshot @recycle @recently-snapshot $recycle.bin recycler lost+found __pycache__ "
    "thumbs.db ehthumbs.db ehthumbs_vista.db desktop.ini folder.htt picasa.ini icon\r".split(" ")
) | {"system volume information", "network trash folder", "temporary items"}
_LOCKED = re.compile(r"~\$.*|.*~")  # what an office program or an editor keeps beside an open file
_CLOUD = re.compile(r"\.(.+)\.icloud")


def is_stray(path: Path) -> bool:
    """Whether a file or folder belongs to a system and not to the user: hidden ones, and those with known names."""
    name = path.name.lower()
    return name.startswith(".") or name in _NAMES or _LOCKED.fullmatch(name) is not None


def own(folder: Path) -> list[Path]:
    """What the user put into `folder`, by name."""
    return sorted(path for path in folder.iterdir() if not is_stray(path))


def dangling(path: Path) -> bool:
    """Whether `path` is a link to nothing, or to itself."""
    return path.is_symlink() and not path.exists()


def link_problem(path: Path) -> str:
    """What to say of a dangling link."""
    return f"{path} is a link to {path.readlink()}, which is not there; mend the link or remove it"


def not_downloaded(folder: Path) -> Iterator[str]:
    """Names of files that iCloud shows in `folder` and keeps elsewhere."""
    for path in sorted(folder.iterdir()):
        found = _CLOUD.fullmatch(path.name)
        if found:
            yield found[1]
