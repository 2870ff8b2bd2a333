"""Patches of lessons without a mask: of low rank, among sparse ones, near as they say, taken out again to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_runs import CONCEPTS, call, finished, kept

from cns_jax.core.settings import SettingsError
from cns_jax.core.tree import flatten, map_named
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.runs.export.exporter import Exporter
from cns_jax.engine.runs.export.features import Features
from cns_jax.engine.runs.export.low_rank import wrong
from cns_jax.engine.runs.learned import Learned, kernels_of
from cns_jax.engine.runs.patching import apply, revert, show, verify
from cns_jax.engine.runs.source import find_source
from cns_jax.weights.changes import LowRank, Sparse
from cns_jax.weights.fidelity import Fidelity
from cns_jax.weights.folder import read_folder
from cns_jax.weights.locate import Address
from cns_jax.weights.patch import PatchError, read_patch
from cns_jax.weights.snapshot import Snapshot, save_snapshot

RANK = 3  # of what the lessons without a mask changed, but for a little noise
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: the first lesson with a neuron mask, the second and the third of all weights; the third has kept
    the moment of its text features."""
    folder = finished(tiny_folder, tmp_path_factory.mktemp("run") / "run")
    files = [folder / f"weights/{i + 1:02d}_{name}.safetensors" for i, name in enumerate(CONCEPTS)]
    base, rng = kernels_of(read_folder(tiny_folder).load()), np.random.default_rng(1)
    first = kept(files[0], base)
    kernels, everything = first.memory.kernels, map_named(lambda _, m: np.ones_like(m), first.mask)
    for i, file in enumerate(files[1:]):
        basis = rng.normal(size=(32, RANK))

        def taught(_: str, w: np.ndarray, basis: np.ndarray = basis) -> np.ndarray:
            change = 0.02 * basis @ rng.normal(size=(RANK, w.shape[1])) + 1e-4 * rng.normal(size=w.shape)
            return (w + change).astype(np.float32)

        kernels = map_named(taught, kernels)
        moment = np.diag(np.linspace(1, 2, 32)).astype(np.float32) if i else None
        memory = first.memory._replace(kernels=kernels, union=everything)
        save_snapshot(file, Snapshot(memory, everything, moment))
    return folder


@pytest.fixture(scope="module")
def base(run: Path) -> str:
    return json.loads((run / "config.json").read_text())["model"]


def exported(run: Path, out: Path, **request) -> list[str]:
    return [str(file) for file in export(ExportRequest(str(run), "patch", str(out), **request))[0]]


@pytest.fixture(scope="module")
def patches(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return exported(run, tmp_path_factory.mktemp("patches"), patch_error=3e-3)


@pytest.fixture(scope="module")
def patched(base: str, patches: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apply(Address(base), patches, str(tmp_path_factory.mktemp("patched") / "all"))


def kernels_in(folder: str | Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in flatten(kernels_of(read_folder(folder).load())).items()}


def trained(run: Path, base: str, index: int) -> dict[str, np.ndarray]:
    kernels = kernels_of(read_folder(base).load())
    memory = Learned.of(str(run)).snapshot({"unet": kernels}, index).memory
    return {k: np.asarray(v) for k, v in flatten(memory.kernels).items()}


def test_each_lesson_has_the_form_that_suits_it(patches: list[str]) -> None:
    first, second, third = (read_patch(Path(file)) for file in patches)
    assert isinstance(first.change, Sparse) and Fidelity.told(first.about) == Fidelity()
    for patch in (second, third):
        assert isinstance(patch.change, LowRank) and RANK <= patch.change.rank <= 2 * RANK
        assert patch.change.dtype == np.float16
        told = Fidelity.told(patch.about)
        assert told is not None and 0 < told.mean < told.error and told.worst <= 3e-3 and told.energy > 0.99
    assert (second.parent, third.parent) == (first.id, second.id)
    assert second.moment_kd is None and third.moment_kd is not None
    np.testing.assert_allclose(third.moment_kd.T @ third.moment_kd, np.diag(np.linspace(1, 2, 32)), atol=1e-5)


def test_the_model_is_as_near_as_the_patches_say(run: Path, base: str, patches: list[str], tmp_path: Path) -> None:
    learned = Learned.of(str(run))
    samples = Features(
        Exporter(ExportRequest(str(run), "patch"), learned, find_source(learned.settings.address))
    ).samples
    for count in (1, 2, 3):
        found = kernels_in(apply(Address(base), patches[:count], str(tmp_path / str(count))))
        told = Fidelity.told(read_patch(Path(patches[count - 1])).about)
        wanted = trained(run, base, count - 1)
        *earlier, own = (wrong(wanted, found, text_nd) for text_nd in samples[:count])
        assert told is not None and told.error == pytest.approx(max(own)) and told.mean == pytest.approx(np.mean(own))
        assert told.earlier == pytest.approx(max(map(max, earlier), default=0))


def budget(kernels: dict[str, np.ndarray], rank: int) -> float:
    """MB of a patch of `rank` in float16: its header and its token's row, basis and coefficients."""
    return (2**16 + 4 * 32 + rank * (4 * 32 + 2 * sum(kernel.shape[1] for kernel in kernels.values()))) / 1e6


def test_a_patch_makes_up_for_those_before_it(run: Path, base: str, tmp_path: Path) -> None:
    """The last lesson of this run changes nothing, so its patch holds what the one before had no room for."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    taught = [copy / f"weights/{i + 1:02d}_{name}.safetensors" for i, name in enumerate(CONCEPTS)]
    shutil.copyfile(taught[1], taught[2])
    files = exported(copy, tmp_path / "patches", patch_size=budget(trained(run, base, 1), RANK - 1))
    second, third = (read_patch(Path(file)) for file in files[1:])
    assert isinstance(second.change, LowRank) and second.change.rank == RANK - 1
    told = [Fidelity.told(patch.about) for patch in (second, third)]
    assert told[0] is not None and told[1] is not None and told[1].worst < 0.2 * told[0].worst


def test_exact_patches_are_the_trained_model(run: Path, base: str, tmp_path: Path) -> None:
    files = exported(run, tmp_path / "exact", patch_error=0)
    assert all(isinstance(read_patch(Path(file)).change, Sparse) for file in files)
    found, wanted = kernels_in(apply(Address(base), files, str(tmp_path / "all"))), trained(run, base, 2)
    for name, kernel in wanted.items():
        np.testing.assert_array_equal(found[name], kernel)


def test_verified_and_taken_out_to_the_bit(base: str, patches: list[str], patched: Path, tmp_path: Path) -> None:
    lines = verify(Address(str(patched)), [])
    assert "a change of rank" in lines[1] and "<spotted_dog> are in the model" in lines[1] and len(lines) == 4
    model = str(patched)
    for count in (2, 1, 0):
        model = str(revert(model, str(tmp_path / str(count)))[0])
        found = apply(Address(base), patches[:count], str(tmp_path / f"new{count}")) if count else Path(base)
        assert read_folder(model).load().ids == read_folder(found).load().ids
    one = apply(Address(base), patches[:1], str(tmp_path / "one"))
    rest = apply(Address(str(one)), patches[1:], str(tmp_path / "rest"))
    assert read_folder(rest).load().ids == read_folder(patched).load().ids


def test_changed_weights_are_noticed(patched: Path, tmp_path: Path) -> None:
    for near, said in ((1e-4, "the weights of 03_checked_mug were changed, first in "), (3e-7, "")):
        changed = Path(shutil.copytree(patched, tmp_path / str(near)))
        tensors = load_file(changed / UNET)
        key = next(k for k in tensors if k.endswith("attn2.to_k.weight"))
        tensors[key] = tensors[key] * np.float32(1 + near)
        save_file(tensors, changed / UNET)
        if said:
            with pytest.raises(PatchError, match=said):
                verify(Address(str(changed)), [])
        else:  # another machine's sums; what lies below was kept, and is the base
            assert len(verify(Address(str(changed)), [])) == 4


def test_what_was_overwritten_must_be_whole(patched: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(patched, tmp_path / "x"))
    file = changed / "patches" / "03_checked_mug.undo.safetensors"
    tensors = load_file(file)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, file)
    for act in (lambda: verify(Address(str(changed)), []), lambda: revert(str(changed), str(tmp_path / "y"))):
        with pytest.raises(PatchError, match="what the patch of checked_mug overwrote is not kept whole"):
            act()


def test_a_budget_that_is_too_small_is_told(
    run: Path, base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = budget(trained(run, base, 1), RANK - 1)
    files = exported(run, tmp_path / "small", patch_size=size)
    second = read_patch(Path(files[1]))
    assert isinstance(second.change, LowRank) and second.change.rank == RANK - 1
    told = Fidelity.told(second.about)
    assert told is not None and told.error > 1e-2
    assert any("spotted_dog: no patch of 0.06" in m and f"by up to {told.worst:.2g}" in m for m in caplog.messages)
    assert any("tiger_cat: its exact patch takes 0.01 MB, more than" in m for m in caplog.messages)
    assert Path(files[1]).stat().st_size <= 1e6 * size


def test_weights_of_a_diverged_training_are_refused(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    file = copy / "weights" / "02_spotted_dog.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if key.startswith("memory.kernels."))
    tensors[key][0, 0] = np.nan
    save_file(tensors, file)
    with pytest.raises(SettingsError, match="the weights after spotted_dog hold NaN or infinity"):
        exported(copy, tmp_path / "out")


def test_digits_that_are_asked_for(run: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        files = exported(run, tmp_path / dtype, patch_error=0.02, dtype=dtype)
        assert {str(read_patch(Path(file)).change.dtype) for file in files} == {dtype}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"patch_error": -0.1}, "patch_error=-0.1 must be from 0"),
        ({"patch_error": float("nan")}, "patch_error=nan must be from 0"),
        ({"patch_size": 0.0}, "patch_size=0.0 must be a number of MB above 0"),
        ({"patch_error": 0.0, "dtype": "float16"}, "asks for exact patches, which are float32, not float16"),
        ({"format": "lora", "patch_error": 0.1}, "--patch_error=0.1 belongs to --format=patch, not lora"),
        ({"format": "diffusers", "patch_size": 3.0}, "--patch_size=3.0 belongs to --format=patch, not diffusers"),
    ],
)
def test_what_cannot_be_asked_for(request_: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ExportRequest(**{"run": "runs/x", "format": "patch", **request_})


def test_what_it_says(run: Path, patches: list[str], tmp_path: Path) -> None:
    lines = show(patches[1])
    assert "a change of rank" in lines[2] and "float16" in lines[2] and "K and V are wrong by up to" in lines[3]
    assert show(patches[0])[3] == "exact to the bit"
    done = call(
        "export", f"--run={run}", "--format=patch", f"--out={tmp_path / 'x'}", "--patch_error=0.01", "--patch_size=3"
    )
    assert done.returncode == 0 and "02_spotted_dog: a change of rank" in done.stderr + done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("format_", ["diffusers", "lora", "custom-diffusion"])
def test_other_formats_take_such_runs(run: Path, base: str, tmp_path: Path, format_: str) -> None:
    file = export(ExportRequest(str(run), format_, str(tmp_path), dtype="float32"))[0][0]
    wanted, before = trained(run, base, 2), kernels_in(base)
    if format_ == "diffusers":
        for name, kernel in kernels_in(file).items():
            np.testing.assert_array_equal(kernel, wanted[name])
    elif format_ == "lora":
        diffs = load_file(file)
        for name, kernel in wanted.items():
            diff = diffs["lora_unet_" + name.removesuffix(".kernel").replace(".", "_") + ".diff"]
            np.testing.assert_allclose(before[name] + diff.T, kernel, atol=1e-6)
    else:
        held = load_file(file)
        for name, kernel in wanted.items():
            module, projection = name.removesuffix(".kernel").rsplit(".", 1)
            np.testing.assert_array_equal(held[f"{module}.processor.{projection}_custom_diffusion.weight"], kernel.T)
