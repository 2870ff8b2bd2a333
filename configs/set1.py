"""The paper's set 1: three animals, two objects, two styles.

    python -m cns_jax.train --config=set1 --config.model=PATH_OR_ID --config.data_root=DIR

docs/sets.md says what DIR holds. One GPU, 24 GB to be safe; about 13 minutes on an A100, 55 on an RTX 3090: estimates,
their arithmetic in configs/paper.py. Three quarters of it go into prior images of six classes, which later runs reuse.
The 42 prompts for evaluation: configs/prompts/set1.txt.
--config.method.name=protected teaches by protected K/V tuning instead; configs/paper.py has its figures beside CNS's.
"""

from ml_collections import ConfigDict

from configs import paper
from configs.paper import concept

_CONCEPTS = (
    concept("cat", "cat"),
    concept("clock", "clock"),
    concept("watercolor", "painting", "style", "style_watercolor"),
    concept("dog", "dog"),
    concept("colorful_sneaker", "sneaker"),
    concept("ink", "drawing", "style", "style_ink"),
    concept("dog2", "dog"),
)


def get_config() -> ConfigDict:
    """The paper's hyper-parameters with this set's concepts, in the order of teaching."""
    config = paper.get_config()
    config.concepts = _CONCEPTS
    return config
