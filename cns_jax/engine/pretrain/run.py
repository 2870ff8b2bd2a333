"""The stages of pre-training in order; each leaves its result in the run's directory and is skipped when done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from cns_jax.core.files import read_json, replacing, save_tensors
from cns_jax.core.tree import flatten, nested
from cns_jax.diffusion.schedule import Schedule
from cns_jax.engine.pretrain.clip import train_clip
from cns_jax.engine.pretrain.judge import train_judge
from cns_jax.engine.pretrain.settings import PretrainSettings
from cns_jax.engine.pretrain.unet import train_unet
from cns_jax.engine.pretrain.vae import encode_all, train_vae
from cns_jax.miniature.world import (
    COATS,
    COLORS,
    SCENES,
    SIZE,
    STYLES,
    SUBJECTS,
    description,
    draw_all,
    example,
    subject_area,
    world_arrays,
)
from cns_jax.nn.clip import CLIPTextConfig
from cns_jax.nn.model import Model
from cns_jax.nn.unet import UNetConfig
from cns_jax.nn.vae import VAEConfig
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.train_bpe import train_tokenizer
from cns_jax.text.vocabulary import Vocabulary

log = logging.getLogger(__name__)

_SEPARATOR = "/"  # keys of the trees have dots in them

SCHEDULE = Schedule(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    prediction_type="epsilon",
    steps_offset=1,
    set_alpha_to_one=False,
)


@dataclass(frozen=True)
class Pretraining:
    """One run of the recipe. Data that several stages read is computed once, on first use."""

    settings: PretrainSettings

    @property
    def directory(self) -> Path:
        """Where everything of this run lies."""
        return Path(self.settings.directory)

    @cached_property
    def world(self) -> dict[str, Any]:
        """The rendered training pictures with captions and specifications."""
        seed, count = self.settings.world.seed, self.settings.world.count
        first = b"".join(example(seed, i)[0].tobytes() for i in range(64))
        # named by what is drawn, so that a changed world is drawn anew
        file = self.directory / f"world_{seed}_{count}_{hashlib.sha256(first).hexdigest()[:8]}.npy"
        if not file.exists():
            log.info("drawing %d pictures", count)
            drawn = world_arrays(seed, count)
            with replacing(file) as temporary:
                np.save(temporary, drawn["images"])
            return drawn
        captions, pictures = zip(*(description(seed, i) for i in range(count)), strict=True)
        return {"images": np.load(file), "captions": list(captions), "pictures": list(pictures)}

    @cached_property
    def areas(self) -> np.ndarray:
        """Where the subjects of the training pictures are, on the latents' grid: uint8 (n, h, w)."""
        world, side = self.settings.world, self.model().latent_shape(SIZE, SIZE)[0]
        return np.stack(draw_all(partial(subject_area, size=side), world.seed, world.count))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The trained tokenizer."""
        return Vocabulary(load_tokenizer(self.directory / "tokenizer"), ())

    @cached_property
    def ids(self) -> np.ndarray:
        """Token ids of all captions, (n, max_length)."""
        return self.vocabulary.encode(self.world["captions"])

    def result(self, stage: str) -> tuple[Any, dict[str, Any]]:
        """Parameters and configuration that a finished stage left."""
        file = self.directory / stage / "result.safetensors"
        config = read_json(file.with_suffix(".json"))
        return nested(load_file(file), _SEPARATOR), config

    def keep(self, stage: str, params: Any, config: dict[str, Any]) -> None:
        """Write a stage's result; its presence is what marks the stage as done."""
        file = self.directory / stage / "result.safetensors"
        file.with_suffix(".json").write_text(json.dumps(config, indent=2))
        save_tensors(file, flatten(params, _SEPARATOR))

    def done(self, stage: str) -> bool:
        """Whether the stage has left its result."""
        folder = self.directory / stage
        return (folder / ("vocab.json" if stage == "tokenizer" else "result.safetensors")).exists()

    def tokenizer(self) -> None:
        """Train the BPE on the captions; subjects, scenes, styles, colours, coats and open words get a token each."""
        words = (*SUBJECTS, *SCENES, *STYLES, *COLORS, *COATS.values(), *self.settings.extra_words)
        single = tuple(dict.fromkeys(w for phrase in words for w in phrase.split()))
        s = self.settings
        train_tokenizer(self.world["captions"], self.directory / "tokenizer", s.vocab_size, s.max_length, single)

    def vae(self) -> None:
        """Train the VAE."""
        config, params = train_vae(self.settings, self.world["images"], self.directory / "vae")
        self.keep("vae", params, {**self.settings.vae.model, "scaling_factor": config.scaling_factor})

    def clip(self) -> None:
        """Train CLIP."""
        pictures = self.world["pictures"]
        firsts = [p.subjects[0] for p in pictures]
        labels = (
            [(p.scene, p.style) for p in pictures],
            [(p.style, s.kind, s.color) for p, s in zip(pictures, firsts, strict=True)],
        )
        model = {**self.settings.clip.model, "text": self.text_config()}
        settings = dataclasses.replace(self.settings, clip=dataclasses.replace(self.settings.clip, model=model))
        params = train_clip(settings, self.world["images"], self.ids, labels, self.directory / "clip")
        self.keep("clip", params, model)

    def text_config(self) -> dict[str, Any]:
        """The text tower's configuration with what the tokenizer decides."""
        tokenizer = self.vocabulary.tokenizer
        return {
            **self.settings.clip.model["text"],
            "vocab_size": tokenizer.size,
            "max_position_embeddings": self.settings.max_length,
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }

    def judge(self) -> None:
        """Train the judge."""
        vae = VAEConfig.from_dict(self.result("vae")[1])
        params = train_judge(self.settings, vae, self.result("vae")[0], self.directory / "judge")
        self.keep("judge", params, {})

    def model(self) -> Model:
        """The static bundle of what has been trained so far."""
        vae = VAEConfig.from_dict(self.result("vae")[1])
        text = CLIPTextConfig.from_dict(self.result("clip")[1]["text"])
        return Model(UNetConfig.from_dict(self.settings.unet.model), vae, text)

    def unet(self) -> None:
        """Encode the world and train the UNet, and the text encoder with it."""
        model = self.model()
        text_params = {"text_model": self.result("clip")[0]["text"]["text_model"]}
        log.info("encoding the world")
        moments = encode_all(model.vae, self.result("vae")[0], self.world["images"])
        empty = self.vocabulary.encode([""])[0]
        folder = self.directory / "unet"
        params = train_unet(self.settings, model, SCHEDULE, text_params, moments, self.ids, empty, self.areas, folder)
        self.keep("unet", params, self.settings.unet.model)


def run(settings: PretrainSettings, export: Callable[[Pretraining], None]) -> None:
    """Run the stages asked for. export: writes the finished model folder (stage "export")."""
    pretraining = Pretraining(settings)
    pretraining.directory.mkdir(parents=True, exist_ok=True)
    for stage in settings.stages:
        if stage == "export":
            export(pretraining)
        elif pretraining.done(stage):
            log.info("%s is done already", stage)
        else:
            log.info("stage %s", stage)
            getattr(pretraining, stage)()
