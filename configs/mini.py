"""Three concepts, one after another, into the shipped miniature: a tiger cat, a spotted dog, a checked mug.

    python -m cns_jax.train --config=mini

2 CPU cores: about 4 minutes. Look at runs/mini/overview.png.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from cns_jax.configuration import method
from cns_jax.protect.settings import ProtectSettings


def get_config() -> ConfigDict:
    """The demo's settings. Rates and lambdas come from benchmarks/results/paper/sweep.md, steps and protection from
    benchmarks/results/protection/trials.md; both say why.

    The miniature's few and small kernels learn at much higher rates than SD-1.5's. `method` holds the settings of all
    methods, of which --config.method.name=NAME takes its own; cns learns best with --config.train.steps=800.
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
            "method": method(
                "protected",
                lambda1=1e-5,
                lambda2=1e-7,
                lr_neurons=5e-3,
                lr_token=1e-2,
                templates="captions",  # the miniature's tokenizer knows few of the paper's words
                lr_lora=1e-2,
                forget=1.0,  # of rates from 5e-4 to 1e-2 and weights from 0 to 1e8, on three concepts
            ),
            "protect": {**asdict(ProtectSettings()), "rank": 16},
            "train": {
                "steps": 400,
                "batch": 4,
                "prior_batch": 2,
                "steps_per_call": 10,
                "decay_steps": 100,
                "save_every": 200,
                "views": 4,
                "flip": True,
                "snr_gamma": 0.1,  # a colour is decided at much noise; without this a short lesson learns stripes only
                "fsdp": 1,
                "remat": False,
                "buckets": False,
                "alpha_mask": False,
                "unmasked_weight": 0.0,
            },
            "prior": {
                "images": 64,
                "general": 0.75,  # 0 with an earlier miniature: scenes' lessons left 67 to 74 % of control
                "directory": "",
                "folder": "",
                "sample": {"sampler": "dpm++2m", "steps": 7, "guidance_scale": 4.0, "batch": 16},  # 20 show no more
            },
            "sample": {"sampler": "dpm++2m", "steps": 20, "guidance_scale": 2.5, "negative_prompt": "", "batch": 8},
            "report": {"sheets": True, "pictures": 1, "zero_shot": 16, "clip": ""},
        }
    )
