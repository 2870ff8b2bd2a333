"""The runs of the protected method that are compared, pair by pair, with CNS's of benchmarks.paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.paper.experiments import Experiment
from configs import mini

VARIANT = "protected"
ORDERS = ((2, 2), (1, 5), (2, 5))
"""Set and order of lessons: begun with the sea (a scene), stained glass (a style) and candy land (a scene)."""


def protected(group: str, number: int, seed: int, order: int = 0) -> Experiment:
    """configs/bench.py with the method, its rates, its protection and the steps of configs/mini.py."""
    values = mini.get_config().to_dict()
    steps, decay = (values["train"][name] for name in ("steps", "decay_steps"))
    return Experiment(
        group, VARIANT, number, seed, order, values["method"], {"steps": steps, "save_every": steps,
        "decay_steps": decay}, protect=values["protect"],
    )  # fmt: skip


def main_experiments(sets: Sequence[int], seeds: Sequence[int]) -> Iterator[Experiment]:
    """Every set and seed, all sets before the next seed."""
    return (protected("main", number, seed) for seed in seeds for number in sets)


def order_experiments(sets: Sequence[int], seeds: Sequence[int]) -> Iterator[Experiment]:
    """The same concepts in orders that begin with a scene or a style, of the first seed."""
    return (protected("order", number, seeds[0], order) for number, order in ORDERS if number in sets)


GROUPS = {"main": main_experiments, "order": order_experiments}
