"""CLIP-I and CLIP-T: how much pictures look like a concept's references, and how well they follow their prompts.

Legend of shapes: n images, m references, p prompts, d width of the embedding. Embeddings are of any length and are
scaled to 1 here; scores are float64.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cns_jax.core.batches import in_batches
from cns_jax.core.xla.compiling import jit
from cns_jax.nn.clip import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection
from cns_jax.nn.config import UnsupportedConfig
from cns_jax.text.tokenizer import TokenizerFilesError, load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.clip_folder import Clip, read_clip
from cns_jax.weights.find import read_json, write_json
from cns_jax.weights.locate import download
from cns_jax.weights.tensors import WeightsMismatch

OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # transformers 5 writes the second
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Preprocess:
    """Pixels as OpenAI's CLIP takes them (clip/clip.py, `_transform`; torchvision's Resize, CenterCrop, Normalize).

    resize: length of the shortest side after bicubic resizing. crop: side of the centre square. mean, std: of
    the channels, in [0, 1].
    """

    resize: int = 224
    crop: int = 224
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD

    @classmethod
    def read(cls, folder: Path, side: int) -> Preprocess:
        """From a folder's preprocessor_config.json or processor_config.json; without either, OpenAI's at `side`.

        side: of the images that the model takes. Raises UnsupportedConfig for any other kind of preprocessing.
        """
        file = next((folder / name for name in _PROCESSORS if (folder / name).is_file()), None)
        config: Mapping[str, Any] = read_json(file) if file else {}
        config = config.get("image_processor", config)
        off = [k for k in ("do_resize", "do_center_crop", "do_rescale", "do_normalize") if not config.get(k, True)]
        if off:
            raise UnsupportedConfig(f"{folder}: the image processor has {off[0]}=false; CLIP's does all of it")
        if config.get("resample", 3) != 3 or abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
            raise UnsupportedConfig(f"{folder}: images must be resized with resample=3 (bicubic), rescaled by 1/255")
        size, crop = config.get("size", side), config.get("crop_size", side)
        resize = size.get("shortest_edge") if isinstance(size, Mapping) else size
        crops = {crop.get("height"), crop.get("width")} if isinstance(crop, Mapping) else {crop}
        if not isinstance(resize, int) or crops != {side} or resize < side:
            raise UnsupportedConfig(
                f"{folder}: size={size}, crop_size={crop}; the image tower takes {side} x {side}, so crop_size must be "
                "that, and size an integer or shortest_edge, not below it"
            )
        mean, std = config.get("image_mean", OPENAI_MEAN), config.get("image_std", OPENAI_STD)
        return cls(resize, side, tuple(mean), tuple(std))

    def write(self, folder: Path) -> None:
        """The preprocessor_config.json that transformers' CLIPImageProcessor and `read` open."""
        steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
        sizes = {"size": {"shortest_edge": self.resize}, "crop_size": {"height": self.crop, "width": self.crop}}
        values = {"resample": 3, "rescale_factor": 1 / 255, "image_mean": list(self.mean), "image_std": list(self.std)}
        config = {"image_processor_type": "CLIPImageProcessor", **dict.fromkeys(steps, True), **sizes, **values}
        write_json(folder / "preprocessor_config.json", config)

    def __call__(self, image_hwc: np.ndarray) -> np.ndarray:
        """One uint8 (h, w, 3) picture of any size as float32 (crop, crop, 3). Raises TypeError for any other array."""
        image_hwc = np.asarray(image_hwc)
        if image_hwc.dtype != np.uint8 or image_hwc.ndim != 3 or image_hwc.shape[2] != 3:
            raise TypeError(f"a picture must be uint8 (h, w, 3), got {image_hwc.dtype} {image_hwc.shape}")
        h, w = image_hwc.shape[:2]
        short = min(h, w)
        height, width = self.resize * h // short, self.resize * w // short
        resized = Image.fromarray(image_hwc).resize((width, height), Image.Resampling.BICUBIC)
        # round, as torchvision; transformers' processors take the floor, one pixel off for some oblong pictures
        top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
        pixels = np.asarray(resized, np.float32)[top : top + self.crop, left : left + self.crop] / 255
        return (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


Images = Sequence[np.ndarray] | np.ndarray  # uint8 (n, h, w, 3), or n pictures (h, w, 3) of any sizes


def embedded(
    items: Sequence[_T] | np.ndarray, prepare: Callable[[_T], np.ndarray], embed: Callable, batch: int
) -> np.ndarray:
    """`embed` of the items, of which only `batch` are prepared at a time.

    embed: arrays (batch, ...) to (batch, d). Raises ValueError if there are no items.
    """
    if not len(items):
        raise ValueError("nothing to embed: no images or no prompts were given")
    return in_batches(lambda rows: embed(np.stack([prepare(items[i]) for i in rows])), batch, np.arange(len(items)))


@dataclass(frozen=True, eq=False)
class ClipScorer:
    """A CLIP model that embeds pictures and prompts. batch: how many at a time, the one size that is compiled."""

    clip: Clip
    vocabulary: Vocabulary
    preprocess: Preprocess
    batch: int = 32

    @classmethod
    def open(cls, model: str | Path, batch: int = 32) -> ClipScorer:
        """model: "miniature", a transformers CLIP folder, or its hub id ("openai/clip-vit-base-patch32").

        The tokenizer is in the folder itself, or in tokenizer/ beside it. Tables are made with ViT-B/32 (Custom
        Diffusion's evaluate.py). Raises WeightsMismatch, UnsupportedConfig or TokenizerFilesError.
        """
        folder = _find(str(model))
        clip = read_clip(folder)
        inside = (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()
        tokenizer = load_tokenizer(folder if inside else folder.parent / "tokenizer")
        if tokenizer.eos_id != clip.text.end_of_text or tokenizer.size > clip.text.vocab_size:
            raise TokenizerFilesError(
                f"{folder}: the tokenizer has {tokenizer.size} tokens and ends texts with {tokenizer.eos_id}, the text "
                f"tower has {clip.text.vocab_size} and reads at {clip.text.end_of_text}; they belong to two models"
            )
        preprocess = Preprocess.read(folder, clip.vision.image_size)
        on_device = Clip(clip.text, clip.vision, jax.tree.map(jnp.asarray, clip.params))
        return cls(on_device, Vocabulary(tokenizer), preprocess, batch)

    def images(self, images: Images) -> np.ndarray:
        """Embeddings float32 (n, d) of length 1; images: uint8 (n, h, w, 3), or a list of (h, w, 3) of any sizes."""
        embed = functools.partial(_embed_images, self.clip.params["vision"], self.clip.vision)
        return embedded(images, self.preprocess, embed, self.batch)

    def texts(self, prompts: Sequence[str]) -> np.ndarray:
        """Embeddings float32 (n, d) of length 1, the prompt as it is; each different one is computed once.

        A prompt beyond the model's positions loses its end, with a TruncatedPromptWarning. Raises
        UnknownTokenError for a concept's token: CLIP has never seen it; see `data.prompts.without_tokens`.
        """
        unique = list(dict.fromkeys(prompts))
        length = self.clip.text.max_position_embeddings
        ids = dict(zip(unique, self.vocabulary.encode(unique, length), strict=True))
        embed = functools.partial(_embed_texts, self.clip.params["text"], self.clip.text)
        rows_pd = embedded(unique, ids.__getitem__, embed, self.batch)
        return rows_pd[[unique.index(prompt) for prompt in prompts]]


def _find(model: str) -> Path:
    """The folder of a CLIP model. Raises WeightsMismatch saying what to do if it cannot be read."""
    if model == "miniature":
        return Path(str(resources.files("cns_jax.miniature"))) / "model" / "clip"
    folder = Path(os.path.expanduser(model))
    if not folder.is_dir():
        if model.count("/") != 1 or model.startswith((".", "/", "~")):
            raise WeightsMismatch(f"clip={model!r} is neither a folder nor owner/name of a repository on the hub")
        folder = download(model, ["config.json", "model.safetensors", *_PROCESSORS, *_TOKENIZER])
    if not (folder / "model.safetensors").is_file():
        raise WeightsMismatch(
            f"{folder} has no model.safetensors; only that is read, pickles never. Convert the model once where "
            f'PyTorch is installed: python -c "from transformers import CLIPModel as M, CLIPProcessor as P; '
            f"[c.from_pretrained('{model}').save_pretrained('clip') for c in (M, P)]\" and give the folder clip"
        )
    return folder


@jit(static_argnums=1)
def _embed_images(params: Mapping[str, Any], config: CLIPVisionConfig, images_bhwc: jax.Array) -> jax.Array:
    # the default would multiply in TF32 or bfloat16 on an accelerator; scores should not depend on the device
    with jax.default_matmul_precision("float32"):
        rows_bd = CLIPVisionModelWithProjection(config).apply({"params": params}, images_bhwc)
    return rows_bd / jnp.linalg.norm(rows_bd, axis=-1, keepdims=True)


@jit(static_argnums=1)
def _embed_texts(params: Mapping[str, Any], config: CLIPTextConfig, ids_bl: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("float32"):
        rows_bd = CLIPTextModelWithProjection(config).apply({"params": params}, ids_bl)
    return rows_bd / jnp.linalg.norm(rows_bd, axis=-1, keepdims=True)


def clip_i(images_nd: np.ndarray, references_md: np.ndarray) -> np.ndarray:
    """CLIP-I of each image (n,): mean cosine with all references, not scaled (tables show it times 100).

    Its mean over n is the mean over all pairs of Custom Diffusion's evaluate.py, `clipeval_image`. Raises
    ValueError if there are no references.
    """
    if not len(references_md):
        raise ValueError("CLIP-I needs at least one reference picture")
    return (_unit(images_nd) @ _unit(references_md).T).mean(axis=1)


def clip_i_of_several(images_nd: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
    """CLIP-I of images of several concepts (n,): one score a concept's references (m, d), then their average.

    Every concept counts the same, however many references it has.
    """
    return np.mean([clip_i(images_nd, references_md) for references_md in references], axis=0)


def clip_t(images_nd: np.ndarray, texts_nd: np.ndarray) -> np.ndarray:
    """Cosine of each image with its own prompt (n,), not scaled: for the figure of the tables see `clip_score`."""
    if np.shape(images_nd) != np.shape(texts_nd):
        raise ValueError(f"a text is needed for each image: images {np.shape(images_nd)}, texts {np.shape(texts_nd)}")
    return (_unit(images_nd) * _unit(texts_nd)).sum(axis=1)


def clip_score(cosine: np.ndarray) -> np.ndarray:
    """2.5 * max(0, cosine): CLIPScore, w = 2.5, of Hessel et al. 2021 (arXiv:2104.08718, section 3).

    Custom Diffusion's evaluate.py calls this CLIP-T, and CNS and others that took its code print it times 100: their
    76.95 is a cosine of 0.3078. As there, and unlike Hessel, no "A photo depicts" is put before the prompt.
    Textual Inversion and DreamBooth print the plain cosine.
    """
    return 2.5 * np.maximum(cosine, 0.0)


def best_of(clip_i_pn: np.ndarray, clip_t_pn: np.ndarray) -> np.ndarray:
    """For each prompt the index (p,) of the image with the highest CLIP-I + CLIP-T; of equal ones the first.

    CNS keeps the best of 50 images a prompt and does not say how it is chosen: this rule is ours. clip_t_pn: as
    `clip_score` gives it, the scale of the tables; on plain cosines the text would weigh 2.5 times less. The best of
    many raises both scores, so report the means beside them.
    """
    clip_i_pn, clip_t_pn = np.asarray(clip_i_pn, np.float64), np.asarray(clip_t_pn, np.float64)
    if clip_i_pn.shape != clip_t_pn.shape or clip_i_pn.ndim != 2:
        raise ValueError(f"both scores must be (prompts, images), got {clip_i_pn.shape} and {clip_t_pn.shape}")
    if np.isnan(clip_i_pn + clip_t_pn).any():
        raise ValueError("a score is NaN; every image of every prompt needs both scores")
    return (clip_i_pn + clip_t_pn).argmax(axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
