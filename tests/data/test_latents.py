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
    cache = latents.LatentCache(tmp_path / "cache")

    def moments(vae_id: str = "v", count: int = 3, dtype: Any = None) -> np.ndarray:
        return cache.moments(dataclasses.replace(model, dtype=dtype), vae, vae_id, picture, 16, count, 0, True)

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
