"""What an analysis of neurons says to people: a page of tables and the figures, from its statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cns_jax.core.markdown import table_lines
from cns_jax.evals.figures import Series, bars, curves, heat_map
from cns_jax.evals.neuron_analysis import PAPER, Spread, Statistics

_POOLS = {"diverse": "everyday prompts", "miniature": "the miniature's own prompts"}


@dataclass(frozen=True)
class Analysis:
    """main: the statistics of the model's or the run's own positions and ratio; by_positions, by_ratio: of others
    beside it. calibration, prompts: the pool of the general mask and how many of it. sizes: weights of "K/V", "UNet"
    and "whole model". queries, changes: the edited prompts and what was changed in each. stored: the masks are those
    that a run has trained.
    """

    model: str
    run: str
    stored: bool
    calibration: str
    prompts: int
    sizes: Mapping[str, int]
    queries: Sequence[str]
    changes: Sequence[str]
    main: Statistics
    by_positions: Mapping[str, Statistics]
    by_ratio: Mapping[str, Statistics]

    @property
    def title(self) -> str:
        """The run's folder, or the model's name."""
        return Path(self.run or self.model).name

    @property
    def setting(self) -> str:
        """How neurons were selected, for a subtitle."""
        return (
            f"{self.title}: the top {_share(self.main.ratio, 0)} inputs of every output unit, features over "
            f'"{self.main.positions}".'
        )


def _share(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def page(found: Analysis, figures: Sequence[Path]) -> str:
    """The page, in Markdown. figures: of `draw_figures`, to stand beside the page."""
    main, pool = found.main, _POOLS[found.calibration]
    lines = [
        f"# Neurons of {found.title}",
        "",
        f"{found.setting} General neurons: {found.prompts} of {pool}. "
        f"K/V: the {main.weights:,} weights of the cross-attention's keys and values.",
        "",
    ]
    for drawn, (title, note, head, rows) in _sections(found):
        lines += [f"## {title}", "", note, ""]
        lines += [*table_lines(head, rows), ""] if rows else []
        for figure in figures:
            if figure.stem.startswith(drawn):
                lines += [f"![{figure.stem}]({figure.name})", ""]
    return "\n".join(lines)


Section = tuple[str, str, Sequence[str], Sequence[Sequence[str]]]


def _sections(found: Analysis) -> Iterator[tuple[str, Section]]:
    """What the names of a section's figures begin with, and the section."""
    yield "positions", _four(found)
    yield "always_selected", _always(found)
    yield "prompt_similarity", _edited(found)
    yield "updated_weights", _updated(found)
    yield "overlap", _overlaps(found)
    yield "threshold", _thresholds(found)
    yield "calibration", _lists(found)
    yield "layers", _sides(found)


def _four(found: Analysis) -> Section:
    columns = found.by_positions
    paper = {k: _number(v) if "IoU" in k else _share(v, 0) for k, v in PAPER.items()}
    rows = []
    for name in PAPER:
        form = _number if "IoU" in name else _share
        rows.append([name, *(form(s.four[name]) for s in columns.values()), paper[name]])
    last = [s.always[found.calibration].mean[-1] for s in columns.values()]
    count = len(found.main.always[found.calibration].mean)
    rows.insert(1, [f"... by all {count} prompts", *map(_share, last), ""])
    note = (
        f"Which tokens the norm of a text feature is taken over. Always selected: of one prompt's selection, what all "
        f"{found.prompts} calibration prompts select. Concept mask: of K/V, mean over concepts. IoU: mean over "
        f"{', '.join(found.main.overlaps)}; joint: of all concepts of one together."
    )
    return "The paper's four statistics", note, ["", *columns, "paper"], rows


def _always(found: Analysis) -> Section:
    note = "Neurons that every one of so many prompts selects, as a share of what one prompt selects."
    return "Always selected (Fig. 3)", note, (), ()


def _edited(found: Analysis) -> Section:
    note = f"From one of {len(found.queries)} queries to the next one word changes."
    return "Prompts edited word by word (Fig. 7, 9.1)", note, (), ()


def _updated(found: Analysis) -> Section:
    main, (kv, *larger) = found.main, found.sizes.items()
    rows = []
    concept, base = dict(main.concept), dict(main.base)
    concept["**mean**"], base["**mean**"] = (float(np.mean(list(d.values()))) for d in (main.concept, main.base))
    for name, share in concept.items():
        weights = share * kv[1]
        of = [_share(weights / size, 3) for _, size in larger]
        rows.append([name, _share(base[name]), _share(share, 2), *of, f"{weights:,.0f}"])
    note = (
        f"One prompt selects {_share(main.selected)} of K/V; {_share(main.general)} are general. Base: what all "
        "captions of a concept select. The paper has about 5 % of K/V and 0.13 % of the model, "
        "probably of its UNet."
    )
    if found.stored:
        worst = max(main.differing.values())
        note += (
            f" The masks are those that the run has trained; at most {_share(worst, 3)} of K/V would be chosen anew."
        )
    head = ["concept", "base, of K/V", "mask, of K/V", *(f"of the {name}" for name, _ in larger), "weights"]
    return "Weights that a concept updates (9.2)", note, head, rows


def _overlaps(found: Analysis) -> Section:
    rows = [
        [name, str(len(o.concepts)), *map(_number, (o.pairwise, o.pairwise_by_chance, o.joint, o.joint_by_chance))]
        for name, o in found.main.overlaps.items()
    ]
    note = "IoU of the masks: mean over pairs, and all together. By chance: random masks of the same sizes."
    return "Overlap of masks (9.3)", note, ["", "concepts", "pairs", "by chance", "all", "by chance"], rows


def _thresholds(found: Analysis) -> Section:
    rows = []
    for s in found.by_ratio.values():
        four = s.four
        shares = (s.general, float(np.mean(list(s.base.values()))), four["concept mask"], four["always selected"])
        overlaps = (four["pairwise IoU"], four["joint IoU"])
        rows.append([_share(s.ratio, 0), *map(_share, shares), *map(_number, overlaps)])
    head = ["threshold", "general", "base", "concept", "always selected", "IoU of pairs", "of all"]
    note = "The share of inputs that every output unit keeps. General, base and concept are shares of K/V."
    return "Threshold", note, head, rows


def _lists(found: Analysis) -> Section:
    rows = []
    for name, one in found.main.lists.items():
        spreads = (_spread(one.general), _spread(one.concept))
        rows.append([name, str(one.prompts), str(one.draws), *spreads, f"{one.iou.mean:.2f} ({_range(one.iou, 2)})"])
    note = (
        "Other prompts for the general neurons: their share of K/V, the concepts' masks as shares of K/V, and the IoU "
        "of those with the masks of the default list. In brackets the range over draws and concepts. Lists that lean "
        "to one side are shorter than the default: compare them with as many of any prompts. What a list does to "
        "learning and forgetting was not measured."
    )
    return "Calibration prompts", note, ["list", "prompts", "draws", "general", "concept", "IoU with the default"], rows


def _spread(spread: Spread) -> str:
    share = Spread(*(100 * v for v in (spread.mean, spread.low, spread.high)))
    return f"{share.mean:.1f} % ({_range(share, 1)})"


def _range(spread: Spread, digits: int) -> str:
    return f"{spread.low:.{digits}f} to {spread.high:.{digits}f}"


def _sides(found: Analysis) -> Section:
    layers = found.main.layers
    rows = [[n, *(_share(side[n].mean, 2) for side in (layers.keys, layers.values))] for n in layers.keys]
    note = "The mask as a share of each layer's keys and values, mean over concepts."
    return "Where the concept neurons sit", note, ["layer", "keys", "values"], rows


def draw_figures(found: Analysis, folder: Path) -> list[Path]:
    """Every figure as PNG and SVG into `folder`; returns the PNGs."""
    return [
        _always_selected(found, folder / "always_selected"),
        _always_by_positions(found, folder / "always_selected_by_positions"),
        _similarity(found, folder / "prompt_similarity"),
        _distance(found, folder / "prompt_similarity_by_changes"),
        _updated_bars(found, folder / "updated_weights"),
        *_overlap_maps(found, folder),
        _threshold_shares(found, folder / "threshold_shares"),
        _threshold_overlaps(found, folder / "threshold_overlaps"),
        _list_shares(found, folder / "calibration_shares"),
        _list_overlaps(found, folder / "calibration_overlaps"),
        _layer_bars(found, folder / "layers"),
        _positions_bars(found, folder / "positions"),
    ]


def _always_selected(found: Analysis, stem: Path) -> Path:
    shown = {_POOLS[pool]: Series(c.mean, c.low, c.high) for pool, c in found.main.always.items()}
    longest = max(len(one.y) for one in shown.values())
    shown = {name: one._replace(x=range(1, len(one.y) + 1)) for name, one in shown.items()}
    return curves(
        stem, range(1, longest + 1), shown, percent=True, y_range=(0, 1.02),
        title="How many neurons are selected whatever the prompt?",
        subtitle=f"{found.setting} Mean over all orders of the prompts; the band holds nine orders in ten.",
        x_label="number of prompts", y_label="selected by all of them,\nof one prompt's selection",
        lines={"paper": PAPER["always selected"]},
    )  # fmt: skip


def _always_by_positions(found: Analysis, stem: Path) -> Path:
    shown = {f'"{name}"': Series(s.always[found.calibration].mean) for name, s in found.by_positions.items()}
    return curves(
        stem, range(1, len(found.main.always[found.calibration].mean) + 1), shown, percent=True, y_range=(0, 1.02),
        title="Selected whatever the prompt: which tokens count?",
        subtitle=f"{found.title}, {_POOLS[found.calibration]}, the top {_share(found.main.ratio, 0)} inputs of every "
        "output unit. Mean over all orders of the prompts.",
        x_label="number of prompts", y_label="selected by all of them,\nof one prompt's selection",
        lines={"paper": PAPER["always selected"]},
    )  # fmt: skip


def _similarity(found: Analysis, stem: Path) -> Path:
    rows = [f"{i}  {change}" for i, change in enumerate(found.changes, 1)]
    low = np.floor(20 * np.min(found.main.similarity)) / 20
    return heat_map(
        stem, found.main.similarity, rows, [str(i) for i in range(1, len(rows) + 1)], percent=True, limits=(low, 1.0),
        title="Do prompts that share words share neurons?",
        subtitle=f"{found.setting} From one query to the next one word changes, until all ten have.",
        x_label="query", y_label="query, and the word that changes", color_label="shared neurons, of one selection",
    )  # fmt: skip


def by_changes(matrix: Sequence[Sequence[float]]) -> Series:
    """Mean, lowest and highest of a (q, q) similarity over the pairs that differ in 0, 1, 2, ... words."""
    values = np.asarray(matrix, float)
    diagonals = [np.diagonal(values, k) for k in range(len(values))]
    return Series(*([float(f(d)) for d in diagonals] for f in (np.mean, np.min, np.max)))


def _distance(found: Analysis, stem: Path) -> Path:
    shown = {f'"{name}"': by_changes(s.similarity) for name, s in found.by_positions.items()}
    return curves(
        stem, range(len(found.queries)), shown, percent=True, markers=True,
        title="How far does a changed word change the selection?",
        subtitle=f"{found.title}, features over three choices of tokens: all pairs of the edited queries; the band "
        f"holds those with as many changes. Two random selections would share {_share(found.main.selected, 0)}.",
        x_label="words that differ", y_label="shared neurons, of one selection",
    )  # fmt: skip


def _updated_bars(found: Analysis, stem: Path) -> Path:
    main = found.main
    names = list(main.concept)
    shown = {
        "selected by all captions (base)": Series([main.base[n] for n in names]),
        "without general ones (concept)": Series([main.concept[n] for n in names]),
    }
    return bars(
        stem, [n.replace("_", " ") for n in names], shown, percent=True, horizontal=True,
        title="How many weights belong to a concept?",
        subtitle=f"{found.setting} One prompt selects {_share(main.selected)} of the keys' and values' weights; "
        f"{_share(main.general)} are general.",
        y_label="share of the cross-attention's keys and values", lines={"paper, concept": PAPER["concept mask"]},
        show_values=True,
    )  # fmt: skip


def _overlap_maps(found: Analysis, folder: Path) -> list[Path]:
    out = []
    for group, one in found.main.overlaps.items():
        if one.pairwise is None:
            continue
        matrix = np.where(np.eye(len(one.concepts), dtype=bool), np.nan, one.matrix)
        names = [name.replace("_", " ") for name in one.concepts]
        out.append(
            heat_map(
                folder / f"overlap_{group.replace(' ', '_')}", matrix.tolist(), names, names, limits=(0.0, 1.0),
                title=f"How much do the concepts' masks overlap? {group[0].upper()}{group[1:]}",
                subtitle=f"{found.setting} Mean of all pairs: {one.pairwise:.2f}; by chance "
                f"{one.pairwise_by_chance:.2f}, in the paper {PAPER['pairwise IoU']}. All together: {one.joint:.3f}; "
                f"in the paper {PAPER['joint IoU']}.",
                color_label="intersection over union",
            )
        )  # fmt: skip
    return out


def _threshold_shares(found: Analysis, stem: Path) -> Path:
    rows = list(found.by_ratio.values())
    shown = {
        "general": Series([s.general for s in rows]),
        "base": _of_concepts([list(s.base.values()) for s in rows]),
        "concept": _of_concepts([list(s.concept.values()) for s in rows]),
    }
    return curves(
        stem, [s.ratio for s in rows], shown, percent=True, markers=True, y_range=(0, None),
        ticks={s.ratio: _share(s.ratio, 0) for s in rows},
        title="What the threshold decides: how many neurons",
        subtitle=f'{found.title}, features over "{found.main.positions}"; the bands hold all concepts.',
        x_label="threshold: inputs that every output unit keeps", y_label="share of keys and values",
    )  # fmt: skip


def _of_concepts(values: Sequence[Sequence[float]]) -> Series:
    return Series(*([float(f(row)) for row in values] for f in (np.mean, np.min, np.max)))


def _threshold_overlaps(found: Analysis, stem: Path) -> Path:
    rows = list(found.by_ratio.values())
    nothing = float("nan")
    names = {"always selected": "always selected", "pairwise IoU": "IoU of two masks", "joint IoU": "IoU of all masks"}
    shown = {}
    for key, label in names.items():
        values = [s.four[key] for s in rows]
        shown[label] = Series([nothing if v is None else v for v in values])
    return curves(
        stem, [s.ratio for s in rows], shown, markers=True, y_range=(0, 1), percent=True,
        ticks={s.ratio: _share(s.ratio, 0) for s in rows},
        title="What the threshold decides: how much is shared",
        subtitle=f'{found.title}, features over "{found.main.positions}". Always selected: by all {found.prompts} '
        "calibration prompts, of one prompt's selection.",
        x_label="threshold: inputs that every output unit keeps", y_label="share, or intersection over union",
    )  # fmt: skip


def _interval(spreads: Sequence[Spread]) -> Series:
    return Series(*([getattr(s, side) for s in spreads] for side in ("mean", "low", "high")))


def _list_shares(found: Analysis, stem: Path) -> Path:
    lists = list(found.main.lists.values())
    shown = {
        "general neurons": _interval([one.general for one in lists]),
        "concept neurons": _interval([one.concept for one in lists]),
    }
    return bars(
        stem, list(found.main.lists), shown, percent=True, horizontal=True, show_values=True,
        title="Which calibration prompts? How many neurons they leave",
        subtitle=f"{found.setting} Whiskers: the range over draws and concepts.",
        y_label="share of the cross-attention's keys and values",
    )  # fmt: skip


def _list_overlaps(found: Analysis, stem: Path) -> Path:
    lists = list(found.main.lists.values())
    return bars(
        stem, list(found.main.lists), {"IoU": _interval([one.iou for one in lists])}, horizontal=True, show_values=True,
        title="Which calibration prompts? Whether the same neurons are found",
        subtitle=f"{found.setting} A concept's mask against that of the default list; whiskers: the range over "
        "draws and concepts.",
        y_label="intersection over union with the default's mask",
    )  # fmt: skip


def _layer_bars(found: Analysis, stem: Path) -> Path:
    layers = found.main.layers
    names = list(layers.keys)
    shown = {
        "keys": _interval([layers.keys[n] for n in names]),
        "values": _interval([layers.values[n] for n in names]),
    }
    return bars(
        stem, names, shown, percent=True, show_values=False,
        title="Where do a concept's neurons sit?",
        subtitle=f"{found.setting} Mean over concepts, whiskers: their range. Layers by block and place in it.",
        y_label="concept neurons, of the layer's weights",
    )  # fmt: skip


def _positions_bars(found: Analysis, stem: Path) -> Path:
    def values(four: Mapping[str, float | None]) -> Series:
        return Series([float("nan") if v is None else v for v in four.values()])

    shown = {f'"{name}"': values(s.four) for name, s in found.by_positions.items()} | {"paper": values(PAPER)}
    names = ["always selected, of a selection", "concept mask, of K/V", "IoU of two masks", "IoU of all masks"]
    return bars(
        stem, names, shown, percent=True,
        title="Which tokens should the feature norms run over?",
        subtitle=f"{found.title}: the paper's four statistics for the three choices, beside the paper's.",
        y_label="share, or intersection over union",
    )  # fmt: skip
