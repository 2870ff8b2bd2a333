"""A run in the formats of other tools, each read back by a reader of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from tiny_runs import CONCEPTS, call

from cns_jax.core.settings import SettingsError
from cns_jax.core.tree import flatten
from cns_jax.engine.export import ExportRequest, export
from cns_jax.engine.export.exporter import KINDS
from cns_jax.engine.export.formats import FORMATS
from cns_jax.engine.learned import Learned, kernels_of
from cns_jax.export import _FORMATS
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.folder import read_folder
from cns_jax.weights.locate import Address, open_source
from cns_jax.weights.tensors import WeightsMismatch

WORDS = ("tiger_cat", "spotted_dog", "checked_mug")


def base_of(trained):
    return read_folder(trained["values"]["model"]).load()


def merged_of(trained) -> dict[str, np.ndarray]:
    """Dotted name -> trained kernel."""
    snapshot = Learned.of(str(trained["folder"])).snapshot(kernels_of(base_of(trained)))
    return {name: np.asarray(leaf) for name, leaf in flatten(snapshot.kernels).items()}


def run(trained, tmp_path: Path, format_: str, **rest) -> list[Path]:
    return export(ExportRequest(str(trained["folder"]), format_, str(tmp_path / format_), **rest))[0]


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "np") as opened:
        return opened.metadata()


def test_diffusers_folder(trained, tmp_path: Path) -> None:
    (folder,) = run(trained, tmp_path, "diffusers")
    read, base, merged = read_folder(folder).load(), base_of(trained), merged_of(trained)
    before, after = flatten(base.params["unet"]), flatten(read.params["unet"])
    assert 0 < len(merged) < len(before)
    for name in before:
        np.testing.assert_array_equal(after[name], merged.get(name, before[name]), err_msg=name)
    table = "text_model.embeddings.token_embedding.embedding"
    old, new = flatten(base.params["text_encoder"])[table], flatten(read.params["text_encoder"])[table]
    assert len(new) == len(old) + 3 and np.array_equal(new[:-3], old) and np.abs(new[-3:]).min(1).max() > 0
    # taught further, as any other model
    assert Address(str(folder)) and open_source(Address(str(folder))).model.text_encoder.vocab_size == len(new)


def test_single_file(trained, tmp_path: Path) -> None:
    file, *embeddings = run(trained, tmp_path, "single-file", dtype="float32")
    tokenizer = read_folder(trained["values"]["model"]).tokenizer
    read = open_source(Address(str(file), tokenizer=str(tokenizer))).load()
    unet = flatten(read.params["unet"])
    for name, kernel in merged_of(trained).items():
        np.testing.assert_array_equal(unet[name], kernel)
    assert (
        read.ids["vae"] == base_of(trained).ids["vae"]
        and read.ids["text_encoder"] == base_of(trained).ids["text_encoder"]
    )
    assert [e.stem for e in embeddings] == list(WORDS)
    said = metadata(file)
    assert said["modelspec.trigger_phrase"] == ", ".join(WORDS) and said["modelspec.prediction_type"] == "epsilon"


def test_lora_is_the_difference(trained, tmp_path: Path) -> None:
    """A reader of a few lines, as ComfyUI and A1111 do it: W + strength * diff, keys by underscores."""
    file, *embeddings = run(trained, tmp_path, "lora")
    tensors = load_file(file)
    diffs = {k: v for k, v in tensors.items() if k.endswith(".diff")}
    weights = load_file(Path(trained["values"]["model"]) / "unet" / "diffusion_pytorch_model.safetensors")
    keys = {"lora_unet_" + k.removesuffix(".weight").replace(".", "_"): k for k in weights if k.endswith("weight")}
    assert len(diffs) == len(merged_of(trained)) and all(v.dtype == np.float16 for v in diffs.values())
    for key, diff in diffs.items():
        weights[keys[key.removesuffix(".diff")]] += diff.astype(np.float32)
    for name, kernel in merged_of(trained).items():
        key = name.replace(".kernel", ".weight")
        np.testing.assert_allclose(weights[key], kernel.T, atol=5e-5)  # half a unit of float16 near 0.1
        assert key in keys.values()
    assert len(diffs) == len(tensors)  # InvokeAI and diffusers refuse a file that holds anything else
    both = load_file(run(trained, tmp_path / "both", "lora", bundle_embeddings=True)[0])
    bundled = both.keys() - diffs.keys()
    assert sorted(bundled) == sorted(f"bundle_emb.{word}.string_to_param.*" for word in WORDS)
    assert len(embeddings) == 3 and metadata(file)["modelspec.architecture"].endswith("/lora")
    exact = load_file(run(trained, tmp_path / "exact", "lora", dtype="float32")[0])
    base = flatten(cross_attention_kernels(base_of(trained).params["unet"]))
    for name, kernel in merged_of(trained).items():
        diff = exact["lora_unet_" + name.removesuffix(".kernel").replace(".", "_") + ".diff"]
        np.testing.assert_allclose(base[name] + diff.T, kernel, atol=1e-8, rtol=1e-6)


def test_embeddings(trained, tmp_path: Path) -> None:
    files = run(trained, tmp_path, "textual-inversion", dtype="float32")
    rows = Learned.of(str(trained["folder"])).snapshot(kernels_of(base_of(trained))).rows_rd
    for i, file in enumerate(files):
        ((key, value),) = load_file(file).items()
        assert key == f"<{CONCEPTS[i]}>" and file.stem == WORDS[i]
        np.testing.assert_array_equal(value, rows[i : i + 1])


def test_custom_diffusion_file(trained, tmp_path: Path) -> None:
    file = run(trained, tmp_path, "custom-diffusion", dtype="float32")[0]
    tensors = load_file(file)
    for name, kernel in merged_of(trained).items():
        module, projection = name.removesuffix(".kernel").rsplit(".", 1)
        np.testing.assert_array_equal(tensors.pop(f"{module}.processor.{projection}_custom_diffusion.weight"), kernel.T)
    assert all(k.endswith("attn1.processor") and v.size == 0 for k, v in tensors.items()) and tensors


def test_after_an_earlier_concept(trained, tmp_path: Path) -> None:
    files = run(trained, tmp_path, "textual-inversion", after="spotted_dog")
    assert [f.stem for f in files] == ["tiger_cat", "spotted_dog"]
    with pytest.raises(SettingsError, match="has not learned 'cow'; it knows tiger_cat, spotted_dog, checked_mug"):
        run(trained, tmp_path, "lora", after="cow")


def test_nothing_of_others_is_deleted(trained, tmp_path: Path) -> None:
    mine = tmp_path / "keep"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    model = Path(trained["values"]["model"])
    copied = Path(shutil.copytree(model, tmp_path / "another model"))
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "_cns_jax"}))
    for out, said in (
        (mine, "holds thesis.txt, which writing a model there would delete"),
        (mine / "thesis.txt", "is a file"),
        (model, "the base model .* lie in each other"),
        (copied, "holds model_index.json, scheduler, text_encoder and more"),
        (model / "unet" / "x", "lie in each other"),
        (model.parent, "lie in each other"),
        (trained["folder"], "holds checkpoints, config.json, data and more"),
    ):
        with pytest.raises(ValueError, match=said):
            export(ExportRequest(str(trained["folder"]), "diffusers", str(out)))
    assert (mine / "thesis.txt").read_text() == "x" and (trained["folder"] / "ledger.json").exists()
    for _ in range(2):  # an earlier export may be replaced
        run(trained, tmp_path, "diffusers")


def test_on_top_of_an_export(trained, tmp_path: Path) -> None:
    """Taught on a model that has learned before: embeddings of both, and a table of CLIP's own size in one file."""
    from cns_jax.core.settings import build
    from cns_jax.engine.sequence import run as teach
    from cns_jax.engine.settings import RunSettings
    from cns_jax.engine.studio import find_source

    (folder,) = run(trained, tmp_path, "diffusers", after="spotted_dog")
    values = trained["values"] | {"model": str(folder), "run": str(tmp_path / "more")}
    with pytest.raises(ValueError, match="'<tiger_cat>' is in the tokenizer already"):
        teach(build(RunSettings, values))
    values |= {"concepts": [{"name": "checked_mug"}], "name": "more"}
    with pytest.warns() as caught:
        teach(build(RunSettings, values))
    assert caught
    more = {"folder": tmp_path / "more", "values": values}
    (again,) = run(more, tmp_path / "again", "diffusers")
    assert json.loads((again / "tokenizer" / "added_tokens.json").read_text()).keys() == {f"<{w}>" for w in WORDS}
    file, *embeddings = run(more, tmp_path / "again", "single-file", dtype="float32")
    assert [e.stem for e in embeddings] == list(WORDS)
    tokenizer = str(read_folder(trained["values"]["model"]).tokenizer)
    assert find_source(Address(str(file), tokenizer=tokenizer)).model.text_encoder.vocab_size == len(
        flatten(base_of(trained).params["text_encoder"])["text_model.embeddings.token_embedding.embedding"]
    )
    with pytest.raises(WeightsMismatch, match="take the tokenizer that belongs to the model"):
        find_source(Address(str(file), tokenizer=str(folder / "tokenizer")))


@pytest.mark.parametrize(("format_", "field"), [("diffusers", "base"), ("lora", "base_kernels")])
def test_another_base_model_is_noticed(trained, tmp_path: Path, format_: str, field: str) -> None:
    ledger = trained["folder"] / "ledger.json"
    text = ledger.read_text()
    try:
        ledger.write_text(json.dumps({**json.loads(text), field: "0" * 16}))
        with pytest.raises(SettingsError, match="has changed since the run was trained"):
            run(trained, tmp_path, format_)
    finally:
        ledger.write_text(text)


@pytest.mark.parametrize("format_", ["lora", "patch"])
def test_the_command(trained, tmp_path: Path, format_: str) -> None:
    done = call("export", f"--run={trained['folder']}", f"--format={format_}", f"--out={tmp_path / 'x'}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "B  " in done.stdout and "To use: " in done.stdout
    wrong = call("export", f"--run={tmp_path}", f"--format={format_}")
    assert wrong.returncode == 1 and "is not the folder of a training run" in wrong.stderr


def test_the_command_offers_every_format() -> None:
    assert tuple(FORMATS) == tuple(KINDS) == _FORMATS
