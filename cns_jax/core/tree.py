"""Nested dicts of arrays and the dotted names of their leaves.

A leaf's dotted name is the key under which diffusers stores it, up to kernel/scale/embedding <-> weight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Tree = dict[str, Any]


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Joined name -> leaf, in sorted order.

    Raises ValueError where two leaves join to one name ({"a.b": {"c"}} beside {"a": {"b": {"c"}}}): such a
    pair would silently share one value in a file.
    """
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Mapping[str, Any]) -> None:
        for key in sorted(node):
            name = f"{prefix}{separator}{key}" if prefix else key
            child = node[key]
            if isinstance(child, Mapping):
                visit(name, child)
            elif name in flat:
                raise ValueError(f"two leaves are both called {name!r}")
            else:
                flat[name] = child

    visit("", tree)
    return flat


def select(tree: Mapping[str, Any], wanted: Callable[[str], bool]) -> Tree:
    """The nested sub-tree of the leaves whose dotted name is wanted; branches left empty are dropped."""

    def visit(prefix: str, node: Mapping[str, Any]) -> Tree:
        out: Tree = {}
        for key, child in node.items():
            name = f"{prefix}.{key}" if prefix else key
            if isinstance(child, Mapping):
                below = visit(name, child)
                if below:
                    out[key] = below
            elif wanted(name):
                out[key] = child
        return out

    return visit("", tree)


def overlay(tree: Mapping[str, Any], subset: Mapping[str, Any]) -> Tree:
    """A copy of `tree` in which the leaves of `subset` replace their namesakes.

    Raises KeyError if `subset` holds a leaf that `tree` lacks.
    """
    out = dict(tree)
    for key, child in subset.items():
        if key not in out:
            raise KeyError(f"{key!r} is not in the tree; it has {sorted(out)[:8]}")
        out[key] = overlay(out[key], child) if isinstance(child, Mapping) else child
    return out


def map_named(fn: Callable[[str, Any], Any], tree: Mapping[str, Any], prefix: str = "") -> Tree:
    """Apply `fn(dotted name, leaf)` to every leaf."""
    out: Tree = {}
    for key, child in tree.items():
        name = f"{prefix}.{key}" if prefix else key
        out[key] = map_named(fn, child, name) if isinstance(child, Mapping) else fn(name, child)
    return out


def like(flat: Mapping[str, Any], target: Mapping[str, Any]) -> Tree:
    """Dotted name -> leaf, back into the nesting of `target`; the names must be equal."""
    names = set(flatten(target))
    if names != set(flat):
        raise ValueError(f"names differ: {sorted(names ^ set(flat))[:8]}")
    return map_named(lambda name, _: flat[name], target)


def nested(flat: Mapping[str, Any], separator: str) -> Tree:
    """The inverse of `flatten` for a separator that no key of the tree holds."""
    out: Tree = {}
    for name, leaf in flat.items():
        *folders, last = name.split(separator)
        node = out
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return out


def count(tree: Mapping[str, Any]) -> int:
    """Number of scalars in all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


class Fingerprint:
    """SHA-256 over leaves given one by one in the order of their names: the identity of a set of weights."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, leaf: Any) -> None:
        """Take in a leaf's name, shape, dtype and bytes."""
        array = np.ascontiguousarray(leaf)
        self._digest.update(f"{name}:{np.shape(leaf)}:{array.dtype};".encode())
        self._digest.update(array.reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        """The first 16 hex digits."""
        return self._digest.hexdigest()[:16]


def fingerprint(tree: Mapping[str, Any]) -> str:
    """The `Fingerprint` of a whole tree."""
    found = Fingerprint()
    for name, leaf in flatten(tree).items():
        found.add(name, leaf)
    return found.hexdigest()
