"""How this package compiles: jax.jit with options by backend, and folders that keep what was compiled."""

from __future__ import annotations

import inspect
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property, update_wrapper, wraps
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, Generic, ParamSpec, TypeVar

import jax

from cns_jax.core.threads import Beside
from cns_jax.core.xla.platform import platform
from cns_jax.core.xla.programs import ProgramFolder, program_key

log = logging.getLogger(__name__)

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

KEEP_VARIABLE = "CNS_JAX_KEEP_PROGRAMS"
"""The environment variable that switches whole kept programs off: 0."""

_KEPT_BYTES = 4 * 2**30

_WRITTEN = "/jax/compilation_cache/cache_misses"  # said when a program goes to JAX's cache, so newly compiled

_programs: ProgramFolder | None = None


class Jitted(Generic[P, R]):
    """A function under `jax.jit` with OPTIONS of the backend, which is asked for at the first call, not at import."""

    def __init__(self, function: Callable[P, R], **keywords: Any) -> None:
        update_wrapper(self, function)
        self.__name__ = function.__name__
        self._function, self._keywords, self._lock = function, keywords, Lock()
        self._jits: dict[str, Any] = {}
        self._begun = set[str]()
        self._ahead: list[Beside] = []
        self._read: list[tuple[Mapping[str, Any], jax.stages.Compiled]] = []

    @property
    def jitted(self) -> Any:
        """What `jax.jit` returned for `platform`, which traces depend on: it can be lowered, and counts what it has
        compiled."""
        name = platform()
        with self._lock:  # threads that each made their own would each compile
            if name not in self._jits:
                options = compiler_options() or None
                function = self._function if not self._jits else _another(self._function)
                self._jits[name] = jax.jit(function, compiler_options=options, **self._keywords)
            return self._jits[name]

    def ahead(self, *args: Any, **kwargs: Any) -> None:
        """Trace here, and compile beside what the caller does next; calls wait for it. Arrays may be shapes; what
        is called with the same types, weak types and shardings, to the letter, is that program.

        Where an earlier process kept the program (see `keep_compiled`), it is read and nothing is traced.
        """
        static, given = self._parted(args, kwargs)
        name = f"{self._function.__module__}.{self._function.__qualname__}"
        key = program_key(name, static, given, compiler_options())
        if key in self._begun:
            return
        if key:
            self._begun.add(key)
        if key and _programs and key in _programs:
            self._ahead.append(Beside(self._take, _programs, key, static))
        else:
            self._ahead.append(Beside(self._compile, self.jitted.lower(*args, **kwargs), key))

    def _take(self, programs: ProgramFolder, key: str, static: Mapping[str, Any]) -> None:
        try:
            self._read.append((static, programs.load(key)))
        except Exception as error:
            log.info("the kept program of %s cannot be read and is compiled anew: %s", self.__name__, error)

    def _compile(self, lowered: jax.stages.Lowered, key: str | None) -> None:
        with _cache_events() as events:
            program = lowered.compile()
        # what JAX's cache gave lacks functions when it is written again (jaxlib 0.10, on a CPU)
        if key and _programs and _WRITTEN in events:
            Beside(_programs.keep, key, program)  # which nobody waits for

    def _parted(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Any, Any]]:
        """The static arguments, and the others, those without and those with a name."""
        named = self._keywords.get("static_argnames", ())
        names = {named} if isinstance(named, str) else set(named)
        given = [*zip(self._parameters, args, strict=False), *kwargs.items()]
        static = {name: value for name, value in given if name in names}
        others = [value for name, value in given[: len(args)] if name not in names]
        return static, (tuple(others), {name: value for name, value in kwargs.items() if name not in names})

    @cached_property
    def _parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self._function).parameters)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compile for these shapes if that is new, and run."""
        while self._ahead:
            self._ahead.pop().join()
        if self._read:
            static, (others, by_name) = self._parted(args, kwargs)
            for of, program in self._read:
                if of == static:
                    try:
                        return program(*others, **by_name)
                    except (TypeError, ValueError) as error:  # other shapes or placements; nothing has been done yet
                        reason = str(error).partition("\n")[0]
                        log.info("the kept program of %s does not fit and is compiled anew: %s", self.__name__, reason)
        return self.jitted(*args, **kwargs)


def _another(function: Callable[P, R]) -> Callable[P, R]:
    """A function of its own: traces are kept by function, so that a second `jax.jit` of one finds the first's."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return call


def jit(**keywords: Any) -> Callable[[Callable[P, R]], Jitted[P, R]]:
    """A decorator; keywords are those of `jax.jit`."""
    return lambda function: Jitted(function, **keywords)


@contextmanager
def _cache_events() -> Iterator[list[str]]:
    """What JAX's cache says of this thread's compilations in the block."""
    here, events = get_ident(), list[str]()

    def listen(event: str, **_: object) -> None:
        if get_ident() == here:
            events.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_listener(listen)


@cache
def compiler_options() -> dict[str, str]:
    """OPTIONS of the default backend that its compiler takes."""
    wanted = dict(OPTIONS.get(jax.default_backend(), {}))
    if not wanted or _are_taken(wanted):  # nearly always, so one program is compiled to ask for all
        return wanted
    return {name: value for name, value in wanted.items() if _are_taken({name: value})}


def _are_taken(options: dict[str, str]) -> bool:
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # No such compile option
        return False
    return True


def keep_compiled() -> None:
    """Let JAX keep compiled programs in a private folder of the user and reuse them in later processes; and keep those
    that are begun ahead and compiled anew whole, so that later processes do not even trace them (see `programs`).

    The folder is cns_jax/compiled under XDG_CACHE_HOME or ~/.cache, at most 4 GiB and 1 GiB, the longest unused leaving
    first. CNS_JAX_KEEP_PROGRAMS=0 in the environment leaves only JAX's own cache. Nothing changes where
    jax_compilation_cache_dir is set already (also by JAX_COMPILATION_CACHE_DIR), where jax_enable_compilation_cache is
    off, or where the folder cannot be made or belongs to somebody else, whose programs must not be run.
    """
    global _programs
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cns_jax" / "compiled"
    if _is_private(folder):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _KEPT_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a start compiles 30 small programs
        _programs = None if os.environ.get(KEEP_VARIABLE) == "0" else ProgramFolder(folder)


def _is_private(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
