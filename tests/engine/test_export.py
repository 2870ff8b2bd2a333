"""A run in the formats of other tools, each read back by a reader of its own."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from tiny_runs import CONCEPTS, ROOT, call, finished

from cns_jax.core.settings import SettingsError
from cns_jax.core.tree import flatten
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.runs.export.exporter import KINDS
from cns_jax.engine.runs.export.formats import FORMATS
from cns_jax.engine.runs.export.low_rank import cost
from cns_jax.engine.runs.learned import Learned, kernels_of
from cns_jax.engine.runs.patching import apply, revert
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.text.vocabulary import TruncatedPromptWarning
from cns_jax.weights.folder import read_folder
from cns_jax.weights.locate import Address, open_source
from cns_jax.weights.low_rank import approximated, low_rank_tensors
from cns_jax.weights.tensors import WeightsMismatch

WORDS = ("tiger_cat", "spotted_dog", "checked_mug")


def base_of(trained):
    return read_folder(trained["values"]["model"]).load()


def merged_of(trained) -> dict[str, np.ndarray]:
    """Dotted name -> trained kernel."""
    snapshot = Learned.of(str(trained["folder"])).snapshot(base_of(trained).params).memory
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
    request = {
        "run": str(trained["folder"]),
        "format": "lora",
        "out": str(tmp_path / "both"),
        "bundle_embeddings": True,
    }
    assert "InvokeAI and diffusers refuse" in export(ExportRequest(**request))[1]
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
    rows = Learned.of(str(trained["folder"])).applied(base_of(trained).params).rows_rd
    for i, file in enumerate(files):
        ((key, value),) = load_file(file).items()
        assert key == f"<{CONCEPTS[i]}>" and file.stem == WORDS[i]
        np.testing.assert_array_equal(value, rows[i])


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
    from cns_jax.engine.runs.source import find_source
    from cns_jax.engine.settings import RunSettings
    from cns_jax.engine.teach.sequence import run as teach

    (folder,) = run(trained, tmp_path, "diffusers", after="spotted_dog")
    values = trained["values"] | {"model": str(folder), "run": str(tmp_path / "more")}
    with pytest.raises(ValueError, match="'<tiger_cat>' is in the tokenizer already"):
        teach(build(RunSettings, values))
    values |= {"concepts": [{"name": "checked_mug"}], "name": "more"}
    with pytest.warns(TruncatedPromptWarning, match="cut off") as caught:  # the tiny text encoder has 20 positions
        teach(build(RunSettings, values))
    assert {warning.category for warning in caught} == {TruncatedPromptWarning}
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


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A finished run of random weights."""
    folder = finished(tiny_folder, tmp_path_factory.mktemp("made") / "run")
    return {"folder": folder, "values": json.loads((folder / "config.json").read_text())}


def kernels_in(folder: Path) -> dict[str, np.ndarray]:
    return flatten(kernels_of(read_folder(folder).load()))


def test_strength_goes_between_the_base_and_what_was_taught(made, tmp_path: Path) -> None:
    base, merged = kernels_in(made["values"]["model"]), merged_of(made)
    for strength in (0.0, 0.8, 1.0, 1.5):
        (folder,) = run(made, tmp_path, "diffusers", strength=strength)
        for name, kernel in kernels_in(folder).items():
            np.testing.assert_allclose(
                kernel, base[name] + strength * (merged[name] - base[name]), atol=1e-6, err_msg=name
            )
            assert strength != 1 or np.array_equal(kernel, merged[name])
            assert strength != 0 or np.array_equal(kernel, base[name])
    whole, half = (load_file(run(made, tmp_path / str(s), "lora", dtype="float32", strength=s)[0]) for s in (1, 0.5))
    for key, diff in whole.items():
        np.testing.assert_allclose(half[key], diff / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"format": "patch", "strength": 0.8}, "strength=0.8: a patch holds the values of one lesson as they are"),
        ({"format": "textual-inversion", "strength": 0.8}, "the embeddings alone hold no K/V weights"),
        ({"format": "lora", "strength": float("nan")}, "strength=nan must be from 0"),
        ({"format": "lora", "strength": -0.5}, "strength=-0.5 must be from 0"),
        ({"format": "lora", "rank": -1}, "rank=-1 is negative"),
        ({"format": "diffusers", "rank": 4}, "--rank=4 belongs to --format=lora, not diffusers"),
        ({"format": "patch", "bundle_embeddings": True}, "--bundle_embeddings=True belongs to --format=lora"),
        ({"format": "zip"}, "format='zip'; known: diffusers, single-file"),
    ],
)
def test_what_a_format_has_no_use_for_is_refused(request_: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        ExportRequest("runs/x", **request_)


def test_a_low_rank_says_what_it_loses(made, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    costs, full = [], 32  # the smaller side of every kernel here
    for rank in (1, 8, full, 10 * full):
        with caplog.at_level(logging.INFO, "cns_jax"):
            file = run(made, tmp_path / str(rank), "lora", rank=rank, dtype="float32")[0]
        tensors = load_file(file)
        assert file.name == f"{made['folder'].name}_lora_rank{rank}.safetensors" and len(tensors) == 3 * len(
            merged_of(made)
        )
        assert {v.shape[0] for k, v in tensors.items() if "lora_down" in k} <= {min(rank, 16), min(rank, full)}
        found = re.search(r"keeps ([\d.]+)% .* wrong by up to ([\d.]+)%, training changed", caplog.messages[-1])
        assert found is not None and caplog.messages[-1].startswith(f"rank {rank} keeps")
        costs.append((float(found[1]), float(found[2])))
    energies, errors = zip(*costs, strict=True)
    assert energies == tuple(sorted(energies)) and errors == tuple(sorted(errors, reverse=True))
    assert energies[0] < 50 and errors[0] > 1 and costs[-2:] == [(100, 0), (100, 0)]


def test_the_cost_is_that_of_the_prompts() -> None:
    """A change that no prompt's features see costs nothing there, whatever its energy."""
    base = {"to_k": {"kernel": np.eye(4, dtype=np.float32)}}
    taught = {"to_k": {"kernel": np.eye(4, dtype=np.float32) + np.diag(np.float32([1, 0, 0, 3]))}}
    seen, unseen = np.float32([[1, 0, 0, 0]]), np.float32([[0, 1, 0, 0]])
    tensors = low_rank_tensors(base, taught, 1, np.float32)  # the rank-1 part is the 3
    found = approximated(base, tensors)
    np.testing.assert_allclose(found["to_k.kernel"], np.diag([1, 1, 1, 4]), atol=1e-6)
    one, other = (cost(base, taught, found, text) for text in (seen, unseen))
    np.testing.assert_allclose((one.energy, one.worst_energy, one.error, one.change), (0.9, 0.9, 0.5, 0.5), atol=1e-6)
    np.testing.assert_allclose((other.energy, other.error, other.change), (0.9, 0, 0), atol=1e-6)


def test_low_rank_keeps_what_prompts_read() -> None:
    """Of a change with a large part that prompts hardly read and a small one that they do, the second is kept."""
    base = {"to_k": {"kernel": np.zeros((4, 4), np.float32)}}
    taught = {"to_k": {"kernel": np.diag(np.float32([1, 0, 0, 3]))}}
    read = np.diag([1.0, 1.0, 1.0, 0.0])
    found = approximated(base, low_rank_tensors(base, taught, 1, np.float32, read))
    np.testing.assert_allclose(found["to_k.kernel"], np.diag([1, 0, 0, 0]), atol=1e-6)
    rng = np.random.default_rng(0)
    features_nd = rng.normal(size=(50, 4)) * [3, 1, 0.3, 0.1]
    base, taught = ({"to_k": {"kernel": rng.normal(size=(4, 6)).astype(np.float32)}} for _ in range(2))
    kernel = taught["to_k"]["kernel"]
    plain, weighed = (
        np.linalg.norm(features_nd @ (approximated(base, tensors)["to_k.kernel"] - kernel))
        for tensors in (
            low_rank_tensors(base, taught, 2, np.float32),
            low_rank_tensors(base, taught, 2, np.float32, features_nd.T @ features_nd),
        )
    )
    assert weighed < 0.8 * plain


def modes(folder: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"file": set(), "folder": set()}
    for path in (folder, *folder.rglob("*")):
        found["folder" if path.is_dir() else "file"].add(stat.S_IMODE(path.stat().st_mode))
    return found


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_modes_follow_the_umask(made, tmp_path: Path, umask: int) -> None:
    """Of what is written anew, and of what replaces files that only their owner could read."""
    private = Path(shutil.copytree(made["values"]["model"], tmp_path / "private"))
    for path in (*private.rglob("*"), private):
        path.chmod(0o500 if path.is_dir() else 0o400)  # a base model that can be read, nothing else
    values = {**made["values"], "model": str(private)}
    copy = Path(shutil.copytree(made["folder"], tmp_path / "run"))
    (copy / "config.json").write_text(json.dumps(values))
    before = os.umask(umask)
    try:
        for _ in range(2):
            for format_ in FORMATS:
                files = export(ExportRequest(str(copy), format_, str(tmp_path / "out" / format_)))[0]
                for file in (f for f in files if f.is_file()):
                    file.chmod(0o600)  # as they were written once; the second round replaces them
        for format_ in FORMATS:
            export(ExportRequest(str(copy), format_, str(tmp_path / "out" / format_)))
        patches = [str(f) for f in sorted((tmp_path / "out" / "patch").iterdir())]
        Path(patches[0]).chmod(0o400)
        taught = apply(Address(str(private)), patches, str(tmp_path / "out" / "taught"))
        revert(str(taught), str(tmp_path / "out" / "without"))
    finally:
        os.umask(before)
        Path(patches[0]).chmod(0o666 & ~umask)
    assert modes(tmp_path / "out") == {"file": {0o666 & ~umask}, "folder": {0o777 & ~umask}}


def test_modes_of_a_finished_run(trained) -> None:
    umask = os.umask(0)
    os.umask(umask)
    for folder in (trained["folder"], Path(trained["values"]["prior"]["directory"])):
        assert modes(folder) == {"file": {0o666 & ~umask}, "folder": {0o777 & ~umask}}


def test_the_command_offers_every_format() -> None:
    command = (ROOT / "cns_jax" / "export.py").read_text()  # not imported: its flags would be this process's
    (told,) = re.findall(r"^_FORMATS = (\(.*\))$", command, re.M)
    assert tuple(FORMATS) == tuple(KINDS) == ast.literal_eval(told)
