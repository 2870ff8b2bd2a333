"""The paper's figures and numbers on neurons, for any model or run: python -m cns_jax.analyze --run=runs/mini

Nothing is trained and no picture is made. Writes analysis.json, tables.md and every figure as PNG and SVG.
"""

from __future__ import annotations

from absl import flags

from cns_jax import cli

_MODEL = flags.DEFINE_string("model", "miniature", "miniature, a diffusers folder, a .safetensors file, or a hub id")
_VARIANT = flags.DEFINE_string("variant", "", "of the model's weight files, e.g. fp16")
_TOKENIZER = flags.DEFINE_string("tokenizer", "", "tokenizer folder, for a single file")
_RUN = flags.DEFINE_string("run", "", "a training run instead of a model: its settings, concepts and masks")
_AFTER = flags.DEFINE_string("after", "", "with --run: only the concepts up to this one")
_DATA = flags.DEFINE_string(
    "data_root", "", "folder of concepts, or miniature:1 (default: the miniature's three sets, or seven written ones)"
)
_CALIBRATION = flags.DEFINE_enum("calibration", "", ["", "diverse", "miniature"], "prompts of the general neurons")
_RATIOS = flags.DEFINE_list("ratios", ["0.1", "0.2", "0.3", "0.5"], "thresholds to sweep")
_ORDERS = flags.DEFINE_integer("orders", 30, "random orders of the prompts in the curve of always selected neurons")
_DRAWS = flags.DEFINE_integer("draws", 10, "draws of every random calibration list")
_SEED = flags.DEFINE_integer("seed", 0, "seed of orders and draws", lower_bound=0)
_OUT = flags.DEFINE_string("out", "", "folder for the results (default: RUN/analysis or runs/analysis)")


@cli.command()
def main(_: list[str]) -> None:
    """Flags to a page of tables and figures."""
    from cns_jax.engine.measure.analysis import AnalysisRequest, analyze

    try:
        ratios = tuple(map(float, _RATIOS.value))
    except ValueError:
        raise ValueError(f"--ratios={','.join(_RATIOS.value)} must be numbers with commas between them") from None
    request = AnalysisRequest(
        model=_MODEL.value, variant=_VARIANT.value, tokenizer=_TOKENIZER.value, run=_RUN.value, after=_AFTER.value,
        data_root=_DATA.value, calibration=_CALIBRATION.value, ratios=ratios,
        orders=_ORDERS.value, draws=_DRAWS.value, seed=_SEED.value, out=_OUT.value,
    )  # fmt: skip
    out = analyze(request)
    print((out / "tables.md").read_text())
    print(f"Look at {out}")


if __name__ == "__main__":
    main()
