"""What is timed, and at which sizes. Neither jax nor torch is imported here: both sides read it."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

CAPTIONS, CALIBRATION, ROWS, VIEWS, PRIORS = 5, 20, 8, 20, 32
TOKENS = 16  # of the longest prompt that neurons are selected with; both sides leave the padding behind it out
GUIDANCE = 4.0


@dataclass(frozen=True)
class Suite:
    """Sizes of one suite. batch, prior_batch: concept and prior images a training step; steps: timed at once;
    pictures, sample_steps: of a sampling call; encoded: images a call of the VAE."""

    name: str
    pixels: int
    batch: int
    prior_batch: int
    steps: int
    pictures: int
    sample_steps: int
    encoded: int


SUITES = {
    suite.name: suite
    for suite in (
        Suite("mini", 64, 8, 4, 10, 8, 20, 16),
        Suite("sd15-small", 128, 1, 1, 2, 1, 4, 1),
        Suite("sd15", 512, 1, 1, 10, 4, 25, 4),
    )
}


@dataclass(frozen=True)
class Workload:
    """One thing to time. run: does it once and waits for the device; images: that it makes or learns from; flops: of
    one run, where they are counted; per: by how many its seconds are divided (steps of a call); written: bytes that go
    to files in a run."""

    run: Callable[[], object]
    images: int = 0
    flops: float = 0.0
    per: int = 1
    written: int = 0


Workloads = dict[str, Callable[[], Workload]]
"""By name, in the order of the tables; a workload is built when it is asked for."""

NAMES = ("matmul", "select", "step", "sample", "draw", "encode", "export")


def model_folder(suite: Suite, cache: Path) -> Path:
    """The shipped miniature, or Stable Diffusion 1.5 of random weights, which a process of PyTorch's writes once."""
    if suite.name == "mini":
        return Path(__file__).parents[2] / "cns_jax" / "miniature" / "model"
    folder = cache / "sd15"
    if not (folder / "model_index.json").exists():
        log.info("writing Stable Diffusion 1.5 of random weights to %s", folder)
        subprocess.run([sys.executable, "-m", "benchmarks.torch_reference.random_model", str(folder)], check=True)
    return folder
