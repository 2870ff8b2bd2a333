"""The miniature's recipe from nothing to an exported folder, at a size that takes a minute; and its resume."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cns_jax
from cns_jax.core.settings import SettingsError, build
from cns_jax.core.tree import fingerprint, flatten
from cns_jax.engine.measure.judging import read_judge
from cns_jax.engine.pretrain import clip, judge, loop, vae
from cns_jax.engine.pretrain.clip import groups_of
from cns_jax.engine.pretrain.export import export
from cns_jax.engine.pretrain.run import Pretraining, run
from cns_jax.engine.pretrain.settings import PretrainSettings, StageSettings
from cns_jax.engine.teach.fit import Interrupted
from cns_jax.miniature import subjects
from cns_jax.weights.clip_folder import read_clip
from cns_jax.weights.folder import read_folder
from configs import pretrain_miniature

MODEL = Path(cns_jax.__file__).parent / "miniature" / "model"


def small(folder: Path) -> dict[str, Any]:
    """The shipped recipe with every size and count cut down."""
    config = pretrain_miniature.get_config().to_dict()
    config |= {"directory": str(folder / "run"), "output": str(folder / "model"), "judge_pictures": 64}
    config["world"] = {"count": 96, "seed": 0}
    for stage in ("vae", "vae_whole", "clip", "judge", "unet"):
        config[stage] |= {"steps": 2, "batch": 8, "save_every": 1}
    config["vae"]["model"] |= {"block_out_channels": (8, 8, 8), "norm_num_groups": 4}
    config["unet"]["model"] |= {"block_out_channels": (16, 16, 16)}
    for tower in ("text", "vision"):
        config["clip"]["model"][tower] |= {"num_hidden_layers": 1, "intermediate_size": 64}
    config["clip"]["batch"] = 32
    return config


@pytest.mark.slow
def test_recipe(tmp_path: Path) -> None:
    settings = build(PretrainSettings, small(tmp_path))
    run(settings, export)
    model = tmp_path / "model"
    pipeline = read_folder(model).load()
    assert pipeline.model.unet.in_channels == pipeline.model.vae.latent_channels == 8
    assert read_clip(model / "clip").text == pipeline.model.text_encoder
    clips = flatten(read_clip(model / "clip").params["text"]["text_model"])
    own = flatten(pipeline.params["text_encoder"]["text_model"])  # begun as CLIP's, trained on with the UNet
    assert clips.keys() == own.keys() and any((clips[name] != leaf).any() for name, leaf in own.items())
    assert (model / "judge.safetensors").exists()
    assert json.loads((model / "recipe.json").read_text())["unet"]["steps"] == 2
    (model / "README.md").write_text("card")
    before = fingerprint(pipeline.params)
    run(settings, export)  # every stage is done: exported again, the card kept
    assert fingerprint(read_folder(model).load().params) == before and (model / "README.md").read_text() == "card"


def test_the_world_is_drawn_again_when_its_drawing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(tmp_path) | {"world": {"count": 20, "seed": 0}}
    folder = tmp_path / "run"
    folder.mkdir()

    def images() -> np.ndarray:
        return Pretraining(build(PretrainSettings, config)).world["images"]

    first = images()
    np.testing.assert_array_equal(images(), first)
    assert len(list(folder.glob("world*.npy"))) == 1
    monkeypatch.setitem(subjects.ANIMALS, "cat", subjects.dog)
    changed = images()
    assert changed.shape == first.shape and len(list(folder.glob("world*.npy"))) == 2


def test_groups_are_of_equal_label() -> None:
    labels = [("a",), ("b",), ("a",), ("a",), ("b",)]
    rows = groups_of(labels)
    assert rows.shape == (2, 3)
    assert sorted(tuple(sorted(set(row.tolist()))) for row in rows) == [(0, 2, 3), (1, 4)]


def test_clip_goes_on_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(clip, "train", lambda name, settings, directory, params, *rest: seen.update(params) or params)
    settings = build(PretrainSettings, pretrain_miniature.get_config().to_dict())
    stored = read_clip(MODEL / "clip")
    text, vision = (dataclasses.asdict(config) for config in (stored.text, stored.vision))
    stage = dataclasses.replace(settings.clip, start=str(MODEL), model={"text": text, "vision": vision})
    images, ids = np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 32), np.int32)
    clip.train_clip(dataclasses.replace(settings, clip=stage), images, ids, [[("a",), ("b",)]], tmp_path)
    assert fingerprint(seen) == fingerprint(stored.params)


def test_the_judge_goes_on_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(judge, "train", lambda name, settings, directory, params, *rest: seen.update(params) or params)
    monkeypatch.setattr(judge, "through_vae", lambda vae, params, renders, rng: renders)
    settings = build(PretrainSettings, small(tmp_path))
    for start in ("", str(MODEL)):
        stage = dataclasses.replace(settings.judge, start=start)
        judge.train_judge(dataclasses.replace(settings, judge=stage), None, None, tmp_path)
        assert (fingerprint(seen) == fingerprint(read_judge(MODEL))) == bool(start)


def test_unknown_stage(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown stages \['vea'\]"):
        build(PretrainSettings, small(tmp_path) | {"stages": ("vea",)})


def test_a_stage_resumes_to_the_bit(tmp_path: Path) -> None:
    settings = StageSettings(steps=6, batch=4, learning_rate=0.1, warmup=2, save_every=2)
    data = jnp.arange(32.0)

    def train(folder: Path, stop: int | None = None) -> Any:
        def loss(params: Any, key: jax.Array, data: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            drawn = data[jax.random.randint(key, (settings.batch,), 0, len(data))]
            return jnp.square(params["w"][None] - drawn[:, None]).mean(), {}

        class Stop(Exception):
            pass

        def interrupt(self: Any, number: int, tree: Any) -> None:
            save(self, number, tree, wait=True)
            if number == stop:
                raise Stop

        save, loop.Checkpoints.save = loop.Checkpoints.save, interrupt
        try:
            return loop.train("toy", settings, folder, {"w": jnp.zeros(3)}, loss, data, 0)
        except Stop:
            return None
        finally:
            loop.Checkpoints.save = save

    whole = train(tmp_path / "a")
    assert train(tmp_path / "b", stop=4) is None
    np.testing.assert_array_equal(train(tmp_path / "b")["w"], whole["w"])
    assert np.abs(whole["w"]).min() > 0


def toy(folder: Path, rate: float, steps: int = 60) -> Any:
    """A stage that learns three numbers; its loss is not finite where the rate is absurd."""
    settings = StageSettings(steps=steps, batch=4, learning_rate=rate, warmup=2, save_every=10)

    def loss(params: Any, key: jax.Array, data: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jnp.square(params["w"] - data).sum(), {}

    return loop.train("unet", settings, folder, {"w": jnp.zeros(3)}, loss, jnp.ones(3), 0)


def test_a_stage_that_is_not_finite_stops_and_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    toy(tmp_path, 0.1, steps=20)
    with pytest.raises(SettingsError) as told:
        toy(tmp_path, 1e38)
    assert re.fullmatch(
        r"stage unet is not finite at step (30|40) of 60; the checkpoint of step 20 is kept. Lower "
        r"--config.unet.learning_rate=1e\+38 and run the command again to go on from there",
        str(told.value),
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert np.isfinite(toy(tmp_path, 0.1)["w"]).all()  # goes on from step 20


def test_a_stage_that_is_asked_to_stop_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = loop.Metrics.write

    def interrupt(self: Any, part: str, step: int, values: Any) -> None:
        write(self, part, step, values)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.Metrics, "write", interrupt)
    with pytest.raises(Interrupted, match="stopped in unet at step 20 of 60; run the same command again to go on"):
        toy(tmp_path, 0.1)
    assert loop.Checkpoints(tmp_path / "checkpoints").latest() == 20


def test_pictures_the_vae_learns_from() -> None:
    key = jax.random.key(0)
    world = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
    cut = vae.windows(key, jnp.asarray(world), 7, 8)
    assert cut.shape == (7, 8, 8, 3)
    places = [world[:, i : i + 8, j : j + 8] / 127.5 - 1 for i in range(9) for j in range(9)]
    assert all(
        min(np.abs(place - window).max((1, 2, 3)).min() for place in places) < 1e-5 for window in np.asarray(cut)
    )
    for images in (vae.textures(key, 4, 16), vae.collages(key, cut)):
        assert np.abs(images).max() <= 1 and np.isfinite(images).all()
        assert np.abs(images[0] - images[1]).max() > 0.1
    masks = vae.patterns(key, 64, 32)
    assert 0 <= masks.min() < 0.05 and 0.95 < masks.max() <= 1


def test_reconstruction_loss() -> None:
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32))
    assert vae.reconstruction_loss(images, images) == 0
    shifted, checkered = images + 0.1, images + 0.1 * (-1.0) ** jnp.arange(8)[None, None, :, None]
    np.testing.assert_allclose(vae.reconstruction_loss(shifted, images), 0.1 + 4 * 0.01, rtol=1e-4)
    assert vae.reconstruction_loss(checkered, images) > vae.reconstruction_loss(shifted, images)


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match="must be positive"):
        StageSettings(steps=0, batch=1, learning_rate=1.0)
    assert dataclasses.replace(StageSettings(1, 1, 1.0), ema=0.0).ema == 0
