"""The paper's hyper-parameters for Stable Diffusion 1.5, shared by set1.py, set2.py and set3.py.

    python -m cns_jax.train --config=paper --config.model=PATH_OR_ID --config.data_root=DIR

teaches the sub-folders of DIR by name, as configs/photos.py does; the sets say which folders they want. Both flags are
required. --config.method.name=protected teaches by protected K/V tuning instead, ours, without prior images: on the
miniature it learns 81 and ends with 79 % of pictures that show the concept, where CNS learns 79 and ends with 63
(benchmarks/results/protection). On Stable Diffusion neither is measured yet.

One GPU with 24 GB should do (the paper's had that; not measured). A step has two images, so it runs on one or
two devices; raise train.batch for more.

From the paper: model, steps, learning rates, ratio, number of calibration prompts. It gives no lambdas (here: the
defaults of CNS), no batch size, no number of prior images, no sampler and no guidance.

Expected minutes are estimates, not measured: at 512 x 512 a training step is 1.67 TFLOP an image and a UNet pass 0.8,
so a concept (500 steps, two images each) is 1.67 PFLOP, a class's 200 prior images (25 steps, with and without the
prompt) are 8, and the sample sheets of seven concepts 7. At 30 % of the bfloat16 peak a PFLOP takes 11 s on an A100 and
47 s on an RTX 3090. The paper took four minutes a concept on an RTX 3090.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from cns_jax.configuration import method
from cns_jax.protect.settings import ProtectSettings


def concept(name: str, class_word: str, kind: str = "subject", folder: str = "") -> dict[str, str]:
    """A concept with the token <name>, from the folder of its name or another one."""
    return {"name": name, "token": f"<{name}>", "class_word": class_word, "kind": kind, "folder": folder or name}


def get_config() -> ConfigDict:
    """All but the concepts."""
    sampler = {"sampler": "dpm++2m", "steps": 25, "negative_prompt": "", "batch": 4}
    return ConfigDict(
        {
            "data_root": "",
            "model": "",
            "variant": "",
            "tokenizer": "",
            "prediction_type": "",
            "compute": "auto",
            "run": "",
            "resolution": 512,
            "seed": 0,
            "concepts": (),
            "calibration": "diverse",
            "method": method(
                "cns", ratio=0.3, calibration_prompts=20, lr_neurons=3e-5, lr_token=5e-4, prior_weight=1.0
            ),
            "protect": {**asdict(ProtectSettings()), "rank": 32},
            "train": {
                "steps": 500,
                "batch": 1,
                "prior_batch": 1,
                "steps_per_call": 10,
                "decay_steps": 0,
                "save_every": 100,
                "views": 4,
                "flip": True,
                "snr_gamma": 0.0,
                "fsdp": 1,
                "remat": False,
                "buckets": False,
                "alpha_mask": False,
                "unmasked_weight": 0.0,
            },
            "prior": {
                "images": 200,
                "general": 0.0,
                "directory": "",
                "folder": "",
                "sample": {**sampler, "guidance_scale": 6.0},
            },
            "sample": {**sampler, "guidance_scale": 7.5},
            "report": {"sheets": True, "pictures": 1, "zero_shot": 16, "clip": ""},
        }
    )
