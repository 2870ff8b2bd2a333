"""Settings of a training run: what `configs/*.py` may hold, with the meaning of every default."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cns_jax.core.files import is_file_name
from cns_jax.core.rng import check_seed
from cns_jax.core.settings import require
from cns_jax.diffusion.samplers import SAMPLERS
from cns_jax.methods import METHODS
from cns_jax.methods.base import Method
from cns_jax.protect.settings import ProtectSettings
from cns_jax.weights.locate import Address

AUTO = "auto"
MINIATURE = "miniature"
"""The shipped model's name."""
_CLIP = "openai/clip-vit-base-patch32"
MOST_STEPS = 1_000_000
"""A lesson has fewer steps: checkpoints are numbered by lesson and step."""
_ROWS = 16


def _near(number: int, step: int) -> str:
    below = number - number % step
    return f"such as {below or step} or {(below or step) + step}"


@dataclass(frozen=True)
class ConceptSettings:
    """One concept to teach. What is empty stands in concept.toml beside the pictures, or follows from the name.

    name: of the concept, in files and reports. token: the new word (empty: "<name>"). class_word: the noun that the
    token goes before, such as cat (empty: the last word of the name). kind: what it is (empty: a subject). init_word:
    whose embedding the token starts from (empty: the class word). folder: of its pictures, below data_root (empty: its
    name). steps: of its lesson (0: train.steps).
    """

    name: str
    token: str = ""
    class_word: str = ""
    kind: Literal["", "subject", "style", "scene"] = ""
    init_word: str = ""
    folder: str = ""
    steps: int = 0

    def __post_init__(self) -> None:
        name = self.name  # files are called after it
        require(
            is_file_name(name), f"concepts: the name {name!r} must be the name of a file: not empty, without / and \\"
        )
        require(
            self.steps >= 0, f"concepts: {name} has steps={self.steps}; 0 means train.steps, so it must not be less"
        )


@dataclass(frozen=True)
class TrainSettings:
    """save_every: steps between checkpoints; flip: whether views are mirrored, too; steps: optimizer steps a concept;
    batch: pictures a step; prior_batch: prior images a step; steps_per_call: optimizer steps in one jitted call;
    decay_steps: the last steps of a concept (at most all), over which both learning rates fall to 0 in a line (0:
    constant rates, as in the paper); views: crops and flips cached an image; snr_gamma: min-SNR weights of timesteps
    (0: all alike, as in the paper); fsdp: devices that parameters are split over; remat: compute the UNet's blocks
    again in the backward pass, which saves memory and costs about a third more time; sample_every: steps between small
    pictures of the lesson that is going on (0: none); buckets: pictures that are not square are trained on in the
    nearest of several sizes of as many pixels, one compilation each (else: their centre squares); alpha_mask: pictures'
    transparency is a loss mask (a file 1.mask.png beside 1.png always is one, and comes first); unmasked_weight: how
    much is learned where masks are black, from 0 (nothing) to 1."""

    steps: int = 500
    batch: int = 1
    prior_batch: int = 1
    steps_per_call: int = 10
    decay_steps: int = 0
    save_every: int = 100
    views: int = 4
    flip: bool = True
    snr_gamma: float = 0.0
    fsdp: int = 1
    remat: bool = False
    sample_every: int = 0
    buckets: bool = False
    alpha_mask: bool = False
    unmasked_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "steps_per_call", "save_every", "views", "fsdp"):
            require(getattr(self, name) > 0, f"train.{name}={getattr(self, name)} must be positive")
        gamma = self.snr_gamma
        require(0 <= gamma < float("inf"), f"train.snr_gamma={gamma} must be finite and not negative; 0 is off")
        require(self.prior_batch >= 0, f"train.prior_batch={self.prior_batch} must not be negative")
        weight = self.unmasked_weight
        require(0 <= weight <= 1, f"train.unmasked_weight={weight} must be from 0 (nothing is learned there) to 1")
        require(self.decay_steps >= 0, f"train.decay_steps={self.decay_steps} must not be negative; 0 is off")
        require(self.sample_every >= 0, f"train.sample_every={self.sample_every} must not be negative; 0 is off")
        require(self.steps < MOST_STEPS, f"train.steps={self.steps} must be below {MOST_STEPS}")
        for name in ("steps", "save_every", "sample_every"):
            require(
                getattr(self, name) % self.steps_per_call == 0,
                f"train.{name}={getattr(self, name)} must be a multiple of train.steps_per_call={self.steps_per_call}, "
                f"{_near(getattr(self, name), self.steps_per_call)}",
            )


@dataclass(frozen=True)
class SampleSettings:
    """How pictures are made.

    sampler: ddim, pndm, euler, euler_karras, euler_a, dpm++2m, dpm++2m_karras, or auto: the one that the checkpoint's
    scheduler_config.json names. steps: denoising steps. guidance_scale: classifier-free guidance. negative_prompt: what
    to avoid. batch: images at a time.
    """

    sampler: str = "dpm++2m"
    steps: int = 20
    guidance_scale: float = 7.5
    negative_prompt: str = ""
    batch: int = 8

    def __post_init__(self) -> None:
        known = (AUTO, *SAMPLERS)
        require(self.sampler in known, f"sample.sampler={self.sampler!r}; known: {', '.join(known)}")
        require(self.steps > 0, f"sample.steps={self.steps} must be positive")
        require(self.batch > 0, f"sample.batch={self.batch} must be positive")


@dataclass(frozen=True)
class PriorSettings:
    """Prior images of a concept, made by the frozen base model and cached in `directory`.

    images: how many a class. directory: the cache (empty: cache/ beside the run).

    general: the share of them that shows prompts of all kinds instead of the class (0: the class alone, as in the
    paper). They hold what a lesson would change where the concept is not asked for. folder: your own pictures, which
    take the place of all generated ones (`general` counts for none): of a concept those in the sub-folder of its name,
    else of its class word, else those in `folder` itself; with captions beside them, else shown as the class. At most
    `images` of them are used.
    """

    images: int = 32
    general: float = 0.0
    directory: str = ""
    folder: str = ""
    sample: SampleSettings = field(default_factory=lambda: SampleSettings(steps=12, batch=32))

    def __post_init__(self) -> None:
        require(self.images > 0, f"prior.images={self.images} must be positive")
        require(0 <= self.general <= 1, f"prior.general={self.general} must be from 0 to 1")


@dataclass(frozen=True)
class ReportSettings:
    """What a run draws and measures. sheets: a sheet after every lesson and the overview; pictures: how many a prompt
    in the closing evaluation, which the report shows (0: none); zero_shot: prompts without a concept in it; clip: the
    model that scores (empty: the miniature's own for the miniature, else openai/clip-vit-base-patch32)."""

    sheets: bool = True
    pictures: int = 1
    zero_shot: int = 16
    clip: str = ""

    def __post_init__(self) -> None:
        for name in ("pictures", "zero_shot"):
            require(getattr(self, name) >= 0, f"report.{name}={getattr(self, name)} must not be negative; 0 is none")


@dataclass(frozen=True)
class RunSettings:
    """One run.

    name: of the run (a configuration's own name if it says none). run: the run's folder (empty: runs/<name>).
    resolution: side of the pictures in pixels, a multiple of 8. seed: of every random draw. reserved_rows: rows of the
    token table for concepts, one each; more concepts reserve more by themselves, and then the step is compiled once
    more. calibration: the prompts that show which neurons serve everything. method: the continual method that
    method.name says; settings that belong to other methods alone are passed over.
    variant: of the model's weight files, such as fp16. tokenizer: CLIP's tokenizer folder, for a model in a single
    file. prediction_type: of a single file that does not say it right. vae: a VAE instead of the model's own: a
    diffusers folder, a .safetensors file, or owner/name on the hub.

    model: "miniature", a diffusers folder, a .safetensors file, or owner/name on the hub. compute: the dtype of frozen
    weights and activations (auto: bfloat16 on GPU and TPU, float32 on a CPU); what is trained is float32 always.
    compute_ops: formulations that are fast on the device, or plain: ordinary operations of JAX and flax alone, to
    compare with.
    data_root: a folder with one sub-folder a concept, or "miniature:1" (2, 3) for the drawn concept sets. concepts:
    which and in which order (empty: all found). said: what the flag --concept says of some of them, which goes before
    all else. after: the folder of a finished run of the same model, whose concepts this one knows from its start.
    """

    name: str
    data_root: str
    model: str = MINIATURE
    variant: str = ""
    tokenizer: str = ""
    prediction_type: Literal["", "epsilon", "v_prediction"] = ""
    vae: str = ""
    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    compute_ops: Literal["fast", "plain"] = "fast"
    run: str = ""
    after: str = ""
    resolution: int = 64
    seed: int = 0
    concepts: tuple[ConceptSettings, ...] = ()
    said: tuple[ConceptSettings, ...] = ()
    reserved_rows: int = 16
    calibration: Literal["diverse", "miniature"] = "diverse"
    method: Method = field(default_factory=METHODS["cns"])
    train: TrainSettings = field(default_factory=TrainSettings)
    prior: PriorSettings = field(default_factory=PriorSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    protect: ProtectSettings = field(default_factory=ProtectSettings)

    CHOICES = {"method": METHODS}  # noqa: RUF012 - read by core.settings.build

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not self.method.prior_weight:
            object.__setattr__(self, "train", dataclasses.replace(self.train, prior_batch=0))
        require(self.resolution % 8 == 0, f"resolution={self.resolution} must be a multiple of 8")
        require(
            bool(self.model), "model is empty; give 'miniature', a diffusers folder, a .safetensors file or a hub id"
        )
        for concept in self.concepts:
            require(
                concept.steps % self.train.steps_per_call == 0,
                f"concepts: {concept.name} has steps={concept.steps}, which must be a multiple of train.steps_per_call="
                f"{self.train.steps_per_call}, {_near(concept.steps, self.train.steps_per_call)}",
            )
        require(
            not self.prior.folder or self.train.prior_batch > 0,
            f"prior.folder={self.prior.folder!r} is given, but train.prior_batch=0 images a step come from it; "
            f"{self._how_to_have_priors}; or leave prior.folder empty",
        )
        require(
            self.protect.enabled != "on" or self.method.protectable,
            f"protect.enabled='on': the method {self.method.name} trains no cross-attention K/V weights that could be "
            "drawn back; leave it at 'auto'",
        )
        require(bool(self.data_root), "data_root is empty; give a folder with one sub-folder of images a concept")

    @property
    def _how_to_have_priors(self) -> str:
        if self.method.prior_switch is None:
            return f"the method {self.method.name} has none"
        if not self.method.prior_weight:
            name, value = self.method.prior_switch
            return f"set method.{name}={value}"
        return "raise train.prior_batch"

    @property
    def caches(self) -> Path:
        """Where encoded views and prior images are kept: beside the run, shared by runs."""
        return Path(self.prior.directory or Path(self.directory).parent / "cache").expanduser()

    @property
    def clip(self) -> str:
        """The CLIP model that scores the run's pictures: the report's, or the miniature's own, or OpenAI's."""
        return self.report.clip or (MINIATURE if self.model == MINIATURE else _CLIP)

    @property
    def protects(self) -> bool:
        """Whether lessons are protected in text-feature space."""
        return self.method.protects if self.protect.enabled == "auto" else self.protect.enabled == "on"

    @property
    def drawn(self) -> str | None:
        """What `data_root` says after "miniature:"; None if it is a folder."""
        prefix = "miniature:"
        return self.data_root.removeprefix(prefix) if self.data_root.startswith(prefix) else None

    def rows_for(self, concepts: int) -> int:
        """Token rows of a run with so many concepts."""
        return max(self.reserved_rows, concepts if concepts <= self.reserved_rows else concepts + -concepts % _ROWS)

    @property
    def address(self) -> Address:
        """Where the model is."""
        return Address(self.model, self.variant, self.tokenizer, self.prediction_type, self.vae)

    @property
    def directory(self) -> str:
        """The run's folder: `run`, or runs/<config name>."""
        return os.path.expanduser(self.run) or f"runs/{self.name}"


TITLE = """# Settings

Every setting of a training run with its type, its default and what it means; made by
`python -m cns_jax.train --help_settings` from the dataclasses. A configuration (`--config=mini`, `paper`, ... or a file
of your own) gives its own values; `--config.SETTING=VALUE` on the command line changes any of them, for example
`--config.train.steps=400`.
"""
"""What docs/settings.md begins with."""
