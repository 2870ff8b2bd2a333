"""Changes of low rank: nearest in the sense of what prompts read, told at every rank, and as small as promised."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cns_jax.weights.changes import LowRank, Sparse
from cns_jax.weights.shared_basis import decompose, factor, norm

D, OUT = 24, {"a.to_k.kernel": 8, "a.to_v.kernel": 8, "b.to_k.kernel": 20}
SD15 = [320] * 10 + [640] * 10 + [1280] * 12  # widths of its 32 kernels, which read 768 features


def kernels(seed: int, size: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (size * rng.normal(size=(D, out))).astype(np.float32) for name, out in OUT.items()}


def text(seed: int, count: int = 60) -> np.ndarray:
    """Features of a steep spectrum, (count, D)."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(D, D)))[0]
    return (rng.normal(size=(count, D)) * np.logspace(0, -3, D)) @ turned


def moment(x_nd: np.ndarray) -> np.ndarray:
    return x_nd.T @ x_nd / len(x_nd)


def side_by_side(change: dict[str, np.ndarray], scales: dict[str, float] | None = None) -> np.ndarray:
    return np.concatenate([change[name] * (scales[name] if scales else 1) for name in OUT], axis=1)


def product(change: LowRank) -> dict[str, np.ndarray]:
    zeros = {name: np.zeros((D, out), np.float32) for name, out in OUT.items()}
    return change.apply(zeros)


@pytest.mark.parametrize("rank", [1, 5])
def test_a_change_of_that_rank_is_held_exactly(rank: int) -> None:
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(D, rank)) * np.logspace(0, -3, rank)
    change = {name: basis @ rng.normal(size=(rank, out)) for name, out in OUT.items()}
    before = kernels(1)
    for weighing in (None, moment(text(2))):
        found = decompose(change, weighing).cut(rank, np.float32).apply(before)
        for name, kernel in before.items():
            assert found[name].dtype == np.float32
            error = np.abs(found[name] - (kernel + change[name])).max() / np.abs(kernel + change[name]).max()
            assert error <= 1e-6, name


def dense(change: dict[str, np.ndarray], weighing: np.ndarray | None, scales: dict[str, float] | None, ridge: float):
    """What no matrix of rank r can be nearer than, r = 0 to D: singular values of H D, by Cholesky, not by roots."""
    c = np.eye(D) if weighing is None else weighing / (np.trace(weighing) / D) + ridge * np.eye(D)
    values = np.linalg.svd(np.linalg.cholesky(c).T @ side_by_side(change, scales), compute_uv=False)
    return c, np.sqrt(np.append(np.cumsum(values[::-1] ** 2)[::-1], 0))


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_no_other_of_its_rank_is_nearer(weighed: bool, scaled: bool) -> None:
    change = kernels(3)
    weighing = moment(text(4)) if weighed else None
    scales = {name: 1.0 + i for i, name in enumerate(OUT)} if scaled else None
    c, least = dense(change, weighing, scales, 1e-2)
    found = decompose(change, weighing, scales, 1e-2)
    for rank in (1, 4, 11):
        cut = product(found.cut(rank, np.float32))
        left = side_by_side({name: d - cut[name] for name, d in change.items()}, scales)
        assert np.trace(left.T @ c @ left) ** 0.5 == pytest.approx(least[rank], rel=1e-4)


def test_what_prompts_read_is_kept_first() -> None:
    change, x_nd = kernels(5), text(6)
    errors = [max(decompose(change, weighing).errors(change, [moment(x_nd)])[6:7]) for weighing in (None, moment(x_nd))]
    assert errors[1] < 0.25 * errors[0]


def test_errors_are_those_of_every_rank() -> None:
    before, change, concepts = kernels(7), kernels(8, 0.1), [text(9), text(10)]
    after = {name: kernel + change[name] for name, kernel in before.items()}
    found = decompose(change, moment(concepts[0]))
    told = found.errors(after, [x.T @ x for x in concepts])
    assert len(told) == D + 1
    for rank in (1, 3, 10, D - 1, D):
        given = found.cut(rank, np.float32).apply(before)
        wrong = max(
            np.linalg.norm(x @ (given[n] - after[n])) / np.linalg.norm(x @ after[n]) for x in concepts for n in OUT
        )
        assert told[rank] == pytest.approx(wrong, rel=1e-3, abs=1e-6)
    assert norm(after["a.to_k.kernel"], moment(concepts[0])) > 0


def test_what_a_lesson_leaves_alone_stays_alone() -> None:
    """The part that is kept moves prompts, of whatever concept, no further than the whole change does."""
    change, own, other = kernels(11), text(12), text(13, 5)
    protected = np.eye(D) - np.linalg.pinv(other) @ other
    kept_away = {name: protected @ d + 1e-3 * (d - protected @ d) for name, d in change.items()}
    found = decompose(kept_away, moment(own))
    whole = np.linalg.norm(other @ side_by_side(kept_away))
    for rank in range(1, D):
        assert np.linalg.norm(other @ side_by_side(product(found.cut(rank, np.float32)))) <= whole * (1 + 1e-4)


@pytest.mark.parametrize(("dtype", "near"), [(np.float16, 1e-3), (ml_dtypes.bfloat16, 8e-3), (np.float32, 1e-6)])
def test_rounding_is_that_of_the_type_however_small_the_change(dtype, near: float) -> None:
    """float16 alone would lose a change of 1e-8."""
    change = kernels(14, 1e-8)
    cut = decompose(change).cut(D, dtype)
    assert cut.dtype == dtype and cut.basis_dr.dtype == np.float32
    for name, d in product(cut).items():
        assert np.linalg.norm(d - change[name]) <= near * np.linalg.norm(change[name])


def test_nothing_taught_is_no_change() -> None:
    before = kernels(15)
    found = decompose({name: 0 * kernel for name, kernel in before.items()}, moment(text(16)))
    for name, kernel in found.cut(1, np.float16).apply(before).items():
        np.testing.assert_array_equal(kernel, before[name])


def test_one_basis_holds_kernels_of_one_width() -> None:
    with pytest.raises(ValueError, match=r"the kernels read \[3, 4\] features"):
        decompose({"a": np.ones((3, 2)), "b": np.ones((4, 2))})


def test_stable_diffusions_patches_take_at_most_6_mb() -> None:
    """A sparse one without a mask takes 79 MB."""
    for rank, dtype in ((48, np.float32), (56, np.float32), (110, np.float16)):
        names = {f"{i}": np.empty((rank, out), dtype) for i, out in enumerate(SD15)}
        held = LowRank(np.empty((768, rank), np.float32), names).tensors()
        assert 4.9e6 < sum(tensor.nbytes for tensor in held.values()) + 32 * 768 * 4 < 6e6
    masks = {f"{i}": np.empty((768, out), bool) for i, out in enumerate(SD15)}
    assert sum(mask.size for mask in masks.values()) * (4 + 1 / 8) == pytest.approx(79e6, rel=2e-3)


def test_the_factor_of_a_moment() -> None:
    c = moment(text(17))
    np.testing.assert_allclose(factor(c, 2 * D).T @ factor(c, 2 * D), c, atol=1e-7 * np.trace(c))
    leading = factor(c.astype(np.float32), 4)
    assert leading.shape == (4, D) and leading.dtype == np.float32
    left = np.linalg.eigvalsh(c)[:-4]
    assert np.linalg.norm(c - leading.T @ leading) == pytest.approx(np.linalg.norm(left), rel=1e-3)


def test_what_a_change_replaced_is_given_back_to_the_bit() -> None:
    before, rng = kernels(18), np.random.default_rng(19)
    masks = {name: rng.random(kernel.shape) < 0.3 for name, kernel in before.items()}
    values = {name: np.full(int(mask.sum()), 7, np.float16) for name, mask in masks.items()}
    for change in (Sparse(masks, values), decompose(kernels(20)).cut(3, np.float16)):
        given = change.apply(before)
        assert change.shapes == {name: kernel.shape for name, kernel in before.items()}
        assert all(not np.array_equal(given[name], kernel) for name, kernel in before.items())
        back = change.undo(given, change.replaced(before))
        for name, kernel in before.items():
            np.testing.assert_array_equal(back[name], kernel)
            np.testing.assert_array_equal(kernels(18)[name], kernel)  # not written to
