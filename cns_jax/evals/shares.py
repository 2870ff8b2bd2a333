"""Shares of pictures that show something, with 95 % intervals that stay honest where all of a few pictures agree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from cns_jax.evals.bootstrap import Estimate, interval


def share(shown: Sequence[float] | np.ndarray, prompts: Sequence[Hashable]) -> Estimate:
    """The share of ones in `shown` (n,), zeros and ones, with its 95 % interval.

    prompts: the label of each picture. Pictures of one prompt are alike, so where a prompt has several the interval is
    a bootstrap over prompts. Where each has one, or all pictures agree (a bootstrap of equal values has no width, and
    five of five would be "100 % to 100 %"), it is Wilson's for as many trials as there are prompts (Wilson 1927; Brown,
    Cai & DasGupta 2001 recommend it for few trials). Raises ValueError if there are no values, or one is neither 0
    nor 1.
    """
    shown_n = np.asarray(shown, np.float64)
    if not np.isin(shown_n, (0.0, 1.0)).all():
        raise ValueError("a picture shows it (1) or does not (0); leave out what was not judged")
    found = interval(shown_n, ["run"] * len(shown_n), prompts)
    trials = len(set(prompts))
    if trials < len(shown_n) and found.low < found.high:
        return found
    from scipy.stats import binomtest  # half a second, which a start of training does not wait for

    limits = binomtest(round(found.mean * trials), trials).proportion_ci(0.95, method="wilson")
    return Estimate(found.mean, float(limits.low), float(limits.high), found.n)
