"""What a report says of scores, in words, intervals, badges and charts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_runs import (
    EVIL,
    LAYERS,
    NAMES,
    full,
    masks,
    score,
    text_of,
)

from cns_jax.engine.pages.report.board import UNTRUSTED, board
from cns_jax.engine.pages.report.charts import Line, Look, Part, heat_map, line_chart, time_bars
from cns_jax.engine.pages.report.measures import measures
from cns_jax.engine.pages.report.neurons import count_neurons
from cns_jax.engine.pages.report.page import write_report
from cns_jax.engine.pages.report.scores import verdict
from cns_jax.evals.scores import PLAIN, SINGLE, Score, summary
from cns_jax.neurons.statistics import iou


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full(tmp_path_factory.mktemp("report"))


def test_names_cannot_leave_their_place() -> None:
    look = Look.of(0)
    chart = line_chart([Line([(0, 1), (1, 2)], look)], [(0, EVIL)], title='"><b>', x_label=EVIL)
    heat = heat_map([[1, 0.5], [0.5, 1]], [EVIL, "&"], title='"><b>')
    for svg in (chart, heat):
        assert "<script" not in svg and "<b>" not in svg and "&lt;" in svg


def test_masks_are_counted_as_the_statistics_count_them(run: Path) -> None:
    made = masks(3)
    found = count_neurons(sorted((run / "weights").iterdir(), key=lambda f: f.name))
    assert found.weights == 6 * 120 and [bar.label for bar in found.layers] == ["down 0.0", "mid", "up 1.2"]
    assert found.neurons == [sum(int(k["kernel"].sum()) for k in mask.values()) for mask in made]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert found.iou_cc[i, j] == pytest.approx(iou([made[i], made[j]]))
    shares = [float(mask[f"{LAYERS[1]}.to_v"]["kernel"].mean()) for mask in made]
    assert found.layers[1].values == pytest.approx((np.mean(shares), min(shares), max(shares)))


def some_lost(count: int) -> list[Score]:
    """Found in all pictures of 5 prompts when new; at the end, not in those of `count` prompts."""
    lost = {f"p{i}" for i in range(count)}
    rows = scores(0.8, 0.8, (1.0, 1.0))
    return [dataclasses.replace(s, found=0.0) if s.stage == 2 and s.prompt in lost else s for s in rows]


def scores(
    new: float, end: float, found: tuple[float, float] = (math.nan, math.nan), prompts: int = 5, fit: float = 0.3
) -> list[Score]:
    """Of concept 0 of two: likeness 0.6 before, then `new`, then `end`; found when new and at the end. fit: CLIP-T
    after training; 0.3 before."""
    before = math.nan if math.isnan(found[0]) else 0.0
    out = []
    for i in range(prompts):
        shift = 0.01 * i
        for stage, kind, like, seen in (
            (0, PLAIN, 0.6, before), (1, SINGLE, new, found[0]), (2, SINGLE, end, found[1]),
        ):  # fmt: skip
            out.append(Score(stage, kind, f"p{i}", (0,), 0, like + shift, fit if stage else 0.3, seen, {}))
    return out


@pytest.mark.parametrize(
    ("rows", "chips", "words"),
    [
        (scores(0.8, 0.8), ["closer", "kept"], "likeness to its pictures 82 of 100 right after the lesson, 62 before"),
        (scores(0.8, 0.65), ["closer", "faded"], "After one more lesson the likeness has dropped to 67."),
        (scores(0.8, 0.76), ["closer", "kept"], "After one more lesson the likeness is 78."),
        (scores(0.6, 0.6), ["no clear change"], "have not come closer to it by more than chance may do"),
        (scores(0.6, 0.6, (0.0, 0.0)), ["not learned yet"], "Only 0 of 5 pictures show it, and they have not come"),
        (scores(0.8, 0.8, (1.0, 1.0)), ["learned", "kept"], "5 of 5 pictures show it right after its lesson, 0 of 5"),
        (some_lost(1), ["learned", "partly kept"], "After one more lesson 4 of 5 still show it."),
        (some_lost(4), ["learned", "faded"], "After one more lesson only 1 of 5 show it."),
        (scores(0.8, 0.8, (1.0, 0.0)), ["learned", "faded"], "After one more lesson only 0 of 5 show it."),
        (scores(0.8, 0.8, (0.0, 0.0)), ["on its way", "kept"], "have come closer to it, but only 0 of 5 show it"),
        (scores(0.8, 0.8, prompts=1), [], "Likeness to its pictures 80 of 100 right after the lesson, 60 before it."),
        (scores(0.8, 0.8, prompts=4), [], "Likeness to its pictures 82 of 100 right after the lesson, 62 before it."),
        (scores(0.8, 0.8, (1.0, 1.0), prompts=3), [], "3 of 3 pictures show it right after its lesson, 0 of 3 before."),
        (scores(0.8, 0.8, fit=0.2), ["closer, but less true to the prompt", "kept"], "CLIP-T 50 after 75"),
    ],
)  # fmt: skip
def test_verdicts(rows: list[Score], chips: list[str], words: str) -> None:
    found = verdict(rows, 0, 2)
    assert found is not None
    assert [word for word, _ in found.chips] == chips and words in found.sentence
    assert verdict(rows, 1, 2) is None
    untold = verdict(rows, 0, 2, trusted=False)
    assert untold is not None and untold.chips == () and "say little" in untold.sentence


def test_of_the_miniatures_scores_of_photographs_no_badge_is_made(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file, config = tmp_path / "run" / "evaluation" / "evaluation.json", tmp_path / "run" / "config.json"
    evaluation, settings = json.loads(file.read_text()), json.loads(config.read_text())
    for model, clip, drawn, trusted in (
        ("miniature", "miniature", False, False), ("miniature", "openai/clip", False, False),
        ("someone/model", "miniature", False, False), ("someone/model", "openai/clip", False, True),
        ("miniature", "miniature", True, True),
    ):  # fmt: skip
        root = "miniature:1" if drawn else settings["data_root"]
        config.write_text(json.dumps({**settings, "model": model, "data_root": root}))
        file.write_text(json.dumps({**evaluation, "clip": clip}))
        text = text_of(write_report(tmp_path / "run"))
        assert (" learned faded " in text) == trusted and ("Of little worth here" not in text) == trusted
        first = text.partition("The concepts")[0]
        assert (UNTRUSTED in first) != trusted and ("All of several in one prompt" in first) == trusted


def test_likeness_on_the_first_screen() -> None:
    few, many = board(scores(0.8, 0.7, prompts=4), {}), board(scores(0.8, 0.7), {"unchanged": 0.9, "prompts": 8})
    assert few.sentence == "Too few pictures were drawn to tell what was learned from chance: " + (
        "likeness 72 of 100, 62 before training."
    )
    assert few.entries[1].told.interval == "" and few.entries[1].told.count == "4 pictures"
    assert many.sentence == "Pictures that ask for a concept have come closer to those it was taught with: " + (
        "likeness 72 of 100, 62 before training."
    )
    assert [e.what for e in many.entries] == [
        "Likeness right after its lesson",
        "Likeness at the end",
        "Everything else, like before",
    ]
    assert many.entries[1].told.interval == "71 to 73" and many.entries[1].reference == "62 before training"
    assert many.entries[2].told.value == "90" and many.entries[2].reference == "100 is unchanged"
    assert "no closer" in board(scores(0.6, 0.6), {}).sentence
    shown = {"before": [1.0] * 8, "after": [1.0] * 6 + [0.5] * 2}
    control = {"before": {"scene": 1.0}, "after": {"scene": 0.875}}
    rest = board(scores(0.6, 0.6), {"prompts": 8, "unchanged": 1.0, "control": control, "shown": shown}).entries[-1]
    assert (rest.told.value, rest.told.interval, rest.reference) == (
        "88\u00a0%",
        "69 to 100\u00a0%",
        "100\u00a0% before",
    )


def test_no_line_joins_concepts() -> None:
    """A line follows one concept over the lessons; the only other one is the level of before training."""
    rows = [score(k + 1, SINGLE, f"p{j}{i}", (j,), 0, True) for k in range(3) for j in range(k + 1) for i in range(5)]
    rows += [score(0, PLAIN, f"p{j}{i}", (j,), 0, True) for j in range(3) for i in range(5)]
    found = measures(summary(rows, 3), rows, NAMES)
    assert [m.title for m in found] == ["Recognised", "Likeness", "True to the prompt"]
    paths = re.findall(r'<path d="M ([^"]*)" style="fill: none; stroke[^"]*stroke-width: (?:1.4|2.2)', found[0].chart)
    assert len(paths) == 1 + 3
    level, *lines = ([point.split() for point in path.split("L")] for path in paths)
    assert len(level) == 2 and level[0][1] == level[1][1] != lines[0][0][1]  # two ends at 0 %, not at a concept's 100 %
    assert [len(line) for line in lines] == [3, 2, 1]
    row = found[0].rows[0]
    assert (row.before.value, row.new.value, row.end.value) == ("0\u00a0%", "100\u00a0%", "0\u00a0%")
    assert row.end.interval == "0 to 43\u00a0%"
    assert [r.name for r in found[0].sums] == ["mean"]  # nothing of several, nothing without a token at the end
    assert found[0].sums[0].end.value == "67\u00a0%"


def test_time_is_drawn_to_a_scale() -> None:
    chart = time_bars(
        [Part("a", 360, "6 min 0 s"), Part("b", 90, "1 min 30 s"), Part("c" * 30, 0.02, "< 0.1 s")], title=""
    )
    bars = re.findall(r'<path d="M ([\d.]+) [\d.]+ L ([\d.]+) [^"]*z "[^>]*fill: #6f9bd8"', chart)
    widths = [float(right) - float(left) for left, right in bars]
    assert widths[0] > 120 and widths[0] == pytest.approx(4 * widths[1], rel=0.01) and 0 < widths[2] < 1
    assert ">minutes<" in chart and all(
        f">{n}</text>" in chart for n in ("0", "2", "4", "6", "6 min 0 s", "1 min 30 s", "&lt; 0.1 s")
    )
    assert ">seconds<" in time_bars([Part("a", 40, "")], title="") and ">hours<" in time_bars(
        [Part("a", 4e4, "")], title=""
    )


def test_charts_of_little_or_nothing() -> None:
    nothing = line_chart([Line([(0, math.nan)], Look.of(0))], [(0, "1")], title="", x_label="")
    assert nothing == ""
    one = line_chart([Line([(1, 0.5)], Look.of(0))], [(1, "1")], title="", x_label="", percent=True)
    assert "NaN" not in one and "nan" not in one and "50 %" in one
    broken = line_chart([Line([(0, 1), (1, math.nan), (2, 1)], Look("#000"))], [(0, "")], title="", x_label="")
    assert re.search(r'd="M [^"]*M [^"]*" style="fill: none; stroke: #000000', broken)  # taken up anew behind the gap
    tiny = line_chart([Line([(0, 0), (1, 1e-4)], Look("#000"))], [(0, "")], title="", x_label="")
    assert ">5e-5<" in tiny and ">0<" in tiny
    assert len({Look.of(i) for i in range(32)}) == 32
