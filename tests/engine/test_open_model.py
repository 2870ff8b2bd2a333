"""Pictures from what export and patch write: those of the run itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from cns_jax.core.settings import SettingsError
from cns_jax.engine.draw.generate import generate
from cns_jax.engine.draw.request import Request
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.runs.patching import apply
from cns_jax.text.vocabulary import UnknownTokenError
from cns_jax.weights.embedding import read_embedding
from cns_jax.weights.locate import Address
from cns_jax.weights.tensors import WeightsMismatch

ASKED = Request(
    model="...", prompts=("a <tiger_cat> cat, a (<checked_mug> mug:1.2)",), num=2, steps=2, guidance_scale=4.0
)


def drawn(request: Request) -> np.ndarray:
    return np.asarray(Image.open(generate(request)))


@pytest.fixture(scope="module")
def folder(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports in float32, and the base model with the exported patches."""
    root = tmp_path_factory.mktemp("exports")
    for form in ("diffusers", "single-file", "patch"):
        files, _ = export(ExportRequest(str(trained["folder"]), form, str(root / form), dtype="float32"))
        if form == "patch":
            apply(Address(trained["values"]["model"]), [str(file) for file in files], str(root / "patched"))
    return root


@pytest.fixture(scope="module")
def of_run(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    out = str(tmp_path_factory.mktemp("out"))
    return drawn(dataclasses.replace(ASKED, model="", run=str(trained["folder"]), out=out))


@pytest.mark.parametrize("form", ["diffusers", "patched", "single-file"])
def test_the_pictures_are_the_runs(trained, folder: Path, of_run: np.ndarray, tmp_path: Path, form: str) -> None:
    found: dict[str, Any] = {"model": str(folder / form), "tokens": ("<tiger_cat>", "<checked_mug>")}
    if form == "single-file":
        found = {
            "model": str(next((folder / form).glob("*.safetensors"))),
            "tokens": (str(folder / form / "embeddings"),),
            "tokenizer": f"{trained['values']['model']}/tokenizer",
        }
    pictures = drawn(dataclasses.replace(ASKED, out=str(tmp_path), **found))
    np.testing.assert_allclose(pictures.astype(int), of_run.astype(int), atol=1)


def test_errors_of_tokens(folder: Path, tmp_path: Path) -> None:
    embeddings = folder / "single-file" / "embeddings"
    whole, file = str(folder / "diffusers"), str(embeddings / "tiger_cat.safetensors")
    two = {"a": np.zeros((1, 32), np.float32), "b": np.zeros((1, 32), np.float32)}
    for name, tensors in {
        "two": two,
        "vectors": {"emb_params": np.zeros((3, 32), np.float32)},
        "wide": {"emb_params": np.zeros((1, 768), np.float32)},
        "cube": {"emb_params": np.zeros((1, 1, 32), np.float32)},
        "nan": {"emb_params": np.full((1, 32), np.nan, np.float32)},
    }.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "none").mkdir()
    for entry, error, message in [
        ("<bird>", SettingsError, "--tokens=<bird>: the tokenizer of .* does not know it; give the file of its embed"),
        ("bird.safetensors", SettingsError, "--tokens=bird.safetensors: there is no such file or folder"),
        (file, SettingsError, "knows <tiger_cat> already; leave the file out"),
        (str(tmp_path / "two.safetensors"), WeightsMismatch, "holds 2 tensors"),
        (str(tmp_path / "vectors.safetensors"), WeightsMismatch, "an embedding of 3 tokens; only those of one"),
        (str(tmp_path / "wide.safetensors"), WeightsMismatch, "is 768 wide, the text encoder of .* 32"),
        (str(tmp_path / "cube.safetensors"), WeightsMismatch, "has the shape"),
        (str(tmp_path / "nan.safetensors"), WeightsMismatch, "holds NaN or infinity"),
        (str(tmp_path / "none"), WeightsMismatch, "holds no .safetensors file"),
    ]:
        with pytest.raises(error, match=message):
            generate(dataclasses.replace(ASKED, model=whole, tokens=(entry,), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_token_nobody_taught_lists_what_the_folder_knows(folder: Path, tmp_path: Path) -> None:
    asked = dataclasses.replace(ASKED, model=str(folder / "patched"), prompts=("a <tigercat> cat",), out=str(tmp_path))
    with pytest.raises(UnknownTokenError, match="known tokens: <tiger_cat>, <spotted_dog>, <checked_mug>"):
        generate(asked)


def test_embeddings_of_other_programs_are_called_after_their_file(tmp_path: Path) -> None:
    file = tmp_path / "My Cat.safetensors"
    save_file({"emb_params": np.float16([[0.5, 2.0]])}, file)
    token, row = read_embedding(file)
    assert token == "<my_cat>" and row.dtype == np.float32 and row.tolist() == [0.5, 2.0]
    (tmp_path / "cat.pt").write_bytes(b"pickle")
    with pytest.raises(WeightsMismatch, match="cat.pt"):
        read_embedding(tmp_path / "cat.pt")
