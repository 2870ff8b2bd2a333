"""DINO-I: likeness to a concept's references by a network that was never told what a dog is. Needs PyTorch."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from cns_jax.core.settings import SettingsError, require
from cns_jax.evals.clip_scores import Images, Preprocess, clip_i, embedded

_DINO = "facebook/dino-vits16"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclass(frozen=True, eq=False)
class DinoScorer:
    """A ViT of transformers that embeds pictures, on the CPU: the accelerator's memory is JAX's."""

    vit: Any
    preprocess: Preprocess
    batch: int = 32

    @classmethod
    def open(cls, model: str = _DINO, batch: int = 32) -> DinoScorer:
        """model: a ViT's hub id or its folder; tables are made with DINO ViT-S/16, the default.

        Raises SettingsError if PyTorch is missing, or if `model` is no ViT that can be had.
        """
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from transformers.utils import is_torch_available

        require(
            is_torch_available(),
            "DINO-I needs PyTorch 2.6 or later: pip install '.[dino]' in the clone of this repository, or "
            "pip install torch",
        )
        from safetensors import SafetensorError
        from transformers import AutoConfig, ViTModel

        source = os.path.expanduser(model)
        try:
            # first, since from_pretrained takes any model's files and fills what they lack with noise
            config = AutoConfig.from_pretrained(source)
            require(
                config.model_type == "vit", f"{model!r} is a {config.model_type} model; DINO is a ViT, e.g. {_DINO}"
            )
            opened: Any = ViTModel.from_pretrained(source, add_pooling_layer=False, output_loading_info=True)
            vit, loaded = opened
            require(not loaded["missing_keys"], f"{model!r} lacks weights: {sorted(loaded['missing_keys'])[:3]}")
        except SettingsError:
            raise
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise SettingsError(
                f"the DINO model {model!r} cannot be loaded: {reason}\nWithout a network here, run  hf download "
                f"{_DINO} --local-dir dino  where there is one, copy the folder and give its path"
            ) from None
        # DINO's own: 256 to 224 (Custom Diffusion's evaluate.py); the folder's processor would squash to 224
        crop = int(vit.config.image_size)
        return cls(vit.eval().requires_grad_(False), Preprocess(crop * 256 // 224, crop, _MEAN, _STD), batch)

    def images(self, images: Images) -> np.ndarray:
        """Class token after the last norm, float32 (n, d), not scaled; images: uint8 (h, w, 3) of any sizes."""
        return embedded(images, self.preprocess, functools.partial(_embed, self.vit), self.batch)


def _embed(vit: Any, images_bhwc: np.ndarray) -> np.ndarray:
    from transformers import BatchFeature

    pixels = {"pixel_values": np.ascontiguousarray(images_bhwc.transpose(0, 3, 1, 2))}
    return vit(**BatchFeature(pixels, tensor_type="pt")).last_hidden_state[:, 0].numpy()


def dino_i(images_nd: np.ndarray, references_md: np.ndarray) -> np.ndarray:
    """DINO-I of each image (n,): mean cosine with all references (Ruiz et al. 2023, arXiv:2208.12242, section 4.1).

    The same formula as CLIP-I, on DINO's embeddings. Raises ValueError if there are no references.
    """
    return clip_i(images_nd, references_md)
