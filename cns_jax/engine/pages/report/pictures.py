"""A run's pictures for its report: found in the run's folder, scaled down, and written into the page itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cns_jax.data.images import ImageError, open_image
from cns_jax.data.prompts import without_tokens
from cns_jax.engine.draw.kept import picture_file
from cns_jax.engine.pages.html import data_url
from cns_jax.engine.pages.study import find_target
from cns_jax.engine.runs.learned import Learned
from cns_jax.evals.scores import SINGLE, TOGETHER, Score

_SIDES = ((160, 224), (320, 160), (640, 112))  # up to so many pictures: of that side, so that a page stays below 3 MB
_SMALLEST, _SHEET = 80, 900


@dataclass(frozen=True)
class Drawn:
    """A prompt and its pictures as data URLs, None where one is missing."""

    prompt: str
    pictures: tuple[str | None, ...]


@dataclass(frozen=True)
class Album:
    """The pictures of an evaluation. scores: its rows; stages: how many lessons it knows."""

    folder: Path
    scores: Sequence[Score]
    stages: int

    @functools.cached_property
    def seeds(self) -> dict[str, int]:
        """Words without tokens -> the seed whose picture is shown: the first one."""
        return {without_tokens(s.prompt): s.seed for s in reversed(self.scores)}

    def prompts(self, kind: str, concepts: tuple[int, ...] | None = None) -> list[str]:
        """Those of one kind and, if given, of exactly these concepts, in order."""
        rows = (s for s in self.scores if s.kind == kind and concepts in (None, s.concepts))
        return list(dict.fromkeys(s.prompt for s in rows))

    @functools.cached_property
    def side(self) -> int:
        """How large pictures may be in the page."""
        count = sum(4 + 3 * len(self.prompts(SINGLE, (j,))) for j in range(self.stages))
        return next((side for most, side in _SIDES if count <= most), _SMALLEST)

    def picture(self, stage: int, text: str) -> str | None:
        """The picture of a prompt after `stage` lessons."""
        file = picture_file(self.folder / f"stage{stage}", text, self.seeds[without_tokens(text)])
        try:
            return data_url(open_image(file), self.side)
        except (OSError, ImageError):
            return None

    def sheet(self, index: int) -> list[Drawn]:
        """Of one concept, a prompt a row: before any lesson (without its token), after its own, after the last one."""
        return self._rows(
            (p, [(0, without_tokens(p)), *((stage, p) for stage in sorted({index + 1, self.stages}))])
            for p in self.prompts(SINGLE, (index,))
        )

    def together(self) -> list[Drawn]:
        """Prompts with several concepts, after the last lesson."""
        return self._rows((p, [(self.stages, p)]) for p in self.prompts(TOGETHER))

    def plain(self) -> list[Drawn]:
        """A prompt a concept without its token, before any lesson and after the last one."""
        texts = dict.fromkeys(without_tokens(p) for j in range(self.stages) for p in self.prompts(SINGLE, (j,))[:1])
        return self._rows((t, [(0, t), (self.stages, t)]) for t in texts)

    def _rows(self, wanted: Iterator[tuple[str, list[tuple[int, str]]]]) -> list[Drawn]:
        rows = [Drawn(p, tuple(self.picture(*where) for where in places)) for p, places in wanted]
        return [row for row in rows if any(row.pictures)]


def photos(learned: Learned, token: str, side: int) -> list[str]:
    """A few of the pictures that a concept was taught with; none if they have moved."""
    try:
        return [data_url(image, side) for image in find_target(token, [learned]).images]
    except (ValueError, OSError):
        return []


def sheet_file(file: Path) -> str | None:
    """A sheet that training has drawn; None if it has not."""
    try:
        image = open_image(file)
    except (OSError, ImageError):
        return None
    return data_url(image, _SHEET)
