"""The suite "concepts": pictures of every taught concept after every lesson, at equal seeds, and their scores."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cns_jax.core.files import replacing
from cns_jax.core.rng import check_seed
from cns_jax.core.settings import require
from cns_jax.core.types import Concept
from cns_jax.data.images import open_image
from cns_jax.data.prompts import Prompt, asked, evaluation_prompts
from cns_jax.engine.draw.generate import read_prompts
from cns_jax.engine.draw.kept import base_pictures, kept_pictures, seeds_of
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.lock import holding
from cns_jax.engine.measure.judging import WorldJudge, judge_id
from cns_jax.engine.measure.zero_shot import zero_shot
from cns_jax.engine.runs.concepts import taught_concepts
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.settings import SampleSettings
from cns_jax.evals.clip_scores import ClipScorer, clip_i_of_several, clip_t
from cns_jax.evals.dino_scores import DinoScorer
from cns_jax.evals.scores import PLAIN, SINGLE, TOGETHER, Score, summary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationRequest:
    """run: a finished training run. stages: "all", or "ends": of each concept only right after its lesson and at the
    end, and the first concept always. num: pictures a prompt. clip: "" is the miniature's own for the miniature, else
    openai/clip-vit-base-patch32. dino: "" or a DINO ViT's folder or hub id, for DINO-I. zero_shot: prompts without any
    concept. sample: None means the run's own sampling.
    """

    run: str
    stages: str = "all"
    num: int = 4
    prompts_file: str = ""
    clip: str = ""
    dino: str = ""
    seed: int = 0
    zero_shot: int = 128
    out: str = ""
    sample: SampleSettings | None = None

    def __post_init__(self) -> None:
        require(self.num > 0, f"num={self.num} must be positive")
        check_seed(self.seed)
        require(self.stages in ("all", "ends"), f"stages={self.stages!r} must be 'all' or 'ends'")


@dataclass(frozen=True)
class Wanted:
    """Pictures of one stage: prompts of one kind; the texts are what the model reads."""

    stage: int
    kind: str
    prompts: tuple[Prompt, ...]

    @property
    def texts(self) -> list[str]:
        """What the model reads: without tokens where it does not know them, or where leakage is looked for."""
        return [p.plain if self.kind == PLAIN else p.text for p in self.prompts]


def plan(prompts: Sequence[Prompt], names: Sequence[str], stages: str) -> Iterator[Wanted]:
    """What to draw: plain prompts before any lesson and at the end; single ones of the concepts known at each stage;
    those of several concepts at the end."""
    singles = tuple(p for p in prompts if len(p.concepts) == 1)
    together = tuple(p for p in prompts if len(p.concepts) > 1)
    last = len(names)
    yield Wanted(0, PLAIN, singles)
    for stage in range(1, last + 1):
        known = names[:stage] if stages == "all" or stage == last else (names[0], names[stage - 1])
        yield Wanted(stage, SINGLE, tuple(p for p in singles if p.concepts[0] in known))
    yield Wanted(last, PLAIN, singles)
    if together:
        yield Wanted(last, TOGETHER, together)


def evaluate(request: EvaluationRequest) -> Path:
    """Draw, score, and write evaluation.json and the pictures (a folder a stage); returns the JSON's path.

    Pictures that an interrupted evaluation with the same request has left are not drawn again. Raises SettingsError if
    another process writes to the same folder, the run's own unless the request names one: it may be training.
    """
    with holding(Path(request.out or request.run).expanduser()):
        return _evaluated(request)


def _evaluated(request: EvaluationRequest) -> Path:
    stages = Stages.open(request.run)
    settings = stages.learned.settings
    names = [row["name"] for row in stages.learned.concepts]
    concepts = taught_concepts(stages.learned)
    prompts = _prompts(request, concepts)
    sample = request.sample or settings.sample
    drawer = Drawer(stages, request.num, request.seed, sample, _claim(request, sample))
    clip = request.clip or settings.clip
    scorer = ClipScorer.open(clip)
    dino = DinoScorer.open(request.dino) if request.dino else None
    references, looks = _references(scorer, concepts), _references(dino, concepts) if dino else {}
    scoring = Scoring(scorer, WorldJudge.of(settings), names, references, dino, looks)
    scores: list[Score] = []
    for wanted in plan(prompts, names, request.stages):
        log.info("after %d concepts: %d %s prompts", wanted.stage, len(wanted.prompts), wanted.kind)
        scores += scoring.scores(wanted, drawer.pictures(wanted), request)
    result = {
        "run": request.run,
        "concepts": [{k: row[k] for k in ("name", "token", "class_word", "kind")} for row in stages.learned.concepts],
        "seed": settings.seed,
        "clip": clip,
        "dino": request.dino,
        "sample": dataclasses.asdict(sample),
        "stages": request.stages,
        "num": request.num,
        "noise": request.seed,
        "made_with": made_with(stages.learned),
        "summary": summary(scores, len(names)),
        "zero_shot": zero_shot(stages, scorer, request.zero_shot, request.seed, sample),
        "scores": [score.as_dict() for score in scores],
    }
    file = drawer.folder / "evaluation.json"
    with replacing(file) as temporary:
        temporary.write_text(_json(result) + "\n")
    return file


def made_with(learned: Learned) -> dict[str, Any]:
    """What scores depend on besides a run's settings and an evaluation's request: the model and the judge."""
    return {
        "base": learned.base,
        "judge": judge_id() if learned.settings.drawn else "",
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
    }


def _prompts(request: EvaluationRequest, concepts: Sequence[Concept]) -> list[Prompt]:
    if not request.prompts_file:
        return evaluation_prompts(concepts)
    prompts = [asked(text, concepts) for text in dict.fromkeys(read_prompts(request.prompts_file))]
    silent = [p.text for p in prompts if not p.concepts]
    require(
        not silent,
        f"{request.prompts_file}: no taught concept's token is in {silent[:2]}; {request.run} knows "
        f"{', '.join(c.token for c in concepts)}",
    )
    alone = {p.concepts for p in prompts}
    missing = [c.token for c in concepts if (c.name,) not in alone]
    require(
        not missing,
        f"{request.prompts_file}: no prompt asks for {', '.join(missing)} alone; what is kept of a concept is told "
        "from prompts with its token only, so add a line for each",
    )
    return prompts


def _out(request: EvaluationRequest) -> Path:
    return Path(request.out or Path(request.run) / "evaluation").expanduser()


def _claim(request: EvaluationRequest, sample: SampleSettings) -> Path:
    """The folder for pictures; those of another request must not be taken for this one's and are deleted."""
    out = _out(request)
    made_with = json.dumps({"run": request.run, "num": request.num, "sample": dataclasses.asdict(sample)}, indent=2)
    file = out / "pictures.json"
    if file.exists() and file.read_text() != made_with:
        for old in out.glob("stage*/*.png"):
            old.unlink()
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(made_with)
    return out


def _references(scorer: ClipScorer | DinoScorer, concepts: Sequence[Concept]) -> dict[str, np.ndarray]:
    """Embeddings of every concept's own pictures (m, d)."""
    return {c.name: scorer.images([np.asarray(open_image(path)) for path in c.image_paths]) for c in concepts}


@dataclass(frozen=True)
class Drawer:
    """Draws the pictures of prompts, `num` each at their own seeds (`seeds_of`), into `folder`."""

    stages: Stages
    num: int
    seed: int
    sample: SampleSettings
    folder: Path

    def pictures(self, wanted: Wanted) -> np.ndarray:
        """uint8 (prompts * num, h, w, 3), drawn now or read back."""
        texts = [text for text in wanted.texts for _ in range(self.num)]
        seeds = [seed for prompt in wanted.prompts for seed in seeds_of(prompt.plain, self.seed, self.num)]

        def draw(texts: list[str], seeds: list[int]) -> np.ndarray:
            if wanted.stage == 0:
                return base_pictures(self.stages, texts, seeds, self.sample)
            return self.stages.images(wanted.stage, texts, seeds, self.sample)

        return kept_pictures(self.folder / f"stage{wanted.stage}", texts, seeds, draw)


@dataclass(frozen=True)
class Scoring:
    """What pictures are scored with. names: of the concepts in order; references, dino_references: embeddings (m, d)
    by name."""

    scorer: ClipScorer
    judge: WorldJudge | None
    names: Sequence[str]
    references: Mapping[str, np.ndarray]
    dino: DinoScorer | None
    dino_references: Mapping[str, np.ndarray]

    def scores(self, wanted: Wanted, images_u8: np.ndarray, request: EvaluationRequest) -> list[Score]:
        """A score a picture."""
        num, count = request.num, len(images_u8)
        prompts = [prompt for prompt in wanted.prompts for _ in range(num)]
        seeds = [seed for prompt in wanted.prompts for seed in seeds_of(prompt.plain, request.seed, num)]
        seen = self.scorer.images(images_u8)
        looks = self.dino.images(images_u8) if self.dino else None
        texts = clip_t(seen, self.scorer.texts([prompt.plain for prompt in prompts]))
        found, details = np.full(count, math.nan), dict[str, np.ndarray]()
        if self.judge:
            found, details = self.judge.look(images_u8, [prompt.concepts for prompt in prompts])
        out = []
        for i, prompt in enumerate(prompts):
            others = [name for name in self.names if name not in prompt.concepts]
            out.append(
                Score(
                    stage=wanted.stage,
                    kind=wanted.kind,
                    prompt=prompt.text,
                    concepts=tuple(self.names.index(name) for name in prompt.concepts),
                    seed=seeds[i],
                    clip_i=_likeness(seen[i], self.references, prompt.concepts),
                    clip_t=float(texts[i]),
                    found=float(found[i]),
                    details={name: float(values[i]) for name, values in details.items()},
                    clip_i_others=_likeness(seen[i], self.references, others),
                    dino_i=math.nan if looks is None else _likeness(looks[i], self.dino_references, prompt.concepts),
                )
            )
        return out


def _likeness(seen_d: np.ndarray, references: Mapping[str, np.ndarray], names: Sequence[str]) -> float:
    """Mean cosine of one picture with the pictures of these concepts; NaN if there are none."""
    return float(clip_i_of_several(seen_d[None], [references[name] for name in names])[0]) if names else math.nan


def _json(value: dict[str, Any]) -> str:
    """Readable, a score a line."""
    scores = ",\n    ".join(json.dumps(row, allow_nan=False) for row in value["scores"])
    head = json.dumps({k: v for k, v in value.items() if k != "scores"}, indent=2, allow_nan=False)
    return head[:-2] + ',\n  "scores": [\n    ' + scores + "\n  ]\n}"
