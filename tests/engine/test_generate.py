"""Pictures from a run: files, seeds, stages, and prompts with tokens nobody taught."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import call

from cns_jax import __version__
from cns_jax.core.rng import seed_words
from cns_jax.core.settings import SettingsError
from cns_jax.core.tree import flatten
from cns_jax.engine.draw import generator
from cns_jax.engine.draw.generate import generate
from cns_jax.engine.draw.request import Request
from cns_jax.engine.draw.stages import Stages
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.text.vocabulary import UnknownTokenError

PROMPT = "a photo of a <tiger_cat> cat"


def pictures(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(p)) for p in sorted(folder.glob("a_photo*.png"))]


@pytest.fixture
def request_(trained, tmp_path: Path) -> Request:
    return Request(run=str(trained["folder"]), prompts=(PROMPT,), num=3, out=str(tmp_path / "out"))


def test_files(request_: Request) -> None:
    grid = generate(dataclasses.replace(request_, prompts=(PROMPT, "a photo of a <spotted_dog> dog"), num=2))
    made = pictures(Path(request_.out))
    assert len(made) == 4 and all(image.shape == (16, 16, 3) for image in made)
    assert Image.open(grid).size == (32, 32)


def test_a_seed_is_a_picture_whatever_its_batch(request_: Request, tmp_path: Path) -> None:
    generate(request_)
    alone = dataclasses.replace(request_, num=1, seed=2, out=str(tmp_path / "alone"))
    generate(alone)
    np.testing.assert_allclose(
        pictures(tmp_path / "out")[2].astype(int), pictures(tmp_path / "alone")[0].astype(int), atol=1
    )


@pytest.mark.parametrize(
    "change",
    [
        {"negative_prompt": "a red mug"},
        {"sampler": "ddim"},
        {"steps": 3},
        {"guidance_scale": 1.0},
        {"after": "tiger_cat"},
        {"strength": 0.5},
        {"clip_skip": 2},
        {"prompts": ("a photo of a <spotted_dog> dog",)},
        {"prompts": ("a photo of a (<tiger_cat> cat:1.6)",)},
        {"seed": 9},
    ],
)
def test_every_choice_matters(request_: Request, tmp_path: Path, change: dict) -> None:
    generate(request_)
    generate(dataclasses.replace(request_, out=str(tmp_path / "other"), **change))
    assert any((a != b).any() for a, b in zip(pictures(tmp_path / "out"), pictures(tmp_path / "other"), strict=True))


def test_nothing_is_overwritten(request_: Request, tmp_path: Path) -> None:
    """Neither by another sampler, nor by prompts of the same letters, nor by the same request again."""
    out = tmp_path / "out"
    for change in ({}, {}, {"steps": 3}, {"prompts": ("a photo of a tiger cat cat",)}):
        generate(dataclasses.replace(request_, num=1, **change))
    assert len(pictures(out)) == 4 and len(list(out.glob("grid_*"))) == 4
    generate(dataclasses.replace(request_, num=1, seed=5, overwrite=True))
    assert len(list(out.iterdir())) == 8
    assert Image.open(out / "a_photo_of_a_tiger_cat_cat_00000.png").text["parameters"].count("Seed: 5,") == 1


def test_pictures_say_how_they_were_made(request_: Request) -> None:
    change = {"num": 1, "seed": 2**64 - 1, "sampler": "auto", "negative_prompt": "猫", "after": "spotted_dog"}
    grid = generate(dataclasses.replace(request_, **change))
    assert json.loads(Image.open(grid).text["cns_jax"]) == {
        "prompt": PROMPT, "seed": 2**64 - 1, "sampler": "ddim", "steps": 2, "guidance_scale": 7.5,
        "negative_prompt": "猫", "prompt_syntax": "a1111", "clip_skip": 1, "width": 16, "height": 16, "model": "whole",
        "base_model": "tiny", "run": "whole", "concept": "spotted_dog", "strength": 1.0, "version": __version__,
    }  # fmt: skip


def test_seeds_count_on_beyond_32_and_64_bits(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    monkeypatch.setattr(generator, "seed_words", lambda seeds: drawn.append(list(seeds)) or seed_words(seeds))
    generate(dataclasses.replace(request_, num=2, seed=2**32 - 1))
    generate(dataclasses.replace(request_, num=1, seed=2**32 - 1, out=str(tmp_path / "narrow")))
    generate(dataclasses.replace(request_, num=2, seed=2**64 - 1, out=str(tmp_path / "last")))
    generate(dataclasses.replace(request_, num=1, seed=0, out=str(tmp_path / "first")))
    assert drawn[:2] == [[2**32 - 1], [2**32]]  # each by its own program: a narrow seed keeps its picture everywhere
    over, narrow, last, first = (pictures(tmp_path / name) for name in ("out", "narrow", "last", "first"))
    np.testing.assert_array_equal(over[0], narrow[0])
    np.testing.assert_array_equal(last[1], first[0])
    assert (over[1] != first[0]).any()  # the upper half counts


def test_strength(trained, request_: Request) -> None:
    stages = Stages.open(str(trained["folder"]))
    base, whole, half = (cross_attention_kernels(stages.at(3, s).unet) for s in (0.0, 1.0, 0.5))
    start, taught = (
        cross_attention_kernels(stages.studio.params["unet"]),
        stages.learned.snapshot(stages.studio.params).memory.kernels,
    )
    for name, kernel in flatten(half).items():
        np.testing.assert_array_equal(flatten(base)[name], flatten(start)[name])
        np.testing.assert_array_equal(flatten(whole)[name], flatten(taught)[name])
        np.testing.assert_allclose(kernel, (flatten(base)[name] + flatten(whole)[name]) / 2, rtol=1e-5, atol=1e-7)


def test_pictures_that_are_not_square(request_: Request) -> None:
    grid = generate(dataclasses.replace(request_, num=2, width=24, height=8))
    assert all(image.shape == (8, 24, 3) for image in pictures(Path(request_.out)))
    assert Image.open(grid).size == (48, 8) and "Size: 24x8" in Image.open(grid).text["parameters"]


def test_more_layers_than_there_are_cannot_be_skipped(request_: Request) -> None:
    with pytest.raises(SettingsError, match="clip_skip=3: the text encoder has 2 layers"):
        generate(dataclasses.replace(request_, clip_skip=3))


def test_unknown_token_lists_the_known(request_: Request) -> None:
    with pytest.raises(UnknownTokenError) as caught:
        generate(dataclasses.replace(request_, prompts=("a photo of a <tigercat> cat",)))
    assert "<tigercat>" in str(caught.value)
    assert "<tiger_cat>, <spotted_dog>, <checked_mug>" in str(caught.value)


def test_a_later_concept_is_unknown_to_an_earlier_stage(request_: Request) -> None:
    later = dataclasses.replace(request_, prompts=("a <checked_mug> mug",), after="spotted_dog")
    with pytest.raises(UnknownTokenError):
        generate(later)


def test_folders_that_are_no_run(trained, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not the folder of a training run"):
        Stages.open(str(tmp_path))
    with pytest.raises(SettingsError, match="has not learned 'dgo'; it knows tiger_cat, spotted_dog, checked_mug"):
        Stages.open(str(trained["folder"]), "dgo")


def test_command(trained, tmp_path: Path) -> None:
    done = call("generate", f"--run={trained['folder']}", f"--prompt={PROMPT}", "--num=2", f"--out={tmp_path / 'o'}")
    assert done.returncode == 0 and "Wrote" in done.stdout, done.stderr[-2000:]
    assert len(list((tmp_path / "o").iterdir())) == 3
    bad = call("generate", f"--run={trained['folder']}", "--prompt=a <cta> cat")
    assert bad.returncode == 1 and bad.stderr.strip().splitlines()[-1].startswith("error: ")
    both = call("generate", f"--run={trained['folder']}", "--model=miniature", "--prompt=a cat")
    assert both.returncode == 1 and both.stderr.startswith("error: give either --run"), both.stderr
