"""Parity with PyTorch at full size, and memory while loading: python -m benchmarks.parity [--keep DIR] [--out FILE].

`benchmarks.parity.reference` writes the models and what PyTorch answers; here the same weights are read and run in JAX.
Every part is a process of its own, so that its memory is its own: 16 GB suffice. About 9 GB of disk are used.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity.errors import FLOAT32, relative_error
from cns_jax.core.mesh import make_mesh, place
from cns_jax.core.tree import Tree, count, flatten, map_named, overlay, select
from cns_jax.neurons.score import cross_attention_kernels, is_cross_attention_kernel
from cns_jax.nn.clip import CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from cns_jax.nn.model import Model
from cns_jax.nn.vae import AutoencoderKL
from cns_jax.weights.clip_folder import read_clip
from cns_jax.weights.folder import read_folder
from cns_jax.weights.layout import file_key, to_file
from cns_jax.weights.pipeline import Source
from cns_jax.weights.strict import Keep, load

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 1.2  # allowed peak while loading, in bytes of the tensors kept
CHANGED = 10 * FLOAT32  # what an exchanged tensor must change at least, or the comparison would not see it
PEAK_GB = 16


@dataclass(frozen=True)
class Row:
    """One number. measure: "float32", "bfloat16" and "PyTorch bfloat16" are errors against PyTorch's float32."""

    part: str
    what: str
    measure: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the number is within its bounds; NaN is not."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.at_most is None or self.value <= self.at_most


class Comparison:
    """Our outputs of one part against its answers."""

    def __init__(self, folder: Path, part: str) -> None:
        self.part = part
        self.answers = {k: np.asarray(v) for k, v in np.load(folder / f"{part}.npz").items()}

    def inputs(self, *names: str) -> list[jax.Array]:
        """Arrays of the reference as they were fed to PyTorch."""
        return [jnp.asarray(self.answers[name]) for name in names]

    def errors(self, name: str, ours: jax.Array, ours_bfloat16: jax.Array) -> Iterator[Row]:
        """Ours in both dtypes and PyTorch's bfloat16, each against PyTorch's float32."""
        wanted = self.answers[name]
        yield self.error(name, ours, wanted)
        yield Row(self.part, name, "bfloat16", relative_error(ours_bfloat16, wanted))
        rounded = self.answers[f"{name} bfloat16"]
        yield Row(self.part, name, "PyTorch bfloat16", relative_error(rounded, wanted))

    def error(self, name: str, ours: Any, wanted: np.ndarray) -> Row:
        """Ours in float32."""
        return Row(self.part, name, "float32", relative_error(ours, wanted), at_most=FLOAT32)

    def changed(self, what: str, ours: jax.Array, other: jax.Array) -> Row:
        """How much the output changes with `what`."""
        return Row(self.part, what, "change", relative_error(other, ours), at_least=CHANGED)


def source_of(folder: Path) -> Source:
    """The Stable Diffusion that `benchmarks.parity.reference` wrote."""
    return read_folder(folder / "sd15")


def read_part(source: Source, part: str) -> Tree:
    """The float32 parameters of one part, as `Source.load` would read them, on the device."""
    stored = source.parts[part]
    return load(stored.stored, source.shapes[part], stored.file, lambda _, leaf: jnp.asarray(leaf))[0]


def in_bfloat16(model: Model) -> Model:
    """The model as it runs on an accelerator."""
    return dataclasses.replace(model, dtype=jnp.bfloat16)


def to_bfloat16(params: Tree) -> Tree:
    """The weights as training on an accelerator keeps them: K/V kernels stay float32."""
    return map_named(lambda name, x: x if is_cross_attention_kernel(name) else jnp.asarray(x, jnp.bfloat16), params)


def exchanged(params: Tree, one: str, other: str) -> Tree:
    """The parameters with two leaves in each other's place, as a wrong name in a file would have it."""
    flat = flatten(params)
    values = {one: flat[other], other: flat[one]}
    return overlay(params, map_named(lambda name, _: values[name], select(params, values.__contains__)))


def compare_text(folder: Path) -> Iterator[Row]:
    """The hidden states that the UNet reads."""
    this, source = Comparison(folder, "text"), source_of(folder)
    params = read_part(source, "text_encoder")
    (ids,) = this.inputs("ids")
    ours = jax.jit(source.model.encode_text)(params, ids)
    rounded = jax.jit(in_bfloat16(source.model).encode_text)(to_bfloat16(params), ids)
    yield from this.errors("hidden", ours, rounded)
    layer = "text_model.encoder.layers.6"
    wrong = exchanged(params, f"{layer}.layer_norm1.bias", f"{layer}.layer_norm2.bias")
    yield this.changed("two norms' biases exchanged", ours, jax.jit(source.model.encode_text)(wrong, ids))


def compare_vae(folder: Path) -> Iterator[Row]:
    """Moments of the encoder, and the decoder from PyTorch's own means."""
    this, source = Comparison(folder, "vae"), source_of(folder)
    params = read_part(source, "vae")
    images, mean = this.inputs("images", "mean")

    @partial(jax.jit, static_argnums=0)
    def run(model: Model, params: Tree) -> tuple[jax.Array, jax.Array]:
        # Model.decode would clip the images
        decoded = model.modules()["vae"].apply({"params": params}, mean, method=AutoencoderKL.decode)
        return model.encode_image(params, images), decoded

    moments, decoded = run(source.model, params)
    rounded = run(in_bfloat16(source.model), to_bfloat16(params))
    yield from this.errors("moments", moments, rounded[0])
    yield from this.errors("decoded", decoded, rounded[1])
    for half, ours in (("encoder", moments), ("decoder", decoded)):
        middle = f"{half}.mid_block.attentions.0"
        wrong = run(source.model, exchanged(params, f"{middle}.to_k.kernel", f"{middle}.to_v.kernel"))
        yield this.changed(f"{half}: K and V of the middle exchanged", ours, wrong[half == "decoder"])


def compare_unet(folder: Path) -> Iterator[Row]:
    """The output for two small latents and for one of the model's own size."""
    this, source = Comparison(folder, "unet"), source_of(folder)
    params = read_part(source, "unet")
    text = jnp.asarray(Comparison(folder, "text").answers["hidden"])
    small = this.inputs("small latents", "small times")
    run = jax.jit(source.model.predict_noise)
    ours = run(params, *small, text)
    yield this.changed("another prompt", ours, run(params, *small, text[::-1]))
    yield this.changed("the next timestep", ours, run(params, small[0], small[1] + 1, text))
    middle = "mid_block.attentions.0.transformer_blocks.0"
    wrong = exchanged(params, f"{middle}.attn2.to_k.kernel", f"{middle}.attn2.to_v.kernel")
    yield this.changed("middle block's K and V exchanged", ours, run(wrong, *small, text))
    large = this.inputs("large latents", "large times")
    ours_large = run(params, *large, text[:1])
    del wrong
    params = to_bfloat16(params)
    rounded = jax.jit(in_bfloat16(source.model).predict_noise)
    yield from this.errors("small output", ours, rounded(params, *small, text))
    yield from this.errors("large output", ours_large, rounded(params, *large, text[:1]))


def compare_gradients(folder: Path) -> Iterator[Row]:
    """To all K/V kernels of the UNet, and through it and the text encoder to the row of a token."""
    this, source = Comparison(folder, "gradients"), source_of(folder)
    params = {part: read_part(source, part) for part in ("text_encoder", "unet")}
    latents, times = Comparison(folder, "unet").inputs("small latents", "small times")
    (ids,), (weight,) = Comparison(folder, "text").inputs("ids"), this.inputs("weight")
    token = int(ids[0, 4])
    table = params["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
    concept_ids = jnp.where(ids == token, source.model.text_encoder.vocab_size, ids)

    @jax.jit
    def gradients(kernels: Tree, rows_rd: jax.Array, params: Tree) -> tuple[Tree, jax.Array]:
        def loss(kernels: Tree, rows_rd: jax.Array) -> jax.Array:
            text = source.model.encode_text(params["text_encoder"], concept_ids, rows_rd)
            output = source.model.predict_noise(overlay(params["unet"], kernels), latents, times, text)
            return (output * weight).sum()

        return jax.grad(loss, argnums=(0, 1))(kernels, rows_rd)

    kernels = cross_attention_kernels(params["unet"])
    of_kernels, of_row = gradients(kernels, table[token : token + 1], params)
    flat = flatten(of_kernels)
    assert len(flat) == 32
    for name, value in flat.items():
        yield this.error(name, to_file(name, np.asarray(value)), this.answers[file_key(name)])
    yield this.error("row of a token", of_row[0], this.answers["row"])


def compare_clip(folder: Path, name: str) -> Iterator[Row]:
    """Embeddings of texts and images, not normalized."""
    this, clip = Comparison(folder, name), read_clip(folder / name)
    ids, images = this.inputs("ids", "images")
    towers: tuple[tuple[str, str, Any, Any, jax.Array], ...] = (
        ("text", "text", CLIPTextModelWithProjection, clip.text, ids),
        ("image", "vision", CLIPVisionModelWithProjection, clip.vision, images),
    )
    for what, part, tower, config, inputs in towers:
        params = jax.tree.map(jnp.asarray, clip.params[part])
        ours = jax.jit(tower(config).apply)({"params": params}, inputs)
        rounded = jax.jit(tower(config, jnp.bfloat16).apply)({"params": to_bfloat16(params)}, inputs)
        yield from this.errors(what, ours, rounded)
        yield this.changed(f"{what}: the other input", ours, ours[::-1])


def memory_while_loading(folder: Path, part: str, variant: str, keep: Keep | None) -> Iterator[Row]:
    """Peak of resident memory above what imports and tracing took, in bytes of the tensors kept."""
    source = read_folder(folder / "sd15", variant)
    source.check()  # traces the model
    jax.block_until_ready(jnp.zeros(1))
    before = resident("VmRSS")
    params = jax.block_until_ready(source.load(keep).params)
    # the highest in the life of this process; tracing comes nowhere near it
    peak = resident("VmHWM") - before
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert count(params) == 1_066_235_307
    yield Row(part, f"{kept / 1e9:.2f} GB kept", "memory", peak / kept, at_most=MEMORY)


def resident(field: str) -> int:
    """Bytes of resident memory, mapped files included: VmRSS now, VmHWM at its highest."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].removesuffix("kB")) * 1024


def on_device(dtype: Any, name: str, leaf: np.ndarray) -> jax.Array:
    """What `Studio.open` keeps of a leaf, but all in one dtype and on one device."""
    return place(make_mesh(devices=jax.devices()[:1]), name, leaf.astype(dtype))


LOADS: dict[str, tuple[str, Keep | None]] = {
    "load float32": ("", None),
    "load float16 as float32": ("fp16", None),
    "load float32 to the device": ("", partial(on_device, np.float32)),
    "load float32 to the device as bfloat16": ("", partial(on_device, jnp.bfloat16)),
    "load float16 to the device as bfloat16": ("fp16", partial(on_device, jnp.bfloat16)),
}
PARTS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "text": compare_text,
    "vae": compare_vae,
    "unet": compare_unet,
    "gradients": compare_gradients,
    "clip_b32": partial(compare_clip, name="clip_b32"),
    "clip_l14": partial(compare_clip, name="clip_l14"),
    **{name: partial(memory_while_loading, part=name, variant=v, keep=keep) for name, (v, keep) in LOADS.items()},
}


def write_reference(folder: Path) -> None:
    """PyTorch's models and answers."""
    subprocess.run([sys.executable, "-m", "benchmarks.parity.reference", folder], cwd=ROOT, check=True)


def run_part(folder: Path, part: str) -> list[Row]:
    """The rows of one part, measured in a process of its own, with its seconds and its peak of memory."""
    command = [sys.executable, "-m", "benchmarks.parity", "--keep", str(folder), "--part", part]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return [Row(**json.loads(line)) for line in done.stdout.splitlines()]


def print_part(folder: Path, part: str) -> None:
    """What `run_part` reads."""
    start = time.perf_counter()
    # on a GPU float32 products would otherwise be rounded to fewer bits
    jax.config.update("jax_default_matmul_precision", "highest")
    rows = list(PARTS[part](folder))
    rows.append(Row(part, "the part", "seconds", time.perf_counter() - start))
    rows.append(Row(part, "the part", "peak GB", resident("VmHWM") / 1e9, at_most=PEAK_GB))
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)))


def report(rows: list[Row]) -> str:
    """The table, in Markdown."""
    device = jax.devices()[0]
    names = ("jax", "flax", "torch", "diffusers", "transformers")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    errors = ("float32", "bfloat16", "PyTorch bfloat16")
    values = {(row.part, row.what, row.measure): row.value for row in rows}
    lines = [
        "# Parity with PyTorch at full size",
        "",
        f"`python -m benchmarks.parity`, {time.strftime('%Y-%m-%d')}; {device.platform} ({device.device_kind}), "
        f"{os.cpu_count()} cores, {platform.machine()}; {versions}.",
        "",
        "Stable Diffusion 1.5 (859.5 M UNet, VAE, CLIP ViT-L/14 text) and two CLIPModels, randomly initialized and "
        "written by diffusers and transformers. Prompts of 77 tokens; small: two latents of 16 x 16, large: one of "
        "64 x 64; images of 128 x 128 (VAE) and 224 x 224 (CLIP). Numbers are max |ours - PyTorch float32| / "
        "max |PyTorch float32|; "
        f"allowed in float32: {FLOAT32:.0e}.",
        "",
        "| part | output | float32 | bfloat16 | PyTorch bfloat16 |",
        "|---|---|---|---|---|",
    ]
    kernels = [row.value for row in rows if row.part == "gradients" and row.what.endswith("kernel")]
    for part, what in dict.fromkeys((r.part, r.what) for r in rows if r.measure == "float32"):
        if not what.endswith("kernel"):
            shown = (values.get((part, what, measure)) for measure in errors)
            lines.append(f"| {part} | {what} | {' | '.join('' if v is None else f'{v:.1e}' for v in shown)} |")
    if kernels:
        spread = f"{max(kernels):.1e} (median {np.median(kernels):.1e})"
        lines.append(f"| gradients | {len(kernels)} K/V kernels, the worst | {spread} | | |")
    lines += ["", f"What a mistake would do to the output (at least {CHANGED:.0e}):", "", "| part | change | |"]
    lines += ["|---|---|---|"]
    lines += [f"| {r.part} | {r.what} | {r.value:.1e} |" for r in rows if r.measure == "change"]
    lines += ["", "Peak of resident memory while a folder is read, in bytes of the tensors kept "]
    lines[-1] += f"(allowed: {MEMORY}):"
    lines += ["", "| kept | | peak |", "|---|---|---|"]
    lines += [f"| {r.part} | {r.what} | {r.value:.2f} |" for r in rows if r.measure == "memory"]
    lines += ["", "| process | seconds | peak GB |", "|---|---|---|"]
    for part in dict.fromkeys(row.part for row in rows):
        seconds, peak = (values[part, "the part", measure] for measure in ("seconds", "peak GB"))
        lines.append(f"| {part} | {seconds:.0f} | {peak:.1f} |")
    outside = [f"{row.part}, {row.what}, {row.measure}: {row.value:.2g}" for row in rows if not row.holds]
    lines += ["", "Out of bounds: " + ("; ".join(outside) or "nothing") + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the reference unless it is there, measure every part, write the table and the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder for models and answers; used again if it holds them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/parity_sd15_cpu.md"))
    parser.add_argument("--part", choices=PARTS, help="measure this part only and print its rows")
    given = parser.parse_args()
    if given.part:
        return print_part(given.keep, given.part)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        if not (folder / "clip_l14.npz").exists():  # written last
            write_reference(folder)
        rows = [row for part in PARTS for row in run_part(folder, part)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(report(rows))
    given.out.with_suffix(".jsonl").write_text("".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows))
    print(report(rows))


if __name__ == "__main__":
    main()
