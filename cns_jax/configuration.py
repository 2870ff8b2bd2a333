"""What configuration files are made of."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from ml_collections import config_dict

from cns_jax.methods import METHODS


def method(name: str, **own: Any) -> dict[str, Any]:
    """The group `method` of a configuration: every setting of every method, so that flags can name any of them, with
    the values in `own`. A setting without a value there is empty, and means the default of the method that is chosen.

    Raises KeyError for a method or a setting that does not exist.
    """
    if name not in METHODS:
        raise KeyError(f"no method is called {name!r}; known: {', '.join(METHODS)}")
    group: dict[str, Any] = {}
    for cls in METHODS.values():
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            kind = hints[field.name]
            plain = kind if isinstance(kind, type) else type(typing.get_args(kind)[0])  # of a Literal, its values'
            group[field.name] = config_dict.placeholder(plain)
    unknown = sorted(set(own) - set(group))
    if unknown:
        raise KeyError(f"no method has a setting {unknown[0]!r}; known: {', '.join(group)}")
    return {**group, **own, "name": name}
