"""Files of weights that went wrong, and things that are no runs: one clear error that names the file."""

from __future__ import annotations

import json
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save, save_file
from tiny_runs import kept as kept_by_cns

from cns_jax.core.files import FileError
from cns_jax.core.settings import SettingsError
from cns_jax.engine.runs.learned import Learned
from cns_jax.methods.cns import Memory
from cns_jax.weights.changes import Change, LowRank, Sparse
from cns_jax.weights.patch import Patch, PatchError, read_patch, write_patch
from cns_jax.weights.snapshot import Snapshot, save_snapshot
from cns_jax.weights.tensors import WeightsMismatch, index_file, read_each

KERNELS = {"down": {"to_k": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}}
MASK = {"down": {"to_k": {"kernel": np.arange(6).reshape(2, 3) % 2 == 0}}}
WHOLE = save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}, {"k": "v"})


def read_all(file: Path) -> None:
    stored, metadata = index_file(file)
    assert all(isinstance(value, str) for value in metadata.values())
    list(read_each(stored.values()))


def changed(data: bytes, kept: float, changes: list[tuple[float, int]]) -> bytes:
    out = bytearray(data[: round(len(data) * (kept if kept < 0.9 else 1))])
    for at, value in changes:
        if out:
            out[int(at * len(out))] = value
    return bytes(out)


CHANGES = st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4)


def _file(folder: str, data: bytes) -> Path:
    file = Path(folder) / "x.safetensors"
    file.write_bytes(data)
    return file


@given(st.floats(0, 1), CHANGES)
@example(0.0, [])
def test_safetensors_cut_and_changed(kept: float, changes: list[tuple[float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = _file(folder, changed(WHOLE, kept, changes))
        try:
            read_all(file)
        except WeightsMismatch as error:
            assert str(file) in str(error)


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "F8_E4M3", "BOOL", "U64", "X9", 3, None]),
        "shape": st.lists(st.integers(-1, 3) | st.sampled_from([2**40, 2**63]), max_size=3) | st.text(max_size=2),
        "data_offsets": st.lists(st.integers(-1, 40) | st.sampled_from([2**62]), max_size=3),
    },
)


def _entry(shape: list[int], offsets: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


HEADERS = st.dictionaries(st.text(max_size=3), ENTRY | st.integers(), max_size=3)


@given(HEADERS, st.binary(max_size=40), st.integers(-9, 9))
@example({"a": _entry([2], [0, 8]), "b": _entry([2], [4, 12])}, b"0" * 12, 0)
@example({"a": _entry([2**40], [0, 2**42])}, b"", 0)
@example({"__metadata__": {"a": 3}, "a": _entry([1], [0, 4])}, b"0000", 0)
def test_headers_of_all_kinds(header: dict[str, Any], data: bytes, off: int) -> None:
    told = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        file = _file(folder, struct.pack("<q", len(told) + off) + told + data)
        try:
            read_all(file)
        except WeightsMismatch as error:
            assert str(file) in str(error)


@pytest.mark.parametrize("length", [1, 2**31, 2**62, -1])
def test_a_header_of_a_huge_declared_length(tmp_path: Path, length: int) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<q", length) + b"{}")
    with pytest.raises(WeightsMismatch, match="x.safetensors"):
        read_all(file)


PATCHED: dict[str, tuple[Change, np.ndarray | None]] = {
    "sparse": (Sparse.of(KERNELS, MASK, np.float32), None),
    "sparse with a moment": (Sparse.of(KERNELS, MASK, np.float32), np.ones((1, 2), np.float32)),
    "low rank": (LowRank(np.ones((2, 1), np.float32), {"down.to_k.kernel": np.ones((1, 3), np.float16)}), None),
    "low rank with a moment": (
        LowRank(np.ones((2, 1), np.float32), {"down.to_k.kernel": np.ones((1, 3), np.float32)}),
        np.ones((2, 2), np.float32),
    ),
}


def patch_of(kind: str) -> Patch:
    change, moment = PATCHED[kind]
    described = {"name": "cat", "token": "<cat>", "class_word": "cat", "base": "b", "parent": ""}
    return Patch(change=change, row_d=np.ones(4, np.float32), moment_kd=moment, **described)


@pytest.fixture(scope="module", params=PATCHED)
def patch_bytes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_patch(tmp_path_factory.mktemp("patch") / "p.safetensors", patch_of(request.param)).read_bytes()


@given(st.floats(0, 1), CHANGES)
def test_patches_cut_and_changed(patch_bytes: bytes, kept: float, changes: list[tuple[float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            read_patch(_file(folder, changed(patch_bytes, kept, changes)))
        except (PatchError, WeightsMismatch) as error:
            assert "x.safetensors" in str(error)


VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3), max_leaves=4)
DESCRIBED = st.sampled_from(["format", "id", "shapes", "base", "about", "name", "token", "change"])


@given(VALUES, DESCRIBED)
@example({"down.to_k.kernel": [2**40, 2**40]}, "shapes")
@example({"down.to_k.kernel": [-2, -3]}, "shapes")
@example({"elsewhere": [2, 3]}, "shapes")
@example({"down.to_k.kernel": [2, 3, 1]}, "shapes")
@example({"down.to_k.kernel": [2, "3"]}, "shapes")
@example({}, "shapes")
@example("../../x", "name")
@example("cns-patch-1", "format")
@example("cns-patch-2", "format")
@example("sparse", "change")
@example("low-rank", "change")
@example("dense", "change")
def test_patches_that_describe_themselves_wrongly(patch_bytes: bytes, value: Any, key: str) -> None:
    length = struct.unpack("<q", patch_bytes[:8])[0]
    header = json.loads(patch_bytes[8 : 8 + length])
    described = json.loads(header["__metadata__"]["cns_jax.patch"])
    described[key] = value
    header["__metadata__"]["cns_jax.patch"] = json.dumps(described)
    told = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        file = _file(folder, struct.pack("<q", len(told)) + told + patch_bytes[8 + length :])
        try:
            read_patch(file)
        except (PatchError, WeightsMismatch) as error:
            assert "x.safetensors" in str(error)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"basis": None}, "its basis is missing"),
        ({"basis": np.ones(2, np.float32)}, "its basis is of the shape (2,)"),
        ({"basis": np.ones((2, 0), np.float32)}, "its basis is of the shape (2, 0)"),
        ({"basis": np.ones((2, 3), np.float32)}, "its basis is of the shape (2, 3)"),
        ({"basis": np.ones((3, 1), np.float32)}, "down.to_k.kernel does not fit its shape"),
        ({"basis": np.ones((2, 1), np.float64)}, "its basis is of float64"),
        ({"basis": np.float32([[1], [np.nan]])}, "basis holds what is no finite number"),
        ({"coefficients.down.to_k.kernel": None}, "down.to_k.kernel does not fit its shape"),
        ({"coefficients.down.to_k.kernel": np.ones((3, 1), np.float32)}, "down.to_k.kernel does not fit its shape"),
        ({"coefficients.down.to_k.kernel": np.ones((1, 3), np.int32)}, "numbers of int32"),
        ({"coefficients.down.to_k.kernel": np.float16([[1, np.inf, 1]])}, "holds what is no finite number"),
        ({"moment": np.ones((2, 3), np.float32)}, "its moment has the shape (2, 3), its kernels read [2] features"),
        ({"moment": np.ones(2, np.float32)}, "its moment has the shape (2,)"),
        ({"moment": np.ones((2, 2), np.int32)}, "its moment holds what is no finite float32"),
        ({"moment": None}, "its content has the id"),
        ({"token_row": None}, "it has no token_row"),
        ({"token_row": np.zeros(4, np.float32)}, "its content has the id"),
        ({"coefficients.down.to_k.kernel": np.zeros((1, 3), np.float32)}, "its content has the id"),
    ],
)
def test_patches_of_low_rank_that_do_not_fit(tmp_path: Path, tensors: dict[str, Any], said: str) -> None:
    file = write_patch(tmp_path / "p.safetensors", patch_of("low rank with a moment"))
    held = load_file(file) | tensors
    save_file({k: v for k, v in held.items() if v is not None}, file, index_file(file)[1])
    with pytest.raises(PatchError, match=re.escape(said)) as caught:
        read_patch(file)
    assert str(file) in str(caught.value)


@given(st.floats(0, 1), CHANGES)
def test_snapshots_cut_and_changed(kept: float, changes: list[tuple[float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.safetensors"
        save_snapshot(file, Snapshot(Memory(MASK, KERNELS, np.ones((2, 2), np.float32)), MASK))
        file.write_bytes(changed(file.read_bytes(), kept, changes))
        try:
            kept_by_cns(file, KERNELS)
        except ValueError as error:  # WeightsMismatch is one
            assert str(file) in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("name", "token", "class_word", "kind", "weights", "mask")
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))
LEDGER = {"base": JSON, "base_kernels": JSON, "concepts": JSON | st.lists(ROW), "current": JSON}


@given(st.fixed_dictionaries({}, optional=LEDGER) | JSON)
def test_ledgers_of_all_kinds(ledger: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text('{"name": "x", "data_root": "miniature:1"}')
        (Path(folder) / "ledger.json").write_text(json.dumps(ledger))
        try:
            learned = Learned.of(folder)
        except (SettingsError, FileError) as error:
            assert folder in str(error)
        else:
            assert all(isinstance(token, str) for token in learned.tokens)


def test_things_that_are_no_runs(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "x.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("x.png", "nowhere", "", "loop", "x.png/y", "~nobody/x", "a\0b", "x" * 300):
        with pytest.raises((SettingsError, OSError)):
            Learned.of(str(tmp_path / name) if name else "")
