"""Pictures from a run, or from any checkpoint.

python -m cns_jax.generate --run=runs/mini --prompt="a photo of <tiger_cat> cat" --num=8
python -m cns_jax.generate --model=FILE.safetensors --tokens=embeddings --prompt="a photo of <tiger_cat> cat"

Prompts take weights as AUTOMATIC1111's web UI does: (word), [word], (word:1.3), \\( for a bracket, BREAK; long ones are
read in chunks. --prompt_syntax=plain takes them to the letter.
"""

from __future__ import annotations

from absl import flags

from cns_jax import cli, shipped

_RUN = flags.DEFINE_string("run", "", "folder of a training run")
_AFTER = flags.DEFINE_string("after", "", "of the run: use the weights right after this concept (default: the last)")
_STRENGTH = flags.DEFINE_float(
    "strength", 1.0, "of the run: how far to go from the base model's weights (0) to the trained ones (1), at most 2"
)
_MODEL = flags.DEFINE_string(
    "model", "", "instead of a run: miniature, a diffusers folder, a .safetensors file, or owner/name on the hub"
)
_TOKENS = flags.DEFINE_list(
    "tokens",
    [],
    "of the model: embedding files (.safetensors) or folders of them, with commas between; a token such as <tiger_cat> "
    "is checked to be in the model's tokenizer",
)
_VARIANT = flags.DEFINE_string("variant", "", "of the model's weight files, e.g. fp16")
_TOKENIZER = flags.DEFINE_string("tokenizer", "", "CLIP tokenizer folder, for a model in a single file, or miniature")
_PREDICTION = flags.DEFINE_enum(
    "prediction_type", "", ("", "epsilon", "v_prediction"), "of a single file that does not say it right"
)
_PROMPT = flags.DEFINE_multi_string("prompt", [], "what to show; repeat the flag for several prompts")
_FILE = flags.DEFINE_string("prompts_file", "", "a text file with one prompt a line, or set1, set2, set3")
_SYNTAX = flags.DEFINE_enum(
    "prompt_syntax",
    "a1111",
    ("a1111", "plain"),
    "a1111: weights such as (word:1.3), BREAK, and prompts of any length; plain: to the letter, and cut at the text "
    "encoder's length",
)
_NEGATIVE = flags.DEFINE_string("negative_prompt", "", "what to avoid")
_NUM = flags.DEFINE_integer("num", 4, "pictures a prompt", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the first picture, from 0 to 2^64 - 1; the next ones count up")
_SAMPLER = flags.DEFINE_string(
    "sampler",
    "",
    "auto (the checkpoint's own), ddim, pndm, euler[_karras], euler_a or dpm++2m[_karras] (default: the run's)",
)
_STEPS = flags.DEFINE_integer("steps", 0, "denoising steps (default: the run's)", lower_bound=0)
_GUIDANCE = flags.DEFINE_float("guidance_scale", -1.0, "classifier-free guidance (default: the run's)")
_WIDTH = flags.DEFINE_integer("width", 0, "of the pictures, a multiple of 8 (default: the run's resolution)")
_HEIGHT = flags.DEFINE_integer("height", 0, "of the pictures, a multiple of 8 (default: the run's resolution)")
_SKIP = flags.DEFINE_integer(
    "clip_skip", 1, "which layer of the text encoder to take, from its end: 1 the last, 2 the one before"
)
_VAE = flags.DEFINE_string(
    "vae", "", "another VAE: a diffusers VAE folder, a .safetensors file, or owner/name on the hub (default: its own)"
)
_COMPUTE = flags.DEFINE_enum(
    "compute", "", ("", "auto", "float32", "bfloat16"), "dtype of weights and activations (default: the run's)"
)
_OUT = flags.DEFINE_string("out", "", "folder for the PNGs (default: RUN/generated; with --model: generated)")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "number from 0 and replace what is there, instead of numbering up")


@cli.command()
def main(_: list[str]) -> None:
    """Flags to weights to PNGs and a grid."""
    from cns_jax.engine.draw.generate import generate
    from cns_jax.engine.draw.request import Request

    request = Request(
        run=_RUN.value, after=_AFTER.value, strength=_STRENGTH.value, model=_MODEL.value,
        tokens=tuple(_TOKENS.value), variant=_VARIANT.value, tokenizer=_TOKENIZER.value,
        prediction_type=_PREDICTION.value, prompts=tuple(_PROMPT.value), prompts_file=shipped.prompts_file(_FILE.value),
        prompt_syntax=_SYNTAX.value,  # type: ignore[arg-type]
        negative_prompt=_NEGATIVE.value, num=_NUM.value, seed=_SEED.value,
        sampler=_SAMPLER.value, steps=_STEPS.value, guidance_scale=_GUIDANCE.value, width=_WIDTH.value,
        height=_HEIGHT.value, clip_skip=_SKIP.value, vae=_VAE.value, compute=_COMPUTE.value, out=_OUT.value,
        overwrite=_OVERWRITE.value,
    )  # fmt: skip
    print(f"Wrote {generate(request)}")


if __name__ == "__main__":
    main()
