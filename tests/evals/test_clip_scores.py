"""CLIP-I and CLIP-T: the formulas by hand, pixels as torchvision would have them, and the miniature's own CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.evals import clip_scores
from cns_jax.evals.clip_scores import ClipScorer, Preprocess, best_of, clip_i, clip_i_of_several, clip_score, clip_t
from cns_jax.evals.control import control_pictures, control_prompts, real_renders
from cns_jax.nn.config import UnsupportedConfig
from cns_jax.text.tokenizer import TokenizerFilesError
from cns_jax.text.vocabulary import TruncatedPromptWarning, UnknownTokenError
from cns_jax.weights.tensors import WeightsMismatch

pytestmark = pytest.mark.computes


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer.open("miniature", batch=8)


def at(*degrees: float) -> np.ndarray:
    """Plane vectors of different lengths at these angles; the cosine of two is that of their difference."""
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.arange(1, len(degrees) + 1)[:, None]


def test_clip_i_is_the_mean_over_all_pairs() -> None:
    images, references = at(0, 90), at(0, 60, 90)
    np.testing.assert_allclose(clip_i(images, references), [(1 + 0.5 + 0) / 3, (0 + np.sqrt(0.75) + 1) / 3], atol=1e-12)


def test_clip_i_of_several_concepts_counts_each_once() -> None:
    few, many = at(0), at(90, 90, 90)
    np.testing.assert_allclose(clip_i_of_several(at(0, 60), [few, many]), [0.5, (0.5 + np.sqrt(0.75)) / 2], atol=1e-12)


def test_clip_t_pairs_each_image_with_its_text() -> None:
    np.testing.assert_allclose(clip_t(at(0, 0, 30), at(60, 180, 30)), [0.5, -1, 1], atol=1e-12)
    with pytest.raises(ValueError, match="a text is needed for each image"):
        clip_t(at(0, 0), at(60))


def test_clip_score_has_the_scale_of_the_tables() -> None:
    np.testing.assert_allclose(100 * clip_score(np.array([0.3078, -0.2, 0.0])), [76.95, 0, 0])


def test_no_references_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        clip_i(at(0), np.zeros((0, 2)))


def test_best_of_takes_the_highest_sum() -> None:
    image = np.array([[0.9, 0.5, 0.7], [0.2, 0.4, 0.4]])
    text = np.array([[0.1, 0.8, 0.7], [0.6, 0.4, 0.4]])  # sums 1.0 1.3 1.4 and .8 .8 .8
    assert best_of(image, text).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("image", "text"), [(np.ones((2, 3)), np.ones((3, 2))), (np.full((1, 2), np.nan), np.ones((1, 2)))]
)
def test_best_of_refuses_what_it_cannot_compare(image, text) -> None:
    with pytest.raises(ValueError):
        best_of(image, text)


@pytest.mark.parametrize(
    ("height", "width", "row", "column"), [(11, 8, 2, 0), (8, 13, 0, 2), (8, 8, 0, 0), (8, 9, 0, 0)]
)
def test_the_crop_is_torchvisions(height: int, width: int, row: int, column: int) -> None:
    """Half a pixel is rounded to the even neighbour: 1.5 to 2, 2.5 to 2, 0.5 to 0."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = np.arange(height)[:, None], np.arange(width)
    seen = np.rint(Preprocess(8, 8, (0.0,) * 3, (1.0,) * 3)(image) * 255)
    assert seen.shape == (8, 8, 3) and seen[0, 0, :2].tolist() == [row, column]


def test_an_oblong_picture_is_not_squashed() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255  # the centre square
    seen = Preprocess(20, 16, (0.5,) * 3, (0.5,) * 3)(image)
    assert seen.shape == (16, 16, 3) and seen.dtype == np.float32
    np.testing.assert_allclose(seen, 1, atol=1e-6)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(TypeError, match="uint8"):
        Preprocess(8, 8)(image)


OLD = {"crop_size": 32, "size": 36, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
NEW = {**OLD, "crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 36}, "rescale_factor": 1 / 255}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("preprocessor_config.json", OLD),
        ("preprocessor_config.json", NEW),
        ("processor_config.json", {"image_processor": NEW}),
    ],
)
def test_preprocessing_is_read(name: str, config: dict, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(config))
    wanted = Preprocess(36, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert Preprocess.read(tmp_path, 32) == wanted
    wanted.write(tmp_path)
    assert Preprocess.read(tmp_path, 32) == wanted


def test_without_a_file_it_is_openais(tmp_path: Path) -> None:
    assert Preprocess.read(tmp_path, 224) == Preprocess()
    assert Preprocess().mean[0] == 0.48145466 and Preprocess().std[2] == 0.27577711


@pytest.mark.parametrize(
    "change",
    [
        {"do_normalize": False},
        {"resample": 2},
        {"rescale_factor": 1.0},
        {"crop_size": 40},
        {"size": {"height": 36, "width": 36}},
    ],
)
def test_other_preprocessing_is_refused(change: dict, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**OLD, **change}))
    with pytest.raises(UnsupportedConfig):
        Preprocess.read(tmp_path, 32)


def test_the_miniature_sees_pixels_as_in_its_training(scorer: ClipScorer) -> None:
    from cns_jax.engine.pretrain.clip import embed
    from cns_jax.engine.pretrain.vae import to_float

    pictures = control_pictures(3)
    images, prompts = real_renders(pictures), control_prompts(pictures)
    clip = scorer.clip
    ids = scorer.vocabulary.encode(prompts, clip.text.max_position_embeddings)
    embed_whole = jax.jit(embed, static_argnums=(1, 2))
    texts, seen = embed_whole(clip.params, clip.text, clip.vision, jnp.asarray(ids), to_float(jnp.asarray(images)))
    np.testing.assert_allclose(scorer.images(images), seen, atol=2e-6)
    np.testing.assert_allclose(scorer.texts(prompts), texts, atol=2e-6)


def test_the_miniature_knows_pictures_by_their_prompts(scorer: ClipScorer) -> None:
    pictures = control_pictures(24)
    images, texts = scorer.images(real_renders(pictures)), scorer.texts(control_prompts(pictures))
    assert images.shape == texts.shape == (24, scorer.clip.text.projection_dim) and images.dtype == np.float32
    assert ((images @ texts.T).argmax(1) == np.arange(24)).mean() > 0.8
    assert clip_t(images, texts).mean() > clip_t(images, np.roll(texts, 1, 0)).mean() + 0.2


def test_one_compiled_batch_size(scorer: ClipScorer) -> None:
    images = real_renders(control_pictures(11))
    together = scorer.images(images)
    compiled = clip_scores._embed_images.jitted._cache_size()
    alone = np.concatenate([scorer.images(image[None]) for image in images])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    assert clip_scores._embed_images.jitted._cache_size() == compiled


def test_prompts_keep_their_order_and_are_cut(scorer: ClipScorer) -> None:
    a, b = scorer.texts(["a red cat", "a blue dog"])
    np.testing.assert_array_equal(scorer.texts(["a blue dog", "a red cat", "a blue dog"]), [b, a, b])
    with pytest.warns(TruncatedPromptWarning):
        assert scorer.texts(["a red cat on the beach " * 20]).shape[0] == 1
    with pytest.raises(UnknownTokenError):
        scorer.texts(["a photo of a <cat1> cat"])
    with pytest.raises(ValueError, match="nothing to embed"):
        scorer.texts([])


def test_models_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsMismatch, match="neither a folder nor"):
        ClipScorer.open(tmp_path / "gone")
    with pytest.raises(WeightsMismatch, match="hf download openai/clip-vit-none"):
        ClipScorer.open("openai/clip-vit-none")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsMismatch, match="save_pretrained"):
        ClipScorer.open(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    import shutil

    from cns_jax.text.train_bpe import train_tokenizer

    shutil.copytree(clip_scores._find("miniature"), tmp_path / "clip")
    train_tokenizer(["a photo of a cat"], tmp_path / "clip", vocab_size=600, max_length=32)
    with pytest.raises(TokenizerFilesError, match="two models"):
        ClipScorer.open(tmp_path / "clip")
