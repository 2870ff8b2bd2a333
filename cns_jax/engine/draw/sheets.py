"""Pictures for people: grids with captions, sample sheets a concept, and the overview of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TEXT, _PAPER = (40, 40, 48), (252, 251, 248)
_LABEL = 150  # width of the row labels in pixels
_LINE = 14


@dataclass(frozen=True)
class Row:
    """A row of a sheet: its label and its pictures, uint8 (n, h, w, 3)."""

    label: str
    images: Sequence[np.ndarray]


def tile(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size in a grid, uint8, filled up with white."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    blank = np.full_like(images[0], 255)
    padded = [*images, *([blank] * (rows * columns - len(images)))]
    return np.concatenate([np.concatenate(padded[r * columns : (r + 1) * columns], 1) for r in range(rows)])


def thumbnail(image: np.ndarray, file: Path, side: int = 256) -> None:
    """Write one picture as a small JPEG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS).save(file, quality=85)


def sheet(rows: Sequence[Row], columns: Sequence[str], file: Path, zoom: int = 2) -> None:
    """Write a labelled grid: a head over every column, a label before every row. Rows may differ in length."""
    side = max(image.shape[0] for row in rows for image in row.images)
    zoom = max(1, min(zoom, 256 // side))
    cell, gap = side * zoom, 4
    count = max(len(columns), *(len(row.images) for row in rows))
    head = _LINE * max((len(_wrapped(c, cell)) for c in columns), default=0) + 6
    canvas = Image.new("RGB", (_LABEL + count * (cell + gap), head + len(rows) * (cell + gap)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, text in enumerate(columns):
        _write(draw, text, _LABEL + i * (cell + gap), 3, cell)
    for r, row in enumerate(rows):
        top = head + r * (cell + gap)
        _write(draw, row.label, 6, top + 6, _LABEL - 10)
        for i, image in enumerate(row.images):
            big = Image.fromarray(image).resize((cell, cell), Image.Resampling.LANCZOS)
            canvas.paste(big, (_LABEL + i * (cell + gap), top))
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(file)


def _wrapped(text: str, width: int) -> list[str]:
    """Words on lines of at most `width` pixels."""
    lines: list[str] = []
    font = ImageFont.load_default(11)
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write(draw: ImageDraw.ImageDraw, text: str, x: int, y: int, width: int) -> None:
    for i, line in enumerate(_wrapped(text, width)):
        draw.text((x, y + i * _LINE), line, fill=_TEXT, font=ImageFont.load_default(11))
