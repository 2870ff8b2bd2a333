"""Seven drawn concepts into the miniature, as benchmarks/paper/__main__.py runs it for every method, set and seed.

    python -m cns_jax.train --config=bench --config.data_root=miniature:2 --config.seed=1

How long one takes stands in its timings.json. What changes when a value does is in benchmarks/results/paper/sweep.md.
"""

from ml_collections import ConfigDict

from configs import mini


def get_config() -> ConfigDict:
    """configs/mini.py's settings with all seven concepts, without sheets and a closing evaluation."""
    config = mini.get_config()
    config.concepts = ()
    config.method.name = "cns"
    config.train.steps = config.train.save_every = 800
    config.train.decay_steps = 200
    config.prior.sample.steps = 12  # as in the runs of benchmarks/results/paper
    config.prior.sample.batch = 32
    config.sample.steps = 12
    config.sample.batch = 16
    config.report = {"sheets": False, "pictures": 0, "zero_shot": 128, "clip": ""}
    return config
