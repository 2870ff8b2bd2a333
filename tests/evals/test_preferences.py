"""The tally of a human study: intervals, shares, and files that are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cns_jax.core.settings import SettingsError
from cns_jax.evals.preferences import Vote, interval, shares, table, tally, wilson

METHODS = ("cns", "lora", "full")


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.0, 10, 0.0, 0.2775), (0.5, 10, 0.2366, 0.7634), (0.9, 50, 0.7864, 0.9565), (1.0, 20, 0.8389, 1.0)],
)
def test_wilson(share: float, count: int, low: float, high: float) -> None:
    """Against published tables of Wilson's interval without continuity correction."""
    np.testing.assert_allclose(wilson(share, count), (low, high), atol=1e-4)


def test_users_who_agree_within_themselves_count_for_little() -> None:
    alike, mixed = interval([20, 0, 20, 0, 20], [20] * 5), interval([12] * 5, [20] * 5)
    assert alike.share == mixed.share == 0.6
    assert alike.high - alike.low > 3 * (mixed.high - mixed.low)


def test_more_users_say_more_than_more_answers() -> None:
    width = lambda s: s.high - s.low  # noqa: E731
    four, many = interval([4, 6, 3, 7], [10] * 4), interval([4, 6, 3, 7] * 10, [10] * 40)
    assert width(many) < width(four) / 3


def test_what_nobody_chose_is_not_certain() -> None:
    none, one = interval([0] * 10, [20] * 10), interval([7], [20])
    assert none.share == none.low == 0 and 0.01 < none.high < 0.05
    assert (one.low, one.high) == wilson(0.35, 20)
    with pytest.raises(ValueError, match="no answers"):
        interval([], [])


def test_the_interval_covers_as_it_says() -> None:
    """Ten users who differ, twenty prompts: the true share lies within in 95 % of studies, not in Wilson's 79 %."""
    rng, truth, users, prompts = np.random.default_rng(0), 0.2, 10, 20
    held = plain = 0
    for _ in range(1000):
        hits = rng.binomial(prompts, rng.beta(8 * truth, 8 * (1 - truth), users)).tolist()
        found = interval(hits, [prompts] * users)
        held += found.low <= truth <= found.high
        low, high = wilson(sum(hits) / (users * prompts), users * prompts)
        plain += low <= truth <= high
    assert 930 <= held <= 975 and plain < 850


def test_shares_of_a_question_sum_to_one() -> None:
    votes = [Vote(f"u{i % 4}", "text", METHODS[i % 3 % 2]) for i in range(40)]
    found = shares(votes, METHODS)
    assert list(found) == ["text"] and found["text"]["full"].share == 0
    assert sum(s.share for s in found["text"].values()) == pytest.approx(1)
    assert all(s.low <= s.share <= s.high for s in found["text"].values())
    lines = table(found, METHODS).splitlines()
    assert len(lines) == 4 and "Text alignment" in lines[0] and lines[3].split()[:3] == ["full", "0.0", "%"]


@pytest.fixture
def key(tmp_path: Path) -> str:
    trials = {f"t{i}": {"pictures": {f"p{i}{m}": m for m in METHODS}} for i in range(4)}
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"study": "abc", "methods": METHODS, "trials": trials}))
    return str(file)


def answers(folder: Path, user: str, methods: str, **changes: Any) -> str:
    """A user who chooses methods[i] (its first letter) at trial i, for both questions."""
    names = {m[0]: m for m in METHODS}
    given = [
        {"trial": f"t{i}", "question": q, "choice": f"p{i}{names[m]}"}
        for i, m in enumerate(methods)
        for q in ("text", "image")
    ]
    file = folder / f"{user}.json"
    file.write_text(json.dumps({"study": "abc", "participant": user, "answers": given, **changes}))
    return str(file)


def test_tally(key: str, tmp_path: Path, caplog) -> None:
    text = tally([answers(tmp_path, "ann", "cccl"), answers(tmp_path, "bob", "cc")], key)
    assert "cns" in text and text.count("83.3 %") == text.count("16.7 %") == 2
    assert "2 users, 12 answers; 33.3 % is chance" in text
    assert "bob.json: 4 of 8 questions are answered" in caplog.text
    assert "1 user, 8 answers" in tally([answers(tmp_path, "ann", "cccc")], key)


def test_files_that_cannot_be_tallied(key: str, tmp_path: Path) -> None:
    good = answers(tmp_path, "ann", "cccc")
    (tmp_path / "copy.json").write_text(Path(good).read_text())
    twice = json.loads(Path(good).read_text())["answers"][:1] * 2
    unknown = [{"trial": "t9", "question": "text", "choice": "p"}]
    bad = {
        "another study": answers(tmp_path, "b", "c", study="xyz"),
        "same user; give the later": str(tmp_path / "copy.json"),
        "is no answer to this study": answers(tmp_path, "c", "", answers=unknown),
        "is damaged at": answers(tmp_path, "d", "", answers=twice),
        "is no answer": answers(tmp_path, "e", "", answers=[3]),
        "is not a file with answers": key,
        "there is no file": str(tmp_path / "none.json"),
    }
    for message, file in bad.items():
        with pytest.raises(SettingsError, match=message):
            tally([good, file], key)
    with pytest.raises(SettingsError, match="is not the key of a study"):
        tally([good], good)
    with pytest.raises(SettingsError, match="hold no answers"):
        tally([answers(tmp_path, "f", "")], key)
