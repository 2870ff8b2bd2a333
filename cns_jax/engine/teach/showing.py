"""What a training run draws for people: a sheet a lesson, small pictures within it, and the overview of all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cns_jax.core.files import json_in, replacing
from cns_jax.core.types import Concept
from cns_jax.data.images import load_image, open_image
from cns_jax.data.prompts import plain as plain_prompt
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.draw.sheets import Row, sheet, thumbnail, tile
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.settings import RunSettings
from cns_jax.evals.clip_scores import ClipScorer, clip_i, clip_t
from cns_jax.methods.applied import Applied

_STEP_PROMPTS, _STEP_SIDE = 3, 192


@dataclass(frozen=True)
class Showing:
    """directory: the run's."""

    directory: Path
    settings: RunSettings
    studio: Studio

    def images(self, applied: Applied, prompts: Sequence[str]) -> list[np.ndarray]:
        """A picture a prompt, uint8 (h, w, 3), at the run's seeds."""
        seeds = [self.settings.seed + i for i in range(len(prompts))]
        return list(self.studio.generator.images(applied, prompts, seeds, self.settings.sample))

    def sheet(self, index: int, concept: Concept, before: Applied, after: Applied) -> None:
        """Before and after the concept, with and without its token, same seeds."""
        prompts = sample_prompts(concept)[:4]
        plain = [plain_prompt(p, [concept]) for p in prompts]
        learned = self.images(after, prompts)
        rows = [
            Row("its pictures", self._photos(concept, len(prompts))),
            Row(f"before, with {concept.token}", self.images(before, prompts)),
            Row(f"after, with {concept.token}", learned),
            Row("before, without the token", self.images(before, plain)),
            Row("after, without the token", self.images(after, plain)),
        ]
        file = self.directory / "samples" / f"{index + 1:02d}_{concept.name}.png"
        sheet(rows, prompts, file)
        thumbnail(learned[0], file.with_suffix(".jpg"))

    def step(self, index: int, concept: Concept, step: int, applied: Applied) -> None:
        """A small strip of pictures of the lesson that is going on, and how near they are to what is taught."""
        prompts = sample_prompts(concept)[:_STEP_PROMPTS]
        pictures = self.images(applied, prompts)
        folder = self._steps(index, concept)
        side = min(_STEP_SIDE, max(64, pictures[0].shape[0]))
        small = [np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.LANCZOS)) for p in pictures]
        with replacing(folder / f"{step}.jpg") as temporary:
            Image.fromarray(tile(small, len(small))).save(temporary, quality=85)
        told = json_in(folder / "steps.json") or {"prompts": prompts, "steps": {}}
        told["steps"][str(step)] = self._scores(concept, pictures, prompts)
        with replacing(folder / "steps.json") as temporary:
            temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

    def forget_steps(self, index: int, concept: Concept) -> None:
        """Delete the small pictures of a lesson that starts again, and what was told of them."""
        shutil.rmtree(self._steps(index, concept), ignore_errors=True)

    def _steps(self, index: int, concept: Concept) -> Path:
        return self.directory / "samples" / "steps" / f"{index + 1:02d}_{concept.name}"

    def _scores(self, concept: Concept, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> Mapping[str, Any]:
        if self._scorer is None:
            return {"clip_i": None, "clip_t": None}
        references = self._scorer.images([np.asarray(open_image(path)) for path in concept.image_paths])
        seen, texts = self._scorer.images(pictures), self._scorer.texts([plain_prompt(p, [concept]) for p in prompts])
        return {"clip_i": float(clip_i(seen, references).mean()), "clip_t": float(clip_t(seen, texts).mean())}

    @cached_property
    def _scorer(self) -> ClipScorer | None:
        """None where the CLIP that scores is not to be had."""
        try:
            return ClipScorer.open(self.settings.clip)
        except (ValueError, OSError):
            return None

    def overview(self, concepts: Sequence[Concept], after: Callable[[int], Applied]) -> None:
        """One row a concept: its pictures, the base model, right after its lesson, after the last lesson.

        after: what to sample with after the lesson of concept i.
        """
        base, rows, last = self.studio.base, [], after(len(concepts) - 1)
        for index, concept in enumerate(concepts):
            prompts = sample_prompts(concept)[:3]
            rows.append(
                Row(
                    f"{concept.token} {concept.class_word}" if concept.class_noun else concept.token,
                    [
                        *self._photos(concept, 2),
                        *self.images(base, [plain_prompt(p, [concept]) for p in prompts[:2]]),
                        *self.images(after(index), prompts),
                        *self.images(last, prompts),
                    ],
                )
            )
        heads = ["taught with", "", "base model", "", "right after its lesson", "", "", "after the last lesson", "", ""]
        sheet(rows, heads, self.directory / "overview.png")

    def _photos(self, concept: Concept, count: int) -> list[np.ndarray]:
        """`count` of the concept's pictures, white where there are fewer."""
        size = self.settings.resolution
        squares = [load_image(path, size) for path in concept.image_paths[:count]]
        photos = [np.round((x + 1) * 127.5).astype(np.uint8) for x in squares]
        return photos + [np.full((size, size, 3), 255, np.uint8)] * (count - len(photos))
