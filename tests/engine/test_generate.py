"""Pictures from a run: files, seeds, stages, and prompts with tokens nobody taught."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import call

from cns_jax.core.settings import SettingsError
from cns_jax.engine.generate import Request, generate
from cns_jax.engine.stages import Stages
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
        {"prompts": ("a photo of a <spotted_dog> dog",)},
        {"seed": 9},
    ],
)
def test_every_choice_matters(request_: Request, tmp_path: Path, change: dict) -> None:
    generate(request_)
    generate(dataclasses.replace(request_, out=str(tmp_path / "other"), **change))
    assert any((a != b).any() for a, b in zip(pictures(tmp_path / "out"), pictures(tmp_path / "other"), strict=True))


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
