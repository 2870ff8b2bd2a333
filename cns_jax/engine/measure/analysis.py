"""Analysis of a model's or a run's neurons, without training: prompts encoded once, kernels counted one by one."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cns_jax.core.batches import in_batches
from cns_jax.core.settings import require
from cns_jax.core.tree import count, flatten
from cns_jax.data.captions import scoring_captions
from cns_jax.engine.draw.studio import TEXTS, compute_dtype, encode_text
from cns_jax.engine.runs.concepts import find_concepts, taught_concepts
from cns_jax.engine.runs.learned import Learned, base_kernels
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import MINIATURE, RunSettings
from cns_jax.evals import neuron_prompts
from cns_jax.evals.neuron_analysis import Counts, Questions, Statistics, count_kernel, statistics
from cns_jax.evals.neuron_report import Analysis, draw_figures, page
from cns_jax.neurons.analysis import pack, selections
from cns_jax.neurons.calibration import draw
from cns_jax.neurons.score import feature_norms
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import TruncatedPromptWarning, Vocabulary
from cns_jax.weights.locate import Address
from cns_jax.weights.pipeline import Source
from cns_jax.weights.strict import load

log = logging.getLogger(__name__)

POSITIONS = ("caption", "caption+eot", "all")
_SIZES = (1, 5, 12, 20, 50)


@dataclass(frozen=True)
class AnalysisRequest:
    """model, variant, tokenizer: as in a run's settings. run: a training run instead, whose settings, concepts and
    masks count, up to concept `after`. data_root: as in a run's settings, for the concepts of a model (empty: the
    miniature's three sets, or seven written ones). calibration: "diverse" or "miniature" (empty: the run's; else what
    suits the model). ratios: of the threshold sweep. orders: of the prompts in Fig. 3; draws: of calibration lists.
    """

    model: str = MINIATURE
    variant: str = ""
    tokenizer: str = ""
    run: str = ""
    after: str = ""
    data_root: str = ""
    calibration: str = ""
    ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    orders: int = 30
    draws: int = 10
    seed: int = 0
    out: str = ""

    def __post_init__(self) -> None:
        known = ("", "diverse", "miniature")
        require(self.calibration in known, f"calibration={self.calibration!r} must be one of {known}")
        require(all(0 < r < 1 for r in self.ratios), f"ratios={self.ratios} must be above 0 and below 1")
        for name in ("orders", "draws"):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)} must be positive")
        require(not (self.run and self.data_root), "a run has its own concepts: give --run or --data_root, not both")


@dataclass(frozen=True)
class Subject:
    """What is analysed. masks: concept -> its packed mask by kernel, of a run; groups: group -> concept -> captions."""

    settings: RunSettings
    source: Source
    kernels: Mapping[str, np.ndarray]
    groups: Mapping[str, Mapping[str, Sequence[str]]]
    masks: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def method(self) -> Any:
        """How neurons are selected: by a method that selects."""
        return self.settings.method


def analyze(request: AnalysisRequest) -> Path:
    """Write analysis.json, tables.md and the figures; returns their folder.

    Raises SettingsError or WeightsMismatch for a run or model that cannot be analysed.
    """
    subject = subject_of(request)
    out = Path(request.out or (Path(request.run) / "analysis" if request.run else "runs/analysis")).expanduser()
    out.mkdir(parents=True, exist_ok=True)  # before the work, which a folder that cannot be made would waste
    found = measure(subject, request)
    (out / "analysis.json").write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
    (out / "tables.md").write_text(page(found, draw_figures(found, out)))
    return out


def subject_of(request: AnalysisRequest) -> Subject:
    """The run or the model that is asked for, with its concepts. Raises as `analyze`."""
    return _run(request) if request.run else _model(request)


def _model(request: AnalysisRequest) -> Subject:
    calibration = request.calibration or ("miniature" if request.model == MINIATURE else "diverse")
    settings = RunSettings(
        # data_root is read only if it was given
        name="analysis", data_root=request.data_root or "none", model=request.model, variant=request.variant,
        tokenizer=request.tokenizer, seed=request.seed, calibration=calibration,  # type: ignore[arg-type]
        run=request.out or "runs/analysis",
    )  # fmt: skip
    source = find_source(Address(request.model, request.variant, request.tokenizer))
    return Subject(settings, source, flatten(base_kernels(source)), _groups(request, settings), {})


def _groups(request: AnalysisRequest, settings: RunSettings) -> Mapping[str, Mapping[str, Sequence[str]]]:
    if request.data_root:
        return {"concepts": {c.name: scoring_captions(c) for c in find_concepts(settings)}}
    if request.model == MINIATURE:
        return neuron_prompts.miniature_sets()
    return {"seven concepts": neuron_prompts.EXAMPLE_CONCEPTS}


def _run(request: AnalysisRequest) -> Subject:
    learned = Learned.of(request.run, request.after)
    settings = learned.settings
    require(
        settings.method.selects, f"{request.run} was trained with {settings.method.name}, which has no neuron masks"
    )
    if request.calibration:
        settings = dataclasses.replace(settings, calibration=request.calibration)  # type: ignore[arg-type]
    captions = {concept.name: scoring_captions(concept) for concept in taught_concepts(learned)}
    source = find_source(settings.address)
    kernels = base_kernels(source)
    masks = {}
    for index, name in enumerate(captions):
        mask = flatten(learned.snapshot({"unet": kernels}, index).mask or {})
        masks[name] = {kernel: pack(np.asarray(leaf).reshape(1, -1))[0] for kernel, leaf in mask.items()}
    return Subject(settings, source, flatten(kernels), {"the run": captions}, masks)


def measure(subject: Subject, request: AnalysisRequest) -> Analysis:
    """The statistics for the subject's own positions and ratio, for other positions and for other ratios."""
    settings, method = subject.settings, subject.method
    pairs = neuron_prompts.WORLD_PAIRS if settings.calibration == "miniature" else neuron_prompts.PAIRS
    queries = neuron_prompts.edited(pairs)
    prompts, ask = questions(subject, request, [query for query, _ in queries])
    log.info("encoding %d prompts", len(prompts))
    norms = prompt_norms(subject.source, prompts, settings.compute)
    own, without_orders = (method.positions, method.ratio), dataclasses.replace(ask, orders=0)
    choices = list(
        dict.fromkeys(
            [own, *((p, method.ratio) for p in POSITIONS), *((method.positions, r) for r in sorted(request.ratios))]
        )
    )
    found: dict[tuple[str, float], Statistics] = {}
    with tqdm(total=len(choices) * len(subject.kernels), desc="counting neurons", unit="kernel", leave=False) as bar:
        for choice in choices:
            positions, ratio = choice
            counts: dict[str, Counts] = {}
            for name, kernel in subject.kernels.items():
                bits = selections(kernel, norms[positions], ratio)
                masks = _masks(subject, name) if choice == own else None
                counts[name] = count_kernel(kernel.size, bits, ask if choice == own else without_orders, masks)
                bar.update()
            found[choice] = statistics(positions, ratio, counts, ask)
    sizes = {name: count(tree) for name, tree in subject.source.shapes.items()}
    return Analysis(
        model=settings.model,
        run=request.run,
        stored=bool(subject.masks),
        calibration=settings.calibration,
        prompts=len(ask.calibration),
        sizes={"K/V": found[own].weights, "UNet": sizes["unet"], "whole model": sum(sizes.values())},
        queries=[query for query, _ in queries],
        changes=[change for _, change in queries],
        main=found[own],
        by_positions={p: found[p, method.ratio] for p in POSITIONS},
        by_ratio={f"{r:g}": found[method.positions, r] for r in sorted({*request.ratios, method.ratio})},
    )


def _masks(subject: Subject, kernel: str) -> np.ndarray | None:
    return np.stack([mask[kernel] for mask in subject.masks.values()]) if subject.masks else None


def questions(subject: Subject, request: AnalysisRequest, queries: Sequence[str]) -> tuple[list[str], Questions]:
    """All prompts, each once, and what is asked of them."""
    method, settings = subject.method, subject.settings
    names = ["diverse"] if settings.calibration == "diverse" else ["miniature", "diverse"]
    pools = {name: neuron_prompts.pool_of(name) for name in names}
    pool = pools[settings.calibration]
    lists = {
        f"any {n} prompt{'s' * (n > 1)}": [draw(pool, n, settings.seed + 1 + i) for i in range(request.draws)]
        for n in _SIZES
    }
    lists[f"all {len(pool)} prompts"] = [pool]
    themes = neuron_prompts.skewed(settings.calibration)
    lists |= {f"{len(prompts)}: {theme}": [prompts] for theme, prompts in themes.items()}
    captions = [c for group in subject.groups.values() for one in group.values() for c in one]
    told = [p for each in (*pools.values(), *themes.values()) for p in each]
    prompts = list(dict.fromkeys([*told, *captions, *queries]))
    at = {prompt: i for i, prompt in enumerate(prompts)}

    def where(texts: Sequence[str]) -> list[int]:
        return [at[text] for text in texts]

    return prompts, Questions(
        pools={name: where(each) for name, each in pools.items()},
        calibration=where(draw(pool, method.calibration_prompts, settings.seed)),
        lists={name: [where(one) for one in draws] for name, draws in lists.items()},
        groups={name: {c: where(texts) for c, texts in group.items()} for name, group in subject.groups.items()},
        queries=where(queries),
        orders=request.orders,
        seed=request.seed,
    )


def prompt_norms(source: Source, prompts: Sequence[str], compute: str) -> dict[str, np.ndarray]:
    """Positions -> feature norms (p, i) of all prompts. Of the model only the text encoder is read.

    compute: the dtype that a run's text encoder works in.
    """
    dtype, part = compute_dtype(compute), source.parts["text_encoder"]
    model = dataclasses.replace(source.model, dtype=None if dtype == jnp.float32 else dtype)
    params = load(part.stored, source.shapes["text_encoder"], part.file, lambda _, leaf: jnp.asarray(leaf, dtype))[0]
    vocabulary = Vocabulary(load_tokenizer(source.tokenizer), (), 0)
    with warnings.catch_warnings(record=True) as cut:
        warnings.simplefilter("always", TruncatedPromptWarning)
        ids_pl = vocabulary.encode(prompts)
    if cut:
        log.warning(
            "%d of the %d prompts are too long for the text encoder and lose their ends", len(cut), len(prompts)
        )

    def norms(ids_bl: np.ndarray) -> dict[str, jax.Array]:
        hidden = encode_text(params, jnp.asarray(ids_bl), model=model)
        masks = {name: vocabulary.caption_mask(ids_bl, name) for name in POSITIONS}  # type: ignore[arg-type]
        return {name: feature_norms(hidden, jnp.asarray(mask)) for name, mask in masks.items()}

    return in_batches(norms, TEXTS, ids_pl)
