"""A folder's pictures, and whatever else lies there: read, skipped, left out by name, or a problem."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from cns_jax.core.files import digest
from cns_jax.data.caption_files import is_caption, is_metadata, owners, owners_of
from cns_jax.data.formats import EXTRA, OTHERS, PLUGINS, SUFFIXES, is_mask, is_picture
from cns_jax.data.images import ImageError, open_image
from cns_jax.data.spec import FILE
from cns_jax.data.stray import dangling, link_problem, not_downloaded, own

_MOST = 5  # files that are there twice, told one by one


def read_pictures(folder: Path, problems: list[str], notes: list[str] | None = None) -> tuple[Path, ...]:
    """The pictures of `folder` by name, each opened once; what is wrong is added to `problems`, what is left out to
    `notes`."""
    if not folder.is_dir():
        problems.append(_no_folder(folder))
        return ()
    inside, paths = own(folder), picture_files(folder)
    problems += [link_problem(p) for p in inside if dangling(p) and not is_picture(p)]
    problems += [f"{folder / name} is in iCloud only; download it in the Finder" for name in not_downloaded(folder)]
    among = owners(paths)
    read = {*paths, *(p for p in inside if is_metadata(p) or is_mask(p) or p.name == FILE or owners_of(p, among))}
    left = left_out(p for p in inside if p not in read or p.is_dir())
    if not paths:
        problems.append(_no_pictures(folder, left))
    elif left and notes is not None:
        notes.append(f"{folder}: left out {left}")
    for path in paths:
        try:
            open_image(path)
        except ImageError as error:
            problems.append(str(error))
    return paths


def left_out(paths: Iterable[Path]) -> str:
    """What is not read, in words, counted by suffix, each with what would read it; empty if there is nothing."""
    paths = list(paths)
    folders = [p for p in paths if p.is_dir()]
    counts = Counter(p.suffix.lower() or p.name for p in paths if not p.is_dir() and not dangling(p))
    words = [f"{count} {suffix}{_would_read(suffix)}" for suffix, count in sorted(counts.items())]
    return ", ".join([*words, *(f"the folder {p.name}/{_count(p)}" for p in folders)])


def twice(paths: Sequence[Path]) -> list[str]:
    """A line for each file whose bytes are those of an earlier one."""
    sizes = defaultdict(list)
    for path in paths:
        if path.is_file():
            sizes[path.stat().st_size].append(path)
    lines: list[str] = []
    seen: dict[str, Path] = {}
    for path in (p for alike in sizes.values() if len(alike) > 1 for p in alike):
        first = seen.setdefault(digest(path), path)
        if first is not path:
            lines.append(f"{path} is the same file as {first}; both are taught, remove one unless that is meant")
    return lines if len(lines) <= _MOST else [*lines[:_MOST], f"and {len(lines) - _MOST} files more are there twice"]


def picture_files(folder: Path) -> tuple[Path, ...]:
    """The files of `folder` itself that are pictures by their names; none is opened."""
    return tuple(p for p in own(folder) if is_picture(p) and not p.is_dir())


def pictures_in(folder: Path) -> int:
    """How many pictures lie in `folder` itself, by their names."""
    return len(picture_files(folder))


def _would_read(suffix: str) -> str:
    if any(suffix in plugin.suffixes for plugin in PLUGINS):
        return f" ({EXTRA} reads them)"
    if suffix in OTHERS:
        return " (convert to PNG or JPEG)"
    return " (of no picture)" if is_caption(Path("x" + suffix)) else ""


def _count(folder: Path) -> str:
    try:
        count = pictures_in(folder)
    except OSError:
        return ""
    return f" with {count} pictures" if count else ""


def _no_folder(folder: Path) -> str:
    if folder.exists():
        return f"{folder} is a file; give a folder of pictures"
    if dangling(folder):
        return link_problem(folder)
    near = ", ".join(p.name for p in own(folder.parent) if p.is_dir()) if folder.parent.is_dir() else ""
    return f"{folder} does not exist; " + (f"{folder.parent} has: {near}" if near else "check data_root")


def _no_pictures(folder: Path, left: str) -> str:
    deeper = [p for p in own(folder) if p.is_dir() and pictures_in(p)]
    fix = ""
    if deeper:
        names = ", ".join(p.name for p in deeper[:8])
        fix = f"; move those of {names} up, or, if these are concepts themselves, give --config.data_root={folder}"
    return f"{folder} holds no pictures ({', '.join(SUFFIXES)})" + (f"; it has {left}" if left else "") + fix
