"""What ships beside the code: configurations and lists of prompts, by name, from whatever folder a command runs in."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

flags.disclaim_key_flags()  # --config belongs to the command that defines it

_arguments: list[str] = []  # what config_flags looks for overrides in: nothing while flags are still being defined


def folder() -> Path:
    """The configurations: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The shipped configurations."""
    return sorted(file.relative_to(folder()).with_suffix("").as_posix() for file in folder().rglob("*.py"))


def config_file(name: str) -> Path:
    """The file of a configuration, by its path or the name of a shipped one.

    Raises FileNotFoundError saying which name comes near and which there are.
    """
    shipped, path = names(), Path(name).expanduser()
    if name in shipped:
        return folder() / f"{name}.py"
    if path.is_file():
        return path
    near = difflib.get_close_matches(path.stem, shipped, 1)
    hint = f"did you mean --config={near[0]}? " if near else ""
    raise FileNotFoundError(f"--config={name} does not exist; {hint}{', '.join(shipped)} ship with cns-jax")


def prompts_file(name: str) -> str:
    """The path of a list of prompts: `name` itself, unless it is no file but a shipped list, such as set1."""
    shipped = folder() / "prompts" / f"{name}.txt"
    return str(shipped) if name and not Path(name).exists() and shipped.is_file() else name


def load_config(name: str) -> ConfigDict:
    """What get_config() of a configuration returns; it may import its neighbours and the shipped ones as `configs`.

    Raises FileNotFoundError if there is none, and ValueError naming file and line of what is wrong in it.
    """
    file = config_file(name)
    with _configs_of(file.absolute().parent):
        try:
            spec = importlib.util.spec_from_loader("config", _Source(str(file)))
            module = types.ModuleType("config")
            module.__file__ = str(file)
            assert spec is not None and spec.loader is not None
            spec.loader.exec_module(module)
            get_config = vars(module).get("get_config")
            found = get_config() if callable(get_config) else None
        except SyntaxError as error:
            place = f"{error.filename}, line {error.lineno}" if error.filename else str(file)
            raise ValueError(f"{place}: {error.msg}") from None
        except Exception as error:
            raise ValueError(f"{_place(error, file)}: {type(error).__name__}: {error}") from None
    if not callable(get_config):
        raise ValueError(f"{file} has no function get_config(); see {folder() / 'mini.py'} for how it looks")
    if not isinstance(found, (ConfigDict, Mapping)):
        raise ValueError(f"get_config() of {file} returns a {type(found).__name__}; it must return a ConfigDict")
    return found if isinstance(found, ConfigDict) else ConfigDict(found)


class _Source(importlib.machinery.SourceFileLoader):
    """Writes no __pycache__ beside a user's configuration, and reads none: a changed file may have an equal time."""

    def __init__(self, file: str) -> None:
        super().__init__("config", file)

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _place(error: BaseException, file: Path) -> str:
    """File and line of the innermost configuration that an error came through."""
    inner = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent in (file.parent, folder())]
    return f"{inner[-1].filename}, line {inner[-1].lineno}" if inner else str(file)


@contextmanager
def _configs_of(neighbours: Path) -> Iterator[None]:
    """In the block `import configs` finds `neighbours` first, then configs/ of the current folder, then what ships."""
    before = {name: module for name, module in sys.modules.items() if _is_configs(name)}
    for name in before:
        del sys.modules[name]
    package = types.ModuleType("configs")
    package.__path__ = [str(neighbours), str(Path("configs").absolute()), str(folder())]
    sys.modules["configs"] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_configs(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_configs(name: str) -> bool:
    return name == "configs" or name.startswith("configs.")


class _Parser(flags.ArgumentParser):
    """The value of --config to its settings, with the groups that overrides on the command line go into."""

    def parse(self, argument: str) -> ConfigDict:
        config = load_config(argument)
        _arguments[:] = flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)
        for given in _arguments:
            parents = re.match(r"--?(?:no)?config\.((?:[A-Za-z_]\w*\.)+)", given)
            group = config
            for name in parents[1].split(".")[:-1] if parents else ():
                if name not in group:
                    group[name] = ConfigDict()  # a group that is left out, or mistyped: the settings say which
                group = group[name]
                if not isinstance(group, ConfigDict):
                    break
        return config

    def flag_type(self) -> str:
        return "name or file"


def config_name() -> str:
    """The value of --config as it was given."""
    return str(config_flags.get_config_filename(flags.FLAGS["config"]))


def overridden(group: str) -> list[str]:
    """Names of the settings of config.`group` that the command line gives."""
    found = (re.match(rf"--?(?:no)?config\.{group}\.(\w+)", given) for given in _arguments)
    return list(dict.fromkeys(match[1] for match in found if match))


def define_config(help_string: str) -> flags.FlagHolder[ConfigDict | None]:
    """The flag --config: a shipped name or a file, any setting of it overridden by --config.SETTING=VALUE.

    What is no setting is left to `core.settings.build`, which knows them all and names the nearest.
    """
    holder = config_flags.DEFINE_config_file(
        "config", None, help_string, lock_config=False, accept_new_attributes=True, sys_argv=_arguments
    )
    flags.FLAGS["config"].parser = _Parser()
    return holder
