"""Configurations by name and by file: from any folder, with their neighbours, and what is wrong with one in a line."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from cns_jax import shipped

ROOT = Path(__file__).parents[1]


def test_every_shipped_configuration_loads_from_anywhere(tmp_path: Path, monkeypatch) -> None:
    importlib.import_module("configs.mini")  # as other tests do
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT])
    before = {name: module for name, module in sys.modules.items() if name.startswith("configs")}
    assert {"mini", "photos", "paper", "set1", "pretrain_miniature"} <= set(shipped.names())
    for name in shipped.names():
        assert isinstance(shipped.load_config(name), ConfigDict)
    assert shipped.load_config(str(ROOT / "configs" / "set2.py")).concepts  # which imports configs.paper
    assert {name: module for name, module in sys.modules.items() if name.startswith("configs")} == before
    assert not list(tmp_path.iterdir())


def test_a_configuration_of_the_users_own(tmp_path: Path, monkeypatch) -> None:
    """It changes a shipped one, and a neighbour of its own goes before a shipped one."""
    file = tmp_path / "mine.py"
    file.write_text("from configs import mini\n\ndef get_config():\n    return mini.get_config()\n")
    assert shipped.load_config(str(file)).train.steps == 400
    (tmp_path / "mini.py").write_text("def get_config():\n    return {'train': {'steps': 7}}\n")
    assert shipped.load_config(str(file)).train.steps == 7  # a mapping will do
    monkeypatch.chdir(tmp_path)
    assert shipped.load_config("mini").train.steps == 400 and shipped.load_config("mini.py").train.steps == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:\n", "bad.py, line 1: invalid syntax"),
        ("\ndef get_config():\n    return foo\n", "bad.py, line 3: NameError: name 'foo' is not defined"),
        ("import no_such_module\n", "bad.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("from configs import minni\n", "bad.py, line 1: ImportError: cannot import name 'minni'"),
        ("x = 1\n", "bad.py has no function get_config()"),
        ("get_config = 3\n", "bad.py has no function get_config()"),
        ("def get_config():\n    pass\n", "bad.py returns a NoneType; it must return a ConfigDict"),
        ("def get_config():\n    return 1 / 0\n", "bad.py, line 2: ZeroDivisionError: division by zero"),
        ("def get_config(x):\n    pass\n", "TypeError: get_config.. missing 1 required positional argument"),
        ("\0", "source code string cannot contain null bytes"),
    ],
)
def test_a_configuration_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as told:
        shipped.load_config(str(file))
    assert str(tmp_path) in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("minni", "--config=minni does not exist; did you mean --config=mini"),
        ("configs/minni.py", "did you mean --config=mini"),
        ("zzzz", "zzzz does not exist; bench, methods/continual_diffusion, methods/textual_inversion, mini, "),
        ("", "--config= does not exist; "),
        ("/", "--config=/ does not exist; "),
    ],
)
def test_a_configuration_that_is_not_there(tmp_path: Path, monkeypatch, name: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=said):
        shipped.load_config(name)


def test_they_are_in_the_wheel(tmp_path: Path) -> None:
    """What setup.py would pack has them inside the package, where the lookup finds them without the checkout."""
    built = tmp_path / "built"
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "-d", str(built)], cwd=ROOT, check=True)
    assert (built / "cns_jax" / "configs" / "prompts" / "set3.txt").is_file()
    assert (built / "cns_jax" / "protect" / "captions.txt").is_file()
    code = "from cns_jax import shipped; print(shipped.folder()); print(shipped.load_config('photos').calibration)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(built)}, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(built / "cns_jax" / "configs"), "diverse"], done.stderr
