"""A call beside others, and many at once."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from cns_jax.core.threads import Beside, in_threads
from cns_jax.core.xla.compiling import jit


def test_the_caller_goes_on_until_it_waits() -> None:
    may_end, ended = threading.Event(), []

    def work(what: str) -> None:
        may_end.wait(10)
        ended.append(what)

    beside = Beside(work, "a program")
    assert not ended
    may_end.set()
    beside.join()
    assert ended == ["a program"]


def test_a_failure_is_left_to_the_call_that_it_prepared(caplog: pytest.LogCaptureFixture) -> None:
    def prepare() -> None:
        raise ValueError("too large")

    with caplog.at_level(logging.DEBUG):
        Beside(prepare).join()
    assert "prepare, beside other work" in caplog.text and "too large" in caplog.text


def test_many_keep_their_order_and_their_errors() -> None:
    assert in_threads(lambda x: x * x, range(50)) == [x * x for x in range(50)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda x: 1 // x, [1, 0])


def test_threads_share_a_program() -> None:
    double = jit()(lambda x: 2 * x)
    in_threads(double, [np.full(4, i, np.float32) for i in range(8)])
    assert double.jitted._cache_size() == 1
