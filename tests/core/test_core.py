"""Trees, settings, random streams and placement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cns_jax.core import mesh, tree
from cns_jax.core.rng import stream
from cns_jax.core.settings import SettingsError, build

TREE = {"b": {"x.0": {"kernel": np.ones((4, 2))}}, "a": {"bias": np.zeros(3)}}


def test_names() -> None:
    assert list(tree.flatten(TREE)) == ["a.bias", "b.x.0.kernel"]
    with pytest.raises(ValueError, match="two leaves are both called 'a.b.c'"):
        tree.flatten({"a.b": {"c": 1}, "a": {"b": {"c": 2}}})


def test_names_joined_by_another_sign_can_be_taken_apart() -> None:
    nested = {"a.b": {"c": 1, "d": {"e": 2}}, "f": 3}
    flat = tree.flatten(nested, "/")
    assert flat == {"a.b/c": 1, "a.b/d/e": 2, "f": 3}
    assert tree.nested(flat, "/") == nested


def test_select_overlay_like() -> None:
    kernels = tree.select(TREE, lambda name: name.endswith("kernel"))
    assert kernels == {"b": {"x.0": {"kernel": TREE["b"]["x.0"]["kernel"]}}}
    changed = tree.overlay(TREE, {"b": {"x.0": {"kernel": 5}}})
    assert changed["b"]["x.0"]["kernel"] == 5 and changed["a"] is TREE["a"] and TREE["b"]["x.0"]["kernel"].shape
    with pytest.raises(KeyError, match="'c' is not in the tree"):
        tree.overlay(TREE, {"c": 1})
    assert tree.like(tree.flatten(TREE), TREE) == TREE
    with pytest.raises(ValueError, match="names differ"):
        tree.like({"a.bias": 0}, TREE)
    assert tree.count(TREE) == 11


def test_fingerprint_sees_names_shapes_and_values() -> None:
    base = tree.fingerprint(TREE)
    assert base == tree.fingerprint({"a": TREE["a"], "b": TREE["b"]})
    others = [
        {**TREE, "a": {"bias": np.ones(3)}},
        {**TREE, "a": {"scale": np.zeros(3)}},
        {**TREE, "a": {"bias": np.zeros((3, 1))}},
        {**TREE, "a": {"bias": np.zeros(3, np.float32)}},
    ]
    assert len({base, *map(tree.fingerprint, others)}) == 5


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    steps: int
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    maybe: str | None = None
    on: bool = False


def test_build() -> None:
    built = build(Outer, {"steps": 3, "names": ["x"], "inner": {"rate": 1}, "maybe": None})
    assert built == Outer(3, ("x",), Inner(1.0)) and isinstance(built.inner.rate, float)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stesp": 3}, "config.stesp is not a setting; did you mean config.steps?"),
        ({"rate": 3}, "config.rate is not a setting; did you mean config.inner.rate?"),
        ({"steps": 3, "inner": 5}, "config.inner=5 is a int; it must be a group of settings"),
        ({"steps": 3, "names": "abc"}, "config.names='abc' is a str; it must be a tuple"),
        ({"steps": 3, "inner": {"qqq": 1}}, "config.inner.qqq is not a setting; known: kind, rate"),
        ({"steps": "3"}, "config.steps='3' is a str; it must be int"),
        ({"steps": True}, "config.steps=True is a bool; it must be int"),
        ({"steps": 1, "on": 1}, "config.on=1 is a int; it must be bool"),
        ({"steps": 1, "inner": {"kind": "c"}}, "config.inner.kind='c' must be one of 'a', 'b'"),
        ({"steps": 1, "names": [1]}, r"config.names\[0\]=1 is a int; it must be str"),
        ({}, "config says nothing of steps, which must be given"),
    ],
)
def test_build_refuses(values: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        build(Outer, values)


def test_streams_differ_by_name_and_step() -> None:
    key = jax.random.key(0)
    keys = [stream(key, "a"), stream(key, "b"), stream(key, "a", 0), stream(key, "a", 1), stream(key, "b", 1)]
    assert len({tuple(np.asarray(jax.random.key_data(k))) for k in keys}) == 5
    again = jax.jit(lambda step: stream(key, "a", step))(jnp.int32(1))
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(keys[3]))


def test_placement() -> None:
    two = mesh.make_mesh(fsdp=2)
    assert mesh.place(two, "x.kernel", jnp.ones((4, 3))).sharding.spec == PartitionSpec("fsdp")
    window = mesh.place(two, "x.kernel", jnp.ones((3, 3, 4, 5))).sharding
    assert window.spec == PartitionSpec(None, None, "fsdp")
    assert mesh.place(two, "x.bias", jnp.ones(3)).sharding.spec == PartitionSpec()
    assert mesh.place(two, "x.kernel", jnp.ones((3, 4))).sharding.spec == PartitionSpec()
    with pytest.raises(KeyError, match="no sharding rule covers 'x.weigth'"):
        mesh.place(two, "x.weigth", jnp.ones(3))
    with pytest.raises(SettingsError, match="fsdp=3 does not divide the 4 devices"):
        mesh.make_mesh(fsdp=3)
