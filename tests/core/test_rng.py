"""Seeds of 64 bits: the keys that JAX makes of them where it counts in 64 bits."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from cns_jax.core.rng import SEEDS, check_seed, is_wide, key_of, keys_of, seed_words
from cns_jax.core.settings import SettingsError


def bits(key: jax.Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


@pytest.mark.parametrize("seed", [0, 5, 2**31, 2**32 - 1])
def test_narrow_seeds_keep_their_keys(seed: int) -> None:
    assert bits(key_of(seed)) == bits(jax.random.key(seed))
    assert seed_words([seed]).shape == (1,) and not is_wide(seed)


@pytest.mark.parametrize("seed", [2**32, 2**32 + 7, 156680208700286, 2**63 - 1])
def test_wide_seeds_are_what_jax_makes_of_them_in_64_bits(seed: int) -> None:
    with jax.enable_x64(True):
        expected = bits(jax.random.key(seed))
    assert bits(key_of(seed)) == expected
    assert is_wide(seed)


def test_a_seed_has_the_same_key_in_both_forms() -> None:
    together = keys_of(seed_words([7, 2**40, SEEDS - 1]))
    assert bits(together) == [bits(key_of(seed)) for seed in (7, 2**40, SEEDS - 1)]
    assert bits(keys_of(seed_words([7]))) == [bits(together[0])]


@pytest.mark.parametrize("seed", [-1, SEEDS])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(SettingsError, match=f"config.seed={seed} must be from 0 to 18446744073709551615"):
        check_seed(seed, "config.seed")
