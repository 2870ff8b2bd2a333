"""Continual Diffusion (C-LoRA) for Stable Diffusion 1.5, as in the comparison of CNS's paper (supplement 8.2).

    python -m cns_jax.train --config=methods/continual_diffusion --config.model=PATH_OR_ID --config.data_root=DIR

teaches the sub-folders of DIR by name, each by a rank-16 change of the cross-attention K/V weights: 700 steps at 5e-4.
The method's paper gives no number for the weight of its penalty, which it swept; try decades around `forget`.
"""

from ml_collections import ConfigDict

from cns_jax.configuration import method
from configs import paper


def get_config() -> ConfigDict:
    """The paper's hyper-parameters with this method."""
    config = paper.get_config()
    config.method = method("continual_diffusion", rank=16, forget=1e8, lr_lora=5e-4, lr_token=5e-4)
    config.train.steps = 700
    return config
