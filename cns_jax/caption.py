"""Write captions with BLIP: python -m cns_jax.caption --data_root=DIR [--model=FOLDER] [--overwrite]

A .txt beside every picture of DIR and its sub-folders that has no caption yet. Needs PyTorch: pip install '.[caption]'.
Read the captions over: the concept's token goes before its class word, so a caption should name it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from cns_jax import cli

if TYPE_CHECKING:
    from PIL import Image

_BLIP = "Salesforce/blip-image-captioning-base"
_WORDS = 40  # tokens at most; leaves room for the concept's token in CLIP's 77

_ROOT = flags.DEFINE_string("data_root", None, "folder of pictures, or of folders of pictures", required=True)
_MODEL = flags.DEFINE_string("model", _BLIP, "a BLIP captioning model: its Hugging Face id, or its folder")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "caption pictures that have a caption, too; replaces their .txt")


def load_captioner(model: str) -> Callable[[Image.Image], str]:
    """BLIP as a function from a picture to words, always the same ones.

    Raises SettingsError if PyTorch is missing, or if `model` is no BLIP model that can be had.
    """
    from cns_jax.core.settings import SettingsError, require

    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers.utils import is_torch_available

    require(
        is_torch_available(),
        "captions need PyTorch 2.6 or later: pip install '.[caption]' in the clone of this repository, "
        "or pip install torch",
    )
    from safetensors import SafetensorError
    from transformers import AutoConfig, BlipForConditionalGeneration, BlipProcessor

    source = os.path.expanduser(model)
    try:
        # first, since from_pretrained takes any model's files and fills what they lack with noise
        kind = AutoConfig.from_pretrained(source).model_type
        require(kind == "blip", f"model={model!r} is a {kind} model; only BLIP can be used, e.g. {_BLIP}")
        processor = BlipProcessor.from_pretrained(source)
        blip = BlipForConditionalGeneration.from_pretrained(source)
    except SettingsError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        wanted = model if model.count("/") == 1 and not os.path.exists(source) else _BLIP
        raise SettingsError(
            f"the captioning model {model!r} cannot be loaded: {reason}\n"
            f"Without a network here, run  hf download {wanted} --local-dir blip  where there is one, "
            "copy the folder and give --model=PATH/blip"
        ) from None

    def describe(image: Image.Image) -> str:
        inputs = processor(images=image, return_tensors="pt")
        ids = blip.generate(**inputs, max_new_tokens=_WORDS, num_beams=3, do_sample=False)
        return processor.decode(ids[0], skip_special_tokens=True)

    return describe


@cli.command()
def main(_: list[str]) -> None:
    """Flags to pictures to captions."""
    from cns_jax.engine.captioning import to_caption, write_captions

    paths = to_caption(Path(_ROOT.value).expanduser(), _OVERWRITE.value)
    if not paths:
        print(f"Every picture below {_ROOT.value} has a caption; --overwrite writes new ones")
        return
    written = write_captions(paths, load_captioner(_MODEL.value))
    print(f"Wrote {len(written)} captions below {_ROOT.value}; read them over, each should name its class word")


if __name__ == "__main__":
    main()
