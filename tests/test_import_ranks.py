"""Who may import whom: the package's ranks, and where torch, diffusers and transformers may appear."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    p for top in ("cns_jax", "configs", "launch", "tests", "benchmarks") for p in sorted((ROOT / top).rglob("*.py"))
]

RANKS = (  # top to bottom; a line's folders do not import each other
    {"command line"},
    {"engine.pages", "engine.pretrain"},
    {"engine.teach", "engine.measure"},
    {"engine.draw"},
    {"engine.runs"},
    {"engine"},  # settings, progress and what else its folders share
    {"evals"},  # measures what it is given; the engine makes the pictures
    {"methods"},
    {"neurons", "protect", "weights", "miniature"},
    {"data"},
    {"diffusion", "text"},
    {"nn"},
    {"nn.ops"},
    {"core"},  # and core.xla
)
RANK = {folder: i for i, folders in enumerate(RANKS) for folder in folders}

ALLOWED = {  # where a library may be imported
    "torch": ("tests/parity/", "benchmarks/"),
    "diffusers": ("tests/parity/", "benchmarks/"),
    "transformers": (
        "tests/",
        "benchmarks/",
        "cns_jax/text/tokenizer.py",
        "cns_jax/caption.py",
        "cns_jax/evals/dino_scores.py",
    ),
    "tensorflow": (),
}


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module of `package` imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def package_of(path: str) -> str:
    return ".".join(Path(path).parent.parts)


def folder_of(dotted: str) -> str:
    """The folder of the package that `cns_jax.nn.unet.Block` lies in."""
    parts = dotted.split(".")
    inner = ".".join(parts[1:3])
    return inner if inner in RANK else parts[1] if len(parts) > 1 and parts[1] in RANK else "command line"


_SHARED = ("base", "parts", "applied")


def rank_violations(path: str, source: str) -> list[str]:
    """Imports of the file `path` (posix, from the root) that do not point down."""
    here = folder_of(".".join(Path(path).with_suffix("").parts))
    found = []
    for line, name in imported(source, package_of(path)):
        if name.split(".")[0] != "cns_jax" or name in ("cns_jax.__version__",):
            continue
        there = folder_of(name)
        down = RANK[there] > RANK[here] or there == here
        if not down:
            found.append(f"{path}:{line}: {here} imports {name}, but only what stands below {here} may be imported")
        elif here == there == "methods" and not path.endswith("__init__.py") and name.split(".")[2] not in _SHARED:
            found.append(
                f"{path}:{line}: a method imports {name}; methods share code through {', '.join(_SHARED)} only"
            )
    return found


def library_violations(path: str, source: str) -> list[str]:
    """Imports of torch and the like where they may not be."""
    found = []
    for line, name in imported(source, package_of(path)):
        for library, allowed in ALLOWED.items():
            if library in name.split(".")[:2] and not path.startswith(tuple(allowed)):
                found.append(
                    f"{path}:{line}: imports {name}; {library} may be imported in {', '.join(allowed) or 'no file'}"
                )
    return found


@pytest.mark.parametrize("check", [rank_violations, library_violations])
def test_imports(check) -> None:
    scope = "cns_jax/" if check is rank_violations else ""
    paths = [p.relative_to(ROOT).as_posix() for p in SOURCES]
    found = [v for path in paths if path.startswith(scope) for v in check(path, (ROOT / path).read_text())]
    assert not found, "\n".join(found)


def test_every_folder_has_a_rank() -> None:
    package = ROOT / "cns_jax"
    folders = {p.parent.name for p in package.glob("*/__init__.py")}
    folders |= {f"engine.{p.parent.name}" for p in package.glob("engine/*/__init__.py")}
    assert folders == set(RANK) - {"command line", "nn.ops"}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cns_jax/core/tree.py", "from cns_jax.nn import layers"),
        ("cns_jax/core/tree.py", "import cns_jax.engine.teach.step"),
        ("cns_jax/core/tree.py", "from cns_jax import engine"),
        ("cns_jax/core/tree.py", "from ..engine import step"),
        ("cns_jax/core/tree.py", "def f():\n    from cns_jax.engine import step"),
        ("cns_jax/core/tree.py", "import cns_jax.train"),
        ("cns_jax/data/folder.py", "from cns_jax.weights.folder import Pipeline"),
        ("cns_jax/evals/control.py", "from cns_jax.engine.teach.step import StepSpec"),
        ("cns_jax/methods/lora.py", "from cns_jax.methods.cns import CNS"),
        ("cns_jax/methods/lora.py", "from . import cns"),
    ],
)
def test_a_planted_import_upwards_is_found(path: str, source: str) -> None:
    assert len(rank_violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cns_jax/nn/unet.py", "import torch"),
        ("cns_jax/nn/unet.py", "from torch.nn import Linear"),
        ("cns_jax/nn/unet.py", "from safetensors.torch import load_file"),
        ("cns_jax/weights/folder.py", "from diffusers import UNet2DConditionModel"),
        ("cns_jax/nn/clip.py", "from transformers import CLIPTextModel"),
        ("cns_jax/miniature/dataset.py", "import tensorflow as tf"),
        ("tests/nn/test_unet.py", "import torch"),
        ("configs/mini.py", "import torch"),
    ],
)
def test_a_planted_library_is_found(path: str, source: str) -> None:
    assert len(library_violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cns_jax/train.py", "from cns_jax.engine.teach.sequence import run"),
        ("cns_jax/engine/step.py", "from cns_jax.methods import METHODS\nfrom cns_jax.evals.judge import Judge"),
        ("cns_jax/methods/cns.py", "from cns_jax.methods.base import Task\nfrom .base import Method"),
        ("cns_jax/miniature/dataset.py", "import tensorflow_datasets as tfds"),
        ("tests/parity/test_unet.py", "import torch\nfrom diffusers import UNet2DConditionModel"),
        ("cns_jax/text/tokenizer.py", "from transformers import CLIPTokenizer"),
    ],
)
def test_imports_downwards_pass(path: str, source: str) -> None:
    assert not rank_violations(path, source) and not library_violations(path, source)
