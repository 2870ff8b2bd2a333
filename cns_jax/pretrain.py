"""Pre-train the miniature: python -m cns_jax.pretrain --config=configs/pretrain_miniature.py"""

from __future__ import annotations

from absl import app
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "the recipe", lock_config=True)


def main(_: list[str]) -> None:
    """Flags to settings to the stages."""
    from cns_jax.core.settings import build
    from cns_jax.engine.pretrain.export import export
    from cns_jax.engine.pretrain.run import run
    from cns_jax.engine.pretrain.settings import PretrainSettings
    from cns_jax.engine.start import start

    start("%(asctime)s %(message)s")
    run(build(PretrainSettings, _CONFIG.value.to_dict()), export)


if __name__ == "__main__":
    app.run(main)
