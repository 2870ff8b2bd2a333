"""Pictures from a run: python -m cns_jax.generate --run=runs/mini --prompt="a photo of <tiger_cat> cat" --num=8"""

from __future__ import annotations

from absl import flags

from cns_jax import cli, shipped

_RUN = flags.DEFINE_string("run", None, "folder of a training run", required=True)
_PROMPT = flags.DEFINE_multi_string("prompt", [], "what to show; repeat the flag for several prompts")
_FILE = flags.DEFINE_string("prompts_file", "", "a text file with one prompt a line, or set1, set2, set3")
_NEGATIVE = flags.DEFINE_string("negative_prompt", "", "what to avoid")
_NUM = flags.DEFINE_integer("num", 4, "pictures a prompt", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the first picture; the next ones count up", lower_bound=0)
_SAMPLER = flags.DEFINE_string(
    "sampler",
    "",
    "auto (the checkpoint's own), ddim, pndm, euler[_karras], euler_a or dpm++2m[_karras] (default: the run's)",
)
_STEPS = flags.DEFINE_integer("steps", 0, "denoising steps (default: the run's)", lower_bound=0)
_GUIDANCE = flags.DEFINE_float("guidance_scale", -1.0, "classifier-free guidance (default: the run's)")
_AFTER = flags.DEFINE_string("after", "", "use the weights right after this concept (default: the last)")
_OUT = flags.DEFINE_string("out", "", "folder for the PNGs (default: RUN/generated)")


@cli.command()
def main(_: list[str]) -> None:
    """Flags to the run's weights to PNGs and a grid."""
    from cns_jax.engine.generate import Request, generate

    request = Request(
        run=_RUN.value, prompts=tuple(_PROMPT.value), num=_NUM.value, seed=_SEED.value,
        prompts_file=shipped.prompts_file(_FILE.value),
        negative_prompt=_NEGATIVE.value,
        sampler=_SAMPLER.value, steps=_STEPS.value, guidance_scale=_GUIDANCE.value, after=_AFTER.value, out=_OUT.value,
    )  # fmt: skip
    print(f"Wrote {generate(request)}")


if __name__ == "__main__":
    main()
