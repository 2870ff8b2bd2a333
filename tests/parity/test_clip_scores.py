"""Embeddings from pixels and prompts against transformers' CLIPModel and CLIPProcessor; CLIPScore of a known pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from errors import assert_parity

from cns_jax.evals.clip_scores import ClipScorer, Preprocess, clip_i, clip_score, clip_t
from cns_jax.text.train_bpe import train_tokenizer
from cns_jax.text.vocabulary import TruncatedPromptWarning

transformers = pytest.importorskip("transformers")

PROMPTS = ["a photo of a red cat on the beach", "a dog", "a dog " * 12]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory):
    """(folder, model, processor) of a random CLIP whose processor is OpenAI's, for images of 32 pixels."""
    folder: Path = tmp_path_factory.mktemp("clip")
    tokenizer = train_tokenizer(PROMPTS[:2], folder, vocab_size=600, max_length=16)
    common = dict(intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, projection_dim=16, hidden_size=32)
    text = dict(vocab_size=tokenizer.size, max_position_embeddings=16, pad_token_id=tokenizer.pad_id)
    ends = dict(bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id)
    vision = dict(image_size=32, patch_size=8)
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**common, **text, **ends}, vision_config={**common, **vision}, projection_dim=16
        )
    ).eval()
    with torch.no_grad():  # as drawn, all pictures and all texts nearly point one way
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(2.0 if "embedding" in name else 5.0)
    model.save_pretrained(folder)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = transformers.CLIPProcessor(pictures, transformers.CLIPTokenizer.from_pretrained(folder))
    processor.save_pretrained(folder)
    return folder, model, processor


def photographs() -> list[np.ndarray]:
    """Smooth colours with noise, larger and smaller than the model's input, square and oblong."""
    rng = np.random.default_rng(0)
    found = []
    for h, w in ((64, 64), (97, 57), (40, 120), (20, 20), (32, 32), (50, 47)):
        y, x = np.mgrid[:h, :w][..., None] / 20
        waves = 127 + 90 * np.sin(x * rng.uniform(0.5, 3, 3) + y * rng.uniform(0.5, 3, 3))
        found.append((waves + rng.normal(0, 20, (h, w, 3))).clip(0, 255).astype(np.uint8))
    return found


def unit(rows: torch.Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


def embeddings(model, inputs) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        out = model(**inputs)
    return unit(out.image_embeds), unit(out.text_embeds)


def test_pixels_and_embeddings(theirs) -> None:
    folder, model, processor = theirs
    scorer = ClipScorer.open(folder, batch=4)
    assert scorer.preprocess == Preprocess(32, 32)  # OpenAI's mean and std
    images = photographs()
    inputs = processor(text=PROMPTS, images=images, return_tensors="pt", padding=True, truncation=True)
    pixels = np.stack([scorer.preprocess(image) for image in images])
    assert_parity(pixels, inputs["pixel_values"].numpy().transpose(0, 2, 3, 1), "pixels")
    with pytest.warns(TruncatedPromptWarning):
        texts = scorer.texts(PROMPTS)
    rows = scorer.images(images)
    wanted_images, wanted_texts = embeddings(model, inputs)
    cosines = wanted_images @ wanted_images.T
    assert cosines.min() < 0.9, "the random model tells no picture from another, so the test could not fail"
    assert_parity(rows, wanted_images, "image embeddings")
    assert_parity(texts, wanted_texts, "text embeddings")
    assert_parity(clip_i(rows, rows[:2]), cosines[:, :2].mean(1), "CLIP-I")


def test_clip_score_of_a_known_pair(theirs) -> None:
    """2.5 times the positive part of the cosine, as Custom Diffusion's evaluate.py prints it."""
    folder, model, processor = theirs
    scorer, images = ClipScorer.open(folder), photographs()
    prompts = PROMPTS[:2]
    inputs = processor(text=prompts, images=images[:2], return_tensors="pt", padding=True)
    image, text = embeddings(model, inputs)
    wanted = [2.5 * max(0.0, float(np.dot(i, t))) for i, t in zip(image, text, strict=True)]
    found = clip_score(clip_t(scorer.images(images[:2]), scorer.texts(prompts)))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert max(wanted) > 0.01
