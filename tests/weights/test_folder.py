"""Folders in and out: exact, strict, and every difference named with its likely cause."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import save_file as save_flax
from safetensors.numpy import load_file, save_file
from tiny_runs import kept

from cns_jax.core.tree import fingerprint, flatten
from cns_jax.engine.runs.learned import read_snapshot
from cns_jax.methods.cns import CNS, Memory
from cns_jax.methods.protected import Protected
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.folder import read_folder, write_pipeline
from cns_jax.weights.layout import file_key, from_file, to_file
from cns_jax.weights.snapshot import Snapshot, save_snapshot
from cns_jax.weights.tensors import WeightsMismatch

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change(file: Path, edit) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def test_round_trip_is_exact(tiny_pipeline, tiny_folder: Path) -> None:
    read = read_folder(tiny_folder).load()
    assert read.model == tiny_pipeline.model and read.schedule == tiny_pipeline.schedule
    assert fingerprint(read.params) == fingerprint(tiny_pipeline.params)


def test_float16_folder_is_read_as_float32(tiny_pipeline, tmp_path: Path) -> None:
    read = read_folder(write_pipeline(tmp_path / "half", tiny_pipeline, np.float16)).load()
    for name, leaf in flatten(read.params).items():
        assert leaf.dtype == np.float32
        half = flatten(tiny_pipeline.params)[name].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(leaf, half)


def test_bfloat16_is_read(folder: Path) -> None:
    tensors = {k: jnp.asarray(v, jnp.bfloat16) for k, v in load_file(folder / UNET).items()}
    save_flax(tensors, folder / UNET)
    assert all(leaf.dtype == np.float32 for leaf in flatten(read_folder(folder).load().params).values())


def test_layout() -> None:
    conv, linear = np.arange(120.0).reshape(2, 3, 4, 5), np.arange(6.0).reshape(2, 3)
    assert to_file("c.kernel", conv).shape == (5, 4, 2, 3) and to_file("l.kernel", linear).shape == (3, 2)
    for name, leaf in (("c.kernel", conv), ("l.kernel", linear), ("n.scale", np.ones(3)), ("s", np.float32(2))):
        np.testing.assert_array_equal(from_file(name, to_file(name, leaf)), leaf)
    assert [file_key(n) for n in ("a.kernel", "a.scale", "a.embedding", "a.bias", "logit_scale")] == [
        "a.weight", "a.weight", "a.weight", "a.bias", "logit_scale",
    ]  # fmt: skip


KEY = "conv_in.weight"


@pytest.mark.parametrize(
    ("edit", "said", "cause"),
    [
        (lambda t: t.pop(KEY), f"1 keys missing: {KEY}", "The file is incomplete"),
        (lambda t: t.update(new=np.ones(2)), "1 keys unexpected: new", "a smaller model than the weights"),
        (lambda t: t.update({KEY: t[KEY][1:]}), f"{KEY} is (15, 4, 3, 3), the config makes it (16, 4, 3, 3)", "size"),
        (lambda t: t.update({"add_embedding.linear_1.weight": np.ones(2)}), "unexpected", "SDXL"),
        (lambda t: t.update({"x.lora_A.weight": np.ones(2)}), "unexpected", "LoRA"),
        (lambda t: t.update({KEY: t[KEY] * np.nan}), f"NaN or infinity: {KEY}", "damaged"),
        (lambda t: [t.pop(k) for k in list(t)[:40]], "40 keys missing", "and 32 more"),
    ],
)
def test_differences_are_named(folder: Path, edit, said: str, cause: str) -> None:
    change(folder / UNET, edit)
    with pytest.raises(WeightsMismatch) as caught:
        read_folder(folder).load()
    assert str(folder / UNET) in str(caught.value)
    assert said in str(caught.value) and cause in str(caught.value)


def test_missing_and_cut_files(folder: Path) -> None:
    whole = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsMismatch, match="not a whole safetensors file"):
        read_folder(folder).load()
    (folder / UNET).unlink()
    with pytest.raises(WeightsMismatch, match="does not exist"):
        read_folder(folder).load()
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(WeightsMismatch, match=r"vae.config\.json does not exist"):
        read_folder(folder).load()


def test_another_kind_of_pipeline(folder: Path) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(WeightsMismatch, match="_class_name is 'StableDiffusionXLPipeline'"):
        read_folder(folder).load()


def test_what_lies_beside_a_model_is_replaced_if_it_is_named(tmp_path: Path, tiny_pipeline) -> None:
    folder = write_pipeline(tmp_path / "model", tiny_pipeline)
    for name in ("card.md", "thesis.txt"):
        (folder / name).write_text("")
    with pytest.raises(WeightsMismatch, match=r"holds thesis\.txt, which"):
        write_pipeline(folder, tiny_pipeline, replaces=("card.md",))
    write_pipeline(folder, tiny_pipeline, replaces=("card.md", "thesis.txt"))
    assert not (folder / "card.md").exists()


def test_a_failed_write_leaves_what_was_there(folder: Path, tiny_pipeline) -> None:
    def fail(_: Path) -> None:
        raise OSError("disk full")

    before = (folder / UNET).read_bytes()
    with pytest.raises(OSError, match="disk full"):
        write_pipeline(folder, tiny_pipeline, np.float16, write_tokenizer=fail)
    assert (folder / UNET).read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_snapshot_round_trip(tiny_pipeline, tmp_path: Path) -> None:
    kernels = cross_attention_kernels(tiny_pipeline.params["unet"])
    rng = np.random.default_rng(0)
    mask = jax.tree.map(lambda w: rng.random(w.shape) < 0.2, kernels)
    rows = rng.normal(size=(4, 32)).astype(np.float32)
    save_snapshot(tmp_path / "a" / "x.safetensors", Snapshot(Memory(mask, kernels, rows), mask))
    read = kept(tmp_path / "a" / "x.safetensors", kernels)
    assert fingerprint(read.memory.kernels) == fingerprint(kernels) and fingerprint(read.mask) == fingerprint(mask)
    np.testing.assert_array_equal(read.memory.rows_rd, rows)
    other = jax.tree.map(lambda w: w[1:], kernels)
    with pytest.raises(ValueError, match="belongs to another model"):
        kept(tmp_path / "a" / "x.safetensors", other)


def test_snapshots_of_earlier_versions_are_read(tiny_pipeline, tmp_path: Path) -> None:
    """They held kernels, rows and the lesson's own mask; the union comes from all lessons' masks so far."""
    kernels, rng = cross_attention_kernels(tiny_pipeline.params["unet"]), np.random.default_rng(0)
    masks = [jax.tree.map(lambda w: rng.random(w.shape) < 0.2, kernels) for _ in range(2)]
    rows = rng.normal(size=(4, 32)).astype(np.float32)
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for file, mask in zip(files, masks, strict=True):
        old = {f"kernel.{name}": np.asarray(leaf) for name, leaf in flatten(kernels).items()}
        old |= {f"mask.{name}": np.packbits(leaf) for name, leaf in flatten(mask).items()}
        save_file({**old, "token_rows": rows}, file)
    read = read_snapshot(CNS(), files, kernels, 6)
    assert fingerprint(read.mask) == fingerprint(masks[1]) and fingerprint(read.memory.kernels) == fingerprint(kernels)
    assert fingerprint(read.memory.union) == fingerprint(jax.tree.map(np.logical_or, *masks))
    np.testing.assert_array_equal(read.memory.rows_rd, np.pad(rows, ((0, 2), (0, 0))))
    assert read_snapshot(Protected(), files[:1], kernels, 0).memory.rows_rd.shape == (4, 32)
