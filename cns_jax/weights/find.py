"""Files of a checkpoint folder: JSON, and the weights of a part under any of diffusers' names for them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from cns_jax.core import files
from cns_jax.weights.diagnosis import what_is
from cns_jax.weights.tensors import WeightsMismatch

log = logging.getLogger(__name__)

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsMismatch naming a missing or broken file."""
    try:
        return files.read_json(file)
    except FileNotFoundError:
        raise WeightsMismatch(f"{file} does not exist; is {file.parent} a diffusers folder?") from None
    except files.FileError as error:
        known = what_is(file, text=True)
        raise WeightsMismatch(f"{file} is {known}" if known else str(error)) from None


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """A JSON object, readable and sorted."""
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def weight_file(folder: Path, name: str, variant: str) -> Path:
    """The file or the shards' index of a part. Raises WeightsMismatch saying what is there instead."""
    stem = name.removesuffix(".safetensors")

    def candidates(middle: str) -> list[Path]:
        dotted = f".{middle}" if middle else ""
        return [folder / f"{stem}{dotted}.safetensors", folder / f"{stem}.safetensors.index{dotted}.json"]

    def there(middle: str) -> Path | None:
        return next((file for file in candidates(middle) if file.is_file()), None)

    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    pattern = re.compile(re.escape(stem) + r"\.(?:safetensors\.index\.)?([^.]+?)(?:-\d+-of-\d+)?\.(?:safetensors|json)")
    found = (pattern.fullmatch(name) for name in names)
    variants = sorted({m[1] for m in found if m and m[1] != "safetensors" and there(m[1])})
    plain = there("")
    chosen = there(variant) or plain or (there(variants[0]) if len(variants) == 1 else None)
    if chosen is not None:
        if variant and chosen == plain:  # as diffusers: not every part has every variant
            log.info("%s: there is no variant %r; reading the plain file", folder, variant)
        elif chosen not in (plain, there(variant)):
            log.info("%s: reading the only variant there is, %r", folder, variants[0])
        return chosen
    if variants:
        asked = f"neither the variant {variant!r} nor a plain file is" if variant else "a plain file is not"
        raise WeightsMismatch(f"{folder}: {asked} there; choose with variant=...: {', '.join(variants)}")
    shards = [name for name in names if re.fullmatch(re.escape(stem) + r".*-\d+-of-\d+\.safetensors", name)]
    if shards:
        raise WeightsMismatch(
            f"{folder} holds shards ({shards[0]}), but not the index that belongs to them (*.index.json)"
        )
    pickled = next((n for n in names if n.endswith(PICKLES)), None)
    if pickled:
        refuse_pickle(folder / pickled)
    raise WeightsMismatch(f"{folder / name} does not exist; a diffusers folder keeps the weights of this part there")


def refuse_pickle(file: Path) -> NoReturn:
    """Raise WeightsMismatch with the reason and the command that converts the file or the folder it lies in."""
    file = file.absolute()
    folder = file.parent.parent
    whole = (folder / "model_index.json").exists()
    call, what = ("from_pretrained", folder) if whole else ("from_single_file", file)
    reason = "a Python pickle, which may run any code when it is opened"
    if file.suffix == ".msgpack":
        reason = "a Flax file, which diffusers no longer writes or reads"
    target = what.with_name(f"{what.name if whole else what.stem}-safetensors")
    command = f"from diffusers import StableDiffusionPipeline as P; P.{call}('{what}').save_pretrained('{target}')"
    raise WeightsMismatch(
        f"{file} is {reason}; only safetensors are read. If you trust its origin, convert it once where PyTorch and "
        f'diffusers are installed: python -c "{command}"'
    )
