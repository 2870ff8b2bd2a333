"""How commands start and end: flags, help, errors in a line, Ctrl-C, a closed pipe; and the list of commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from absl import flags
from safetensors import SafetensorError
from tiny_runs import ROOT, call

from cns_jax import __main__, __version__, cli, shipped

Launch = Callable[..., "tuple[int | str | None, str, str]"]

MODULE = '''"""A command for tests.

    python -m cns_jax.toy --num=3
"""
from absl import flags
from cns_jax import cli

NUM = flags.DEFINE_integer("toy_num", 4, "how many", lower_bound=1)
RATE = flags.DEFINE_float("toy_rate", -1.0, "how fast")
KIND = flags.DEFINE_enum("toy_kind", "", ("", "lora", "patch"), "which")
NEEDED = flags.DEFINE_string("toy_run", None, "folder of a training run", required=True)
FAIL = []

@cli.command()
def main(arguments):
    print("num", NUM.value)
    if FAIL:
        raise FAIL[0]

@cli.command(takes=True)
def taking(arguments):
    print(arguments)
'''


@pytest.fixture(scope="module")
def toy() -> Iterator[types.ModuleType]:
    """A command module with flags of its own."""
    module = types.ModuleType("toy_command")
    sys.modules["toy_command"] = module
    exec(compile(MODULE, "toy_command.py", "exec"), vars(module))
    yield module
    for name in ("toy_num", "toy_rate", "toy_kind", "toy_run"):
        delattr(flags.FLAGS, name)
    del sys.modules["toy_command"]


@pytest.fixture
def launch(toy, monkeypatch, capsys) -> Launch:
    """Run the command in this process: (status, stdout, stderr)."""
    monkeypatch.setattr("cns_jax.engine.start.start", lambda *_: None)
    monkeypatch.setattr(cli.os, "_exit", lambda status: sys.exit(status))
    monkeypatch.setattr(cli, "_stopped", threading.Event())
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook

    def run(*arguments: str, fail: BaseException | None = None, main: str = "main"):
        monkeypatch.setattr(sys, "argv", ["toy", *arguments])
        toy.FAIL[:] = [fail] if fail else []
        with pytest.raises(SystemExit) as ended:
            getattr(toy, main)()
        return ended.value.code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGINT, before[0])
    sys.unraisablehook = before[1]


def test_a_command_that_works(launch: Launch) -> None:
    assert launch("--toy_run=x", "--toy_num=5") == (0, "num 5\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--toy_run=x", "--toy_nmu=5"], "--toy_nmu is no flag of this command; did you mean --toy_num?"),
        (["--toy_run=x", "--zzz"], "--zzz is no flag of this command; see --help"),
        (["--toy_run=x", "--toy_num=abc"], "--toy_num=abc must be a whole number"),
        (["--toy_run=x", "--toy_rate=fast"], "--toy_rate=fast must be a number"),
        (["--toy_run=x", "--toy_kind=lroa"], "--toy_kind=lroa: choose lora, patch; did you mean lora?"),
        (["--toy_num=5"], "--toy_run is needed: folder of a training run"),
        (["--toy_run=x", "two", "words"], "'two' is no flag; put a value with spaces between quotes."),
        (["--config.train.steps=3"], "--config.train.steps changes a configuration: say which one before it"),
    ],
)
def test_flags_that_cannot_be_understood(launch: Launch, toy, arguments: list[str], said: str) -> None:
    for name in ("toy_run", "toy_num", "toy_rate", "toy_kind"):
        flags.FLAGS[name].unparse()
    status, out, _ = launch(*arguments)
    assert str(status).startswith(f"error: {said}") and "\n" not in str(status) and out == ""


def test_what_is_no_flag_goes_to_a_command_that_takes_it(launch: Launch) -> None:
    assert launch("show", "--toy_run=x", "a b", main="taking")[:2] == (0, "['show', 'a b']\n")


def test_help_shows_the_commands_own_flags_in_their_order(launch: Launch) -> None:
    for flag in ("--help", "-h"):
        status, out, _ = launch(flag)  # although --toy_run is missing
        assert status == 0 and out.startswith("A command for tests.")
        assert [line.split("=")[0] for line in out.splitlines() if line.startswith("  --toy")] == [
            "  --toy_num", "  --toy_rate", "  --toy_kind", "  --toy_run"
        ]  # fmt: skip
        assert "how many (default: 4)" in out and "which (lora, patch)" in out
    assert launch("--version")[:2] == (0, f"cns-jax {__version__}\n")
    assert launch("--toy_run", "x", "--", "--help", main="taking")[:2] == (0, "['--help']\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("the folder is empty"), "error: the folder is empty"),
        (FileNotFoundError(2, "No such file or directory", "a/b.txt"), "error: a/b.txt: No such file or directory"),
        (OSError(28, "No space left on device"), "error: reading or writing failed: No space left on device"),
        (PermissionError(13, "Permission denied", Path("runs")), "error: runs: Permission denied"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"), "error: the memory is full ("),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "error: I/O error: No space left on"),
        (MemoryError(), "error: the memory is full (of this machine)"),
        (
            ValueError(
                'OUT_OF_RANGE: Error writing "k" in OCDBT database at local file "/r/checkpoints/20/": Failed writing: '
                "Failed to write 26 bytes to file 21: No space left on device [os_error_code='28']"
            ),
            "error: /r/checkpoints/20: No space left on device",
        ),
    ],
)
def test_what_a_user_can_mend_is_a_line(launch: Launch, error: Exception, said: str) -> None:
    status, _, err = launch("--toy_run=x", fail=error)
    assert str(status).startswith(said) and "\n" not in str(status) and "Traceback" not in err


def test_a_device_that_jax_lacks_is_a_line() -> None:
    source = "def ask():\n    raise AssertionError"
    namespace: dict[str, Callable[[], None]] = {}
    exec(compile(source, "site-packages/jax/_src/xla_bridge.py", "exec"), namespace)
    try:
        namespace["ask"]()
    except AssertionError as error:
        assert str(cli.told_in_words(error)).startswith("JAX finds no device of JAX_PLATFORMS=")


def test_a_bug_is_shown_with_what_a_report_needs(launch: Launch) -> None:
    status, _, err = launch("--toy_run=x", fail=KeyError("x"))
    assert "Traceback" in err and str(status).startswith("This is a bug in cns-jax.") and __version__ in str(status)


def test_interrupts_are_a_line_and_status_130(launch: Launch) -> None:
    from cns_jax.engine.teach.fit import Interrupted

    assert launch("--toy_run=x", fail=KeyboardInterrupt())[::2] == (130, "\nstopped\n")
    cli._stopped.clear()
    said = "\nstopped at step 3; run the same command again to go on from there\n"
    assert launch("--toy_run=x", fail=Interrupted("stopped at step 3"))[::2] == (130, said)
    cli._stopped.clear()
    wrapped = ImportError("cannot be initialized")
    wrapped.__cause__ = KeyboardInterrupt()
    assert launch("--toy_run=x", fail=wrapped)[::2] == (130, "\nstopped\n")


BUSY = """
import hashlib, sys
from cns_jax import cli
with cli.ending():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # for minutes, as a compilation that does not look at signals
"""


def test_an_interrupt_does_not_wait_for_a_library() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)  # and it would take minutes
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "\nstopped\n")


def test_a_reader_that_has_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "cns_jax"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141 and done.stderr == ""


def test_the_list_of_commands(monkeypatch, capsys) -> None:
    files = {file.stem for file in (ROOT / "cns_jax").glob("*.py") if "@cli.command(" in file.read_text()}
    assert files == set(__main__.COMMANDS)
    for arguments in ([], ["help"], ["--help"]):
        monkeypatch.setattr(sys, "argv", ["cns-jax", *arguments])
        __main__.main()
        shown = capsys.readouterr().out
        assert all(f"  {name} " in shown for name in files)
    monkeypatch.setattr(sys, "argv", ["cns-jax", "trian"])
    with pytest.raises(SystemExit, match="error: 'trian' is no command; did you mean train?"):
        __main__.main()


def test_a_command_by_its_name(tmp_path: Path) -> None:
    """The launcher, the list and the flags together, from a folder that is not the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "cns_jax", "train", "--config=photos", "--config.train.step=100"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    said = "error: config.train.step is not a setting; did you mean config.train.steps?\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG")
    done = call("generate", f"--run={file}", "--prompt=x", "--prompts_file=set1")
    said = f"error: {file} is not the folder of a training run (no config.json in it)\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_shipped_prompts_by_name() -> None:
    assert Path(shipped.prompts_file("set1")).read_text().startswith("a ")
    assert shipped.prompts_file("") == "" and shipped.prompts_file("other.txt") == "other.txt"
