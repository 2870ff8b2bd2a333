"""Counts of packed masks against plain boolean ones, the paper's statistics by hand, prompts, and figures."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cns_jax.evals import neuron_prompts
from cns_jax.evals.figures import Series, bars, curves, heat_map
from cns_jax.evals.neuron_analysis import Counts, Questions, count_kernel, statistics
from cns_jax.evals.neuron_report import by_changes
from cns_jax.miniature.world import ANIMALS, COLORS, OBJECTS, SUBJECTS
from cns_jax.neurons import analysis
from cns_jax.neurons.calibration import DIVERSE_PROMPTS
from cns_jax.neurons.score import scores
from cns_jax.neurons.select import concept_neurons, count
from cns_jax.neurons.statistics import iou
from cns_jax.neurons.top import top_inputs

KEYS, VALUES = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.kernel", "mid_block.attn2.to_v.kernel"


@pytest.fixture
def kernel() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32)  # 180 weights: not whole words


@pytest.fixture
def norms() -> np.ndarray:
    return np.exp(0.3 * np.random.default_rng(1).normal(size=(19, 20))).astype(np.float32)  # not whole batches


def masks_of(kernel: np.ndarray, norms: np.ndarray, ratio: float) -> np.ndarray:
    return np.stack([np.asarray(top_inputs(scores(kernel, row), ratio)).reshape(-1) for row in norms])


def test_selections_are_those_of_the_method(kernel, norms) -> None:
    bits = analysis.selections(kernel, norms, 0.3)
    wanted = masks_of(kernel, norms, 0.3)
    np.testing.assert_array_equal(bits, analysis.pack(wanted))
    np.testing.assert_array_equal(analysis.ones(bits), wanted.sum(1))
    assert wanted.any(0).sum() > wanted.all(0).sum() > 0  # prompts differ
    assert (analysis.selections(kernel, norms, 0.5) != bits).any()


def test_counts_of_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.random.default_rng(2).random((7, 300)) < 0.8
    bits, orders = analysis.pack(masks), np.stack([np.arange(7), np.arange(7)[::-1]])
    monkeypatch.setattr(analysis, "_BLOCK", 2)  # of 5 words
    np.testing.assert_array_equal(analysis.frequency(bits, 300), np.bincount(masks.sum(0), minlength=8))
    wanted = [[masks[order[:k]].all(0).sum() for k in range(1, 8)] for order in orders]
    np.testing.assert_array_equal(analysis.surviving(bits, orders), wanted)
    both = masks.astype(int) @ masks.T
    np.testing.assert_array_equal(analysis.intersections(bits), both)
    either = (masks[:, None] | masks[None]).sum(-1)
    np.testing.assert_allclose(analysis.pairwise_iou(both), both / either)
    np.testing.assert_array_equal(analysis.all_of(bits), analysis.pack(masks.all(0)[None])[0])


def test_no_prompt_selects_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        analysis.all_of(np.zeros((0, 3), np.uint64))


def test_the_mean_over_orders_is_that_of_all_orders() -> None:
    masks = np.random.default_rng(3).random((5, 200)) < 0.7
    bits = analysis.pack(masks)
    every = analysis.surviving(bits, np.asarray(list(permutations(range(5)))))
    mean = analysis.expected_surviving(analysis.frequency(bits, 200))
    np.testing.assert_allclose(mean, every.mean(0))
    assert every.std(0)[1:4].min() > 0  # an order of its own would not do


ASK = Questions(
    pools={"pool": range(8)},
    calibration=[0, 1, 2],
    lists={"default again": [[0, 1, 2]], "any": [[3, 4, 5], [5, 6, 7]], "one": [[0]]},
    groups={"pair": {"cat": [8, 9], "mug": [10, 11]}, "alone": {"dog": [12]}},
    queries=[13, 14, 15],
    orders=4,
)


def both(kernel: np.ndarray, norms: np.ndarray, ask: Questions = ASK, **given) -> dict[str, Counts]:
    out = {}
    for name, one in ((KEYS, kernel), (VALUES, kernel[:, :4] ** 2)):
        out[name] = count_kernel(one.size, analysis.selections(one, norms, 0.3), ask, **given.get(name, {}))
    return out


def test_statistics_agree_with_the_methods_own_masks(kernel, norms) -> None:
    found = statistics("caption", 0.3, both(kernel, norms), ASK)
    tree = {"k": kernel, "v": kernel[:, :4] ** 2}
    chosen = {
        name: concept_neurons(tree, norms[indices], norms[[0, 1, 2]], 0.3)
        for group in ASK.groups.values()
        for name, indices in group.items()
    }
    weights = kernel.size + 20 * 4
    assert found.weights == weights and found.selected == 6 * 13 / weights
    for name, selection in chosen.items():
        assert found.base[name] == count(selection.base) / weights
        assert found.concept[name] == count(selection.concept) / weights > 0
        assert found.general == count(selection.general) / weights
        assert found.differing[name] == 0
    masks = [chosen[name].concept for name in ("cat", "mug")]
    pair, alone = found.overlaps["pair"], found.overlaps["alone"]
    assert pair.pairwise == pair.joint == pytest.approx(iou(masks)) == pytest.approx(pair.matrix[0][1])
    assert alone.pairwise is None and alone.joint is None
    assert found.four["always selected"] == found.general / found.selected
    assert found.four["concept mask"] == pytest.approx(np.mean(list(found.concept.values())))
    assert found.four["pairwise IoU"] == pair.pairwise
    keys = [np.asarray(chosen[name].concept["k"]).mean() for name in found.concept]
    assert found.layers.keys["down 0.1"].mean == pytest.approx(np.mean(keys))
    assert found.layers.keys["down 0.1"].high == pytest.approx(max(keys))
    assert set(found.layers.values) == {"mid"}


def test_curves_of_always_selected_neurons(kernel, norms) -> None:
    curve = statistics("caption", 0.3, both(kernel, norms), ASK).always["pool"]
    assert curve.mean[0] == curve.low[0] == curve.high[0] == 1
    assert all(a >= b for a, b in zip(curve.mean, curve.mean[1:], strict=False)) and curve.mean[-1] < 1
    masks = np.concatenate([masks_of(w, norms[:8], 0.3) for w in (kernel, kernel[:, :4] ** 2)], axis=1)
    assert curve.mean[-1] == curve.low[-1] == curve.high[-1] == masks.all(0).sum() / (6 * 13)
    ask = dataclasses.replace(ASK, orders=0)
    without = statistics("caption", 0.3, both(kernel, norms, ask), ask).always["pool"]
    assert without.low is None and without.mean == curve.mean


def test_calibration_lists(kernel, norms) -> None:
    found = statistics("caption", 0.3, both(kernel, norms), ASK)
    again, other, one = (found.lists[name] for name in ASK.lists)
    assert again.iou.low == again.iou.high == 1 and again.general.mean == pytest.approx(found.general)
    assert other.draws == 2 and other.prompts == 3 and 0 < other.iou.low < other.iou.high
    assert one.general.mean == found.selected > again.general.mean
    assert one.concept.mean < again.concept.mean


def test_given_masks_take_the_place_of_chosen_ones(kernel, norms) -> None:
    full = {name: {"masks_cw": analysis.pack(np.ones((3, n), bool))} for name, n in ((KEYS, 180), (VALUES, 80))}
    found = statistics("caption", 0.3, both(kernel, norms, **full), ASK)
    usual = statistics("caption", 0.3, both(kernel, norms), ASK)
    assert set(found.concept.values()) == {1.0} and found.overlaps["pair"].pairwise == 1
    assert found.differing["cat"] == pytest.approx(1 - usual.concept["cat"])
    assert found.base == usual.base and found.lists == usual.lists


def test_similarity_of_prompts(kernel, norms) -> None:
    norms[14] = norms[13]
    found = statistics("caption", 0.3, both(kernel, norms), ASK)
    assert np.diagonal(found.similarity).tolist() == [1, 1, 1]
    assert found.similarity[0][1] == found.similarity_iou[0][1] == 1
    shared = found.similarity[0][2]
    assert 0.3 < shared < 1 and found.similarity_iou[0][2] == pytest.approx(shared / (2 - shared))
    assert by_changes([[1, 0.8, 0.5], [0.8, 1, 0.6], [0.5, 0.6, 1]])[:3] == (
        [1, 0.7, 0.5],
        [1, 0.6, 0.5],
        [1, 0.8, 0.5],
    )


@pytest.mark.parametrize("pairs", [neuron_prompts.PAIRS, neuron_prompts.WORLD_PAIRS])
def test_queries_change_word_by_word(pairs) -> None:
    queries = [query.lower().replace(",", "").split() for query, _ in neuron_prompts.edited(pairs)]
    assert len(queries) == 11 and all(len(words) == 10 for words in queries)
    for i, one in enumerate(queries):
        for j, other in enumerate(queries):
            assert sum(a != b for a, b in zip(one, other, strict=True)) == abs(i - j)
    assert [i for i, (a, b) in enumerate(zip(queries[0], queries[1], strict=True)) if a != b] == [8]
    assert not set(queries[0]) & set(queries[-1])


def test_the_papers_example_query() -> None:
    queries = [query for query, _ in neuron_prompts.edited(neuron_prompts.PAIRS)]
    assert queries[0] == "Rainy beach, orange sky, palm trees, green sand, calm ocean"
    assert queries[1].endswith("wild ocean") and queries[2].endswith("wild horse")
    words = {w for pair in (*neuron_prompts.WORLD_PAIRS[0], *neuron_prompts.WORLD_PAIRS[1]) for w in pair}
    assert words <= {*COLORS, *SUBJECTS}


def test_skewed_lists_are_skewed() -> None:
    diverse, world = neuron_prompts.skewed("diverse"), neuron_prompts.skewed("miniature")
    for pool, lists in (("diverse", diverse), ("miniature", world)):
        assert all(5 < len(prompts) <= 12 for prompts in lists.values())
        full = set(lists.get("full captions", ()))
        assert full <= set(neuron_prompts.general_pool(pool))
        assert all(set(prompts) <= set(neuron_prompts.pool_of(pool)) | full for prompts in lists.values())
    assert not any(set(p.split()) & set(OBJECTS) for p in world["animals only"])
    assert not any(set(p.split()) & set(ANIMALS) for p in world["objects only"])
    assert diverse["animals only"] == DIVERSE_PROMPTS[:12] and "a cat sleeping on a sofa" in diverse["animals only"]
    assert "a comic strip about a detective" in diverse["styles only"]
    assert len({p for prompts in diverse.values() for p in prompts}) == sum(map(len, diverse.values()))


def test_concepts_without_pictures() -> None:
    sets = neuron_prompts.miniature_sets()
    assert [len(one) for one in sets.values()] == [7, 7, 7]
    assert len(neuron_prompts.EXAMPLE_CONCEPTS) == 7
    for group in (*sets.values(), neuron_prompts.EXAMPLE_CONCEPTS):
        assert all(len(captions) == 5 and "<" not in "".join(captions) for captions in group.values())


def draw_all(folder: Path) -> list[Path]:
    nan = float("nan")
    return [
        curves(
            folder / "a.b", [1, 2, 3],
            {"one": Series([1, 2, nan], [0, 1, nan], [2, 3, nan]), "two": Series([2, 1], x=[1, 3])},
            title="A title", x_label="x", y_label="y", lines={"paper": 1.5}, markers=True, ticks={1: "first"},
        ),
        bars(
            folder / "upright", ["a", "b"], {"one": Series([1, nan]), "two": Series([2, 3], [1, 2], [3, 4])},
            title="A title", y_label="y", lines={"paper": 1.5},
        ),
        bars(
            folder / "lying", ["a", "b"], {"one": Series([0.1, 0.2])}, title="A title", y_label="y", horizontal=True,
            percent=True, lines={"paper": 0.15},
        ),
        heat_map(
            folder / "map", [[1, nan], [0.5, 0.2]], ["a", "b"], ["long name", "d"], title="A title", color_label="c",
            subtitle="what is shown, " * 12,
        ),
    ]  # fmt: skip


def test_figures_are_pictures_and_the_same_again(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    files = draw_all(tmp_path / "one")
    assert [f.name for f in files] == ["a.b.png", "upright.png", "lying.png", "map.png"]
    for file, again in zip(files, draw_all(tmp_path / "two"), strict=True):
        pixels = np.asarray(Image.open(file).convert("L"))
        assert min(pixels.shape) > 250 and pixels.min() < 60 < 250 < pixels.max()
        assert file.read_bytes() == again.read_bytes()
        assert file.with_suffix(".svg").read_bytes() == again.with_suffix(".svg").read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_waits_until_something_is_drawn() -> None:
    look = "import sys, cns_jax.evals.neuron_report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0


def test_intervals_and_lines_are_drawn(tmp_path: Path) -> None:
    labels = {"title": "A title", "x_label": "x", "y_label": "y", "y_range": (0, 4)}
    plain = curves(tmp_path / "plain", [1, 2], {"one": Series([1, 2])}, **labels)
    band = curves(tmp_path / "band", [1, 2], {"one": Series([1, 2], [0, 1], [2, 4])}, **labels)
    line = curves(tmp_path / "line", [1, 2], {"one": Series([1, 2])}, lines={"paper": 3}, **labels)
    plain, band, line = (np.asarray(Image.open(f).convert("L")) < 245 for f in (plain, band, line))
    assert (band & ~plain).sum() > 0.1 * plain.size  # a quarter of the axes
    assert 200 < (line & ~plain).sum() < 0.1 * plain.size
