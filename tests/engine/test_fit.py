"""Being asked to stop: between steps when they can be saved, at once in work that keeps what it has done."""

from __future__ import annotations

import os
import signal

import pytest

from cns_jax.engine.teach.fit import Interrupted, StopSignals


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_sets_a_flag_and_a_second_interrupt_stops() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as stop:
        ask()
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_preparations_stop_at_once(number: int) -> None:
    with StopSignals() as stop:
        with pytest.raises(Interrupted, match="stopped while making prior images"), stop.at_once("making prior images"):
            ask(number)
        assert not stop.asked
        ask(number)
        assert stop.asked  # outside, it is a flag again


def test_what_was_asked_before_stops_the_next_preparation() -> None:
    with StopSignals() as stop:
        ask()
        with (
            pytest.raises(Interrupted, match="stopped before making prior images"),
            stop.at_once("making prior images"),
        ):
            raise AssertionError("was begun")
