"""Masks and prior images that the user brings: checked before anything is loaded, one shape for all concepts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import CONCEPTS, values

from cns_jax.core.settings import SettingsError, build
from cns_jax.core.types import Concept
from cns_jax.data.folder import ConceptSpec, DataError, read_concepts
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source, miniature_folder
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.layout import Bucket, Layout, check_data, layout_of
from cns_jax.engine.teach.lessons import lesson_row
from cns_jax.engine.teach.own_priors import own_priors
from cns_jax.engine.teach.plan import plan
from cns_jax.engine.teach.prepare import concept_data, data_shapes, priors_of
from cns_jax.engine.teach.sequence import TrainingRun
from cns_jax.engine.teach.step import train_steps
from cns_jax.engine.timings import Timings
from cns_jax.weights.folder import read_folder

MODEL = read_folder(miniature_folder()).model
pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")


def pictures(folder: Path, count: int, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> list[Path]:
    """Noise, so that no two have the same content."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(folder.name).encode()))
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 4), np.uint8), "RGBA").convert(mode).save(path)
    return paths


def concepts(root: Path, *names: str) -> tuple[Concept, ...]:
    for name in names:
        pictures(root / name, 2)
    return read_concepts(root, [ConceptSpec(name) for name in names])


def settings(tmp_path: Path, model: str = "miniature", **changes) -> RunSettings:
    config = values(Path(model), tmp_path / "run") | {
        "data_root": str(tmp_path / "data"),
        "concepts": [],
        "model": model,
    }
    for part, of_part in changes.items():
        config[part] = config.get(part, {}) | of_part
    return build(RunSettings, config)


def test_own_prior_images_by_name_by_class_and_for_all(tmp_path: Path) -> None:
    taught = concepts(tmp_path / "data", "my_cat", "grey_cat", "big_dog")
    mine, cats, rest = pictures(tmp_path / "reg" / "My_Cat", 1), pictures(tmp_path / "reg" / "1_cat", 3), None
    rest = pictures(tmp_path / "reg", 2)
    cats[1].with_suffix(".txt").write_text("a cat asleep\n")
    found = own_priors(settings(tmp_path, prior={"folder": str(tmp_path / "reg")}), taught)
    assert [o.paths for o in found] == [tuple(mine), tuple(cats), tuple(rest)]
    assert found[1].prompts == ("a photo of a cat", "a cat asleep", "a photo of a cat")
    assert found[2].prompts == ("a photo of a dog",) * 2


def test_more_own_prior_images_than_wanted_are_chosen_by_the_seed(tmp_path: Path) -> None:
    taught, paths = concepts(tmp_path / "data", "cat"), pictures(tmp_path / "reg", 9)
    of = settings(tmp_path, prior={"folder": str(tmp_path / "reg")})
    first, again = own_priors(of, taught)[0], own_priors(of, taught)[0]
    assert not priors_of(of, taught[0], layout_of(MODEL, of, taught))  # none is generated
    assert first == again and len(first.paths) == of.prior.images == 4 and first.found == 9
    assert list(first.paths) == sorted(first.paths) and set(first.paths) < set(paths)
    assert any(own_priors(dataclasses.replace(of, seed=s), taught)[0].paths != first.paths for s in (1, 2, 3))


def test_problems_of_own_prior_images(tmp_path: Path) -> None:
    taught = concepts(tmp_path / "data", "my_cat", "big_dog")
    of = settings(tmp_path, prior={"folder": str(tmp_path / "reg")})
    with pytest.raises(DataError, match=r"prior.folder .*reg is not a folder; give one with pictures"):
        own_priors(of, taught)
    (tmp_path / "reg" / "cats").mkdir(parents=True)
    with pytest.raises(DataError, match=r"(?s)no pictures for my_cat: .*reg/cat \(its class.*folders cats.*for big"):
        own_priors(of, taught)
    (tmp_path / "reg" / "cat").mkdir()
    pictures(tmp_path / "reg" / "dog", 1)[0].write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)reg/cat holds no pictures.*0.png is empty"):
        own_priors(of, taught)
    pictures(tmp_path / "reg" / "1_cat", 1)
    with pytest.raises(DataError, match=r"has 1_cat and cat for 'cat'; keep one"):
        own_priors(of, taught)
    with pytest.raises(SettingsError, match=r"prior.folder=.* is given, but train.prior_batch=0 images"):
        settings(tmp_path, prior={"folder": str(tmp_path)}, train={"prior_batch": 0})


def test_masks_that_let_nothing_be_learned(tmp_path: Path) -> None:
    """All black, labels 0 and 1, white outside what is trained on, a picture that is all transparent."""
    folder = tmp_path / "data" / "cat"
    outside = Image.new("L", (40, 20), 0)
    outside.paste(255, (0, 0, 10, 20))
    masks = {"0": Image.new("L", (20, 20), 0), "1": Image.new("L", (20, 20), 1), "2": outside}
    paths = pictures(folder, 3) + pictures(tmp_path / "clear", 1, mode="RGBA")
    pictures(tmp_path / "wide", 3, (40, 20))[2].replace(paths[2])
    image = Image.open(paths[3])
    image.putalpha(0)
    image.save(folder / "3.png")
    for name, mask in masks.items():
        mask.save(folder / f"{name}.mask.png")
    of = settings(tmp_path, train={"alpha_mask": True})
    with pytest.raises(DataError) as told:
        check_data(MODEL, of, read_concepts(tmp_path / "data", [ConceptSpec("cat")]))
    names = "0.mask.png", "1.mask.png", "2.mask.png", "3.png"
    lines = str(told.value).splitlines()
    assert len(lines) == len(names)
    for line, name, value in zip(lines, names, (0, 1, 0, 0), strict=True):
        assert f"{name} would let nothing be learned" in line and f"is {value} of 255" in line
    of = dataclasses.replace(of, train=dataclasses.replace(of.train, alpha_mask=False))
    for name in masks:
        Image.new("L", (40, 20) if name == "2" else (20, 20), 30).save(folder / f"{name}.mask.png")
    check_data(MODEL, of, read_concepts(tmp_path / "data", [ConceptSpec("cat")]))


def test_masks_reach_the_steps(tiny_folder: Path, tmp_path: Path) -> None:
    """Of a file, of transparency, and none; black counts as unmasked_weight."""
    folder = tmp_path / "data" / "cat"
    pictures(folder, 2)
    Image.open(pictures(tmp_path / "clear", 1, mode="RGBA")[0]).save(folder / "2.png")
    half = Image.new("L", (20, 20), 0)
    half.paste(255, (0, 0, 20, 10))
    half.save(folder / "1.mask.png")
    of = settings(tmp_path, str(tiny_folder), train={"unmasked_weight": 0.25, "alpha_mask": True})
    taught = read_concepts(tmp_path / "data", [ConceptSpec("cat")])
    layout = layout_of(MODEL, of, taught)
    assert layout.masked
    studio = Studio.open(find_source(of.address), ("<cat>",), 5, 16)
    (data,) = concept_data(studio, of, taught[0], layout, Timings()).buckets
    assert data.mask_vhw.shape == data_shapes(studio, of, layout)[0].mask_vhw.shape == (6, 4, 4)
    none, file, clear = np.asarray(data.mask_vhw).reshape(3, 2, 4, 4)
    assert (none == 1).all() and len(set(clear.ravel())) > 4
    np.testing.assert_array_equal(file[0], [[1] * 4] * 2 + [[0.25] * 4] * 2)


def test_lessons_with_masks_and_own_prior_images_share_one_compilation(tiny_folder: Path, tmp_path: Path) -> None:
    """Though one has no mask, and fewer prior images; the plan tells of both, and no image is generated."""
    for name, count in (("my_cat", 1), ("big_dog", 3)):
        pictures(tmp_path / "data" / name, count)
        pictures(tmp_path / "reg" / name, 2 * count)
    Image.new("L", (20, 20), 99).save(tmp_path / "data" / "my_cat" / "0.mask.png")
    of = settings(
        tmp_path,
        str(tiny_folder),
        prior={"folder": str(tmp_path / "reg")},
        train={"steps": 4},
        report={"sheets": False},
    )
    lines = "\n".join(plan(of))
    for said in (
        "<my_cat> cat (subject): 1 pictures, as 'a photo of a <my_cat> cat', 1 with loss masks",
        f"prior images of my_cat: 2 of your own 2 pictures in {tmp_path}/reg/my_cat",
        f"prior images of big_dog: 4 of your own 6 pictures in {tmp_path}/reg/big_dog",
    ):
        assert said in lines, lines
    before = train_steps.jitted._cache_size()
    run = TrainingRun(of)
    run.run()
    assert train_steps.jitted._cache_size() - before == 1
    assert [row["name"] for row in run.ledger.read()["concepts"]] == ["big_dog", "my_cat"]
    assert not (tmp_path / "cache" / "priors").exists()


def test_a_changed_mask_makes_another_lesson(tmp_path: Path) -> None:
    """So that a lesson that was stopped does not go on with it."""
    rows = [lesson_row(concepts(tmp_path / "data", "cat")[0])]
    for value in (255, 99):
        Image.new("L", (20, 20), value).save(tmp_path / "data" / "cat" / "1.mask.png")
        rows.append(lesson_row(read_concepts(tmp_path / "data", [ConceptSpec("cat")])[0]))
    assert rows[0]["masks"] == [] and rows[1]["masks"] != rows[2]["masks"]


def test_a_run_without_masks_has_none(tmp_path: Path) -> None:
    layout = layout_of(MODEL, settings(tmp_path), concepts(tmp_path / "data", *CONCEPTS))
    assert layout == Layout((Bucket((16, 16), 4),), False)
