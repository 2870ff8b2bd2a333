"""Patch files: what older versions wrote is read and has its id, and what is new says so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from tiny_runs import kept

from cns_jax.core.files import digest
from cns_jax.methods.cns import Memory
from cns_jax.weights.changes import Change, LowRank, Sparse
from cns_jax.weights.fidelity import Fidelity
from cns_jax.weights.patch import Patch, PatchError, check_order, read_patch, write_patch
from cns_jax.weights.snapshot import Snapshot, save_snapshot

KERNELS = {"down": {"to_k": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}}
MASK = {"down": {"to_k": {"kernel": np.arange(6).reshape(2, 3) % 2 == 0}}}
SPARSE = Sparse.of(KERNELS, MASK, np.float32)
LOW_RANK = LowRank(np.float32([[1], [2]]), {"down.to_k.kernel": np.float16([[1, 2, 3]])})
MOMENT = np.float32([[1, 2]])


def patch(change: Change = SPARSE, moment: np.ndarray | None = None, **described) -> Patch:
    said = {"name": "cat", "token": "<cat>", "class_word": "cat", "base": "b", "parent": "", **described}
    return Patch(change=change, row_d=np.ones(4, np.float32), moment_kd=moment, **said)


def said(file: Path) -> dict:
    with safe_open(file, "np") as opened:
        return json.loads(opened.metadata()["cns_jax.patch"])


def test_sparse_patches_are_what_they_were(tmp_path: Path) -> None:
    """The id and the file's bytes, as version 1 of the format had them."""
    file = write_patch(tmp_path / "p.safetensors", patch())
    assert patch().id == "c24203e977b5ed34" and digest(file) == "96d718e739b497a4"
    assert said(file)["format"] == "cns-patch-1" and "change" not in said(file)


@pytest.mark.parametrize("change", [SPARSE, LOW_RANK])
@pytest.mark.parametrize("moment", [None, MOMENT])
def test_a_file_gives_back_what_was_written(tmp_path: Path, change: Change, moment: np.ndarray | None) -> None:
    written = patch(change, moment, about={"x": 1}, metadata={"y": "z"})
    file = write_patch(tmp_path / "p.safetensors", written)
    read = read_patch(file)
    assert type(read.change) is type(change) and read.id == written.id == said(file)["id"]
    assert read.about == {"x": 1} and read.metadata == {"y": "z"} and read.change.dtype == change.dtype
    assert (read.moment_kd is None) == (moment is None)
    np.testing.assert_array_equal(read.moment_kd if moment is not None else 0, 0 if moment is None else moment)
    for name, tensor in change.tensors().items():
        np.testing.assert_array_equal(read.change.tensors()[name], tensor)
    # a version that knows sparse patches alone refuses the others by their format
    assert said(file)["format"] == ("cns-patch-1" if change is SPARSE and moment is None else "cns-patch-2")


def test_ids_tell_all_contents_apart() -> None:
    name = "down.to_k.kernel"
    other_basis = LowRank(2 * LOW_RANK.basis_dr, LOW_RANK.coefficients)
    wider = LowRank(LOW_RANK.basis_dr, {name: LOW_RANK.coefficients[name].astype(np.float32)})
    changed = LowRank(LOW_RANK.basis_dr, {name: np.float16([[1, 2, 4]])})
    found = [patch(change, moment).id for change in (SPARSE, LOW_RANK) for moment in (None, MOMENT, 2 * MOMENT)]
    same_bytes = LowRank(LOW_RANK.basis_dr, {name: LOW_RANK.coefficients[name].view(ml_dtypes.bfloat16)})
    elsewhere = LowRank(LOW_RANK.basis_dr, {"up.to_k.kernel": LOW_RANK.coefficients[name]})
    found += [patch(change).id for change in (other_basis, wider, changed, same_bytes, elsewhere)]
    found += [patch(LOW_RANK, base="c").id, patch(LOW_RANK, parent="x").id, patch(LOW_RANK, token="<dog>").id]
    found += [dataclasses.replace(patch(LOW_RANK), row_d=np.zeros(4, np.float32)).id]
    assert len(set(found)) == len(found)


def test_kinds_follow_each_other_in_order() -> None:
    first = patch()
    second = patch(LOW_RANK, parent=first.id, name="dog", parent_name="cat")
    check_order("b", [], [first, second])
    with pytest.raises(PatchError, match="dog .* follows the patch cat .*, but here no patch is applied"):
        check_order("b", [], [second])
    with pytest.raises(PatchError, match="is applied already"):
        check_order("b", [(first.id, "cat"), (second.id, "dog")], [second])


@pytest.mark.parametrize("change", [SPARSE, LOW_RANK])
def test_another_models_kernels_are_refused(change: Change) -> None:
    for kernels in ({"down": {"to_k": {"kernel": np.ones((3, 2), np.float32)}}}, {"up": KERNELS["down"]}):
        with pytest.raises(PatchError, match="the patch of cat is for a model with other cross-attention kernels"):
            patch(change).apply(kernels)


@pytest.mark.parametrize("change", [SPARSE, LOW_RANK])
def test_differences_are_found(change: Change) -> None:
    one = patch(change)
    before, after = one.replaced_values(KERNELS), one.apply(KERNELS)
    assert one.first_difference(after, before) is None

    def moved(share: float) -> dict:
        """The weights after the patch, but for one that both kinds change."""
        kernel = np.array(after["down"]["to_k"]["kernel"])
        kernel[1, 1] *= np.float32(1 + share)
        return {"down": {"to_k": {"kernel": kernel}}}

    assert one.first_difference(moved(1e-4), before) == "down.to_k.kernel"
    # so much machines may differ by in a sum
    assert one.first_difference(moved(2e-7), before) == (None if change is LOW_RANK else "down.to_k.kernel")
    with pytest.raises(PatchError, match="what the patch of cat overwrote is not kept whole"):
        one.undo(after, {})


def test_what_a_patch_tells_of_its_nearness() -> None:
    told = Fidelity(1e-3, 5e-4, 2e-3, 0.99)
    assert Fidelity.told({"fidelity": json.loads(json.dumps(told.json()))}) == told and told.worst == 2e-3
    assert "99.00%" in str(told) and "0.100%" in str(told) and "0.200%" in str(told)
    assert str(Fidelity()) == "exact to the bit"
    for about in ({}, {"fidelity": 3}, {"fidelity": {"error": 1.0}}, {"fidelity": told.json() | {"mean": "x"}}):
        assert Fidelity.told(about) is None


@pytest.mark.parametrize("moment", [None, np.eye(2, dtype=np.float32)])
def test_snapshots_keep_a_moment(tmp_path: Path, moment: np.ndarray | None) -> None:
    save_snapshot(
        tmp_path / "s.safetensors", Snapshot(Memory(MASK, KERNELS, np.ones((2, 2), np.float32)), MASK, moment)
    )
    read = kept(tmp_path / "s.safetensors", KERNELS).moment_dd
    assert (read is None) == (moment is None)
    np.testing.assert_array_equal(moment if moment is not None else 0, read if read is not None else 0)
