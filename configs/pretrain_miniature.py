"""The recipe of the miniature that ships in cns_jax/miniature/model.

    python -m cns_jax.pretrain --config=pretrain_miniature

2 CPU cores: about 9 hours. Resumable: run the same command again. The card beside the weights holds what this
recipe reached.
"""

from ml_collections import ConfigDict


def _levels(kind: str, count: int) -> tuple[str, ...]:
    return (kind,) * count


def get_config() -> ConfigDict:
    """Every setting of the recipe."""
    vae_widths, unet_widths = (16, 32, 64), (48, 96, 144)
    tower = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "hidden_act": "quick_gelu",
        "projection_dim": 128,
    }
    return ConfigDict(
        {
            "directory": "runs/pretrain_miniature",
            "seed": 0,
            "stages": ("tokenizer", "clip", "vae", "unet", "judge", "export"),
            "world": {"count": 30_000, "seed": 0},
            "vocab_size": 2048,
            "max_length": 32,
            "extra_words": (
                "place",
                "style",
                "picture",
                "toy",
                "plushie",
                "sneaker",
                "vase",
                "clock",
                "candle",
                "can",
                "robot",
                "monster",
                "glasses",
                "animal",
                "object",
                "person",
                "house",
                "flower",
                "tree",
                "horse",
                "cow",
                "bear",
            ),
            "vae": {
                "steps": 14_000,
                "batch": 8,
                "learning_rate": 2e-3,
                "ema": 0.995,
                "save_every": 500,
                "model": {
                    "down_block_types": _levels("DownEncoderBlock2D", len(vae_widths)),
                    "up_block_types": _levels("UpDecoderBlock2D", len(vae_widths)),
                    "block_out_channels": vae_widths,
                    "layers_per_block": 1,
                    "latent_channels": 8,
                    "norm_num_groups": 8,
                    "sample_size": 64,
                },
            },
            "vae_whole": {"steps": 1000, "batch": 8, "learning_rate": 5e-4, "ema": 0.998, "save_every": 500},
            "clip": {
                "start": "",
                "steps": 2300,
                "batch": 128,
                "learning_rate": 1e-3,
                "weight_decay": 0.02,
                "ema": 0.995,
                "save_every": 250,
                "model": {"text": tower, "vision": {**tower, "image_size": 64, "patch_size": 8}},
            },
            "judge": {
                "start": "",
                "steps": 15_000,
                "batch": 64,
                "learning_rate": 2e-3,
                "ema": 0.995,
                "save_every": 500,
            },
            "judge_pictures": 16_000,
            "snr_gamma": 5.0,
            "subject_weight": 8.0,
            "timestep_mean": -0.3,
            "timestep_std": 1.2,
            "unet": {
                "start": "",  # the shipped one went on from earlier worlds' miniatures; see its card
                "steps": 24_200,
                "batch": 64,
                "learning_rate": 1.5e-3,
                "warmup": 200,
                "ema": 0.999,
                "save_every": 200,
                "model": {
                    "sample_size": 16,
                    "in_channels": 8,
                    "out_channels": 8,
                    "block_out_channels": unet_widths,
                    "layers_per_block": 1,
                    "down_block_types": ("DownBlock2D", *_levels("CrossAttnDownBlock2D", 2)),
                    "up_block_types": (*_levels("CrossAttnUpBlock2D", 2), "UpBlock2D"),
                    "norm_num_groups": 16,
                    "cross_attention_dim": 128,
                    "attention_head_dim": 4,
                },
            },
        }
    )
