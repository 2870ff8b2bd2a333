"""Three concepts, one after another, into the shipped miniature: a tiger cat, a spotted dog, a checked mug.

    python -m cns_jax.train --config=configs/mini.py

2 CPU cores: about 9 minutes. Look at runs/mini/overview.png.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The demo's settings; the miniature's kernels are small and learn at higher rates than SD-1.5's.

    The lambdas are set so that in the third lesson the pull of L_reg at a typical drift is about the data gradient
    (1e-5 a weight). At ten times that the shared neurons hardly move and the mug comes out plain pink; at a tenth its
    checks come out and the cat fades.
    """
    return ConfigDict(
        {
            "data_root": "miniature:1",
            "model": "miniature",
            "variant": "",
            "tokenizer": "",
            "prediction_type": "",
            "compute": "auto",
            "run": "",
            "resolution": 64,
            "seed": 0,
            "concepts": ({"name": "tiger_cat"}, {"name": "spotted_dog"}, {"name": "checked_mug"}),
            "calibration": "miniature",
            "method": {
                "ratio": 0.3,
                "calibration_prompts": 20,
                "positions": "caption+eot",
                "scored": "base",
                "selection": "concept",
                "lambda1": 1e-4,
                "lambda2": 1e-5,
                "lr_neurons": 1e-3,
                "lr_token": 5e-3,
                "adam_epsilon": 1e-8,
                "prior_weight": 1.0,
                "detach_begin": True,
            },
            "train": {
                "steps": 400,
                "batch": 8,
                "prior_batch": 4,
                "steps_per_call": 10,
                "decay_steps": 0,
                "save_every": 100,
                "views": 4,
                "flip": True,
                "snr_gamma": 0.1,  # a colour is decided at much noise; without this a short lesson learns stripes only
                "fsdp": 1,
                "remat": False,
            },
            "prior": {
                "images": 32,
                "general": 0.0,
                "directory": "",
                "sample": {"sampler": "dpm++2m", "steps": 12, "guidance_scale": 4.0, "batch": 32},
            },
            "sample": {"sampler": "dpm++2m", "steps": 20, "guidance_scale": 2.5, "negative_prompt": "", "batch": 8},
            "report": {"sheets": True, "pictures": 1, "zero_shot": 16, "clip": ""},
        }
    )
