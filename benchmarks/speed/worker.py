"""A process that holds one side and does one workload whenever it is asked to."""

from __future__ import annotations

import importlib
import os
import resource
import time
from collections.abc import Callable
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.machine import device, processor
from benchmarks.speed.suites import Suite

SIDES = {"cns_jax": "benchmarks.speed.ours", "PyTorch": "benchmarks.torch_reference.workloads"}

_PAUSE = 0.02  # seconds: threads of the side before still spin, for work that might come


class Worker:
    """One workload of one side, in a process of its own, so that its memory is its own too."""

    def __init__(self, side: str, name: str, suite: Suite, folder: Path) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both sides share one card
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side, name, suite, folder), daemon=True)
        self._process.start()
        theirs.close()

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the process tells when it has built the workload and run it once; waits for that."""
        return self._answer()

    def wait(self) -> None:
        """Until the process is ready."""
        _ = self.about

    def seconds(self) -> float:
        """Wall clock of one run, of one step where a run has several."""
        time.sleep(_PAUSE)
        self._pipe.send("run")
        return self._answer()

    def close(self) -> float:
        """End the process; returns the peak of its memory in bytes: the device's, or its own on a CPU."""
        self._pipe.send("close")
        peak = self._answer()
        self._process.join()
        return peak

    def _answer(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the worker died with exit code {self._process.exitcode}; was memory short?") from None
        if kind == "error":
            raise RuntimeError(value)
        return value


def _serve(pipe: Connection, side: str, name: str, suite: Suite, folder: Path) -> None:
    try:
        module = importlib.import_module(SIDES[side])
        begun = time.perf_counter()
        workload = module.workloads(suite, folder)[name]()
        built = time.perf_counter()
        workload.run()
        first = time.perf_counter() - built
        about = {"load": built - begun, "first": first, "per": workload.per}
        about |= {"images": workload.images, "flops": workload.flops, "written": workload.written}
        pipe.send(("ready", about | {"device": _DEVICES[side]()}))
        while pipe.recv() == "run":
            begun = time.perf_counter()
            workload.run()
            pipe.send(("seconds", (time.perf_counter() - begun) / workload.per))
        pipe.send(("peak", peak_bytes(side)))
    except Exception as error:  # told to the parent, which stops
        pipe.send(("error", f"{side}, {name}: {type(error).__name__}: {error}"))


def _torch_device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


_DEVICES: dict[str, Callable[[], str]] = {"cns_jax": device, "PyTorch": _torch_device}


def peak_bytes(side: str) -> float:
    """The most memory that this process has held: on the device, or its own on a CPU."""
    peaks: dict[str, Callable[[], float | None]] = {"cns_jax": _peak_of_jax, "PyTorch": _peak_of_torch}
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
    return peaks[side]() or float(own)


def _peak_of_jax() -> float | None:
    import jax

    statistics = jax.devices()[0].memory_stats() or {}  # None on a CPU
    return statistics.get("peak_bytes_in_use")


def _peak_of_torch() -> float | None:
    import torch

    return float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
