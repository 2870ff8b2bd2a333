"""The command that a refused pickle comes with really converts it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cns_jax.core.tree import fingerprint
from cns_jax.weights.locate import Address, open_source
from cns_jax.weights.tensors import WeightsMismatch

diffusers = pytest.importorskip("diffusers")


def test_pickled_folder(tiny_folder: Path, tiny_pipeline, tmp_path: Path) -> None:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipe.unet.save_pretrained(tmp_path / "old" / "unet", safe_serialization=False)
    pipe.vae.save_pretrained(tmp_path / "old" / "vae", safe_serialization=False)
    for part in ("text_encoder", "tokenizer", "scheduler"):
        getattr(pipe, part).save_pretrained(tmp_path / "old" / part)
    pipe.save_config(tmp_path / "old")
    assert (tmp_path / "old" / "unet" / "diffusion_pytorch_model.bin").exists()
    with pytest.raises(WeightsMismatch, match="may run any code") as caught:
        open_source(Address(str(tmp_path / "old")))
    found = re.search(r"python -c \".*\"", str(caught.value))
    assert found is not None
    subprocess.run([sys.executable, *shlex.split(found[0])[1:]], check=True, capture_output=True)
    converted = open_source(Address(str(tmp_path / "old-safetensors"))).load()
    assert fingerprint(converted.params) == fingerprint(tiny_pipeline.params)
