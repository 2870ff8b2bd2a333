"""The paper's human study: one page with pictures of several runs in blinded order (tally: evals/preferences)."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cns_jax.core.rng import check_seed
from cns_jax.core.settings import SettingsError, require
from cns_jax.core.types import SUBJECT, Concept
from cns_jax.data.images import open_image
from cns_jax.data.pictures import read_pictures
from cns_jax.data.prompts import sample_prompts, thing
from cns_jax.engine.draw.generate import read_prompts
from cns_jax.engine.draw.request import sampling
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.pages.html import data_url, template
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.settings import SampleSettings
from cns_jax.text.vocabulary import CONCEPT_TOKEN

log = logging.getLogger(__name__)

MAIL_LIMIT = 20e6  # bytes; what most mail servers take, since attachments grow by a third
_PLACES = ("", " on the beach", " in the forest", " in the snow", " in the city")
_TARGETS, _TARGET_SIDE = 4, 256  # pictures of a concept to compare with, and their size


@dataclass(frozen=True)
class StudyRequest:
    """What the user asks for.

    singles, pairs: how many prompts with one and with two concepts are made where prompts_file is empty. num: samples
    a prompt, from equal seeds for all runs. data_root: where the concepts' pictures are now, if not where the runs had
    them. side: larger pictures are scaled down to it. sampler, steps, guidance_scale: as in generate.Request; empty
    means the first run's own, for all runs.
    """

    runs: tuple[str, ...]
    out: str = "study"
    prompts_file: str = ""
    singles: int = 5
    pairs: int = 15
    num: int = 1
    seed: int = 0
    data_root: str = ""
    side: int = 512
    sampler: str = ""
    steps: int = 0
    guidance_scale: float = -1.0

    def __post_init__(self) -> None:
        require(len(self.runs) > 1, f"a study compares two runs or more; --runs names {len(self.runs)}")
        for name, least in (("num", 1), ("singles", 0), ("pairs", 0), ("side", 64)):
            require(getattr(self, name) >= least, f"{name}={getattr(self, name)} must be at least {least}")
        check_seed(self.seed)


@dataclass(frozen=True)
class Target:
    """The pictures of a concept that users compare with."""

    class_word: str
    images: Sequence[Image.Image]


@dataclass(frozen=True)
class Trial:
    """What is compared: one picture a method, uint8 (h, w, 3), of the same prompt and seed."""

    prompt: str
    seed: int
    pictures: Mapping[str, np.ndarray]


def study(request: StudyRequest) -> Path:
    """Make the runs' pictures and write study.html and key.json to request.out; returns the page.

    Raises SettingsError before any picture is made: if a run lacks a concept of the prompts, if the pictures of a
    concept are not found, if the runs' pictures differ in size, or if the folder holds a study already.
    """
    out = free_folder(request.out)
    runs = dict(zip(_names(request.runs), (Learned.of(run) for run in request.runs), strict=True))
    if request.prompts_file:
        prompts = list(dict.fromkeys(read_prompts(request.prompts_file)))
    else:
        prompts = default_prompts(_common(runs), request.singles, request.pairs)
    tokens = check_prompts(prompts, runs)
    targets = {token: find_target(token, list(runs.values()), request.data_root) for token in tokens}
    settings = _one_sampling(request, runs)
    wanted = [(prompt, request.seed + i) for prompt in prompts for i in range(request.num)]
    made = {}
    for name, learned in runs.items():
        log.info("%s: %d pictures", name, len(wanted))
        made[name] = _pictures(learned, wanted, settings)
    trials = [Trial(p, seed, {name: made[name][i] for name in runs}) for i, (p, seed) in enumerate(wanted)]
    about = {
        "runs": {name: str(learned.directory) for name, learned in runs.items()},
        "sample": dataclasses.asdict(settings),
    }
    return write_page(out, trials, targets, about, request.side)


def _pictures(learned: Learned, wanted: Sequence[tuple[str, int]], settings: SampleSettings) -> np.ndarray:
    """uint8 (n, h, w, 3). The model is let go on return: of several runs only one is in memory."""
    stages = Stages.open(str(learned.directory))
    return stages.images(stages.last, [p for p, _ in wanted], [seed for _, seed in wanted], settings)


def free_folder(out: str) -> Path:
    """The study's folder. Raises SettingsError if it holds a key: without it, collected answers mean nothing."""
    folder = Path(out).expanduser()
    require(
        not (folder / "key.json").exists(),
        f"{folder} holds a study, and its key.json is needed to read its answers; give another --out, or remove it",
    )
    return folder


def _names(runs: Sequence[str]) -> list[str]:
    """What the methods are called: the folders' names, or the whole paths where names are not unique."""
    names = [Path(run).expanduser().resolve().name for run in runs]
    names = names if len(set(names)) == len(names) else [str(run) for run in runs]
    require(len(set(names)) == len(names), f"--runs names a run twice: {', '.join(names)}")
    return names


def _one_sampling(request: StudyRequest, runs: Mapping[str, Learned]) -> SampleSettings:
    """The first run's sampling with what the request changes: runs must not differ by their sampler."""
    (first, chief), *others = runs.items()
    for name, learned in others:
        sizes = chief.settings.resolution, learned.settings.resolution
        require(
            sizes[0] == sizes[1], f"{first} makes pictures of {sizes[0]} px, {name} of {sizes[1]} px: no fair study"
        )
        if learned.base != chief.base:
            log.warning("%s and %s started from different models: equal seeds do not give like pictures", first, name)
        if learned.settings.sample != chief.settings.sample:
            log.warning("%s has other sampling settings; all pictures are made with those of %s", name, first)
    return sampling(chief.settings.sample, request.sampler, request.steps, request.guidance_scale)


def tokens_of(prompt: str) -> list[str]:
    """The concept tokens of a prompt, each once."""
    return list(dict.fromkeys(CONCEPT_TOKEN.findall(prompt.lower())))


def _common(runs: Mapping[str, Learned]) -> list[Concept]:
    """The concepts that all runs know by the same token, as the first run has them."""
    first, *others = runs.values()
    known = set(first.tokens).intersection(*(learned.tokens for learned in others))
    require(bool(known), f"the runs have no concept in common: {'; '.join(map(_knows, runs, runs.values()))}")
    return [concept for concept in first.taught if concept.token in known]


def _knows(name: str, learned: Learned) -> str:
    return f"{name} knows {', '.join(learned.tokens)}"


def default_prompts(concepts: Sequence[Concept], singles: int = 5, pairs: int = 15) -> list[str]:
    """Prompts with one concept, all concepts in turn, then with two subjects, near ones of the order first.

    Fewer where there are not as many: a concept has five prompts of its own, a pair of subjects five places.
    """
    each = [sample_prompts(c) for c in concepts]
    alone = [
        prompt for turn in zip(*(ps[1:] + ps[:1] for ps in each), strict=True) for prompt in turn
    ]  # plain ones last
    subjects = [c for c in concepts if c.kind == SUBJECT]
    both = sorted(itertools.combinations(range(len(subjects)), 2), key=lambda pair: pair[1] - pair[0])
    together = []
    for turn in range(len(_PLACES)):  # a pair's place changes from turn to turn
        for number, (a, b) in enumerate(both):
            things = (thing(subjects[i]) for i in (a, b))
            together.append(f"a photo of {' and '.join(things)}{_PLACES[(number + turn) % len(_PLACES)]}")
    return alone[:singles] + together[:pairs]


def check_prompts(prompts: Sequence[str], runs: Mapping[str, Learned]) -> list[str]:
    """The tokens of the prompts. Raises SettingsError naming each run that lacks one, and prompts without any."""
    require(bool(prompts), "there are no prompts: the file is empty, or --singles and --pairs leave none")
    problems = [
        f"{prompt!r} names no concept; the second question needs one" for prompt in prompts if not tokens_of(prompt)
    ]
    tokens = list(dict.fromkeys(token for prompt in prompts for token in tokens_of(prompt)))
    for name, learned in runs.items():
        missing = [token for token in tokens if token not in learned.tokens]
        if missing:
            problems.append(
                f"the run {name} has not learned {', '.join(missing)}; it knows {', '.join(learned.tokens)}"
            )
    require(not problems, "\n".join(problems))
    return tokens


def find_target(token: str, runs: Sequence[Learned], data_root: str = "") -> Target:
    """The pictures that a concept was taught with, from the first run that still has them.

    Never a run's samples/*.jpg: that is what the run made, and would favour it.
    """
    tried = []
    for learned in runs:
        row = next(row for row in learned.concepts if row["token"] == token)
        name, problems = row["name"], list[str]()
        paths = read_pictures(learned.folder_in(data_root, name) if data_root else learned.folder(name), problems)
        if paths and not problems:
            return Target(row["class_word"], [_square(path) for path in paths[:_TARGETS]])
        tried += problems
    raise SettingsError(
        f"the pictures of {token} are needed for the second question; say where their folders are with --data_root.\n"
        + "\n".join(dict.fromkeys(tried))
    )


def _square(path: Path) -> Image.Image:
    image = open_image(path)
    side = min(*image.size, _TARGET_SIDE)
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def write_page(
    out: Path,
    trials: Sequence[Trial],
    targets: Mapping[str, Target],
    about: Mapping[str, Any] | None = None,
    side: int = 512,
    rng: random.Random | None = None,
) -> Path:
    """Write study.html, which knows pictures by opaque ids only, and key.json, which tells their methods.

    targets: by token; what else a prompt has in angle brackets is plain text. about: kept in the key. rng: of ids and
    their order in the file; by default nobody can draw them again. Returns the page.
    """
    rng = rng or random.SystemRandom()
    methods = list(trials[0].pictures)
    numbers = rng.sample(range(16**8), 1 + len(trials) * len(methods))  # ids, all different
    identity, *names = (f"{number:08x}" for number in numbers)
    shown, key = [], {}
    for number, trial in enumerate(trials):
        ids = [f"p{name}" for name in names[number * len(methods) : (number + 1) * len(methods)]]
        by_id = dict(zip(ids, rng.sample(methods, len(methods)), strict=True))
        key[f"t{number}"] = {"prompt": trial.prompt, "seed": trial.seed, "pictures": by_id}
        urls = {i: data_url(Image.fromarray(trial.pictures[method]), side, fine=True) for i, method in by_id.items()}
        tokens = [token for token in tokens_of(trial.prompt) if token in targets]
        shown.append({"id": f"t{number}", "prompt": trial.prompt, "tokens": tokens, "pictures": urls})
    views = {
        token: {"word": target.class_word, "pictures": [data_url(image, side, fine=True) for image in target.images]}
        for token, target in targets.items()
    }
    html = template("study.html.j2").render(study={"id": identity, "trials": shown, "targets": views})
    out.mkdir(parents=True, exist_ok=True)
    page = out / "study.html"
    page.write_text(html, encoding="utf-8")
    record = {"study": identity, "methods": methods, "trials": key, **(about or {})}
    (out / "key.json").write_text(json.dumps(record, indent=2) + "\n")
    size = page.stat().st_size
    if size > MAIL_LIMIT:
        log.warning(
            "%s has %.0f MB, too much for most mail servers; put it on a web server, or make it smaller with fewer "
            "prompts, a smaller --num or --side", page, size / 1e6,
        )  # fmt: skip
    return page
