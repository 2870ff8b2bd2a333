"""The tally of a human study: shares of preferences, with 95 % intervals that know that a user answers much alike."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from scipy.special import stdtrit

from cns_jax.core.files import json_in
from cns_jax.core.settings import SettingsError, require

log = logging.getLogger(__name__)

QUESTIONS = {"image": "Image alignment", "text": "Text alignment"}  # in the order of the paper's table 3
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


class Vote(NamedTuple):
    """One answer: who preferred which method at which of QUESTIONS."""

    user: str
    question: str
    method: str


@dataclass(frozen=True)
class Share:
    """The share of answers that prefer a method, in [0, 1], and its 95 % interval."""

    share: float
    low: float
    high: float


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in `count` independent answers; `count` need not be whole."""
    centre = share + _Z**2 / (2 * count)
    half = _Z * sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)
    low, high = ((centre + sign * half) / (1 + _Z**2 / count) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def interval(hits: Sequence[int], asked: Sequence[int]) -> Share:
    """The share sum(hits) / sum(asked) with its interval; user u chose the method hits[u] times of asked[u] > 0.

    Wilson's interval with the effective number of answers (Korn and Graubard 1998, Dean and Pagano 2015): a user's
    answers resemble each other, so they count as fewer, by the variance between users over that of independent
    answers, and by Student's t because that variance comes from few users. In simulated studies of 10 users who
    differ, it held the true share in 95 % of cases; Wilson's over all answers in 72 to 79 %, and the bootstrap over
    users in 90 %, which also calls a method that nobody chose 0 % for certain. Of one user nothing is known about
    other users: the interval is then that of his own further answers.
    Raises ValueError without answers.
    """
    if not asked or min(asked) < 1:
        raise ValueError("no answers")
    users, total = len(asked), sum(asked)
    share, effective = sum(hits) / total, float(total)
    if users > 1:
        between = sum((h - share * n) ** 2 for h, n in zip(hits, asked, strict=True)) * users / (users - 1) / total**2
        independent = share * (1 - share) / total
        if independent > 0:
            effective /= max(1.0, between / independent)
        effective *= (stdtrit(max(total - 1, 1), 0.975) / stdtrit(users - 1, 0.975)) ** 2
    return Share(share, *wilson(share, effective))


def shares(votes: Sequence[Vote], methods: Sequence[str]) -> dict[str, dict[str, Share]]:
    """Each question's share of each method. Questions that nobody answered are left out."""
    out = {}
    for question in QUESTIONS:
        asked = Counter(v.user for v in votes if v.question == question)
        hits = Counter((v.user, v.method) for v in votes if v.question == question)
        if asked:
            out[question] = {m: interval([hits[u, m] for u in asked], list(asked.values())) for m in methods}
    return out


def table(result: Mapping[str, Mapping[str, Share]], methods: Sequence[str]) -> str:
    """For people: a method a line, a question a column, percentages with their intervals."""
    width = max(len("method"), *map(len, methods))
    lines = [f"{'method':{width}}" + "".join(f"   {QUESTIONS[q]:>22}" for q in result)]
    for method in methods:
        cells = (result[q][method] for q in result)
        texts = (f"{100 * c.share:.1f} % ({100 * c.low:.1f} - {100 * c.high:.1f})" for c in cells)
        lines.append(f"{method:{width}}" + "".join(f"   {text:>22}" for text in texts))
    return "\n".join(lines)


def tally(files: Sequence[str], key_file: str) -> str:
    """The table of the answers in `files`, the users' JSON files.

    Raises SettingsError for a file that is not of the key's study, that is damaged, or whose user comes twice.
    """
    require(bool(files), "tally needs the users' files with answers")
    key = _read(key_file, ("study", "methods", "trials"), "the key of a study; give --key=STUDY/key.json")
    votes: list[Vote] = []
    owners: dict[str, str] = {}
    for file in files:
        answers = _read(file, ("study", "participant", "answers"), "a file with answers that a study's page has saved")
        user = str(answers["participant"])
        require(answers["study"] == key["study"], f"{file} answers another study than that of {key_file}")
        require(user not in owners, f"{owners.get(user)} and {file} are of the same user; give the later one only")
        owners[user] = file
        given = _votes(file, answers, key["trials"])
        asked = len(QUESTIONS) * len(key["trials"])
        if len(given) < asked:
            log.warning("%s: %d of %d questions are answered", file, len(given), asked)
        votes += given
    require(bool(votes), "the files hold no answers")
    text = table(shares(votes, key["methods"]), key["methods"])
    users = f"{len(owners)} user{'s' if len(owners) > 1 else ''}"
    chance = f"{100 / len(key['methods']):.1f} % is chance"
    return f"{text}\n{users}, {len(votes)} answers; {chance}; in brackets 95 % intervals" + (
        "" if len(owners) > 1 else " of this user alone: they say nothing about others"
    )


def _votes(file: str, answers: Mapping[str, Any], trials: Mapping[str, Any]) -> list[Vote]:
    votes = {}
    for answer in answers["answers"]:
        try:
            place = answer["trial"], answer["question"]
            method = trials[place[0]]["pictures"][answer["choice"]]
            require(place[1] in QUESTIONS and place not in votes, f"{file} is damaged at {place}")
        except (KeyError, TypeError):
            raise SettingsError(f"{file} is damaged: {str(answer)[:200]} is no answer to this study") from None
        votes[place] = Vote(str(answers["participant"]), place[1], method)
    return list(votes.values())


def _read(file: str, fields: Sequence[str], what: str) -> dict[str, Any]:
    path = Path(file).expanduser()
    require(path.is_file(), f"there is no file {file}; wanted is {what}")
    value = json_in(path)
    if any(field not in value for field in fields):
        raise SettingsError(f"{file} is not {what}")
    return value
