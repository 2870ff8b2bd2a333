"""InvokeAI's own loader takes our LoRA files, and what it adds is what we exported."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_runs import finished

from cns_jax.core.files import save_tensors
from cns_jax.core.tree import flatten
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.adapters import difference_tensors, embedding_tensors
from cns_jax.weights.folder import WEIGHT_FILES, read_folder
from cns_jax.weights.layout import file_key, to_file
from cns_jax.weights.low_rank import approximated, low_rank_tensors

READER = Path(__file__).with_name("invokeai_reader.py")
if importlib.util.find_spec("invokeai") is None:
    pytest.skip(f"invokeai is not installed; {READER.name} says what its loader needs", allow_module_level=True)


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tiny_folder, tmp_path_factory.mktemp("invokeai") / "run")


@pytest.fixture(scope="module")
def unet(run: Path) -> Path:
    """The base model's."""
    return Path(json.loads((run / "config.json").read_text())["model"]) / "unet"


def exported(run: Path, out: Path, **request) -> Path:
    return export(ExportRequest(str(run), "lora", str(out), **request))[0][0]


def read(*arguments: Path) -> subprocess.CompletedProcess[str]:
    """InvokeAI in a process of its own, since it is given an empty torchvision."""
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, str(READER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.parametrize("request_", [{"rank": 5}, {}, {"strength": 0.5}], ids=["low rank", "exact", "half"])
def test_it_adds_what_we_exported(run: Path, unet: Path, tmp_path: Path, request_: dict) -> None:
    lora = exported(run, tmp_path, dtype="float32", **request_)
    done = read(lora, unet, tmp_path / "patched.safetensors")
    assert done.returncode == 0, done.stderr[-2000:]
    found, before = load_file(tmp_path / "patched.safetensors"), load_file(unet / WEIGHT_FILES["unet"])
    if "rank" in request_:
        kernels = cross_attention_kernels(read_folder(unet.parent).load().params["unet"])
        wanted = {file_key(k): to_file(k, v) for k, v in approximated(kernels, load_file(lora)).items()}
    else:
        folder = export(ExportRequest(str(run), "diffusers", str(tmp_path / "folder"), **request_))[0][0]
        wanted = load_file(folder / "unet" / WEIGHT_FILES["unet"])
    changed = {key for key in before if not np.array_equal(before[key], found[key])}
    assert len(changed) == len(flatten(cross_attention_kernels(read_folder(unet.parent).shapes["unet"])))
    for key in before:
        np.testing.assert_allclose(found[key], wanted.get(key, before[key]), atol=2e-6, err_msg=key)


def test_it_refuses_bundled_embeddings(run: Path, unet: Path, tmp_path: Path) -> None:
    """Why they are not in the file by default."""
    done = read(exported(run, tmp_path, bundle_embeddings=True), unet, tmp_path / "x.safetensors")
    assert done.returncode != 0 and "Unsupported lora format" in done.stderr


@pytest.mark.parametrize(("width", "kind"), [(768, "sd-1"), (1024, "sd-2")])
def test_its_model_manager_knows_the_files(tmp_path: Path, width: int, kind: str) -> None:
    """Which it tells by the width of text features, so these are as wide as Stable Diffusion's."""
    rng, attention = np.random.default_rng(0), "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    before, after = (
        {f"{attention}.{name}.kernel": rng.normal(size=(width, 32)).astype(np.float32) for name in ("to_k", "to_v")}
        for _ in range(2)
    )
    files = {
        "exact": difference_tensors(before, after, np.float16),
        "low": low_rank_tensors(before, after, 4, np.float16),
        "embedding": embedding_tensors("<my_cat>", rng.normal(size=width), np.float16),
    }
    for name, tensors in files.items():
        save_tensors(tmp_path / f"{name}.safetensors", tensors, {"format": "pt"})
    done = read(*(tmp_path / f"{name}.safetensors" for name in files))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"{kind} lora", f"{kind} lora", f"{kind} embedding"]
