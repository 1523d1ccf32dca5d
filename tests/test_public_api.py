"""What detkd promises to those who import it: a change here is a change for them."""

from __future__ import annotations

import importlib
import inspect

import pytest
from torch import nn

from detkd.losses import LOSSES

PUBLIC = {
    "detkd.losses": {
        "AT",
        "BCKD",
        "BYOT",
        "CWD",
        "DIST",
        "DKD",
        "FGD",
        "LD",
        "LOSSES",
        "MGD",
        "PKD",
        "RKD",
        "SP",
        "Adversarial",
        "AttentionMap",
        "ClassLabel",
        "Consistency",
        "HiddenState",
        "BoundedBox",
        "CrossKD",
        "DetectionLabel",
        "FitNet",
        "HardLabel",
        "MaskKD",
        "Pairwise",
        "PixelCWD",
        "PixelDIST",
        "PixelKL",
        "PixelLabel",
        "RegionLabel",
        "RegionMask",
        "ScoreL2",
        "SoftKL",
        "at",
        "adversarial",
        "attention_map",
        "class_label",
        "consistency",
        "hidden_state",
        "bckd",
        "bounded_box",
        "box_ld",
        "byot",
        "cwd",
        "detection_label",
        "dist",
        "dkd",
        "fitnet",
        "hard_label",
        "ld",
        "mask_kd",
        "object_weights",
        "pairwise",
        "pixel_cwd",
        "pixel_dist",
        "pixel_kl",
        "pixel_label",
        "pkd",
        "region_label",
        "region_mask",
        "rkd",
        "score_l2",
        "soft_kl",
        "sp",
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


MODULES_ONLY = {"cross_kd", "fgd", "mgd"}  # their parameters train, or they need the teacher's head


@pytest.mark.parametrize("name", sorted(set(LOSSES) - MODULES_ONLY))
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


@pytest.mark.parametrize("name", sorted(MODULES_ONLY))
def test_a_loss_without_a_function_is_documented_where_it_stands(name: str) -> None:
    module = LOSSES[name]
    assert "Source:" in (module.__doc__ or "")
    for section in ("Args:",):
        assert section in (module.__doc__ or "")
        assert section in (module.forward.__doc__ or "")
