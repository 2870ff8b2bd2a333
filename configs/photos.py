"""Your own photographs, a sub-folder a concept: DIR/my_cat/*.jpg, DIR/my_mug/*.jpg, ...

    python -m cns_jax.train --config=photos --config.data_root=DIR

Captions: a .txt beside a picture, or metadata.jsonl with file_name and text; else "a photo of a <class word>". The
class word is the last word of the folder's name; a file concept.toml beside the pictures may say another one
(class_word = "cat"), and kind, token, init_word and steps.

Of photographs the shipped miniature (64 x 64, taught on drawings) learns little more than colours and layout: use it to
try your folder and captions, and configs/paper.py with Stable Diffusion for pictures.
"""

from ml_collections import ConfigDict

from configs import mini


def get_config() -> ConfigDict:
    """The demo's settings with the user's folder and the shipped diverse calibration prompts."""
    config = mini.get_config()
    config.data_root = ""
    config.concepts = ()
    config.calibration = "diverse"
    return config
