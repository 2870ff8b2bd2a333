"""How every command starts and ends: its flags and help, one line for an error, a quick end on Ctrl-C."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import platform
import re
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from absl import flags

from cns_jax import __version__

Main = Callable[[list[str]], None]

_HELP = ("--help", "-help", "--helpshort", "-h", "-?")
_TYPES = {"string enum": "NAME", "multi string": "TEXT", "string": "TEXT", "name or file": "NAME_OR_FILE"}
_GRACE = 2.0  # seconds from Ctrl-C to the end of the process where the main thread is inside a library, compiling, say
_STOPPED, _PIPE_CLOSED = 128 + signal.SIGINT, 128 + 13


def command(takes: bool = False, messages: str = "%(message)s") -> Callable[[Main], Callable[[], NoReturn]]:
    """A decorator for the `main` of a command: called without arguments, it reads sys.argv, does it all, and exits.

    main: gets what stands on the command line besides flags. takes: whether there may be any; else it is a mistake.
    messages: the form of log lines. An error that the user can mend (ValueError, OSError, no memory, no such device)
    is one line on stderr and status 1; Ctrl-C is status 130; another exception is a bug, and shown as one.
    """

    def decorate(main: Main) -> Callable[[], NoReturn]:
        @functools.wraps(main)
        def launch() -> NoReturn:
            with ending():
                arguments = parse(main, sys.argv, takes)
                _on_interrupt(_stop_at_once)
                from cns_jax.engine.start import start

                start(messages)
                _on_interrupt(signal.default_int_handler)
                main(arguments)
            sys.exit(0)

        return launch

    return decorate


@contextmanager
def ending() -> Iterator[None]:
    """What ends the block ends the process: see `command`."""
    sys.unraisablehook = _of_a_callback
    with _watching_interrupts():
        try:
            yield
            sys.stdout.flush()
        except KeyboardInterrupt as stopped:
            _stop(str(stopped))
        except BrokenPipeError:  # the reader has what it wanted, as head has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
            sys.exit(_PIPE_CLOSED)
        except Exception as error:
            if _interrupted.is_set() or _of_an_interrupt(error):
                _stop()
            told = told_in_words(error)
            if told is None:
                traceback.print_exc()
                sys.exit(f"This is a bug in cns-jax. Please report it with the lines above and this one: {versions()}")
            sys.exit(f"error: {told}")


def told_in_words(error: Exception) -> str | None:
    """An error that the user can mend, without Python's words around it; None for a bug."""
    text = str(error)
    if isinstance(error, flags.Error):
        return _told_of_flags(error)
    if isinstance(error, OSError) and error.strerror:
        places = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{places[0] if places else 'reading or writing failed'}: {error.strerror}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        first = next(iter(text.splitlines()), "")
        return f"the memory is full ({first or 'of this machine'}); try smaller batches, or --config.train.remat=True"
    system = re.search(r"([^:\"]+) \[os_error_code='\d+'\]", text)  # tensorstore's words for an OSError
    if system:
        place = re.search(r"local file \"([^\"]+?)(\.orbax-[^\"]*)?/*\"", text)
        return f"{place[1] if place else 'writing failed'}: {system[1].strip()}"
    frames = traceback.extract_tb(error.__traceback__)
    if frames and frames[-1].filename.endswith("xla_bridge.py"):  # a RuntimeError, or an assertion, where JAX has none
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(text.split()) or "is its plugin installed, as by pip install 'jax[cuda12]'?"
        return f"JAX finds no device{f' of JAX_PLATFORMS={asked}' if asked else ''}: {reason}"
    if isinstance(error, (ValueError, OSError)) or type(error).__name__ == "SafetensorError":
        return text or type(error).__name__
    return None


def versions() -> str:
    """What a report of a bug should say of the machine."""
    jax = sys.modules.get("jax")
    parts = [f"cns-jax {__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*parts, *([f"jax {jax.__version__}"] if jax else []), platform.platform()])


def parse(main: Main, argv: Sequence[str], takes: bool = False) -> list[str]:
    """Set the flags from a command line, whose first part is the program; returns what is no flag.

    Raises flags.Error or ValueError for what cannot be understood; --help and --version print and exit.
    """
    given = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    if set(given) & {*_HELP, "--helpfull", "--version"}:
        print(f"cns-jax {__version__}" if "--version" in given else help_of(main, "--helpfull" in given))
        sys.exit(0)
    try:
        left = flags.FLAGS(list(argv))[1:]
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:  # of config_flags, for odd paths
        told = str(error).partition(": SyntaxError")[0]
        by_name = any(one.startswith("--config.concepts[") for one in given)
        hint = '; what a concept is, say with --concept="NAME: steps=300, class_word=..."' if by_name else ""
        raise ValueError(f"a --config.SETTING of these cannot be set: {told}{hint}") from None
    if left and not takes:
        hint = " Did you mean --config=" + left[0] + "?" if "config" in flags.FLAGS else ""
        raise ValueError(f"{left[0]!r} is no flag; put a value with spaces between quotes.{hint}")
    return left


def help_of(main: Main, full: bool = False) -> str:
    """The module's docstring and its flags, in the order of the file; full: those of libraries, too."""
    module = inspect.getmodule(main)
    assert module is not None
    own = [value.name for value in vars(module).values() if isinstance(value, flags.FlagHolder)]
    listed = "\n".join(_described(flags.FLAGS[name]) for name in own)
    ours = f"{inspect.cleandoc(module.__doc__ or '')}\n\nFlags:\n{listed}\n"
    return ours + (flags.FLAGS.get_help() if full else "  --help, --version; --helpfull has those of libraries, too")


def _described(flag: flags.Flag[Any]) -> str:
    kind = "" if flag.boolean else "=" + _TYPES.get(flag.flag_type(), flag.flag_type().upper())
    choices = [value for value in getattr(flag.parser, "enum_values", ()) if value]
    told = re.sub(r"^<[^>]*>: |;\s*repeat this option to specify a list of values", "", flag.help or "")  # absl's
    if choices and not all(choice in told for choice in choices):
        told += f" ({', '.join(choices)})"
    if flag.default not in (None, "", False, []):
        told += f" (default: {str(flag.default_as_str).strip(chr(39))})"
    indent = " " * 8
    return f"  --{flag.name}{kind}\n" + textwrap.fill(told, 100, initial_indent=indent, subsequent_indent=indent)


def _told_of_flags(error: flags.Error) -> str:
    text = str(error).removeprefix("flag ")
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        if name.startswith("config."):
            return f"--{name} changes a configuration: say which one before it, e.g. --config=mini"
        near = difflib.get_close_matches(name, [flag for flag in flags.FLAGS if len(flag) > 1], 1)
        return f"--{name} is no flag of this command; " + (f"did you mean --{near[0]}?" if near else "see --help")
    needed = re.match(r"--(\w+)=None: Flag --\w+ must have a value", text)
    if needed:
        return f"--{needed[1]} is needed: {flags.FLAGS[needed[1]].help}"
    choice = re.fullmatch(r"(--\w+)=(.*): value should be one of <(.*)>", text, re.S)
    if choice:
        known = [value for value in choice[3].split("|") if value]
        near = difflib.get_close_matches(choice[2], known, 1)
        return f"{choice[1]}={choice[2]}: choose {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")
    text = re.sub(r": invalid literal for int\(\) .*", " must be a whole number", text)
    text = re.sub(r": \('Non-boolean argument to boolean flag', .*\)", " must be true or false", text)
    text = re.sub(r": Failed to parse .* as a ConfigDict: .*", " is a group of settings: give one of them", text)
    text = re.sub(r"Found (.*) in argv before a value.*", r"\1 stands before --config=..., but must come after", text)
    text = re.sub(r": could not convert string to float: .*", " must be a number", text)
    return text


@contextmanager
def _watching_interrupts() -> Iterator[None]:
    """In the block Ctrl-C ends the process soon, even where Python's own handling waits for a library to return.

    Only while that is Python's own: who has put another handler there, such as training that saves first, decides.
    """
    if threading.current_thread() is not threading.main_thread():  # of a test, say; Python handles no signals there
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # which ends the thread


def _watch(reader: int) -> None:
    while number := os.read(reader, 1):
        if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            _interrupted.set()
            time.sleep(_GRACE)
            _say_stopped()
            os._exit(_STOPPED)
    os.close(reader)


def _of_an_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: in an extension module that was being imported it becomes an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _of_a_callback(unraisable: sys.UnraisableHookArgs) -> None:
    """Of tensorstore, when a checkpoint could not be written: ten tracebacks that say nothing."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _stop(words: str = "") -> NoReturn:
    _say_stopped(words)
    threads = [thread for thread in threading.enumerate() if not thread.daemon]
    if threads == [threading.main_thread()]:
        sys.exit(_STOPPED)
    os._exit(_STOPPED)  # without waiting for those that compile


_interrupted, _stopped = threading.Event(), threading.Event()


def _say_stopped(words: str = "") -> None:
    if not _stopped.is_set():
        _stopped.set()
        with suppress(OSError, ValueError):  # the terminal is gone
            print(f"\n{words or 'stopped'}", file=sys.stderr, flush=True)
            sys.stdout.flush()


def _stop_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """For the time while modules load: an exception within jaxlib's own start is a segmentation fault."""
    _say_stopped()
    os._exit(_STOPPED)


def _on_interrupt(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Where Ctrl-C is ignored, as by what a script starts in the background, it stays so."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _is_command() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.partition(".")[0] == "cns_jax"


if _is_command():
    _on_interrupt(_stop_at_once)
