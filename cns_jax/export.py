"""A run's result for other tools: python -m cns_jax.export --run=runs/mini --format=diffusers [--out=DIR]"""

from __future__ import annotations

from absl import flags

from cns_jax import cli

_FORMATS = ("diffusers", "single-file", "lora", "custom-diffusion", "textual-inversion", "patch")
_RUN = flags.DEFINE_string("run", None, "folder of a training run", required=True)
_FORMAT = flags.DEFINE_enum(
    "format", None, _FORMATS,
    "diffusers: a pipeline folder; single-file: one checkpoint and embeddings; lora: the difference of the K/V weights "
    "for ComfyUI and A1111; custom-diffusion: attention processors for diffusers; textual-inversion: the embeddings "
    "alone; patch: a small file a concept for python -m cns_jax.patch",
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
_LICENSE = flags.DEFINE_string("license", "", "licence note for the files' metadata")


@cli.command()
def main(_: list[str]) -> None:
    """Flags to the export's files."""
    from cns_jax.engine.export import LICENSE, ExportRequest, export

    files, how = export(
        ExportRequest(_RUN.value, _FORMAT.value, _OUT.value, _AFTER.value, _DTYPE.value, _LICENSE.value or LICENSE)
    )
    for file in files:
        size = sum(f.stat().st_size for f in file.rglob("*") if f.is_file()) if file.is_dir() else file.stat().st_size
        print(f"{size / 1e6:10.2f} MB  {file}" if size > 1e5 else f"{size / 1e3:10.2f} kB  {file}")
    print(f"To use: {how}")


if __name__ == "__main__":
    main()
