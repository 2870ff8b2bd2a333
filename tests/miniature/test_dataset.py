"""The tensorflow-datasets builders work where TensorFlow is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from cns_jax.miniature.concepts import concepts, render_concept
from cns_jax.miniature.dataset import MiniConcepts, MiniWorld, WorldConfig
from cns_jax.miniature.world import example

folder = sys.argv[1]
world = MiniWorld(config=WorldConfig(name="tiny", count=8, seed=3), data_dir=folder)
world.download_and_prepare()
train, test = world.as_data_source("train"), world.as_data_source("test")
assert (len(train), len(test)) == (8, 32), (len(train), len(test))
rows = {(row["caption"].decode(), row["image"].tobytes()): row for row in train}
for index in range(8):
    image, caption, picture = example(3, index)
    row = rows[caption, image.tobytes()]
    assert row["scene"].decode() == picture.scene and row["style"].decode() == picture.style
    assert row["subjects"].decode() == ", ".join(f"{s.color} {s.kind}" for s in picture.subjects)
assert not {row["image"].tobytes() for row in test} & {row["image"].tobytes() for row in train}

drawn = MiniConcepts(config="set2", data_dir=folder)
drawn.download_and_prepare()
rows = list(drawn.as_data_source("train"))
assert len(rows) == 7 * 5 and len(drawn.as_data_source("test")) == 7 * 24
fish = concepts(2)[0]
found = [row for row in rows if row["concept"].decode() == fish.name]
assert {row["token"].decode() for row in found} == {fish.token}
assert render_concept(fish, 2)[0].tobytes() in {row["image"].tobytes() for row in found}
assert "tensorflow" not in sys.modules
print("whole")
"""


def test_builders_without_tensorflow(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip().endswith("whole"), done.stderr[-2000:]
