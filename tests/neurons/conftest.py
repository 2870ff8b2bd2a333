from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

SHAPES = {("down_blocks.0", "to_k"): (16, 8), ("down_blocks.0", "to_v"): (16, 8), ("mid_block", "to_k"): (16, 5)}


def random_tree(seed: int, draw) -> dict:
    """A nested tree with the names of cross-attention kernels; draw(generator, shape) makes a leaf."""
    rng = np.random.default_rng(seed)
    tree: dict = {}
    for (block, part), shape in SHAPES.items():
        tree.setdefault(block, {}).setdefault("attn2", {})[part] = {"kernel": jnp.asarray(draw(rng, shape))}
    return tree


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def coin(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.random(shape) < 0.4


@pytest.fixture
def kernels():
    """seed -> a tree of random kernels, (in, out)."""
    return lambda seed=0: random_tree(seed, normal)


@pytest.fixture
def masks():
    """seed -> a random neuron mask of the same structure."""
    return lambda seed=0: random_tree(seed, coin)


@pytest.fixture
def norms():
    """(seed, b) -> positive feature norms (b, 16)."""
    return lambda seed, b: jnp.asarray(np.exp(np.random.default_rng(seed).normal(size=(b, 16))).astype(np.float32))
