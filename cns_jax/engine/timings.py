"""How long the parts of a run took, kept over interruptions in timings.json."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from cns_jax.core.files import json_in, replacing

_COMPILING = tuple(
    f"/jax/core/compile/{part}_duration" for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


class Timings:
    """Seconds by part: load, priors, encode, select, train, save, sample, evaluate; compile, in or beside others, as
    JAX tells of it inside of a `with` block."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def __enter__(self) -> Timings:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: object) -> None:
        if event in _COMPILING:
            self.seconds["compile"] += duration_secs

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the block towards `name`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begun

    def save(self, file: Path) -> None:
        """Add what was counted since the last save to `file`, where earlier sessions of the run have left theirs."""
        before = json_in(file)  # counting alone: a damaged file is no reason to stop a run
        total = {name: round(before.get(name, 0.0) + s, 2) for name, s in self.seconds.items()}
        value = {**before, **total, "device": jax.devices()[0].device_kind}
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(value, indent=2) + "\n")
        self.seconds.clear()
