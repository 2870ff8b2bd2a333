"""Seven drawn concepts into the miniature, as benchmarks/paper.py runs it for every method, set and seed.

    python -m cns_jax.train --config=configs/bench.py --config.data_root=miniature:2 --config.seed=1

All seven concepts with smaller batches than configs/mini.py's, so that many runs fit into an afternoon; how long one
takes stands in its timings.json. What changes when a value does is in benchmarks/results/paper/sweep.md.
"""

from ml_collections import ConfigDict

from configs import mini


def get_config() -> ConfigDict:
    """configs/mini.py's settings with all seven concepts, smaller batches, and no sheets."""
    config = mini.get_config()
    config.concepts = ()
    # between 5e-3 (71 % found when learned, control 99 % after four lessons) and 1e-2 (79 %, 96 %)
    config.method.lr_neurons = 7e-3
    config.method.lr_token = 3e-2
    # held ten times as firmly as in configs/mini.py, a lesson learns no less from its own neurons: they move far here.
    # At a tenth, lambda2 fades what earlier concepts learned by 9 % a lesson
    config.method.lambda1 = 1e-3
    config.method.lambda2 = 1e-5
    config.train.steps = 800
    config.train.batch = 4
    config.train.prior_batch = 4
    config.prior.images = 64
    config.prior.general = 0.75  # without, a scene's lesson changes all scenes: control 67 to 74 %
    config.train.decay_steps = 200
    config.train.save_every = 800
    config.sample.steps = 12
    config.sample.batch = 16
    config.report = {"sheets": False, "pictures": 0, "zero_shot": 128, "clip": ""}
    return config
