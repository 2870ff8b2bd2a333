"""The paper's sets: composition, hyper-parameters, prompts, and the photographs that they name."""

from __future__ import annotations

import csv
import importlib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cns_jax.core.settings import build
from cns_jax.core.types import SCENE, STYLE, SUBJECT, Concept
from cns_jax.data.captions import plain_caption, with_token
from cns_jax.data.prompts import without_tokens
from cns_jax.engine.runs.concepts import find_concepts
from cns_jax.engine.settings import ConceptSettings, RunSettings
from cns_jax.methods.cns import CNS
from cns_jax.text.vocabulary import CONCEPT_TOKEN

ROOT = Path(__file__).resolve().parents[1]
SETS = (1, 2, 3)
ANIMALS = ("cat", "dog")
COMPOSITION = {  # supplementary section 8.1
    1: {"animal": 3, "object": 2, STYLE: 2},
    2: {"animal": 3, "object": 1, STYLE: 1, SCENE: 2},
    3: {"animal": 2, "object": 3, STYLE: 1, SCENE: 1},
}


def settings(name: str, data_root: str = "photos") -> RunSettings:
    values = importlib.import_module(f"configs.{name}").get_config().to_dict()
    assert values["model"] == values["data_root"] == ""  # the user's to give
    return build(RunSettings, {**values, "name": name, "model": "sd", "data_root": data_root})


def concepts(number: int) -> tuple[ConceptSettings, ...]:
    return settings(f"set{number}").concepts


def prompts(number: int) -> list[str]:
    return (ROOT / "configs" / "prompts" / f"set{number}.txt").read_text().splitlines()


def sort(concept: ConceptSettings) -> str:
    """Animal, object, style or scene."""
    return concept.kind if concept.kind != SUBJECT else "animal" if concept.class_word in ANIMALS else "object"


@pytest.mark.parametrize("number", SETS)
def test_composition_is_the_papers(number: int) -> None:
    chosen = concepts(number)
    assert Counter(map(sort, chosen)) == COMPOSITION[number] and len(chosen) == 7
    assert len({c.token for c in chosen}) == len({c.folder for c in chosen}) == 7
    assert all(CONCEPT_TOKEN.fullmatch(c.token) and c.class_word for c in chosen)
    kinds = [sort(c) for c in chosen]
    assert all(a != b for a, b in zip(kinds, kinds[1:], strict=False))  # as a person would teach, kinds alternate


def test_twenty_concepts_with_one_style_in_two_sets() -> None:
    every = [c for number in SETS for c in concepts(number)]
    assert Counter(map(sort, set(every))) == {"animal": 8, "object": 6, STYLE: 3, SCENE: 3}
    twice = [c for c, count in Counter(every).items() if count > 1]
    assert len(twice) == 1 and twice[0].kind == STYLE
    assert len({c.name for c in every}) == len(set(every)) == 20


@pytest.mark.parametrize("name", ["paper", "set1", "set2", "set3"])
def test_hyper_parameters_are_the_papers(name: str) -> None:
    run = settings(name)
    assert (run.resolution, run.calibration) == (512, "diverse")
    assert (run.train.steps, run.train.batch, run.train.prior_batch, run.train.snr_gamma) == (500, 1, 1, 0.0)
    assert run.method == CNS()
    assert (run.method.lr_neurons, run.method.lr_token, run.method.ratio) == (3e-5, 5e-4, 0.3)
    assert run.prior.images == 200
    assert replace(run.prior.sample, guidance_scale=7.5) == run.sample


def test_a_set_runs_from_the_command_line_flags(tmp_path: Path) -> None:
    """What a user forgets is said before any training."""
    with pytest.raises(ValueError, match="data_root is empty"):
        settings("set1", data_root="")
    with pytest.raises(ValueError, match="style_watercolor does not exist"):
        find_concepts(settings("set1", str(tmp_path)))


@pytest.mark.parametrize("number", SETS)
def test_prompts(number: int) -> None:
    known = {c.token: c for c in concepts(number)}
    lines = prompts(number)
    named = [re.findall(r"<[^>]*>", line) for line in lines]
    assert [len(tokens) for tokens in named] == [1] * 35 + [2] * 4 + [3] * 3
    assert [tokens[0] for tokens in named[:35]] == [token for token in known for _ in range(5)]
    assert all(set(tokens) <= set(known) and len(set(tokens)) == len(tokens) for tokens in named)
    assert len({line.lower() for line in lines}) == 42
    assert {t for tokens in named[35:] for t in tokens} == set(known)  # each meets another
    for line, tokens in zip(lines, named, strict=True):
        assert line == " ".join(line.split())
        for token in tokens:
            style = known[token].kind == STYLE and line.endswith(f" in the style of {token}")
            assert style or f"{token} {known[token].class_word}" in line, line


@pytest.mark.parametrize("number", SETS)
def test_prompts_have_the_form_of_training_prompts(number: int) -> None:
    """With one concept, taking the token out and putting it back where training puts it changes nothing."""
    known = {c.token: c for c in concepts(number)}
    for line in prompts(number)[:35]:
        token = re.findall(r"<[^>]*>", line)[0]
        c = known[token]
        concept = Concept(c.name, c.token, c.class_word, c.kind, (), ())
        plain = without_tokens(line.removesuffix(f" in the style of {token}"))
        assert with_token(concept, plain) == line


def test_no_prompt_serves_two_sets() -> None:
    every = [line for number in SETS for line in prompts(number)]
    assert len(set(every)) == len(every) == 126


def test_the_sets_document_names_every_concept() -> None:
    text = (ROOT / "docs" / "sets.md").read_text()
    tables = re.split(r"\*\*Set \d\*\*", text)[1:]
    for number, table in zip(SETS, tables, strict=True):
        rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+) \| ([\w ]+) \|", table, re.M)
        assert rows == [(c.name, c.folder, c.kind, c.class_word) for c in concepts(number)]
    own = {c.folder for number in SETS for c in concepts(number) if c.kind != SUBJECT}
    assert own == set(re.findall(r"^\| `((?:style|scene)_\w+)` \| (?!style|scene)", text, re.M))


def test_animals_and_objects_are_dreambooth_subjects(shared: Path) -> None:
    root = shared / "data" / "dreambooth"
    listed = csv.reader((root / "prompts_and_classes.txt").read_text().split("\n\n")[1].splitlines())
    nouns = dict(listed)
    subjects = {c for number in SETS for c in concepts(number) if c.kind == SUBJECT}
    assert {c.folder: c.class_word for c in subjects} == {c.folder: nouns[c.folder] for c in subjects}
    absent = {c.folder for c in subjects if not (root / c.folder).is_dir()}
    assert absent <= {"cat2"}  # docs/sets.md says where that one is
    for number in SETS:
        run = settings(f"set{number}", str(root))
        chosen = tuple(c for c in run.concepts if c.kind == SUBJECT and c.folder not in absent)
        found = find_concepts(replace(run, concepts=chosen))
        assert [f.token for f in found] == [c.token for c in chosen]
        assert all(4 <= len(f.image_paths) <= 6 and plain_caption(f) == f"a photo of a {f.class_word}" for f in found)
