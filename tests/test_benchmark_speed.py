"""The speed suite: reading compiled programs, tables, drawn concepts; the TPU compiler where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks.aot.reading import collectives, hbm_bytes, head_padding, table
from benchmarks.speed import comparison
from benchmarks.speed.many import draw_concepts, settings_of, summary
from benchmarks.speed.suites import NAMES, SUITES, Suite
from benchmarks.speed.table import table as speed_table
from benchmarks.speed.worker import SIDES
from cns_jax.data.folder import discover, read_concepts
from cns_jax.nn.sizes import SD15

HLO = """
  %all-reduce.3 = (f32[320,768]{1,0:T(8,128)}, f32[8]{0}) all-reduce(f32[320,768]{1,0} %a, f32[8]{0} %b), channel_id=1
  %ag = (bf16[1,64]{1,0}, bf16[2,64]{1,0}) all-gather-start(bf16[1,64]{1,0} %c), dimensions={0}
  %cp = (bf16[4]{0}, bf16[4]{0}, u32[], u32[]) collective-permute-start(bf16[4]{0} %d)
  %done = bf16[2,64]{1,0} all-gather-done(bf16[2,64]{1,0} %ag)
  %add = f32[8]{0} add(f32[8]{0} %x, f32[8]{0} %y)
"""


COMPILED = """
%fused (p: bf16[100]) -> bf16[100] {
  %p = bf16[100]{0} parameter(0)
  ROOT %n = bf16[100]{0:T(1024)} negate(%p)
}
%body (x: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(1024)} parameter(0)
  ROOT %y = f32[8]{0:T(1024)} negate(%x)
}
ENTRY %main (w: bf16[100], i: f32[8]) -> f32[8] {
  %w = bf16[100]{0:T(1024)(128)(2,1)} parameter(0)
  %i = f32[8]{0:T(1024)} parameter(1)
  %start = ((bf16[100]{0}), bf16[25]{0:T(1024)S(1)}, s32[]{:S(2)}) slice-start(%w), slice={[0:25]}
  %done = bf16[25]{0:T(1024)S(1)} slice-done(%start)
  %copy-start = (bf16[25]{0:T(1024)}, bf16[25]{0:T(1024)S(1)}, u32[]{:S(2)}) copy-start(%done)
  %copy-done = bf16[25]{0:T(1024)} copy-done(%copy-start)
  %f = bf16[100]{0:T(1024)S(1)} fusion(%w), kind=kLoop, calls=%fused
  ROOT %loop = f32[8]{0:T(1024)} while(%i), condition=%cond, body=%body
}
"""


def test_bytes_of_hbm_are_those_that_are_not_in_the_chips_own_memory() -> None:
    slice_read, written_back, fusion_read, body = 25 * 2, 25 * 2, 100 * 2, 2 * 8 * 4
    assert hbm_bytes(COMPILED) == slice_read + written_back + fusion_read + body


def test_collectives_are_counted_with_their_bytes() -> None:
    assert collectives(HLO) == {
        "all-gather": {"count": 1, "bytes": 2 * 64 * 2},
        "all-reduce": {"count": 1, "bytes": 4 * (320 * 768 + 8)},
        "collective-permute": {"count": 1, "bytes": 4 * 2},
    }


def test_a_collective_beside_other_work_counts_once() -> None:
    begun = "  %g.1 = bf16[8,4]{1,0} all-gather(%p), channel_id=7, dimensions={0}\n"
    other = "  %g.3 = bf16[8,4]{1,0} all-gather(%q), channel_id=8, dimensions={0}\n"
    text = begun + begun.replace("g.1", "g.2") + other
    assert collectives(text) == {"all-gather": {"count": 2, "bytes": 2 * 8 * 4 * 2}}


def test_the_estimate_is_the_slowest_of_work_memory_and_exchange() -> None:
    line = {
        "program": "step", "topology": "v5e:2x4", "fsdp": 8, "pixels": 512, "arguments": 0, "temporaries": 0, "held": 0,
        "flops": 0, "moved": 0, "compute_seconds": 0.010, "memory_seconds": 0.011, "compile_seconds": 1,
        "collectives": {"all-gather": {"count": 2, "bytes": 1e9}, "all-reduce": {"count": 1, "bytes": 1e9}},
    }  # fmt: skip
    assert "| 15 ms (interconnect) |" in table([line])  # 3 GB at 200 GB/s
    assert "| 11 ms (memory) |" in table([{**line, "collectives": {}}])


def test_head_widths_that_do_not_fill_a_tpus_lanes() -> None:
    assert head_padding(SD15.unet) == {40: 3.2, 80: 1.6, 160: 1.6}


def test_both_sides_have_every_workload() -> None:
    from benchmarks.speed.ours import Ours

    assert [name for name in NAMES if not hasattr(Ours, name)] == []
    reference = pytest.importorskip("benchmarks.torch_reference.workloads", reason="needs diffusers")
    assert [name for name in NAMES if not hasattr(reference.Theirs, name)] == []


class FakeWorker:
    """Takes a second a run, PyTorch's two."""

    made: ClassVar[list[str]] = []

    def __init__(self, side: str, name: str, suite: Suite, folder: Path) -> None:
        self.made.append(side)
        self.runs, self.side = 0, side
        self.about = {"device": "a card", "images": 2, "flops": 3.0, "per": 1, "first": 5.0, "load": 1.0, "written": 0}

    def wait(self) -> None:
        """It is ready."""

    def seconds(self) -> float:
        self.runs += 1
        return 1.0 if self.side == "cns_jax" else 2.0

    def close(self) -> float:
        return 7.0


def test_processes_that_started_before_are_the_first_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(comparison, "Worker", FakeWorker)
    monkeypatch.setattr(comparison, "_SECONDS", 0.0)
    monkeypatch.setattr(FakeWorker, "made", [])
    suite = SUITES["mini"]
    begun = comparison.start("step", suite, tmp_path)
    line = comparison.compare("step", suite, tmp_path, 2, 3, dict(begun))
    assert [worker.runs for worker in begun.values()] == [3, 3]
    assert FakeWorker.made == [*SIDES, *SIDES]
    assert line["ratios"] == [2.0] * 6 and line["sides"]["cns_jax"]["compile"] == 4.0


def test_a_note_on_a_line_stands_beside_its_ratio(tmp_path: Path) -> None:
    file = tmp_path / "speed.jsonl"
    side = {"seconds": [1.0], "compile": 1.0, "peak_bytes": 1.0}
    line = {"suite": "mini", "workload": "step", "device": "d", "ratio": 1.0, "images": 1, "flops": 1.0, "ceiling": 1.0,
            "sides": dict.fromkeys(SIDES, side), "note": "by blocks"}  # fmt: skip
    file.write_text(json.dumps(line))
    assert "| 1.00 (by blocks) |" in speed_table(file)


def test_drawn_concepts_are_as_many_as_asked_and_differ(tmp_path: Path) -> None:
    chosen = draw_concepts(tmp_path, 23)  # more than the 21 of the sets
    assert len({row["name"] for row in chosen}) == 23
    pictures = [concept.image_paths[0].read_bytes() for concept in read_concepts(tmp_path, discover(tmp_path))]
    assert len(set(pictures)) == 23


def test_many_has_settings_that_hold(tmp_path: Path) -> None:
    assert len(settings_of(3, 50, tmp_path).concepts) == 3


def test_the_summary_leaves_out_the_first_concept() -> None:
    rows = [{"seconds": 9.0 if i == 0 else 1.0, "memory": 1e9, "compiled": 5} for i in range(10)]
    text = summary(rows)
    assert "seconds: 1.000 s for concepts 2 to 3, 1.000 s for the last 2" in text
    assert "compiled after the first concept: 0" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "fsdp", "exchanged"),
    [("v5e:1x1", 1, set()), ("v5e:2x4", 1, {"all-reduce"}), ("v5e:2x4", 8, {"all-gather", "all-reduce"})],
)
def test_the_tpu_compiler_takes_the_training_step(
    topology: str, fsdp: int, exchanged: set[str], tmp_path: Path
) -> None:
    """The full step at 64 px: it fits, and chips exchange gradients, metrics, and the weights that they share only."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install libtpu")
    command = [sys.executable, "-m", "benchmarks.aot", f"--topologies={topology}", "--programs=step", "--pixels=64"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([*command, f"--fsdp={fsdp}", f"--results={tmp_path}"], check=True, env=environment)
    line = json.loads((tmp_path / "tpu_aot.jsonl").read_text())
    assert line["fits"] and line["flops"] > 1e10
    assert set(line["collectives"]) == exchanged
    trained = 2 * 19_169_280 + 4 * 8 * 768  # gradients of K/V kernels, bfloat16, and of token rows, float32
    assert not exchanged or trained <= line["collectives"]["all-reduce"]["bytes"] < 1.01 * trained
    assert topology in table([line])
