"""Captions for pictures that have none: which pictures those are, and the loop that writes the files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from cns_jax.data.folder import DataError, is_picture, read_captions, read_pictures
from cns_jax.data.images import open_image
from cns_jax.engine.progress import bar

log = logging.getLogger(__name__)


def to_caption(root: Path, overwrite: bool = False) -> tuple[Path, ...]:
    """Pictures of `root` and its sub-folders without a caption in a .txt or metadata.jsonl; with `overwrite` all.

    Raises DataError listing all that is wrong, before any model is loaded.
    """
    if not root.is_dir():
        raise DataError(f"data_root {root} is not a folder; give a folder of pictures, or of folders of pictures")
    inside = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    folders = [folder for folder in (root, *inside) if any(map(is_picture, folder.iterdir()))]
    if not folders:
        raise DataError(f"data_root {root} holds no pictures, and neither do its sub-folders")
    problems: list[str] = []
    chosen: dict[Path, Path] = {}  # by .txt: a.jpg and a.png share one
    for folder in folders:
        paths = read_pictures(folder, problems)
        captions = read_captions(folder, paths, problems)
        for path, caption in zip(paths, captions, strict=True):
            if overwrite or caption is None:
                chosen.setdefault(path.with_suffix(".txt"), path)
    if problems:
        raise DataError("\n".join(problems))
    return tuple(chosen.values())


def write_captions(paths: Sequence[Path], describe: Callable[[Image.Image], str]) -> list[Path]:
    """A .txt with `describe`'s words beside every picture, each written at once; returns the files.

    Stopped and called again, the work goes on where it stopped. A picture without words gets no file.
    """
    written = []
    with bar("captions", len(paths), unit="picture") as progress:
        for path in paths:
            text = " ".join(describe(open_image(path)).split())
            if text:
                file = path.with_suffix(".txt")
                file.write_text(text + "\n", encoding="utf-8")
                written.append(file)
                progress.write(f"{file}: {text}")
            else:
                log.warning("%s: the model found no words; training will use the template", path)
            progress.update()
    return written
