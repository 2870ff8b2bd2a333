"""One concept: the loop around the jitted steps, with saves, metrics, a progress bar and a clean interrupt."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from cns_jax.core.types import Frozen, TrainState
from cns_jax.engine.progress import Metrics, bar
from cns_jax.engine.settings import TrainSettings
from cns_jax.engine.teach.layout import LessonData
from cns_jax.engine.teach.step import StepSpec, train_steps


class Interrupted(KeyboardInterrupt):
    """The user or the machine asked to stop; everything up to now is saved."""

    def __str__(self) -> str:
        return f"{super().__str__()}; run the same command again to go on from there"


class Diverged(ArithmeticError):
    """A loss or a weight is no finite number any more; the checkpoints up to then are."""


class StopSignals:
    """While active, SIGINT and SIGTERM set a flag that is polled between calls; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._doing = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self, doing: str) -> Iterator[None]:
        """For work that keeps by itself what it has done: inside, as at entry, to be asked raises Interrupted."""
        if self.asked:
            raise Interrupted(f"stopped before {doing}")
        self._doing = doing
        try:
            yield
        finally:
            self._doing = ""

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self._doing:
            raise Interrupted(f"stopped while {self._doing}")
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


@dataclass(frozen=True)
class Fit:
    """What the loop needs besides the state. steps: of the lesson; save: called with (step, state) at every step to
    keep; look: called with them every settings.sample_every steps; hold: called with them _HOLDS times a lesson and at
    its end, may return another state."""

    spec: StepSpec
    settings: TrainSettings
    steps: int
    metrics: Metrics
    save: Callable[[int, TrainState], None]
    stop: StopSignals
    look: Callable[[int, TrainState], None] = lambda step, state: None
    hold: Callable[[int, TrainState], TrainState] = lambda step, state: state

    def run(self, name: str, state: TrainState, frozen: Frozen, data: LessonData, key: jax.Array) -> TrainState:
        """Train from state.step to `steps`. Raises Interrupted after saving when asked to stop, and Diverged, before
        anything of it is saved, for a loss or weights that are not finite."""
        at, call = int(state.step), self.settings.steps_per_call
        every = call * max(1, self.steps // (call * _HOLDS))
        self.metrics.rewind(name, at)
        pending: dict[str, jax.Array] | None = None
        with bar(name, self.steps, at) as progress:
            begun = time.perf_counter()
            while at < self.steps:
                state, logs = train_steps(self.spec, call, state, frozen, data.at(at // call), key)
                # the logs of a call are read after the next one was sent off, so that the device never waits
                if pending is not None:
                    self._log(name, at, pending, begun, progress)
                    begun = time.perf_counter()
                pending, at = logs, at + call
                if at % every == 0 or at == self.steps:  # not when asked to stop: a resumed lesson takes the same steps
                    state = self.hold(at, state)
                if at % self.settings.save_every == 0 or at == self.steps or self.stop.asked:
                    self._check(name, at, pending, state)
                    self.save(at, state)
                if self.stop.asked and at < self.steps:
                    raise Interrupted(f"stopped in {name} at step {at} of {self.steps}")
                if self.settings.sample_every and at % self.settings.sample_every == 0:
                    self.look(at, state)
                progress.update(call)
            if pending is not None:
                self._log(name, at, pending, begun, progress)
        return state

    def _log(self, name: str, step: int, logs: dict[str, jax.Array], begun: float, progress: Any) -> None:
        values = {k: float(v) for k, v in logs.items()}
        if not math.isfinite(values["loss"]):
            raise Diverged(f"{name}: the loss is {values['loss']} at step {step}")
        values["steps_per_second"] = self.settings.steps_per_call / max(time.perf_counter() - begun, 1e-9)
        self.metrics.write(name, step, values)
        progress.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)

    def _check(self, name: str, step: int, logs: dict[str, jax.Array], state: TrainState) -> None:
        """What is saved can be gone on from: the last update is in no loss yet."""
        loss = float(logs["loss"])
        if not math.isfinite(loss) or not bool(_finite(state.trainable)):
            raise Diverged(f"{name}: the loss is {loss} at step {step}, and weights are not finite any more")


_HOLDS = 10


@jax.jit
def _finite(trainable: Any) -> jax.Array:
    """Whether every number of it is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trainable)]).all()
