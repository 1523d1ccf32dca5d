"""What detkd promises to those who import it: a change here is a change for them."""

from __future__ import annotations

import importlib
import inspect

import pytest
from torch import nn

from detkd.losses import LOSSES

PUBLIC = {
    "detkd.losses": {
        "BCKD",
        "LD",
        "LOSSES",
        "PKD",
        "ScoreL2",
        "SoftKL",
        "bckd",
        "ld",
        "pkd",
        "score_l2",
        "soft_kl",
        "valuable_region",
    },
    "detkd.ops": {
        "attention_mse",
        "attention_transfer",
        "binary_kl",
        "build_info",
        "kl_div",
        "load_error",
        "standardized_mse",
    },
}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_the_public_names_are_these(module: str) -> None:
    loaded = importlib.import_module(module)
    assert set(loaded.__all__) == PUBLIC[module]
    assert all(hasattr(loaded, name) for name in loaded.__all__)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_each_loss_is_a_documented_function_and_a_module_of_the_same_defaults(name: str) -> None:
    module = LOSSES[name]
    function = getattr(importlib.import_module("detkd.losses"), name)
    assert issubclass(module, nn.Module)
    parameters = inspect.signature(function).parameters
    settings = {key for key in inspect.signature(module.__init__).parameters if key != "self"}
    for key in settings & set(parameters):
        assert inspect.signature(module.__init__).parameters[key].default == parameters[key].default, key
    for section in ("Args:", "Returns:", "Source:"):
        assert section in (function.__doc__ or ""), section
