"""The suite "control": does a model still show the scene, style, colour and subject that a prompt asks for?"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cns_jax.core.rng import check_seed
from cns_jax.core.settings import require
from cns_jax.engine.draw.sheets import tile
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.measure.judging import load_judge
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import SampleSettings
from cns_jax.evals.control import control_pictures, control_prompts, grade, real_renders
from cns_jax.miniature.world import SIZE
from cns_jax.weights.locate import Address

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControlRequest:
    """model: as in a run's settings. run: a training run whose weights to measure instead, after concept `after`."""

    model: str = "miniature"
    run: str = ""
    after: str = ""
    num: int = 256
    seed: int = 0
    out: str = ""
    sample: SampleSettings = dataclasses.field(
        default_factory=lambda: SampleSettings(steps=20, guidance_scale=4.0, batch=32)
    )

    def __post_init__(self) -> None:
        require(self.num > 0, f"num={self.num} must be positive")
        check_seed(self.seed)


@dataclass(frozen=True)
class ControlResult:
    """Shares of pictures that show an attribute, by the same judge: generated, and real renders of the prompts."""

    generated: dict[str, float]
    real: dict[str, float]
    grid: Path

    def table(self) -> str:
        """For people: an attribute a line, and the generated share as a percentage of the real one."""
        lines = [f"{'':9} {'generated':>10} {'renders':>10} {'share':>8}"]
        for name, made in self.generated.items():
            real = self.real[name]
            lines.append(f"{name:9} {made:10.1%} {real:10.1%} {made / max(real, 1e-9):8.1%}")
        return "\n".join(lines)


def control(request: ControlRequest) -> ControlResult:
    """Generate request.num prompts, a seed each, judge them beside fresh renders of the same prompts, and write
    control.json and a grid (pairs of rows: generated, then the renders of the same prompts).

    Raises SettingsError for a model of other pictures than the miniature's.
    """
    if request.run:
        stages = Stages.open(request.run, request.after)
        studio, applied = stages.studio, stages.at(stages.last)
        out = Path(request.out or Path(request.run) / "control")
    else:
        studio = Studio.open(find_source(Address(request.model)), (), 0, SIZE)
        applied = studio.base
        out = Path(request.out or "runs/control")
    size = studio.model.unet.sample_size * studio.model.vae.downsampling
    require(
        size == SIZE,
        f"{request.run or request.model} draws {size} x {size} pixels; this suite's prompts, and the judge of its "
        f"pictures, are of the miniature's world of {SIZE} x {SIZE}; for another model: --suite=concepts --run=DIR, "
        "which compares pictures without any concept with the base model's",
    )
    pictures = control_pictures(request.num)
    prompts = control_prompts(pictures)
    seeds = [request.seed + i for i in range(request.num)]
    log.info("%d pictures, %d denoising steps each", request.num, request.sample.steps)
    images = studio.generator.images(applied, prompts, seeds, request.sample)
    renders, judge = real_renders(pictures), load_judge()
    out.mkdir(parents=True, exist_ok=True)
    result = ControlResult(grade(judge, images, pictures), grade(judge, renders, pictures), out / "grid.png")
    record = {"request": dataclasses.asdict(request), "generated": result.generated, "real": result.real}
    (out / "control.json").write_text(json.dumps(record, indent=2) + "\n")
    shown = min(48, request.num)
    pairs = [np.concatenate([images[i], renders[i]]) for i in range(shown)]
    Image.fromarray(tile(pairs, 12)).resize((12 * SIZE * 2, -(-shown // 12) * SIZE * 4), Image.Resampling.LANCZOS).save(
        result.grid
    )
    (out / "prompts.txt").write_text("\n".join(prompts) + "\n")
    return result
