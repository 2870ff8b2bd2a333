"""Settings of the miniature's pre-training; `configs/pretrain_miniature.py` holds the recipe that was shipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cns_jax.core.settings import require

STAGES = ("tokenizer", "vae", "clip", "judge", "unet", "export")


@dataclass(frozen=True)
class WorldSettings:
    """How many pictures are drawn for training, and from which seed."""

    count: int = 40_000
    seed: int = 0


@dataclass(frozen=True)
class StageSettings:
    """One network's training: Adam, linear warm-up, cosine to zero over `steps`, an average of the weights.

    start: a model folder whose network of this name it starts from (empty: random weights); not for the VAE.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.0
    ema: float = 0.999
    save_every: int = 200
    start: str = ""
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.steps > 0 and self.batch > 0, f"steps={self.steps} and batch={self.batch} must be positive")
        require(0 <= self.ema < 1, f"ema={self.ema} must be in [0, 1)")


@dataclass(frozen=True)
class PretrainSettings:
    """The whole recipe. stages: which parts to run, in order; finished ones are skipped.

    timestep_mean, timestep_std: of the UNet's timesteps, logit-normal in [0, num_train_timesteps). subject_weight: how
    many times the UNet's error counts where subjects are; most of the rest is chance, as where the stars stand.
    """

    directory: str
    seed: int
    stages: tuple[str, ...]
    world: WorldSettings
    vocab_size: int
    max_length: int
    extra_words: tuple[str, ...]
    vae: StageSettings
    vae_whole: StageSettings
    clip: StageSettings
    judge: StageSettings
    unet: StageSettings
    kl_weight: float = 1e-4
    judge_pictures: int = 16_000
    caption_dropout: float = 0.1
    snr_gamma: float = 5.0
    timestep_mean: float = 0.0
    timestep_std: float = 1.5
    subject_weight: float = 1.0
    output: str = "cns_jax/miniature/model"

    def __post_init__(self) -> None:
        unknown = set(self.stages) - set(STAGES)
        require(self.timestep_std > 0, f"timestep_std={self.timestep_std} must be positive")
        require(self.subject_weight > 0, f"subject_weight={self.subject_weight} must be positive")
        require(not unknown, f"unknown stages {sorted(unknown)}; known: {', '.join(STAGES)}")
