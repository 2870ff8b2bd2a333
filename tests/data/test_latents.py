"""The cache of encoded views: same answer from disk, redone when damaged, keyed by all it depends on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cns_jax.data import latents


def test_cache(tiny_pipeline, tmp_path: Path, monkeypatch) -> None:
    model, vae = tiny_pipeline.model, tiny_pipeline.params["vae"]
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)).save(picture)
    calls = []
    encode = latents.encode_views
    monkeypatch.setattr(latents, "encode_views", lambda *a: calls.append(1) or encode(*a))

    def moments(vae_id: str = "v", count: int = 3, dtype: Any = None) -> np.ndarray:
        of = dataclasses.replace(model, dtype=dtype)
        return latents.LatentCache(tmp_path / "cache", of, vae, vae_id, (16, 16), count, 0, True).moments(picture)

    first = moments()
    assert first.shape == (3, 4, 4, 8) and first.dtype == np.float32 and len(calls) == 1
    np.testing.assert_array_equal(first, moments())
    assert len(calls) == 1
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(first, moments())
    assert len(calls) == 2
    moments(vae_id="w"), moments(count=2), moments(dtype=np.dtype("float16"))
    assert len(calls) == 5
    picture.write_bytes(picture.read_bytes() + b"\0")
    moments()
    assert len(calls) == 6


def test_an_encoder_compiled_ahead_is_the_one_that_encodes(tiny_pipeline, tmp_path: Path, compiled: list[str]) -> None:
    """And none is, where all moments are kept."""
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for i, picture in enumerate(pictures):
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(picture)
    model, vae = tiny_pipeline.model, tiny_pipeline.params["vae"]
    size = 24, 24  # which no other test takes
    cache = latents.LatentCache(tmp_path / "cache", model, vae, "v", size, 3, 0, True)
    count = lambda: len([name for name in compiled if "encode" in name])  # noqa: E731
    cache.ahead(pictures)
    for picture in pictures:
        cache.moments(picture)
    assert count() == 1
    latents._encode._begun.clear()
    cache.ahead(pictures)  # they are kept now
    assert count() == 1 and not latents._encode._ahead
