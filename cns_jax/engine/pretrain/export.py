"""Writing the trained miniature: a diffusers folder, clip/, judge/, and the settings that made it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax.core.files import save_tensors
from cns_jax.core.tree import flatten
from cns_jax.engine.measure.judging import JUDGE_FILE
from cns_jax.engine.pretrain.run import SCHEDULE, Pretraining
from cns_jax.evals.clip_scores import Preprocess
from cns_jax.nn.clip import CLIPTextConfig, CLIPVisionConfig
from cns_jax.weights.clip_folder import Clip, write_clip
from cns_jax.weights.folder import ENTRIES, write_pipeline
from cns_jax.weights.pipeline import Pipeline


def export(pretraining: Pretraining) -> None:
    """Write the miniature to settings.output in float16."""
    clip, config = pretraining.result("clip")
    params = {
        **pretraining.result("unet")[0],
        "vae": pretraining.result("vae")[0],
    }
    root = Path(pretraining.settings.output)
    pipeline = Pipeline(pretraining.model(), params, SCHEDULE, pretraining.directory / "tokenizer")
    card = (root / "README.md").read_text() if (root / "README.md").exists() else ""
    # what we add below, and the pictures of the card
    ours = (*ENTRIES, "README.md", "clip", "control.jpg", JUDGE_FILE, "recipe.json")
    write_pipeline(root, pipeline, np.float16, replaces=ours)
    towers = Clip(CLIPTextConfig.from_dict(config["text"]), CLIPVisionConfig.from_dict(config["vision"]), clip)
    write_clip(root / "clip", towers, np.float16)
    size, half = towers.vision.image_size, (0.5, 0.5, 0.5)
    Preprocess(size, size, half, half).write(root / "clip")  # it was trained on images in [-1, 1]
    write_judge(root / JUDGE_FILE, pretraining.result("judge")[0])
    recipe = dataclasses.asdict(pretraining.settings)
    (root / "recipe.json").write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n")
    if card:
        (root / "README.md").write_text(card)


def write_judge(file: Path, params: Any) -> None:
    """The judge's parameters in float16, in our own layout."""
    flat = {k: np.asarray(v, np.float16) for k, v in flatten(params).items()}
    save_tensors(file, flat)
