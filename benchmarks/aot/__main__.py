"""Stable Diffusion 1.5 compiled by the TPU compiler, without a TPU: python -m benchmarks.aot [--topologies=v5e:1x1]

Needs the libtpu wheel that belongs to the installed jax. Tells what a chip's memory must hold, which collectives run,
and a time that the compiled FLOPs and bytes allow at the chip's published rates: an estimate, never a measurement.
A line a program goes to benchmarks/results/tpu_aot.jsonl, the table of all lines to tpu_aot.md.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to ask which TPU this is
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # none is run, so none needs to be locked
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from absl import app, flags
from jax.experimental import topologies

from benchmarks.aot.programs import Program, Shapes
from benchmarks.aot.reading import CHIPS, chip_of, head_padding, read, table
from benchmarks.machine import provenance
from benchmarks.runs import keep, read_lines
from cns_jax.core.mesh import make_mesh
from cns_jax.core.xla.flops import counting_mesh
from cns_jax.core.xla.platform import PLAIN, compiled_for
from cns_jax.nn.model import Model
from cns_jax.nn.sizes import SD15

log = logging.getLogger(__name__)

PROGRAMS = {
    "step": Program("step", 1),
    "step4": Program("step", 4),
    "protected": Program("step", 1, method="protected"),
    "sample": Program("sample", 4, 25),
    "decode": Program("decode", 4),
}
KEY = ("program", "topology", "fsdp", "pixels")

_TOPOLOGIES = flags.DEFINE_list("topologies", ["v5e:1x1", "v5e:2x4", "v5p:2x2x1", "v6e:1x1"], "kind:shape")
_PROGRAMS = flags.DEFINE_list("programs", ["step", "sample", "decode"], "which: " + ", ".join(PROGRAMS))
_FSDP = flags.DEFINE_integer("fsdp", 1, "over how many chips the weights are split", lower_bound=1)
_PIXELS = flags.DEFINE_integer("pixels", 512, "side of the pictures", lower_bound=64)
_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "folder of the lines and the table")


def main(_: list[str]) -> None:
    """Flags to compiled programs to lines to the table."""
    if importlib.util.find_spec("libtpu") is None:
        raise SystemExit("error: libtpu is not installed; pip install libtpu (no TPU is needed)")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    file = Path(_RESULTS.value) / "tpu_aot.jsonl"
    for topology in _TOPOLOGIES.value:
        for name in _PROGRAMS.value:
            if PROGRAMS[name].name != "step" and len(devices_of(topology)) > 1:
                log.info("%s does the same on every chip; compile it for one", name)
                continue
            log.info("compiling %s for %s, fsdp=%d", name, topology, _FSDP.value)
            keep(file, compiled(SD15, name, topology, _FSDP.value, _PIXELS.value), KEY)
            file.with_suffix(".md").write_text(table(read_lines(file)) + "\n" + padding_note())
    print(file.with_suffix(".md").read_text())


def compiled(model: Model, name: str, topology: str, fsdp: int, pixels: int) -> dict[str, Any]:
    """Compile one program for described chips; its line."""
    mesh = make_mesh(fsdp, devices_of(topology))
    program = PROGRAMS[name]
    with compiled_for("tpu"):
        begun = time.perf_counter()
        lowered = Shapes(model, pixels, mesh).lower(program)
        traced = time.perf_counter()
        result = lowered.compile()
    with compiled_for(PLAIN):
        counted = Shapes(model, pixels, counting_mesh()).lower(program).cost_analysis()
    return {
        "program": name,
        "topology": topology,
        "fsdp": fsdp,
        "pixels": pixels,
        **read(result, chip_of(topology), program, float((counted or {}).get("flops", 0.0))),
        "trace_seconds": round(traced - begun, 1),
        "compile_seconds": round(time.perf_counter() - traced, 1),
        **provenance("libtpu"),
    }


def padding_note() -> str:
    """What the widths of Stable Diffusion 1.5's attention heads cost on lanes of 128."""
    told = (f"{width} ({factor:.1f} x)" for width, factor in head_padding(SD15.unet).items())
    return (
        "Attention heads are narrower than a TPU's 128 lanes or no multiple of them; products over them are larger by: "
        f"{', '.join(told)}. The compiled FLOPs do not count it.\n"
    )


def devices_of(topology: str) -> list[jax.Device]:
    """Described devices, which can be compiled for and not run on. A shape of one chip needs its host's bounds told."""
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS:
        raise SystemExit(f"error: unknown chip {kind!r} in --topologies; known: {', '.join(CHIPS)}")
    one = {"chips_per_host_bounds": (1, 1, 1)} if shape == "1x1" else {}
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **one).devices


if __name__ == "__main__":
    app.run(main)
