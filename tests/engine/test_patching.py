"""Concept patches: replayed to the bit, refused out of order, taken out again exactly."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_runs import call

from cns_jax.core.settings import SettingsError
from cns_jax.core.tree import fingerprint, flatten
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.runs.export.exporter import Exporter
from cns_jax.engine.runs.export.hints import how_to
from cns_jax.engine.runs.learned import Learned, kernels_of
from cns_jax.engine.runs.patching import apply, revert, show, verify
from cns_jax.engine.runs.source import find_source
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.weights.changes import Sparse
from cns_jax.weights.folder import read_folder
from cns_jax.weights.locate import Address
from cns_jax.weights.patch import PatchError, read_patch
from cns_jax.weights.tensors import WeightsMismatch, index_file

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def patches(trained, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("patches")
    return [str(f) for f in export(ExportRequest(str(trained["folder"]), "patch", str(out)))[0]]


@pytest.fixture(scope="module")
def patched(trained, patches: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apply(Address(trained["values"]["model"]), patches, str(tmp_path_factory.mktemp("patched") / "all"))


def test_replay_is_the_trained_model_to_the_bit(trained, patched: Path, tmp_path: Path) -> None:
    """The same as the run's own export, file by file."""
    export(ExportRequest(str(trained["folder"]), "diffusers", str(tmp_path / "run")))
    ours, runs = read_folder(patched).load(), read_folder(tmp_path / "run").load()
    assert ours.ids == runs.ids and fingerprint(ours.params) == fingerprint(runs.params)
    base = kernels_of(read_folder(trained["values"]["model"]).load())
    trained_kernels = Learned.of(str(trained["folder"])).snapshot({"unet": base}).memory.kernels
    assert fingerprint(kernels_of(ours)) == fingerprint(trained_kernels)
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        assert (patched / "tokenizer" / name).read_text() == (tmp_path / "run" / "tokenizer" / name).read_text()


def test_one_at_a_time_is_the_same(trained, patches: list[str], patched: Path, tmp_path: Path) -> None:
    model = trained["values"]["model"]
    for i, patch in enumerate(patches):
        model = str(apply(Address(model), [patch], str(tmp_path / str(i))))
    assert read_folder(model).load().ids == read_folder(patched).load().ids


def test_revert_is_exact(trained, patches: list[str], patched: Path, tmp_path: Path) -> None:
    model, base = str(patched), read_folder(trained["values"]["model"]).load()
    for count in (2, 1, 0):
        folder, name = revert(model, str(tmp_path / str(count)))
        assert name == f"{count + 1:02d}_{('tiger_cat', 'spotted_dog', 'checked_mug')[count]}"
        again = (
            apply(Address(trained["values"]["model"]), patches[:count], str(tmp_path / f"new{count}"))
            if count
            else None
        )
        expected = read_folder(again).load() if again else base
        found = read_folder(folder).load()
        assert found.ids == expected.ids
        assert load_tokenizer(found.tokenizer).size == load_tokenizer(expected.tokenizer).size
        model = str(folder)
    assert not (folder / "patches").exists()
    with pytest.raises(PatchError, match="is not a patched folder"):
        revert(str(folder), str(tmp_path / "more"))


def test_wrong_order_and_base_are_refused(trained, patches: list[str], patched: Path, tmp_path: Path) -> None:
    base = Address(trained["values"]["model"])
    first, second, third = (read_patch(Path(p)) for p in patches)
    said = (
        f"checked_mug .* follows the patch spotted_dog .{second.id}., but here the last patch is tiger_cat .{first.id}"
    )
    with pytest.raises(PatchError, match=said):
        apply(base, [patches[0], patches[2]], str(tmp_path / "x"))
    with pytest.raises(
        PatchError, match=f"spotted_dog .* follows the patch tiger_cat .{first.id}., but here no patch is applied"
    ):
        verify(base, patches[1:])
    with pytest.raises(PatchError, match=f"checked_mug .{third.id}. is applied already"):
        apply(Address(str(patched)), patches[2:], str(tmp_path / "x"))
    other = Path(shutil.copytree(base.model, tmp_path / "other"))
    tensors = load_file(other / UNET)
    tensors["conv_in.bias"][0] += 1
    save_file(tensors, other / UNET)
    with pytest.raises(PatchError, match=f"tiger_cat is for the base model .*tiny .{first.base}.; this one is"):
        apply(Address(str(other)), patches, str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_verify(trained, patches: list[str], patched: Path, tmp_path: Path) -> None:
    lines = verify(Address(str(patched)), [])
    assert len(lines) == 4 and lines[-1].startswith("below them lies the base model")
    assert len(verify(Address(trained["values"]["model"]), patches)) == 3
    for key, said in (("attn2.to_k.weight", "the weights of .* were changed"), ("conv_in.bias", "not its base")):
        changed = Path(shutil.copytree(patched, tmp_path / key))
        tensors = load_file(changed / UNET)
        tensors[next(k for k in tensors if k.endswith(key))] += 1
        save_file(tensors, changed / UNET)
        with pytest.raises(PatchError, match=said):
            verify(Address(str(changed)), [])


def test_a_changed_token_is_noticed(patched: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(patched, tmp_path / "x"))
    file = changed / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors[next(k for k in tensors if "token_embedding" in k)][-2] = 7
    save_file(tensors, file)
    with pytest.raises(PatchError, match="the token <spotted_dog> of 02_spotted_dog was changed"):
        verify(Address(str(changed)), [])


def test_where_a_patched_folder_may_be_written(patches: list[str], patched: Path) -> None:
    for out in (patched, patched / "patches" / "x", patched.parent):
        with pytest.raises(SettingsError, match="lies in the model|exists already"):
            revert(str(patched), str(out))


def test_a_changed_patch_is_noticed(patches: list[str], tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    tensors, said = load_file(patches[0]), index_file(Path(patches[0]))[1]
    tensors["token_row"][0] += 1
    save_file(tensors, file, said)
    with pytest.raises(PatchError, match="was changed: its content has the id"):
        read_patch(file)
    file.write_bytes(Path(patches[0]).read_bytes()[:-9])
    with pytest.raises(WeightsMismatch, match="not a whole safetensors file"):
        read_patch(file)
    save_file(tensors, file)
    with pytest.raises(PatchError, match="is not a concept patch"):
        read_patch(file)


def test_half_precision_is_smaller_and_near(trained, patches: list[str], patched: Path, tmp_path: Path) -> None:
    half = export(ExportRequest(str(trained["folder"]), "patch", str(tmp_path / "half"), dtype="float16"))[0]
    assert read_patch(half[0]).id != read_patch(Path(patches[0])).id
    near = apply(Address(trained["values"]["model"]), [str(f) for f in half], str(tmp_path / "near"))
    ours, exact = kernels_of(read_folder(near).load()), kernels_of(read_folder(patched).load())
    for name, kernel in flatten(ours).items():
        np.testing.assert_allclose(kernel, flatten(exact)[name], rtol=1e-3, atol=1e-6)


def test_what_a_patch_says(trained, patches: list[str]) -> None:
    patch = read_patch(Path(patches[1]))
    assert patch.token == "<spotted_dog>" and patch.parent == read_patch(Path(patches[0])).id
    assert patch.about["method"]["ratio"] == 0.3 and patch.metadata["modelspec.thumbnail"].startswith(
        "data:image/jpeg;base64,"
    )
    lines = "\n".join(show(patches[1]))
    assert "<spotted_dog> dog" in lines and "of the cross-attention K/V" in lines and "license: " in lines
    assert "base64" not in lines
    assert isinstance(patch.change, Sparse)
    assert (
        patch.change.count
        == json.loads((trained["folder"] / "ledger.json").read_text())["concepts"][1]["mask"]["neurons"]
    )


def test_a_run_with_another_vae_says_so(trained) -> None:
    """A patch belongs to the whole model, VAE included."""
    learned = Learned.of(str(trained["folder"]))
    learned = dataclasses.replace(learned, settings=dataclasses.replace(learned.settings, vae="my vae"))
    exporter = Exporter(
        ExportRequest(str(trained["folder"]), "patch"), learned, find_source(Address(learned.settings.model))
    )
    assert "apply --model=BASE --vae='my vae' --out=DIR 01.safetensors" in how_to(exporter, [Path("01.safetensors")])


def test_the_commands(trained, patches: list[str], tmp_path: Path) -> None:
    model = f"--model={trained['values']['model']}"
    done = call("patch", "apply", model, f"--out={tmp_path / 'a'}", *patches[:2])
    assert done.returncode == 0 and "Wrote" in done.stdout, done.stderr[-2000:]
    done = call("patch", "revert", f"--model={tmp_path / 'a'}", f"--out={tmp_path / 'b'}")
    assert done.returncode == 0 and "Took out 02_spotted_dog" in done.stdout, done.stderr[-2000:]
    for arguments, said in (
        (["aply"], "say what to do: apply, revert, show, verify"),
        (["apply", model, f"--out={tmp_path / 'b'}", patches[0]], "exists already"),
        (["apply", model, f"--out={tmp_path / 'c'}", "no.safetensors"], "there is no file no.safetensors"),
        (["verify", model, "--vae=nowhere", patches[0]], "vae='nowhere' does not exist"),
    ):
        wrong = call("patch", *arguments)
        assert wrong.returncode == 1 and said in wrong.stderr and "Traceback" not in wrong.stderr, wrong.stderr
