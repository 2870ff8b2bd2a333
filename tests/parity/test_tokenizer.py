"""A StableDiffusionPipeline with our tokenizer folder reads prompts as we do."""

from __future__ import annotations

import numpy as np
import pytest

from cns_jax.diffusion.schedule import Schedule
from cns_jax.text.train_bpe import train_tokenizer
from cns_jax.text.vocabulary import Vocabulary

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

PROMPTS = ["a photo of <cat1> cat, <dog1>.", "a red hippopotamus"]


def tiny_pipeline(tokenizer, vocab_size: int):
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=32,
        attention_head_dim=2,
    )
    scheduler = diffusers.DDIMScheduler.from_config(Schedule().to_config("DDIMScheduler"))
    vae = diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)
    return diffusers.StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def test_pipeline_accepts_the_saved_folder(tmp_path):
    from transformers import CLIPTokenizer

    captions = ["a photo of a red cat on the beach"]
    vocabulary = Vocabulary(train_tokenizer(captions, tmp_path / "base"), ("<cat1>", "<dog1>"))
    vocabulary.save(tmp_path / "tokenizer")
    pipeline = tiny_pipeline(CLIPTokenizer.from_pretrained(tmp_path / "tokenizer"), vocabulary.base_size + 2)
    pipeline.save_pretrained(tmp_path / "pipeline")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    ids = vocabulary.encode(PROMPTS)
    theirs = pipeline.tokenizer(PROMPTS, padding="max_length", max_length=32, truncation=True).input_ids
    np.testing.assert_array_equal(theirs, ids)
    embedded, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
    with torch.no_grad():
        expected = pipeline.text_encoder(torch.from_numpy(ids).long())[0]
    np.testing.assert_allclose(embedded.detach(), expected, atol=1e-6)
    out = pipeline(PROMPTS, num_inference_steps=1, height=8, width=8, output_type="np").images
    assert out.shape == (2, 8, 8, 3)
