"""What neurons are analysed with: edited prompts (Fig. 7), skewed calibration lists, concepts that need no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cns_jax.miniature.concepts import TRAIN_IMAGES, concepts, render_concept
from cns_jax.miniature.world import ANIMALS, COLORS, OBJECTS, SUBJECTS, photo_prompts, world_prompts
from cns_jax.neurons.calibration import DIVERSE_PROMPTS

Pairs = Sequence[tuple[str, str]]

PAIRS: tuple[Pairs, Pairs] = (
    (("rainy", "beach"), ("orange", "sky"), ("palm", "trees"), ("green", "sand"), ("calm", "ocean")),
    (("sunny", "street"), ("purple", "tulips"), ("wooden", "cabin"), ("white", "fence"), ("wild", "horse")),
)
"""The paper's example query (supplement 9.1), and what replaces its words; of those the paper tells the last pair."""

WORLD_PAIRS: tuple[Pairs, Pairs] = (
    tuple(zip(COLORS[:5], SUBJECTS[:5], strict=True)),
    tuple(zip(COLORS[5:10], SUBJECTS[5:10], strict=True)),
)
"""The same in the miniature's vocabulary."""

_LONGEST = 12  # prompts of a skewed list: fewer than the 20 of the method, and as many as every theme has


def edited(pairs: tuple[Pairs, Pairs]) -> tuple[tuple[str, str], ...]:
    """11 queries with what was changed last: a word at a time from the last pair to the first, adjective first."""
    words, after = ([w for pair in side for w in pair] for side in pairs)
    out = [(_query(words), "the query")]
    for pair in reversed(range(len(words) // 2)):
        for i in (2 * pair, 2 * pair + 1):
            change, words[i] = f"{words[i]} → {after[i]}", after[i]
            out.append((_query(words), change))
    return tuple(out)


def _query(words: Sequence[str]) -> str:
    text = ", ".join(f"{adjective} {noun}" for adjective, noun in zip(words[::2], words[1::2], strict=True))
    return text[0].upper() + text[1:]


def pool_of(name: str) -> tuple[str, ...]:
    """The prompts that calibration "diverse" (100) or "miniature" (72) draws from.

    The miniature's say what captions of concepts do: with captions that tell all, what the concepts' captions have in
    common counted as each concept's own.
    """
    return photo_prompts() if name == "miniature" else DIVERSE_PROMPTS


def general_pool(name: str) -> tuple[str, ...]:
    """100 prompts that general prior images show: of all that the model can draw."""
    return world_prompts(100) if name == "miniature" else DIVERSE_PROMPTS


def skewed(name: str) -> dict[str, tuple[str, ...]]:
    """Theme -> at most 12 prompts that all show one thing: of the pool `name`, and full captions for the miniature."""
    pool = pool_of(name)
    if name == "miniature":
        themes = {
            "animals only": [p for p in pool if not set(p.split()) & set(OBJECTS)],
            "objects only": [p for p in pool if not set(p.split()) & set(ANIMALS)],
            "the beach only": [p for p in pool if "on the beach" in p],
            "full captions": list(general_pool(name)),
        }
    else:
        ends = {
            "animals only": ("a cat sleeping on a sofa", "a cartoon of a laughing monkey"),
            "people only": ("an old man reading a newspaper", "a firefighter climbing a ladder"),
            "places only": ("a city street at night", "a quiet hospital corridor"),
            "styles only": ("an oil painting of a harvest", "graffiti on a brick wall"),
        }
        themes = {k: list(pool[pool.index(first) : pool.index(last) + 1]) for k, (first, last) in ends.items()}
    return {theme: tuple(prompts[:_LONGEST]) for theme, prompts in themes.items()}


def miniature_sets() -> dict[str, dict[str, tuple[str, ...]]]:
    """Set -> concept -> captions of its training pictures."""
    return {
        f"set {n}": {c.name: tuple(render_concept(c, i)[1] for i in range(TRAIN_IMAGES)) for c in concepts(n)}
        for n in (1, 2, 3)
    }


EXAMPLE_CONCEPTS: Mapping[str, tuple[str, ...]] = {
    "cat": (
        "a photo of a cat sitting on a wooden floor", "a cat lying on a blue blanket",
        "a close-up of a cat looking at the camera", "a cat standing next to a plant", "a cat sleeping on a couch",
    ),
    "dog": (
        "a photo of a dog sitting in the grass", "a dog lying on a carpet", "a close-up of a dog with its tongue out",
        "a dog running on a beach", "a dog standing on a stone path",
    ),
    "duck": (
        "a photo of a yellow duck toy on a table", "a duck toy in front of a window", "a duck toy on a green lawn",
        "a duck toy next to a cup", "a close-up of a yellow duck toy",
    ),
    "backpack": (
        "a photo of a red backpack on a bench", "a backpack hanging on a door", "a backpack standing on the floor",
        "a person wearing a red backpack", "a backpack lying on a rock",
    ),
    "teapot": (
        "a photo of a teapot on a wooden table", "a white teapot next to two cups", "a teapot on a stove",
        "a close-up of a ceramic teapot", "a teapot on a window sill",
    ),
    "ink style": (
        "an ink painting of a mountain with a bridge", "an ink painting of a bird on a branch",
        "an ink painting of a boat on a river", "an ink painting of a small house", "an ink painting of bamboo",
    ),
    "neon style": (
        "a neon illustration of a car in a city", "a neon illustration of a woman with sunglasses",
        "a neon illustration of a palm tree", "a neon illustration of a skyline at night",
        "a neon illustration of a motorcycle",
    ),
}  # fmt: skip
"""Three animals, two objects and two styles, as in the paper's first set, with captions as a captioner writes them."""
