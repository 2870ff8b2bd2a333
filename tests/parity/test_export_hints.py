"""The line behind "To use:" is Python that runs as printed, whatever the base and the files hold."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tiny_runs import finished

from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.runs.export.hints import PYTHON
from cns_jax.engine.runs.patching import apply
from cns_jax.weights.folder import WEIGHT_FILES, write_pipeline
from cns_jax.weights.locate import Address

diffusers = pytest.importorskip("diffusers")

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
HELD = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
FORMATS = [
    ("diffusers", {}),
    ("diffusers", {"dtype": "float16"}),
    ("diffusers", {"dtype": "bfloat16"}),
    ("custom-diffusion", {}),
    ("textual-inversion", {}),
    ("lora", {"rank": 4}),
]


@pytest.fixture(scope="module", params=DTYPES)
def run(request, tiny_pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a base whose files hold this dtype, and whose text encoder's configuration says so twice."""
    folder = tmp_path_factory.mktemp(request.param)
    base = write_pipeline(folder / "base", tiny_pipeline, DTYPES[request.param])
    for part in ("text_encoder", "unet"):
        config = base / part / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "torch_dtype": request.param}))
    return finished(base, folder / "run")


def draw(snippet: str, folder: Path, steps: int = 2) -> np.ndarray:
    """The picture that the lines make, of a few steps."""
    brief, found = re.subn(r"num_inference_steps=\d+", f"num_inference_steps={steps}", snippet)
    assert found == 1
    with contextlib.chdir(folder):
        exec(compile(brief, "hint", "exec"), {})
    (file,) = folder.glob("*.png")
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(("format_", "rest"), FORMATS, ids=[f"{f}{r}" for f, r in FORMATS])
def test_the_printed_lines_draw(run: Path, tmp_path: Path, format_: str, rest: dict) -> None:
    if "rank" in rest:
        pytest.importorskip("peft")
    _, how = export(ExportRequest(str(run), format_, str(tmp_path / "it's out"), **rest))
    (tmp_path / "pictures").mkdir()
    picture = draw(how.split(PYTHON)[1], tmp_path / "pictures")
    assert picture.shape == (16, 16, 3) and picture.std() > 0


def said_and_held(folder: Path) -> dict[str, set[str]]:
    """Part -> the dtypes that its configuration names and its file holds."""
    found: dict[str, set[str]] = {}
    for part, name in WEIGHT_FILES.items():
        file = folder / part / name
        config = json.loads((folder / part / "config.json").read_text())
        with safe_open(file, "np") as opened:
            held = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118
        found[part] = held | {HELD[config[key]] for key in ("dtype", "torch_dtype") if key in config}
    return found


@pytest.mark.parametrize("dtype", ["", "float16", "bfloat16"])
def test_configurations_say_what_the_files_hold(run: Path, tmp_path: Path, dtype: str) -> None:
    export(ExportRequest(str(run), "diffusers", str(tmp_path / "out"), dtype=dtype))
    wanted = {HELD[dtype or "float32"]}
    assert said_and_held(tmp_path / "out") == dict.fromkeys(WEIGHT_FILES, wanted)
    text = json.loads((tmp_path / "out" / "text_encoder" / "config.json").read_text())
    assert text["dtype"] == text["torch_dtype"] == (dtype or "float32")


def test_patched_folders_open_without_a_dtype(run: Path, tmp_path: Path) -> None:
    patches, _ = export(ExportRequest(str(run), "patch", str(tmp_path / "patches")))
    base = json.loads((run / "config.json").read_text())["model"]
    folder = apply(Address(base), [str(p) for p in patches], str(tmp_path / "patched"))
    assert set().union(*said_and_held(folder).values()) == {"F32"}
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)  # nothing but the folder
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    pipe("a <tiger_cat> cat", num_inference_steps=1, output_type="latent")
