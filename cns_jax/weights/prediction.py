"""What a single file in the original layout predicts, where it says so: by empty tensors, or a .yaml beside it."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import yaml

from cns_jax.diffusion.schedule import Schedule, ScheduleError
from cns_jax.weights.diagnosis import what_is
from cns_jax.weights.tensors import WeightsMismatch

_LARGEST = 2**20  # bytes of a .yaml; Stable Diffusion's have 2,000
_KINDS = {"eps": "epsilon", "epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
_ZERO_SNR = ("ztsnr", "zsnr", "zero_terminal_snr", "rescale_betas_zero_snr")


def stated_schedule(file: Path, keys: Container[str]) -> dict[str, Any]:
    """Fields of a Schedule that a single file states: prediction_type, from the key `v_pred` (an empty tensor among the
    weights, as ComfyUI and A1111 know it) or from `parameterization` in the .yaml of its name, and that .yaml's betas.

    keys: names of the file's tensors. Raises ScheduleError for zero terminal SNR, WeightsMismatch for a .yaml that
    cannot be read.
    """
    beside = file.with_suffix(".yaml")
    said = _read(beside) if beside.is_file() else {}
    for source, there in ((file, keys), (beside, [name for name in _ZERO_SNR if said.get(name)])):
        name = next((name for name in _ZERO_SNR if name in there), "")
        if name:
            try:
                Schedule.from_config({"rescale_betas_zero_snr": True})
            except ScheduleError as error:
                raise ScheduleError(f"{source} says {name}, zero terminal SNR: {error}") from None
    found: dict[str, Any] = {}
    if "parameterization" in said:
        kind = said["parameterization"]
        if not isinstance(kind, str) or kind not in _KINDS:
            raise WeightsMismatch(f"{beside}: parameterization is {kind!r}; supported: eps, v")
        found["prediction_type"] = _KINDS[kind]
    if "v_pred" in keys:
        found["prediction_type"] = "v_prediction"
    for theirs, ours in (("linear_start", "beta_start"), ("linear_end", "beta_end")):
        if theirs in said:
            if not isinstance(said[theirs], float):
                raise WeightsMismatch(f"{beside}: {theirs} is {said[theirs]!r}, not a number like 0.00085")
            found[ours] = said[theirs]
    return found


def _read(file: Path) -> dict[str, Any]:
    """model.params of the configuration that belongs to a checkpoint in the original layout."""
    fix = "mend it, or move it away and give prediction_type"
    if file.stat().st_size > _LARGEST:
        raise WeightsMismatch(f"{file} has {file.stat().st_size} bytes, more than a model's configuration; {fix}")
    try:
        value = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        known = what_is(file, text=True)
        said = f"is {known}" if known else f"is not YAML ({' '.join(str(error).split())[:120]})"
        raise WeightsMismatch(f"{file} {said}; {fix}") from None
    for name in ("model", "params"):
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise WeightsMismatch(f"{file} has no model.params, as the configuration of a checkpoint has; {fix}")
    return value
