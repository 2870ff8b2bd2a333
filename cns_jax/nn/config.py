"""Reading a diffusers/transformers config.json into a frozen dataclass: used fields are kept, the rest checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class UnsupportedConfig(ValueError):
    """A config.json asks for something that these modules do not build."""


def read_config(cls: type[T], config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> T:
    """Build dataclass `cls` from `config`; lists become tuples.

    fixed: field -> the values that this code implements. A config that carries another value there would
    load without complaint and compute something else, so it is refused.

    Raises UnsupportedConfig naming field and value.
    """
    for field, allowed in fixed.items():
        if field in config and _frozen(config[field]) not in allowed:
            raise UnsupportedConfig(
                f"{cls.__name__}: {field}={config[field]!r} is not supported (supported: {list(allowed)})"
            )
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{k: _frozen(v) for k, v in config.items() if k in known and v is not None})


def config_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as the JSON object that it was read from."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    return {k: v for k, v in plain.items() if v is not None}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def per_level(value: int | tuple[int, ...], levels: int, field: str) -> tuple[int, ...]:
    """An int repeated for every level, or a tuple checked to have one entry a level."""
    values = (value,) * levels if isinstance(value, int) else value
    if len(values) != levels:
        raise UnsupportedConfig(f"{field}={value!r} has {len(values)} entries, the model has {levels} levels")
    return values
