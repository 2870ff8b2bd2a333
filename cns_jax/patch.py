"""Concept patches, a small file a concept, replayed on a base model.

    python -m cns_jax.patch apply --model=BASE --out=DIR 01_cat.safetensors 02_mug.safetensors
    python -m cns_jax.patch revert --model=DIR --out=DIR2      takes the last concept out, exactly
    python -m cns_jax.patch verify --model=DIR                 the folder is its base plus its patches
    python -m cns_jax.patch verify --model=BASE FILES          the files are whole and follow the model
    python -m cns_jax.patch show FILES

python -m cns_jax.export --format=patch writes them.
"""

from __future__ import annotations

from absl import flags

from cns_jax import cli

_MODEL = flags.DEFINE_string(
    "model", "", "'miniature', a diffusers folder, a .safetensors file, or owner/name on the hub"
)
_OUT = flags.DEFINE_string("out", "", "folder to write")
_VARIANT = flags.DEFINE_string("variant", "", "of the model's weight files, e.g. fp16")
_PREDICTION = flags.DEFINE_enum(
    "prediction_type", "", ("", "epsilon", "v_prediction"), "of a single file that does not say it right"
)
_TOKENIZER = flags.DEFINE_string("tokenizer", "", "CLIP tokenizer folder, for a model in a single file")
_VAE = flags.DEFINE_string("vae", "", "the VAE that the patches' run had instead of the model's own, if it had one")
_ACTIONS = ("apply", "revert", "show", "verify")


@cli.command(takes=True)
def main(arguments: list[str]) -> None:
    """Flags to one of the four actions."""
    from cns_jax.core.settings import require
    from cns_jax.engine.runs import patching
    from cns_jax.weights.locate import Address

    action, files = (arguments[0] if arguments else ""), arguments[1:]
    address = Address(_MODEL.value, _VARIANT.value, _TOKENIZER.value, _PREDICTION.value, _VAE.value)
    require(action in _ACTIONS, f"say what to do: {', '.join(_ACTIONS)}; see --help")
    require(action == "show" or bool(_MODEL.value), "--model is needed")
    if action == "apply":
        print(f"Wrote {patching.apply(address, files, _OUT.value)}")
    elif action == "revert":
        require(not files, f"revert takes no files, it removes the last concept; got {', '.join(files)}")
        folder, name = patching.revert(_MODEL.value, _OUT.value)
        print(f"Took out {name}. Wrote {folder}")
    elif action == "verify":
        print("\n".join(patching.verify(address, files)))
    else:
        require(bool(files), "show needs patch files")
        print("\n\n".join("\n".join(patching.show(file)) for file in files))


if __name__ == "__main__":
    main()
