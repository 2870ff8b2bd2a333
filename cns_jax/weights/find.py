"""Files of a checkpoint folder: JSON, and the weights of a part under any of diffusers' names for them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from cns_jax.weights.tensors import WeightsMismatch

log = logging.getLogger(__name__)

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsMismatch naming a missing or broken file."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise WeightsMismatch(f"{file} does not exist; is {file.parent} a diffusers folder?") from None
    except json.JSONDecodeError as error:
        raise WeightsMismatch(f"{file} is not JSON ({error})") from None


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """A JSON object, readable and sorted."""
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def weight_file(folder: Path, name: str, variant: str) -> Path:
    """The file or the shards' index of a part. Raises WeightsMismatch saying what is there instead."""
    stem = name.removesuffix(".safetensors")

    def candidates(middle: str) -> list[Path]:
        dotted = f".{middle}" if middle else ""
        return [folder / f"{stem}{dotted}.safetensors", folder / f"{stem}.safetensors.index{dotted}.json"]

    for file in candidates(variant):
        if file.is_file():
            return file
    pattern = re.compile(
        re.escape(stem) + r"(?:\.([^.]+?)(?:-\d+-of-\d+)?\.safetensors|\.safetensors\.index\.([^.]+)\.json)"
    )
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    variants = sorted({m[1] or m[2] for n in names if (m := pattern.fullmatch(n))})
    if not variant and len(variants) == 1:
        log.info("%s: there is only the variant %r; reading it", folder, variants[0])
        return next(file for file in candidates(variants[0]) if file.is_file())
    if variant or variants:
        asked = f"variant {variant!r} is" if variant else "plain weights are"
        plain = ["the plain one"] if candidates("")[0].is_file() or candidates("")[1].is_file() else []
        raise WeightsMismatch(
            f"{folder}: {asked} not there; choose with variant=...: {', '.join(plain + variants) or 'there is none'}"
        )
    pickled = next((n for n in names if n.endswith(PICKLES)), None)
    if pickled:
        refuse_pickle(folder / pickled)
    raise WeightsMismatch(f"{folder / name} does not exist; a diffusers folder keeps the weights of this part there")


def refuse_pickle(file: Path) -> NoReturn:
    """Raise WeightsMismatch with the reason and the command that converts the file or the folder it lies in."""
    if file.suffix == ".msgpack":
        reason, call, what = (
            "a Flax file, which diffusers no longer writes or reads",
            "from_pretrained",
            file.parent.parent,
        )
    else:
        reason = "a Python pickle, which may run any code when it is opened"
        single = file.suffix in (".ckpt", ".pt", ".pth") and not (file.parent / "config.json").exists()
        call, what = ("from_single_file", file) if single else ("from_pretrained", file.parent.parent)
    target = what.with_name(f"{what.stem if what == file else what.name}-safetensors")
    raise WeightsMismatch(
        f"{file} is {reason}; only safetensors are read. If you trust its origin, convert it once where PyTorch and "
        f'diffusers are installed: python -c "from diffusers import StableDiffusionPipeline as P; '
        f"P.{call}('{what}').save_pretrained('{target}')\""
    )
