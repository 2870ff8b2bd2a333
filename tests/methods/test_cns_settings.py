from __future__ import annotations

import warnings

import pytest

from cns_jax.core.settings import SettingsError, build
from cns_jax.methods import METHODS
from cns_jax.methods.cns import CNS


def test_defaults_are_the_papers():
    method = CNS()
    assert (method.ratio, method.calibration_prompts) == (0.3, 20)
    assert (method.lr_neurons, method.lr_token, method.prior_weight) == (3e-5, 5e-4, 1.0)
    assert method.adam_epsilon == 1e-8
    assert (method.positions, method.scored, method.selection) == ("caption+eot", "base", "concept")
    assert METHODS["cns"] is CNS
    assert hash(method) == hash(CNS())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": 0.0}, r"method.ratio=0.0 must be above 0 and below 1"),
        ({"ratio": 1.0}, r"method.ratio=1.0 must be above 0 and below 1"),
        ({"ratio": float("nan")}, r"method.ratio=nan"),
        ({"calibration_prompts": 0}, r"method.calibration_prompts=0 must be positive"),
        ({"lambda1": -1.0}, r"method.lambda1=-1.0 must be finite and not negative"),
        ({"lambda2": float("nan")}, r"method.lambda2=nan"),
        ({"lr_neurons": float("inf")}, r"method.lr_neurons=inf"),
        ({"adam_epsilon": 0.0}, r"method.adam_epsilon=0.0 must be positive and finite"),
        ({"prior_weight": -0.5}, r"method.prior_weight=-0.5"),
        ({"selection": "concepts"}, r"method.selection='concepts' must be one of 'concept', 'random', 'all'"),
        ({"positions": "caption+eos"}, r"method.positions='caption\+eos' must be one of"),
        ({"scored": "previous"}, r"method.scored='previous' must be one of 'base', 'current'"),
    ],
)
def test_a_bad_value_is_refused_by_name(values, message):
    with pytest.raises(SettingsError, match=message):
        CNS(**values)


def test_a_lambda2_that_fades_old_concepts_is_only_warned_of():
    with pytest.warns(UserWarning, match="lambda2=0.5 is over a tenth of lambda1=1.0"):
        CNS(lambda1=1.0, lambda2=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CNS(lambda1=0.0, lambda2=0.0)
        for lambda1 in (0.3, 1.0, 7.0, 1e4):
            CNS(lambda1=lambda1, lambda2=lambda1 / 10)
        CNS(lambda1=3e-4, lambda2=3e-5)


def test_it_is_built_from_a_config():
    assert build(CNS, {"ratio": 0.2, "lambda1": 10}) == CNS(ratio=0.2, lambda1=10.0)
    with pytest.raises(SettingsError, match="lamda1 is not a setting; did you mean config.lambda1"):
        build(CNS, {"lamda1": 10})
