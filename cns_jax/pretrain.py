"""Pre-train the miniature: python -m cns_jax.pretrain --config=pretrain_miniature"""

from __future__ import annotations

from cns_jax import cli, shipped

_CONFIG = shipped.define_config("the recipe: pretrain_miniature, or a file of your own")


@cli.command(messages="%(asctime)s %(message)s")
def main(_: list[str]) -> None:
    """Flags to settings to the stages."""
    from cns_jax.core.settings import build
    from cns_jax.engine.pretrain.export import export
    from cns_jax.engine.pretrain.run import run
    from cns_jax.engine.pretrain.settings import PretrainSettings

    if _CONFIG.value is None:
        raise ValueError("give the recipe, e.g. --config=pretrain_miniature")
    run(build(PretrainSettings, _CONFIG.value.to_dict()), export)


if __name__ == "__main__":
    main()
