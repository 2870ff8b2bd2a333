"""Textual Inversion for Stable Diffusion 1.5, as in the comparison of CNS's paper (supplement 8.2).

    python -m cns_jax.train --config=methods/textual_inversion --config.model=PATH_OR_ID --config.data_root=DIR

teaches the sub-folders of DIR by name, each as one row of the token table: 1,500 steps at 5e-4. To try it on the
miniature, --config=mini --config.method.name=textual_inversion.
"""

from ml_collections import ConfigDict

from cns_jax.configuration import method
from configs import paper


def get_config() -> ConfigDict:
    """The paper's hyper-parameters with this method."""
    config = paper.get_config()
    config.method = method("textual_inversion", lr_token=5e-4, templates="paper")
    config.train.steps = 1500
    return config
