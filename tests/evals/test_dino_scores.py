"""DINO-I with a random ViT of two narrow layers, and what is said where PyTorch or the model is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cns_jax.core.settings import SettingsError
from cns_jax.evals.clip_scores import Preprocess
from cns_jax.evals.dino_scores import DinoScorer, dino_i

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTModel, set_seed

    folder = tmp_path_factory.mktemp("vit")
    set_seed(0)
    narrow = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    vit = ViTModel(ViTConfig(image_size=56, patch_size=14, initializer_range=0.5, **narrow), add_pooling_layer=False)
    vit.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(256, size=(h, w, 3), dtype=np.uint8) for h, w in ((80, 80), (64, 100), (30, 30))]


def test_features_are_the_class_token_of_vits_own_forward(folder: Path, images: list[np.ndarray]) -> None:
    from transformers import ViTImageProcessor, ViTModel

    scorer = DinoScorer.open(str(folder), batch=2)
    assert scorer.preprocess == Preprocess(64, 56, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    processor = ViTImageProcessor(
        size={"shortest_edge": 64}, resample=3, do_center_crop=True, crop_size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    vit = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    wanted = vit(**processor(images, return_tensors="pt")).last_hidden_state.detach().numpy()[:, 0]
    rows = scorer.images(images)
    assert rows.shape == (3, 16)
    np.testing.assert_allclose(rows, wanted, atol=1e-4 * np.abs(wanted).max())


def test_dino_i_is_the_mean_over_all_pairs() -> None:
    images, references = np.array([[2.0, 0], [0, 3]]), np.array([[1.0, 0], [0, 5], [1, 1]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(dino_i(images, references), [(1 + half) / 3] * 2)
    np.testing.assert_allclose(dino_i(images[:1], references[1:]), [half / 2])


def test_without_torch_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_torch_available", lambda: False)
    with pytest.raises(SettingsError, match=r"needs PyTorch.*pip install '\.\[dino\]'"):
        DinoScorer.open(str(folder))


def test_models_that_cannot_be_had(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import load_file, save_file

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SettingsError, match="hf download facebook/dino-vits16"):
        DinoScorer.open(str(tmp_path / "gone"))
    config = (folder / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"vit"', '"clip"'))
    with pytest.raises(SettingsError, match="is a clip model"):
        DinoScorer.open(str(tmp_path))
    (tmp_path / "config.json").write_text(config)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layernorm" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SettingsError, match="lacks weights"):
        DinoScorer.open(str(tmp_path))
