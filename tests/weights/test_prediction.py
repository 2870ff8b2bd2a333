"""What a single file predicts is read from what it says: keys, the .yaml beside it, metadata."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cns_jax.diffusion.schedule import ScheduleError
from cns_jax.weights.prediction import stated_schedule
from cns_jax.weights.single_file import Stored, _described
from cns_jax.weights.tensors import WeightsMismatch

KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
V = "model:\n  params:\n    parameterization: {}\n    linear_start: 0.00085\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.v1.safetensors"


def predicted(file: Path, width: int, keys: tuple[str, ...] = (), said: str = "", given: str = "") -> str:
    stored = {key: Stored(file, key, (0,)) for key in keys} | {KEY: Stored(file, KEY, (320, width))}
    metadata = {"modelspec.prediction_type": said} if said else {}
    return _described(file, stored, metadata, given)[1].prediction_type


@pytest.mark.parametrize("width", [768, 1024])
def test_the_strongest_word_counts(file: Path, width: int) -> None:
    """What the user gives, then keys, then the .yaml, then metadata, then what such models usually predict."""
    usual, other = ("epsilon", "v_prediction") if width == 768 else ("v_prediction", "epsilon")
    assert predicted(file, width) == usual
    assert predicted(file, width, said="v" if other == "v_prediction" else other) == other
    file.with_suffix(".yaml").write_text(V.format('"v"' if usual == "v_prediction" else "eps"))
    assert predicted(file, width, said=other) == usual
    file.with_suffix(".yaml").write_text(V.format("eps"))
    assert predicted(file, width) == "epsilon"
    assert predicted(file, width, ("v_pred",)) == "v_prediction"
    assert predicted(file, width, ("v_pred",), given="epsilon") == "epsilon"


def test_betas_come_along(file: Path) -> None:
    file.with_suffix(".yaml").write_text("model: {params: {linear_start: 0.001, linear_end: 0.02}}")
    assert stated_schedule(file, ()) == {"beta_start": 0.001, "beta_end": 0.02}


@pytest.mark.parametrize(("keys", "text"), [(("v_pred", "ztsnr"), ""), ((), "model: {params: {zsnr: true}}")])
def test_zero_terminal_snr_is_refused_as_by_config(file: Path, keys: tuple[str, ...], text: str) -> None:
    if text:
        file.with_suffix(".yaml").write_text(text)
    with pytest.raises(ScheduleError, match="zero terminal SNR: rescale_betas_zero_snr is True; supported: False") as e:
        predicted(file, 768, keys)
    assert str(file.with_suffix(".yaml") if text else file) in str(e.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {params: {parameterization: x0}}", "parameterization is 'x0'; supported: eps, v"),
        ("model: {params: {parameterization: [v]}}", "parameterization is ['v']; supported: eps, v"),
        ("model: {params: {linear_start: abc}}", "linear_start is 'abc', not a number like 0.00085"),
        ("model: [", "is not YAML"),
        ("a: 1", "has no model.params"),
        ("", "has no model.params"),
        ("<html><title>Sign in</title>", "has no model.params"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("[" * 5_000, "is not YAML"),
        ("# " + "x" * 2**20, "more than a model's configuration"),
    ],
)
def test_a_yaml_that_went_wrong_is_named(file: Path, text: str, said: str) -> None:
    beside = file.with_suffix(".yaml")
    beside.write_text(text)
    with pytest.raises(WeightsMismatch, match=re.escape(said)) as caught:
        stated_schedule(file, ())
    assert str(beside) in str(caught.value) and "\n" not in str(caught.value)
