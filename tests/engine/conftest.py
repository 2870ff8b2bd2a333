from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: for tiny_runs.py

from tiny_runs import values  # noqa: E402

from cns_jax.core.settings import build  # noqa: E402
from cns_jax.engine.sequence import run  # noqa: E402
from cns_jax.engine.settings import RunSettings  # noqa: E402
from cns_jax.engine.step import train_steps  # noqa: E402
from cns_jax.text.vocabulary import TruncatedPromptWarning  # noqa: E402


@pytest.fixture(scope="session")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run of this process: its settings' values, its folder, and how often the step was compiled."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    config = values(tiny_folder, folder)
    before = train_steps._cache_size()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedPromptWarning)  # the tiny text encoder has 20 positions
        run(build(RunSettings, config))
    return {"values": config, "folder": folder, "compiled": train_steps._cache_size() - before}
