"""VAE and CLIP towers against diffusers and transformers, float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from errors import assert_parity
from safetensors.numpy import save_file

from cns_jax.nn.clip import CLIPTextConfig, CLIPTextModel
from cns_jax.nn.vae import AutoencoderKL, VAEConfig
from cns_jax.weights.clip_folder import Clip, read_clip, write_clip
from cns_jax.weights.strict import load_file

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


def test_vae(tmp_path) -> None:
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 24, 32),
        norm_num_groups=8,
        latent_channels=5,
    )
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    config = VAEConfig.from_dict(dict(theirs.config))
    ours = AutoencoderKL(config)
    x = torch.randn(2, 3, 32, 24)
    images = jnp.asarray(x.numpy().transpose(0, 2, 3, 1))
    target = jax.eval_shape(ours.init, jax.random.key(0), images)["params"]
    params = load_file(file, target)
    with torch.no_grad():
        latents = theirs.encode(x).latent_dist
        decoded = theirs.decode(latents.mean).sample
    moments, images_out = jax.jit(ours.apply)({"params": params}, images)
    wanted = torch.cat([latents.mean, latents.logvar], 1)
    assert_parity(moments, wanted.numpy().transpose(0, 2, 3, 1), "VAE moments")
    assert_parity(images_out, decoded.numpy().transpose(0, 2, 3, 1), "VAE decoder")


def clip_model(act: str, end: int = 98):
    torch.manual_seed(0)
    common = dict(intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, hidden_act=act, projection_dim=16)
    text = dict(
        hidden_size=32, vocab_size=99, max_position_embeddings=12, bos_token_id=97, eos_token_id=end, pad_token_id=98
    )
    vision = dict(hidden_size=32, image_size=32, patch_size=8)
    config = transformers.CLIPConfig(
        text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=16
    )
    return transformers.CLIPModel(config).eval()


IDS = torch.tensor([[97, 5, 6, 7, 98, 98, 98, 98, 98, 98, 98, 98], [97, 8, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98]])


@pytest.mark.parametrize(("act", "end"), [("quick_gelu", 98), ("gelu", 98), ("quick_gelu", 2)])
def test_clip_towers_and_folder(act: str, end: int, tmp_path) -> None:
    """Read their folder, compare both embeddings; write ours, and theirs opens it with equal outputs."""
    from cns_jax.nn.clip import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    theirs = clip_model(act, end)  # OpenAI's own files say that the end of text is 2
    theirs.save_pretrained(tmp_path / "theirs")
    clip = read_clip(tmp_path / "theirs")
    pixels = torch.randn(2, 3, 32, 32)
    ids, images = jnp.asarray(IDS.numpy()), jnp.asarray(pixels.numpy().transpose(0, 2, 3, 1))
    text = CLIPTextModelWithProjection(clip.text).apply({"params": clip.params["text"]}, ids)
    vision = CLIPVisionModelWithProjection(clip.vision).apply({"params": clip.params["vision"]}, images)

    def embeddings(model):
        with torch.no_grad():
            hidden = model.text_model(input_ids=IDS).pooler_output
            seen = model.vision_model(pixel_values=pixels).pooler_output
            return model.text_projection(hidden).numpy(), model.visual_projection(seen).numpy()

    wanted = embeddings(theirs)
    assert_parity(text, wanted[0], f"CLIP {act} text embedding")
    assert_parity(vision, wanted[1], f"CLIP {act} image embedding")
    write_clip(tmp_path / "ours", Clip(clip.text, clip.vision, clip.params))
    again = embeddings(transformers.CLIPModel.from_pretrained(tmp_path / "ours").eval())
    assert_parity(again[0], wanted[0], "reopened text embedding", 1e-6)
    assert_parity(again[1], wanted[1], "reopened image embedding", 1e-6)


def test_hidden_states_and_the_gradient_of_a_token_row(tmp_path) -> None:
    theirs = clip_model("quick_gelu").text_model
    names = {f"text_model.{k}": v.numpy() for k, v in theirs.state_dict().items()}
    config = CLIPTextConfig.from_dict({**theirs.config.to_dict()})
    ours = CLIPTextModel(config)
    target = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    save_file(names, tmp_path / "text.safetensors")
    params = load_file(tmp_path / "text.safetensors", target)
    weight = torch.randn(2, 12, 32)
    hidden = theirs(input_ids=IDS).last_hidden_state
    (hidden * weight).sum().backward()
    table = theirs.embeddings.token_embedding.weight
    rows = jnp.asarray(table.detach().numpy())[5:6]
    ids = jnp.where(jnp.asarray(IDS.numpy()) == 5, 99, jnp.asarray(IDS.numpy()))

    def loss(rows):
        out = ours.apply({"params": params}, ids, rows)
        return (out * weight.numpy()).sum(), out

    gradient, out = jax.grad(loss, has_aux=True)(rows)
    assert_parity(out, hidden.detach().numpy(), "text hidden states (row 0 in place of id 5)")
    assert_parity(gradient[0], table.grad[5].numpy(), "gradient of the token row")
    assert np.abs(gradient).max() > 0
