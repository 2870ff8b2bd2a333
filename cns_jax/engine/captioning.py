"""Captions for pictures that have none: which pictures those are, and the loop that writes the files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from cns_jax.data.caption_files import caption_file, read_captions
from cns_jax.data.folder import DataError
from cns_jax.data.images import open_image
from cns_jax.data.pictures import pictures_in, read_pictures
from cns_jax.data.stray import own
from cns_jax.engine.progress import bar

log = logging.getLogger(__name__)


def to_caption(root: Path, overwrite: bool = False) -> tuple[Path, ...]:
    """Pictures of `root` and its sub-folders without a caption beside them or in metadata.jsonl; with `overwrite` all.

    Raises DataError listing all that is wrong, before any model is loaded.
    """
    if not root.is_dir():
        raise DataError(f"data_root {root} is not a folder; give a folder of pictures, or of folders of pictures")
    folders = [folder for folder in (root, *own(root)) if folder.is_dir() and pictures_in(folder)]
    if not folders:
        raise DataError(f"data_root {root} holds no pictures, and neither do its sub-folders")
    problems: list[str] = []
    chosen: list[Path] = []
    for folder in folders:
        paths = read_pictures(folder, problems)
        captions = read_captions(folder, paths, problems)
        chosen += [p for p, caption in zip(paths, captions, strict=True) if overwrite or caption is None]
    if problems:
        raise DataError("\n".join(problems))
    return tuple(chosen)


def write_captions(paths: Sequence[Path], describe: Callable[[Image.Image], str]) -> list[Path]:
    """`describe`'s words in every picture's caption file, each written at once; returns the files.

    Stopped and called again, the work goes on where it stopped. A picture without words gets no file.
    """
    written = []
    with bar("captions", len(paths), unit="picture") as progress:
        for path in paths:
            text = " ".join(describe(open_image(path)).split())
            if text:
                file = caption_file(path)
                file.write_text(text + "\n", encoding="utf-8")
                written.append(file)
                progress.write(f"{file}: {text}")
            else:
                log.warning("%s: the model found no words; training will use the template", path)
            progress.update()
    return written
