"""Aspect buckets: which sizes there are, which a picture takes, and that lessons go on and share compilations."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tiny_runs import values

from cns_jax.core.settings import SettingsError, build
from cns_jax.core.types import Concept
from cns_jax.data.views import views
from cns_jax.engine.progress import Metrics
from cns_jax.engine.runs.source import miniature_folder
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.buckets import bucket_of, bucket_sizes, by_bucket
from cns_jax.engine.teach.fit import Interrupted
from cns_jax.engine.teach.layout import LessonData
from cns_jax.engine.teach.plan import plan
from cns_jax.engine.teach.sequence import TrainingRun
from cns_jax.engine.teach.step import train_steps
from cns_jax.nn.model import Model
from cns_jax.weights.folder import read_folder

pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")
MINIATURE = read_folder(miniature_folder()).model
STABLE = dataclasses.replace(  # in what decides about sizes
    MINIATURE,
    unet=dataclasses.replace(MINIATURE.unet, block_out_channels=(320, 640, 1280, 1280)),
    vae=dataclasses.replace(MINIATURE.vae, block_out_channels=(128, 256, 512, 512)),
)


def settings(resolution: int = 64, buckets: bool = True, **changes: Any) -> RunSettings:
    train = {"buckets": buckets}
    return build(RunSettings, {"name": "x", "data_root": "y", "resolution": resolution, "train": train, **changes})


@pytest.mark.parametrize(
    ("model", "resolution", "sizes"),
    [
        (MINIATURE, 64, [(32, 128), (48, 80), (64, 64), (80, 48), (128, 32)]),
        (STABLE, 512, [(256, 1024), (320, 768), (384, 640), (448, 576), (512, 512)]),
        (STABLE, 64, [(64, 64)]),
    ],
)
def test_sizes(model: Model, resolution: int, sizes: list[tuple[int, int]]) -> None:
    found = bucket_sizes(model, settings(resolution))
    assert list(found)[: len(sizes)] == sizes
    assert set(found) == {(h, w) for w, h in found} and all(w * h <= resolution**2 for w, h in found)
    assert bucket_sizes(model, settings(resolution, buckets=False)) == ((resolution, resolution),)


def test_a_resolution_that_the_unet_cannot_halve() -> None:
    with pytest.raises(SettingsError, match=r"resolution=72 must be a multiple of 16 for train.buckets .* make it 80"):
        bucket_sizes(MINIATURE, settings(72))


def saved(path: Path, size: tuple[int, int], orientation: int = 1) -> Path:
    """Noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, exif = np.random.default_rng(list(str(path.name).encode())), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("size", "orientation", "bucket"),
    [
        ((30, 30), 1, (64, 64)), ((34, 30), 1, (64, 64)), ((45, 30), 1, (80, 48)), ((30, 45), 1, (48, 80)),
        ((45, 30), 6, (48, 80)), ((900, 30), 1, (128, 32)),
    ],
)  # fmt: skip
def test_a_picture_takes_the_nearest(tmp_path: Path, size: tuple, orientation: int, bucket: tuple) -> None:
    path = saved(tmp_path / "a.png", size, orientation)
    assert bucket_of(path, bucket_sizes(MINIATURE, settings())) == bucket
    assert bucket_of(path, ((64, 64),)) == (64, 64)


def test_what_belongs_to_a_picture_goes_with_it(tmp_path: Path) -> None:
    paths = tuple(saved(tmp_path / f"{i}.png", size) for i, size in enumerate([(50, 20), (30, 30), (60, 24)]))
    concept = Concept("a", "<a>", "cat", "subject", paths, ("zero", None, "two"), mask_paths=(None, None, Path("m")))
    parts = by_bucket(concept, ((64, 64), (96, 32)))
    assert [(size, part.captions, part.mask_paths) for size, part in parts.items()] == [
        ((64, 64), (None,), (None,)),
        ((96, 32), ("zero", "two"), (None, Path("m"))),
    ]


def test_a_view_of_a_bucket_has_its_aspect_and_shows_the_whole_picture(tmp_path: Path) -> None:
    image = Image.new("RGB", (160, 96), (255, 0, 0))
    image.paste((0, 0, 255), (80, 0, 160, 96))
    for left in (0, 144):  # seen at the edges only if nothing is cut off
        image.paste((127, 255, 127), (left, 0, left + 16, 96))
    image.save(tmp_path / "a.png")
    first, *others = views(tmp_path / "a.png", (80, 48), 5, seed=0)
    assert first.shape == (48, 80, 3)
    np.testing.assert_allclose(
        first[:, [0, 4, 20, 38, 41, 60, 75, 79], 0], [[0, 0, 1, 1, -1, -1, 0, 0]] * 48, atol=0.01
    )
    assert all(abs((view[..., 0] > 0.5).mean() - 0.4) < 0.1 for view in others)


def test_each_picture_has_its_turn_in_a_round() -> None:
    data = LessonData(("a", "b", "c"), (0, 0, 0, 1, 2, 2), (7, 1))  # type: ignore[arg-type]
    rounds = [[data.at(call) for call in range(start, start + 6)] for start in range(0, 60, 6)]
    assert all(sorted(turn) == ["a", "a", "a", "b", "c", "c"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 5
    assert [data.at(call) for call in range(60)] == sum(rounds, [])
    other = dataclasses.replace(data, seed=(8, 1))
    assert [other.at(call) for call in range(60)] != sum(rounds, [])


def with_buckets(tiny_folder: Path, folder: Path) -> RunSettings:
    """Two concepts, of pictures in two sizes."""
    sizes = {"a_cat": [(30, 20), (20, 20), (30, 20)], "b_dog": [(20, 20), (30, 20), (21, 20), (20, 20), (20, 21)]}
    for name, of_pictures in sizes.items():
        for i, size in enumerate(of_pictures):
            saved(folder / "data" / name / f"{name}{i}.png", size)
    config = values(tiny_folder, folder / "run") | {"data_root": str(folder / "data"), "concepts": []}
    config["train"] |= {"buckets": True}
    config["report"] |= {"sheets": False}
    return build(RunSettings, config)


def test_lessons_share_a_compilation_a_bucket_and_go_on_where_they_stopped(
    tiny_folder: Path, tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = with_buckets(tiny_folder, tmp_path / "whole"), with_buckets(tiny_folder, tmp_path / "stopped")
    lines = "\n".join(plan(whole))
    for said in (
        "aspect buckets, a compilation each: 16 x 16 (5 pictures), 20 x 12 (3 pictures)",
        "prior images: 3 of 'a photo of a cat' at 20 x 12: to make",
        "prior images: 1 of 'a photo of a cat' at 16 x 16: to make",
    ):
        assert said in lines, lines
    before, write, of_lesson = train_steps.jitted._cache_size(), Metrics.write, {}

    def watch(self: Metrics, part: str, step: int, values: dict[str, float]) -> None:
        write(self, part, step, values)
        if step == 12:
            of_lesson[part] = list(compiled)

    monkeypatch.setattr(Metrics, "write", watch)
    TrainingRun(whole).run()
    assert train_steps.jitted._cache_size() - before == 2
    new = of_lesson["b_dog"][len(of_lesson["a_cat"]) :]
    assert not [name for name in new if any(of in name for of in ("step", "encode", "latents"))], new

    def stop(self: Metrics, part: str, step: int, values: dict[str, float]) -> None:
        write(self, part, step, values)
        if (part, step) == ("b_dog", 4):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Metrics, "write", stop)
    with pytest.raises(Interrupted, match="stopped in b_dog at step 6"):
        TrainingRun(stopped).run()
    monkeypatch.setattr(Metrics, "write", write)
    TrainingRun(stopped).run()
    for name in ("01_a_cat", "02_b_dog"):
        one, two = (load_file(Path(s.directory) / "weights" / f"{name}.safetensors") for s in (whole, stopped))
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key], err_msg=key)
