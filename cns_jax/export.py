"""A run's result for other tools: python -m cns_jax.export --run=runs/mini --format=diffusers [--out=DIR]"""

from __future__ import annotations

from absl import flags

from cns_jax import cli

_FORMATS = ("diffusers", "single-file", "lora", "custom-diffusion", "textual-inversion", "patch")
_RUN = flags.DEFINE_string("run", None, "folder of a training run", required=True)
_FORMAT = flags.DEFINE_enum(
    "format", None, _FORMATS,
    "diffusers: a pipeline folder; single-file: one checkpoint and embeddings; lora: the difference of the K/V weights "
    "for ComfyUI, A1111 and InvokeAI, with --rank for diffusers, too; custom-diffusion: attention processors for "
    "diffusers; textual-inversion: the embeddings alone; patch: a small file a concept for python -m cns_jax.patch",
    required=True,
)  # fmt: skip
_OUT = flags.DEFINE_string("out", "", "folder to write to (default: RUN/export/FORMAT)")
_AFTER = flags.DEFINE_string("after", "", "use the weights right after this concept (default: the last)")
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "",
    ("", "float32", "float16", "bfloat16"),
    "of the numbers (default: float32 for diffusers and patch, else float16)",
)
_STRENGTH = flags.DEFINE_float("strength", 1.0, "how much of the change to take, 0 to 2: W_0 + strength (W - W_0)")
_RANK = flags.DEFINE_integer("rank", 0, "lora: of an ordinary low-rank LoRA, which every tool reads (0: the exact one)")
_BUNDLE = flags.DEFINE_bool("bundle_embeddings", False, "lora: the embeddings inside, as A1111 alone reads them")
_PATCH_ERROR = flags.DEFINE_float(
    "patch_error", 1e-3, "patch: how wrong keys and values may be, relative to them (0: exact to the bit, at any size)"
)
_PATCH_SIZE = flags.DEFINE_float("patch_size", 6.0, "patch: MB that one of low rank may take, be it less near then")
_LICENSE = flags.DEFINE_string("license", "", "licence note for the files' metadata")


@cli.command()
def main(_: list[str]) -> None:
    """Flags to the export's files."""
    from cns_jax.engine.runs.export import ExportRequest, export
    from cns_jax.engine.runs.export.exporter import LICENSE

    files, how = export(
        ExportRequest(
            _RUN.value,
            _FORMAT.value,
            _OUT.value,
            _AFTER.value,
            _DTYPE.value,
            _LICENSE.value or LICENSE,
            _STRENGTH.value,
            _RANK.value,
            _BUNDLE.value,
            _PATCH_ERROR.value,
            _PATCH_SIZE.value,
        )
    )
    for file in files:
        size = sum(f.stat().st_size for f in file.rglob("*") if f.is_file()) if file.is_dir() else file.stat().st_size
        print(f"{size / 1e6:10.2f} MB  {file}" if size > 1e5 else f"{size / 1e3:10.2f} kB  {file}")
    print(f"To use: {how}")


if __name__ == "__main__":
    main()
