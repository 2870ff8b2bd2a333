"""What a program compiled ahead of time tells: memory, work, collectives; and the table of such lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from cns_jax.core.markdown import table_lines
from cns_jax.nn.unet import UNetConfig


@dataclass(frozen=True)
class Chip:
    """Published rates of one chip: dense bfloat16 FLOP/s, bytes of memory, bytes/s to it and to other chips."""

    flops: float
    memory: float
    bandwidth: float
    interconnect: float


CHIPS: Mapping[str, Chip] = {  # cloud.google.com/tpu/docs, the pages of each version
    "v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "v5p": Chip(459e12, 95e9, 2765e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1640e9, 448e9),
}

LANES = 128

_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\((?:.*channel_id=(\d+))?"
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(?:,|$)")
_PLACED = re.compile(r"\b(pred|[a-z]+)(\d*)\[([\d,]*)\](\{[^}]*\})?")
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "after-all", "partition-id"}
_ARRAY = re.compile(r"(pred|[a-z]+)(\d*)\[([\d,]*)\]")


def chip_of(topology: str) -> Chip:
    """The chip of "v5e:2x4"."""
    return CHIPS[topology.partition(":")[0]]


def read(compiled: jax.stages.Compiled, chip: Chip, program: Any, counted: float) -> dict[str, Any]:
    """The figures of one program, a chip. *_seconds: what its FLOPs and its bytes need at the chip's published rates.
    XLA counts the body of a loop once, so a sampler's are multiplied by its steps (its text encoder's too, which runs
    once: under 1 % of a step). counted: the FLOPs of the same program with plain attention, as the compiler does not
    see into a kernel; the larger count is taken."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    flops = max(float((compiled.cost_analysis() or {}).get("flops", 0.0)), counted) * program.steps
    moved = float(hbm_bytes(text)) * program.steps
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "held": held,
        "fits": held < chip.memory,
        "flops": flops,
        "moved": moved,
        "compute_seconds": flops / chip.flops,
        "memory_seconds": moved / chip.bandwidth,
        "collectives": collectives(text),
    }


def hbm_bytes(text: str) -> int:
    """Bytes that a compiled TPU program reads from and writes to HBM: the operands and results of every instruction
    that it has not placed in the chip's own memory, whose layouts end in S(1); copies between the two by what they
    take. XLA's "bytes accessed" counts both places, and every slice as the whole array."""
    inside = set(re.findall(r"(?:calls|to_apply)=%([\w.\-]+)", text))  # of fusions and the like
    total, shapes, counts = 0, {}, False
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            shapes, counts = {}, header[1] not in inside
            continue
        if not counts or not (found := _INSTRUCTION.match(line)):
            continue
        name, shape, kind, operands = found.groups()
        shapes[name] = shape
        if kind in _FREE or kind.endswith("-done"):
            continue
        places = [shape, *(shapes.get(operand, "") for operand in re.findall(r"%([\w.\-]+)", operands))]
        if kind in ("copy-start", "slice-start"):
            arrays = _PLACED.findall(shape)
            (size, there), source = _placed(arrays[0 if kind == "copy-start" else 1]), places[1]
            total += size * (there + ("S(" not in source))
        else:
            total += sum(size for place in places for size, there in map(_placed, _PLACED.findall(place)) if there)
    return total


def _placed(array: tuple[str, str, str, str]) -> tuple[int, bool]:
    """Bytes of an array, and whether it lies in HBM."""
    return _bytes(*array[:3]), "S(" not in array[3]


def collectives(text: str) -> dict[str, dict[str, float]]:
    """Kind -> how many, and the bytes of their results, of compiled HLO text. One that runs beside other work stands
    there several times, in what begins it, works beside it and waits for it, with the same channel."""
    count, size = Counter(), Counter()  # type: ignore[var-annotated]
    seen: set[str] = set()
    for shape, kind, begun, channel in _COLLECTIVE.findall(text):
        if channel and channel in seen:
            continue
        seen.add(channel)
        arrays = _ARRAY.findall(shape)
        if begun and kind in ("all-gather", "collective-permute"):  # operands, results, and scalars of the runtime's
            arrays = [array for array in arrays if array[2]]
            arrays = arrays[len(arrays) // 2 :]
        count[kind] += 1
        size[kind] += sum(_bytes(*array) for array in arrays)
    return {kind: {"count": count[kind], "bytes": size[kind]} for kind in sorted(count)}


def exchanged(found: Mapping[str, Mapping[str, float]]) -> float:
    """Bytes that a chip sends to many others, of what `collectives` found: a result once, a sum twice, in parts and as
    a whole."""
    return sum(of["bytes"] * (2 if kind == "all-reduce" else 1) for kind, of in found.items())


def _bytes(kind: str, bits: str, dimensions: str) -> int:
    elements = 1
    for d in filter(None, dimensions.split(",")):
        elements *= int(d)
    return elements * (int(bits) // 8 if bits else 1)


def head_padding(unet: UNetConfig) -> dict[int, float]:
    """Width of an attention head -> by how much a TPU's rows of 128 lanes make its products larger."""
    widths = [width // heads for heads, width in zip(unet.heads, unet.block_out_channels, strict=True)]
    return {width: LANES * -(-width // LANES) / width for width in widths}


_HEAD = ("program", "chips", "fsdp", "arguments", "temporaries", "all, of a chip's memory", "TFLOP", "GB moved",
         "roofline estimate", "collectives", "compile")  # fmt: skip


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, a row a program."""
    return "\n".join(table_lines(_HEAD, map(_row, lines))) + "\n"


def _row(line: Mapping[str, Any]) -> list[str]:
    chip = chip_of(line["topology"])
    seconds, limit = max(
        (line["compute_seconds"], "compute"),
        (line["memory_seconds"], "memory"),
        (exchanged(line["collectives"]) / chip.interconnect, "interconnect"),
    )
    collective = [f"{v['count']:.0f} {k} ({v['bytes'] / 1e6:.1f} MB)" for k, v in line["collectives"].items()]
    return [
        f"{line['program']}, {line['pixels']} px",
        line["topology"],
        str(line["fsdp"]),
        f"{line['arguments'] / 1e9:.2f} GB",
        f"{line['temporaries'] / 1e9:.2f} GB",
        f"{line['held'] / 1e9:.2f} GB ({line['held'] / chip.memory:.0%})",
        f"{line['flops'] / 1e12:.3g}",
        f"{line['moved'] / 1e9:.3g}",
        f"{1000 * seconds:.4g} ms ({limit})",
        "; ".join(collective) or "none",
        f"{line['compile_seconds']:.0f} s",
    ]
