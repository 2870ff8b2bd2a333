"""The paper's set 2: three animals, two background scenes, one object, one style.

    python -m cns_jax.train --config=set2 --config.model=PATH_OR_ID --config.data_root=DIR

docs/sets.md says what DIR holds. One GPU, 24 GB to be safe; about 13 minutes on an A100, 55 on an RTX 3090: estimates,
their arithmetic in configs/paper.py. Three quarters of it go into prior images of six classes, which later runs reuse.
The 42 prompts for evaluation: configs/prompts/set2.txt.
--config.method.name=protected teaches by protected K/V tuning instead; configs/paper.py has its figures beside CNS's.
"""

from ml_collections import ConfigDict

from configs import paper
from configs.paper import concept

_CONCEPTS = (
    concept("dog6", "dog"),
    concept("waterfall", "waterfall", "scene", "scene_waterfall"),
    concept("bear_plushie", "stuffed animal"),
    concept("cat2", "cat"),
    concept("woodblock", "print", "style", "style_woodblock"),
    concept("canal", "canal", "scene", "scene_canal"),
    concept("dog7", "dog"),
)


def get_config() -> ConfigDict:
    """The paper's hyper-parameters with this set's concepts, in the order of teaching."""
    config = paper.get_config()
    config.concepts = _CONCEPTS
    return config
