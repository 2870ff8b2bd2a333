"""The training loop shared by all stages of pre-training: jitted step, averaged weights, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cns_jax.core.rng import stream
from cns_jax.core.settings import SettingsError
from cns_jax.core.xla.compiling import jit
from cns_jax.engine.checkpoint import Checkpoints
from cns_jax.engine.pretrain.settings import StageSettings
from cns_jax.engine.progress import Metrics, bar
from cns_jax.engine.teach.fit import Interrupted, StopSignals

Loss = Callable[[Any, jax.Array, Any], tuple[jax.Array, dict[str, jax.Array]]]


class LoopState(NamedTuple):
    """What a checkpoint of a stage holds. average: the exponential moving average of params."""

    step: jax.Array
    params: Any
    average: Any
    opt_state: Any


def optimizer(settings: StageSettings) -> optax.GradientTransformation:
    """AdamW with clipping, warm-up and a cosine to zero."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(settings.warmup, settings.steps // 2), settings.steps
    )
    adam = optax.adamw(schedule, b2=0.99, weight_decay=settings.weight_decay)
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def train(
    name: str,
    settings: StageSettings,
    directory: Path,
    params: Any,
    loss: Loss,
    data: Any,
    seed: int,
) -> Any:
    """Train `params` for settings.steps and return their moving average; resumes from `directory`.

    loss: (params, key of this step, data) -> (scalar, named scalars); data: a pytree kept on the device. Ctrl-C and
    SIGTERM save and raise Interrupted. Raises SettingsError, and saves nothing, where a logged loss or what would be
    saved is not finite.
    """
    transform = optimizer(settings)
    metrics = Metrics(directory)
    checkpoints = Checkpoints(directory / "checkpoints", keep=1)
    state = LoopState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), transform.init(params))
    newest = checkpoints.latest()
    if newest is not None:
        state = checkpoints.restore(newest, state)
        metrics.rewind(name, newest)

    def step(state: LoopState, key: jax.Array, data: Any) -> tuple[LoopState, dict[str, jax.Array]]:
        of = lambda p: loss(p, stream(key, name, state.step), data)  # noqa: E731
        (value, logs), gradient = jax.value_and_grad(of, has_aux=True)(state.params)
        updates, opt_state = transform.update(gradient, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates)
        # a young average forgets its random start: the decay grows to its final value
        decay = jnp.minimum(settings.ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda a, p: a * decay + p * (1 - decay), state.average, new)
        return LoopState(state.step + 1, new, average, opt_state), {"loss": value, **logs}

    key = jax.random.key(seed)
    at = int(state.step)
    if at < settings.steps:  # before signals are only noted: a compilation may take long, and has nothing to save
        program = jit(donate_argnums=0)(step).jitted.lower(state, key, data).compile()
    with closing(checkpoints), closing(metrics), bar(name, settings.steps, at) as progress, StopSignals() as stop:
        since, counted = time.perf_counter(), at
        while at < settings.steps:
            state, logs = program(state, key, data)
            at += 1
            if at % 20 == 0 or at == settings.steps:
                values = {k: float(v) for k, v in logs.items()}
                _finite(all(map(math.isfinite, values.values())), name, at, settings, checkpoints)
                now = time.perf_counter()
                values["steps_per_second"] = (at - counted) / (now - since)
                since, counted = now, at
                metrics.write(name, at, values)
                progress.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
            if at % settings.save_every == 0 or at == settings.steps or stop.asked:
                _finite(all(map(_is_finite, jax.tree.leaves(state))), name, at, settings, checkpoints)
                checkpoints.save(at, state)
            if stop.asked and at < settings.steps:
                raise Interrupted(f"stopped in {name} at step {at} of {settings.steps}")
            progress.update(1)
    return state.average


def _is_finite(leaf: jax.Array) -> bool:
    return bool(np.isfinite(np.asarray(leaf)).all())


def _finite(holds: bool, name: str, step: int, settings: StageSettings, checkpoints: Checkpoints) -> None:
    if holds:
        return
    newest = checkpoints.latest()
    kept = "no checkpoint was saved before" if newest is None else f"the checkpoint of step {newest} is kept"
    raise SettingsError(
        f"stage {name} is not finite at step {step} of {settings.steps}; {kept}. Lower "
        f"--config.{name}.learning_rate={settings.learning_rate:g} and run the command again to go on from there"
    )
