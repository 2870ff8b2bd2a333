"""How this package compiles: jax.jit with options by backend, and a folder that keeps what was compiled."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from functools import cache, cached_property, update_wrapper
from pathlib import Path
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

import jax

from cns_jax.core.threads import Beside

P = ParamSpec("P")
R = TypeVar("R")

OPTIONS: Mapping[str, Mapping[str, str]] = {
    # sums by YNNPACK compile sooner; its products and convolutions are slower than XLA's own (benchmarks/NOTES.md)
    # LLVM's third level takes a quarter longer than its second, and no program here runs faster for it
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
        "xla_backend_optimization_level": "2",
    },
    # products that share an input become one at the price of copying weights in every step, and of slices before
    # cuDNN's attention; convolutions among the kernels that a CUDA graph launches make a step one graph
    "gpu": {
        "xla_gpu_dot_merger_threshold_mb": "0",
        "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONVOLUTION",
    },
}
"""Of XLA, by backend; one that the installed jaxlib does not know is left out."""

_KEPT_BYTES = 4 * 2**30


class Jitted(Generic[P, R]):
    """A function under `jax.jit` with OPTIONS of the backend, which is asked for at the first call, not at import."""

    def __init__(self, function: Callable[P, R], **keywords: Any) -> None:
        update_wrapper(self, function)
        self._function, self._keywords, self._lock = function, keywords, Lock()
        self._ahead: list[Beside] = []

    @property
    def jitted(self) -> Any:
        """What `jax.jit` returned: it can be lowered, and counts what it has compiled."""
        with self._lock:  # threads that each made their own would each compile
            return self._jitted

    @cached_property
    def _jitted(self) -> Any:
        return jax.jit(self._function, compiler_options=compiler_options() or None, **self._keywords)

    def ahead(self, *args: Any, **kwargs: Any) -> None:
        """Trace here, and compile beside what the caller does next; calls wait for it. Arrays may be shapes; what
        is called with the same types, weak types and shardings, to the letter, is that program."""
        self._ahead.append(Beside(self.jitted.lower(*args, **kwargs).compile))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compile for these shapes if that is new, and run."""
        while self._ahead:
            self._ahead.pop().join()
        return self.jitted(*args, **kwargs)


def jit(**keywords: Any) -> Callable[[Callable[P, R]], Jitted[P, R]]:
    """A decorator; keywords are those of `jax.jit`."""
    return lambda function: Jitted(function, **keywords)


@cache
def compiler_options() -> dict[str, str]:
    """OPTIONS of the default backend that its compiler takes."""
    wanted = OPTIONS.get(jax.default_backend(), {})
    return {name: value for name, value in wanted.items() if _is_taken(name, value)}


def _is_taken(name: str, value: str) -> bool:
    try:
        jax.jit(lambda x: x + 1, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # No such compile option
        return False
    return True


def keep_compiled() -> None:
    """Let JAX keep compiled programs in a private folder of the user and reuse them in later processes.

    The folder is cns_jax/compiled under XDG_CACHE_HOME or ~/.cache, at most 4 GiB, the longest unused leaving first.
    Nothing changes where jax_compilation_cache_dir is set already (also by JAX_COMPILATION_CACHE_DIR), or where the
    folder cannot be made or belongs to somebody else, whose programs must not be run.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cns_jax" / "compiled"
    if _is_private(folder):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _KEPT_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a start compiles 30 small programs


def _is_private(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
