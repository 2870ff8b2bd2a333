"""The drawn world and the held-out concepts as tensorflow-datasets builders; TensorFlow itself is never imported.

    from cns_jax.miniature.dataset import MiniConcepts
    builder = MiniConcepts(config="set1", data_dir="data")
    builder.download_and_prepare()
    for example in builder.as_data_source("train"): ...

tensorflow-datasets reads and writes array_record files without TensorFlow as long as images are handed over as
encoded bytes and read through data sources.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cns_jax.miniature.concepts import TEST_IMAGES, TRAIN_IMAGES, Split, concepts, render_concept
from cns_jax.miniature.world import SIZE, example

_IMAGE = (SIZE, SIZE, 3)


def _png(image_u8: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image_u8).save(file, "png")
    file.seek(0)
    return file


@dataclass
class WorldConfig(tfds.core.BuilderConfig):
    """How many training pictures are drawn, and from which seed; the test split has its own."""

    count: int = 30_000
    seed: int = 0


class MiniWorld(tfds.core.GeneratorBasedBuilder):
    """Captioned 64 x 64 pictures of animals and objects in scenes and styles, drawn from a seed.

    Features: image uint8 (64, 64, 3); caption; subjects, "red cat, blue mug"; scene; style.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        WorldConfig(name="full", description="what the shipped miniature was trained on"),
        WorldConfig(name="small", description="a few pictures, for a look", count=256),
    ]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        features = {"image": tfds.features.Image(shape=_IMAGE), "caption": text(), "subjects": text()}
        features |= {"scene": text(), "style": text()}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        config = self.builder_config
        return {
            "train": self._generate_examples(config.seed, config.count),
            "test": self._generate_examples(config.seed + 1_000_003, max(config.count // 30, 32)),
        }

    def _generate_examples(self, seed: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(count):
            image, caption, picture = example(seed, index)
            subjects = ", ".join(f"{s.color} {s.kind}" for s in picture.subjects)
            row = {"image": _png(image), "caption": caption, "subjects": subjects}
            yield index, row | {"scene": picture.scene, "style": picture.style}


class MiniConcepts(tfds.core.GeneratorBasedBuilder):
    """Seven held-out concepts a set, 5 training and 24 evaluation pictures each.

    Features: image uint8 (64, 64, 3); caption, without the token; concept, its name; token; class_word; kind.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"set{i}", description=f"concept set {i}") for i in (1, 2, 3)]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        features = {"image": tfds.features.Image(shape=_IMAGE), "caption": text(), "concept": text()}
        features |= {"token": text(), "class_word": text(), "kind": text()}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            "train": self._generate_examples("train", TRAIN_IMAGES),
            "test": self._generate_examples("test", TEST_IMAGES),
        }

    def _generate_examples(self, split: Split, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for concept in concepts(int(self.builder_config.name.removeprefix("set"))):
            for index in range(count):
                image, caption, _ = render_concept(concept, index, split)
                row = {"image": _png(image), "caption": caption, "concept": concept.name, "token": concept.token}
                yield f"{concept.name}_{index:02d}", row | {"class_word": concept.class_word, "kind": concept.kind}
