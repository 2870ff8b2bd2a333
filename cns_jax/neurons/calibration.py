"""Calibration prompts: what the general neurons (eq. 5) are found with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DIVERSE_PROMPTS: tuple[str, ...] = (
    # animals
    "a cat sleeping on a sofa", "two dogs chasing a ball", "an owl on a branch at night", "a horse in a meadow",
    "a close-up of a bee on a flower", "a shoal of fish over a reef", "an elephant crossing a river",
    "a watercolor of a fox in the snow", "a parrot in a cage", "sheep on a green hillside", "a frog on a lily pad",
    "a cartoon of a laughing monkey",
    # people
    "an old man reading a newspaper", "a child flying a kite", "a woman playing the violin", "a chef at work",
    "a crowd at a concert", "a portrait of a young nurse", "two friends drinking tea", "a dancer on a dark stage",
    "a farmer holding a basket of eggs", "a runner crossing the finish line", "a pencil sketch of a sleeping baby",
    "a firefighter climbing a ladder",
    # food
    "a bowl of fresh fruit", "a plate of spaghetti", "a slice of chocolate cake", "a cup of coffee on a desk",
    "bread cooling by the oven", "a jar of honey", "sushi on a wooden board", "a still life with cheese and grapes",
    # things
    "a vase of sunflowers", "a wooden chair by a window", "an open book and a pair of glasses", "a pile of old keys",
    "a red umbrella", "a backpack on a bench", "a teddy bear on a shelf", "a pair of worn leather boots",
    "a laptop and a lamp", "a broken clock", "a blue ceramic teapot", "an acoustic guitar against a wall",
    "a chess board in the middle of a game", "a candle in the dark", "a toy robot made of tin",
    "a technical drawing of a bicycle", "a golden ring on black velvet",
    # vehicles
    "a red sports car on a highway", "a sailboat on a calm lake", "a train crossing a bridge", "a yellow school bus",
    "a plane above the clouds", "a rusty tractor in a field", "a motorcycle parked in an alley",
    "a rocket leaving the launch pad", "a hot air balloon at sunrise",
    # nature
    "a mountain under a clear sky", "a sandy beach at noon", "a snowy forest path", "lightning over a desert",
    "a waterfall in the jungle", "autumn leaves on wet stones", "a field of lavender", "the moon above the sea",
    "a lone tree in the fog", "waves breaking on black rocks", "a rainbow after a storm", "mushrooms on a mossy log",
    "a frozen river from above", "a starry night in the mountains",
    # places and buildings
    "a city street at night", "a castle on a hill", "a lighthouse in a storm", "a busy market square",
    "an empty subway station", "a small library full of books", "a kitchen with white tiles", "a glass skyscraper",
    "a village church in winter", "a garden with a stone fountain", "the inside of a cathedral", "a ruined temple",
    "a child's bedroom with toys", "a harbor full of fishing boats", "a quiet hospital corridor",
    # styles
    "an oil painting of a harvest", "an abstract pattern of circles", "a black and white photo of hands",
    "a stained glass window with birds", "a mosaic of a lion", "a comic strip about a detective",
    "a pixel art dungeon", "a charcoal drawing of a bridge", "a vintage travel poster", "a paper collage of a city",
    "an ink drawing of bamboo", "a clay model of a dragon", "graffiti on a brick wall",
)  # fmt: skip
"""100 short prompts of everyday subjects, places and styles."""


def draw(prompts: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` different prompts, seeded; all of them if there are fewer."""
    order = np.random.default_rng(seed).permutation(len(prompts))
    return tuple(prompts[i] for i in order[:count])
